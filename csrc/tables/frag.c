/* frag.c - cilium_ipv4_frag_datagrams: ports of a datagram by (addresses, id, protocol).
 *
 * One hash, and a list through its slots from the newest to the oldest use. Both store and fetch
 * count as use. No timers: a full table forgets the oldest datagram. At attach the list is rebuilt
 * in slot order, which forgets who was used last and nothing else.
 */
#include "tables/arena.h"
#include "tables/hashtab.h"

struct frag_slot {
    struct hashtab_link link;
    struct frag_key key;
    uint16_t sport, dport;      /* be16 */
    uint32_t newer, older;      /* references, 0 = end of the list */
};

struct frag_table {
    uint32_t newest, oldest;
    uint64_t evictions;
    uint8_t pad[48];
    struct hashtab tab;
};

static_assert(offsetof(struct frag_slot, key) == sizeof(struct hashtab_link), "key place");
static_assert(offsetof(struct frag_table, tab) % TABLE_ALIGN == 0, "heads on cache lines");

static const struct hashtab_shape frag_shape = {
    sizeof(struct frag_slot), offsetof(struct frag_key, pad)};

static struct frag_slot *frag_at(const struct frag_table *table, uint32_t ref)
{
    return hashtab_at(&table->tab, frag_shape, ref);
}

static void frag_list_remove(struct frag_table *table, const struct frag_slot *slot)
{
    *(slot->newer ? &frag_at(table, slot->newer)->older : &table->newest) = slot->older;
    *(slot->older ? &frag_at(table, slot->older)->newer : &table->oldest) = slot->newer;
}

static void frag_list_push(struct frag_table *table, uint32_t ref)
{
    struct frag_slot *slot = frag_at(table, ref);
    slot->newer = 0;
    slot->older = table->newest;
    *(table->newest ? &frag_at(table, table->newest)->newer : &table->oldest) = ref;
    table->newest = ref;
}

static bool frag_keep(const void *slot)
{
    (void)slot; /* any key and any ports are possible */
    return true;
}

uint64_t frag_size(uint32_t cap)
{
    return table_align(offsetof(struct frag_table, tab) + hashtab_size(cap, frag_shape));
}

void frag_init(struct frag_table *table, uint32_t cap, uint64_t seed)
{
    memset(table, 0, sizeof(*table));
    hashtab_init(&table->tab, cap, seed);
}

bool frag_validate(struct frag_table *table, uint64_t size, uint32_t cap)
{
    if (size < frag_size(cap) || !hashtab_validate(&table->tab, cap, frag_shape, frag_keep))
        return false;
    table->newest = 0;
    table->oldest = 0;
    for (uint32_t ref = 0; (ref = hashtab_next(&table->tab, frag_shape, ref)) != 0;)
        frag_list_push(table, ref);
    return true;
}

static void frag_evict(struct frag_table *table)
{
    struct frag_slot *slot = frag_at(table, table->oldest);
    frag_list_remove(table, slot);
    hashtab_remove(&table->tab, frag_shape, &slot->key);
    table->evictions++;
}

void frag_store(struct frag_table *table, const struct frag_key *key, uint16_t sport,
                uint16_t dport)
{
    bool fresh = !hashtab_find(&table->tab, frag_shape, key);
    if (fresh && table->tab.count == table->tab.cap && table->oldest)
        frag_evict(table);
    uint32_t ref = hashtab_claim(&table->tab, frag_shape, key, &fresh);
    if (!ref)
        return; /* a capacity of 0: nothing is remembered */
    struct frag_slot *slot = frag_at(table, ref);
    slot->sport = sport;
    slot->dport = dport;
    hashtab_commit(&table->tab, frag_shape, ref);
    if (!fresh)
        frag_list_remove(table, slot);
    frag_list_push(table, ref);
}

bool frag_fetch(struct frag_table *table, const struct frag_key *key, uint16_t *sport,
                uint16_t *dport)
{
    uint32_t ref = hashtab_find(&table->tab, frag_shape, key);
    if (!ref)
        return false;
    struct frag_slot *slot = frag_at(table, ref);
    *sport = slot->sport;
    *dport = slot->dport;
    if (ref != table->newest) {
        frag_list_remove(table, slot);
        frag_list_push(table, ref);
    }
    return true;
}

void frag_stats(const struct frag_table *table, struct fwd_table_stats *stats)
{
    hashtab_stats(&table->tab, frag_shape, stats);
    stats->size = frag_size(table->tab.cap);
    stats->evictions = table->evictions;
}
