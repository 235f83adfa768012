/* udp.c - datagrams of the tunnel port, in batches: recvmmsg in, one sendmmsg a batch out.
 *
 * The wire of row 8 and 9 in docs/datapath.md. The socket is bound, not connected: one descriptor
 * for all peers. IP_RECVERR stays off, so that a dead peer's ICMP errors neither wake the loop nor
 * fail the next send to somebody else; the outer checksum is the kernel's. Called by pump.c.
 */
#include "io/pump.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

enum {
    UDP_SEND_RETRIES = 4,        /* waits a batch may spend on a full socket buffer ... */
    UDP_SEND_WAIT_NS = 50 * 1000, /* ... of this length: together well below the loop's 1 ms */
};

void udp_setup(struct fwd_pump *pump)
{
    for (uint32_t i = 0; i < FWD_BATCH; i++) {
        pump->rx.iov[i].iov_base = pump->bufs + (size_t)i * PUMP_BUF_SIZE + FWD_HEADROOM;
        pump->rx.iov[i].iov_len = PUMP_FRAME_MAX;
        pump->rx.msgs[i].msg_hdr.msg_iov = &pump->rx.iov[i];
        pump->rx.msgs[i].msg_hdr.msg_iovlen = 1;
        pump->tx.msgs[i].msg_hdr.msg_iov = &pump->tx.iov[i];
        pump->tx.msgs[i].msg_hdr.msg_iovlen = 1;
        pump->tx.msgs[i].msg_hdr.msg_name = &pump->tx.names[i];
    }
}

static void udp_addr_in(struct fwd_addr *addr, const union pump_sockaddr *name)
{
    if (name->any.sa_family == AF_INET)
        addr_from_v4(addr, (const uint8_t *)&name->v4.sin_addr);
    else if (name->any.sa_family == AF_INET6)
        memcpy(addr->b, &name->v6.sin6_addr, sizeof(addr->b));
}

/* Destination address and overflow counter ride as control messages. */
static void udp_read_control(struct fwd_pump *pump, struct msghdr *msg, struct fwd_pkt *pkt)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof(info));
            addr_from_v4(&pkt->outer_dst, (const uint8_t *)&info.ipi_addr);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof(info));
            memcpy(pkt->outer_dst.b, &info.ipi6_addr, sizeof(pkt->outer_dst.b));
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
            uint32_t total;
            memcpy(&total, CMSG_DATA(c), sizeof(total));
            pump->stats.udp_rx_overflow += total - pump->rxq_overflow; /* wraps with the kernel's */
            pump->rxq_overflow = total;
        }
    }
}

static void udp_prepare_read(struct fwd_pump *pump)
{
    for (uint32_t i = 0; i < FWD_BATCH; i++) {
        struct msghdr *msg = &pump->rx.msgs[i].msg_hdr;
        msg->msg_name = &pump->rx.names[i];
        msg->msg_namelen = sizeof(pump->rx.names[i]);
        msg->msg_control = pump->rx_control[i];
        msg->msg_controllen = PUMP_CONTROL_SIZE;
    }
}

uint32_t udp_read(struct fwd_pump *pump, uint32_t *n)
{
    *n = 0;
    udp_prepare_read(pump);
    /* An error here (ENOMEM, a pending ICMP error) is not a datagram: the next wake-up reads on. */
    int got = recvmmsg(pump->udp_fd, pump->rx.msgs, FWD_BATCH, MSG_DONTWAIT, NULL);
    pump->stats.rx_syscalls++;
    if (got <= 0)
        return 0;

    uint32_t kept = 0;
    for (uint32_t i = 0; i < (uint32_t)got; i++) {
        struct mmsghdr *msg = &pump->rx.msgs[i];
        struct fwd_pkt *pkt = pump_reset_pkt(pump, i, FWD_PORT_OVERLAY, msg->msg_len);
        udp_addr_in(&pkt->outer_src, &pump->rx.names[i]);
        udp_read_control(pump, &msg->msg_hdr, pkt);
        if (msg->msg_hdr.msg_flags & MSG_TRUNC)
            pump_drop(pump, FWD_DROP_INVALID_PACKET_DROPPED, FWD_DIR_INGRESS, pkt, NULL);
        else
            pump->pkts[kept++] = *pkt; /* closes the gap; buffers stay with their slots */
    }
    pump->stats.rx_packets += (uint32_t)got;
    *n = kept;
    return (uint32_t)got;
}

void udp_queue(struct fwd_pump *pump, uint32_t index)
{
    const struct fwd_pkt *pkt = &pump->pkts[index];
    const struct fwd_addr *remote = &pump->outs[index].remote;
    uint32_t slot = pump->n_tx++;
    union pump_sockaddr *name = &pump->tx.names[slot];

    memset(name, 0, sizeof(*name));
    if (pump->udp_family == AF_INET6) {
        name->v6.sin6_family = AF_INET6;
        name->v6.sin6_port = pump->tunnel_port_be16;
        memcpy(&name->v6.sin6_addr, remote->b, sizeof(remote->b));
        pump->tx.msgs[slot].msg_hdr.msg_namelen = sizeof(name->v6);
    } else {
        /* An IPv6 peer on an IPv4 socket gives an address the kernel refuses: one counted drop. */
        name->v4.sin_family = addr_is_v4(remote) ? AF_INET : AF_INET6;
        name->v4.sin_port = pump->tunnel_port_be16;
        memcpy(&name->v4.sin_addr, remote->b + 12, 4);
        pump->tx.msgs[slot].msg_hdr.msg_namelen = sizeof(name->v4);
    }
    pump->tx.iov[slot].iov_base = pkt->buf + pkt->off;
    pump->tx.iov[slot].iov_len = pkt->len;
    pump->tx_index[slot] = (uint8_t)index;
}

/* A full buffer empties by itself in microseconds; a full queue (ENOBUFS) cannot be polled for,
 * the same short wait serves both. */
static void udp_wait_writable(const struct fwd_pump *pump)
{
    struct pollfd writable = {.fd = pump->udp_fd, .events = POLLOUT};
    struct timespec wait = {.tv_nsec = UDP_SEND_WAIT_NS};
    ppoll(&writable, 1, &wait, NULL);
}

void udp_flush(struct fwd_pump *pump)
{
    uint32_t done = 0, retries = 0;

    while (done < pump->n_tx) {
        int sent = sendmmsg(pump->udp_fd, pump->tx.msgs + done, pump->n_tx - done,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        pump->stats.tx_syscalls++;
        if (sent > 0) {
            pump->stats.tx_packets += (uint32_t)sent;
            done += (uint32_t)sent;
            continue;
        }
        if (errno == EINTR)
            continue;
        if ((errno == EAGAIN || errno == ENOBUFS) && retries++ < UDP_SEND_RETRIES) {
            udp_wait_writable(pump);
            continue;
        }
        /* The error belongs to the first unsent datagram alone: skip just that one. */
        uint32_t index = pump->tx_index[done++];
        pump->stats.udp_send_errors++;
        pump_drop(pump, FWD_DROP_UNDERLAY_SEND_FAILED, FWD_DIR_EGRESS, &pump->pkts[index],
                  &pump->outs[index]);
    }
    pump->n_tx = 0;
}
