/* pump.h - the inside of the I/O room: one pump, its ports, its batch and its send queue.
 *
 * Included by pump.c (ports, dispatch, the exported calls), loop.c (the epoll set's events), tap.c,
 * udp.c and udp_send.c (the system calls of one kind of descriptor each), and by nobody else.
 *
 * Theory: one batch is in flight at a time. A reader fills pkts[0..n), each packet in its own buffer
 * with FWD_HEADROOM bytes before it, and runs it when it is full or the descriptor is empty; the
 * datapath changes packets in place; the dispatcher writes TAP frames at once and queues what goes
 * to peers, which leaves with one sendmmsg at the end of the batch. So buffers need no reference
 * counts and nothing is allocated after start.
 * A super-packet of a TAP crosses the datapath whole and is split while it is sent (base/gso.c): its
 * packets are laid out one behind the other, their payload copied while it is summed, so that the
 * kernel takes a train in one piece. Datagrams are merged while they are taken out of
 * the receive buffers (base/gro.c), so that the datapath sees one super-packet again (D9).
 */
#ifndef FWD_IO_PUMP_H
#define FWD_IO_PUMP_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* recvmmsg, sendmmsg, epoll_pwait2, ppoll */
#endif

#include "base/gro.h"
#include "base/gso.h"
#include "base/pkt.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    PUMP_PORTS = FWD_PORT_OVERLAY + 1, /* table of TAPs, indexed by datapath port */
    PUMP_PUNTS = 256,                  /* frames waiting for the slow path */
    PUMP_EVENTS = 64,                  /* descriptors asked for in one epoll_wait */
    PUMP_FRAME_MAX = 65568,            /* the largest IP datagram behind its Ethernet header fits */
    PUMP_TAILROOM = 128,               /* also shifts buffers off each other's cache sets */
    PUMP_BUF_SIZE = FWD_HEADROOM + PUMP_FRAME_MAX + PUMP_TAILROOM,
    PUMP_VNET_HDR_MAX = 24,            /* virtio_net_hdr_v1_hash_tunnel */
    PUMP_CONTROL_SIZE = 128,           /* IPV6_PKTINFO, SO_RXQ_OVFL and UDP_GRO */
    PUMP_RX_MSGS = 32,                 /* receive calls of one recvmmsg, UDP_GRO or not */
    PUMP_RX_MSGS_MIN = 4,
    PUMP_RX_SIZE = 65536,
    PUMP_BATCH_BYTES = 256 << 10,      /* a batch larger than the caches is no gain: read no more */
    PUMP_TX_MSGS = 128,                /* messages of one sendmmsg */
    PUMP_TX_PIECES = 4096,
    PUMP_SEGMENTS_MAX = 1024,          /* of a train: UIO_MAXIOV, an iovec each at worst */
    PUMP_TX_WIRE = 512 << 10,          /* bytes of split packets, for a batch and its headers */
    PUMP_DATAGRAM_MAX = 65507,         /* payload of one UDP datagram, and of one UDP_SEGMENT train */
    PUMP_OFFLOAD_STRIKES = 16,         /* refusals in a row that turn an offload off */
};

union pump_sockaddr {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* One port's TAP. The descriptor belongs to the caller.
 * @open: fd is valid and watched
 * @gone: on the list of devices that vanished; next_gone links it (0 ends it) */
struct pump_port {
    int fd;
    uint32_t next_gone;
    uint8_t vnet_hdr_size;
    bool open, gone;
};

/* The receive side of the socket. */
struct pump_rx {
    struct mmsghdr msgs[PUMP_RX_MSGS];
    struct iovec iov[PUMP_RX_MSGS];
    union pump_sockaddr names[PUMP_RX_MSGS];
    uint8_t control[PUMP_RX_MSGS][PUMP_CONTROL_SIZE];
    uint8_t *bufs;              /* PUMP_RX_MSGS of PUMP_RX_SIZE bytes */
    uint32_t want;              /* messages to ask for: few when they are large */
    uint32_t overflow;          /* last SO_RXQ_OVFL value: it counts since the socket's birth */
};

/* One message of the send queue: a datagram, or a train of equal ones with UDP_SEGMENT. It takes at
 * most PUMP_SEGMENTS_MAX iovecs.
 * @size: payload bytes of each but the last; @open: the last is not shorter, another may follow */
struct pump_train {
    uint32_t first_piece;
    uint16_t segments, size;
    uint32_t len;
    bool open;
};

/* The send side. pieces[i]: segment i of the queue, and which packet it belongs to. */
struct pump_tx {
    struct mmsghdr msgs[PUMP_TX_MSGS];
    union pump_sockaddr names[PUMP_TX_MSGS];
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(uint16_t))];
    } control[PUMP_TX_MSGS];
    struct pump_train trains[PUMP_TX_MSGS];
    struct iovec iov[PUMP_TX_PIECES];
    struct pump_piece {
        uint8_t *data;
        uint32_t len;
        uint8_t index;
    } pieces[PUMP_TX_PIECES];
    uint8_t wire[PUMP_TX_WIRE]; /* where packets of super-packets are laid out */
    uint32_t n_trains, n_pieces, n_wire;
    uint8_t queue[FWD_BATCH];   /* packets of the batch for peers, in order */
    uint32_t n_queue;
    bool lost[FWD_BATCH];       /* a piece of it could not be sent: it is one drop */
};

struct fwd_pump {
    struct fwd_dp *dp;
    int epoll_fd;
    int udp_fd;                 /* -1 = none */
    uint16_t udp_family;        /* AF_INET or AF_INET6 */
    uint16_t tunnel_port_be16;  /* read from the settings once a run, as is router_mac */
    uint8_t router_mac[6];      /* of cilium_host and cilium_net */
    uint32_t train_size_max;    /* larger datagrams go alone: the kernel cuts them, but no train */
    uint64_t now_ns;            /* CLOCK_BOOTTIME, read once a batch */
    bool can_linger;            /* epoll_pwait2 exists (Linux 5.11) */
    bool eager;                 /* the budget ended the last run in the midst of packets */
    uint64_t spin_ns;           /* longest busy wait for more before it sleeps; 0 = none */
    struct pump_spin {
        uint32_t misses, skips; /* chances to leave out, and left out so far */
    } spin[2];                  /* after a little work, and in bulk */
    uint32_t turn_bytes;        /* read since the last poll */

    uint32_t n_events, next_event; /* events not served yet: kept over a run's end for fairness */
    struct epoll_event events[PUMP_EVENTS];

    uint32_t offload;           /* FWD_OFFLOAD_* in use: what was asked for, less what failed */
    uint32_t segments_max;      /* of one UDP_SEGMENT train */
    uint32_t segment_strikes, uso_strikes;

    uint32_t n;                 /* packets in the batch */
    struct fwd_pkt pkts[FWD_BATCH];
    struct gro_item items[FWD_BATCH]; /* of datagrams */
    struct fwd_out outs[FWD_BATCH];
    uint8_t *bufs;              /* FWD_BATCH of PUMP_BUF_SIZE bytes */

    struct pump_rx *rx;
    struct pump_tx *tx;

    uint32_t punt_head, n_punts;
    struct fwd_punt *punts;     /* PUMP_PUNTS of them */
    uint32_t gone_head;
    struct pump_port *ports;    /* PUMP_PORTS of them */
    struct fwd_pump_stats stats;
};

/* ---- pump.c ---- */

/* pump_error: fill @err and return -1. @doing: what was tried, to which object, what to check. */
int pump_error(struct fwd_error *err, int code, const char *doing);

/* pump_reset_pkt: make pkts[@index] an empty frame of @len bytes at FWD_HEADROOM from @port. */
struct fwd_pkt *pump_reset_pkt(struct fwd_pump *pump, uint32_t index, uint32_t port, uint32_t len);

/* pump_flush_batch: pkts[0..n) through the datapath and out; n = 0 afterwards. */
void pump_flush_batch(struct fwd_pump *pump);

/* pump_serve: one batch from one descriptor. Return: packets read. */
uint32_t pump_serve(struct fwd_pump *pump, uint32_t port);

/* pump_drop: an I/O room's drop, through the datapath's counter. @out may be NULL. */
void pump_drop(struct fwd_pump *pump, enum fwd_drop reason, enum fwd_dir dir,
               const struct fwd_pkt *pkt, const struct fwd_out *out);

/* pump_port_gone: the device behind @port vanished: let go of it and remember to say so. */
void pump_port_gone(struct fwd_pump *pump, uint32_t port);

/* ---- tap.c ---- */

/* tap_serve: a batch of frames of @port through the datapath. Return: frames read. */
uint32_t tap_serve(struct fwd_pump *pump, uint32_t port);

/* tap_write: one frame behind a vnet header made from @pkt. Return: 0, or -errno. */
int tap_write(struct fwd_pump *pump, uint32_t port, const struct fwd_pkt *pkt);

/* ---- udp.c ---- */

/* udp_setup: point the receive arrays at the buffers, once. */
void udp_setup(struct fwd_pump *pump);

/* udp_serve: what one recvmmsg gives, merged, through the datapath. Return: datagrams. */
uint32_t udp_serve(struct fwd_pump *pump);

/* ---- udp_send.c ---- */

/* udp_queue: put pkts[@index] into the send queue, towards outs[@index].remote. */
void udp_queue(struct fwd_pump *pump, uint32_t index);

/* udp_flush: send the queue; each packet the kernel refuses is one drop, the rest goes on. */
void udp_flush(struct fwd_pump *pump);

#endif
