/* checksum.h - the Internet checksum (RFC 1071) and its incremental update (RFC 1624). */
#ifndef FWD_BASE_CHECKSUM_H
#define FWD_BASE_CHECKSUM_H

#include "base/pkt.h"

/* csum_partial: one's-complement sum of @len bytes added to @sum, not yet folded. Byte order is
 * that of memory: fold and store without swapping. */
uint64_t csum_partial(const uint8_t *data, uint32_t len, uint64_t sum);

/* csum_fold: down to 16 bits and inverted, ready to store (be16 as it lies). */
uint16_t csum_fold(uint64_t sum);

/* csum_update16: @check after the 16-bit field @from became @to (all be16 as they lie).
 * Source: RFC 1624, equation 3. */
uint16_t csum_update16(uint16_t check, uint16_t from, uint16_t to);

/* csum_pseudo: pseudo-header sum of the addresses, @proto and @l4_len, unfolded. IPv4 when both
 * addresses are mapped. */
uint64_t csum_pseudo(const struct fwd_addr *saddr, const struct fwd_addr *daddr, uint8_t proto,
                     uint32_t l4_len);

#endif
