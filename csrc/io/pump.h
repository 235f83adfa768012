/* pump.h - the inside of the I/O room: one pump, its ports, its batch and its send queue.
 *
 * Included by pump.c (epoll set, dispatch, the exported calls), tap.c and udp.c (the system calls
 * of one kind of descriptor each). Nothing outside csrc/io includes it.
 *
 * Theory: one batch is in flight at a time. A reader fills pkts[0..n) from one descriptor, each
 * frame in its own buffer with FWD_HEADROOM bytes before it; the datapath changes them in place;
 * the dispatcher writes TAP frames at once and queues datagrams, which leave with one sendmmsg at
 * the end of the batch. So buffers need no reference counts and nothing is allocated after start.
 * Buffers hold a 64 KB super-packet although no TAP delivers one yet (D9).
 */
#ifndef FWD_IO_PUMP_H
#define FWD_IO_PUMP_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* recvmmsg, sendmmsg, epoll_pwait2, ppoll */
#endif

#include "base/pkt.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    PUMP_PORTS = FWD_PORT_OVERLAY + 1, /* table of TAPs, indexed by datapath port */
    PUMP_PUNTS = 256,                  /* frames waiting for the slow path */
    PUMP_EVENTS = 64,                  /* descriptors asked for in one epoll_wait */
    PUMP_FRAME_MAX = 65536,            /* largest IP datagram and its Ethernet header fit */
    PUMP_TAILROOM = 128,               /* also shifts buffers off each other's cache sets */
    PUMP_BUF_SIZE = FWD_HEADROOM + PUMP_FRAME_MAX + PUMP_TAILROOM,
    PUMP_VNET_HDR_MAX = 24,            /* virtio_net_hdr_v1_hash_tunnel */
    PUMP_CONTROL_SIZE = 128,           /* IPV6_PKTINFO and SO_RXQ_OVFL, with room for UDP_GRO */
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

/* Scatter arrays of one direction of the socket; slot i of a receive is pkts[i]. */
struct pump_ring {
    struct mmsghdr msgs[FWD_BATCH];
    struct iovec iov[FWD_BATCH];
    union pump_sockaddr names[FWD_BATCH];
};

struct fwd_pump {
    struct fwd_dp *dp;
    int epoll_fd;
    int udp_fd;                 /* -1 = none */
    uint16_t udp_family;        /* AF_INET or AF_INET6 */
    uint16_t tunnel_port_be16;  /* read from the settings once a run */
    uint64_t now_ns;            /* CLOCK_BOOTTIME, read once a batch */
    bool can_linger;            /* epoll_pwait2 exists (Linux 5.11) */

    uint32_t n_events, next_event; /* events not served yet: kept over a run's end for fairness */
    struct epoll_event events[PUMP_EVENTS];

    struct fwd_pkt pkts[FWD_BATCH];
    struct fwd_out outs[FWD_BATCH];
    uint8_t *bufs;              /* FWD_BATCH of PUMP_BUF_SIZE bytes */

    struct pump_ring rx;
    uint8_t rx_control[FWD_BATCH][PUMP_CONTROL_SIZE];
    struct pump_ring tx;
    uint8_t tx_index[FWD_BATCH]; /* queued datagram -> its packet, for the drop report */
    uint32_t n_tx;
    uint32_t rxq_overflow;      /* last SO_RXQ_OVFL value: it counts since the socket's birth */

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

/* pump_drop: an I/O room's drop, through the datapath's counter. @out may be NULL. */
void pump_drop(struct fwd_pump *pump, enum fwd_drop reason, enum fwd_dir dir,
               const struct fwd_pkt *pkt, const struct fwd_out *out);

/* pump_port_gone: the device behind @port vanished: let go of it and remember to say so. */
void pump_port_gone(struct fwd_pump *pump, uint32_t port);

/* ---- tap.c ---- */

/* tap_read: up to FWD_BATCH frames of @port into the batch. Return: frames read from the device;
 * *n is how many of them are fit for the datapath. */
uint32_t tap_read(struct fwd_pump *pump, uint32_t port, uint32_t *n);

/* tap_write: one frame behind a vnet header made from @pkt. Return: 0, or -errno. */
int tap_write(struct fwd_pump *pump, uint32_t port, const struct fwd_pkt *pkt);

/* ---- udp.c ---- */

/* udp_setup: point the scatter arrays at the buffers, once. */
void udp_setup(struct fwd_pump *pump);

/* udp_read: up to FWD_BATCH datagrams into the batch, as tap_read. */
uint32_t udp_read(struct fwd_pump *pump, uint32_t *n);

/* udp_queue: put pkts[@index] into the send queue, towards outs[@index].remote. */
void udp_queue(struct fwd_pump *pump, uint32_t index);

/* udp_flush: send the queue; each datagram the kernel refuses is one drop, the rest goes on. */
void udp_flush(struct fwd_pump *pump);

#endif
