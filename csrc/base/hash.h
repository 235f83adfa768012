/* hash.h - keyed mixing for every table; the seed comes from the arena (D6), so nobody can build
 * collisions offline. The mixer folds a 64x64 -> 128 multiplication, as wyhash does.
 */
#ifndef FWD_BASE_HASH_H
#define FWD_BASE_HASH_H

#include <stdint.h>
#include <string.h>

static inline uint64_t hash_mix(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 u128;
    u128 product = (u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hash_load64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

/* hash_addr: 16 address bytes and one word of other key material under @seed. */
static inline uint64_t hash_addr(uint64_t seed, const uint8_t addr[16], uint64_t extra)
{
    uint64_t low = hash_load64(addr) ^ seed;
    uint64_t high = hash_load64(addr + 8) ^ 0x9e3779b97f4a7c15ULL;
    uint64_t mixed = hash_mix(low ^ 0xa0761d6478bd642fULL, high ^ (seed << 32 | seed >> 32));
    return hash_mix(mixed ^ extra ^ 0xe7037ed1a0b428dbULL, seed ^ 0x8ebc6af09c88c6e3ULL);
}

static inline uint32_t hash_rol32(uint32_t word, uint32_t shift)
{
    return word << shift | word >> (32 - shift);
}

/* jhash_final, jhash_mix: Bob Jenkins' lookup3, as Linux and Cilium have it. */
static inline void jhash_final(uint32_t w[3])
{
    static const uint8_t turn[7] = {14, 11, 25, 16, 4, 14, 24};
    for (uint32_t i = 0; i < 7; i++) {
        uint32_t *at = &w[(i + 2) % 3], from = w[(i + 1) % 3];
        *at = (*at ^ from) - hash_rol32(from, turn[i]);
    }
}

static inline void jhash_mix(uint32_t w[3])
{
    static const uint8_t turn[6] = {4, 6, 8, 16, 19, 4};
    for (uint32_t i = 0; i < 6; i++) {
        uint32_t *a = &w[i % 3], *b = &w[(i + 1) % 3], *c = &w[(i + 2) % 3];
        *a = (*a - *c) ^ hash_rol32(*c, turn[i]);
        *c += *b;
    }
}

/* jhash_words: the hash of three words. */
static inline uint32_t jhash_words(uint32_t a, uint32_t b, uint32_t c, uint32_t seed)
{
    uint32_t w[3] = {a, b, c};
    for (uint32_t i = 0; i < 3; i++)
        w[i] += seed + 0xdeadbeefu + (3u << 2);
    jhash_final(w);
    return w[2];
}

#endif
