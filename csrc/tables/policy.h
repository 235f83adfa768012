/* policy.h - cilium_policy of every endpoint in one table: the lookup of datapath reference 5.3 [C].
 *
 * Key: (lxc_id, direction, identity) exact, then the longest prefix over protocol (8 bits) and
 * port (16 bits). Two lookups, L3 (the identity) and L4-only (identity 0); the choice between them
 * is policy_lookup's. No entry = denied; "no policy" is an explicit 0/0/0 entry.
 */
#ifndef FWD_TABLES_POLICY_H
#define FWD_TABLES_POLICY_H

#include "base/pkt.h"
#include "tables/table.h"

struct policy_table;

struct policy_key {
    uint16_t lxc_id;
    uint16_t port;      /* host order; ICMP: the type */
    uint32_t identity;
    uint8_t dir, proto;
    uint8_t l3_l4;      /* false: an untracked fragment, only entries without protocol and port */
    uint8_t pad;
};

struct policy_result {
    enum fwd_drop drop; /* 0, POLICY_DENIED, POLICY_DENY */
    uint32_t rule_id;   /* 0 = no entry */
    uint32_t entry;     /* index for policy_count, UINT32_MAX = none */
    uint8_t match;      /* enum fwd_policy_match */
};

uint64_t policy_size(uint32_t cap);
void policy_init(struct policy_table *table, uint32_t cap, uint64_t seed);
bool policy_validate(struct policy_table *table, uint64_t size, uint32_t cap);
struct policy_result policy_lookup(const struct policy_table *table, const struct policy_key *key);
void policy_count(struct policy_table *table, uint32_t entry, uint32_t len);
void policy_row(const struct policy_table *table, uint32_t entry, struct fwd_policy_row *row);
int policy_upsert(struct policy_table *table, const struct fwd_policy_row *row,
                  struct fwd_error *err);
int policy_delete(struct policy_table *table, const struct fwd_policy_row *key);
uint32_t policy_dump(const struct policy_table *table, uint64_t *cursor,
                     struct fwd_policy_row *rows, uint32_t cap);
void policy_stats(const struct policy_table *table, struct fwd_table_stats *stats);

#endif
