/* lb_outside.c - what services ask of traffic from outside alone: who may come (source ranges), and
 * which backend a Maglev table gives. Row 9 of docs/datapath.md, datapath reference 4.1, 4.3, 4.5.
 *
 * Theory. A range is a key of (service, masked prefix, length); a look-up tries the lengths that are
 * in use, longest first, and any hit will do. A Maglev table is an array of backend ids behind a
 * hash slot of the service; it is computed outside (fwd/model/maglev.py) and written place by place,
 * so every packet in between finds an old or a new backend. A writer killed half way leaves the
 * slot open and the service without a table, which means random choice until it is written again.
 */
#include "tables/addr_text.h"
#include "tables/lb_map.h"

#include <errno.h>

/* ---- packets ---- */

const struct lb_service *lb_lookup_outside(const struct lb *lb, const struct fwd_addr *addr,
                                           uint16_t port, uint8_t proto)
{
    struct lb_key key = {.addr = *addr, .port = port, .proto = proto,
                         .scope = FWD_SCOPE_EXTERNAL};
    const struct lb_service *service = lb_service_find(lb, &key);
    if (service)
        return service;
    key.port = 0;
    key.proto = 0;
    return lb_service_find(lb, &key);
}

static struct lb_range_key lb_range_of(const struct fwd_addr *addr, uint16_t rev_nat_id,
                                       uint8_t family, uint8_t prefix_len)
{
    struct lb_range_key key = {.prefix = *addr, .rev_nat_id = rev_nat_id, .family = family,
                               .prefix_len = prefix_len};
    uint32_t bits = prefix_len + (family == 4 ? 96u : 0u);
    for (uint32_t i = 0; i < sizeof(addr->b); i++) {
        uint32_t kept = bits <= i * 8 ? 0 : bits - i * 8;
        if (kept < 8)
            key.prefix.b[i] &= (uint8_t)(0xff00u >> kept);
    }
    return key;
}

bool lb_source_allowed(const struct lb *lb, uint16_t rev_nat_id, const struct fwd_addr *client)
{
    bool v4 = addr_is_v4(client);
    for (uint32_t len = v4 ? 33 : 129; len-- > 0;) {
        struct lb_range_key key = {.family = v4 ? 4 : 6, .prefix_len = (uint8_t)len};
        if (!*lb_range_count(lb, &key))
            continue;
        key = lb_range_of(client, rev_nat_id, key.family, key.prefix_len);
        if (hashtab_find(lb->ranges, lb_range_shape, &key))
            return true;
    }
    return false;
}

static uint32_t *lb_maglev_places(const struct lb *lb, uint32_t ref)
{
    return lb->maglev_places + (uint64_t)(ref - 1) * FWD_MAGLEV_SIZE;
}

const struct lb_backend *lb_maglev(const struct lb *lb, const struct lb_service *service,
                                   uint32_t hash)
{
    uint32_t id = service->rev_nat_id;
    uint32_t ref = hashtab_find(lb->maglev, lb_maglev_shape, &id);
    if (!ref)
        return NULL;
    const struct lb_backend *backend =
        lb_backend_get(lb, lb_maglev_places(lb, ref)[hash % FWD_MAGLEV_SIZE]);
    return backend && backend->state == FWD_BACKEND_ACTIVE ? backend : NULL;
}

/* ---- abi.h ---- */

int fwd_source_range_upsert(struct fwd_dp *dp, const struct fwd_source_range_row *row,
                            struct fwd_error *err)
{
    struct lb *lb = &dp->lb;
    bool v4 = row->family == 4, fresh;
    if ((!v4 && row->family != 6) || row->prefix_len > (v4 ? 32 : 128) ||
        v4 != addr_is_v4(&row->prefix) || row->rev_nat_id == 0) {
        error_set(err, EINVAL, "writing source range %s/%u of service %u: no such prefix or service",
                  addr_text(&row->prefix).text, row->prefix_len, row->rev_nat_id);
        return -1;
    }
    struct lb_range_key key =
        lb_range_of(&row->prefix, row->rev_nat_id, row->family, row->prefix_len);
    uint32_t ref = hashtab_claim(lb->ranges, lb_range_shape, &key, &fresh);
    if (!ref) {
        error_set(err, ENOSPC, "writing source range %s/%u of service %u: the table is full with %u"
                  " ranges; raise its capacity and restart", addr_text(&row->prefix).text,
                  row->prefix_len, row->rev_nat_id, lb->ranges->cap);
        return -1;
    }
    hashtab_commit(lb->ranges, lb_range_shape, ref);
    *lb_range_count(lb, &key) += fresh;
    return 0;
}

int fwd_source_range_delete(struct fwd_dp *dp, const struct fwd_source_range_row *row)
{
    struct lb_range_key key =
        lb_range_of(&row->prefix, row->rev_nat_id, row->family, row->prefix_len);
    if (!hashtab_remove(dp->lb.ranges, lb_range_shape, &key))
        return 0;
    --*lb_range_count(&dp->lb, &key);
    return 1;
}

uint32_t fwd_source_range_dump(struct fwd_dp *dp, uint64_t *cursor,
                               struct fwd_source_range_row *rows, uint32_t cap)
{
    const struct hashtab *tab = dp->lb.ranges;
    uint32_t n = 0, ref = 0;
    while (n < cap && (ref = hashtab_next(tab, lb_range_shape, *cursor)) != 0) {
        const struct lb_range_slot *slot = hashtab_at(tab, lb_range_shape, ref);
        rows[n++] = (struct fwd_source_range_row){
            .prefix = slot->key.prefix, .rev_nat_id = slot->key.rev_nat_id,
            .family = slot->key.family, .prefix_len = slot->key.prefix_len};
        *cursor = ref;
    }
    if (n < cap)
        *cursor = 0;
    return n;
}

int fwd_maglev_upsert(struct fwd_dp *dp, uint16_t rev_nat_id, const uint32_t *backend_ids,
                      struct fwd_error *err)
{
    struct lb *lb = &dp->lb;
    uint32_t id = rev_nat_id;
    bool fresh;
    uint32_t ref = rev_nat_id ? hashtab_claim(lb->maglev, lb_maglev_shape, &id, &fresh) : 0;
    if (!ref) {
        error_set(err, rev_nat_id ? ENOSPC : EINVAL, "writing the Maglev table of service %u: %s",
                  rev_nat_id, rev_nat_id ? "there is no room for another; raise the capacity and "
                  "restart" : "a service has a rev_nat_id from 1");
        return -1;
    }
    memcpy(lb_maglev_places(lb, ref), backend_ids, FWD_MAGLEV_SIZE * sizeof(*backend_ids));
    hashtab_commit(lb->maglev, lb_maglev_shape, ref);
    return 0;
}

int fwd_maglev_delete(struct fwd_dp *dp, uint16_t rev_nat_id)
{
    uint32_t id = rev_nat_id;
    return hashtab_remove(dp->lb.maglev, lb_maglev_shape, &id) != 0;
}

uint32_t fwd_maglev_get(struct fwd_dp *dp, uint16_t rev_nat_id, uint32_t *backend_ids)
{
    uint32_t id = rev_nat_id;
    uint32_t ref = hashtab_find(dp->lb.maglev, lb_maglev_shape, &id);
    if (!ref)
        return 0;
    memcpy(backend_ids, lb_maglev_places(&dp->lb, ref), FWD_MAGLEV_SIZE * sizeof(*backend_ids));
    return FWD_MAGLEV_SIZE;
}
