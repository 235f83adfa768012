/* lb.c - services, see lb.h. Row 1 of docs/datapath.md asks it for every packet of a pod, and
 * reverse NAT for replies. Writing them is lb_control.c's business.
 *
 * Theory. Five maps. `services` holds a frontend's head, `slots` its backends by (frontend, slot
 * number), as Cilium's one map does: a slot is found by one hash whatever the service's size, and a
 * writer may change slots while packets flow. Order of a rewrite: slots, then the head with the new
 * count, then what the old count had beyond it goes, so that no moment points at a missing slot.
 * Attach drops slots that a killed writer left without a head. `rev_nat` is an array, for the id
 * is its index; attach makes it anew of the services. Full `affinity`: of a few entries where the
 * newcomer's hash points, the one longest unused goes, which costs one client its stickiness.
 */
#include "tables/lb_map.h"

enum {
    LB_DRAWS = 16,     /* random draws before the slots are tried in order: keeps the spread even */
    LB_EVICT_SCAN = 8, /* affinity entries compared when one has to go */
};

/* ---- layout ---- */

static uint64_t lb_places_size(const struct fwd_params *params)
{
    return table_align((uint64_t)params->maglev * FWD_MAGLEV_SIZE * sizeof(uint32_t));
}

uint64_t lb_size(const struct fwd_params *params)
{
    return hashtab_size(params->services, lb_service_shape) +
           hashtab_size(params->slots, lb_slot_shape) +
           hashtab_size(params->backends, lb_backend_shape) +
           hashtab_size(params->affinity, lb_affinity_shape) +
           hashtab_size(params->source_ranges, lb_range_shape) +
           hashtab_size(params->maglev, lb_maglev_shape) +
           table_align(sizeof(struct lb_range_lens)) + lb_places_size(params) +
           table_align(sizeof(struct lb_frontend) * LB_REV_NATS);
}

void lb_open(struct lb *lb, void *region, const struct fwd_params *params)
{
    uint8_t *at = region;
    lb->services = (struct hashtab *)(void *)at;
    at += hashtab_size(params->services, lb_service_shape);
    lb->slots = (struct hashtab *)(void *)at;
    at += hashtab_size(params->slots, lb_slot_shape);
    lb->backends = (struct hashtab *)(void *)at;
    at += hashtab_size(params->backends, lb_backend_shape);
    lb->affinity = (struct hashtab *)(void *)at;
    at += hashtab_size(params->affinity, lb_affinity_shape);
    lb->ranges = (struct hashtab *)(void *)at;
    at += hashtab_size(params->source_ranges, lb_range_shape);
    lb->maglev = (struct hashtab *)(void *)at;
    at += hashtab_size(params->maglev, lb_maglev_shape);
    lb->range_lens = (struct lb_range_lens *)(void *)at;
    at += table_align(sizeof(struct lb_range_lens));
    lb->maglev_places = (uint32_t *)(void *)at;
    at += lb_places_size(params);
    lb->rev_nat = (struct lb_frontend *)(void *)at;
}

void lb_init(struct lb *lb, const struct fwd_params *params)
{
    hashtab_init(lb->services, params->services, params->hash_seed);
    hashtab_init(lb->slots, params->slots, params->hash_seed);
    hashtab_init(lb->backends, params->backends, params->hash_seed);
    hashtab_init(lb->affinity, params->affinity, params->hash_seed);
    hashtab_init(lb->ranges, params->source_ranges, params->hash_seed);
    hashtab_init(lb->maglev, params->maglev, params->hash_seed);
}

static bool lb_keep_any(const void *slot)
{
    (void)slot; /* ids are looked up, not followed: no value can do harm */
    return true;
}

static bool lb_keep_range(const void *slot)
{
    const struct lb_range_key *key = &((const struct lb_range_slot *)slot)->key;
    return (key->family == 4 && key->prefix_len <= 32) ||
           (key->family == 6 && key->prefix_len <= 128);
}

static bool lb_keep_service(const void *slot)
{
    return ((const struct lb_service_slot *)slot)->service.rev_nat_id != 0;
}

struct lb_service *lb_service_find(const struct lb *lb, const struct lb_key *key)
{
    uint32_t ref = hashtab_find(lb->services, lb_service_shape, key);
    if (!ref)
        return NULL;
    return &((struct lb_service_slot *)hashtab_at(lb->services, lb_service_shape, ref))->service;
}

void lb_rev_nat_set(struct lb *lb, const struct lb_service *service)
{
    lb->rev_nat[service->rev_nat_id] = (struct lb_frontend){.addr = service->key.addr,
                                                            .port = service->key.port, .used = 1};
}

/* lb_repair: finish at attach what a writer left half done. */
static void lb_repair(struct lb *lb)
{
    uint32_t ref;
    memset(lb->rev_nat, 0, sizeof(struct lb_frontend) * LB_REV_NATS);
    for (uint64_t at = 0; (ref = hashtab_next(lb->services, lb_service_shape, at)); at = ref) {
        struct lb_service_slot *slot = hashtab_at(lb->services, lb_service_shape, ref);
        if (slot->service.count > lb->slots->cap)
            slot->service.count = 0; /* damage: an endless walk over slots that are not there */
        lb_rev_nat_set(lb, &slot->service);
    }
    for (uint64_t at = 0; (ref = hashtab_next(lb->slots, lb_slot_shape, at)); at = ref) {
        const struct lb_slot_slot *slot = hashtab_at(lb->slots, lb_slot_shape, ref);
        struct lb_slot_key key = slot->key;
        const struct lb_service *service = lb_service_find(lb, &key.frontend);
        if (!service || key.number == 0 || key.number > service->count)
            hashtab_remove(lb->slots, lb_slot_shape, &key);
    }
    memset(lb->range_lens, 0, sizeof(*lb->range_lens));
    for (uint64_t at = 0; (ref = hashtab_next(lb->ranges, lb_range_shape, at)); at = ref)
        ++*lb_range_count(lb, &((struct lb_range_slot *)hashtab_at(lb->ranges, lb_range_shape,
                                                                   ref))->key);
}

bool lb_validate(struct lb *lb, uint64_t size, const struct fwd_params *params)
{
    if (size < lb_size(params) ||
        !hashtab_validate(lb->services, params->services, lb_service_shape, lb_keep_service) ||
        !hashtab_validate(lb->slots, params->slots, lb_slot_shape, lb_keep_any) ||
        !hashtab_validate(lb->backends, params->backends, lb_backend_shape, lb_keep_any) ||
        !hashtab_validate(lb->affinity, params->affinity, lb_affinity_shape, lb_keep_any) ||
        !hashtab_validate(lb->ranges, params->source_ranges, lb_range_shape, lb_keep_range) ||
        !hashtab_validate(lb->maglev, params->maglev, lb_maglev_shape, lb_keep_any))
        return false;
    lb_repair(lb);
    return true;
}

/* ---- packets ---- */

const struct lb_service *lb_lookup(const struct lb *lb, const struct fwd_addr *addr, uint16_t port,
                                   uint8_t proto)
{
    struct lb_key key = {.addr = *addr, .port = port, .proto = proto,
                         .scope = FWD_SCOPE_EXTERNAL};
    const struct lb_service *service = lb_service_find(lb, &key);
    if (service && service->flags & FWD_SVC_TWO_SCOPES) {
        key.scope = FWD_SCOPE_INTERNAL;
        service = lb_service_find(lb, &key);
    }
    return service;
}

const struct lb_backend *lb_backend_get(const struct lb *lb, uint32_t id)
{
    uint32_t ref = hashtab_find(lb->backends, lb_backend_shape, &id);
    if (!ref)
        return NULL;
    return &((struct lb_backend_slot *)hashtab_at(lb->backends, lb_backend_shape, ref))->backend;
}

uint32_t lb_slot_get(const struct lb *lb, const struct lb_key *frontend, uint32_t number)
{
    struct lb_slot_key key = {.frontend = *frontend, .number = number};
    uint32_t ref = hashtab_find(lb->slots, lb_slot_shape, &key);
    if (!ref)
        return 0;
    return ((struct lb_slot_slot *)hashtab_at(lb->slots, lb_slot_shape, ref))->backend_id;
}

static const struct lb_backend *lb_slot_active(const struct lb *lb,
                                               const struct lb_service *service, uint32_t number)
{
    uint32_t id = lb_slot_get(lb, &service->key, number);
    const struct lb_backend *backend = lb_backend_get(lb, id);
    return backend && backend->state == FWD_BACKEND_ACTIVE ? backend : NULL;
}

const struct lb_backend *lb_select(const struct lb *lb, const struct lb_service *service,
                                   uint64_t random)
{
    const struct lb_backend *backend = NULL;
    uint32_t count = service->count;
    if (!count)
        return NULL;
    /* Draw again rather than take the neighbour, who would get a drained backend's share too. */
    for (uint32_t draw = 0; draw < LB_DRAWS && !backend; draw++) {
        backend = lb_slot_active(lb, service, (uint32_t)(random % count) + 1);
        random = hash_mix(random ^ 0x9e3779b97f4a7c15ULL, 0xa0761d6478bd642fULL);
    }
    uint32_t start = (uint32_t)(random % count);
    for (uint32_t n = 0; n < count && !backend; n++)
        backend = lb_slot_active(lb, service, (start + n) % count + 1);
    return backend;
}

bool lb_has_backend(const struct lb *lb, const struct lb_service *service, uint32_t id)
{
    for (uint32_t n = 1; n <= service->count; n++) {
        if (lb_slot_get(lb, &service->key, n) == id)
            return true;
    }
    return false;
}

const struct lb_backend *lb_affinity_get(struct lb *lb, const struct lb_service *service,
                                         const struct fwd_addr *client, uint32_t now_s)
{
    struct lb_affinity_key key = {.client = *client, .rev_nat_id = service->rev_nat_id};
    uint32_t ref = hashtab_find(lb->affinity, lb_affinity_shape, &key);
    if (!ref)
        return NULL;
    struct lb_affinity_slot *slot = hashtab_at(lb->affinity, lb_affinity_shape, ref);
    const struct lb_backend *backend = lb_backend_get(lb, slot->backend_id);
    bool fresh = (uint64_t)slot->last_used_s + service->affinity_timeout_s > now_s;
    if (fresh && backend && backend->state == FWD_BACKEND_ACTIVE &&
        lb_has_backend(lb, service, backend->id))
        return backend;
    hashtab_remove(lb->affinity, lb_affinity_shape, &key);
    return NULL;
}

/* lb_affinity_evict: make room for @key in a full table: every slot is in use. */
static void lb_affinity_evict(struct lb *lb, const struct lb_affinity_key *key)
{
    const struct hashtab *tab = lb->affinity;
    uint64_t hash = hashtab_hash(tab, key, lb_affinity_shape.key_len);
    const struct lb_affinity_slot *victim = NULL;
    for (uint32_t n = 0; n < LB_EVICT_SCAN && n < tab->cap; n++) {
        uint32_t ref = (uint32_t)((hash + n) % tab->cap) + 1;
        const struct lb_affinity_slot *slot = hashtab_at(tab, lb_affinity_shape, ref);
        if (!victim || slot->last_used_s < victim->last_used_s)
            victim = slot;
    }
    struct lb_affinity_key gone = victim->key;
    hashtab_remove(lb->affinity, lb_affinity_shape, &gone);
}

void lb_affinity_set(struct lb *lb, const struct lb_service *service,
                     const struct fwd_addr *client, uint32_t backend_id, uint32_t now_s)
{
    struct lb_affinity_key key = {.client = *client, .rev_nat_id = service->rev_nat_id};
    bool fresh;
    if (!lb->affinity->free && lb->affinity->top >= lb->affinity->cap &&
        !hashtab_find(lb->affinity, lb_affinity_shape, &key))
        lb_affinity_evict(lb, &key);
    uint32_t ref = hashtab_claim(lb->affinity, lb_affinity_shape, &key, &fresh);
    if (!ref)
        return;
    struct lb_affinity_slot *slot = hashtab_at(lb->affinity, lb_affinity_shape, ref);
    slot->backend_id = backend_id;
    slot->last_used_s = now_s;
    hashtab_commit(lb->affinity, lb_affinity_shape, ref);
}

const struct lb_frontend *lb_rev_nat_get(const struct lb *lb, uint16_t rev_nat_id)
{
    const struct lb_frontend *frontend = &lb->rev_nat[rev_nat_id];
    return frontend->used ? frontend : NULL;
}

/* ---- numbers ---- */

void lb_stats(const struct lb *lb, enum fwd_table table, struct fwd_table_stats *stats)
{
    if (table == FWD_TABLE_SERVICE)
        hashtab_stats(lb->services, lb_service_shape, stats);
    else if (table == FWD_TABLE_BACKEND)
        hashtab_stats(lb->backends, lb_backend_shape, stats);
    else if (table == FWD_TABLE_SLOT)
        hashtab_stats(lb->slots, lb_slot_shape, stats);
    else if (table == FWD_TABLE_SOURCE_RANGE)
        hashtab_stats(lb->ranges, lb_range_shape, stats);
    else if (table == FWD_TABLE_MAGLEV)
        hashtab_stats(lb->maglev, lb_maglev_shape, stats);
    else
        hashtab_stats(lb->affinity, lb_affinity_shape, stats);
}
