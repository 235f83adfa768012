/* lb_control.c - services as the control side sees them: rows in, rows out, and which tracked flows
 * a change has left without a service. Callers: abi.h, and ct.c for the latter. See lb.c's theory.
 */
#include "tables/addr_text.h"
#include "tables/lb_map.h"

#include <errno.h>

/* ---- conntrack's question after a service shrank ---- */

bool lb_has_service_flow(const struct lb *lb, const struct lb_flow *flow, uint32_t backend_id)
{
    struct lb_key key = {.addr = flow->addr, .port = flow->port, .proto = flow->proto};
    for (; key.scope <= FWD_SCOPE_INTERNAL; key.scope++) {
        const struct lb_service *service = lb_service_find(lb, &key);
        if (service && service->rev_nat_id == flow->rev_nat_id &&
            lb_has_backend(lb, service, backend_id) && lb_backend_get(lb, backend_id))
            return true;
    }
    return false;
}

/* lb_has_address: does a slot of the service lead to this address and port? */
static bool lb_has_address(const struct lb *lb, const struct lb_service *service,
                           const struct lb_flow *flow)
{
    for (uint32_t n = 1; n <= service->count; n++) {
        const struct lb_backend *backend =
            lb_backend_get(lb, lb_slot_get(lb, &service->key, n));
        if (!backend || !addr_equal(&backend->addr, &flow->addr))
            continue;
        uint16_t port = backend->port ? backend->port : service->key.port;
        if (!flow->port || !port || port == flow->port)
            return true;
    }
    return false;
}

bool lb_has_backend_flow(const struct lb *lb, const struct lb_flow *flow)
{
    static const uint8_t protos[] = {PROTO_TCP, PROTO_UDP, PROTO_SCTP};
    const struct lb_frontend *frontend = lb_rev_nat_get(lb, flow->rev_nat_id);
    for (size_t i = 0; frontend && i < sizeof(protos); i++) {
        struct lb_key key = {.addr = frontend->addr, .port = frontend->port, .proto = protos[i]};
        if (flow->proto && flow->proto != protos[i])
            continue;
        for (; key.scope <= FWD_SCOPE_INTERNAL; key.scope++) {
            const struct lb_service *service = lb_service_find(lb, &key);
            if (service && service->rev_nat_id == flow->rev_nat_id &&
                lb_has_address(lb, service, flow))
                return true;
        }
    }
    return false;
}

/* ---- control ---- */

/* lb_rev_nat_drop: forget the frontend of an id that no scope of @key uses any more. */
static void lb_rev_nat_drop(struct lb *lb, const struct lb_key *key, uint16_t rev_nat_id)
{
    struct lb_key one = *key;
    for (one.scope = FWD_SCOPE_EXTERNAL; one.scope <= FWD_SCOPE_INTERNAL; one.scope++) {
        const struct lb_service *service = lb_service_find(lb, &one);
        if (service && service->rev_nat_id == rev_nat_id)
            return;
    }
    const struct lb_frontend *frontend = &lb->rev_nat[rev_nat_id];
    if (addr_equal(&frontend->addr, &key->addr) && frontend->port == key->port)
        lb->rev_nat[rev_nat_id].used = 0; /* unless another frontend was given the id meanwhile */
}

static int lb_slot_set(struct lb *lb, const struct lb_key *frontend, uint32_t number, uint32_t id)
{
    struct lb_slot_key key = {.frontend = *frontend, .number = number};
    bool fresh;
    uint32_t ref = hashtab_claim(lb->slots, lb_slot_shape, &key, &fresh);
    if (!ref)
        return -1;
    ((struct lb_slot_slot *)hashtab_at(lb->slots, lb_slot_shape, ref))->backend_id = id;
    hashtab_commit(lb->slots, lb_slot_shape, ref);
    return 0;
}

static void lb_slots_cut(struct lb *lb, const struct lb_key *frontend, uint32_t from, uint32_t to)
{
    for (uint32_t number = from; number <= to; number++) {
        struct lb_slot_key key = {.frontend = *frontend, .number = number};
        hashtab_remove(lb->slots, lb_slot_shape, &key);
    }
}

static struct lb_key lb_key_of(const struct fwd_service_row *row)
{
    return (struct lb_key){.addr = row->frontend, .port = be16_to_host(row->port),
                           .proto = row->proto, .scope = row->scope};
}

static int lb_refuse(struct fwd_error *err, const struct fwd_service_row *row, int code,
                     const char *what)
{
    error_set(err, code, "writing service %s port %u protocol %u: %s",
              addr_text(&row->frontend).text, row->port, row->proto, what);
    return -1;
}

int fwd_service_upsert(struct fwd_dp *dp, const struct fwd_service_row *row,
                       const uint32_t *backend_ids, uint32_t n, struct fwd_error *err)
{
    struct lb *lb = &dp->lb;
    struct lb_key key = lb_key_of(row);
    if (row->rev_nat_id == 0 || row->scope > FWD_SCOPE_INTERNAL)
        return lb_refuse(err, row, EINVAL, "it needs a rev_nat_id and one of two scopes");
    const struct lb_service *old = lb_service_find(lb, &key);
    uint32_t before = old ? old->count : 0;
    uint16_t old_id = old ? old->rev_nat_id : 0;
    bool fresh;
    uint32_t more = n > before ? n - before : 0;
    if (more > lb->slots->cap - lb->slots->count)
        return lb_refuse(err, row, ENOSPC, "the table of backend slots is full; raise its capacity "
                         "and restart");
    if (!old && lb->services->count >= lb->services->cap)
        return lb_refuse(err, row, ENOSPC, "the table of services is full; raise its capacity and "
                         "restart");
    for (uint32_t i = 0; i < n; i++)
        lb_slot_set(lb, &key, i + 1, backend_ids[i]);
    uint32_t ref = hashtab_claim(lb->services, lb_service_shape, &key, &fresh);
    struct lb_service_slot *slot = hashtab_at(lb->services, lb_service_shape, ref);
    slot->service = (struct lb_service){.key = key, .flags = row->flags,
                                        .rev_nat_id = row->rev_nat_id,
                                        .affinity_timeout_s = row->affinity_timeout_s, .count = n};
    lb_rev_nat_set(lb, &slot->service);
    hashtab_commit(lb->services, lb_service_shape, ref);
    lb_slots_cut(lb, &key, n + 1, before);
    if (old_id && old_id != row->rev_nat_id)
        lb_rev_nat_drop(lb, &key, old_id);
    return 0;
}

int fwd_service_delete(struct fwd_dp *dp, const struct fwd_service_row *row)
{
    struct lb *lb = &dp->lb;
    struct lb_key key = lb_key_of(row);
    const struct lb_service *service = lb_service_find(lb, &key);
    if (!service)
        return 0;
    uint32_t count = service->count;
    uint16_t rev_nat_id = service->rev_nat_id;
    hashtab_remove(lb->services, lb_service_shape, &key);
    lb_slots_cut(lb, &key, 1, count);
    lb_rev_nat_drop(lb, &key, rev_nat_id);
    return 1;
}

uint32_t fwd_service_dump(struct fwd_dp *dp, uint64_t *cursor, struct fwd_service_row *rows,
                          uint32_t cap)
{
    const struct hashtab *tab = dp->lb.services;
    uint32_t n = 0, ref = 0;
    while (n < cap && (ref = hashtab_next(tab, lb_service_shape, *cursor)) != 0) {
        const struct lb_service_slot *slot = hashtab_at(tab, lb_service_shape, ref);
        const struct lb_service *service = &slot->service;
        rows[n++] = (struct fwd_service_row){
            .frontend = service->key.addr, .port = be16_to_host(service->key.port),
            .proto = service->key.proto, .scope = service->key.scope, .flags = service->flags,
            .rev_nat_id = service->rev_nat_id, .affinity_timeout_s = service->affinity_timeout_s,
            .count = service->count};
        *cursor = ref;
    }
    if (n < cap)
        *cursor = 0;
    return n;
}

uint32_t fwd_service_slots(struct fwd_dp *dp, const struct fwd_service_row *row,
                           uint32_t *backend_ids, uint32_t cap)
{
    struct lb_key key = lb_key_of(row);
    const struct lb_service *service = lb_service_find(&dp->lb, &key);
    uint32_t count = service ? service->count : 0;
    for (uint32_t i = 0; i < count && i < cap; i++)
        backend_ids[i] = lb_slot_get(&dp->lb, &key, i + 1);
    return count < cap ? count : cap;
}

int fwd_backend_upsert(struct fwd_dp *dp, const struct fwd_backend_row *row, struct fwd_error *err)
{
    struct hashtab *tab = dp->lb.backends;
    bool fresh;
    if (row->id == 0 || row->state > FWD_BACKEND_MAINTENANCE) {
        error_set(err, EINVAL, "writing backend %s port %u: it needs an id and a known state",
                  addr_text(&row->addr).text, row->port);
        return -1;
    }
    uint32_t ref = hashtab_claim(tab, lb_backend_shape, &row->id, &fresh);
    if (!ref) {
        error_set(err, ENOSPC, "writing backend %s port %u: the table is full with %u backends; "
                  "raise its capacity and restart", addr_text(&row->addr).text, row->port,
                  tab->cap);
        return -1;
    }
    struct lb_backend_slot *slot = hashtab_at(tab, lb_backend_shape, ref);
    slot->backend = (struct lb_backend){.id = row->id, .port = be16_to_host(row->port),
                                        .proto = row->proto, .state = row->state,
                                        .addr = row->addr};
    hashtab_commit(tab, lb_backend_shape, ref);
    return 0;
}

int fwd_backend_delete(struct fwd_dp *dp, uint32_t id)
{
    return hashtab_remove(dp->lb.backends, lb_backend_shape, &id) != 0;
}

uint32_t fwd_backend_dump(struct fwd_dp *dp, uint64_t *cursor, struct fwd_backend_row *rows,
                          uint32_t cap)
{
    const struct hashtab *tab = dp->lb.backends;
    uint32_t n = 0, ref = 0;
    while (n < cap && (ref = hashtab_next(tab, lb_backend_shape, *cursor)) != 0) {
        const struct lb_backend_slot *slot = hashtab_at(tab, lb_backend_shape, ref);
        const struct lb_backend *backend = &slot->backend;
        rows[n++] = (struct fwd_backend_row){.addr = backend->addr, .id = backend->id,
                                             .port = be16_to_host(backend->port),
                                             .proto = backend->proto, .state = backend->state};
        *cursor = ref;
    }
    if (n < cap)
        *cursor = 0;
    return n;
}
