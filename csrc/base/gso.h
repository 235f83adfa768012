/* gso.h - a super-packet into its wire packets (D9): one header each, and the payload's checksum.
 *
 * Called by the I/O room for what leaves through the tunnel; tests/models/gso.py is the slow twin.
 * Source: the kernel's tcp_gso_segment and __udp_gso_segment, performance reference A.4.
 */
#ifndef FWD_BASE_GSO_H
#define FWD_BASE_GSO_H

#include "base/pkt.h"

enum {
    GSO_HEAD_MAX = 192,      /* tunnel, Ethernet, IPv6 with room for extensions, TCP with options */
    GSO_SEGMENTS_MAX = 2048, /* above 65,535 bytes at the smallest MSS Linux speaks (48) */
};

/* One super-packet, opened for reading.
 * @head: what every segment begins with, @head_len bytes: from the frame's first byte (the VXLAN
 *        header, when it has one) to the end of the transport header
 * @payload: @payload_len bytes of which each segment takes @size
 * @ip_sum, @l4_sum: sums of the headers without what differs from segment to segment; the
 *        pseudo-header is in l4_sum, but for its length */
struct gso {
    const uint8_t *head, *payload;
    uint64_t ip_sum, l4_sum;
    uint32_t head_len, payload_len, segments;
    uint16_t l3_off, l4_off, size;
    bool tcp;
};

/* gso_open: prove @pkt's gso fields against its bytes. @l3_off: of the IP header from the frame's
 * first byte. False: they contradict each other, or it would make too many segments. */
bool gso_open(struct gso *gso, const struct fwd_pkt *pkt, uint32_t l3_off);

/* gso_segment: write the header of segment @index to @head (head_len bytes), its checksums
 * complete. @payload: where its payload, which begins at payload + index * size, is copied to
 * while it is summed; NULL: it stays. Return: payload bytes of the segment. */
uint32_t gso_segment(const struct gso *gso, uint32_t index, uint8_t *head, uint8_t *payload);

#endif
