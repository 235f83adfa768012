/* pump.c - the I/O room: TAP and UDP batches -> fwd_dp_run -> batches (D10).
 *
 * The only system calls after start-up. asyncio watches epoll_fd and calls fwd_pump_run with a
 * budget (loop.c); everything below that call is C, without the GIL.
 * No policy here: what to do with a frame is the datapath's verdict.
 */
#include "io/pump.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int pump_error(struct fwd_error *err, int code, const char *doing)
{
    err->code = code;
    snprintf(err->message, sizeof(err->message), "%s: %s", doing, strerror(code));
    return -1;
}

/* ---- life ---- */

static bool pump_allocate(struct fwd_pump *pump)
{
    pump->bufs = calloc(FWD_BATCH, PUMP_BUF_SIZE);
    pump->rx = calloc(1, sizeof(*pump->rx));
    pump->tx = calloc(1, sizeof(*pump->tx));
    if (pump->rx != NULL)
        pump->rx->bufs = calloc(PUMP_RX_MSGS, PUMP_RX_SIZE);
    pump->punts = calloc(PUMP_PUNTS, sizeof(*pump->punts));
    pump->ports = calloc(PUMP_PORTS, sizeof(*pump->ports));
    return pump->bufs != NULL && pump->rx != NULL && pump->rx->bufs != NULL && pump->tx != NULL &&
           pump->punts != NULL && pump->ports != NULL;
}

struct fwd_pump *fwd_pump_new(struct fwd_dp *dp, struct fwd_error *err)
{
    struct fwd_pump *pump = calloc(1, sizeof(*pump));

    if (pump == NULL) {
        pump_error(err, ENOMEM, "allocating the pump");
        return NULL;
    }
    pump->dp = dp;
    pump->udp_fd = -1;
    pump->can_linger = true;
    pump->segments_max = 1;
    pump->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (pump->epoll_fd < 0) {
        pump_error(err, errno, "creating the pump's epoll set, check the open file limit");
        free(pump);
        return NULL;
    }
    if (!pump_allocate(pump)) {
        pump_error(err, ENOMEM, "allocating the pump's buffers");
        fwd_pump_free(pump);
        return NULL;
    }
    udp_setup(pump);
    return pump;
}

void fwd_pump_free(struct fwd_pump *pump)
{
    if (pump == NULL)
        return;
    close(pump->epoll_fd);
    free(pump->bufs);
    if (pump->rx != NULL)
        free(pump->rx->bufs);
    free(pump->rx);
    free(pump->tx);
    free(pump->punts);
    free(pump->ports);
    free(pump);
}

int fwd_pump_epoll_fd(const struct fwd_pump *pump)
{
    return pump->epoll_fd;
}

void fwd_pump_stats_get(const struct fwd_pump *pump, struct fwd_pump_stats *stats)
{
    *stats = pump->stats;
}

/* ---- offloads ---- */

void fwd_pump_offload_set(struct fwd_pump *pump, uint32_t offload, uint32_t segments_max)
{
    pump->offload = offload;
    pump->segments_max = !segments_max                      ? 1
                         : segments_max < PUMP_SEGMENTS_MAX ? segments_max
                                                            : PUMP_SEGMENTS_MAX;
    pump->segment_strikes = pump->uso_strikes = 0;
}

uint32_t fwd_pump_offload_get(const struct fwd_pump *pump)
{
    return pump->offload;
}

/* ---- ports ---- */

static int pump_watch(struct fwd_pump *pump, uint32_t port, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = port};
    return epoll_ctl(pump->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static bool pump_is_tap_port(uint32_t port)
{
    return port != FWD_PORT_NONE && port < FWD_PORT_OVERLAY;
}

int fwd_pump_add_tap(struct fwd_pump *pump, uint32_t port, int fd, uint32_t vnet_hdr_size,
                     struct fwd_error *err)
{
    if (!pump_is_tap_port(port))
        return pump_error(err, EINVAL, "adding a TAP: not the port of an endpoint or of the host");
    if (vnet_hdr_size != 10 && vnet_hdr_size != 12 && vnet_hdr_size != PUMP_VNET_HDR_MAX)
        return pump_error(err, EINVAL, "adding a TAP: its vnet header must have 10, 12 or 24 bytes");
    struct pump_port *tap = &pump->ports[port];
    if (tap->open)
        return pump_error(err, EEXIST, "adding a TAP: the port has one, remove it first");
    if (pump_watch(pump, port, fd) != 0)
        return pump_error(err, errno, "watching a TAP in the epoll set");
    tap->fd = fd;
    tap->vnet_hdr_size = (uint8_t)vnet_hdr_size;
    tap->open = true;
    return 0;
}

int fwd_pump_add_udp(struct fwd_pump *pump, int fd, struct fwd_error *err)
{
    union pump_sockaddr name = {0};
    socklen_t len = sizeof(name);

    if (pump->udp_fd >= 0)
        return pump_error(err, EEXIST, "adding the tunnel socket: there is one, remove it first");
    if (getsockname(fd, &name.any, &len) != 0)
        return pump_error(err, errno, "asking the tunnel socket for its address");
    if (name.any.sa_family != AF_INET && name.any.sa_family != AF_INET6)
        return pump_error(err, EAFNOSUPPORT, "adding the tunnel socket: it must be IPv4 or IPv6");
    if (pump_watch(pump, FWD_PORT_OVERLAY, fd) != 0)
        return pump_error(err, errno, "watching the tunnel socket in the epoll set");
    pump->udp_fd = fd;
    pump->udp_family = name.any.sa_family;
    pump->rx->overflow = 0;
    return 0;
}

int fwd_pump_remove(struct fwd_pump *pump, uint32_t port)
{
    int fd = -1;

    if (port == FWD_PORT_OVERLAY) {
        fd = pump->udp_fd;
        pump->udp_fd = -1;
    } else if (pump_is_tap_port(port) && pump->ports[port].open) {
        fd = pump->ports[port].fd;
        pump->ports[port].open = false;
    }
    if (fd < 0)
        return 0;
    epoll_ctl(pump->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    return 1;
}

void pump_port_gone(struct fwd_pump *pump, uint32_t port)
{
    struct pump_port *tap = &pump->ports[port];

    fwd_pump_remove(pump, port);
    if (tap->gone)
        return;
    tap->gone = true;
    tap->next_gone = pump->gone_head;
    pump->gone_head = port;
}

uint32_t fwd_pump_gone(struct fwd_pump *pump, uint32_t *ports, uint32_t cap)
{
    uint32_t n = 0;

    while (n < cap && pump->gone_head != FWD_PORT_NONE) {
        struct pump_port *tap = &pump->ports[pump->gone_head];
        if (!tap->open) /* else a new device took the port before anybody asked */
            ports[n++] = pump->gone_head;
        pump->gone_head = tap->next_gone;
        tap->gone = false;
    }
    return n;
}

/* ---- one batch ---- */

struct fwd_pkt *pump_reset_pkt(struct fwd_pump *pump, uint32_t index, uint32_t port, uint32_t len)
{
    struct fwd_pkt *pkt = &pump->pkts[index];

    memset(pkt, 0, sizeof(*pkt));
    pkt->buf = pump->bufs + (size_t)index * PUMP_BUF_SIZE;
    pkt->size = PUMP_BUF_SIZE;
    pkt->off = FWD_HEADROOM;
    pkt->len = len;
    pkt->port = port;
    return pkt;
}

void pump_drop(struct fwd_pump *pump, enum fwd_drop reason, enum fwd_dir dir,
               const struct fwd_pkt *pkt, const struct fwd_out *out)
{
    fwd_dp_count_drop(pump->dp, pump->now_ns, reason, dir, pkt, out);
}

static void pump_to_tap(struct fwd_pump *pump, uint32_t index, uint32_t port,
                        enum fwd_drop no_device)
{
    const struct fwd_pkt *pkt = &pump->pkts[index];

    if (!pump_is_tap_port(port) || !pump->ports[port].open)
        pump_drop(pump, no_device, FWD_DIR_INGRESS, pkt, &pump->outs[index]);
    else if (tap_write(pump, port, pkt) != 0)
        pump_drop(pump, FWD_DROP_ENDPOINT_WRITE_FAILED, FWD_DIR_INGRESS, pkt, &pump->outs[index]);
}

/* What comes from netdev or leaves by it has MACs of the wire. Behind the TAP is the host's stack,
 * which routes what is sent to its own. */
static void pump_to_host(struct fwd_pump *pump, uint32_t index, uint32_t port,
                         enum fwd_drop no_device)
{
    struct fwd_pkt *pkt = &pump->pkts[index];

    if ((port == FWD_PORT_NETDEV || pkt->port == FWD_PORT_NETDEV) &&
        pkt->len >= sizeof(pump->router_mac))
        memcpy(pkt_data(pkt), pump->router_mac, sizeof(pump->router_mac));
    pump_to_tap(pump, index, port, no_device);
}

/* The wire has no partial checksums: finish the inner one, then queue it. A super-packet gets its
 * checksums when it is split. */
static void pump_to_underlay(struct fwd_pump *pump, uint32_t index)
{
    struct fwd_pkt *pkt = &pump->pkts[index];
    const struct fwd_out *out = &pump->outs[index];

    if (out->port != FWD_PORT_OVERLAY)
        pump_to_host(pump, index, out->port, FWD_DROP_UNDERLAY_SEND_FAILED);
    else if (!pkt->gso_size && (pkt->vnet_flags & FWD_VNET_NEEDS_CSUM) && !fwd_pkt_finish_csum(pkt))
        pump_drop(pump, FWD_DROP_INVALID_PACKET_DROPPED, FWD_DIR_EGRESS, pkt, out);
    else if (pump->udp_fd < 0)
        pump_drop(pump, FWD_DROP_UNDERLAY_SEND_FAILED, FWD_DIR_EGRESS, pkt, out);
    else
        udp_queue(pump, index);
}

static void pump_punt(struct fwd_pump *pump, uint32_t index)
{
    const struct fwd_pkt *pkt = &pump->pkts[index];

    if (pump->n_punts == PUMP_PUNTS) {
        pump->stats.punts_lost++;
        pump_drop(pump, FWD_DROP_DROP_RATE_LIMITED, FWD_DIR_EGRESS, pkt, &pump->outs[index]);
        return;
    }
    struct fwd_punt *punt = &pump->punts[(pump->punt_head + pump->n_punts++) % PUMP_PUNTS];
    punt->port = pkt->port;
    punt->time_ns = pump->now_ns;
    punt->len = pkt->len < sizeof(punt->data) ? pkt->len : (uint32_t)sizeof(punt->data);
    memcpy(punt->data, pkt_data(pkt), punt->len);
    pump->stats.punts++;
}

static void pump_dispatch(struct fwd_pump *pump, uint32_t index)
{
    const struct fwd_out *out = &pump->outs[index];

    switch ((enum fwd_verdict)out->verdict) {
    case FWD_TX_ENDPOINT:
        pump_to_tap(pump, index, out->port, FWD_DROP_ENDPOINT_GONE);
        break;
    case FWD_TX_UNDERLAY:
        pump_to_underlay(pump, index);
        break;
    case FWD_TO_STACK:
        pump_to_host(pump, index, FWD_PORT_HOST, FWD_DROP_NO_HOST_DEVICE);
        break;
    case FWD_PUNT:
        pump_punt(pump, index);
        break;
    case FWD_DROP: /* counted where it was decided */
        break;
    }
}

void pump_flush_batch(struct fwd_pump *pump)
{
    uint32_t done = 0;

    while (done < pump->n) {
        uint32_t taken = fwd_dp_run(pump->dp, pump->now_ns, pump->pkts + done, pump->n - done,
                                    pump->outs + done, pump->n - done);
        if (taken == 0)
            break;
        done += taken;
    }
    for (uint32_t i = 0; i < done; i++)
        pump_dispatch(pump, i);
    udp_flush(pump);
    pump->n = 0;
}

uint32_t pump_serve(struct fwd_pump *pump, uint32_t port)
{
    if (port != FWD_PORT_OVERLAY)
        return tap_serve(pump, port); /* nothing when the port was removed since epoll_wait */
    return pump->udp_fd >= 0 ? udp_serve(pump) : 0;
}

/* ---- the slow path ---- */

int fwd_pump_write(struct fwd_pump *pump, uint32_t port, const uint8_t *frame, uint32_t len)
{
    /* tap_write only reads the frame; the cast spares a second packet type. */
    struct fwd_pkt pkt = {.buf = (uint8_t *)(uintptr_t)frame, .size = len, .len = len};

    if (!pump_is_tap_port(port) || !pump->ports[port].open)
        return -ENODEV;
    return tap_write(pump, port, &pkt);
}

uint32_t fwd_pump_punts(struct fwd_pump *pump, struct fwd_punt *punts, uint32_t cap)
{
    uint32_t n = 0;

    while (n < cap && pump->n_punts > 0) {
        punts[n++] = pump->punts[pump->punt_head];
        pump->punt_head = (pump->punt_head + 1) % PUMP_PUNTS;
        pump->n_punts--;
    }
    return n;
}
