/* tables.c - what one look into a table costs: conntrack one by one and in a batch, ipcache.
 *
 * Built and run by core.py, which links it with the release's unity.c. Entries are picked at random,
 * every hit is checked. Batches do what path/dp.c does: hash all, ask for the index lines, ask for
 * the entries, then look up.
 *
 * usage: tables ct FLOWS ROUNDS | tables ipcache PREFIXES ROUNDS; prints one JSON object a line.
 */
#include "bench.h"
#include "tables/arena.h"
#include "tables/ct_map.h"
#include "tables/ipcache.h"

enum { LOOKUPS = 1 << 18, NOW_S = 100, SAMPLE_BITS = 16 };

static struct fwd_dp *dp_new(uint32_t flows, uint32_t prefixes)
{
    struct fwd_params params = {
        .ct_tcp = flows, .ct_any = 4096, .ipcache = prefixes, .endpoints = 64, .lxc = 64,
        .policy = 64, .peers = 64, .fragments = 64, .events = 64, .services = 64, .backends = 64,
        .slots = 64, .affinity = 64, .nat = 64, .source_ranges = 64, .maglev = 1,
        .hash_seed = 0x5eed,
    };
    struct fwd_error err = {0};
    struct fwd_dp *dp = fwd_dp_create(&params, -1, &err);
    if (!dp)
        bench_die("creating the arena", err.message);
    struct fwd_settings settings = {.ct_tcp_s = 8000, .ct_tcp_syn_s = 60, .ct_tcp_close_s = 10,
                                    .ct_any_s = 60, .ct_report_interval_s = 5};
    fwd_dp_settings_set(dp, &settings);
    return dp;
}

/* ---- conntrack ---- */

static struct ct_tuple tuple_of(uint32_t flow)
{
    struct ct_tuple tuple = {
        .daddr = bench_v4(0x0af40200u + flow % 250 + 1), .saddr = bench_v4(0x0af4006cu),
        .dport = (uint16_t)(1024 + flow / 250), .sport = 80, .proto = 6, .flags = FWD_TUPLE_OUT,
    };
    return tuple;
}

/* ct_ask: one lookup as stage_ct_lookup does it; leaves in @tuple the key the entry has. */
static enum fwd_ct_status ct_ask(struct fwd_dp *dp, struct ct_tuple *tuple, uint64_t hash,
                                 const struct ct_packet *packet)
{
    struct ct_state state;
    uint32_t monitor;
    return ct_lookup(&dp->ct, dp->settings, tuple, hash, CT_EGRESS, CT_SCOPE_BIDIR, packet, &state,
                     &monitor);
}

static void ct_fill(struct fwd_dp *dp, uint32_t flows)
{
    struct ct_packet packet = {.len = 66, .now_s = NOW_S, .tcp_flags = 2};
    struct ct_state state = {.src_identity = 48172};
    for (uint32_t flow = 0; flow < flows; flow++) {
        struct ct_tuple tuple = tuple_of(flow);
        uint64_t hash = ct_hash(dp->ct.seed, &tuple);
        if (ct_ask(dp, &tuple, hash, &packet) != FWD_CT_NEW ||
            ct_create(&dp->ct, dp->settings, &tuple, hash, CT_EGRESS, &packet, &state))
            bench_die("filling conntrack", "an entry was refused");
    }
}

static void ct_find(struct fwd_dp *dp, struct ct_tuple *tuple, uint64_t hash)
{
    struct ct_packet packet = {.len = 66, .now_s = NOW_S + 1, .tcp_flags = 16};
    if (ct_ask(dp, tuple, hash, &packet) != FWD_CT_ESTABLISHED)
        bench_die("looking up conntrack", "a flow was not found");
}

/* ct_round: LOOKUPS random flows, @batch at a time. Return: nanoseconds a lookup. */
static double ct_round(struct fwd_dp *dp, uint32_t flows, uint32_t batch, uint64_t *random)
{
    struct ct_tuple tuples[FWD_BATCH];
    uint64_t hash[FWD_BATCH], spent = 0;
    for (uint32_t done = 0; done < LOOKUPS; done += batch) {
        for (uint32_t i = 0; i < batch; i++)
            tuples[i] = tuple_of((uint32_t)(bench_random(random) % flows));
        uint64_t start = bench_ns();
        for (uint32_t i = 0; i < batch; i++)
            hash[i] = ct_hash(dp->ct.seed, &tuples[i]);
        for (uint32_t i = 0; batch > 1 && i < batch; i++)
            ct_prefetch(&dp->ct, &tuples[i], hash[i]);
        for (uint32_t i = 0; batch > 1 && i < batch; i++)
            ct_prefetch_entries(&dp->ct, &tuples[i], hash[i]);
        for (uint32_t i = 0; i < batch; i++)
            ct_find(dp, &tuples[i], hash[i]);
        spent += bench_ns() - start;
    }
    return (double)spent / LOOKUPS;
}

static void ct_run(uint32_t flows, int rounds, uint64_t *random)
{
    double single[BENCH_ROUNDS_MAX], batched[BENCH_ROUNDS_MAX];
    struct fwd_dp *dp = dp_new(flows, 64);
    ct_fill(dp, flows);
    ct_round(dp, flows, FWD_BATCH, random); /* warm */
    for (int round = 0; round < rounds; round++) {
        single[round] = ct_round(dp, flows, 1, random) - bench_clock_ns();
        batched[round] = ct_round(dp, flows, FWD_BATCH, random) - bench_clock_ns() / FWD_BATCH;
    }
    bench_report("ct-lookup-single", "flows", flows, single, rounds, "ns");
    bench_report("ct-lookup-batched", "flows", flows, batched, rounds, "ns");
    fwd_dp_close(dp);
}

/* ---- ipcache ---- */

/* prefix_of: a quarter pods, half /24, the rest /16 to /23, as a routing table is. */
static struct fwd_ipcache_row prefix_of(uint32_t i, uint64_t *random)
{
    uint32_t len = i % 4 == 0 ? 32 : i % 4 < 3 ? 24 : 16 + i / 4 % 8;
    uint32_t addr = (uint32_t)(bench_random(random) >> 32) & ~(uint32_t)((1ull << (32 - len)) - 1);
    struct fwd_ipcache_row row = {.prefix = bench_v4(addr), .identity = 16777216 + i, .family = 4,
                                  .prefix_len = (uint8_t)len};
    return row;
}

static double ipcache_load(struct fwd_dp *dp, uint32_t prefixes, struct fwd_addr *samples,
                           uint64_t *random)
{
    struct fwd_error err = {0};
    uint64_t spent = 0;
    for (uint32_t i = 0; i < prefixes; i++) {
        struct fwd_ipcache_row row = prefix_of(i, random);
        uint64_t start = bench_ns();
        if (fwd_ipcache_upsert(dp, &row, &err))
            bench_die("filling the ipcache", err.message);
        spent += bench_ns() - start;
        samples[i & ((1u << SAMPLE_BITS) - 1)] = row.prefix;
    }
    uint64_t start = bench_ns();
    fwd_ipcache_settle(dp);
    spent += bench_ns() - start;
    return ((double)spent - prefixes * bench_clock_ns()) / 1e9;
}

static double ipcache_round(struct fwd_dp *dp, const struct fwd_addr *samples, uint32_t n,
                            uint64_t *random)
{
    const struct ipcache_entry *found[FWD_BATCH];
    struct fwd_addr batch[FWD_BATCH];
    uint64_t spent = 0, identities = 0;
    for (uint32_t done = 0; done < LOOKUPS; done += FWD_BATCH) {
        for (uint32_t i = 0; i < FWD_BATCH; i++)
            batch[i] = samples[bench_random(random) % n];
        uint64_t start = bench_ns();
        for (uint32_t i = 0; i < FWD_BATCH; i++) /* as the first pass of fwd_dp_run does */
            ipcache_prefetch(dp->ipcache, &batch[i]);
        for (uint32_t i = 0; i < FWD_BATCH; i++) {
            found[i] = ipcache_lookup(dp->ipcache, &batch[i]);
            if (!found[i])
                bench_die("looking up the ipcache", "a prefix was not found");
            __builtin_prefetch(found[i]);
        }
        for (uint32_t i = 0; i < FWD_BATCH; i++) /* a lookup is of use when its answer is read */
            identities += found[i]->identity;
        spent += bench_ns() - start;
    }
    if (!identities)
        bench_die("looking up the ipcache", "no prefix has an identity");
    return (double)spent / LOOKUPS - bench_clock_ns() / FWD_BATCH;
}

static void ipcache_run(uint32_t prefixes, int rounds, uint64_t *random)
{
    static struct fwd_addr samples[1 << SAMPLE_BITS];
    double load[BENCH_ROUNDS_MAX], lookup[BENCH_ROUNDS_MAX], memory[BENCH_ROUNDS_MAX];
    uint32_t n = prefixes < 1u << SAMPLE_BITS ? prefixes : 1u << SAMPLE_BITS;
    int loads = rounds < 3 ? rounds : 3;
    for (int round = 0; round < loads; round++) {
        uint64_t before = bench_rss();
        struct fwd_dp *dp = dp_new(1024, prefixes);
        load[round] = ipcache_load(dp, prefixes, samples, random);
        memory[round] = (double)(bench_rss() - before) / 1e6;
        for (int i = 0; round == loads - 1 && i < rounds; i++)
            lookup[i] = ipcache_round(dp, samples, n, random);
        fwd_dp_close(dp);
    }
    bench_report("ipcache-load", "prefixes", prefixes, load, loads, "s");
    bench_report("ipcache-memory", "prefixes", prefixes, memory, loads, "MB");
    bench_report("ipcache-lookup", "prefixes", prefixes, lookup, rounds, "ns");
}

int main(int argc, char **argv)
{
    uint64_t random = BENCH_SEED;
    uint32_t count = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    int rounds = argc > 3 ? atoi(argv[3]) : 0;
    if (count < 1000 || count > 10000000 || rounds < 1 || rounds > BENCH_ROUNDS_MAX)
        bench_die("usage", "tables ct|ipcache COUNT ROUNDS, 1000 to 10000000 and 1 to 64");
    if (strcmp(argv[1], "ct") == 0)
        ct_run(count, rounds, &random);
    else if (strcmp(argv[1], "ipcache") == 0)
        ipcache_run(count, rounds, &random);
    else
        bench_die(argv[1], "ct or ipcache");
    return 0;
}
