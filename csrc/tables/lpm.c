/* lpm.c - see lpm.h.
 *
 * Theory. Nested prefixes cut the address space into ranges with one answer each, at most two a
 * prefix. They are sorted by their first address; its upper 18 bits choose a run of them, in which
 * the lower 14 are searched for. A run's first range always begins at 0, so every address has one.
 * Building sorts 64-bit words of prefix, length and reference by their upper 38 bits in four passes
 * of a radix sort, back and forth between `sorted` and the memory the ranges will have.
 */
#include "tables/lpm.h"

#include "base/hash.h"

enum {
    LPM_RUN_BITS = 18, LPM_RUNS = 1 << LPM_RUN_BITS, LPM_RUN_SHIFT = 32 - LPM_RUN_BITS,
    LPM_RUN_MASK = (1 << LPM_RUN_SHIFT) - 1,
    LPM_DIGIT_BITS = 11, LPM_DIGITS = 1 << LPM_DIGIT_BITS,
    LPM_PASSES = 4,              /* even: the last pass ends in `sorted` */
    LPM_LEN_SHIFT = 26, LPM_LEN_MASK = 63, LPM_PREFIX_SHIFT = 32,
    LPM_DEPTH = 34,              /* prefixes around one address, and none at all */
};

struct lpm_range {
    uint32_t start;              /* the lower bits of its first address */
    uint32_t ref;
};

struct lpm {
    uint32_t cap;
    uint32_t count;              /* prefixes added */
    uint32_t ranges;
    uint32_t pad[13];
    uint32_t run[LPM_RUNS + 16]; /* first range of each run, and the end */
    /* struct lpm_range[lpm_ranges_max(cap)], then uint64_t sorted[cap] */
};

static_assert(sizeof(struct lpm) % TABLE_ALIGN == 0, "the ranges begin on a cache line");
static_assert(sizeof(struct lpm_range) == sizeof(uint64_t), "the sort uses their memory");

static uint64_t lpm_ranges_size(uint32_t cap)
{
    return table_align((2 * (uint64_t)cap + LPM_RUNS + 16) * sizeof(struct lpm_range));
}

uint64_t lpm_size(uint32_t cap)
{
    return sizeof(struct lpm) + lpm_ranges_size(cap) + table_align((uint64_t)cap * sizeof(uint64_t));
}

static struct lpm_range *lpm_ranges(const struct lpm *lpm)
{
    return (struct lpm_range *)((uintptr_t)lpm + sizeof(*lpm));
}

static uint64_t *lpm_sorted(const struct lpm *lpm)
{
    return (uint64_t *)((uintptr_t)lpm_ranges(lpm) + lpm_ranges_size(lpm->cap));
}

void lpm_init(struct lpm *lpm, uint32_t cap)
{
    lpm->cap = cap;
    lpm->count = lpm->ranges = 0;
}

/* ---- building ---- */

void lpm_begin(struct lpm *lpm)
{
    lpm->count = lpm->ranges = 0;
}

void lpm_add(struct lpm *lpm, uint32_t prefix, uint32_t prefix_len, uint32_t ref)
{
    if (lpm->count < lpm->cap)
        lpm_sorted(lpm)[lpm->count++] = (uint64_t)prefix << LPM_PREFIX_SHIFT |
                                        (uint64_t)prefix_len << LPM_LEN_SHIFT | ref;
}

static uint32_t lpm_digit(uint64_t word, uint32_t pass)
{
    return (uint32_t)(word >> (LPM_LEN_SHIFT + pass * LPM_DIGIT_BITS)) & (LPM_DIGITS - 1);
}

static void lpm_sort(struct lpm *lpm)
{
    uint64_t *from = lpm_sorted(lpm), *to = (uint64_t *)(void *)lpm_ranges(lpm);
    for (uint32_t pass = 0; pass < LPM_PASSES; pass++) {
        uint32_t place[LPM_DIGITS] = {0}, total = 0;
        for (uint32_t i = 0; i < lpm->count; i++)
            place[lpm_digit(from[i], pass)]++;
        for (uint32_t digit = 0; digit < LPM_DIGITS; digit++) {
            uint32_t n = place[digit];
            place[digit] = total;
            total += n;
        }
        for (uint32_t i = 0; i < lpm->count; i++)
            to[place[lpm_digit(from[i], pass)]++] = from[i];
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
}

/* The prefixes around the address the sweep is at, the longest last; level 0 is no prefix. */
struct lpm_sweep {
    struct lpm *lpm;
    uint32_t run;                /* of the last range */
    uint32_t depth;
    uint64_t end[LPM_DEPTH];     /* first address behind each */
    uint32_t ref[LPM_DEPTH];
};

/* lpm_cut: from @start on, @ref is the answer. */
static void lpm_cut(struct lpm_sweep *sweep, uint64_t start, uint32_t ref)
{
    struct lpm *lpm = sweep->lpm;
    struct lpm_range *ranges = lpm_ranges(lpm);
    uint32_t before = ranges[lpm->ranges - 1].ref;

    while (sweep->run < start >> LPM_RUN_SHIFT && sweep->run < LPM_RUNS - 1) { /* they begin at 0 */
        lpm->run[++sweep->run] = lpm->ranges;
        ranges[lpm->ranges++] = (struct lpm_range){0, before};
    }
    if (start >> 32 || ref == before)
        return;
    uint32_t low = (uint32_t)start & LPM_RUN_MASK;
    if (ranges[lpm->ranges - 1].start == low) /* shorter ones that begin here, too */
        ranges[lpm->ranges - 1].ref = ref;
    else
        ranges[lpm->ranges++] = (struct lpm_range){low, ref};
}

static void lpm_leave(struct lpm_sweep *sweep, uint64_t start)
{
    while (sweep->depth && sweep->end[sweep->depth] <= start) {
        uint64_t end = sweep->end[sweep->depth--];
        lpm_cut(sweep, end, sweep->ref[sweep->depth]);
    }
}

void lpm_finish(struct lpm *lpm)
{
    struct lpm_sweep sweep = {.lpm = lpm};
    const uint64_t *sorted = lpm_sorted(lpm);

    lpm_sort(lpm);
    lpm->run[0] = 0;
    lpm_ranges(lpm)[0] = (struct lpm_range){0, 0};
    lpm->ranges = 1;
    for (uint32_t i = 0; i < lpm->count; i++) {
        uint64_t start = sorted[i] >> LPM_PREFIX_SHIFT;
        uint32_t len = (uint32_t)(sorted[i] >> LPM_LEN_SHIFT) & LPM_LEN_MASK;
        lpm_leave(&sweep, start);
        sweep.end[++sweep.depth] = start + (1ULL << (32 - len));
        sweep.ref[sweep.depth] = (uint32_t)(sorted[i] & LPM_REF_MAX);
        lpm_cut(&sweep, start, sweep.ref[sweep.depth]);
    }
    lpm_leave(&sweep, 1ULL << 32);
    lpm_cut(&sweep, 1ULL << 32, 0);
    lpm->run[LPM_RUNS] = lpm->ranges;
}

/* ---- lookup ---- */

uint32_t lpm_lookup(const struct lpm *lpm, uint32_t addr)
{
    const struct lpm_range *range = lpm_ranges(lpm) + lpm->run[addr >> LPM_RUN_SHIFT];
    uint32_t n = lpm->run[(addr >> LPM_RUN_SHIFT) + 1] - lpm->run[addr >> LPM_RUN_SHIFT];
    while (n > 1) { /* the last range that begins at or below; no branch to guess wrong */
        uint32_t half = n / 2;
        range += range[half].start <= (addr & LPM_RUN_MASK) ? half : 0;
        n -= half;
    }
    return range->ref;
}

void lpm_prefetch(const struct lpm *lpm, uint32_t addr)
{
    __builtin_prefetch(&lpm->run[addr >> LPM_RUN_SHIFT]);
}

void lpm_prefetch_ranges(const struct lpm *lpm, uint32_t addr)
{
    uint32_t first = lpm->run[addr >> LPM_RUN_SHIFT];
    uint32_t end = lpm->run[(addr >> LPM_RUN_SHIFT) + 1];
    __builtin_prefetch(&lpm_ranges(lpm)[first + (end - first) / 2]);
}
