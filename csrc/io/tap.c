/* tap.c - frames from and to TAP devices, with the virtio_net header in front (IFF_VNET_HDR).
 *
 * First and last step of a frame on this node. One read and one write a frame: the device has no
 * batch call. The header carries the partial checksum (and later the GSO fields) through the
 * datapath in struct fwd_pkt, so that TAP to TAP nothing is computed at all (D9).
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

/* Offsets come from the pod's kernel and are proven here, before anything follows them. */
static bool tap_take_header(struct fwd_pkt *pkt, const uint8_t *at)
{
    struct tap_vnet_hdr hdr;
    memcpy(&hdr, at, sizeof(hdr));
    pkt->gso_type = hdr.gso_type;
    pkt->gso_size = hdr.gso_size;
    pkt->hdr_len = hdr.hdr_len;
    if (!(hdr.flags & FWD_VNET_NEEDS_CSUM))
        return true;
    pkt->vnet_flags = FWD_VNET_NEEDS_CSUM;
    pkt->csum_start = hdr.csum_start;
    pkt->csum_offset = hdr.csum_offset;
    return (uint32_t)hdr.csum_start + hdr.csum_offset + sizeof(uint16_t) <= pkt->len;
}

uint32_t tap_read(struct fwd_pump *pump, uint32_t port, uint32_t *n)
{
    struct pump_port *tap = &pump->ports[port];
    uint32_t taken = 0, kept = 0;

    while (taken < FWD_BATCH && tap->open) {
        /* The header lands in the headroom, so that the frame itself starts at FWD_HEADROOM. */
        uint8_t *at = pump->bufs + (size_t)kept * PUMP_BUF_SIZE + FWD_HEADROOM - tap->vnet_hdr_size;
        ssize_t got = read(tap->fd, at, PUMP_FRAME_MAX + (size_t)tap->vnet_hdr_size);
        pump->stats.rx_syscalls++;
        if (got < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN && errno != ENOMEM && errno != ENOBUFS)
                pump_port_gone(pump, port); /* EBADFD: the namespace died or the link was deleted */
            break;
        }
        if (got < tap->vnet_hdr_size) { /* no TAP does that; spinning on an end of file would */
            pump_port_gone(pump, port);
            break;
        }
        taken++;
        struct fwd_pkt *pkt = pump_reset_pkt(pump, kept, port, (uint32_t)got - tap->vnet_hdr_size);
        if (tap_take_header(pkt, at))
            kept++;
        else
            pump_drop(pump, FWD_DROP_INVALID_PACKET_DROPPED, FWD_DIR_EGRESS, pkt, NULL);
    }
    pump->stats.rx_packets += taken;
    *n = kept;
    return taken;
}

int tap_write(struct fwd_pump *pump, uint32_t port, const struct fwd_pkt *pkt)
{
    uint8_t header[PUMP_VNET_HDR_MAX] = {0};
    const struct pump_port *tap = &pump->ports[port];

    /* All zero = "no checksum known": what came over the wire is verified by the pod's kernel. */
    if (pkt->vnet_flags & FWD_VNET_NEEDS_CSUM) {
        struct tap_vnet_hdr hdr = {
            .flags = FWD_VNET_NEEDS_CSUM, .gso_type = pkt->gso_type, .hdr_len = pkt->hdr_len,
            .gso_size = pkt->gso_size, .csum_start = pkt->csum_start,
            .csum_offset = pkt->csum_offset,
        };
        memcpy(header, &hdr, sizeof(hdr));
    }
    struct iovec iov[2] = {
        {.iov_base = header, .iov_len = tap->vnet_hdr_size},
        {.iov_base = pkt->buf + pkt->off, .iov_len = pkt->len},
    };
    ssize_t put;
    do {
        put = writev(tap->fd, iov, 2);
        pump->stats.tx_syscalls++;
    } while (put < 0 && errno == EINTR);
    if (put < 0) {
        int code = errno;
        pump->stats.tap_write_errors++;
        if (code == EBADFD || code == EBADF)
            pump_port_gone(pump, port);
        return -code;
    }
    pump->stats.tx_packets++;
    return 0;
}
