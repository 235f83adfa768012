/* bench.h - what the C benchmarks share: clock, random numbers, resident memory, one JSON line. */
#ifndef FWD_BENCH_H
#define FWD_BENCH_H

#include "abi.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BENCH_SEED 88172645463325252ULL
#define BENCH_LOCAL static inline __attribute__((unused))

enum { BENCH_ROUNDS_MAX = 64 };

BENCH_LOCAL void bench_die(const char *what, const char *why)
{
    fprintf(stderr, "benchmark: %s: %s\n", what, why);
    exit(1);
}

BENCH_LOCAL uint64_t bench_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* bench_clock_ns: what a pair of bench_ns costs by itself, to be taken off short measurements. */
BENCH_LOCAL double bench_clock_ns(void)
{
    enum { TIMES = 1 << 14 };
    static double cost;
    if (cost > 0)
        return cost;
    uint64_t spent = 0;
    for (int i = 0; i < TIMES; i++) {
        uint64_t start = bench_ns();
        spent += bench_ns() - start;
    }
    cost = (double)spent / TIMES;
    return cost;
}

/* bench_random: xorshift64*; the order of entries must not help the caches. */
BENCH_LOCAL uint64_t bench_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dULL;
}

BENCH_LOCAL struct fwd_addr bench_v4(uint32_t addr)
{
    return (struct fwd_addr){{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, (uint8_t)(addr >> 24),
                              (uint8_t)(addr >> 16), (uint8_t)(addr >> 8), (uint8_t)addr}};
}

BENCH_LOCAL uint64_t bench_rss(void)
{
    unsigned long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%lu %lu", &total, &resident) != 2)
        bench_die("reading /proc/self/statm", "is /proc mounted?");
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

BENCH_LOCAL int bench_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* bench_report: one line; @of names what there are @count of. Sorts @values. */
BENCH_LOCAL void bench_report(const char *what, const char *of, uint32_t count, double *values,
                              int n, const char *unit)
{
    qsort(values, (size_t)n, sizeof(values[0]), bench_compare);
    double median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    printf("{\"what\": \"%s\", \"%s\": %u, \"n\": %d, \"min\": %.4g, \"median\": %.4g, "
           "\"max\": %.4g, \"unit\": \"%s\"}\n", what, of, count, n, values[0], median,
           values[n - 1], unit);
    fflush(stdout);
}

#endif
