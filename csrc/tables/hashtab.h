/* hashtab.h - the hash table behind ipcache, cilium_lxc, policy, peers and fragments.
 *
 * Callers: the tables of this room only. A table gives its slot struct and key length as a
 * struct hashtab_shape constant; everything is inline, so each table gets its own code.
 *
 * Theory. The region is this header, an array of chain heads, an array of slots. A slot never
 * moves while it is in use, so dumps may go by cursor. Chains and free list are references: slot
 * number + 1, 0 = none. Only the slots say what the table holds: a slot is in use when its state
 * is the tag of its key. A writer opens a slot (state 0), fills it, then commits it, so one killed
 * anywhere leaves at most that one slot open. Attach throws heads and free list away and builds
 * them again from the slots, so no stored reference is ever trusted.
 * Full: hashtab_claim refuses and counts; the caller says so, or evicts first.
 */
#ifndef FWD_TABLES_HASHTAB_H
#define FWD_TABLES_HASHTAB_H

#include "base/hash.h"
#include "tables/table.h"

#define HASHTAB_INLINE static inline __attribute__((always_inline))

enum { HASHTAB_MIN_BUCKETS = 16 }; /* one cache line of heads: keeps the slots aligned behind them */

struct hashtab {
    uint32_t cap;       /* slots */
    uint32_t mask;      /* chain heads - 1, a power of two */
    uint32_t top;       /* slots from here on were never used: their bytes mean nothing */
    uint32_t count;
    uint32_t free;      /* reference: first slot of the free list */
    uint32_t own;       /* the table's, whatever it wants to count */
    uint64_t seed;
    uint64_t failures;  /* claims refused */
    uint8_t pad1[24];
};

/* First member of every slot struct; the key follows it at once. */
struct hashtab_link {
    uint32_t next;      /* reference: rest of the chain, or of the free list */
    uint32_t state;     /* 0 = free or being written, else the key's tag */
};

struct hashtab_shape {
    uint32_t slot_size;
    uint32_t key_len;   /* bytes behind the link; padding inside the key must be zero */
};

static_assert(sizeof(struct hashtab) == TABLE_ALIGN, "heads start on a cache line");

/* hashtab_fence: what was stored before it is in the region before what is stored after it. The
 * other party is a later process, so the compiler is the only one that could reorder. */
HASHTAB_INLINE void hashtab_fence(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline uint32_t hashtab_buckets(uint32_t cap)
{
    uint32_t buckets = table_pow2(cap < 1u << 30 ? cap * 2 : 1u << 31);
    return buckets < HASHTAB_MIN_BUCKETS ? HASHTAB_MIN_BUCKETS : buckets;
}

static inline uint64_t hashtab_size(uint32_t cap, struct hashtab_shape shape)
{
    return table_align(sizeof(struct hashtab) + hashtab_buckets(cap) * sizeof(uint32_t)
                       + (uint64_t)cap * shape.slot_size);
}

/* hashtab_head: where the chain of @hash begins. */
HASHTAB_INLINE uint32_t *hashtab_head(const struct hashtab *tab, uint64_t hash)
{
    return (uint32_t *)((uintptr_t)tab + sizeof(*tab)) + (hash & tab->mask);
}

/* hashtab_at: the slot behind a reference that is not 0. */
HASHTAB_INLINE void *hashtab_at(const struct hashtab *tab, struct hashtab_shape shape, uint32_t ref)
{
    uint8_t *slots = (uint8_t *)(hashtab_head(tab, 0) + (uint64_t)tab->mask + 1);
    return slots + (uint64_t)(ref - 1) * shape.slot_size;
}

HASHTAB_INLINE uint64_t hashtab_hash(const struct hashtab *tab, const void *key, uint32_t key_len)
{
    const uint8_t *bytes = key;
    uint64_t hash = tab->seed;
    uint32_t at = 0;
    for (; at + 8 <= key_len; at += 8)
        hash = hash_mix(hash ^ hash_load64(bytes + at), 0x9e3779b97f4a7c15ULL);
    if (at < key_len) {
        uint64_t tail = 0;
        memcpy(&tail, bytes + at, key_len - at);
        hash = hash_mix(hash ^ tail, 0xa0761d6478bd642fULL);
    }
    return hash_mix(hash ^ 0xe7037ed1a0b428dbULL, tab->seed ^ 0x8ebc6af09c88c6e3ULL);
}

/* hashtab_tag: 31 bits of the hash that choose no head; never 0. */
HASHTAB_INLINE uint32_t hashtab_tag(uint64_t hash)
{
    return (uint32_t)(hash >> 32) | 1;
}

/* hashtab_find: reference of the slot in use with this key, 0 = none. */
HASHTAB_INLINE uint32_t hashtab_find(const struct hashtab *tab, struct hashtab_shape shape,
                                     const void *key)
{
    if (!tab->count)
        return 0;
    uint64_t hash = hashtab_hash(tab, key, shape.key_len);
    uint32_t tag = hashtab_tag(hash);
    uint32_t ref = *hashtab_head(tab, hash);
    while (ref) {
        const struct hashtab_link *link = hashtab_at(tab, shape, ref);
        if (link->state == tag && memcmp(link + 1, key, shape.key_len) == 0)
            break;
        ref = link->next;
    }
    return ref;
}

static inline void hashtab_init(struct hashtab *tab, uint32_t cap, uint64_t seed)
{
    uint32_t buckets = hashtab_buckets(cap);
    memset(tab, 0, sizeof(*tab) + buckets * sizeof(uint32_t));
    tab->cap = cap;
    tab->mask = buckets - 1;
    tab->seed = seed;
}

static inline void hashtab_chain(struct hashtab *tab, struct hashtab_shape shape, uint32_t ref,
                                 uint64_t hash)
{
    struct hashtab_link *link = hashtab_at(tab, shape, ref);
    uint32_t *head = hashtab_head(tab, hash);
    link->next = *head;
    *head = ref;
    tab->count++;
}

/* hashtab_claim: open the slot of @key for writing, a new one if there is none; hashtab_commit
 * puts it into use again. A new slot holds the key and zeros, and @fresh is set.
 * Return: its reference, 0 = table full (counted). */
static inline uint32_t hashtab_claim(struct hashtab *tab, struct hashtab_shape shape,
                                     const void *key, bool *fresh)
{
    uint32_t ref = hashtab_find(tab, shape, key);
    *fresh = ref == 0;
    if (ref) {
        ((struct hashtab_link *)hashtab_at(tab, shape, ref))->state = 0;
        hashtab_fence();
        return ref;
    }
    if (!tab->free && tab->top >= tab->cap) {
        tab->failures++;
        return 0;
    }
    ref = tab->free ? tab->free : tab->top + 1;
    struct hashtab_link *link = hashtab_at(tab, shape, ref);
    if (tab->free) {
        tab->free = link->next;
    } else {
        link->state = 0; /* before top says that this word means something */
        hashtab_fence();
        tab->top++;
    }
    memset(link + 1, 0, shape.slot_size - sizeof(*link));
    memcpy(link + 1, key, shape.key_len);
    hashtab_chain(tab, shape, ref, hashtab_hash(tab, key, shape.key_len));
    return ref;
}

static inline void hashtab_commit(struct hashtab *tab, struct hashtab_shape shape, uint32_t ref)
{
    struct hashtab_link *link = hashtab_at(tab, shape, ref);
    hashtab_fence();
    link->state = hashtab_tag(hashtab_hash(tab, link + 1, shape.key_len));
}

/* hashtab_remove: take @key out. Return: its old reference, whose bytes stay until the next
 * claim; 0 = there was none. */
static inline uint32_t hashtab_remove(struct hashtab *tab, struct hashtab_shape shape,
                                      const void *key)
{
    uint32_t ref = hashtab_find(tab, shape, key);
    if (!ref)
        return 0;
    struct hashtab_link *link = hashtab_at(tab, shape, ref);
    uint32_t *at = hashtab_head(tab, hashtab_hash(tab, key, shape.key_len));
    link->state = 0;
    hashtab_fence();
    while (*at != ref)
        at = &((struct hashtab_link *)hashtab_at(tab, shape, *at))->next;
    *at = link->next;
    link->next = tab->free;
    tab->free = ref;
    tab->count--;
    return ref;
}

/* hashtab_next: reference of the first slot in use whose number is @at or above, 0 = no more.
 * Given the last reference it returns the next one, so a reference serves as a dump's cursor. */
static inline uint32_t hashtab_next(const struct hashtab *tab, struct hashtab_shape shape,
                                    uint64_t at)
{
    for (; at < tab->top; at++) {
        const struct hashtab_link *link = hashtab_at(tab, shape, (uint32_t)at + 1);
        if (link->state)
            return (uint32_t)at + 1;
    }
    return 0;
}

/* hashtab_validate: check the layout of an attached table and rebuild all references.
 * @keep: may this slot's content be used? Slots that are torn, twins or not to be kept are freed.
 * Return: false = not this layout; nothing was changed then. */
static inline bool hashtab_validate(struct hashtab *tab, uint32_t cap, struct hashtab_shape shape,
                                    bool (*keep)(const void *slot))
{
    if (tab->cap != cap || tab->mask != hashtab_buckets(cap) - 1 || tab->top > cap)
        return false;
    memset(hashtab_head(tab, 0), 0, ((uint64_t)tab->mask + 1) * sizeof(uint32_t));
    tab->count = 0;
    tab->free = 0;
    for (uint32_t ref = tab->top; ref; ref--) { /* downwards: low slots are reused first */
        struct hashtab_link *link = hashtab_at(tab, shape, ref);
        uint64_t hash = hashtab_hash(tab, link + 1, shape.key_len);
        if (link->state == hashtab_tag(hash) && keep(link)
            && !hashtab_find(tab, shape, link + 1)) {
            hashtab_chain(tab, shape, ref, hash);
        } else {
            link->state = 0;
            link->next = tab->free;
            tab->free = ref;
        }
    }
    return true;
}

static inline void hashtab_stats(const struct hashtab *tab, struct hashtab_shape shape,
                                 struct fwd_table_stats *stats)
{
    memset(stats, 0, sizeof(*stats));
    stats->cap = tab->cap;
    stats->count = tab->count;
    stats->size = hashtab_size(tab->cap, shape);
    stats->failures = tab->failures;
}

#endif
