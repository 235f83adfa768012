/* lpm.h - longest prefix match of IPv4 by sorted ranges, for tables with many prefix lengths.
 *
 * A by-product of the ipcache, built aside from its entries and thrown away when they change; it
 * answers with the entries' references. Memory and lookup: DXR (Zec, Rizzo, Mikuc 2012) with 18 bits
 * in the direct part, so that a run fits a cache line even with a million prefixes; performance
 * reference A.7.
 */
#ifndef FWD_TABLES_LPM_H
#define FWD_TABLES_LPM_H

#include "tables/table.h"

struct lpm;

enum {
    LPM_CAP_MAX = 1 << 21, /* prefixes: the sort has this much room */
    LPM_REF_MAX = (1 << 24) - 1, /* a line has three bytes for each */
};

/* lpm_size: bytes for @cap prefixes. Nothing of it is touched before the first build. */
uint64_t lpm_size(uint32_t cap);
void lpm_init(struct lpm *lpm, uint32_t cap);

/* Building: begin, add each prefix (host order, 0 to 32 bits) once, finish. Lookups of before
 * must have ended: the ranges are made in place. */
void lpm_begin(struct lpm *lpm);
void lpm_add(struct lpm *lpm, uint32_t prefix, uint32_t prefix_len, uint32_t ref);
void lpm_finish(struct lpm *lpm);

/* lpm_lookup: the reference of the longest prefix that holds @addr (host order), 0 = none. */
uint32_t lpm_lookup(const struct lpm *lpm, uint32_t addr);

/* lpm_prefetch: ask for what lpm_lookup reads, of nearly every address all there is. */
void lpm_prefetch(const struct lpm *lpm, uint32_t addr);

#endif
