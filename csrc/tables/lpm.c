/* lpm.c - see lpm.h.
 *
 * Theory. Nested prefixes cut the address space into ranges with one answer each, at most two a
 * prefix. They are sorted by their first address; its upper 18 bits choose a run of them, in which
 * the lower 14 are searched for. A run's first range always begins at 0, so every address has one.
 * A run of up to twelve ranges, which is nearly every one, is also written into one cache line of
 * its own: a lookup reads that line and compares all at once. Longer runs are searched.
 * Building sorts 64-bit words of prefix, length and reference by their upper 38 bits in four passes
 * of a radix sort, in the memory that ranges and lines will have.
 */
#include "tables/lpm.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum {
    LPM_RUN_BITS = 18, LPM_RUNS = 1 << LPM_RUN_BITS, LPM_RUN_SHIFT = 32 - LPM_RUN_BITS,
    LPM_RUN_MASK = (1 << LPM_RUN_SHIFT) - 1,
    LPM_DIGIT_BITS = 11, LPM_DIGITS = 1 << LPM_DIGIT_BITS,
    LPM_PASSES = 4,              /* even: the last pass ends in `sorted` */
    LPM_LEN_SHIFT = 26, LPM_LEN_MASK = 63, LPM_PREFIX_SHIFT = 32,
    LPM_DEPTH = 34,              /* prefixes around one address, and none at all */
    LPM_LINE_RANGES = 12, LPM_NO_START = 1 << LPM_RUN_SHIFT,
};

struct lpm_range {
    uint32_t start;              /* the lower bits of its first address */
    uint32_t ref;
};

struct lpm_line {
    uint16_t start[LPM_LINE_RANGES]; /* ascending, LPM_NO_START behind the last */
    uint8_t ref[LPM_LINE_RANGES][3]; /* little end first */
    uint32_t is_long;                /* the run has more ranges than fit here: see ranges */
};

struct lpm {
    uint32_t cap;
    uint32_t count;              /* prefixes added */
    uint32_t ranges;
    uint32_t pad[13];
    uint32_t run[LPM_RUNS + 16]; /* first range of each run, and the end */
    struct lpm_line line[LPM_RUNS];
    /* struct lpm_range[lpm_ranges_max(cap)] */
};

static_assert(sizeof(struct lpm_line) == TABLE_ALIGN, "a run is a cache line");
static_assert(offsetof(struct lpm, line) % TABLE_ALIGN == 0, "and begins on one");
static_assert(sizeof(struct lpm_range) == sizeof(uint64_t), "the sort uses their memory");

static uint64_t lpm_ranges_size(uint32_t cap)
{
    return table_align((2 * (uint64_t)cap + LPM_RUNS + 16) * sizeof(struct lpm_range));
}

uint64_t lpm_size(uint32_t cap)
{
    return sizeof(struct lpm) + lpm_ranges_size(cap);
}

static struct lpm_range *lpm_ranges(const struct lpm *lpm)
{
    return (struct lpm_range *)((uintptr_t)lpm + sizeof(*lpm));
}

/* Where prefixes are added and sorted: the lines' memory, which is filled last (LPM_CAP_MAX). */
static uint64_t *lpm_sorted(const struct lpm *lpm)
{
    return (uint64_t *)(uintptr_t)lpm->line;
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

/* lpm_fill_lines: the short runs once more, a line each; what was sorted there is read by now. */
static void lpm_fill_lines(struct lpm *lpm)
{
    for (uint32_t run = 0; run < LPM_RUNS; run++) {
        const struct lpm_range *range = lpm_ranges(lpm) + lpm->run[run];
        uint32_t n = lpm->run[run + 1] - lpm->run[run];
        struct lpm_line *line = &lpm->line[run];
        line->is_long = n > LPM_LINE_RANGES;
        for (uint32_t i = 0; i < LPM_LINE_RANGES; i++) {
            struct lpm_range one = i < n ? range[i] : (struct lpm_range){LPM_NO_START, 0};
            line->start[i] = (uint16_t)one.start;
            line->ref[i][0] = (uint8_t)one.ref;
            line->ref[i][1] = (uint8_t)(one.ref >> 8);
            line->ref[i][2] = (uint8_t)(one.ref >> 16);
        }
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
    lpm_fill_lines(lpm);
}

/* ---- lookup ---- */

/* lpm_place: which of a line's ranges holds the lower bits @low: as many begin at or below it, less
 * one. */
static inline uint32_t lpm_place(const struct lpm_line *line, uint32_t low)
{
#if defined(__SSE2__)
    __m128i above = _mm_set1_epi16((short)(low + 1)); /* starts have 15 bits: signed is fine */
    __m128i eight = _mm_loadu_si128((const __m128i_u *)line->start);
    __m128i four = _mm_loadl_epi64((const __m128i_u *)(line->start + 8));
    uint32_t below = (uint32_t)_mm_movemask_epi8(_mm_cmpgt_epi16(above, eight)) |
                     (uint32_t)_mm_movemask_epi8(_mm_cmpgt_epi16(above, four)) << 16;
    return (31 - (uint32_t)__builtin_clz(below & 0x00ffffff)) / 2;
#else
    uint32_t place = 0;
    while (place + 1 < LPM_LINE_RANGES && line->start[place + 1] <= low)
        place++;
    return place;
#endif
}

/* lpm_search: the last range of a long run that begins at or below. */
static uint32_t lpm_search(const struct lpm *lpm, uint32_t addr)
{
    const struct lpm_range *range = lpm_ranges(lpm) + lpm->run[addr >> LPM_RUN_SHIFT];
    uint32_t n = lpm->run[(addr >> LPM_RUN_SHIFT) + 1] - lpm->run[addr >> LPM_RUN_SHIFT];
    while (n > 1) {
        uint32_t half = n / 2;
        range += range[half].start <= (addr & LPM_RUN_MASK) ? half : 0;
        n -= half;
    }
    return range->ref;
}

uint32_t lpm_lookup(const struct lpm *lpm, uint32_t addr)
{
    const struct lpm_line *line = &lpm->line[addr >> LPM_RUN_SHIFT];
    if (line->is_long)
        return lpm_search(lpm, addr);
    const uint8_t *ref = line->ref[lpm_place(line, addr & LPM_RUN_MASK)];
    return (uint32_t)ref[0] | (uint32_t)ref[1] << 8 | (uint32_t)ref[2] << 16;
}

void lpm_prefetch(const struct lpm *lpm, uint32_t addr)
{
    table_prefetch(&lpm->line[addr >> LPM_RUN_SHIFT]);
}
