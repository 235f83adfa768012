/* parse.c - see parse.h. The first thing that touches foreign bytes; nothing behind it checks a
 * length again.
 *
 * Source: datapath reference 1.1-1.2, 1.9 and 3.3; RFC 791, RFC 8200, RFC 4302 (AH length).
 */
#include "base/parse.h"

enum { IPV4_MF = 0x2000, IPV4_OFFSET = 0x1fff };
enum { EXT_HOP_BY_HOP = 0, EXT_ROUTING = 43, EXT_FRAGMENT = 44, EXT_AH = 51, EXT_NONE = 59,
       EXT_DEST = 60, EXT_LIMIT = 4, EXT_HLEN = 8 };

enum fwd_drop parse_eth(const struct fwd_pkt *pkt, struct parsed *out)
{
    memset(out, 0, sizeof(*out));
    if (pkt->len < ETH_HLEN)
        return FWD_DROP_UNSUPPORTED_L2_PROTOCOL;
    out->ethertype = get_be16(pkt_data(pkt) + 12);
    out->l3_off = out->l4_off = ETH_HLEN;
    return out->ethertype < ETHERTYPE_MIN ? FWD_DROP_UNSUPPORTED_L2_PROTOCOL : FWD_DROP_NONE;
}

/* parse_l4: the fields of a complete fixed header; a short one leaves has_l4 at 0. */
static void parse_l4(const uint8_t *at, struct parsed *out)
{
    if (out->later_fragment)
        return;
    switch (out->proto) {
    case PROTO_TCP:
        if (out->l4_len < TCP_HLEN || (at[12] >> 4) * 4u < TCP_HLEN)
            return;
        out->tcp_flags = at[13];
        break;
    case PROTO_UDP:
    case PROTO_SCTP:
        if (out->l4_len < UDP_HLEN)
            return;
        break;
    case PROTO_ICMP:
    case PROTO_ICMPV6:
        if (out->l4_len < 8)
            return;
        out->icmp_type = at[0];
        out->icmp_code = at[1];
        out->icmp_id = load16(at + 4);
        out->has_l4 = 1;
        return;
    default:
        return;
    }
    out->sport = load16(at);
    out->dport = load16(at + 2);
    out->has_l4 = 1;
}

/* parse_cut: a datagram longer than its frame lies about its length; cut inside the L4 header it is
 * conntrack's to refuse (3.3), after the checks that come before. */
static enum fwd_drop parse_cut(const struct parsed *out)
{
    bool whole = out->has_l4 || out->later_fragment;
    return whole ? FWD_DROP_INVALID_PACKET_DROPPED : FWD_DROP_NONE;
}

static enum fwd_drop parse_ipv4(const struct fwd_pkt *pkt, struct parsed *out)
{
    const uint8_t *ip = pkt_data(pkt) + ETH_HLEN;
    uint32_t room = pkt->len - ETH_HLEN;
    if (pkt->len < ETH_HLEN + IPV4_HLEN || ip[0] >> 4 != 4)
        return FWD_DROP_INVALID_PACKET_DROPPED;
    uint32_t hlen = (ip[0] & 15) * 4u;
    uint32_t total = get_be16(ip + 2);
    uint32_t there = total < room ? total : room; /* longer frames carry Ethernet padding */
    if (hlen < IPV4_HLEN || there < hlen)
        return FWD_DROP_INVALID_PACKET_DROPPED;
    uint16_t frag = get_be16(ip + 6);
    out->family = 4;
    out->ttl = ip[8];
    out->proto = ip[9];
    out->frag_id = load16(ip + 4);
    out->fragment = (frag & (IPV4_MF | IPV4_OFFSET)) != 0;
    out->later_fragment = (frag & IPV4_OFFSET) != 0;
    out->l3_len = there;
    out->l4_off = (uint16_t)(ETH_HLEN + hlen);
    out->l4_len = there - hlen;
    addr_from_v4(&out->saddr, ip + 12);
    addr_from_v4(&out->daddr, ip + 16);
    parse_l4(ip + hlen, out);
    return total > room ? parse_cut(out) : FWD_DROP_NONE;
}

/* parse_ext: one extension header at @at with @left bytes behind it. Return: its length, 0 = bad. */
static uint32_t parse_ext(const uint8_t *at, uint32_t left, uint8_t kind, struct parsed *out)
{
    if (left < EXT_HLEN)
        return 0;
    uint32_t len = (at[1] + 1u) * 8;
    if (kind == EXT_AH)
        len = (at[1] + 2u) * 4;
    if (kind == EXT_FRAGMENT) {
        uint16_t frag = get_be16(at + 2);
        out->fragment = (frag & 0xfff9) != 0; /* offset or M; an atomic fragment is none */
        out->later_fragment = (frag & 0xfff8) != 0;
        memcpy(&out->frag_id, at + 4, sizeof(out->frag_id));
        len = EXT_HLEN;
    }
    return len <= left ? len : 0;
}

static enum fwd_drop parse_ipv6(const struct fwd_pkt *pkt, struct parsed *out)
{
    const uint8_t *ip = pkt_data(pkt) + ETH_HLEN;
    if (pkt->len < ETH_HLEN + IPV6_HLEN || ip[0] >> 4 != 6)
        return FWD_DROP_INVALID_PACKET_DROPPED;
    uint32_t total = get_be16(ip + 4) + (uint32_t)IPV6_HLEN, room = pkt->len - ETH_HLEN;
    memcpy(out->saddr.b, ip + 8, 16);
    memcpy(out->daddr.b, ip + 24, 16);
    /* Tables hold IPv4 addresses like these: on the wire they would be somebody else's. */
    if (addr_is_v4(&out->saddr) || addr_is_v4(&out->daddr))
        return FWD_DROP_INVALID_PACKET_DROPPED;
    out->family = 6;
    out->ttl = ip[7];
    out->l3_len = total < room ? total : room;
    uint8_t next = ip[6];
    uint32_t off = IPV6_HLEN, end = out->l3_len;
    for (int i = 0; !out->later_fragment; i++) {
        if (next != EXT_HOP_BY_HOP && next != EXT_ROUTING && next != EXT_FRAGMENT &&
            next != EXT_AH && next != EXT_DEST)
            break;
        uint32_t len = parse_ext(ip + off, end - off, next, out);
        if (i == EXT_LIMIT || len == 0)
            return FWD_DROP_INVALID_IPV6_EXTENSION_HEADER;
        next = ip[off];
        off += len;
    }
    if (next == EXT_NONE)
        return FWD_DROP_INVALID_IPV6_EXTENSION_HEADER;
    out->proto = next;
    out->l4_off = (uint16_t)(ETH_HLEN + off);
    out->l4_len = end - off;
    parse_l4(ip + off, out);
    return total > room ? parse_cut(out) : FWD_DROP_NONE;
}

enum fwd_drop parse_l3(const struct fwd_pkt *pkt, struct parsed *out)
{
    enum fwd_drop drop = FWD_DROP_UNSUPPORTED_L3_PROTOCOL;
    if (out->ethertype == ETHERTYPE_IPV4)
        drop = parse_ipv4(pkt, out);
    else if (out->ethertype == ETHERTYPE_IPV6)
        drop = parse_ipv6(pkt, out);
    return drop;
}

/* vnet_csum_offset: where @proto keeps its checksum; 0 = we do not know it. */
static uint16_t vnet_csum_offset(uint8_t proto)
{
    switch (proto) {
    case PROTO_TCP:
        return 16;
    case PROTO_UDP:
        return 6;
    case PROTO_ICMP:
    case PROTO_ICMPV6:
        return 2;
    default:
        return 0;
    }
}

bool parse_vnet(const struct fwd_pkt *pkt, const struct parsed *parsed)
{
    if (!(pkt->vnet_flags & FWD_VNET_NEEDS_CSUM))
        return true;
    uint16_t offset = vnet_csum_offset(parsed->proto);
    if (pkt->csum_start != parsed->l4_off)
        return false;
    if (offset ? pkt->csum_offset != offset : pkt->csum_offset < 4) /* behind what may be ports */
        return false;
    switch (pkt->gso_type) {
    case FWD_GSO_NONE:
        return true;
    case FWD_GSO_TCPV4:
        return parsed->proto == PROTO_TCP && parsed->family == 4;
    case FWD_GSO_TCPV6:
        return parsed->proto == PROTO_TCP && parsed->family == 6;
    default:
        return parsed->proto == PROTO_UDP;
    }
}
