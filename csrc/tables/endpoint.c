/* endpoint.c - local endpoints by lxc_id, and cilium_lxc: local address to endpoint.
 *
 * Endpoints: an index of all 65536 ids into an array of slots; the slots alone are the truth, the
 * index is rebuilt from them at attach. cilium_lxc is one hash of the address.
 */
#include "tables/addr_text.h"
#include "tables/arena.h"
#include "tables/hashtab.h"

#include <errno.h>

enum { ENDPOINT_IDS = 65536 };

#define BUCKET_UNUSED UINT64_MAX /* refill_ns of a bucket nobody has used yet: it is full */

struct endpoint_table {
    uint32_t cap, count;
    uint32_t first_free;        /* no slot below it is free */
    uint32_t pad;
    uint64_t failures;
    struct token_bucket errors; /* ICMP errors to anybody but endpoints */
    uint32_t index[ENDPOINT_IDS]; /* slot number + 1 by lxc_id, 0 = none */
    struct endpoint slots[];
};

uint64_t endpoint_size(uint32_t cap)
{
    return table_align(sizeof(struct endpoint_table) + (uint64_t)cap * sizeof(struct endpoint));
}

void endpoint_init(struct endpoint_table *table, uint32_t cap)
{
    memset(table, 0, (size_t)endpoint_size(cap));
    table->cap = cap;
    table->errors.refill_ns = BUCKET_UNUSED;
}

bool endpoint_validate(struct endpoint_table *table, uint64_t size, uint32_t cap)
{
    if (size < endpoint_size(cap) || table->cap != cap)
        return false;
    memset(table->index, 0, sizeof(table->index));
    table->count = 0;
    table->first_free = 0;
    for (uint32_t i = 0; i < cap; i++) {
        struct endpoint *slot = &table->slots[i];
        if (!slot->lxc_id)
            continue;
        if (table->index[slot->lxc_id]) { /* a twin: only a foreign hand writes one */
            slot->lxc_id = 0;
            continue;
        }
        table->index[slot->lxc_id] = i + 1;
        table->count++;
    }
    return true;
}

struct endpoint *endpoint_get(struct endpoint_table *table, uint32_t lxc_id)
{
    if (lxc_id >= ENDPOINT_IDS || !table->index[lxc_id])
        return NULL;
    return &table->slots[table->index[lxc_id] - 1];
}

/* The lowest free slot, NULL = table full. */
static struct endpoint *endpoint_free_slot(struct endpoint_table *table)
{
    while (table->first_free < table->cap && table->slots[table->first_free].lxc_id)
        table->first_free++;
    return table->first_free < table->cap ? &table->slots[table->first_free] : NULL;
}

int endpoint_upsert(struct endpoint_table *table, const struct fwd_endpoint_row *row,
                    struct fwd_error *err)
{
    if (row->lxc_id == 0) {
        error_set(err, EINVAL, "writing endpoint 0: endpoint ids are 1 to 65535");
        return -1;
    }
    struct endpoint *slot = endpoint_get(table, row->lxc_id);
    bool fresh = !slot;
    if (fresh)
        slot = endpoint_free_slot(table);
    if (!slot) {
        table->failures++;
        error_set(err, ENOSPC, "writing endpoint %u: the table is full with %u endpoints; "
                  "raise its capacity and restart", row->lxc_id, table->cap);
        return -1;
    }
    slot->lxc_id = 0; /* free until it is whole: attach drops a half-written one */
    hashtab_fence();
    slot->identity = row->identity;
    slot->ifindex = row->ifindex;
    memcpy(slot->mac, row->mac, sizeof(slot->mac));
    memcpy(slot->node_mac, row->node_mac, sizeof(slot->node_mac));
    if (fresh) {
        slot->punts = slot->errors = (struct token_bucket){.refill_ns = BUCKET_UNUSED};
        table->count++;
    }
    hashtab_fence();
    slot->lxc_id = row->lxc_id;
    table->index[row->lxc_id] = (uint32_t)(slot - table->slots) + 1;
    return 0;
}

int endpoint_delete(struct endpoint_table *table, uint16_t lxc_id)
{
    struct endpoint *slot = endpoint_get(table, lxc_id);
    if (!slot)
        return 0;
    uint32_t number = (uint32_t)(slot - table->slots);
    slot->lxc_id = 0;
    table->index[lxc_id] = 0;
    table->count--;
    if (number < table->first_free)
        table->first_free = number;
    return 1;
}

uint32_t endpoint_dump(const struct endpoint_table *table, uint64_t *cursor,
                       struct fwd_endpoint_row *rows, uint32_t cap)
{
    uint32_t n = 0;
    uint64_t at = *cursor;
    for (; n < cap && at < table->cap; at++) {
        const struct endpoint *slot = &table->slots[at];
        if (!slot->lxc_id)
            continue;
        rows[n] = (struct fwd_endpoint_row){
            .lxc_id = slot->lxc_id, .identity = slot->identity, .ifindex = slot->ifindex};
        memcpy(rows[n].mac, slot->mac, sizeof(slot->mac));
        memcpy(rows[n].node_mac, slot->node_mac, sizeof(slot->node_mac));
        n++;
    }
    *cursor = at < table->cap ? at : 0;
    return n;
}

void endpoint_stats(const struct endpoint_table *table, struct fwd_table_stats *stats)
{
    *stats = (struct fwd_table_stats){.cap = table->cap, .count = table->count,
                                      .size = endpoint_size(table->cap),
                                      .failures = table->failures};
}

/* Tokens are counted in thousandths: at 100 a second one is worth 10 us. What a refill cannot turn
 * into a whole thousandth stays in the clock, so frequent callers lose nothing. */
static void bucket_refill(struct token_bucket *bucket, uint64_t full_milli, uint64_t rate_pps,
                          uint64_t now_ns)
{
    const uint64_t milli_ns = 1000000; /* one thousandth takes milli_ns / rate */
    uint64_t last_ns = bucket->refill_ns;
    uint64_t elapsed_ns = now_ns > last_ns ? now_ns - last_ns : 0;
    if (last_ns == BUCKET_UNUSED || elapsed_ns >= full_milli * milli_ns / rate_pps) {
        bucket->tokens_milli = full_milli;
        bucket->refill_ns = now_ns;
        return;
    }
    uint64_t added = elapsed_ns * rate_pps / milli_ns; /* fits: elapsed is below a full refill */
    uint64_t tokens = bucket->tokens_milli + added;
    bucket->tokens_milli = tokens < full_milli ? tokens : full_milli;
    uint64_t used_ns = (added * milli_ns + rate_pps - 1) / rate_pps;
    bucket->refill_ns = (now_ns > last_ns ? last_ns : now_ns) + used_ns;
}

static bool bucket_take(struct token_bucket *bucket, const struct fwd_settings *settings,
                        uint64_t now_ns)
{
    const uint64_t token_milli = 1000;
    if (settings->punt_rate_pps == 0)
        return false;
    bucket_refill(bucket, settings->punt_burst * token_milli, settings->punt_rate_pps, now_ns);
    if (bucket->tokens_milli < token_milli)
        return false;
    bucket->tokens_milli -= token_milli;
    return true;
}

bool endpoint_take_token(struct endpoint *endpoint, const struct fwd_settings *settings,
                         uint64_t now_ns)
{
    return bucket_take(&endpoint->punts, settings, now_ns);
}

bool endpoint_take_error_token(struct endpoint_table *table, struct endpoint *endpoint,
                               const struct fwd_settings *settings, uint64_t now_ns)
{
    return bucket_take(endpoint ? &endpoint->errors : &table->errors, settings, now_ns);
}

/* ---- cilium_lxc ---- */

struct lxc_slot {
    struct hashtab_link link;
    struct fwd_lxc_row row; /* begins with the key, the address */
};

struct lxc_table {
    struct hashtab tab;
};

static_assert(offsetof(struct lxc_slot, row) == sizeof(struct hashtab_link), "key place");

static const struct hashtab_shape lxc_shape = {sizeof(struct lxc_slot), sizeof(struct fwd_addr)};

static const struct fwd_lxc_row *lxc_at(const struct lxc_table *table, uint32_t ref)
{
    return &((struct lxc_slot *)hashtab_at(&table->tab, lxc_shape, ref))->row;
}

/* The node's own addresses, and only they, belong to no endpoint. */
static const char *lxc_problem(const struct fwd_lxc_row *row)
{
    bool host = (row->flags & FWD_LXC_HOST) != 0;
    if (host != (row->lxc_id == 0))
        return host ? "an address of the node itself has endpoint id 0"
                    : "an address that is not the node's needs an endpoint id";
    return NULL;
}

static bool lxc_keep(const void *slot)
{
    return !lxc_problem(&((const struct lxc_slot *)slot)->row);
}

uint64_t lxc_size(uint32_t cap)
{
    return hashtab_size(cap, lxc_shape);
}

void lxc_init(struct lxc_table *table, uint32_t cap, uint64_t seed)
{
    hashtab_init(&table->tab, cap, seed);
}

bool lxc_validate(struct lxc_table *table, uint64_t size, uint32_t cap)
{
    return size >= lxc_size(cap) && hashtab_validate(&table->tab, cap, lxc_shape, lxc_keep);
}

const struct fwd_lxc_row *lxc_lookup(const struct lxc_table *table, const struct fwd_addr *addr)
{
    uint32_t ref = hashtab_find(&table->tab, lxc_shape, addr);
    return ref ? lxc_at(table, ref) : NULL;
}

const struct fwd_lxc_row *lxc_lookup_source(const struct lxc_table *table,
                                            struct endpoint *endpoint, const struct fwd_addr *addr)
{
    uint32_t ref = endpoint->own;
    if (ref && ref <= table->tab.top) {
        const struct lxc_slot *slot = hashtab_at(&table->tab, lxc_shape, ref);
        if (slot->link.state && addr_equal(&slot->row.addr, addr))
            return &slot->row;
    }
    endpoint->own = hashtab_find(&table->tab, lxc_shape, addr);
    return endpoint->own ? lxc_at(table, endpoint->own) : NULL;
}

int lxc_upsert(struct lxc_table *table, const struct fwd_lxc_row *row, struct fwd_error *err)
{
    const char *problem = lxc_problem(row);
    if (problem) {
        error_set(err, EINVAL, "writing local address %s: %s", addr_text(&row->addr).text, problem);
        return -1;
    }
    bool fresh;
    uint32_t ref = hashtab_claim(&table->tab, lxc_shape, &row->addr, &fresh);
    if (!ref) {
        error_set(err, ENOSPC, "writing local address %s: the table is full with %u addresses; "
                  "raise its capacity and restart", addr_text(&row->addr).text, table->tab.cap);
        return -1;
    }
    struct lxc_slot *slot = hashtab_at(&table->tab, lxc_shape, ref);
    slot->row = *row;
    hashtab_commit(&table->tab, lxc_shape, ref);
    return 0;
}

int lxc_delete(struct lxc_table *table, const struct fwd_addr *addr)
{
    return hashtab_remove(&table->tab, lxc_shape, addr) != 0;
}

uint32_t lxc_dump(const struct lxc_table *table, uint64_t *cursor, struct fwd_lxc_row *rows,
                  uint32_t cap)
{
    uint32_t n = 0, ref = 0;
    while (n < cap && (ref = hashtab_next(&table->tab, lxc_shape, *cursor)) != 0) {
        rows[n++] = *lxc_at(table, ref);
        *cursor = ref;
    }
    if (n < cap)
        *cursor = 0;
    return n;
}

void lxc_stats(const struct lxc_table *table, struct fwd_table_stats *stats)
{
    hashtab_stats(&table->tab, lxc_shape, stats);
}

/* ---- abi.h ---- */

int fwd_endpoint_upsert(struct fwd_dp *dp, const struct fwd_endpoint_row *row,
                        struct fwd_error *err)
{
    return endpoint_upsert(dp->endpoints, row, err);
}

int fwd_endpoint_delete(struct fwd_dp *dp, uint16_t lxc_id)
{
    return endpoint_delete(dp->endpoints, lxc_id);
}

uint32_t fwd_endpoint_dump(struct fwd_dp *dp, uint64_t *cursor, struct fwd_endpoint_row *rows,
                           uint32_t cap)
{
    return endpoint_dump(dp->endpoints, cursor, rows, cap);
}

int fwd_lxc_upsert(struct fwd_dp *dp, const struct fwd_lxc_row *row, struct fwd_error *err)
{
    return lxc_upsert(dp->lxc, row, err);
}

int fwd_lxc_delete(struct fwd_dp *dp, const struct fwd_addr *addr)
{
    return lxc_delete(dp->lxc, addr);
}

uint32_t fwd_lxc_dump(struct fwd_dp *dp, uint64_t *cursor, struct fwd_lxc_row *rows, uint32_t cap)
{
    return lxc_dump(dp->lxc, cursor, rows, cap);
}
