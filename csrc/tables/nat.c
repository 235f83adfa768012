/* nat.c - cilium_snat_v4_external, see nat.h.
 *
 * Theory. A mapping is two entries of one hash: OUT, by what the packet says before translation, and
 * IN, by what its answer says. Each holds the other's place. The IN entry is claimed first, so that
 * no two mappings ever share a port toward one destination; a writer killed in between leaves one
 * half, which attach drops. The OUT entries form a list from the newest to the oldest use, whichever
 * way a packet went; after attach that list is in slot order, which forgets who was used last and
 * nothing else. No timers: a mapping goes with its connection's conntrack entry (fwd_nat_sweep).
 */
#include "tables/arena.h"
#include "tables/hashtab.h"

struct nat_slot {
    struct hashtab_link link;
    struct nat_tuple key;
    struct nat_target target;
    uint64_t created_ns;
    uint32_t partner;           /* reference: the other half */
    uint32_t newer, older;      /* references of OUT entries, 0 = end of the list */
    uint32_t pad;
};

struct nat_table {
    uint32_t newest, oldest;
    uint64_t evictions;
    uint64_t exhausted;         /* flows that found no free port */
    uint8_t pad[40];
    struct hashtab tab;
};

static_assert(offsetof(struct nat_slot, key) == sizeof(struct hashtab_link), "key place");
static_assert(offsetof(struct nat_table, tab) % TABLE_ALIGN == 0, "heads on cache lines");
static_assert(sizeof(struct nat_tuple) == 38, "the key has no padding");

static const struct hashtab_shape nat_shape = {sizeof(struct nat_slot), sizeof(struct nat_tuple)};

static struct nat_slot *nat_at(const struct nat_table *table, uint32_t ref)
{
    return hashtab_at(&table->tab, nat_shape, ref);
}

static uint16_t nat_be16(uint32_t port)
{
    return be16_to_host((uint16_t)port);
}

/* ---- the list ---- */

static void nat_list_remove(struct nat_table *table, const struct nat_slot *slot)
{
    *(slot->newer ? &nat_at(table, slot->newer)->older : &table->newest) = slot->older;
    *(slot->older ? &nat_at(table, slot->older)->newer : &table->oldest) = slot->newer;
}

static void nat_list_push(struct nat_table *table, uint32_t ref)
{
    struct nat_slot *slot = nat_at(table, ref);
    slot->newer = 0;
    slot->older = table->newest;
    *(table->newest ? &nat_at(table, table->newest)->newer : &table->oldest) = ref;
    table->newest = ref;
}

static void nat_touch(struct nat_table *table, uint32_t ref)
{
    if (nat_at(table, ref)->key.flags != FWD_TUPLE_OUT)
        ref = nat_at(table, ref)->partner;
    if (ref == table->newest)
        return;
    nat_list_remove(table, nat_at(table, ref));
    nat_list_push(table, ref);
}

/* ---- halves ---- */

/* nat_partner: the key of an entry's other half. */
static struct nat_tuple nat_partner(const struct nat_tuple *key, const struct nat_target *target)
{
    struct nat_tuple other = {.proto = key->proto};
    if (key->flags == FWD_TUPLE_OUT) {
        other.saddr = key->daddr;
        other.sport = key->dport;
        other.daddr = target->addr;
        other.dport = target->port;
        other.flags = FWD_TUPLE_IN;
    } else {
        other.saddr = target->addr;
        other.sport = target->port;
        other.daddr = key->saddr;
        other.dport = key->sport;
        other.flags = FWD_TUPLE_OUT;
    }
    return other;
}

/* nat_remove: a mapping, by either half. */
static void nat_remove(struct nat_table *table, uint32_t ref)
{
    uint32_t out = nat_at(table, ref)->key.flags == FWD_TUPLE_OUT ? ref : nat_at(table, ref)->partner;
    uint32_t in = nat_at(table, out)->partner;
    nat_list_remove(table, nat_at(table, out));
    hashtab_remove(&table->tab, nat_shape, &nat_at(table, out)->key);
    hashtab_remove(&table->tab, nat_shape, &nat_at(table, in)->key);
}

static uint32_t nat_insert(struct nat_table *table, const struct nat_tuple *key,
                           const struct nat_target *target, uint64_t now_ns)
{
    bool fresh;
    uint32_t ref = hashtab_claim(&table->tab, nat_shape, key, &fresh);
    struct nat_slot *slot = nat_at(table, ref);
    slot->target = *target;
    slot->created_ns = now_ns;
    hashtab_commit(&table->tab, nat_shape, ref);
    return ref;
}

/* ---- life ---- */

static bool nat_keep(const void *slot)
{
    const struct nat_tuple *key = &((const struct nat_slot *)slot)->key;
    return key->flags == FWD_TUPLE_OUT || key->flags == FWD_TUPLE_IN;
}

uint64_t nat_size(uint32_t cap)
{
    return table_align(offsetof(struct nat_table, tab) + hashtab_size(cap, nat_shape));
}

void nat_init(struct nat_table *table, uint32_t cap, uint64_t seed)
{
    memset(table, 0, sizeof(*table));
    hashtab_init(&table->tab, cap, seed);
}

/* nat_rejoin: find each half's other one again; a half without is taken out. */
static void nat_rejoin(struct nat_table *table)
{
    for (uint32_t ref = 0; (ref = hashtab_next(&table->tab, nat_shape, ref)) != 0;) {
        struct nat_slot *slot = nat_at(table, ref);
        struct nat_tuple key = nat_partner(&slot->key, &slot->target);
        uint32_t partner = hashtab_find(&table->tab, nat_shape, &key);
        struct nat_tuple back = {.flags = UINT8_MAX};
        if (partner)
            back = nat_partner(&key, &nat_at(table, partner)->target);
        if (memcmp(&back, &slot->key, sizeof(back)) != 0) {
            hashtab_remove(&table->tab, nat_shape, &slot->key);
            continue;
        }
        slot->partner = partner;
        if (slot->key.flags == FWD_TUPLE_OUT)
            nat_list_push(table, ref);
    }
}

bool nat_validate(struct nat_table *table, uint64_t size, uint32_t cap)
{
    if (size < nat_size(cap) || !hashtab_validate(&table->tab, cap, nat_shape, nat_keep))
        return false;
    table->newest = 0;
    table->oldest = 0;
    nat_rejoin(table);
    return true;
}

void nat_stats(const struct nat_table *table, struct fwd_table_stats *stats)
{
    hashtab_stats(&table->tab, nat_shape, stats);
    stats->size = nat_size(table->tab.cap);
    stats->evictions = table->evictions;
    stats->failures = table->exhausted;
}

/* ---- packets ---- */

bool nat_lookup(struct nat_table *table, const struct nat_tuple *tuple, struct nat_target *target)
{
    uint32_t ref = hashtab_find(&table->tab, nat_shape, tuple);
    if (!ref)
        return false;
    *target = nat_at(table, ref)->target;
    nat_touch(table, ref);
    return true;
}

/* nat_port: a free port toward the tuple's destination, into @target. False: none in NAT_TRIES. The
 * draw is keyed by the arena's seed: nobody outside can tell, and a replay draws the same. */
static bool nat_port(struct nat_table *table, const struct nat_tuple *tuple,
                     struct nat_target *target)
{
    uint64_t random = hashtab_hash(&table->tab, tuple, sizeof(*tuple));
    uint32_t port = be16_to_host(tuple->sport);
    if (port < NAT_PORT_MIN)
        port = NAT_PORT_MIN | (random & 0x7fff);
    for (uint32_t tries = 0; tries < NAT_TRIES; tries++) {
        if (tries == 1)
            port = NAT_PORT_MIN | (random >> 16 & 0x7fff);
        else if (tries > 1)
            port = port == NAT_PORT_MAX ? NAT_PORT_MIN : port + 1;
        target->port = nat_be16(port);
        struct nat_tuple in = nat_partner(tuple, target);
        if (!hashtab_find(&table->tab, nat_shape, &in))
            return true;
    }
    return false;
}

enum fwd_drop nat_map(struct nat_table *table, const struct nat_tuple *tuple,
                      const struct fwd_addr *behind, uint64_t now_ns, struct nat_target *target)
{
    uint32_t ref = hashtab_find(&table->tab, nat_shape, tuple);
    if (ref && addr_equal(&nat_at(table, ref)->target.addr, behind)) {
        *target = nat_at(table, ref)->target;
        nat_touch(table, ref);
        return FWD_DROP_NONE;
    }
    if (ref) /* the node's address is another one now */
        nat_remove(table, ref);
    target->addr = *behind;
    if (table->tab.cap < 2 || !nat_port(table, tuple, target)) {
        table->exhausted++;
        return FWD_DROP_NO_MAPPING_FOR_NAT_MASQUERADE;
    }
    while (table->tab.cap - table->tab.count < 2) {
        nat_remove(table, table->oldest);
        table->evictions++;
    }
    struct nat_tuple in = nat_partner(tuple, target);
    struct nat_target back = {.addr = tuple->saddr, .port = tuple->sport};
    uint32_t in_ref = nat_insert(table, &in, &back, now_ns);
    uint32_t out_ref = nat_insert(table, tuple, target, now_ns);
    nat_at(table, in_ref)->partner = out_ref;
    nat_at(table, out_ref)->partner = in_ref;
    nat_list_push(table, out_ref);
    return FWD_DROP_NONE;
}

/* ---- abi.h ---- */

uint32_t fwd_nat_dump(struct fwd_dp *dp, uint64_t *cursor, struct fwd_nat_row *rows, uint32_t cap)
{
    struct nat_table *table = dp->nat;
    uint32_t n = 0, ref = 0;
    while (n < cap && (ref = hashtab_next(&table->tab, nat_shape, *cursor)) != 0) {
        const struct nat_slot *slot = nat_at(table, ref);
        rows[n++] = (struct fwd_nat_row){
            .daddr = slot->key.daddr, .saddr = slot->key.saddr, .to_addr = slot->target.addr,
            .dport = slot->key.dport, .sport = slot->key.sport, .to_port = slot->target.port,
            .proto = slot->key.proto, .flags = slot->key.flags, .created_ns = slot->created_ns};
        *cursor = ref;
    }
    if (n < cap)
        *cursor = 0;
    return n;
}

/* nat_orphan: has conntrack forgotten the flow of an OUT entry? Stored there with addresses
 * reversed and ports as in the packet (datapath reference 3.1). */
static bool nat_orphan(const struct fwd_dp *dp, const struct nat_tuple *key)
{
    struct ct_tuple flow = {.daddr = key->saddr, .saddr = key->daddr, .dport = key->dport,
                            .sport = key->sport, .proto = key->proto, .flags = FWD_TUPLE_OUT};
    struct ct_state state;
    return !ct_get(&dp->ct, &flow, ct_hash(dp->ct.seed, &flow), &state);
}

uint32_t fwd_nat_sweep(struct fwd_dp *dp, uint64_t *cursor, uint32_t budget)
{
    struct nat_table *table = dp->nat;
    uint32_t deleted = 0;
    while (budget--) {
        uint32_t ref = hashtab_next(&table->tab, nat_shape, *cursor);
        *cursor = ref;
        if (!ref)
            break;
        const struct nat_tuple *key = &nat_at(table, ref)->key;
        if (key->flags == FWD_TUPLE_OUT && nat_orphan(dp, key)) {
            nat_remove(table, ref);
            deleted++;
        }
    }
    return deleted;
}
