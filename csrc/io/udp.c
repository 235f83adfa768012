/* udp.c - datagrams of the tunnel port: recvmmsg in, merged while they are taken out of the buffers.
 *
 * The wire of row 9 in docs/datapath.md; udp_send.c is the other direction. The socket is bound, not
 * connected: one descriptor for all peers. IP_RECVERR stays off, so that a dead peer's ICMP errors
 * neither wake the loop nor fail the next send to somebody else. Called by pump.c.
 *
 * Theory: with UDP_GRO one message is a train of datagrams of equal length. Each is cut out and
 * either appended to the newest packet of its flow in the batch or given a buffer of its own: one
 * copy, which the merge's checksum needs anyway. So a packet always has its headroom, and the
 * datapath may grow it into an ICMP error.
 */
#include "io/pump.h"

#include <errno.h>

enum { UDP_GRO_CMSG = 104 }; /* UDP_GRO of linux/udp.h, which libc's headers lack before 2.38 */

void udp_setup(struct fwd_pump *pump)
{
    struct pump_rx *rx = pump->rx;

    rx->want = PUMP_RX_MSGS;
    for (uint32_t i = 0; i < PUMP_RX_MSGS; i++) {
        rx->iov[i].iov_base = rx->bufs + (size_t)i * PUMP_RX_SIZE;
        rx->iov[i].iov_len = PUMP_RX_SIZE;
        rx->msgs[i].msg_hdr.msg_iov = &rx->iov[i];
        rx->msgs[i].msg_hdr.msg_iovlen = 1;
    }
}

static void udp_addr_in(struct fwd_addr *addr, const union pump_sockaddr *name)
{
    if (name->any.sa_family == AF_INET)
        addr_from_v4(addr, (const uint8_t *)&name->v4.sin_addr);
    else if (name->any.sa_family == AF_INET6)
        memcpy(addr->b, &name->v6.sin6_addr, sizeof(addr->b));
}

/* Destination address, train size and overflow counter ride as control messages. @sample: where
 * outer_dst goes. Return: bytes of each datagram, 0 = there is just one. */
static uint32_t udp_read_control(struct fwd_pump *pump, struct msghdr *msg, struct fwd_pkt *sample)
{
    uint32_t size = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof(info));
            addr_from_v4(&sample->outer_dst, (const uint8_t *)&info.ipi_addr);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof(info));
            memcpy(sample->outer_dst.b, &info.ipi6_addr, sizeof(sample->outer_dst.b));
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
            uint32_t total;
            memcpy(&total, CMSG_DATA(c), sizeof(total));
            pump->stats.udp_rx_overflow += total - pump->rx->overflow; /* wraps with the kernel's */
            pump->rx->overflow = total;
        } else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO_CMSG) {
            int train;
            memcpy(&train, CMSG_DATA(c), sizeof(train));
            size = train > 0 ? (uint32_t)train : 0;
        }
    }
    return size;
}

/* ---- taking datagrams out ---- */

/* Whom @shape continues: the newest packet of its flow, from the same peer. Nothing moves past a
 * packet whose flow is not known. Return: its index, or -1. */
static int udp_find_flow(const struct fwd_pump *pump, const struct gro_item *shape,
                         const struct fwd_pkt *sample, const uint8_t *data)
{
    for (uint32_t i = pump->n; i-- > 0 && pump->items[i].kind;) {
        const struct fwd_pkt *pkt = &pump->pkts[i];
        if (gro_same_flow(&pump->items[i], pkt_data(pkt), shape, data))
            return addr_equal(&pkt->outer_src, &sample->outer_src) &&
                           addr_equal(&pkt->outer_dst, &sample->outer_dst) ? (int)i : -1;
    }
    return -1;
}

static void udp_run_batch(struct fwd_pump *pump)
{
    for (uint32_t i = 0; i < pump->n; i++)
        gro_finish(&pump->items[i], &pump->pkts[i]);
    pump_flush_batch(pump);
}

static void udp_take(struct fwd_pump *pump, const struct fwd_pkt *sample, const uint8_t *data,
                     uint32_t len)
{
    struct gro_item shape;
    uint32_t kinds = (pump->offload & FWD_OFFLOAD_MERGE_TCP ? 1u << GRO_TCP : 0) |
                     (pump->offload & FWD_OFFLOAD_MERGE_UDP ? 1u << GRO_UDP : 0);

    pump->stats.udp_rx_datagrams++;
    gro_shape(&shape, data, len, kinds);
    int found = shape.kind ? udp_find_flow(pump, &shape, sample, data) : -1;
    if (found >= 0 && gro_append(&pump->items[found], &pump->pkts[found], &shape, data, len)) {
        pump->stats.udp_rx_merged++;
        return;
    }
    if (pump->n == FWD_BATCH)
        udp_run_batch(pump);
    struct fwd_pkt *pkt = pump_reset_pkt(pump, pump->n, FWD_PORT_OVERLAY, len);
    pkt->outer_src = sample->outer_src;
    pkt->outer_dst = sample->outer_dst;
    memcpy(pkt_data(pkt), data, len);
    pump->items[pump->n++] = shape;
}

/* One message: a datagram or a train of them. Return: how many. */
static uint32_t udp_take_message(struct fwd_pump *pump, uint32_t index)
{
    struct mmsghdr *msg = &pump->rx->msgs[index];
    const uint8_t *data = pump->rx->iov[index].iov_base;
    struct fwd_pkt sample = {.buf = pump->rx->iov[index].iov_base, .size = PUMP_RX_SIZE,
                             .len = msg->msg_len, .port = FWD_PORT_OVERLAY};
    uint32_t taken = 0, at = 0;

    udp_addr_in(&sample.outer_src, &pump->rx->names[index]);
    uint32_t size = udp_read_control(pump, &msg->msg_hdr, &sample);
    if (msg->msg_hdr.msg_flags & MSG_TRUNC) {
        pump_drop(pump, FWD_DROP_INVALID_PACKET_DROPPED, FWD_DIR_INGRESS, &sample, NULL);
        return 1;
    }
    do { /* an empty datagram is a packet, too */
        uint32_t left = msg->msg_len - at;
        uint32_t len = size && size < left ? size : left;
        udp_take(pump, &sample, data + at, len);
        at += len;
        taken++;
    } while (at < msg->msg_len);
    return taken;
}

uint32_t udp_serve(struct fwd_pump *pump)
{
    struct pump_rx *rx = pump->rx;
    uint32_t taken = 0, bytes = 0;

    for (uint32_t i = 0; i < rx->want; i++) {
        struct msghdr *msg = &rx->msgs[i].msg_hdr;
        msg->msg_name = &rx->names[i];
        msg->msg_namelen = sizeof(rx->names[i]);
        msg->msg_control = rx->control[i];
        msg->msg_controllen = PUMP_CONTROL_SIZE;
    }
    /* An error here (ENOMEM, a pending ICMP error) is not a datagram: the next wake-up reads on. */
    int got = recvmmsg(pump->udp_fd, rx->msgs, rx->want, MSG_DONTWAIT, NULL);
    pump->stats.rx_syscalls++;
    if (got < 0 && errno != EAGAIN)
        pump->stats.rx_errors++;
    if (got <= 0)
        return 0;
    for (uint32_t i = 0; i < (uint32_t)got; i++) {
        bytes += rx->msgs[i].msg_len;
        taken += udp_take_message(pump, i);
    }
    udp_run_batch(pump);
    pump->stats.rx_packets += taken;
    pump->turn_bytes += bytes;
    uint32_t want = PUMP_BATCH_BYTES / (bytes / (uint32_t)got + 1);
    rx->want = want > PUMP_RX_MSGS ? PUMP_RX_MSGS : want < PUMP_RX_MSGS_MIN ? PUMP_RX_MSGS_MIN : want;
    return taken;
}
