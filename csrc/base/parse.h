/* parse.h - bytes to fields, the only place that knows address families and proves lengths.
 *
 * Called by the stages of both hooks (path/stage.c). After parse_l3 returned 0 every offset in
 * struct parsed lies inside the frame and inside the IP datagram.
 */
#ifndef FWD_BASE_PARSE_H
#define FWD_BASE_PARSE_H

#include "base/pkt.h"

struct parsed {
    struct fwd_addr saddr, daddr;
    uint16_t ethertype;   /* host order; 0 before parse_eth */
    uint16_t l3_off;      /* ETH_HLEN */
    uint16_t l4_off;      /* first byte behind IP options or extension headers */
    uint32_t l4_len;      /* bytes of the IP datagram from there; at least what has_l4 says */
    uint32_t l3_len;      /* length of the IP datagram, as far as it is there */
    uint16_t sport, dport; /* be16; TCP, UDP, SCTP with has_l4 */
    uint16_t icmp_id;     /* be16; echo request and reply */
    uint32_t frag_id;     /* identification as it lies: IPv4's 16 bits, IPv6's 32 */
    uint8_t family;       /* 4, 6, 0 = neither */
    uint8_t proto;        /* of the L4 header */
    uint8_t ttl;          /* or hop limit */
    uint8_t tcp_flags;
    uint8_t icmp_type, icmp_code;
    uint8_t fragment;     /* any fragment: MF set or offset != 0 */
    uint8_t later_fragment; /* offset != 0: no L4 header here */
    uint8_t has_l4;       /* the fixed L4 header is complete and its fields above are valid */
};

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16 };

/* parse_eth: EtherType of an Ethernet II frame.
 * Return: 0, or UNSUPPORTED_L2_PROTOCOL for a frame below 14 bytes or a length field. */
enum fwd_drop parse_eth(const struct fwd_pkt *pkt, struct parsed *out);

/* parse_l3: IPv4 or IPv6 by ->ethertype, then the L4 fields that fit.
 * A truncated L4 header is not an error here (conntrack says 135): has_l4 stays 0. Of a datagram
 * that is longer than its frame nothing else may be missing.
 * Return: 0, INVALID_PACKET_DROPPED, INVALID_IPV6_EXTENSION_HEADER, or UNSUPPORTED_L3_PROTOCOL
 * for other EtherTypes. */
enum fwd_drop parse_l3(const struct fwd_pkt *pkt, struct parsed *out);

/* parse_vnet: do the offload fields of @pkt say what its headers say? What a partial checksum fills
 * in must be the checksum of the transport header that policy is asked about, and not, say, the
 * address or port that it was asked about. After parse_l3 returned 0. */
bool parse_vnet(const struct fwd_pkt *pkt, const struct parsed *parsed);

#endif
