/* peer.c - remote nodes by underlay address. One hash of the address; stage_peer asks it for
 * every packet from the overlay, and for the VNI of peers whose VNI is no identity.
 */
#include "tables/addr_text.h"
#include "tables/arena.h"
#include "tables/hashtab.h"
#include "base/vxlan.h"

#include <errno.h>

struct peer_slot {
    struct hashtab_link link;
    struct fwd_peer_row row; /* begins with the key, the address */
};

struct peer_table {
    struct hashtab tab; /* its `own`: peers with a fixed VNI; usually none, and then nobody asks */
};

static_assert(offsetof(struct peer_slot, row) == sizeof(struct hashtab_link), "key place");

static const struct hashtab_shape peer_shape = {sizeof(struct peer_slot), sizeof(struct fwd_addr)};

static const struct fwd_peer_row *peer_at(const struct peer_table *table, uint32_t ref)
{
    return &((struct peer_slot *)hashtab_at(&table->tab, peer_shape, ref))->row;
}

static const char *peer_problem(const struct fwd_peer_row *row)
{
    if (row->fixed_vni > 1)
        return "fixed_vni is neither 0 nor 1";
    if (row->vni > VXLAN_VNI_MAX)
        return "a VNI has 24 bits";
    return addr_is_zero(&row->ip) ? "a peer needs an underlay address" : NULL;
}

static bool peer_keep(const void *slot)
{
    return !peer_problem(&((const struct peer_slot *)slot)->row);
}

uint64_t peer_size(uint32_t cap)
{
    return hashtab_size(cap, peer_shape);
}

void peer_init(struct peer_table *table, uint32_t cap, uint64_t seed)
{
    hashtab_init(&table->tab, cap, seed);
}

bool peer_validate(struct peer_table *table, uint64_t size, uint32_t cap)
{
    if (size < peer_size(cap) || !hashtab_validate(&table->tab, cap, peer_shape, peer_keep))
        return false;
    table->tab.own = 0;
    for (uint32_t ref = 0; (ref = hashtab_next(&table->tab, peer_shape, ref)) != 0;)
        table->tab.own += peer_at(table, ref)->fixed_vni;
    return true;
}

const struct fwd_peer_row *peer_fixed_vni(const struct peer_table *table, const struct fwd_addr *ip)
{
    const struct fwd_peer_row *peer = table->tab.own ? peer_lookup(table, ip) : NULL;
    return peer && peer->fixed_vni ? peer : NULL;
}

const struct fwd_peer_row *peer_lookup(const struct peer_table *table, const struct fwd_addr *ip)
{
    uint32_t ref = hashtab_find(&table->tab, peer_shape, ip);
    return ref ? peer_at(table, ref) : NULL;
}

int peer_upsert(struct peer_table *table, const struct fwd_peer_row *row, struct fwd_error *err)
{
    const char *problem = peer_problem(row);
    if (problem) {
        error_set(err, EINVAL, "writing peer %s: %s", addr_text(&row->ip).text, problem);
        return -1;
    }
    bool fresh;
    uint32_t ref = hashtab_claim(&table->tab, peer_shape, &row->ip, &fresh);
    if (!ref) {
        error_set(err, ENOSPC, "writing peer %s: the table is full with %u peers; raise its "
                  "capacity and restart", addr_text(&row->ip).text, table->tab.cap);
        return -1;
    }
    struct peer_slot *slot = hashtab_at(&table->tab, peer_shape, ref);
    table->tab.own += (uint32_t)row->fixed_vni - (fresh ? 0 : slot->row.fixed_vni);
    slot->row = *row;
    hashtab_commit(&table->tab, peer_shape, ref);
    return 0;
}

int peer_delete(struct peer_table *table, const struct fwd_addr *ip)
{
    uint32_t ref = hashtab_remove(&table->tab, peer_shape, ip);
    if (ref)
        table->tab.own -= peer_at(table, ref)->fixed_vni;
    return ref != 0;
}

uint32_t peer_dump(const struct peer_table *table, uint64_t *cursor, struct fwd_peer_row *rows,
                   uint32_t cap)
{
    uint32_t n = 0, ref = 0;
    while (n < cap && (ref = hashtab_next(&table->tab, peer_shape, *cursor)) != 0) {
        rows[n++] = *peer_at(table, ref);
        *cursor = ref;
    }
    if (n < cap)
        *cursor = 0;
    return n;
}

void peer_stats(const struct peer_table *table, struct fwd_table_stats *stats)
{
    hashtab_stats(&table->tab, peer_shape, stats);
}

/* ---- abi.h ---- */

int fwd_peer_upsert(struct fwd_dp *dp, const struct fwd_peer_row *row, struct fwd_error *err)
{
    return peer_upsert(dp->peers, row, err);
}

int fwd_peer_delete(struct fwd_dp *dp, const struct fwd_addr *ip)
{
    return peer_delete(dp->peers, ip);
}

uint32_t fwd_peer_dump(struct fwd_dp *dp, uint64_t *cursor, struct fwd_peer_row *rows, uint32_t cap)
{
    return peer_dump(dp->peers, cursor, rows, cap);
}
