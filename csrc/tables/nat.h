/* nat.h - cilium_snat_v4_external: who hides behind which port of which address. Datapath reference
 * 2.6 and 4.10.
 *
 * Callers: path/nat.c for packets, the control side through abi.h (dump, sweep).
 */
#ifndef FWD_TABLES_NAT_H
#define FWD_TABLES_NAT_H

#include "base/pkt.h"
#include "tables/table.h"

enum { NAT_PORT_MIN = 32768, NAT_PORT_MAX = 65535, NAT_TRIES = 32 };

struct nat_table;

/* A packet's addresses and ports as they stand in it (be16); of an echo request the identifier is
 * the source port and the other one 0, of its reply the other way round.
 * @flags: FWD_TUPLE_OUT for a packet that leaves, FWD_TUPLE_IN for one that comes back */
struct nat_tuple {
    struct fwd_addr daddr, saddr;
    uint16_t dport, sport;
    uint8_t proto, flags;
};

/* What an OUT tuple's source, or an IN tuple's destination, becomes. */
struct nat_target {
    struct fwd_addr addr;
    uint16_t port; /* be16 */
};

uint64_t nat_size(uint32_t cap);
void nat_init(struct nat_table *table, uint32_t cap, uint64_t seed);
bool nat_validate(struct nat_table *table, uint64_t size, uint32_t cap);

/* nat_lookup: the mapping of a tuple; counts as use. False: there is none. */
bool nat_lookup(struct nat_table *table, const struct nat_tuple *tuple, struct nat_target *target);

/* nat_map: the mapping of an OUT tuple, made if there is none, behind @behind. The source port is
 * kept when it lies in range and is free toward this destination; else one is drawn, then the ones
 * after it are tried, NAT_TRIES in all. When the table is full the mapping used least recently goes,
 * both ways at once. Return: 0 or NO_MAPPING_FOR_NAT_MASQUERADE (167). */
enum fwd_drop nat_map(struct nat_table *table, const struct nat_tuple *tuple,
                      const struct fwd_addr *behind, uint64_t now_ns, struct nat_target *target);

void nat_stats(const struct nat_table *table, struct fwd_table_stats *stats);

#endif
