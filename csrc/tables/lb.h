/* lb.h - services: frontends, their backend slots, backends, reverse NAT and session affinity.
 *
 * The maps of datapath reference 2.4, era [C]: keys carry the protocol and the scope. Callers:
 * path/service.c and path/nodeport.c per packet, the control side through abi.h.
 */
#ifndef FWD_TABLES_LB_H
#define FWD_TABLES_LB_H

#include "base/pkt.h"
#include "tables/hashtab.h"

struct lb_key {             /* a frontend */
    struct fwd_addr addr;
    uint16_t port;          /* be16 */
    uint8_t proto, scope;
};

struct lb_service {
    struct lb_key key;
    uint16_t flags;         /* FWD_SVC_* */
    uint16_t rev_nat_id;
    uint32_t affinity_timeout_s;
    uint32_t count;         /* slots 1..count are in lb_slots */
};

struct lb_backend {
    uint32_t id;
    uint16_t port;          /* be16; 0 = keep the packet's */
    uint8_t proto, state;   /* enum fwd_backend_state */
    struct fwd_addr addr;
};

struct lb_frontend {        /* of a rev_nat_id */
    struct fwd_addr addr;
    uint16_t port;          /* be16 */
    uint16_t used;
};

struct lb_flow {            /* what conntrack remembers of a flow through a service */
    struct fwd_addr addr;
    uint16_t port;          /* be16; of a backend 0 = any, an ICMP companion has none */
    uint16_t rev_nat_id;
    uint8_t proto;          /* 0 = any */
};

struct lb {                 /* the maps, in the handle */
    struct hashtab *services, *slots, *backends, *affinity, *ranges, *maglev;
    struct lb_range_lens *range_lens;
    uint32_t *maglev_places;     /* FWD_MAGLEV_SIZE for each slot of maglev */
    struct lb_frontend *rev_nat; /* [65536] */
};

uint64_t lb_size(const struct fwd_params *params);
void lb_open(struct lb *lb, void *region, const struct fwd_params *params);
void lb_init(struct lb *lb, const struct fwd_params *params);
bool lb_validate(struct lb *lb, uint64_t size, const struct fwd_params *params);

/* lb_lookup: the frontend a packet to (@addr, @port, @proto) means. A frontend with two scopes is
 * looked up again with the internal one for traffic of pods (datapath reference 4.1). */
const struct lb_service *lb_lookup(const struct lb *lb, const struct fwd_addr *addr, uint16_t port,
                                   uint8_t proto);
const struct lb_backend *lb_backend_get(const struct lb *lb, uint32_t id);

/* lb_lookup_outside: the same for traffic from outside: the external scope, and for a known address
 * with another port the wildcard entry, which has protocol and port 0 and no backends. */
const struct lb_service *lb_lookup_outside(const struct lb *lb, const struct fwd_addr *addr,
                                           uint16_t port, uint8_t proto);
/* lb_source_allowed: is @client in one of the source ranges of a service (4.5)? */
bool lb_source_allowed(const struct lb *lb, uint16_t rev_nat_id, const struct fwd_addr *client);
/* lb_maglev: the backend at place @hash of the service's Maglev table. NULL: it has none, or the
 * backend there takes no new connections. */
const struct lb_backend *lb_maglev(const struct lb *lb, const struct lb_service *service,
                                   uint32_t hash);

/* lb_select: a backend for a new connection. @random decides; any value. Only active backends are
 * taken, each with the same chance. NULL: none is active. */
const struct lb_backend *lb_select(const struct lb *lb, const struct lb_service *service,
                                   uint64_t random);

/* lb_affinity_get: the backend @client sticks to, still one of the service's and within the
 * timeout (strictly). NULL: none; a stale entry is forgotten. */
const struct lb_backend *lb_affinity_get(struct lb *lb, const struct lb_service *service,
                                         const struct fwd_addr *client, uint32_t now_s);
void lb_affinity_set(struct lb *lb, const struct lb_service *service,
                     const struct fwd_addr *client, uint32_t backend_id, uint32_t now_s);

/* lb_rev_nat_get: the frontend of @rev_nat_id. NULL: unknown, leave the packet alone. */
const struct lb_frontend *lb_rev_nat_get(const struct lb *lb, uint16_t rev_nat_id);

/* lb_has_service_flow, lb_has_backend_flow: does the service of a tracked flow still exist and
 * still have its backend, in whatever state? @flow's address is the frontend's in the first, the
 * backend's in the second. Both walk the service's slots: control asks, no packet does. */
bool lb_has_service_flow(const struct lb *lb, const struct lb_flow *flow, uint32_t backend_id);
bool lb_has_backend_flow(const struct lb *lb, const struct lb_flow *flow);

void lb_stats(const struct lb *lb, enum fwd_table table, struct fwd_table_stats *stats);

#endif
