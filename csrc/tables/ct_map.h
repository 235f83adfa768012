/* ct_map.h - how conntrack entries are stored; ct.c says what they mean, dp.c prefetches them.
 *
 * A map is this header, then index lines of one cache line, then `cap` entries. Only indices
 * inside (D7).
 */
#ifndef FWD_TABLES_CT_MAP_H
#define FWD_TABLES_CT_MAP_H

#include "tables/ct.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define CT_NIL UINT32_MAX /* no entry */

/* Hot part first: the key, then what every packet reads and writes. */
struct ct_entry {
    struct ct_tuple key;
    uint16_t check;             /* over the key; 0 = no entry here */
    union {
        uint32_t expires_s;
        uint32_t next_free;     /* while there is no entry here */
    };
    uint16_t flags;             /* FWD_CT_* */
    uint8_t rx_flags_seen, tx_flags_seen;
    uint32_t last_rx_report_s, last_tx_report_s;
    uint32_t src_identity;
    uint16_t rev_nat_id, ifindex;
    uint64_t tx_packets, tx_bytes, rx_packets;
    union {
        uint64_t rx_bytes;
        uint64_t backend_id;    /* SERVICE entries, which count nothing under rx */
    };
};

struct ct_map {
    uint32_t cap;
    uint32_t n_lines;           /* a power of two */
    uint32_t count;
    uint32_t top;               /* entries from here on were never used, their pages not touched */
    uint32_t free;              /* head of the list of entries used and given back */
    uint32_t hand;              /* where the next reclaiming scan starts */
    uint64_t seed;
    uint64_t evictions, failures;
    uint32_t stuck;             /* the last reclaiming scan found nothing: a sweep moves the hand */
    uint32_t pad[3];
};

enum { CT_SLOTS = 10, CT_PROBE_MAX = 16 }; /* of a line; lines a flow may be in */

struct ct_line {
    uint32_t overflow;          /* entries that live further on because this line was full */
    uint16_t tag[CT_SLOTS];     /* 0 = empty slot */
    uint32_t index[CT_SLOTS];
};

static_assert(sizeof(struct ct_tuple) == 38, "keys are compared as bytes, without padding");
static_assert(sizeof(struct ct_line) == TABLE_ALIGN, "a line is a cache line");
static_assert(sizeof(struct ct_entry) == 96, "what a flow costs, beside its share of the index");
static_assert(sizeof(struct ct_map) == TABLE_ALIGN, "lines start aligned");

static inline struct ct_line *ct_map_lines(const struct ct_map *map)
{
    return (struct ct_line *)((uintptr_t)map + sizeof(*map));
}

static inline struct ct_entry *ct_map_entry(const struct ct_map *map, uint32_t index)
{
    return (struct ct_entry *)(ct_map_lines(map) + map->n_lines) + index;
}

/* ct_map_line: the line an entry of @hash tries after @n others; NULL = no more. */
static inline struct ct_line *ct_map_line(const struct ct_map *map, uint64_t hash, uint32_t n)
{
    if (n >= CT_PROBE_MAX || n >= map->n_lines)
        return NULL;
    return ct_map_lines(map) + (((uint32_t)hash + n) & (map->n_lines - 1));
}

/* ct_tag: hash bits and the tuple flags; never 0. */
static inline uint16_t ct_tag(uint64_t hash, uint8_t flags)
{
    return (uint16_t)(0x8000u | (uint32_t)(hash >> 52) << 3 | (flags & 7u));
}

/* ct_line_find: slots of the line whose tag is @tag under @mask, two bits a slot. */
#if defined(__SSE2__)
static inline uint32_t ct_line_find(const struct ct_line *line, uint16_t tag, uint16_t mask)
{
    static_assert(CT_SLOTS == 10, "eight tags in one register, two in the next");
    __m128i want = _mm_set1_epi16((short)tag), under = _mm_set1_epi16((short)mask);
    int last;
    memcpy(&last, line->tag + 8, sizeof(last));
    __m128i eight = _mm_loadu_si128((const __m128i_u *)line->tag);
    __m128i two = _mm_cvtsi32_si128(last);
    eight = _mm_cmpeq_epi16(_mm_and_si128(eight, under), want);
    two = _mm_cmpeq_epi16(_mm_and_si128(two, under), want);
    return (uint32_t)_mm_movemask_epi8(eight) | ((uint32_t)_mm_movemask_epi8(two) & 0xf) << 16;
}
#else
static inline uint32_t ct_line_find(const struct ct_line *line, uint16_t tag, uint16_t mask)
{
    uint32_t found = 0;
    for (uint32_t slot = 0; slot < CT_SLOTS; slot++)
        found |= (line->tag[slot] & mask) == tag ? 3u << slot * 2 : 0;
    return found;
}
#endif

/* ct_line_next: take the lowest slot out of what ct_line_find found. */
static inline uint32_t ct_line_next(uint32_t *found)
{
    uint32_t slot = (uint32_t)__builtin_ctz(*found) / 2;
    *found &= *found - 1;
    *found &= *found - 1;
    return slot;
}

/* Prefetching is inlined by force: gcc takes a function that does nothing else for one without
 * effect and drops the calls, which cost 140 ns a packet at a million flows. */
#define CT_PREFETCH static inline __attribute__((always_inline))

static inline struct ct_map *ct_map_of(const struct ct *ct, const struct ct_tuple *tuple)
{
    return tuple->proto == PROTO_TCP ? ct->tcp : ct->any;
}

/* ct_prefetch: start loading the index line of a flow. */
CT_PREFETCH void ct_prefetch(const struct ct *ct, const struct ct_tuple *tuple, uint64_t hash)
{
    __builtin_prefetch(ct_map_line(ct_map_of(ct, tuple), hash, 0), 1);
}

/* ct_prefetch_entries: the line is here; start loading the flow's entries, both directions. */
CT_PREFETCH void ct_prefetch_entries(const struct ct *ct, const struct ct_tuple *tuple,
                                     uint64_t hash)
{
    const struct ct_map *map = ct_map_of(ct, tuple);
    const struct ct_line *line = ct_map_line(map, hash, 0);
    uint16_t tag = ct_tag(hash, 0);
    for (uint32_t found = ct_line_find(line, tag, 0xfff8); found;) {
        const uint8_t *entry =
            (const uint8_t *)ct_map_entry(map, line->index[ct_line_next(&found)]);
        __builtin_prefetch(entry, 1);
        __builtin_prefetch(entry + sizeof(struct ct_entry) - 1, 1);
    }
}

/* ct_map_find: index of the entry of @key, CT_NIL = none. Expired ones are found too. */
uint32_t ct_map_find(const struct ct_map *map, const struct ct_tuple *key, uint64_t hash);

/* ct_map_store: @content under @key, over what may be there. Its own key and check are ignored.
 * Return: false = no room, counted. */
bool ct_map_store(struct ct_map *map, const struct ct_tuple *key, uint64_t hash,
                  const struct ct_entry *content, uint32_t now_s);

/* ct_map_purge: walk at most @budget entries from *cursor and delete those that @gone says, given
 * @about. Return: how many; *cursor = 0 after the last one. */
uint32_t ct_map_purge(struct ct_map *map, bool (*gone)(const struct ct_entry *, const void *),
                      const void *about, uint64_t *cursor, uint32_t budget);

#endif
