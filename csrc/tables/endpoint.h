/* endpoint.h - local endpoints by lxc_id, and cilium_lxc: local address to endpoint.
 * Key, value: datapath reference 2.2. The node's own addresses have FWD_LXC_HOST and no endpoint.
 */
#ifndef FWD_TABLES_ENDPOINT_H
#define FWD_TABLES_ENDPOINT_H

#include "base/pkt.h"
#include "tables/table.h"

struct token_bucket {
    uint64_t refill_ns;         /* time of the last refill */
    uint64_t tokens_milli;      /* thousandths of a token */
};

struct endpoint {
    uint32_t identity;
    uint32_t ifindex;
    uint16_t lxc_id;            /* 0 = free slot */
    uint8_t mac[6], node_mac[6];
    uint8_t pad[2];
    uint32_t own;               /* lxc slot its last packet came from; a hint, proven at each use */
    uint32_t pad1;
    struct token_bucket punts;  /* frames for the slow path */
    struct token_bucket errors; /* ICMP errors and resets it is sent: they never cost it its ARP */
};

struct endpoint_table;
struct lxc_table;

uint64_t endpoint_size(uint32_t cap);
void endpoint_init(struct endpoint_table *table, uint32_t cap);
bool endpoint_validate(struct endpoint_table *table, uint64_t size, uint32_t cap);
struct endpoint *endpoint_get(struct endpoint_table *table, uint32_t lxc_id); /* NULL = none */
int endpoint_upsert(struct endpoint_table *table, const struct fwd_endpoint_row *row,
                    struct fwd_error *err);
int endpoint_delete(struct endpoint_table *table, uint16_t lxc_id);
uint32_t endpoint_dump(const struct endpoint_table *table, uint64_t *cursor,
                       struct fwd_endpoint_row *rows, uint32_t cap);
void endpoint_stats(const struct endpoint_table *table, struct fwd_table_stats *stats);

/* endpoint_take_token: may this endpoint bother the slow path now? A new endpoint starts with a
 * full bucket of settings->punt_burst. */
bool endpoint_take_token(struct endpoint *endpoint, const struct fwd_settings *settings,
                         uint64_t now_ns);

/* endpoint_take_error_token: may the node send an ICMP error now, to @endpoint or, with NULL, to
 * anybody outside? Same rate and burst, buckets of their own. */
bool endpoint_take_error_token(struct endpoint_table *table, struct endpoint *endpoint,
                               const struct fwd_settings *settings, uint64_t now_ns);

uint64_t lxc_size(uint32_t cap);
void lxc_init(struct lxc_table *table, uint32_t cap, uint64_t seed);
bool lxc_validate(struct lxc_table *table, uint64_t size, uint32_t cap);
const struct fwd_lxc_row *lxc_lookup(const struct lxc_table *table, const struct fwd_addr *addr);
/* lxc_lookup_source: lxc_lookup for what an endpoint sent: it mostly is what it sent before. */
const struct fwd_lxc_row *lxc_lookup_source(const struct lxc_table *table,
                                            struct endpoint *endpoint,
                                            const struct fwd_addr *addr);
int lxc_upsert(struct lxc_table *table, const struct fwd_lxc_row *row, struct fwd_error *err);
int lxc_delete(struct lxc_table *table, const struct fwd_addr *addr);
uint32_t lxc_dump(const struct lxc_table *table, uint64_t *cursor, struct fwd_lxc_row *rows,
                  uint32_t cap);
void lxc_stats(const struct lxc_table *table, struct fwd_table_stats *stats);

#endif
