/* gro.h - wire packets that follow each other in one flow become one super-packet (D9).
 *
 * The reverse of gso.h: what gso.c makes of a merged packet are the packets it was made from, bit
 * for bit (but the IPv4 id of atomic datagrams, RFC 6864, when their sender left it constant).
 * Called by the I/O room for datagrams of the tunnel. Judged by its split, so tests/models/gso.py is
 * the slow twin of both.
 * Source: the kernel's tcp_gro_receive and udp_gro_receive, performance reference A.4.
 */
#ifndef FWD_BASE_GRO_H
#define FWD_BASE_GRO_H

#include "base/pkt.h"

enum {
    GRO_UDP_SEGMENTS_MAX = 64,  /* what every kernel with USO takes in one frame */
    GRO_L3_LEN_MAX = 65535,     /* of the merged datagram */
};

enum gro_kind { GRO_NONE = 0, GRO_TCP = 1, GRO_UDP = 2 };

/* The shape of a wire packet, and what one of the batch can still take in: beside each fwd_pkt, at
 * the same index.
 * @kind: GRO_NONE = nothing we would merge, and nothing may move past it
 * @open: more may be appended; of a flow, only the newest item is ever asked
 * @checked: its own checksum was found right */
struct gro_item {
    uint8_t kind;
    bool open, checked, v4;
    uint16_t l3_off, l4_off, head_len; /* from the frame's first byte */
    uint16_t size;              /* payload bytes of each segment but the last */
    uint16_t count;             /* segments in it */
    uint16_t next_id, id_step;  /* IPv4: id of the next segment; a step of 0 only with DF */
    uint32_t next_seq;
    uint32_t flow;              /* of addresses and ports: a quick no */
};

/* gro_shape: look at a wire packet: VXLAN header, Ethernet, IP, TCP or UDP. @kinds: bits
 * 1 << GRO_TCP, 1 << GRO_UDP: what may be merged at all. */
void gro_shape(struct gro_item *item, const uint8_t *data, uint32_t len, uint32_t kinds);

/* gro_same_flow: the same addresses and ports? Both have a kind. */
bool gro_same_flow(const struct gro_item *a, const uint8_t *a_data, const struct gro_item *b,
                   const uint8_t *b_data);

/* gro_append: does the wire packet @data of @len bytes continue @item, a packet of the same flow?
 * Then its payload stands behind that of @pkt now. False: it must stand for itself. */
bool gro_append(struct gro_item *item, struct fwd_pkt *pkt, const struct gro_item *incoming,
                const uint8_t *data, uint32_t len);

/* gro_finish: make a super-packet of what took others in: lengths, partial checksum, gso fields. */
void gro_finish(const struct gro_item *item, struct fwd_pkt *pkt);

#endif
