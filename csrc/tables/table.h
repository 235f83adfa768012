/* table.h - what every table has in common: it lives in the arena, uses indices, never allocates.
 *
 * A table is one struct followed by its arrays in the same region; x_size(cap) says how long that
 * region is, x_init lays it out, x_validate checks every index and length after attach. Pointers
 * are made from offsets at each use, so a region may be mapped anywhere (D7).
 */
#ifndef FWD_TABLES_TABLE_H
#define FWD_TABLES_TABLE_H

#include "abi.h"

#define TABLE_ALIGN 64u

static inline uint64_t table_align(uint64_t size)
{
    return (size + TABLE_ALIGN - 1) & ~(uint64_t)(TABLE_ALIGN - 1);
}

/* table_pow2: the smallest power of two >= @n, at least 1. */
static inline uint32_t table_pow2(uint32_t n)
{
    uint32_t power = 1;
    while (power < n && power < 1u << 31)
        power <<= 1;
    return power;
}

/* table_prefetch: start loading the line at @at. The empty asm keeps gcc from taking functions that do
 * nothing else for ones without effect, whose calls it drops. */
static inline void table_prefetch(const void *at)
{
    __builtin_prefetch(at);
    __asm__ volatile("");
}

/* error_set: fill @err (may be NULL); defined in arena.c. */
void error_set(struct fwd_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
