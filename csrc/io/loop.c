/* loop.c - one wake-up of the pump: which descriptor is served, and when it is over (D10).
 *
 * Theory: the epoll set is level-triggered and each ready descriptor gets one batch a turn, so a
 * flooding pod cannot starve another. When the budget ends in the middle of a turn, the events left
 * are served first in the next call. After work the call lingers a little in the kernel for more,
 * so that under load Python is woken about once in two milliseconds instead of once a batch.
 *
 * Before it sleeps it asks again and again for a few microseconds (the spin): in a round trip, waking
 * an idle core costs more than all of the datapath, and in bulk whoever sends would pay for a wake-up
 * a batch. Each time it gives its core away, so that those who wait for it (the pod, on a small
 * machine the other daemon, too) run right there and none of them needs to be woken from another.
 */
#include "base/vxlan.h"
#include "io/pump.h"

#include <errno.h>
#include <sched.h>
#include <time.h>

enum {
    PUMP_NS_PER_S = 1000000000,
    PUMP_BULK_BYTES = 16 << 10, /* a turn that moved more is bulk: its spins are counted apart */
    PUMP_SPIN_MISSES_MAX = 62,
};

/* CLOCK_BOOTTIME goes on while the machine sleeps: connections age as the peers see it. */
static uint64_t pump_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * PUMP_NS_PER_S + (uint64_t)now.tv_nsec;
}

/* New events, waiting at most @wait_ns. False: none. */
static bool pump_poll(struct fwd_pump *pump, uint64_t wait_ns)
{
    int n;

    if (wait_ns == 0) {
        n = epoll_wait(pump->epoll_fd, pump->events, PUMP_EVENTS, 0);
    } else {
        struct timespec wait = {.tv_sec = (time_t)(wait_ns / PUMP_NS_PER_S),
                                .tv_nsec = (long)(wait_ns % PUMP_NS_PER_S)};
        n = epoll_pwait2(pump->epoll_fd, pump->events, PUMP_EVENTS, &wait, NULL);
        if (n < 0 && errno == ENOSYS)
            pump->can_linger = false;
    }
    pump->n_events = n > 0 ? (uint32_t)n : 0;
    pump->next_event = 0;
    return n > 0;
}

/* Serve what is left of the last poll until @end_ns. Return: packets read. */
static uint32_t pump_turn(struct fwd_pump *pump, uint64_t end_ns)
{
    uint32_t moved = 0;

    pump->turn_bytes = 0;
    while (pump->next_event < pump->n_events) {
        moved += pump_serve(pump, pump->events[pump->next_event++].data.u32);
        pump->now_ns = pump_clock();
        if (pump->now_ns >= end_ns)
            break;
    }
    return moved;
}

/* Leave out so many chances before the next spin: after hits, few; after misses, more and more. */
static void pump_spin_skip(struct pump_spin *spin, uint32_t misses)
{
    spin->misses = misses < PUMP_SPIN_MISSES_MAX ? misses : PUMP_SPIN_MISSES_MAX;
    spin->skips = 0;
}

/* Ask until something comes or spin_ns are over; the more often in vain, the rarer. Of the chances,
 * every 1st, 3rd, 7th, ... is taken: odd, as in a round trip every other wait is a long one.
 * False: nothing came. */
static bool pump_spin(struct fwd_pump *pump)
{
    bool bulk = pump->turn_bytes > PUMP_BULK_BYTES, away = false, hit;
    struct pump_spin *spin = &pump->spin[bulk];
    uint64_t began_ns = pump->now_ns;

    if (spin->skips++ < spin->misses)
        return false;
    pump->stats.spins++;
    while (!(hit = pump_poll(pump, 0)) && !away && pump->now_ns - began_ns < pump->spin_ns) {
        uint64_t yielded_ns = pump_clock();
        sched_yield();
        pump->now_ns = pump_clock();
        away = pump->now_ns - yielded_ns >= pump->spin_ns;
    }
    if (away && !bulk) {
        /* Who has the core does not give it back: a sleeper is woken sooner than a yielder is let
         * on. The worst of misses, whatever came. In bulk the core was put to use. */
        pump_spin_skip(spin, PUMP_SPIN_MISSES_MAX);
        return hit;
    }
    pump->stats.spin_hits += hit;
    pump_spin_skip(spin, hit ? spin->misses / 4 * 2 : spin->misses * 2 + 2);
    return hit;
}

/* What is ready now, or within @linger_ns. False: nothing came. */
static bool pump_linger(struct fwd_pump *pump, uint64_t end_ns, uint64_t linger_ns)
{
    if (pump->spin_ns && pump_spin(pump))
        return true;
    if (!pump->can_linger)
        return pump_poll(pump, 0);
    if (pump->now_ns >= end_ns)
        return false;
    uint64_t left_ns = end_ns - pump->now_ns;
    bool more = pump_poll(pump, linger_ns < left_ns ? linger_ns : left_ns);
    pump->now_ns = pump_clock();
    return more;
}

uint32_t fwd_pump_run(struct fwd_pump *pump, uint64_t budget_ns, uint64_t linger_ns)
{
    struct fwd_settings settings;
    uint32_t moved = 0;

    fwd_dp_settings_get(pump->dp, &settings);
    pump->tunnel_port_be16 = htons(settings.tunnel_port);
    memcpy(pump->router_mac, settings.router_mac, sizeof(pump->router_mac));
    pump->train_size_max = settings.tunnel_mtu ? settings.tunnel_mtu + VXLAN_HLEN + ETH_HLEN
                                               : UINT16_MAX;
    pump->now_ns = pump_clock();
    uint64_t end_ns = pump->now_ns + budget_ns;
    pump->eager = false;

    do {
        bool ready = pump->next_event < pump->n_events ||
                     (moved == 0 ? pump_poll(pump, 0) : pump_linger(pump, end_ns, linger_ns));
        if (!ready)
            break;
        moved += pump_turn(pump, end_ns);
        pump->eager = pump->spin_ns && pump->now_ns >= end_ns;
    } while (pump->now_ns < end_ns);
    if (moved > 0)
        pump->stats.wakeups++;
    return moved;
}

void fwd_pump_spin_set(struct fwd_pump *pump, uint64_t spin_ns)
{
    pump->spin_ns = spin_ns;
    memset(pump->spin, 0, sizeof(pump->spin));
}

int fwd_pump_eager(const struct fwd_pump *pump)
{
    return pump->eager;
}
