/* peer.h - remote nodes by underlay address: whom we take VXLAN from (D13), and with which VNI
 * we speak to those whose VNI is not an identity. */
#ifndef FWD_TABLES_PEER_H
#define FWD_TABLES_PEER_H

#include "base/pkt.h"
#include "tables/table.h"

struct peer_table;

uint64_t peer_size(uint32_t cap);
void peer_init(struct peer_table *table, uint32_t cap, uint64_t seed);
bool peer_validate(struct peer_table *table, uint64_t size, uint32_t cap);
const struct fwd_peer_row *peer_lookup(const struct peer_table *table, const struct fwd_addr *ip);
/* peer_fixed_vni: the peer, if its VNI is no identity but always the same. */
const struct fwd_peer_row *peer_fixed_vni(const struct peer_table *table, const struct fwd_addr *ip);
int peer_upsert(struct peer_table *table, const struct fwd_peer_row *row, struct fwd_error *err);
int peer_delete(struct peer_table *table, const struct fwd_addr *ip);
uint32_t peer_dump(const struct peer_table *table, uint64_t *cursor, struct fwd_peer_row *rows,
                   uint32_t cap);
void peer_stats(const struct peer_table *table, struct fwd_table_stats *stats);

#endif
