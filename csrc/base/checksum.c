/* checksum.c - see checksum.h. Called by parse-free code only: stages for headers, the pump and
 * replay to finish partial sums. Slow twin: tests/models/checksum.py.
 */
#include "base/checksum.h"

uint64_t csum_partial(const uint8_t *data, uint32_t len, uint64_t sum)
{
    /* 32-bit words into a 64-bit sum cannot overflow below 16 GiB, so no carry is looked at. */
    while (len >= 32) {
        uint32_t word[8];
        memcpy(word, data, sizeof(word));
        sum += (uint64_t)word[0] + word[1] + word[2] + word[3];
        sum += (uint64_t)word[4] + word[5] + word[6] + word[7];
        data += 32;
        len -= 32;
    }
    while (len >= 4) {
        uint32_t word;
        memcpy(&word, data, sizeof(word));
        sum += word;
        data += 4;
        len -= 4;
    }
    if (len >= 2) {
        sum += load16(data);
        data += 2;
        len -= 2;
    }
    if (len) {
        const uint8_t last[2] = {data[0], 0}; /* RFC 1071: pad with zero on the right */
        sum += load16(last);
    }
    return sum;
}

uint16_t csum_fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    uint32_t low = (uint32_t)sum;
    low = (low & 0xffff) + (low >> 16);
    low = (low & 0xffff) + (low >> 16);
    return (uint16_t)~low;
}

uint16_t csum_update16(uint16_t check, uint16_t from, uint16_t to)
{
    uint32_t sum = (uint32_t)(uint16_t)~check + (uint16_t)~from + to;
    return csum_fold(sum);
}

uint64_t csum_pseudo(const struct fwd_addr *saddr, const struct fwd_addr *daddr, uint8_t proto,
                     uint32_t l4_len)
{
    uint8_t tail[8] = {0};
    put_be16(tail, (uint16_t)(l4_len >> 16));
    put_be16(tail + 2, (uint16_t)l4_len);
    tail[7] = proto;
    uint32_t skip = addr_is_v4(saddr) && addr_is_v4(daddr) ? 12 : 0;
    uint64_t sum = csum_partial(tail, sizeof(tail), 0);
    sum = csum_partial(saddr->b + skip, 16 - skip, sum);
    return csum_partial(daddr->b + skip, 16 - skip, sum);
}

uint16_t fwd_csum(const uint8_t *data, uint32_t len, uint32_t initial)
{
    return csum_fold(csum_partial(data, len, initial));
}

bool fwd_pkt_finish_csum(struct fwd_pkt *pkt)
{
    if (!(pkt->vnet_flags & FWD_VNET_NEEDS_CSUM))
        return true;
    uint32_t at = (uint32_t)pkt->csum_start + pkt->csum_offset;
    if (pkt->csum_start > pkt->len || at + 2 > pkt->len)
        return false;
    uint8_t *data = pkt_data(pkt);
    /* The field already holds the folded pseudo-header sum, so summing over it includes it. */
    uint16_t check = csum_fold(csum_partial(data + pkt->csum_start, pkt->len - pkt->csum_start, 0));
    store16(data + at, check ? check : 0xffff); /* a computed 0 would read as "no checksum" */
    pkt->vnet_flags &= (uint8_t)~FWD_VNET_NEEDS_CSUM;
    return true;
}
