/* world.c - see world.h. One node: two pods, a pod behind node2, a plain VXLAN peer, policy, and
 * services with two backends, with none, with the client itself, and with the node. Addresses as in the rows of
 * tests/csrc/path, which is where the seeds come from.
 */
#include "unity.c"

#include "world.h"

enum { NODE = 0xc0a83869, NODE2 = 0xc0a8386a, LEGACY = 0xc0a8386b, CURL_IP = 0x0af4006c,
       LOCAL_IP = 0x0af4006d, ROUTER = 0x0af40096, NGINX = 0x0af402ab, VIP = 0x0a600000,
       EXTERNAL = 0xc633640a, CLIENT = 0x0af402b4, ROUTER2 = 0x0af40296 };
enum { CAPACITY = 64, V6_NET = 0xfd };

const uint8_t world_boot[16] = "fuzzing this one";
static int world_fd = -1;
static struct fwd_dp *world;

/* ---- the world ---- */

struct fwd_addr v4(uint32_t word)
{
    struct fwd_addr addr;
    uint8_t bytes[4];
    put32(bytes, word);
    addr_from_v4(&addr, bytes);
    return addr;
}

/* fd00:<net>::<host> */
static struct fwd_addr v6(uint8_t net, uint16_t host)
{
    struct fwd_addr addr = {.b = {V6_NET, 0, 0, net}};
    put_be16(addr.b + 14, host);
    return addr;
}

/* 2001:db8:<net>::<host> */
static struct fwd_addr v6_outside(uint8_t net, uint16_t host)
{
    struct fwd_addr addr = {.b = {0x20, 0x01, 0x0d, 0xb8, 0, net}};
    put_be16(addr.b + 14, host);
    return addr;
}

static void add_pod(uint16_t id, uint32_t identity, uint32_t ip, uint16_t host, uint8_t last)
{
    struct fwd_error err = {0};
    struct fwd_endpoint_row row = {.lxc_id = id, .identity = identity, .ifindex = id,
                                   .mac = {0x96, 0x86, 0x44, 0xa6, 0x37, last},
                                   .node_mac = {0xd2, 0xad, 0x65, 0x4d, 0xd0, last}};
    must(fwd_endpoint_upsert(world, &row, &err) == 0);
    struct fwd_lxc_row four = {.addr = v4(ip), .lxc_id = id};
    struct fwd_lxc_row six = {.addr = v6(0, host), .lxc_id = id};
    must(fwd_lxc_upsert(world, &four, &err) == 0 && fwd_lxc_upsert(world, &six, &err) == 0);
}

static void add_ipcache(struct fwd_addr prefix, uint8_t family, uint8_t len, uint32_t identity,
                        uint32_t tunnel)
{
    struct fwd_error err = {0};
    struct fwd_ipcache_row row = {.prefix = prefix, .identity = identity, .family = family,
                                  .prefix_len = len};
    if (tunnel)
        row.tunnel_endpoint = v4(tunnel);
    must(fwd_ipcache_upsert(world, &row, &err) == 0);
}

static void add_policy(uint16_t pod, uint8_t dir, uint32_t identity, uint8_t proto, uint16_t port,
                       bool deny, uint32_t rule)
{
    struct fwd_error err = {0};
    uint8_t bits = port ? 24 : proto ? 8 : 0;
    struct fwd_policy_row row = {.lxc_id = pod, .dir = dir, .identity = identity, .proto = proto,
                                 .port = port, .prefix_len = bits, .deny = deny, .rule_id = rule};
    must(fwd_policy_upsert(world, &row, &err) == 0);
}

/* add_service: @addr:@port of both protocols, under rev_nat ids @id and @id + 1. */
static void add_service(struct fwd_addr addr, uint16_t port, uint16_t id, uint16_t flags,
                        const uint32_t *backends, uint32_t n)
{
    struct fwd_error err = {0};
    const uint8_t protos[2] = {PROTO_TCP, PROTO_UDP};
    for (uint32_t i = 0; i < 2; i++) {
        struct fwd_service_row row = {.frontend = addr, .port = port, .proto = protos[i],
                                      .flags = flags, .affinity_timeout_s = 10,
                                      .rev_nat_id = (uint16_t)(id + i)};
        uint32_t ids[4];
        for (uint32_t slot = 0; slot < n; slot++)
            ids[slot] = backends[slot] * 2 + i;
        must(fwd_service_upsert(world, &row, ids, n, &err) == 0);
    }
}

static void add_services(void)
{
    struct fwd_error err = {0};
    const struct fwd_addr at[7] = {v4(NGINX), v4(LOCAL_IP), v4(CURL_IP), v6(2, 0x171),
                                   v6(0, 0x109), v6(0, 0x108), v4(NODE)};
    for (uint32_t id = 2; id < 16; id++) {
        struct fwd_backend_row row = {.addr = at[id / 2 - 1], .id = id, .port = 8080,
                                      .proto = id & 1 ? PROTO_UDP : PROTO_TCP};
        must(fwd_backend_upsert(world, &row, &err) == 0);
    }
    add_service(v4(VIP | 10), 80, 20, 0, (uint32_t[]){1, 2}, 2);
    add_service(v4(VIP | 11), 80, 22, 0, (uint32_t[]){0}, 0);
    add_service(v4(VIP | 12), 80, 24, 0, (uint32_t[]){3}, 1);
    add_service(v4(VIP | 13), 80, 26, FWD_SVC_AFFINITY, (uint32_t[]){1, 2, 3}, 3);
    add_service(v4(VIP | 14), 80, 32, 0, (uint32_t[]){7}, 1);
    add_service(v6(0x96, 0x10), 80, 28, 0, (uint32_t[]){4, 5}, 2);
    add_service(v6(0x96, 0x13), 80, 30, 0, (uint32_t[]){6}, 1);
}

/* add_outside: the frontends of rows/nodeport.yaml: near, far, hostPort, ranges; one with Maglev. */
static void add_outside(void)
{
    struct fwd_error err = {0};
    const uint16_t open = FWD_SVC_NODE_PORT | FWD_SVC_ROUTABLE;
    add_service(v4(NODE), 30080, 40, open, (uint32_t[]){2}, 1);
    add_service(v4(NODE), 30081, 42, open, (uint32_t[]){1, 2}, 2);
    add_service(v4(NODE), 8444, 44, FWD_SVC_HOST_PORT | FWD_SVC_ROUTABLE, (uint32_t[]){1}, 1);
    add_service(v6_outside(0, 0x10), 80, 48, open, (uint32_t[]){5}, 1);
    add_service(v6_outside(0, 0x11), 80, 50, open, (uint32_t[]){4}, 1);
    add_service(v6_outside(0x56, 0x105), 30080, 52, open, (uint32_t[]){5}, 1);
    add_service(v4(EXTERNAL), 80, 46, open | FWD_SVC_SOURCE_RANGE, (uint32_t[]){1, 2}, 2);
    struct fwd_source_range_row range = {.prefix = v4(0xcb007100), .rev_nat_id = 46, .family = 4,
                                         .prefix_len = 24};
    must(fwd_source_range_upsert(world, &range, &err) == 0);
    uint32_t ids[FWD_MAGLEV_SIZE];
    for (uint32_t i = 0; i < FWD_MAGLEV_SIZE; i++)
        ids[i] = i & 1 ? 2 : 4;
    must(fwd_maglev_upsert(world, 42, ids, &err) == 0);
}

static void add_peers_and_policy(void)
{
    struct fwd_error err = {0};
    struct fwd_peer_row node2 = {.ip = v4(NODE2)};
    struct fwd_peer_row legacy = {.ip = v4(LEGACY), .vni = 42, .identity = 777, .fixed_vni = 1};
    must(fwd_peer_upsert(world, &node2, &err) == 0 && fwd_peer_upsert(world, &legacy, &err) == 0);
    add_ipcache(v4(NGINX), 4, 32, 25002, NODE2);
    add_ipcache(v6(2, 0x171), 6, 128, 25002, NODE2);
    add_ipcache(v4(CLIENT), 4, 32, 25004, NODE2);
    add_ipcache(v6(2, 0x180), 6, 128, 25004, NODE2);
    add_ipcache(v4(ROUTER2), 4, 32, FWD_ID_REMOTE_NODE, NODE2);
    add_ipcache(v4(CURL_IP), 4, 32, 25001, 0);
    add_ipcache(v4(LOCAL_IP), 4, 32, 25003, 0);
    add_ipcache(v4(0x0af40700), 4, 24, 777, LEGACY);
    add_ipcache(v4(ROUTER), 4, 32, FWD_ID_HOST, 0);
    add_ipcache(v4(0), 4, 0, FWD_ID_WORLD, 0);
    add_ipcache((struct fwd_addr){0}, 6, 0, FWD_ID_WORLD, 0);
    add_policy(CURL, FWD_DIR_EGRESS, 0, 0, 0, false, 1);
    add_policy(CURL, FWD_DIR_INGRESS, 0, 0, 0, false, 2);
    add_policy(CURL, FWD_DIR_EGRESS, 0, PROTO_TCP, 443, true, 3);
    add_policy(LOCAL, FWD_DIR_EGRESS, 0, 0, 0, false, 4);
    add_policy(LOCAL, FWD_DIR_INGRESS, 25001, 0, 0, false, 5);
    add_policy(LOCAL, FWD_DIR_INGRESS, 0, PROTO_UDP, 8080, false, 6);
    add_policy(LOCAL, FWD_DIR_INGRESS, 25004, 0, 0, false, 7);
}

static void world_settings(void)
{
    struct fwd_settings settings = {
        .ct_tcp_s = 8000, .ct_tcp_syn_s = 60, .ct_tcp_close_s = 10, .ct_any_s = 60,
        .ct_service_tcp_s = 8000, .ct_service_any_s = 60, .ct_report_interval_s = 5,
        .monitor_mask = 15, .punt_rate_pps = 10, .punt_burst = 20, .tunnel_port = 8472,
        .tunnel = 1, .verify_peer = 1, .verify_source = 1, .fragments = 1, .icmp_frag_needed = 1,
        .ttl_exceeded_reply = 1, .reject_no_backend = 1, .reject_deny = 1, .tunnel_mtu = 1450,
        .masquerade = 1, .nodeport = 1, .node_ip = v4(NODE), .node_ip6 = v6_outside(0x56, 0x105),
        .router_ip4 = v4(ROUTER), .router_ip6 = v6(0, 0x150),
        .router_mac = {2, 0, 0, 0, 0, 3}, .host_mac = {2, 0, 0, 0, 0, 4},
        .loopback = v4(0xa9fe2a01), .loopback6 = v6(0x42, 1), .vlan_allowed = {1 << 7},
    };
    fwd_dp_settings_set(world, &settings);
}

/* world_make: once a process. Capacities are all alike, small enough to be filled by one input. */
static void world_make(void)
{
    struct fwd_error err = {0};
    struct fwd_params params;
    uint32_t *capacity = (uint32_t *)(void *)&params;
    memset(&params, 0, sizeof(params));
    for (size_t i = 0; i < offsetof(struct fwd_params, hash_seed) / sizeof(*capacity); i++)
        capacity[i] = CAPACITY;
    params.hash_seed = 7;
    memcpy(params.boot_id, world_boot, sizeof(params.boot_id));
    world_fd = memfd_create("fuzz-world", MFD_CLOEXEC);
    must(world_fd >= 0);
    world = fwd_dp_create(&params, world_fd, &err);
    if (!world)
        must_not(err.message, __FILE__, __LINE__);
    world_settings();
    add_pod(CURL, 25001, CURL_IP, 0x108, 1);
    add_pod(LOCAL, 25003, LOCAL_IP, 0x109, 2);
    struct fwd_lxc_row own[4] = {{.addr = v4(NODE), .flags = FWD_LXC_HOST},
                                 {.addr = v6_outside(0x56, 0x105), .flags = FWD_LXC_HOST},
                                 {.addr = v4(ROUTER), .flags = FWD_LXC_HOST | FWD_LXC_ROUTER},
                                 {.addr = v6(0, 0x150), .flags = FWD_LXC_HOST | FWD_LXC_ROUTER}};
    for (uint32_t i = 0; i < 4; i++)
        must(fwd_lxc_upsert(world, &own[i], &err) == 0);
    add_peers_and_policy();
    add_services();
    add_outside();
}

size_t world_size(void)
{
    if (!world)
        world_make();
    return world->size;
}

struct fwd_dp *world_view(void)
{
    struct fwd_error err = {0};
    world_size();
    struct fwd_dp *view = fwd_dp_view(world, world_fd, &err);
    must(view != NULL);
    return view;
}

void world_copy(uint8_t *to)
{
    memcpy(to, world->arena, world_size());
}

void world_part(uint8_t number, size_t *offset, size_t *size)
{
    struct arena_layout layout;
    world_size();
    arena_layout(&world->arena->params, &layout);
    uint32_t part = number % (PART_MAX + 1);
    *offset = part ? layout.offset[part - 1] : 0;
    *size = part ? layout.size[part - 1] : sizeof(struct arena_header);
}

void world_seal(uint8_t *arena)
{
    struct arena_header header;
    memcpy(&header, arena, sizeof(header));
    header.check = arena_check(&header);
    memcpy(arena, &header, sizeof(header));
}

bool tap_header(struct fwd_pkt *pkt, const uint8_t *header)
{
    return tap_take_header(pkt, header);
}

void world_read_all(struct fwd_dp *dp, uint32_t now_s)
{
    union {
        struct fwd_endpoint_row endpoint[8];
        struct fwd_lxc_row lxc[8];
        struct fwd_ipcache_row ipcache[8];
        struct fwd_policy_row policy[8];
        struct fwd_peer_row peer[8];
        struct fwd_service_row service[8];
        struct fwd_backend_row backend[8];
        struct fwd_ct_row ct[8];
        struct fwd_nat_row nat[8];
        struct fwd_metric_row metric[8];
        struct fwd_event event[8];
    } rows;
    uint64_t at = 0, lost = 0;
    uint8_t match;
    uint32_t ids[8], turns = 0;
#define DUMP_ALL(call) \
    do { \
        must(turns++ < 4096); /* a dump comes to its end */ \
        (void)(call); \
    } while (at)
    DUMP_ALL(fwd_endpoint_dump(dp, &at, rows.endpoint, 8));
    DUMP_ALL(fwd_lxc_dump(dp, &at, rows.lxc, 8));
    DUMP_ALL(fwd_ipcache_dump(dp, &at, rows.ipcache, 8));
    DUMP_ALL(fwd_policy_dump(dp, &at, rows.policy, 8));
    DUMP_ALL(fwd_peer_dump(dp, &at, rows.peer, 8));
    DUMP_ALL(fwd_backend_dump(dp, &at, rows.backend, 8));
    DUMP_ALL(fwd_metrics_dump(dp, &at, rows.metric, 8));
    do {
        uint32_t n = fwd_service_dump(dp, &at, rows.service, 8);
        for (uint32_t i = 0; i < n; i++)
            fwd_service_slots(dp, &rows.service[i], ids, 8);
        must(turns++ < 4096);
    } while (at);
    for (int map = FWD_MAP_CT_TCP; map <= FWD_MAP_CT_ANY; map++) {
        DUMP_ALL(fwd_ct_dump(dp, (enum fwd_map)map, &at, rows.ct, 8));
        DUMP_ALL(fwd_ct_sweep(dp, (enum fwd_map)map, now_s, &at, 8));
        DUMP_ALL(fwd_ct_purge_services(dp, (enum fwd_map)map, &at, 8));
    }
    DUMP_ALL(fwd_nat_dump(dp, &at, rows.nat, 8));
    DUMP_ALL(fwd_nat_sweep(dp, &at, 8));
#undef DUMP_ALL
    struct fwd_addr nginx = v4(NGINX);
    fwd_ipcache_lookup(dp, &nginx, rows.ipcache);
    fwd_policy_lookup(dp, CURL, FWD_DIR_EGRESS, 25002, PROTO_TCP, 80, rows.policy, &match);
    while (fwd_events_read(dp, rows.event, 8, &lost))
        must(turns++ < 4096);
}
