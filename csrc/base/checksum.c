/* checksum.c - see checksum.h. Called by parse-free code only: stages for headers, the pump and
 * replay to finish partial sums. Slow twin: tests/models/checksum.py.
 */
#include "base/checksum.h"

/* Words of a 64 KB super-packet are summed once a hop: the widest registers pay. */
#if defined(__x86_64__)
#include <immintrin.h>

enum { CSUM_BLOCK = 64 };

/* csum_blocks: whole blocks, copied to @to when there is one. 32-bit words go into 64-bit lanes,
 * which cannot overflow below 16 GiB, so no carry is looked at. */
__attribute__((target("avx2"))) static uint64_t csum_blocks(uint8_t *to, const uint8_t *from,
                                                            uint32_t len)
{
    const __m256i low = _mm256_set1_epi64x(0xffffffff);
    __m256i even = _mm256_setzero_si256(), odd = even;
    for (uint32_t at = 0; at < len; at += CSUM_BLOCK) {
        __m256i a = _mm256_loadu_si256((const __m256i_u *)(from + at));
        __m256i b = _mm256_loadu_si256((const __m256i_u *)(from + at + 32));
        if (to) {
            _mm256_storeu_si256((__m256i_u *)(to + at), a);
            _mm256_storeu_si256((__m256i_u *)(to + at + 32), b);
        }
        even = _mm256_add_epi64(even, _mm256_and_si256(a, low));
        odd = _mm256_add_epi64(odd, _mm256_srli_epi64(a, 32));
        even = _mm256_add_epi64(even, _mm256_and_si256(b, low));
        odd = _mm256_add_epi64(odd, _mm256_srli_epi64(b, 32));
    }
    uint64_t lane[4];
    _mm256_storeu_si256((__m256i_u *)lane, _mm256_add_epi64(even, odd));
    return lane[0] + lane[1] + lane[2] + lane[3];
}

static uint32_t csum_whole_blocks(uint32_t len)
{
    return __builtin_cpu_supports("avx2") ? len - len % CSUM_BLOCK : 0;
}
#else
static uint64_t csum_blocks(uint8_t *to, const uint8_t *from, uint32_t len)
{
    (void)to, (void)from, (void)len;
    return 0;
}

static uint32_t csum_whole_blocks(uint32_t len)
{
    (void)len;
    return 0;
}
#endif

uint64_t csum_partial(const uint8_t *data, uint32_t len, uint64_t sum)
{
    uint32_t blocks = len >= 256 ? csum_whole_blocks(len) : 0; /* headers are done before it starts */
    if (blocks) {
        sum += csum_blocks(NULL, data, blocks);
        data += blocks;
        len -= blocks;
    }
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

uint64_t csum_copy(uint8_t *to, const uint8_t *from, uint32_t len, uint64_t sum)
{
    uint32_t blocks = csum_whole_blocks(len);
    if (blocks)
        sum += csum_blocks(to, from, blocks);
    memcpy(to + blocks, from + blocks, len - blocks);
    return csum_partial(from + blocks, len - blocks, sum);
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
