/* core.c - what one packet costs in the library alone: no I/O, one thread, one arena.
 *
 * Built and run by core.py. Fills an arena with established TCP flows of one pod to many remote
 * pods, then sends packets of flows picked at random through from-container, in batches as the
 * pump does. Only fwd_dp_run is timed; frames are rebuilt outside. Every verdict is checked, so
 * that nothing but the full path (conntrack, ipcache, policy, encapsulation) can be measured.
 *
 * usage: core FLOWS ROUNDS; prints one JSON object a line.
 */
#include "bench.h"

enum { PODS = 250, FRAME_LEN = 66, BUF_SIZE = 512, ETH = 14, NEW_S = 100,
       ESTABLISHED_S = 101, LXC_ID = 1 };
enum { SYN = 2, ACK = 16 };

static const uint8_t pod_mac[6] = {0x0a, 0, 0, 0, 0, 1}, node_mac[6] = {0x0a, 0, 0, 0, 0, 2};

struct bench {
    struct fwd_dp *dp;
    struct fwd_pkt in[FWD_BATCH];
    struct fwd_out out[FWD_BATCH];
    uint8_t buf[FWD_BATCH][BUF_SIZE];
    uint64_t random;
};

/* ---- world ---- */

static void fill_world(struct fwd_dp *dp)
{
    struct fwd_error err = {0};
    struct fwd_settings settings = {
        .ct_tcp_s = 8000, .ct_tcp_syn_s = 60, .ct_tcp_close_s = 10, .ct_any_s = 60,
        .ct_service_tcp_s = 8000, .ct_service_any_s = 60, .ct_report_interval_s = 5,
        .tunnel_port = 8472, .tunnel = 1, .verify_peer = 1, .verify_source = 1, .fragments = 1,
    };
    fwd_dp_settings_set(dp, &settings);
    struct fwd_endpoint_row endpoint = {.lxc_id = LXC_ID, .identity = 48172, .ifindex = 7};
    memcpy(endpoint.mac, pod_mac, sizeof(pod_mac));
    memcpy(endpoint.node_mac, node_mac, sizeof(node_mac));
    struct fwd_lxc_row lxc = {.addr = bench_v4(0x0af4006cu), .lxc_id = LXC_ID};
    struct fwd_policy_row allow = {.lxc_id = LXC_ID, .dir = FWD_DIR_EGRESS, .rule_id = 1};
    struct fwd_peer_row peer = {.ip = bench_v4(0xc0a8386au)};
    if (fwd_endpoint_upsert(dp, &endpoint, &err) || fwd_lxc_upsert(dp, &lxc, &err) ||
        fwd_policy_upsert(dp, &allow, &err) || fwd_peer_upsert(dp, &peer, &err))
        bench_die("filling the tables", err.message);
    for (int pod = 0; pod < PODS; pod++) {
        struct fwd_ipcache_row row = {
            .prefix = bench_v4(0x0af40201u + (uint32_t)pod), .tunnel_endpoint = peer.ip,
            .identity = 27914, .family = 4, .prefix_len = 32, .flags = FWD_IPCACHE_HAS_TUNNEL,
        };
        if (fwd_ipcache_upsert(dp, &row, &err))
            bench_die("filling the ipcache", err.message);
    }
}

/* ---- packets ---- */

/* put_frame: a 66-byte TCP segment of @flow (pod = flow % PODS, source port = flow / PODS). */
static void put_frame(struct bench *bench, uint32_t i, uint32_t flow, uint8_t tcp_flags)
{
    static const uint8_t ip[20] = {0x45, 0, 0, 52, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 244, 0, 108,
                                   10, 244, 2, 0};
    uint8_t *at = bench->buf[i] + FWD_HEADROOM;
    memset(at, 0, FRAME_LEN);
    memcpy(at, node_mac, sizeof(node_mac));
    memcpy(at + 6, pod_mac, sizeof(pod_mac));
    at[12] = 0x08;
    memcpy(at + ETH, ip, sizeof(ip));
    at[ETH + 19] = (uint8_t)(flow % PODS + 1);
    uint8_t *tcp = at + ETH + sizeof(ip);
    uint32_t sport = 1024 + flow / PODS;
    tcp[0] = (uint8_t)(sport >> 8);
    tcp[1] = (uint8_t)sport;
    tcp[3] = 80;
    tcp[12] = 0x80;
    tcp[13] = tcp_flags;
    bench->in[i] = (struct fwd_pkt){.buf = bench->buf[i], .size = BUF_SIZE, .off = FWD_HEADROOM,
                                    .len = FRAME_LEN, .port = LXC_ID};
}

/* run_batch: @n prepared packets. Return: nanoseconds inside the library. */
static uint64_t run_batch(struct bench *bench, uint32_t n, uint32_t now_s, uint8_t ct)
{
    uint64_t start = bench_ns();
    uint32_t done = fwd_dp_run(bench->dp, now_s * (uint64_t)1000000000u, bench->in, n, bench->out,
                               FWD_BATCH);
    uint64_t spent = bench_ns() - start;
    for (uint32_t i = 0; i < n; i++) {
        const struct fwd_out *out = &bench->out[i];
        if (done == n && out->verdict == FWD_TX_UNDERLAY && out->ct == ct)
            continue;
        fprintf(stderr, "core: verdict %u, drop %u, ct %u\n", out->verdict, out->drop, out->ct);
        bench_die("running packets", "a packet did not take the path that is measured");
    }
    return spent;
}

/* run_all: one packet of every flow in order. Return: nanoseconds a packet. */
static double run_all(struct bench *bench, uint32_t flows, uint8_t tcp_flags, uint32_t now_s,
                      uint8_t ct)
{
    uint64_t spent = 0;
    for (uint32_t done = 0; done < flows;) {
        uint32_t n = flows - done < FWD_BATCH ? flows - done : FWD_BATCH;
        for (uint32_t i = 0; i < n; i++)
            put_frame(bench, i, done + i, tcp_flags);
        spent += run_batch(bench, n, now_s, ct);
        done += n;
    }
    return (double)spent / flows;
}

/* run_random: @packets established ones among the first @flows. Return: nanoseconds a packet. */
static double run_random(struct bench *bench, uint32_t flows, uint32_t packets)
{
    uint64_t spent = 0;
    for (uint32_t done = 0; done < packets; done += FWD_BATCH) {
        for (uint32_t i = 0; i < FWD_BATCH; i++)
            put_frame(bench, i, (uint32_t)(bench_random(&bench->random) % flows), ACK);
        spent += run_batch(bench, FWD_BATCH, ESTABLISHED_S, FWD_CT_ESTABLISHED);
    }
    return (double)spent / packets;
}

/* ---- report ---- */

static void open_dp(struct bench *bench, uint32_t flows)
{
    struct fwd_params params = {
        .ct_tcp = flows, .ct_any = 4096, .ipcache = 4096, .endpoints = 64, .lxc = 64, .policy = 64,
        .peers = 64, .fragments = 64, .events = 64, .services = 64,
        .backends = 64, .slots = 64, .affinity = 64, .nat = 64, .source_ranges = 64, .maglev = 1,
        .hash_seed = 0x5eed,
    };
    struct fwd_error err = {0};
    bench->dp = fwd_dp_create(&params, -1, &err);
    if (!bench->dp)
        bench_die("creating the arena", err.message);
    fill_world(bench->dp);
}

int main(int argc, char **argv)
{
    enum { PACKETS = 1 << 18, NEW_ROUNDS = 5 };
    static struct bench bench = {.random = BENCH_SEED};
    double new_ns[NEW_ROUNDS], ns[BENCH_ROUNDS_MAX];
    uint32_t flows = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
    int rounds = argc > 2 ? atoi(argv[2]) : 0;
    if (flows < 1000 || flows > PODS * 60000u || rounds < 1 || rounds > BENCH_ROUNDS_MAX)
        bench_die("usage", "core FLOWS ROUNDS, 1000 to 15000000 and 1 to 64");
    int fills = rounds < NEW_ROUNDS ? rounds : NEW_ROUNDS;
    uint64_t before = 0;
    for (int fill = 0; fill < fills; fill++) {
        if (bench.dp)
            fwd_dp_close(bench.dp);
        before = bench_rss();
        open_dp(&bench, flows);
        new_ns[fill] = run_all(&bench, flows, SYN, NEW_S, FWD_CT_NEW);
    }
    run_all(&bench, flows, ACK, ESTABLISHED_S, FWD_CT_ESTABLISHED);
    uint64_t after = bench_rss();
    struct fwd_table_stats stats;
    fwd_table_stats(bench.dp, FWD_TABLE_CT_TCP, &stats);
    for (int round = 0; round < rounds; round++)
        ns[round] = run_random(&bench, flows, PACKETS);
    double table = (double)stats.size / stats.cap, resident = (double)(after - before) / stats.count;
    bench_report("new", "flows", flows, new_ns, fills, "ns/packet");
    bench_report("table", "flows", flows, &table, 1, "bytes/flow");
    bench_report("resident", "flows", flows, &resident, 1, "bytes/flow");
    bench_report("established", "flows", flows, ns, rounds, "ns/packet");
    fwd_dp_close(bench.dp);
    return 0;
}
