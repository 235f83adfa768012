/* events.c - cilium_events: the ring that fwd_dp_run writes and the monitor reads.
 *
 * Two positions that only grow; the slot is the position's low bits. A full ring gives up its
 * oldest record, and that is what "lost" counts.
 */
#include "tables/arena.h"

struct event_ring {
    uint32_t cap;      /* a power of two */
    uint32_t pad0;
    uint64_t written, read;
    uint64_t lost;     /* not yet told to the reader */
    uint8_t pad1[32];
    struct fwd_event slots[];
};

static_assert(sizeof(struct event_ring) == TABLE_ALIGN, "slots start on a cache line");

uint64_t events_size(uint32_t cap)
{
    return table_align(sizeof(struct event_ring) + (uint64_t)cap * sizeof(struct fwd_event));
}

void events_init(struct event_ring *ring, uint32_t cap)
{
    memset(ring, 0, sizeof(*ring));
    ring->cap = cap;
}

/* What the last process had not read is lost: its newest record may be half-written, and no
 * monitor outlives the process it was attached to. */
bool events_validate(struct event_ring *ring, uint64_t size, uint32_t cap)
{
    if (cap == 0 || (cap & (cap - 1)) != 0 || ring->cap != cap || size < events_size(cap))
        return false;
    uint64_t unread = ring->written - ring->read;
    ring->lost += unread < cap ? unread : cap;
    ring->read = ring->written;
    return true;
}

struct fwd_event *events_next(struct event_ring *ring)
{
    if (ring->written - ring->read >= ring->cap) {
        ring->read++;
        ring->lost++;
    }
    return &ring->slots[ring->written++ & (ring->cap - 1)];
}

uint32_t events_read(struct event_ring *ring, struct fwd_event *events, uint32_t cap,
                     uint64_t *lost)
{
    uint32_t n = 0;
    for (; n < cap && ring->read != ring->written; n++)
        events[n] = ring->slots[ring->read++ & (ring->cap - 1)];
    *lost += ring->lost;
    ring->lost = 0;
    return n;
}

/* ---- abi.h ---- */

uint32_t fwd_events_read(struct fwd_dp *dp, struct fwd_event *events, uint32_t cap, uint64_t *lost)
{
    return events_read(dp->events, events, cap, lost);
}
