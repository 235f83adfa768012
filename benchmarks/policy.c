/* policy.c - what one policy verdict costs in the library: rows in, keys at random, batches.
 *
 * Built and run by policy.py, which writes the rows that control compiled to standard input, one a
 * line: lxc_id dir identity proto port prefix_len deny. Keys are those of rows picked at random, so
 * identities and ports are spread and every answer is known: `hit` asks for the row's own port,
 * `miss` for one that no row has, which is denied. `alone` is one lookup after the other's end,
 * `batched` goes through the passes of a batch as fwd_dp_run does. `cold` is batched after other
 * memory went through the caches, as a million flows of conntrack would.
 *
 * usage: policy ROUNDS < rows; prints one JSON object a line.
 */
#include "tables/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { CAP = 65536, QUERIES = 1 << 16, ROUNDS_MAX = 64, FLUSH_SIZE = 64 << 20, BATCHES = 64,
       MISS_PORT = 60000 };

struct bench {
    struct policy_table *table;
    struct policy_key keys[QUERIES];
    uint32_t n_rows;
    struct fwd_policy_row rows[CAP];
    uint64_t random;
    uint64_t denied;            /* keeps results alive, and is checked */
};

static uint8_t flush[FLUSH_SIZE];

static void die(const char *what, const char *why)
{
    fprintf(stderr, "policy: %s: %s\n", what, why);
    exit(1);
}

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t next_random(struct bench *bench)
{
    bench->random ^= bench->random >> 12;
    bench->random ^= bench->random << 25;
    bench->random ^= bench->random >> 27;
    return bench->random * 0x2545f4914f6cdd1dULL;
}

static void read_rows(struct bench *bench)
{
    struct fwd_error err = {0};
    unsigned lxc, dir, identity, proto, port, prefix_len, deny;
    while (scanf("%u %u %u %u %u %u %u", &lxc, &dir, &identity, &proto, &port, &prefix_len,
                 &deny) == 7) {
        struct fwd_policy_row row = {
            .lxc_id = (uint16_t)lxc, .dir = (uint8_t)dir, .identity = identity,
            .proto = (uint8_t)proto, .port = (uint16_t)port, .prefix_len = (uint8_t)prefix_len,
            .deny = (uint8_t)deny, .rule_id = bench->n_rows + 1};
        if (bench->n_rows == CAP || policy_upsert(bench->table, &row, &err))
            die("writing a row", err.message);
        if (row.dir == FWD_DIR_INGRESS && row.prefix_len == 24)
            bench->rows[bench->n_rows++] = row; /* only those are asked for: one port each */
    }
    if (!bench->n_rows)
        die("reading rows", "there are none with one port");
}

static void pick_keys(struct bench *bench, bool hit)
{
    for (uint32_t i = 0; i < QUERIES; i++) {
        const struct fwd_policy_row *row = &bench->rows[next_random(bench) % bench->n_rows];
        bench->keys[i] = (struct policy_key){
            .lxc_id = row->lxc_id, .port = hit ? row->port : MISS_PORT, .identity = row->identity,
            .dir = row->dir, .proto = row->proto, .l3_l4 = 1};
    }
}

/* judge: one verdict as stage_policy takes it, counters included. */
static void judge(struct bench *bench, const struct policy_key *key)
{
    struct policy_result result = policy_lookup(bench->table, key);
    if (result.entry != UINT32_MAX)
        policy_count(bench->table, result.entry, 66);
    bench->denied += result.drop != 0;
}

static void judge_batch(struct bench *bench, const struct policy_key *keys)
{
    for (uint32_t i = 0; i < FWD_BATCH; i++)
        judge(bench, &keys[i]);
}

static double run_alone(struct bench *bench)
{
    uint64_t start = clock_ns();
    for (uint32_t i = 0; i < QUERIES; i++) {
        /* The next key depends on this verdict, so the processor cannot overlap two. */
        judge(bench, &bench->keys[(i + (bench->denied >> 63)) % QUERIES]);
    }
    return (double)(clock_ns() - start) / QUERIES;
}

static double run_batched(struct bench *bench)
{
    uint64_t start = clock_ns();
    for (uint32_t i = 0; i < QUERIES; i += FWD_BATCH)
        judge_batch(bench, &bench->keys[i]);
    return (double)(clock_ns() - start) / QUERIES;
}

/* run_cold: batches, each after the caches were filled with something else. */
static double run_cold(struct bench *bench)
{
    uint64_t spent = 0;
    for (uint32_t i = 0; i < BATCHES; i++) {
        for (uint32_t at = 0; at < FLUSH_SIZE; at += 64)
            flush[at]++;
        uint64_t start = clock_ns();
        judge_batch(bench, &bench->keys[i * FWD_BATCH]);
        spent += clock_ns() - start;
    }
    return (double)spent / (BATCHES * FWD_BATCH);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(struct bench *bench, const char *what, bool hit,
                   double (*run)(struct bench *bench), int rounds)
{
    double ns[ROUNDS_MAX];
    pick_keys(bench, hit);
    run_batched(bench);
    for (int round = 0; round < rounds; round++) {
        bench->denied = 0;
        ns[round] = run(bench);
        uint64_t asked = run == run_cold ? BATCHES * FWD_BATCH : QUERIES;
        if (bench->denied != (hit ? 0 : asked))
            die("asking for verdicts", "one is not what the rows say");
    }
    qsort(ns, (size_t)rounds, sizeof(ns[0]), compare);
    printf("{\"what\": \"%s\", \"keys\": \"%s\", \"n\": %d, \"min\": %.1f, \"median\": %.1f, "
           "\"max\": %.1f, \"unit\": \"ns/verdict\"}\n", what, hit ? "hit" : "miss", rounds, ns[0],
           ns[rounds / 2], ns[rounds - 1]);
}

int main(int argc, char **argv)
{
    static struct bench bench = {.random = 88172645463325252ULL};
    int rounds = argc > 1 ? atoi(argv[1]) : 0;
    if (rounds < 1 || rounds > ROUNDS_MAX)
        die("usage", "policy ROUNDS < rows, 1 to 64");
    bench.table = aligned_alloc(TABLE_ALIGN, policy_size(CAP));
    if (!bench.table)
        die("making the table", "out of memory");
    policy_init(bench.table, CAP, 0x5eed);
    read_rows(&bench);
    for (int hit = 1; hit >= 0; hit--) {
        report(&bench, "alone", hit, run_alone, rounds);
        report(&bench, "batched", hit, run_batched, rounds);
        report(&bench, "cold", hit, run_cold, rounds);
    }
    free(bench.table);
    return 0;
}
