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

#endif
