/* arena.h - one mapped, position-independent region that holds every table (D7), and the handle
 * on it. The only mmap, ftruncate and malloc of the library's pure rooms are in arena.c.
 */
#ifndef FWD_TABLES_ARENA_H
#define FWD_TABLES_ARENA_H

#include "tables/ct.h"
#include "tables/endpoint.h"
#include "tables/events.h"
#include "tables/frag.h"
#include "tables/ipcache.h"
#include "tables/lb.h"
#include "tables/metrics.h"
#include "tables/nat.h"
#include "tables/peer.h"
#include "tables/policy.h"

/* First bytes of the region. */
struct arena_header {
    uint64_t magic;             /* "FWDARENA" */
    uint32_t abi_version;
    uint32_t header_size;
    uint64_t size;              /* of the whole region */
    struct fwd_params params;
    uint64_t generation;        /* control's revision of the config tables */
    uint64_t check;             /* over the fields above but generation */
    struct fwd_settings settings;
};

struct fwd_dp {
    struct arena_header *arena;
    uint64_t size;
    struct fwd_settings *settings;
    struct ct ct;
    struct ipcache *ipcache;
    struct endpoint_table *endpoints;
    struct lxc_table *lxc;
    struct policy_table *policy;
    struct peer_table *peers;
    struct frag_table *frags;
    struct lb lb;
    struct nat_table *nat;
    struct metrics *metrics;
    struct event_ring *events;
};

#endif
