/* icmp_error.c - errors to the sender of a packet that cannot go on, and neighbour discovery of pods.
 *
 * Called by the hooks in place of path_drop where a sender may be told (path_refuse), by egress.c
 * and north_south.c (stage_mtu), and by egress.c (path_nd).
 * Source: datapath reference 1.9, 4.6, 6.2, 7.1, 7.5; RFC 792, 1812 section 4.3.2, 4443, 4861.
 *
 * Theory of answers: one packet in, one verdict. The error takes the packet's place in its buffer:
 * its headers go into the headroom before the IP header it quotes, so nothing is moved. The packet
 * counts as sent and `drop` of its outcome says why it came back. A denied TCP packet is reset.
 */
#include "base/checksum.h"
#include "base/vxlan.h"
#include "path/path.h"

/* ICMP header, types of both families, lengths of our errors. */
enum { ERROR_HLEN = 8, ERROR4_UNREACHABLE = 3, ERROR4_TTL = 11, ERROR6_UNREACHABLE = 1,
       ERROR6_TOO_BIG = 2, ERROR6_TTL = 3, ERROR6_END = 128 };
enum { ERROR_HOPS = 64, ERROR_IPV4_LEN = 576, ERROR_IPV6_LEN = 1280, ERROR_IPV4_DF = 0x40 };
enum { ND_ADVERT_ROUTER = 134, ND_SOLICIT = 135, ND_REDIRECT = 137, ND_TARGET_END = 24 };

/* ---- errors about a packet we cannot pass on ---- */

struct error_kind {
    uint8_t type, code;
    uint8_t metric;             /* enum fwd_metric it counts under */
    bool reset;                 /* a TCP reset instead, from the packet's destination */
    uint16_t mtu;
    const struct fwd_addr *from;
};

/* error_kind: which error @drop asks for. False: none, the packet dies in silence. */
static bool error_kind(const struct path *p, enum fwd_drop drop, struct error_kind *kind)
{
    const struct fwd_settings *settings = p->settings;
    bool v4 = p->parsed.family == 4;
    kind->from = v4 ? &settings->router_ip4 : &settings->router_ip6;
    kind->type = v4 ? ERROR4_UNREACHABLE : ERROR6_UNREACHABLE;
    switch (drop) {
    case FWD_DROP_TTL_EXCEEDED:
        kind->type = v4 ? ERROR4_TTL : ERROR6_TTL;
        kind->code = 0;
        kind->metric = FWD_METRIC_ANSWERED_TTL;
        return !v4 || settings->ttl_exceeded_reply;
    case FWD_DROP_FRAGMENTATION_NEEDED:
        kind->type = v4 ? ERROR4_UNREACHABLE : ERROR6_TOO_BIG;
        kind->code = v4 ? 4 : 0;
        kind->mtu = settings->tunnel_mtu;
        kind->metric = FWD_METRIC_ANSWERED_TOO_BIG;
        return true;
    case FWD_DROP_SERVICE_BACKEND_NOT_FOUND:
        kind->code = v4 ? 3 : 4;
        kind->metric = FWD_METRIC_ANSWERED_NO_BACKEND;
        kind->from = &p->parsed.daddr; /* the service itself says that nobody is in */
        return settings->reject_no_backend;
    case FWD_DROP_POLICY_DENIED:
    case FWD_DROP_POLICY_DENY:
        kind->code = v4 ? 13 : 1;
        kind->metric = FWD_METRIC_ANSWERED_DENIED;
        kind->reset = p->parsed.proto == PROTO_TCP && p->parsed.has_l4;
        if (kind->reset)
            kind->from = &p->parsed.daddr;
        return settings->reject_deny && p->dir == FWD_DIR_EGRESS;
    default:
        return false;
    }
}

static bool error_group_addr(const struct fwd_addr *addr)
{
    return addr_is_v4(addr) ? addr->b[12] >= 224 : addr->b[0] == 0xff;
}

/* error_about: may an error be sent about this packet at all (RFC 1122 3.2.2, RFC 4443 2.4)? */
static bool error_about(const struct path *p)
{
    const struct parsed *parsed = &p->parsed;
    const struct fwd_addr *to = &parsed->saddr;
    bool nobody = addr_is_v4(to) ? to->b[12] == 0 || to->b[12] == 127 : addr_is_zero(to);
    if (parsed->later_fragment || pkt_data(p->pkt)[0] & 1 || nobody || error_group_addr(to) ||
        error_group_addr(&parsed->daddr))
        return false;
    if (parsed->proto == PROTO_TCP && parsed->tcp_flags & TCP_RST)
        return false;
    uint8_t type = parsed->icmp_type;
    if (parsed->family == 4 && parsed->proto == PROTO_ICMP)
        return parsed->has_l4 && (type == 8 || type == 0 || type >= 13);
    if (parsed->family == 6 && parsed->proto == PROTO_ICMPV6)
        return parsed->has_l4 && type >= ERROR6_END && type != ND_REDIRECT;
    return true;
}

/* error_quote_len: how much of the packet the error carries. IPv4: what fits 576 bytes. IPv6: up to
 * the ports and what TCP needs beside them (datapath reference 7.1). */
static uint32_t error_quote_len(const struct parsed *parsed)
{
    uint32_t len = parsed->l3_len, most = ERROR_IPV4_LEN - IPV4_HLEN - ERROR_HLEN;
    if (parsed->family == 6) {
        uint32_t l4_len = parsed->proto == PROTO_TCP ? TCP_HLEN : 8;
        most = parsed->l4_off - (uint32_t)ETH_HLEN + l4_len;
        if (most > ERROR_IPV6_LEN - IPV6_HLEN - ERROR_HLEN)
            most = ERROR_IPV6_LEN - IPV6_HLEN - ERROR_HLEN;
    }
    return len < most ? len : most;
}

/* error_icmp: type, code, MTU and checksum before @quote_len quoted bytes. */
static void error_icmp(uint8_t *icmp, const struct error_kind *kind, uint32_t quote_len,
                       uint64_t pseudo)
{
    memset(icmp, 0, ERROR_HLEN);
    icmp[0] = kind->type;
    icmp[1] = kind->code;
    put_be16(icmp + 6, kind->mtu); /* the low half of ICMPv6's 32 bits, too */
    store16(icmp + 2, csum_fold(csum_partial(icmp, ERROR_HLEN + quote_len, pseudo)));
}

/* error_ip: an IP header before @len bytes of @proto. Its family is the packet's, whatever address
 * the settings give as the router's. Return: where those bytes go. */
static uint8_t *error_ip(uint8_t *ip, bool v4, const struct fwd_addr *from,
                         const struct fwd_addr *to, uint8_t proto, uint32_t len)
{
    memset(ip, 0, 8);
    ip[0] = v4 ? 0x45 : 0x60;
    if (!v4) {
        put_be16(ip + 4, (uint16_t)len);
        ip[6] = proto;
        ip[7] = ERROR_HOPS;
        memcpy(ip + 8, from->b, 16);
        memcpy(ip + 24, to->b, 16);
        return ip + IPV6_HLEN;
    }
    put_be16(ip + 2, (uint16_t)(IPV4_HLEN + len));
    ip[8] = ERROR_HOPS;
    ip[9] = proto;
    store16(ip + 10, 0);
    memcpy(ip + 12, from->b + 12, 4);
    memcpy(ip + 16, to->b + 12, 4);
    store16(ip + 10, csum_fold(csum_partial(ip, IPV4_HLEN, 0)));
    return ip + IPV4_HLEN;
}

/* error_frame: MACs swapped and @before bytes of room made; the frame will have @len behind them.
 * Return: where its IP header goes, NULL without headroom. */
static uint8_t *error_frame(struct path *p, uint32_t before, uint32_t len)
{
    uint8_t macs[2 * ETH_ALEN];
    memcpy(macs, pkt_data(p->pkt), sizeof(macs));
    uint8_t *frame = pkt_push(p->pkt, before);
    if (!frame)
        return NULL;
    memcpy(frame, macs + ETH_ALEN, ETH_ALEN);
    memcpy(frame + ETH_ALEN, macs, ETH_ALEN);
    put_be16(frame + 2 * ETH_ALEN, p->parsed.ethertype);
    p->pkt->len = ETH_HLEN + len;
    p->pkt->vnet_flags = p->pkt->gso_type = 0; /* an ordinary frame, its checksums complete */
    p->pkt->gso_size = p->pkt->hdr_len = 0;
    return frame + ETH_HLEN;
}

/* error_build: put the error where the packet is. */
static void error_build(struct path *p, const struct error_kind *kind)
{
    bool v4 = p->parsed.family == 4;
    uint32_t ip_hlen = v4 ? IPV4_HLEN : IPV6_HLEN, quote_len = error_quote_len(&p->parsed);
    uint32_t len = ERROR_HLEN + quote_len, proto = v4 ? PROTO_ICMP : PROTO_ICMPV6;
    const struct fwd_addr from = *kind->from, to = p->parsed.saddr;
    uint8_t *ip = error_frame(p, ip_hlen + ERROR_HLEN, ip_hlen + len);
    if (ip) /* always: path_refuse saw the room */
        error_icmp(error_ip(ip, v4, &from, &to, (uint8_t)proto, len), kind, quote_len,
                   v4 ? 0 : csum_pseudo(&from, &to, PROTO_ICMPV6, len));
}

/* error_reset: a TCP reset as the other end would send it (RFC 9293 3.10.7.1). */
static void error_reset(struct path *p)
{
    const struct parsed *parsed = &p->parsed;
    const uint8_t *tcp = pkt_data(p->pkt) + parsed->l4_off;
    uint32_t hlen = (tcp[12] >> 4) * 4u;
    uint32_t data_len = parsed->l4_len > hlen ? parsed->l4_len - hlen : 0;
    uint8_t reset[TCP_HLEN] = {[12] = TCP_HLEN / 4 << 4, [13] = TCP_RST};
    store16(reset, parsed->dport);
    store16(reset + 2, parsed->sport);
    if (parsed->tcp_flags & TCP_ACK) {
        memcpy(reset + 4, tcp + 8, 4);
    } else {
        uint32_t next = ((uint32_t)get_be16(tcp + 4) << 16 | get_be16(tcp + 6)) + data_len +
                        (parsed->tcp_flags & TCP_SYN ? 1 : 0) + (parsed->tcp_flags & TCP_FIN);
        put_be16(reset + 8, (uint16_t)(next >> 16));
        put_be16(reset + 10, (uint16_t)next);
        reset[13] |= TCP_ACK;
    }
    uint64_t pseudo = csum_pseudo(&parsed->daddr, &parsed->saddr, PROTO_TCP, TCP_HLEN);
    store16(reset + 16, csum_fold(csum_partial(reset, TCP_HLEN, pseudo)));
    bool v4 = parsed->family == 4;
    uint8_t *ip = error_frame(p, 0, (v4 ? IPV4_HLEN : IPV6_HLEN) + TCP_HLEN);
    if (ip) /* always: nothing is pushed */
        memcpy(error_ip(ip, v4, &parsed->daddr, &parsed->saddr, PROTO_TCP, TCP_HLEN), reset,
               TCP_HLEN);
}

/* error_send: back out of the device the packet came in by. */
static void error_send(struct path *p, const struct endpoint *sender)
{
    uint8_t *frame = pkt_data(p->pkt);
    if (sender) {
        memcpy(frame, sender->mac, ETH_ALEN);
        memcpy(frame + ETH_ALEN, sender->node_mac, ETH_ALEN);
        path_send(p, FWD_TX_ENDPOINT, sender->lxc_id);
    } else if (p->pkt->port == FWD_PORT_OVERLAY) {
        const struct ipcache_entry peer = {.tunnel_endpoint = p->pkt->outer_src};
        p->src_identity = FWD_ID_HOST; /* the node speaks */
        p->nat_done = true;            /* what is parsed is the packet it speaks of */
        path_encap(p, &peer);
    } else if (p->pkt->port == FWD_PORT_HOST) {
        path_send(p, FWD_TO_STACK, FWD_PORT_HOST);
    } else {
        path_send(p, FWD_TX_UNDERLAY, FWD_PORT_NETDEV);
    }
}

static void error_step(struct path *p, const struct error_kind *kind, enum fwd_drop drop)
{
    uint8_t icmp = p->parsed.family == 4 ? PROTO_ICMP : PROTO_ICMPV6;
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_ICMP_ERROR, .flag = 1, .a = kind->type,
                                   .b = kind->code, .c = kind->mtu, .d = drop,
                                   .len = kind->reset ? PROTO_TCP : icmp, .addr = *kind->from});
}

void path_refuse(struct path *p, enum fwd_drop drop)
{
    struct error_kind kind = {0};
    struct endpoint *sender = endpoint_get(p->dp->endpoints, p->pkt->port);
    const struct parsed *parsed = &p->parsed;
    bool quoted = parsed->family != 6 || parsed->proto == PROTO_TCP ||
                  parsed->proto == PROTO_UDP || parsed->proto == PROTO_ICMPV6;
    if (drop == FWD_DROP_TTL_EXCEEDED && !quoted)
        drop = FWD_DROP_UNKNOWN_L4_PROTOCOL; /* as Cilium's icmp6_send_time_exceeded (7.1) */
    bool room = p->pkt->off >= IPV6_HLEN + ERROR_HLEN + VXLAN_HLEN;
    if (!parsed->family || !room || !error_kind(p, drop, &kind) || addr_is_zero(kind.from) ||
        !error_about(p) ||
        !endpoint_take_error_token(p->dp->endpoints, sender, p->settings, p->now_ns)) {
        path_drop(p, drop);
        return;
    }
    path_answered(p, drop, (enum fwd_metric)kind.metric);
    path_undo_lb(p);
    error_step(p, &kind, drop);
    if (kind.reset)
        error_reset(p);
    else
        error_build(p, &kind);
    error_send(p, sender);
}

/* ---- what fits the tunnel ---- */

/* mtu_len: the longest IP datagram this packet becomes on the wire. */
static uint32_t mtu_len(const struct path *p)
{
    const struct parsed *parsed = &p->parsed;
    if (!p->pkt->gso_size || !parsed->has_l4)
        return parsed->l3_len;
    uint32_t l4_hlen = UDP_HLEN;
    if (parsed->proto == PROTO_TCP)
        l4_hlen = (pkt_data(p->pkt)[parsed->l4_off + 12] >> 4) * 4u;
    return parsed->l4_off - (uint32_t)ETH_HLEN + l4_hlen + p->pkt->gso_size;
}

enum fwd_drop stage_mtu(struct path *p)
{
    uint32_t mtu = p->settings->tunnel_mtu, len = mtu_len(p);
    bool fixed = p->parsed.family == 6 || pkt_data(p->pkt)[ETH_HLEN + 6] & ERROR_IPV4_DF;
    if (mtu == 0 || len <= mtu || !fixed)
        return FWD_DROP_NONE;
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_MTU, .a = len, .b = mtu,
                                   .drop = FWD_DROP_FRAGMENTATION_NEEDED});
    return FWD_DROP_FRAGMENTATION_NEEDED;
}

/* ---- neighbour discovery of pods ---- */

bool path_nd(struct path *p)
{
    const struct parsed *parsed = &p->parsed;
    if (parsed->family != 6 || parsed->proto != PROTO_ICMPV6 || !parsed->has_l4 ||
        parsed->icmp_type < ND_ADVERT_ROUTER || parsed->icmp_type > ND_REDIRECT)
        return false;
    struct fwd_addr target;
    bool whole = parsed->l4_len >= ND_TARGET_END;
    bool known = true; /* who has no address yet asks for its own: nobody answers (RFC 4862) */
    if (whole && parsed->icmp_type == ND_SOLICIT && !addr_is_zero(&parsed->saddr)) {
        memcpy(target.b, pkt_data(p->pkt) + parsed->l4_off + ERROR_HLEN, sizeof(target.b));
        known = lxc_lookup(p->dp->lxc, &target) != NULL;
    }
    if (parsed->icmp_type == ND_ADVERT_ROUTER || parsed->icmp_type == ND_REDIRECT)
        path_drop(p, FWD_DROP_FORBIDDEN_ICMPV6_MESSAGE);
    else if (!whole)
        path_drop(p, FWD_DROP_INVALID_PACKET_DROPPED);
    else if (!known)
        path_drop(p, FWD_DROP_UNKNOWN_L3_TARGET_ADDRESS);
    else
        path_punt(p); /* an advertisement, too: what a pod claims to be reaches nobody */
    return true;
}
