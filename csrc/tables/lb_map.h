/* lb_map.h - how services are stored; lb.c (packets) and lb_control.c (writers) alone use it. */
#ifndef FWD_TABLES_LB_MAP_H
#define FWD_TABLES_LB_MAP_H

#include "tables/arena.h"
#include "tables/hashtab.h"

enum { LB_REV_NATS = 65536 };

struct lb_service_slot {
    struct hashtab_link link;
    struct lb_service service;  /* begins with the key */
};

struct lb_slot_key {
    struct lb_key frontend;
    uint32_t number;            /* from 1 */
};

struct lb_slot_slot {
    struct hashtab_link link;
    struct lb_slot_key key;
    uint32_t backend_id;
};

struct lb_backend_slot {
    struct hashtab_link link;
    struct lb_backend backend;  /* begins with the key, the id */
};

struct lb_affinity_key {
    struct fwd_addr client;
    uint32_t rev_nat_id;
};

struct lb_affinity_slot {
    struct hashtab_link link;
    struct lb_affinity_key key;
    uint32_t backend_id;
    uint32_t last_used_s;
};

struct lb_range_key {
    struct fwd_addr prefix;
    uint16_t rev_nat_id;
    uint8_t family, prefix_len;
};

struct lb_range_slot {
    struct hashtab_link link;
    struct lb_range_key key;
};

struct lb_range_lens {
    uint32_t count[2][129];     /* ranges by family (0: IPv4) and prefix length: what to look for */
};

struct lb_maglev_slot {
    struct hashtab_link link;
    uint32_t rev_nat_id;
};

static_assert(sizeof(struct lb_range_key) == 20, "hashed as bytes, without padding");
static_assert(sizeof(struct lb_key) == 20 && sizeof(struct lb_slot_key) == 24,
              "keys are hashed as bytes, without padding");
static_assert(sizeof(struct lb_affinity_key) == 20, "the same");

static const struct hashtab_shape lb_service_shape = {sizeof(struct lb_service_slot),
                                                      sizeof(struct lb_key)};
static const struct hashtab_shape lb_slot_shape = {sizeof(struct lb_slot_slot),
                                                   sizeof(struct lb_slot_key)};
static const struct hashtab_shape lb_backend_shape = {sizeof(struct lb_backend_slot),
                                                      sizeof(uint32_t)};
static const struct hashtab_shape lb_affinity_shape = {sizeof(struct lb_affinity_slot),
                                                       sizeof(struct lb_affinity_key)};

static const struct hashtab_shape lb_range_shape = {sizeof(struct lb_range_slot),
                                                    sizeof(struct lb_range_key)};
static const struct hashtab_shape lb_maglev_shape = {sizeof(struct lb_maglev_slot),
                                                     sizeof(uint32_t)};

struct lb_service *lb_service_find(const struct lb *lb, const struct lb_key *key);

/* lb_slot_get: backend id of slot @number of @frontend, 0 = none. */
uint32_t lb_slot_get(const struct lb *lb, const struct lb_key *frontend, uint32_t number);

/* lb_range_count: the number of ranges of a key's family and length. */
static inline uint32_t *lb_range_count(const struct lb *lb, const struct lb_range_key *key)
{
    return &lb->range_lens->count[key->family == 6][key->prefix_len];
}

/* lb_has_backend: is @id in one of the service's slots? A walk over them. */
bool lb_has_backend(const struct lb *lb, const struct lb_service *service, uint32_t id);

/* lb_rev_nat_set: the service's id leads back to its frontend. */
void lb_rev_nat_set(struct lb *lb, const struct lb_service *service);

#endif
