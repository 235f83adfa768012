/* metrics.h - cilium_metrics: (reason, direction) -> packets, bytes. One line a pair, no hashing. */
#ifndef FWD_TABLES_METRICS_H
#define FWD_TABLES_METRICS_H

#include "tables/table.h"

struct metric {
    uint64_t packets, bytes;
};

struct metrics {
    struct metric at[256][4]; /* [reason][enum fwd_dir] */
};

static inline void metrics_add(struct metrics *metrics, uint8_t reason, uint8_t dir, uint32_t len)
{
    struct metric *metric = &metrics->at[reason][dir & 3];
    metric->packets++;
    metric->bytes += len;
}

#endif
