/* ct_map.c - storage of conntrack entries, see ct_map.h. Called by ct.c, which gives them meaning.
 *
 * Theory. A line holds ten (entry index, tag); the tag is hash bits and the tuple flags, so that
 * the IN and the OUT entry of one local connection, which share a line, never look alike. An entry
 * that finds its home line full goes to one of the next lines, and each line it passed counts it
 * in `overflow`: a miss stops at the first line nobody passed. Entries never move, so that a
 * cursor is an entry's index.
 *
 * An entry lives from its `check` being set to its `check` being cleared. The writer clears it
 * first and sets it last, so whoever dies in between leaves one entry that does not count; index
 * and free list are rebuilt from the entries at attach and need no order of their own.
 *
 * Full map: a bounded scan by a clock hand takes the first expired entry it meets; without one,
 * the first that no connection depends on: a flow that was never answered, a TCP entry that has
 * seen only SYNs or whose connection is over, or an ICMP companion. Otherwise the insert is refused
 * and counted, and the next sweep puts the hand where something can go, however long the row of
 * established flows is that it stopped in. New flows, at any rate and of any kind, never cost an
 * established connection its entry.
 */
#include "tables/ct_map.h"

#include "base/hash.h"

#include <stdatomic.h>

enum { CT_RECLAIM_SCAN = 64 };
enum { CT_OVER = FWD_CT_RX_CLOSING | FWD_CT_TX_CLOSING };
enum { CT_DUMP_SCAN = 4096 }; /* entries one dump call may walk beyond what it returns */

/* ---- layout ---- */

static uint32_t ct_n_lines(uint32_t cap)
{
    return table_pow2(cap / 4); /* four of ten slots used when full: overflow is rare */
}

uint64_t ct_map_size(uint32_t cap)
{
    return table_align(sizeof(struct ct_map) + sizeof(struct ct_line) * (uint64_t)ct_n_lines(cap) +
                       sizeof(struct ct_entry) * (uint64_t)cap);
}

void ct_map_init(struct ct_map *map, uint32_t cap, uint64_t seed)
{
    *map = (struct ct_map){.cap = cap, .n_lines = ct_n_lines(cap), .free = CT_NIL, .seed = seed};
}

/* ---- keys ---- */

static bool ct_tuple_equal(const struct ct_tuple *a, const struct ct_tuple *b)
{
    const uint8_t *x = (const uint8_t *)a, *y = (const uint8_t *)b;
    uint64_t differ = 0;
    for (uint32_t at = 0; at < 32; at += 8)
        differ |= hash_load64(x + at) ^ hash_load64(y + at);
    /* The last word overlaps: 38 bytes in five loads, where a call to memcmp costs as much. */
    return !(differ | (hash_load64(x + sizeof(*a) - 8) ^ hash_load64(y + sizeof(*a) - 8)));
}

uint64_t ct_hash(uint64_t seed, const struct ct_tuple *tuple)
{
    uint64_t a = hash_addr(seed, tuple->saddr.b, tuple->sport);
    uint64_t b = hash_addr(seed, tuple->daddr.b, tuple->dport);
    /* Sum and difference-without-sign: the same whichever side comes first. */
    return hash_mix((a + b) ^ tuple->proto, (a ^ b) ^ seed ^ 0x589965cc75374cc3ULL);
}

/* ct_check: unlike the hash it tells a tuple from its reverse. Never 0. */
static uint16_t ct_check(uint64_t seed, const struct ct_tuple *key)
{
    uint64_t rest = (uint64_t)key->dport << 32 | (uint64_t)key->sport << 16 |
                    (uint64_t)key->proto << 8 | key->flags;
    uint64_t mixed = hash_addr(seed, key->saddr.b, rest);
    mixed = hash_addr(mixed, key->daddr.b, rest);
    uint16_t check = (uint16_t)(mixed >> 48);
    return check ? check : 1;
}

/* ---- index ---- */

uint32_t ct_map_find(const struct ct_map *map, const struct ct_tuple *key, uint64_t hash)
{
    uint16_t tag = ct_tag(hash, key->flags);
    struct ct_line *line;
    for (uint32_t n = 0; (line = ct_map_line(map, hash, n)); n++) {
        for (uint32_t found = ct_line_find(line, tag, UINT16_MAX); found;) {
            uint32_t index = line->index[ct_line_next(&found)];
            if (ct_tuple_equal(&ct_map_entry(map, index)->key, key))
                return index;
        }
        if (!line->overflow)
            break;
    }
    return CT_NIL;
}

static bool ct_link(struct ct_map *map, uint64_t hash, uint8_t flags, uint32_t index)
{
    struct ct_line *line;
    for (uint32_t n = 0; (line = ct_map_line(map, hash, n)); n++) {
        int slot = 0;
        while (slot < CT_SLOTS && line->tag[slot])
            slot++;
        if (slot == CT_SLOTS)
            continue;
        line->index[slot] = index;
        line->tag[slot] = ct_tag(hash, flags);
        while (n > 0)
            ct_map_line(map, hash, --n)->overflow++;
        return true;
    }
    return false;
}

static void ct_unlink(struct ct_map *map, uint64_t hash, uint32_t index)
{
    struct ct_line *line;
    for (uint32_t n = 0; (line = ct_map_line(map, hash, n)); n++) {
        int slot = 0;
        while (slot < CT_SLOTS && (!line->tag[slot] || line->index[slot] != index))
            slot++;
        if (slot == CT_SLOTS)
            continue;
        line->tag[slot] = 0;
        while (n > 0)
            ct_map_line(map, hash, --n)->overflow--;
        return;
    }
}

/* ---- entries ---- */

static void ct_free(struct ct_map *map, uint32_t index)
{
    struct ct_entry *entry = ct_map_entry(map, index);
    entry->check = 0;
    atomic_signal_fence(memory_order_seq_cst); /* dead before anything else of it changes */
    entry->next_free = map->free;
    map->free = index;
}

static void ct_delete(struct ct_map *map, uint32_t index)
{
    struct ct_tuple *key = &ct_map_entry(map, index)->key;
    ct_unlink(map, ct_hash(map->seed, key), index);
    ct_free(map, index);
    map->count--;
}

/* ct_expendable: no connection is lost with this entry. A service entry has one direction only, so
 * for it silence of the other side means nothing, and a client's FIN is not the end: it still leads
 * the client's last packets to their backend. */
static bool ct_expendable(const struct ct_entry *entry)
{
    if (entry->key.proto == PROTO_TCP && !(entry->flags & FWD_CT_SEEN_NON_SYN))
        return true;
    if (entry->key.flags & FWD_TUPLE_SERVICE)
        return false;
    if ((entry->flags & CT_OVER) == CT_OVER)
        return true;
    return entry->key.flags & FWD_TUPLE_RELATED || !entry->rx_packets || !entry->tx_packets;
}

/* ct_reclaim: delete one entry of a full map, which leaves it on the free list. */
static bool ct_reclaim(struct ct_map *map, uint32_t now_s)
{
    uint32_t victim = CT_NIL;
    for (uint32_t n = 0; n < CT_RECLAIM_SCAN && n < map->cap; n++) {
        uint32_t index = map->hand;
        const struct ct_entry *entry = ct_map_entry(map, index);
        map->hand = index + 1 < map->cap ? index + 1 : 0;
        if (entry->expires_s < now_s) {
            ct_delete(map, index);
            map->stuck = 0;
            return true;
        }
        if (victim == CT_NIL && ct_expendable(entry))
            victim = index;
    }
    map->stuck = victim == CT_NIL;
    if (map->stuck)
        return false;
    map->hand = victim + 1 < map->cap ? victim + 1 : 0; /* the others' turn comes next */
    map->evictions++;
    ct_delete(map, victim);
    return true;
}

static uint32_t ct_alloc(struct ct_map *map, uint32_t now_s)
{
    if (map->free == CT_NIL && map->top < map->cap)
        return map->top++;
    if (map->free == CT_NIL && !ct_reclaim(map, now_s))
        return CT_NIL;
    uint32_t index = map->free;
    map->free = ct_map_entry(map, index)->next_free;
    return index;
}

bool ct_map_store(struct ct_map *map, const struct ct_tuple *key, uint64_t hash,
                  const struct ct_entry *content, uint32_t now_s)
{
    uint32_t index = ct_map_find(map, key, hash);
    bool found = index != CT_NIL;
    if (!found)
        index = ct_alloc(map, now_s);
    if (index == CT_NIL) {
        map->failures++;
        return false;
    }
    struct ct_entry *entry = ct_map_entry(map, index);
    entry->check = 0;
    atomic_signal_fence(memory_order_seq_cst);
    *entry = *content;          /* its check is 0 */
    entry->key = *key;
    atomic_signal_fence(memory_order_seq_cst);
    entry->check = ct_check(map->seed, key);
    if (found)
        return true;
    if (!ct_link(map, hash, key->flags, index)) {
        ct_free(map, index);
        map->failures++;
        return false;
    }
    map->count++;
    return true;
}

bool ct_map_validate(struct ct_map *map, uint64_t size, uint32_t cap, uint64_t seed,
                     uint32_t *torn)
{
    if (size != ct_map_size(cap) || map->cap != cap || map->n_lines != ct_n_lines(cap) ||
        map->top > cap)
        return false;
    memset(ct_map_lines(map), 0, sizeof(struct ct_line) * map->n_lines);
    map->seed = seed;
    map->count = map->hand = 0;
    map->free = CT_NIL;
    for (uint32_t index = map->top; index-- > 0;) {
        struct ct_entry *entry = ct_map_entry(map, index);
        uint64_t hash = ct_hash(seed, &entry->key);
        bool good = entry->check && entry->check == ct_check(seed, &entry->key) &&
                    ct_map_find(map, &entry->key, hash) == CT_NIL &&
                    ct_link(map, hash, entry->key.flags, index);
        if (good) {
            map->count++;
            continue;
        }
        *torn += entry->check != 0;
        ct_free(map, index);
    }
    return true;
}

/* ---- cursors ---- */

static void ct_row(const struct ct_entry *entry, struct fwd_ct_row *row)
{
    bool service = entry->key.flags & FWD_TUPLE_SERVICE;
    *row = (struct fwd_ct_row){
        .daddr = entry->key.daddr, .saddr = entry->key.saddr,
        .dport = entry->key.dport, .sport = entry->key.sport,
        .proto = entry->key.proto, .tuple_flags = entry->key.flags, .flags = entry->flags,
        .rx_packets = entry->rx_packets, .rx_bytes = service ? 0 : entry->rx_bytes,
        .tx_packets = entry->tx_packets, .tx_bytes = entry->tx_bytes,
        .expires_s = entry->expires_s, .src_identity = entry->src_identity,
        .last_rx_report_s = entry->last_rx_report_s, .last_tx_report_s = entry->last_tx_report_s,
        .backend_id = service ? (uint32_t)entry->backend_id : 0,
        .rev_nat_id = entry->rev_nat_id, .ifindex = entry->ifindex,
        .rx_flags_seen = entry->rx_flags_seen, .tx_flags_seen = entry->tx_flags_seen,
    };
}

uint32_t ct_map_dump(const struct ct_map *map, uint64_t *cursor, struct fwd_ct_row *rows,
                     uint32_t cap)
{
    uint64_t end = *cursor + cap + CT_DUMP_SCAN;
    uint32_t n = 0;
    for (; *cursor < map->top && *cursor < end && n < cap; ++*cursor) {
        const struct ct_entry *entry = ct_map_entry(map, (uint32_t)*cursor);
        if (entry->check)
            ct_row(entry, &rows[n++]);
    }
    if (*cursor >= map->top)
        *cursor = 0;
    return n;
}

static bool ct_touches(const struct ct_entry *entry, const void *addr)
{
    return addr_equal(&entry->key.saddr, addr) || addr_equal(&entry->key.daddr, addr);
}

static bool ct_expired(const struct ct_entry *entry, const void *now_s)
{
    return entry->expires_s < *(const uint32_t *)now_s;
}

uint32_t ct_map_purge(struct ct_map *map, bool (*gone)(const struct ct_entry *, const void *),
                      const void *about, uint64_t *cursor, uint32_t budget)
{
    uint32_t deleted = 0;
    for (; *cursor < map->top && budget > 0; ++*cursor, budget--) {
        const struct ct_entry *entry = ct_map_entry(map, (uint32_t)*cursor);
        if (!entry->check || !gone(entry, about))
            continue;
        ct_delete(map, (uint32_t)*cursor);
        deleted++;
    }
    if (*cursor >= map->top)
        *cursor = 0;
    return deleted;
}

/* ct_unstick: let the next reclaiming scan start at the first expendable entry from @at on. */
static void ct_unstick(struct ct_map *map, uint64_t at, uint32_t budget)
{
    for (; at < map->top && budget > 0; at++, budget--) {
        const struct ct_entry *entry = ct_map_entry(map, (uint32_t)at);
        if (entry->check && ct_expendable(entry)) {
            map->hand = (uint32_t)at;
            map->stuck = 0;
            return;
        }
    }
}

uint32_t ct_map_sweep(struct ct_map *map, uint32_t now_s, uint64_t *cursor, uint32_t budget)
{
    if (map->stuck)
        ct_unstick(map, *cursor, budget);
    return ct_map_purge(map, ct_expired, &now_s, cursor, budget);
}

uint32_t ct_map_purge_addr(struct ct_map *map, const struct fwd_addr *addr, uint64_t *cursor,
                           uint32_t budget)
{
    return ct_map_purge(map, ct_touches, addr, cursor, budget);
}

void ct_map_stats(const struct ct_map *map, struct fwd_table_stats *stats)
{
    *stats = (struct fwd_table_stats){
        .cap = map->cap, .count = map->count, .size = ct_map_size(map->cap),
        .evictions = map->evictions, .failures = map->failures,
    };
}
