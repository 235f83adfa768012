/* ipcache.h - cilium_ipcache: prefix to identity and tunnel endpoint, longest prefix wins.
 * IPv4 and IPv6 never mix, not even through ::/0. Key, value: datapath reference 2.1.
 */
#ifndef FWD_TABLES_IPCACHE_H
#define FWD_TABLES_IPCACHE_H

#include "base/pkt.h"
#include "tables/table.h"

struct ipcache;

struct ipcache_entry {          /* what a lookup returns; valid until the next upsert or delete */
    struct fwd_addr prefix;     /* prefix, family and prefix_len are the key: keep them first */
    uint8_t family, prefix_len; /* prefix_len of that family */
    uint8_t flags;              /* FWD_IPCACHE_* */
    uint8_t pad;
    uint32_t identity;
    struct fwd_addr tunnel_endpoint; /* all zero = none */
};

uint64_t ipcache_size(uint32_t cap);
void ipcache_init(struct ipcache *table, uint32_t cap, uint64_t seed);
bool ipcache_validate(struct ipcache *table, uint64_t size, uint32_t cap);
const struct ipcache_entry *ipcache_lookup(const struct ipcache *table, const struct fwd_addr *addr);
/* ipcache_settle: make lookups fast again after changes; they are right before and meanwhile, too.
 * May run in another thread than them, one at a time. False: there were changes meanwhile. */
bool ipcache_settle(struct ipcache *table);
/* ipcache_prefetch: in a table so large that it matters, ask for what a lookup of @addr reads. */
void ipcache_prefetch(const struct ipcache *table, const struct fwd_addr *addr);
int ipcache_upsert(struct ipcache *table, const struct fwd_ipcache_row *row, struct fwd_error *err);
int ipcache_delete(struct ipcache *table, const struct fwd_ipcache_row *key);
uint32_t ipcache_dump(const struct ipcache *table, uint64_t *cursor, struct fwd_ipcache_row *rows,
                      uint32_t cap);
void ipcache_stats(const struct ipcache *table, struct fwd_table_stats *stats);

#endif
