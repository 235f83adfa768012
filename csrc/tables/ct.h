/* ct.h - conntrack: cilium_ct4_global (TCP) and cilium_ct_any4_global (the rest), both families.
 *
 * Semantics: datapath reference section 3, era [C]. Callers: path/stage.c (lookup, create), the
 * control side through abi.h (dump, sweep, purge).
 */
#ifndef FWD_TABLES_CT_H
#define FWD_TABLES_CT_H

#include "base/parse.h"
#include "tables/table.h"

struct ct_tuple {
    struct fwd_addr daddr, saddr;
    uint16_t dport, sport; /* be16; loaded crosswise, see reference 3.1 */
    uint8_t proto, flags;  /* FWD_TUPLE_* */
};

enum ct_dir { CT_EGRESS, CT_INGRESS, CT_SERVICE };
enum ct_scope { CT_SCOPE_BIDIR, CT_SCOPE_FORWARD, CT_SCOPE_REVERSE };
enum ct_action { CT_ACTION_NONE, CT_ACTION_CREATE, CT_ACTION_CLOSE };

/* What conntrack needs to know of the packet beside its tuple. */
struct ct_packet {
    uint32_t len;       /* frame bytes, for the counters */
    uint32_t now_s;
    uint8_t tcp_flags;  /* 0 when not TCP or a later fragment */
    uint8_t action;     /* enum ct_action */
};

/* Fields copied into an entry at create, and out of it at a hit. */
struct ct_state {
    uint32_t src_identity;
    uint32_t backend_id;
    uint16_t rev_nat_id;
    uint16_t ifindex;
    uint16_t flags;     /* LB_LOOPBACK, NODE_PORT, PROXY_REDIRECT, DSR, FROM_L7LB, FROM_TUNNEL */
};

struct ct_map;          /* one table in the arena */

struct ct {             /* the pair, in the handle */
    struct ct_map *tcp, *any;
    uint64_t seed;
};

uint64_t ct_map_size(uint32_t cap);
void ct_map_init(struct ct_map *map, uint32_t cap, uint64_t seed);

/* ct_map_validate: check an attached table of @size bytes and rebuild its index from the entries
 * whose check holds; the others are torn and freed. Return: false = not this layout. */
bool ct_map_validate(struct ct_map *map, uint64_t size, uint32_t cap, uint64_t seed,
                     uint32_t *torn);

/* ct_tuple_load: tuple and action of a parsed packet, unflipped (reference 3.1 and 3.3).
 * Ports, ICMP type and id come from @parsed; the caller has put a later fragment's there.
 * Return: 0, CT_TRUNCATED_OR_INVALID_HEADER (135) or CT_UNKNOWN_L4_PROTOCOL (137). */
enum fwd_drop ct_tuple_load(const struct parsed *parsed, struct ct_tuple *tuple,
                            struct ct_packet *packet);

/* ct_hash: the same for a tuple and its reverse, whatever its flags: both lookups of a packet and
 * both entries of a local connection share one bucket line. */
uint64_t ct_hash(uint64_t seed, const struct ct_tuple *tuple);

/* ct_lookup: classify, refresh and count. @tuple comes unflipped; it is left as the key to create
 * with when NEW and as the matching key otherwise (reference 3.2). @state is filled at a hit.
 * @monitor: bytes worth reporting, 0 = nothing new (reference 3.7). */
enum fwd_ct_status ct_lookup(struct ct *ct, const struct fwd_settings *settings,
                             struct ct_tuple *tuple, uint64_t hash, enum ct_dir dir,
                             enum ct_scope scope, const struct ct_packet *packet,
                             struct ct_state *state, uint32_t *monitor);

/* ct_create: main entry, and for EGRESS and INGRESS its ICMP companion (written first, [C]).
 * A NodePort flow to its backend has none (4.9/5). An existing key is overwritten. When the map is
 * full an expired entry goes first, then one of a flow that was never answered; never an established
 * one.
 * Return: 0 or CT_MAP_INSERTION_FAILED (155) when the main entry has no room; a companion that has
 * none is left out and counted. */
enum fwd_drop ct_create(struct ct *ct, const struct fwd_settings *settings,
                        const struct ct_tuple *tuple, uint64_t hash, enum ct_dir dir,
                        const struct ct_packet *packet, const struct ct_state *state);

/* ct_get: what an entry says, without a packet touching it. False: no such entry. */
bool ct_get(const struct ct *ct, const struct ct_tuple *tuple, uint64_t hash,
            struct ct_state *state);

/* ct_update_state: rewrite rev_nat_id, backend_id and flags of an existing entry. False: gone. */
bool ct_update_state(struct ct *ct, const struct ct_tuple *tuple, uint64_t hash,
                     const struct ct_state *state);

uint32_t ct_map_dump(const struct ct_map *map, uint64_t *cursor, struct fwd_ct_row *rows,
                     uint32_t cap);
uint32_t ct_map_sweep(struct ct_map *map, uint32_t now_s, uint64_t *cursor, uint32_t budget);
uint32_t ct_map_purge_addr(struct ct_map *map, const struct fwd_addr *addr, uint64_t *cursor,
                           uint32_t budget);
void ct_map_stats(const struct ct_map *map, struct fwd_table_stats *stats);

#endif
