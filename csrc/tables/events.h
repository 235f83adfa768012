/* events.h - cilium_events: a lossy ring of fixed-size records; the reader counts what it lost.
 * One writer (fwd_dp_run), one reader (fwd_events_read), both on the loop's thread.
 */
#ifndef FWD_TABLES_EVENTS_H
#define FWD_TABLES_EVENTS_H

#include "tables/table.h"

struct event_ring;

uint64_t events_size(uint32_t cap);
void events_init(struct event_ring *ring, uint32_t cap);
bool events_validate(struct event_ring *ring, uint64_t size, uint32_t cap);
/* events_next: the slot to fill; it overwrites the oldest record when the reader is slow. */
struct fwd_event *events_next(struct event_ring *ring);
uint32_t events_read(struct event_ring *ring, struct fwd_event *events, uint32_t cap,
                     uint64_t *lost);

#endif
