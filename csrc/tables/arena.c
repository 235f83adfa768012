/* arena.c - the mapped region that holds every table, and the handle on it (D7). See arena.h.
 *
 * Called at start and end, never per packet. Beside csrc/io the only place with syscalls and malloc.
 *
 * Theory. The region is the header, then the tables in the order of `parts`, each at an offset
 * that the parameters alone decide: whoever has the same parameters finds the same layout. A new
 * arena gets its magic last, so a creator that died leaves nothing that attach would take. Attach
 * believes nothing: size, magic, version, the header's own check, parameters, boot id, then each
 * table's own validation. Only after all of that a handle exists.
 */
#include "tables/arena.h"

#include "base/hash.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARENA_MAGIC 0x414e455241445746ULL /* "FWDARENA" as bytes in memory */

enum arena_part {
    PART_CT_TCP, PART_CT_ANY, PART_IPCACHE, PART_ENDPOINTS, PART_LXC, PART_POLICY, PART_PEERS,
    PART_FRAGMENTS, PART_LB, PART_NAT, PART_METRICS, PART_EVENTS, PART_MAX
};

struct arena_layout {
    uint64_t offset[PART_MAX];
    uint64_t size[PART_MAX];
    uint64_t total;
};

void error_set(struct fwd_error *err, int code, const char *format, ...)
{
    if (!err)
        return;
    err->code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof(err->message), format, args);
    va_end(args);
}

uint32_t fwd_abi_version(void)
{
    return FWD_ABI_VERSION;
}

/* ---- layout ---- */

static void arena_layout(const struct fwd_params *params, struct arena_layout *layout)
{
    *layout = (struct arena_layout){.size = {
        [PART_CT_TCP] = ct_map_size(params->ct_tcp),
        [PART_CT_ANY] = ct_map_size(params->ct_any),
        [PART_IPCACHE] = ipcache_size(params->ipcache),
        [PART_ENDPOINTS] = endpoint_size(params->endpoints),
        [PART_LXC] = lxc_size(params->lxc),
        [PART_POLICY] = policy_size(params->policy),
        [PART_PEERS] = peer_size(params->peers),
        [PART_FRAGMENTS] = frag_size(params->fragments),
        [PART_LB] = lb_size(params),
        [PART_NAT] = nat_size(params->nat),
        [PART_METRICS] = sizeof(struct metrics),
        [PART_EVENTS] = events_size(params->events),
    }};
    uint64_t at = table_align(sizeof(struct arena_header));
    for (int part = 0; part < PART_MAX; part++) {
        layout->offset[part] = at;
        at += table_align(layout->size[part]);
    }
    layout->total = at;
}

uint64_t fwd_arena_size(const struct fwd_params *params)
{
    struct arena_layout layout;
    arena_layout(params, &layout);
    return layout.total;
}

/* arena_check_params: @from names where they come from. False with @err filled. */
static bool arena_check_params(const struct fwd_params *params, const char *from,
                               struct fwd_error *err)
{
    const struct {
        const char *name;
        uint32_t value, max;
    } limits[] = {
        {"ct_tcp", params->ct_tcp, 1u << 27},
        {"ct_any", params->ct_any, 1u << 27},
        {"ipcache", params->ipcache, 1u << 24},
        {"endpoints", params->endpoints, UINT16_MAX},
        {"lxc", params->lxc, 1u << 20},
        {"policy", params->policy, 1u << 24},
        {"peers", params->peers, 1u << 20},
        {"fragments", params->fragments, 1u << 24},
        {"events", params->events, 1u << 20},
        {"services", params->services, 1u << 20},
        {"backends", params->backends, 1u << 20},
        {"slots", params->slots, 1u << 22},
        {"affinity", params->affinity, 1u << 22},
        {"nat", params->nat, 1u << 24}, {"maglev", params->maglev, UINT16_MAX},
        {"source_ranges", params->source_ranges, 1u << 20},
    };
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        if (limits[i].value >= 1 && limits[i].value <= limits[i].max)
            continue;
        error_set(err, EINVAL, "%s: capacity %s is %u, use 1 to %u", from, limits[i].name,
                  limits[i].value, limits[i].max);
        return false;
    }
    if (params->events & (params->events - 1)) {
        error_set(err, EINVAL, "%s: capacity events is %u, use a power of two such as %u", from,
                  params->events, table_pow2(params->events));
        return false;
    }
    return true;
}

/* arena_check: over the header's fields behind the magic, up to the generation. */
static uint64_t arena_check(const struct arena_header *arena)
{
    uint64_t check = ARENA_MAGIC;
    for (size_t at = offsetof(struct arena_header, abi_version);
         at < offsetof(struct arena_header, generation); at += sizeof(uint64_t))
        check = hash_mix(check ^ hash_load64((const uint8_t *)arena + at), 0x9e3779b97f4a7c15ULL);
    return check;
}
static_assert(offsetof(struct arena_header, generation) % sizeof(uint64_t) == 0,
              "the check reads whole words");

/* ---- handles ---- */

static struct fwd_dp *arena_handle(struct arena_header *arena, uint64_t size,
                                   const struct arena_layout *layout)
{
    struct fwd_dp *dp = calloc(1, sizeof(*dp));
    if (!dp)
        return NULL;
    uint8_t *base = (uint8_t *)arena;
    const uint64_t *offset = layout->offset;
    *dp = (struct fwd_dp){
        .arena = arena,
        .size = size,
        .settings = &arena->settings,
        .ct = {.tcp = (struct ct_map *)(void *)(base + offset[PART_CT_TCP]),
               .any = (struct ct_map *)(void *)(base + offset[PART_CT_ANY]),
               .seed = arena->params.hash_seed},
        .ipcache = (struct ipcache *)(void *)(base + offset[PART_IPCACHE]),
        .endpoints = (struct endpoint_table *)(void *)(base + offset[PART_ENDPOINTS]),
        .lxc = (struct lxc_table *)(void *)(base + offset[PART_LXC]),
        .policy = (struct policy_table *)(void *)(base + offset[PART_POLICY]),
        .peers = (struct peer_table *)(void *)(base + offset[PART_PEERS]),
        .frags = (struct frag_table *)(void *)(base + offset[PART_FRAGMENTS]),
        .nat = (struct nat_table *)(void *)(base + offset[PART_NAT]),
        .metrics = (struct metrics *)(void *)(base + offset[PART_METRICS]),
        .events = (struct event_ring *)(void *)(base + offset[PART_EVENTS]),
    };
    lb_open(&dp->lb, base + offset[PART_LB], &arena->params);
    return dp;
}

/* arena_map: @size bytes, of @fd when that is one. NULL with @err filled. */
static void *arena_map(int fd, uint64_t size, struct fwd_error *err)
{
    int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (base == MAP_FAILED) {
        error_set(err, errno, "mapping the arena of %llu bytes: %s; lower the capacities or free"
                  " memory", (unsigned long long)size, strerror(errno));
        return NULL;
    }
    if (fd < 0)
        madvise(base, size, MADV_HUGEPAGE); /* fewer TLB misses; whatever it answers is fine */
    return base;
}

static void arena_init_tables(struct fwd_dp *dp)
{
    const struct fwd_params *params = &dp->arena->params;
    uint64_t seed = params->hash_seed;
    ct_map_init(dp->ct.tcp, params->ct_tcp, seed);
    ct_map_init(dp->ct.any, params->ct_any, seed);
    ipcache_init(dp->ipcache, params->ipcache, seed);
    endpoint_init(dp->endpoints, params->endpoints);
    lxc_init(dp->lxc, params->lxc, seed);
    policy_init(dp->policy, params->policy, seed);
    peer_init(dp->peers, params->peers, seed);
    frag_init(dp->frags, params->fragments, seed);
    lb_init(&dp->lb, params);
    nat_init(dp->nat, params->nat, seed);
    events_init(dp->events, params->events);
}

struct fwd_dp *fwd_dp_create(const struct fwd_params *params, int fd, struct fwd_error *err)
{
    if (!arena_check_params(params, "creating the arena", err))
        return NULL;
    struct arena_layout layout;
    arena_layout(params, &layout);
    /* Down to nothing first: tables count on zeroed memory. */
    if (fd >= 0 && (ftruncate(fd, 0) || ftruncate(fd, (off_t)layout.total))) {
        error_set(err, errno, "sizing the arena's memfd %d to %llu bytes: %s; lower the"
                  " capacities", fd, (unsigned long long)layout.total, strerror(errno));
        return NULL;
    }
    struct arena_header *arena = arena_map(fd, layout.total, err);
    if (!arena)
        return NULL;
    arena->abi_version = FWD_ABI_VERSION;
    arena->header_size = sizeof(*arena);
    arena->size = layout.total;
    arena->params = *params;
    struct fwd_dp *dp = arena_handle(arena, layout.total, &layout);
    if (!dp) {
        error_set(err, ENOMEM, "creating the arena: no memory for its handle");
        munmap(arena, layout.total);
        return NULL;
    }
    arena_init_tables(dp);
    arena->check = arena_check(arena);
    atomic_signal_fence(memory_order_seq_cst); /* the magic vouches for all of the above */
    arena->magic = ARENA_MAGIC;
    return dp;
}

/* ---- attach ---- */

#define ARENA_ADVICE "; start with a new arena, tracked connections are lost"

/* arena_check_header: may the rest be looked at? @size: of the file. False with @err filled. */
static bool arena_check_header(const struct arena_header *arena, uint64_t size,
                               const uint8_t boot_id[16], struct fwd_error *err)
{
    if (arena->magic != ARENA_MAGIC) {
        error_set(err, EINVAL, "attaching the arena: it does not begin with FWDARENA: not an arena,"
                  " or its creation was interrupted" ARENA_ADVICE);
        return false;
    }
    if (arena->abi_version != FWD_ABI_VERSION || arena->header_size != sizeof(*arena)) {
        error_set(err, EINVAL, "attaching the arena: it has ABI version %u with a header of %u"
                  " bytes, this build has %u and %zu; run the build that made it, or start with a"
                  " new arena, tracked connections are lost", arena->abi_version,
                  arena->header_size, FWD_ABI_VERSION, sizeof(*arena));
        return false;
    }
    if (arena->check != arena_check(arena)) {
        error_set(err, EINVAL, "attaching the arena: its header is damaged (check differs)"
                  ARENA_ADVICE);
        return false;
    }
    if (!arena_check_params(&arena->params, "attaching the arena", err))
        return false;
    uint64_t expected = fwd_arena_size(&arena->params);
    if (size != expected || arena->size != expected) {
        error_set(err, EINVAL, "attaching the arena: it has %llu bytes, its capacities need %llu"
                  ARENA_ADVICE, (unsigned long long)size, (unsigned long long)expected);
        return false;
    }
    if (memcmp(arena->params.boot_id, boot_id, sizeof(arena->params.boot_id)) != 0) {
        error_set(err, ESTALE, "attaching the arena: its boot id is of another boot, whose clock"
                  " gave its expiry times their meaning" ARENA_ADVICE);
        return false;
    }
    return true;
}

/* arena_check_tables: each table's own word. False with @err naming the damaged one. */
static bool arena_check_tables(struct fwd_dp *dp, const struct arena_layout *layout,
                               uint32_t *torn, struct fwd_error *err)
{
    const struct fwd_params *params = &dp->arena->params;
    const uint64_t *size = layout->size;
    uint64_t seed = params->hash_seed;
    const char *bad = NULL;
    if (!ct_map_validate(dp->ct.tcp, size[PART_CT_TCP], params->ct_tcp, seed, torn))
        bad = "ct_tcp";
    else if (!ct_map_validate(dp->ct.any, size[PART_CT_ANY], params->ct_any, seed, torn))
        bad = "ct_any";
    else if (!ipcache_validate(dp->ipcache, size[PART_IPCACHE], params->ipcache))
        bad = "ipcache";
    else if (!endpoint_validate(dp->endpoints, size[PART_ENDPOINTS], params->endpoints))
        bad = "endpoint";
    else if (!lxc_validate(dp->lxc, size[PART_LXC], params->lxc))
        bad = "lxc";
    else if (!policy_validate(dp->policy, size[PART_POLICY], params->policy))
        bad = "policy";
    else if (!peer_validate(dp->peers, size[PART_PEERS], params->peers))
        bad = "peer";
    else if (!frag_validate(dp->frags, size[PART_FRAGMENTS], params->fragments))
        bad = "fragment";
    else if (!lb_validate(&dp->lb, size[PART_LB], params))
        bad = "service";
    else if (!nat_validate(dp->nat, size[PART_NAT], params->nat))
        bad = "nat";
    else if (!events_validate(dp->events, size[PART_EVENTS], params->events))
        bad = "event";
    if (bad)
        error_set(err, EINVAL, "attaching the arena: the %s table is damaged" ARENA_ADVICE, bad);
    return !bad;
}

struct fwd_dp *fwd_dp_attach(int fd, const uint8_t boot_id[16], uint32_t *torn,
                             struct fwd_error *err)
{
    struct stat status;
    *torn = 0;
    if (fstat(fd, &status)) {
        error_set(err, errno, "attaching the arena: descriptor %d: %s" ARENA_ADVICE, fd,
                  strerror(errno));
        return NULL;
    }
    uint64_t size = (uint64_t)status.st_size;
    if (size < sizeof(struct arena_header)) {
        error_set(err, EINVAL, "attaching the arena: it has %llu bytes, less than its header of %zu"
                  ARENA_ADVICE, (unsigned long long)size, sizeof(struct arena_header));
        return NULL;
    }
    struct arena_header *arena = arena_map(fd, size, err);
    if (!arena)
        return NULL;
    struct fwd_dp *dp = NULL;
    if (arena_check_header(arena, size, boot_id, err)) {
        struct arena_layout layout;
        arena_layout(&arena->params, &layout);
        dp = arena_handle(arena, size, &layout);
        if (!dp)
            error_set(err, ENOMEM, "attaching the arena: no memory for its handle");
        else if (arena_check_tables(dp, &layout, torn, err))
            return dp;
    }
    free(dp);
    munmap(arena, size);
    return NULL;
}

struct fwd_dp *fwd_dp_view(const struct fwd_dp *dp, int fd, struct fwd_error *err)
{
    void *base = mmap(NULL, dp->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED) {
        error_set(err, errno, "mapping a view of the arena: %s; it needs a memfd", strerror(errno));
        return NULL;
    }
    struct arena_layout layout;
    arena_layout(&dp->arena->params, &layout);
    struct fwd_dp *view = arena_handle(base, dp->size, &layout);
    if (!view) {
        error_set(err, ENOMEM, "mapping a view of the arena: no memory for its handle");
        munmap(base, dp->size);
    }
    return view;
}

void fwd_dp_close(struct fwd_dp *dp)
{
    if (!dp)
        return;
    munmap(dp->arena, dp->size);
    free(dp);
}

/* ---- what the header keeps ---- */

void fwd_dp_params(const struct fwd_dp *dp, struct fwd_params *params)
{
    *params = dp->arena->params;
}

void fwd_dp_settings_get(const struct fwd_dp *dp, struct fwd_settings *settings)
{
    *settings = *dp->settings;
}

void fwd_dp_settings_set(struct fwd_dp *dp, const struct fwd_settings *settings)
{
    *dp->settings = *settings;
}

uint64_t fwd_dp_generation(const struct fwd_dp *dp)
{
    return dp->arena->generation;
}

void fwd_dp_generation_set(struct fwd_dp *dp, uint64_t generation)
{
    dp->arena->generation = generation;
}

/* ---- numbers of all tables ---- */

void fwd_table_stats(const struct fwd_dp *dp, enum fwd_table table, struct fwd_table_stats *stats)
{
    *stats = (struct fwd_table_stats){0};
    switch (table) {
    case FWD_TABLE_CT_TCP:
        ct_map_stats(dp->ct.tcp, stats);
        break;
    case FWD_TABLE_CT_ANY:
        ct_map_stats(dp->ct.any, stats);
        break;
    case FWD_TABLE_IPCACHE:
        ipcache_stats(dp->ipcache, stats);
        break;
    case FWD_TABLE_ENDPOINT:
        endpoint_stats(dp->endpoints, stats);
        break;
    case FWD_TABLE_LXC:
        lxc_stats(dp->lxc, stats);
        break;
    case FWD_TABLE_POLICY:
        policy_stats(dp->policy, stats);
        break;
    case FWD_TABLE_PEER:
        peer_stats(dp->peers, stats);
        break;
    case FWD_TABLE_FRAG:
        frag_stats(dp->frags, stats);
        break;
    case FWD_TABLE_NAT:
        nat_stats(dp->nat, stats);
        break;
    case FWD_TABLE_SERVICE: case FWD_TABLE_BACKEND: case FWD_TABLE_SLOT:
    case FWD_TABLE_AFFINITY: case FWD_TABLE_SOURCE_RANGE: case FWD_TABLE_MAGLEV:
        lb_stats(&dp->lb, table, stats);
        break;
    }
}

uint32_t fwd_metrics_dump(struct fwd_dp *dp, uint64_t *cursor, struct fwd_metric_row *rows,
                          uint32_t cap)
{
    enum { REASONS = 256, DIRS = 4 };
    uint32_t n = 0;
    for (; *cursor < REASONS * DIRS && n < cap; ++*cursor) {
        const struct metric *metric = &dp->metrics->at[*cursor / DIRS][*cursor % DIRS];
        if (metric->packets)
            rows[n++] = (struct fwd_metric_row){.packets = metric->packets, .bytes = metric->bytes,
                                                .reason = (uint8_t)(*cursor / DIRS),
                                                .dir = (uint8_t)(*cursor % DIRS)};
    }
    if (*cursor >= REASONS * DIRS)
        *cursor = 0;
    return n;
}
