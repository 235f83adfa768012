/* checksum.h - the Internet checksum (RFC 1071) and its incremental update (RFC 1624). */
#ifndef FWD_BASE_CHECKSUM_H
#define FWD_BASE_CHECKSUM_H

#include "base/pkt.h"

/* csum_partial: one's-complement sum of @len bytes added to @sum, not yet folded. Byte order is
 * that of memory: fold and store without swapping. */
uint64_t csum_partial(const uint8_t *data, uint32_t len, uint64_t sum);

/* csum_copy: csum_partial of @from, which is copied to @to on the way; they do not overlap. */
uint64_t csum_copy(uint8_t *to, const uint8_t *from, uint32_t len, uint64_t sum);

/* csum_fold: down to 16 bits and inverted, ready to store (be16 as it lies). */
uint16_t csum_fold(uint64_t sum);

/* csum_update16: @check after the 16-bit field @from became @to (all be16 as they lie).
 * Source: RFC 1624, equation 3. */
uint16_t csum_update16(uint16_t check, uint16_t from, uint16_t to);

/* csum_diff: what exchanging @len bytes adds to a sum; @len even. */
static inline uint64_t csum_diff(const uint8_t *from, const uint8_t *to, uint32_t len)
{
    uint64_t diff = 0;
    for (uint32_t at = 0; at < len; at += 2)
        diff += (uint64_t)(uint16_t)~load16(from + at) + load16(to + at);
    return diff;
}

static inline uint16_t csum_apply(uint16_t check, uint64_t diff)
{
    return csum_fold((uint64_t)(uint16_t)~check + diff);
}

/* csum_change: apply @diff to the checksum at @at. Return: what that adds to a sum over it. */
static inline uint64_t csum_change(uint8_t *at, uint64_t diff)
{
    uint16_t before = load16(at), after = csum_apply(before, diff);
    store16(at, after);
    return (uint64_t)(uint16_t)~before + after;
}

/* csum_pseudo: pseudo-header sum of the addresses, @proto and @l4_len, unfolded. IPv4 when both
 * addresses are mapped. */
uint64_t csum_pseudo(const struct fwd_addr *saddr, const struct fwd_addr *daddr, uint8_t proto,
                     uint32_t l4_len);

#endif
