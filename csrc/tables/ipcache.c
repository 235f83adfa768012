/* ipcache.c - cilium_ipcache: prefix to identity and tunnel endpoint.
 *
 * One hash of (prefix, family, length). A lookup asks for every length in use of its family, the
 * longest first; a cluster has three or four (/32, the pod CIDRs, /0). Which lengths are in use is
 * counted, and the counts are rebuilt at attach.
 * With more lengths of IPv4 than that, ipcache_settle sorts its prefixes into ranges (lpm.c), and a
 * lookup searches those. A /32 that is new since then is found by hash, before the ranges are asked,
 * for pods come all the time; any other prefix that comes, or one that goes, makes the ranges stale,
 * and lookups go by length again until the next ipcache_settle. Small tables and
 * ones beyond two million have none.
 */
#include "tables/arena.h"
#include "tables/addr_text.h"
#include "tables/hashtab.h"
#include "tables/lpm.h"

#include <errno.h>

enum {
    IPCACHE_LENGTHS = 129, IPCACHE_WORDS = 3, IPCACHE_V4_BITS = 96,
    IPCACHE_LPM_CAP_MIN = 1 << 10,   /* prefixes of the smallest table with ranges */
    IPCACHE_LPM_LENGTHS = 5,         /* up to as many, asking for each is as fast */
};

struct ipcache_slot {
    struct hashtab_link link;
    struct ipcache_entry entry; /* begins with the key: prefix, family, prefix_len */
};

struct ipcache {
    uint32_t used[2][IPCACHE_LENGTHS + 1]; /* entries by [family is 6][prefix_len], and padding */
    uint64_t in_use[2][IPCACHE_WORDS];     /* bit per length with entries */
    uint32_t changes;                      /* of IPv4 prefixes that ranges cannot be right after */
    uint32_t settled;                      /* the ranges are of this many changes; 0 = of none */
    uint32_t pods, pods_settled;           /* /32 that came, ever and before the ranges were made */
    uint64_t lpm_off;                      /* where the ranges are, from this struct on */
    uint64_t pad[5];
    struct hashtab tab;
};

static_assert(offsetof(struct ipcache_slot, entry) == sizeof(struct hashtab_link), "key place");
static_assert(offsetof(struct ipcache, tab) % TABLE_ALIGN == 0, "heads on cache lines");

static const struct hashtab_shape ipcache_shape = {
    sizeof(struct ipcache_slot), offsetof(struct ipcache_entry, flags)};

static uint64_t ipcache_hash_size(uint32_t cap)
{
    return table_align(offsetof(struct ipcache, tab) + hashtab_size(cap, ipcache_shape));
}

static bool ipcache_has_ranges(uint32_t cap)
{
    return cap >= IPCACHE_LPM_CAP_MIN && cap <= LPM_CAP_MAX;
}

uint64_t ipcache_size(uint32_t cap)
{
    return ipcache_hash_size(cap) + (ipcache_has_ranges(cap) ? lpm_size(cap) : 0);
}

static struct lpm *ipcache_lpm(const struct ipcache *table)
{
    return (struct lpm *)((uintptr_t)table + table->lpm_off);
}

void ipcache_init(struct ipcache *table, uint32_t cap, uint64_t seed)
{
    memset(table, 0, sizeof(*table));
    table->changes = 1;
    table->lpm_off = ipcache_hash_size(cap);
    hashtab_init(&table->tab, cap, seed);
}

/* Prefix of @len bits; @len counts from the first of the 128. */
static struct fwd_addr ipcache_mask(const struct fwd_addr *addr, uint32_t len)
{
    struct fwd_addr out;
    uint64_t word[2];
    memcpy(word, addr->b, sizeof(word));
    uint64_t high = len >= 64 ? ~0ULL : ~(~0ULL >> len);
    uint64_t low = len >= 128 ? ~0ULL : len <= 64 ? 0 : ~(~0ULL >> (len - 64));
    word[0] &= __builtin_bswap64(high); /* bits count from the first byte in memory */
    word[1] &= __builtin_bswap64(low);
    memcpy(out.b, word, sizeof(word));
    return out;
}

/* ipcache_v4: the IPv4 address in a mapped one, host order. */
static uint32_t ipcache_v4(const struct fwd_addr *addr)
{
    uint32_t word;
    memcpy(&word, addr->b + 12, sizeof(word));
    return __builtin_bswap32(word);
}

static uint32_t ipcache_bits(uint8_t family, uint32_t prefix_len)
{
    return family == 4 ? IPCACHE_V4_BITS + prefix_len : prefix_len;
}

/* What is wrong with a prefix; NULL = nothing. */
static const char *ipcache_problem(const struct fwd_addr *prefix, uint8_t family,
                                   uint8_t prefix_len)
{
    if (family != 4 && family != 6)
        return "the family is neither 4 nor 6";
    if (prefix_len > (family == 4 ? 32 : 128))
        return "the prefix is longer than an address of its family";
    if (family == 4 && !addr_is_v4(prefix))
        return "family 4 asks for an IPv4 address";
    if (family == 6 && addr_is_v4(prefix) && prefix_len >= IPCACHE_V4_BITS)
        return "an IPv4 prefix must come with family 4";
    struct fwd_addr masked = ipcache_mask(prefix, ipcache_bits(family, prefix_len));
    return addr_equal(&masked, prefix) ? NULL : "address bits are set behind the prefix";
}

static bool ipcache_keep(const void *slot)
{
    const struct ipcache_entry *entry = &((const struct ipcache_slot *)slot)->entry;
    return !ipcache_problem(&entry->prefix, entry->family, entry->prefix_len);
}

/* ipcache_changed: the ranges may no longer say what the entries say. */
static void ipcache_changed(struct ipcache *table, const struct ipcache_entry *entry)
{
    if (entry->family == 4 && ++table->changes == 0)
        table->changes = 1;
}

static void ipcache_length_add(struct ipcache *table, const struct ipcache_entry *entry)
{
    uint32_t six = entry->family == 6;
    if (!six && entry->prefix_len == 32)
        table->pods++;
    else
        ipcache_changed(table, entry);
    table->used[six][entry->prefix_len]++;
    table->in_use[six][entry->prefix_len / 64] |= 1ULL << entry->prefix_len % 64;
}

static void ipcache_length_remove(struct ipcache *table, const struct ipcache_entry *entry)
{
    uint32_t six = entry->family == 6;
    ipcache_changed(table, entry);
    if (--table->used[six][entry->prefix_len] == 0)
        table->in_use[six][entry->prefix_len / 64] &= ~(1ULL << entry->prefix_len % 64);
}

static const struct ipcache_entry *ipcache_at(const struct ipcache *table, uint32_t ref)
{
    return &((struct ipcache_slot *)hashtab_at(&table->tab, ipcache_shape, ref))->entry;
}

bool ipcache_validate(struct ipcache *table, uint64_t size, uint32_t cap)
{
    if (size < ipcache_size(cap) || !hashtab_validate(&table->tab, cap, ipcache_shape, ipcache_keep))
        return false;
    memset(table->used, 0, sizeof(table->used));
    memset(table->in_use, 0, sizeof(table->in_use));
    table->settled = 0;
    table->changes = 1;
    table->pods = table->pods_settled = 0;
    table->lpm_off = ipcache_hash_size(cap);
    for (uint32_t ref = 0; (ref = hashtab_next(&table->tab, ipcache_shape, ref)) != 0;)
        ipcache_length_add(table, ipcache_at(table, ref));
    return true;
}

/* ---- ranges ---- */

static bool ipcache_is_settled(const struct ipcache *table)
{
    /* acquire: ipcache_settle may have run in another thread */
    return __atomic_load_n(&table->settled, __ATOMIC_ACQUIRE) == table->changes;
}

bool ipcache_settle(struct ipcache *table)
{
    uint32_t changes = __atomic_load_n(&table->changes, __ATOMIC_ACQUIRE);
    uint32_t pods = table->pods;
    if (!ipcache_has_ranges(table->tab.cap) ||
        (table->settled == changes && table->pods_settled == pods) ||
        __builtin_popcountll(table->in_use[0][0]) <= IPCACHE_LPM_LENGTHS)
        return true;
    table->settled = 0; /* the ranges are made in place: nobody may ask them meanwhile */
    struct lpm *lpm = ipcache_lpm(table);
    lpm_init(lpm, table->tab.cap);
    lpm_begin(lpm);
    for (uint32_t ref = 0; (ref = hashtab_next(&table->tab, ipcache_shape, ref)) != 0;) {
        const struct ipcache_entry *entry = ipcache_at(table, ref);
        if (entry->family == 4)
            lpm_add(lpm, ipcache_v4(&entry->prefix), entry->prefix_len, ref);
    }
    lpm_finish(lpm);
    table->pods_settled = pods;
    __atomic_store_n(&table->settled, changes, __ATOMIC_RELEASE);
    return ipcache_is_settled(table);
}

/* ---- lookup ---- */

static const struct ipcache_entry *ipcache_exact(const struct ipcache *table, uint8_t family,
                                                 uint32_t len, const struct fwd_addr *addr)
{
    struct ipcache_entry key;
    uint32_t bits = ipcache_bits(family, len);
    key.prefix = bits == 128 ? *addr : ipcache_mask(addr, bits);
    key.family = family;
    key.prefix_len = (uint8_t)len;
    uint32_t ref = hashtab_find(&table->tab, ipcache_shape, &key);
    return ref ? ipcache_at(table, ref) : NULL;
}

static const struct ipcache_entry *ipcache_by_range(const struct ipcache *table,
                                                    const struct fwd_addr *addr)
{
    bool fresh = table->pods != table->pods_settled;
    const struct ipcache_entry *pod = fresh ? ipcache_exact(table, 4, 32, addr) : NULL;
    if (pod)
        return pod;
    uint32_t ref = lpm_lookup(ipcache_lpm(table), ipcache_v4(addr));
    return ref ? ipcache_at(table, ref) : NULL;
}

const struct ipcache_entry *ipcache_lookup(const struct ipcache *table, const struct fwd_addr *addr)
{
    uint8_t family = addr_is_v4(addr) ? 4 : 6;
    const uint64_t *in_use = table->in_use[family == 6];
    if (family == 4 && ipcache_is_settled(table))
        return ipcache_by_range(table, addr);
    for (uint32_t word = family == 4 ? 1 : IPCACHE_WORDS; word-- > 0;) {
        for (uint64_t left = in_use[word]; left;) {
            uint32_t bit = 63 - (uint32_t)__builtin_clzll(left);
            left &= ~(1ULL << bit);
            const struct ipcache_entry *entry = ipcache_exact(table, family, word * 64 + bit, addr);
            if (entry)
                return entry;
        }
    }
    return NULL;
}

void ipcache_prefetch(const struct ipcache *table, const struct fwd_addr *addr)
{
    if (ipcache_is_settled(table) && addr_is_v4(addr))
        lpm_prefetch(ipcache_lpm(table), ipcache_v4(addr));
}

int ipcache_upsert(struct ipcache *table, const struct fwd_ipcache_row *row, struct fwd_error *err)
{
    const char *problem = ipcache_problem(&row->prefix, row->family, row->prefix_len);
    if (problem) {
        error_set(err, EINVAL, "writing ipcache %s/%u: %s", addr_text(&row->prefix).text,
                  row->prefix_len, problem);
        return -1;
    }
    struct ipcache_entry key = {
        .prefix = row->prefix, .family = row->family, .prefix_len = row->prefix_len};
    bool fresh;
    uint32_t ref = hashtab_claim(&table->tab, ipcache_shape, &key, &fresh);
    if (!ref) {
        error_set(err, ENOSPC, "writing ipcache %s/%u: the table is full with %u prefixes; "
                  "raise its capacity and restart", addr_text(&row->prefix).text,
                  row->prefix_len, table->tab.cap);
        return -1;
    }
    struct ipcache_slot *slot = hashtab_at(&table->tab, ipcache_shape, ref);
    bool tunnel = !addr_is_zero(&row->tunnel_endpoint);
    slot->entry.identity = row->identity;
    slot->entry.tunnel_endpoint = row->tunnel_endpoint;
    /* HAS_TUNNEL follows from the address, so that the two can never disagree. */
    slot->entry.flags = (uint8_t)((row->flags & ~FWD_IPCACHE_HAS_TUNNEL)
                                  | (tunnel ? FWD_IPCACHE_HAS_TUNNEL : 0));
    hashtab_commit(&table->tab, ipcache_shape, ref);
    if (fresh)
        ipcache_length_add(table, &slot->entry);
    return 0;
}

int ipcache_delete(struct ipcache *table, const struct fwd_ipcache_row *key)
{
    struct ipcache_entry entry = {
        .prefix = key->prefix, .family = key->family, .prefix_len = key->prefix_len};
    if (!hashtab_remove(&table->tab, ipcache_shape, &entry))
        return 0;
    ipcache_length_remove(table, &entry);
    return 1;
}

static void ipcache_to_row(const struct ipcache_entry *entry, struct fwd_ipcache_row *row)
{
    *row = (struct fwd_ipcache_row){
        .prefix = entry->prefix, .tunnel_endpoint = entry->tunnel_endpoint,
        .identity = entry->identity, .family = entry->family, .prefix_len = entry->prefix_len,
        .flags = entry->flags};
}

uint32_t ipcache_dump(const struct ipcache *table, uint64_t *cursor, struct fwd_ipcache_row *rows,
                      uint32_t cap)
{
    uint32_t n = 0, ref = 0;
    while (n < cap && (ref = hashtab_next(&table->tab, ipcache_shape, *cursor)) != 0) {
        ipcache_to_row(ipcache_at(table, ref), &rows[n++]);
        *cursor = ref;
    }
    if (n < cap)
        *cursor = 0;
    return n;
}

void ipcache_stats(const struct ipcache *table, struct fwd_table_stats *stats)
{
    hashtab_stats(&table->tab, ipcache_shape, stats);
    stats->size = ipcache_size(table->tab.cap);
}

/* ---- abi.h ---- */

int fwd_ipcache_upsert(struct fwd_dp *dp, const struct fwd_ipcache_row *row, struct fwd_error *err)
{
    return ipcache_upsert(dp->ipcache, row, err);
}

int fwd_ipcache_delete(struct fwd_dp *dp, const struct fwd_ipcache_row *key)
{
    return ipcache_delete(dp->ipcache, key);
}

int fwd_ipcache_settle(struct fwd_dp *dp)
{
    return ipcache_settle(dp->ipcache);
}

int fwd_ipcache_lookup(struct fwd_dp *dp, const struct fwd_addr *addr, struct fwd_ipcache_row *row)
{
    const struct ipcache_entry *entry = ipcache_lookup(dp->ipcache, addr);
    if (!entry)
        return 0;
    ipcache_to_row(entry, row);
    return 1;
}

uint32_t fwd_ipcache_dump(struct fwd_dp *dp, uint64_t *cursor, struct fwd_ipcache_row *rows,
                          uint32_t cap)
{
    return ipcache_dump(dp->ipcache, cursor, rows, cap);
}
