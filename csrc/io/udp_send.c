/* udp_send.c - packets to peers, in batches: one sendmmsg for what a batch sends.
 *
 * The wire of row 8 in docs/datapath.md. Each message of the sendmmsg is a train: equal datagrams to
 * one peer, which the kernel carries as one until the device (UDP_SEGMENT). Super-packets are cut
 * here and laid out as they will be on the wire: a train of them is one piece of memory, which the
 * kernel takes faster than a list of headers and payloads, by more than the copy costs. Small packets
 * of one length that follow each other to one peer ride together as well. Within a peer nothing is
 * reordered.
 * The outer checksum is the kernel's. Source: performance reference A.1, A.4.
 */
#include "base/vxlan.h"
#include "io/pump.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

enum {
    UDP_SEGMENT_CMSG = 103,      /* UDP_SEGMENT of linux/udp.h */
    UDP_SEND_RETRIES = 4,        /* waits a batch may spend on a full socket buffer ... */
    UDP_SEND_WAIT_NS = 50 * 1000, /* ... of this length: together well below the loop's 2 ms */
    UDP_L3_OFF = VXLAN_HLEN + ETH_HLEN, /* of the inner IP header */
};

/* ---- trains ---- */

static socklen_t udp_name(const struct fwd_pump *pump, union pump_sockaddr *name,
                          const struct fwd_addr *remote)
{
    memset(name, 0, sizeof(*name));
    if (pump->udp_family == AF_INET6) {
        name->v6.sin6_family = AF_INET6;
        name->v6.sin6_port = pump->tunnel_port_be16;
        memcpy(&name->v6.sin6_addr, remote->b, sizeof(remote->b));
        return sizeof(name->v6);
    }
    /* An IPv6 peer on an IPv4 socket gives an address the kernel refuses: one counted drop. */
    name->v4.sin_family = addr_is_v4(remote) ? AF_INET : AF_INET6;
    name->v4.sin_port = pump->tunnel_port_be16;
    memcpy(&name->v4.sin_addr, remote->b + 12, 4);
    return sizeof(name->v4);
}

static void udp_send_all(struct fwd_pump *pump);

/* Room for one more datagram, @len bytes of it laid out here. */
static void udp_make_room(struct fwd_pump *pump, uint32_t len)
{
    const struct pump_tx *tx = pump->tx;

    if (tx->n_trains == PUMP_TX_MSGS || tx->n_pieces == PUMP_TX_PIECES ||
        tx->n_wire + len > PUMP_TX_WIRE)
        udp_send_all(pump);
}

/* Does another segment of @len bytes fit the newest train? It ends when a shorter one is in. */
static bool udp_fits(const struct fwd_pump *pump, const struct pump_train *train, uint32_t len)
{
    return train->open && len <= train->size && train->segments < pump->segments_max &&
           train->len + len <= PUMP_DATAGRAM_MAX &&
           pump->offload & FWD_OFFLOAD_UDP_SEGMENT;
}

static struct pump_train *udp_new_train(struct fwd_pump *pump, const struct fwd_addr *remote,
                                        uint32_t len)
{
    struct pump_tx *tx = pump->tx;
    struct msghdr *msg = &tx->msgs[tx->n_trains].msg_hdr;
    struct pump_train *train = &tx->trains[tx->n_trains];

    msg->msg_name = &tx->names[tx->n_trains];
    msg->msg_namelen = udp_name(pump, msg->msg_name, remote);
    *train = (struct pump_train){.first_piece = tx->n_pieces, .size = (uint16_t)len,
                                 .open = len <= pump->train_size_max};
    tx->n_trains++;
    return train;
}

/* udp_segment: one datagram of pkts[@index] behind what its peer was sent last. @fresh: the peer's
 * first. @data must stay until udp_send_all. */
static void udp_segment(struct fwd_pump *pump, uint32_t index, bool fresh, uint8_t *data,
                        uint32_t len)
{
    struct pump_tx *tx = pump->tx;
    struct pump_train *train = tx->n_trains ? &tx->trains[tx->n_trains - 1] : NULL;

    if (fresh || !train || !udp_fits(pump, train, len))
        train = udp_new_train(pump, &pump->outs[index].remote, len);
    tx->pieces[tx->n_pieces++] = (struct pump_piece){data, len, (uint8_t)index};
    train->segments++;
    train->len += len;
    train->open = train->open && len == train->size;
}

static void udp_split(struct fwd_pump *pump, uint32_t index, bool fresh)
{
    struct pump_tx *tx = pump->tx;
    struct gso gso;

    if (!gso_open(&gso, &pump->pkts[index], UDP_L3_OFF)) {
        pump_drop(pump, FWD_DROP_INVALID_PACKET_DROPPED, FWD_DIR_EGRESS, &pump->pkts[index],
                  &pump->outs[index]);
        return;
    }
    for (uint32_t i = 0; i < gso.segments; i++) {
        udp_make_room(pump, gso.head_len + gso.size);
        uint8_t *data = tx->wire + tx->n_wire;
        uint32_t len = gso.head_len + gso_segment(&gso, i, data, data + gso.head_len);
        tx->n_wire += len;
        udp_segment(pump, index, fresh, data, len);
        fresh = false;
    }
}

static void udp_add(struct fwd_pump *pump, uint32_t index, bool fresh)
{
    struct fwd_pkt *pkt = &pump->pkts[index];

    if (pkt->gso_size) {
        udp_split(pump, index, fresh);
        return;
    }
    udp_make_room(pump, 0);
    udp_segment(pump, index, fresh, pkt_data(pkt), pkt->len);
}

/* ---- sending ---- */

/* A full buffer empties by itself in microseconds; a full queue (ENOBUFS) cannot be polled for,
 * the same short wait serves both. False: it was waited for often enough. */
static bool udp_wait_writable(const struct fwd_pump *pump, uint32_t *retries)
{
    struct pollfd writable = {.fd = pump->udp_fd, .events = POLLOUT};
    struct timespec wait = {.tv_nsec = UDP_SEND_WAIT_NS};

    if ((errno != EAGAIN && errno != ENOBUFS) || (*retries)++ >= UDP_SEND_RETRIES)
        return false;
    ppoll(&writable, 1, &wait, NULL);
    return true;
}

/* The kernel refused a datagram of pkts[@index] for good. */
static void udp_lost(struct fwd_pump *pump, uint32_t index)
{
    pump->stats.udp_send_errors++;
    if (!pump->tx->lost[index])
        pump_drop(pump, FWD_DROP_UNDERLAY_SEND_FAILED, FWD_DIR_EGRESS, &pump->pkts[index],
                  &pump->outs[index]);
    pump->tx->lost[index] = true;
}

/* udp_send_singly: the datagrams of a train one by one. Return: how many the kernel took. */
static uint32_t udp_send_singly(struct fwd_pump *pump, uint32_t at, uint32_t *retries)
{
    struct pump_tx *tx = pump->tx;
    const struct pump_train *train = &tx->trains[at];
    struct iovec iov;
    struct msghdr msg = {.msg_name = &tx->names[at], .msg_iov = &iov, .msg_iovlen = 1,
                         .msg_namelen = tx->msgs[at].msg_hdr.msg_namelen};
    uint32_t taken = 0;

    for (uint32_t i = 0; i < train->segments; i++) {
        const struct pump_piece *piece = &tx->pieces[train->first_piece + i];
        ssize_t put;
        iov = (struct iovec){piece->data, piece->len};
        do {
            put = sendmsg(pump->udp_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
            pump->stats.tx_syscalls++;
        } while (put < 0 && (errno == EINTR || udp_wait_writable(pump, retries)));
        if (put < 0)
            udp_lost(pump, piece->index);
        taken += put >= 0;
    }
    return taken;
}

/* udp_refused: the kernel did not take a train. EIO: the device cannot finish the checksums, which
 * will not change; otherwise the train is at fault when its datagrams go one by one. */
static void udp_refused(struct fwd_pump *pump, uint32_t at, uint32_t *retries)
{
    bool train = pump->tx->trains[at].segments > 1;
    bool hopeless = errno == EIO;
    bool suspect = hopeless || errno == EINVAL || errno == EMSGSIZE;

    if (!train || !suspect) {
        for (uint32_t i = 0; i < pump->tx->trains[at].segments; i++)
            udp_lost(pump, pump->tx->pieces[pump->tx->trains[at].first_piece + i].index);
        return;
    }
    pump->stats.udp_segment_refused++;
    uint32_t taken = udp_send_singly(pump, at, retries);
    pump->stats.tx_packets += taken;
    pump->stats.udp_tx_datagrams += taken;
    if (taken && (hopeless || ++pump->segment_strikes >= PUMP_OFFLOAD_STRIKES))
        pump->offload &= ~(uint32_t)FWD_OFFLOAD_UDP_SEGMENT;
}

/* udp_gather: the iovecs of one train, those that lie behind each other as one. Return: how many. */
static uint32_t udp_gather(const struct pump_piece *piece, uint32_t segments, struct iovec *iov)
{
    uint32_t n = 0;

    for (; segments > 0; segments--, piece++) {
        if (n && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == piece->data)
            iov[n - 1].iov_len += piece->len;
        else
            iov[n++] = (struct iovec){piece->data, piece->len};
    }
    return n;
}

/* udp_seal: bytes and train size of every message of the queue. */
static void udp_seal(struct pump_tx *tx)
{
    for (uint32_t i = 0; i < tx->n_trains; i++) {
        struct msghdr *msg = &tx->msgs[i].msg_hdr;
        const struct pump_train *train = &tx->trains[i];
        msg->msg_iov = &tx->iov[train->first_piece];
        msg->msg_iovlen = udp_gather(&tx->pieces[train->first_piece], train->segments, msg->msg_iov);
        msg->msg_control = NULL;
        msg->msg_controllen = 0;
        if (train->segments < 2)
            continue;
        msg->msg_control = &tx->control[i];
        msg->msg_controllen = sizeof(tx->control[i].bytes);
        struct cmsghdr *c = &tx->control[i].align;
        *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(uint16_t)), .cmsg_level = IPPROTO_UDP,
                              .cmsg_type = UDP_SEGMENT_CMSG};
        memcpy(CMSG_DATA(c), &train->size, sizeof(train->size));
    }
}

static void udp_count(struct fwd_pump *pump, const struct pump_train *train, uint32_t n)
{
    for (; n > 0; n--, train++) {
        pump->stats.tx_packets += train->segments;
        pump->stats.udp_tx_datagrams += train->segments;
        if (train->segments < 2)
            continue;
        pump->stats.udp_tx_trains++;
        pump->stats.udp_tx_train_datagrams += train->segments;
        pump->segment_strikes = 0;
    }
}

static void udp_send_all(struct fwd_pump *pump)
{
    struct pump_tx *tx = pump->tx;
    uint32_t done = 0, retries = 0;

    udp_seal(tx);
    while (done < tx->n_trains) {
        int sent = sendmmsg(pump->udp_fd, tx->msgs + done, tx->n_trains - done,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        pump->stats.tx_syscalls++;
        if (sent > 0) {
            udp_count(pump, &tx->trains[done], (uint32_t)sent);
            done += (uint32_t)sent;
        } else if (errno != EINTR && !udp_wait_writable(pump, &retries)) {
            udp_refused(pump, done++, &retries); /* the error is the first unsent message's alone */
        }
    }
    tx->n_trains = tx->n_pieces = tx->n_wire = 0;
}

void udp_queue(struct fwd_pump *pump, uint32_t index)
{
    pump->tx->queue[pump->tx->n_queue++] = (uint8_t)index;
    pump->tx->lost[index] = false;
}

void udp_flush(struct fwd_pump *pump)
{
    struct pump_tx *tx = pump->tx;

    /* Peer by peer, so that what goes to one stands together whatever came in between. */
    for (uint32_t first = 0; first < tx->n_queue; first++) {
        uint8_t lead = tx->queue[first];
        if (lead == FWD_BATCH) /* went with an earlier one */
            continue;
        bool fresh = true;
        for (uint32_t i = first; i < tx->n_queue; i++) {
            uint8_t index = tx->queue[i];
            if (index == FWD_BATCH ||
                !addr_equal(&pump->outs[index].remote, &pump->outs[lead].remote))
                continue;
            udp_add(pump, index, fresh);
            fresh = false;
            tx->queue[i] = FWD_BATCH;
        }
    }
    if (tx->n_trains)
        udp_send_all(pump);
    tx->n_queue = 0;
}
