/* frag.h - cilium_ipv4_frag_datagrams: ports of a datagram's first fragment for its later ones.
 * Datapath reference 5.5 and 2.7; both families, LRU, no timers.
 */
#ifndef FWD_TABLES_FRAG_H
#define FWD_TABLES_FRAG_H

#include "base/pkt.h"
#include "tables/table.h"

struct frag_table;

struct frag_key {
    struct fwd_addr daddr, saddr;
    uint32_t id;        /* as it lies: IPv4's 16 bits, IPv6's 32 */
    uint8_t proto;
    uint8_t pad[3];
};

uint64_t frag_size(uint32_t cap);
void frag_init(struct frag_table *table, uint32_t cap, uint64_t seed);
bool frag_validate(struct frag_table *table, uint64_t size, uint32_t cap);
/* frag_store: remember the ports (be16); when full the least recently used datagram goes. */
void frag_store(struct frag_table *table, const struct frag_key *key, uint16_t sport,
                uint16_t dport);
/* frag_fetch: ports of the datagram. False: its first fragment has not been seen. */
bool frag_fetch(struct frag_table *table, const struct frag_key *key, uint16_t *sport,
                uint16_t *dport);
void frag_stats(const struct frag_table *table, struct fwd_table_stats *stats);

#endif
