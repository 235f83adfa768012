/* tap.c - frames from and to TAP devices, with the virtio_net header in front (IFF_VNET_HDR).
 *
 * First and last step of a frame on this node. One read and one write a frame: the device has no
 * batch call. The header carries partial checksum and GSO fields through the datapath in struct
 * fwd_pkt, so that TAP to TAP nothing is computed at all (D9).
 * Called by pump.c. Source: linux/virtio_net.h, drivers/net/tun.c.
 */
#include "io/pump.h"

#include <errno.h>
#include <unistd.h>

/* The start of every virtio_net_hdr version, host order on a TAP without TUNSETVNETLE. */
struct tap_vnet_hdr {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset;
};

static_assert(sizeof(struct tap_vnet_hdr) == 10, "virtio_net_hdr layout");
static_assert((int)FWD_HEADROOM >= (int)PUMP_VNET_HDR_MAX,
              "the header is read into the headroom");

static bool tap_gso_type(uint8_t type)
{
    return type == FWD_GSO_TCPV4 || type == FWD_GSO_TCPV6 || type == FWD_GSO_UDP_L4;
}

/* Offsets come from the pod's kernel and are proven here, before anything follows them; whether
 * they say what the headers say is the datapath's to find out (path/dp.c). */
static bool tap_take_header(struct fwd_pkt *pkt, const uint8_t *at)
{
    struct tap_vnet_hdr hdr;
    memcpy(&hdr, at, sizeof(hdr));
    if (hdr.gso_type != FWD_GSO_NONE) {
        pkt->gso_type = hdr.gso_type;
        pkt->gso_size = hdr.gso_size;
        pkt->hdr_len = hdr.hdr_len;
        if (!tap_gso_type(hdr.gso_type) || !hdr.gso_size || !(hdr.flags & FWD_VNET_NEEDS_CSUM))
            return false;
    }
    if (!(hdr.flags & FWD_VNET_NEEDS_CSUM))
        return true;
    pkt->vnet_flags = FWD_VNET_NEEDS_CSUM;
    pkt->csum_start = hdr.csum_start;
    pkt->csum_offset = hdr.csum_offset;
    return (uint32_t)hdr.csum_start + hdr.csum_offset + sizeof(uint16_t) <= pkt->len;
}

/* One frame into the batch's next buffer; *bytes grows by its length. False: there is none. */
static bool tap_read(struct fwd_pump *pump, uint32_t port, uint32_t *bytes)
{
    struct pump_port *tap = &pump->ports[port];
    /* The header lands in the headroom, so that the frame itself starts at FWD_HEADROOM. */
    uint8_t *at = pump->bufs + (size_t)pump->n * PUMP_BUF_SIZE + FWD_HEADROOM - tap->vnet_hdr_size;
    ssize_t got;

    do {
        got = read(tap->fd, at, PUMP_FRAME_MAX + (size_t)tap->vnet_hdr_size);
        pump->stats.rx_syscalls++;
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        if (errno == EAGAIN)
            return false;
        pump->stats.rx_errors++;
        /* EINVAL: a frame that no vnet header describes, gone with this call; the device lives. */
        if (errno != EINVAL && errno != ENOMEM && errno != ENOBUFS)
            pump_port_gone(pump, port); /* EBADFD: the namespace died or the link was deleted */
        return false;
    }
    if (got < tap->vnet_hdr_size) { /* no TAP does that; spinning on an end of file would */
        pump_port_gone(pump, port);
        return false;
    }
    uint32_t len = (uint32_t)got - tap->vnet_hdr_size;
    *bytes += len;
    struct fwd_pkt *pkt = pump_reset_pkt(pump, pump->n, port, len);
    if (!tap_take_header(pkt, at)) {
        pump_drop(pump, FWD_DROP_INVALID_PACKET_DROPPED, FWD_DIR_EGRESS, pkt, NULL);
        return true;
    }
    if (pkt->gso_size) {
        pump->stats.tap_rx_super++;
        pump->stats.tap_rx_super_bytes += len;
    }
    pump->n++;
    return true;
}

uint32_t tap_serve(struct fwd_pump *pump, uint32_t port)
{
    uint32_t taken = 0, bytes = 0;

    while (taken < FWD_BATCH && bytes < PUMP_BATCH_BYTES && pump->ports[port].open &&
           tap_read(pump, port, &bytes))
        taken++;
    pump->stats.rx_packets += taken;
    pump->turn_bytes += bytes;
    if (pump->n > 0)
        pump_flush_batch(pump);
    return taken;
}

/* ---- writing ---- */

static int tap_put(struct fwd_pump *pump, uint32_t port, struct iovec *iov, int n)
{
    ssize_t put;

    do {
        put = writev(pump->ports[port].fd, iov, n);
        pump->stats.tx_syscalls++;
    } while (put < 0 && errno == EINTR);
    return put < 0 ? -errno : 0;
}

/* Of a super-packet: up to the end of the transport header. What a pod's kernel gave may be the
 * length of its whole first packet, and the device allocates as much in one piece. */
static uint16_t tap_hdr_len(const struct fwd_pkt *pkt)
{
    const uint8_t *data = pkt_data(pkt);
    if (pkt->gso_type == FWD_GSO_UDP_L4)
        return (uint16_t)(pkt->csum_start + UDP_HLEN);
    return (uint16_t)(pkt->csum_start + (data[pkt->csum_start + 12] >> 4) * 4);
}

/* The device does not take a super-packet (no USO before Linux 6.2): its packets one by one. */
static int tap_write_split(struct fwd_pump *pump, uint32_t port, const struct fwd_pkt *pkt)
{
    uint8_t header[PUMP_VNET_HDR_MAX] = {0}, head[GSO_HEAD_MAX];
    struct gso gso;
    int result = 0;

    if (!gso_open(&gso, pkt, ETH_HLEN))
        return -EINVAL;
    for (uint32_t i = 0; i < gso.segments && !result; i++) {
        uint32_t len = gso_segment(&gso, i, head, NULL);
        struct iovec iov[3] = {
            {header, pump->ports[port].vnet_hdr_size},
            {head, gso.head_len},
            {pkt_data(pkt) + gso.head_len + i * gso.size, len},
        };
        result = tap_put(pump, port, iov, 3);
    }
    pump->stats.tap_split++;
    return result;
}

static int tap_write_super(struct fwd_pump *pump, uint32_t port, const struct fwd_pkt *pkt,
                           struct iovec *iov)
{
    bool uso = pkt->gso_type == FWD_GSO_UDP_L4;
    int result = tap_put(pump, port, iov, 2);

    if (result == 0) {
        pump->stats.tap_tx_super++;
        pump->stats.tap_tx_super_bytes += pkt->len;
        if (uso)
            pump->uso_strikes = 0;
    } else if (result == -EINVAL) {
        /* Merged by us and refused time and again: the kernel has no USO for TAPs. */
        if (uso && pkt->port == FWD_PORT_OVERLAY) {
            pump->stats.tap_uso_refused++;
            if (++pump->uso_strikes >= PUMP_OFFLOAD_STRIKES)
                pump->offload &= ~(uint32_t)FWD_OFFLOAD_MERGE_UDP;
        }
        result = tap_write_split(pump, port, pkt);
    }
    return result;
}

int tap_write(struct fwd_pump *pump, uint32_t port, const struct fwd_pkt *pkt)
{
    uint8_t header[PUMP_VNET_HDR_MAX] = {0};
    struct iovec iov[2] = {{header, pump->ports[port].vnet_hdr_size}, {pkt_data(pkt), pkt->len}};

    /* All zero = "no checksum known": what came over the wire is verified by the pod's kernel. */
    if (pkt->vnet_flags & FWD_VNET_NEEDS_CSUM) {
        struct tap_vnet_hdr hdr = {
            .flags = FWD_VNET_NEEDS_CSUM, .gso_type = pkt->gso_type, .gso_size = pkt->gso_size,
            .hdr_len = pkt->gso_size ? tap_hdr_len(pkt) : 0, .csum_start = pkt->csum_start,
            .csum_offset = pkt->csum_offset,
        };
        memcpy(header, &hdr, sizeof(hdr));
    }
    int result = pkt->gso_size ? tap_write_super(pump, port, pkt, iov)
                               : tap_put(pump, port, iov, 2);
    if (result < 0) {
        pump->stats.tap_write_errors++;
        if (result == -EBADFD || result == -EBADF)
            pump_port_gone(pump, port);
        return result;
    }
    pump->stats.tx_packets++;
    return 0;
}
