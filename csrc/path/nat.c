/* nat.c - masquerading, rows 8 and 9 of docs/datapath.md: pods' packets leave netdev under the
 * node's address, answers find back.
 *
 * Called by north_south.c (hook_to_netdev, hook_from_netdev) and by nodeport.c. The mappings are
 * tables/nat.c's, the bytes service.c's (path_nat) and quote.c's (quote_nat). Both families share
 * one table. Source: datapath reference 4.10, era [C].
 */
#include "base/checksum.h"
#include "path/path.h"

enum { ICMP4_ECHO_REPLY = 0, ICMP4_UNREACHABLE = 3, ICMP4_ECHO = 8, ICMP4_FRAG_NEEDED = 4,
       ICMP6_TOO_BIG = 2, ICMP6_ECHO = 128, ICMP6_ECHO_REPLY = 129 };
enum { ICMP_AT_CHECK = 2, ICMP_AT_ID = 4, ICMP_HLEN = 8 };

/* ---- both families' ICMP ---- */

static bool snat_icmp(uint8_t proto)
{
    return proto == PROTO_ICMP || proto == PROTO_ICMPV6;
}

static bool snat_is_icmp(const struct parsed *parsed)
{
    return parsed->proto == (parsed->family == 4 ? PROTO_ICMP : PROTO_ICMPV6);
}

static bool snat_is_echo(const struct parsed *parsed)
{
    return snat_is_icmp(parsed) &&
           parsed->icmp_type == (parsed->family == 4 ? ICMP4_ECHO : ICMP6_ECHO);
}

static bool snat_is_echo_reply(const struct parsed *parsed)
{
    return snat_is_icmp(parsed) &&
           parsed->icmp_type == (parsed->family == 4 ? ICMP4_ECHO_REPLY : ICMP6_ECHO_REPLY);
}

/* ---- bytes ---- */

/* snat_change: of an ICMP message's own checksum, unless it is not summed up yet. */
static void snat_change(struct path *p, uint64_t diff)
{
    if (!(p->pkt->vnet_flags & FWD_VNET_NEEDS_CSUM))
        csum_change(pkt_data(p->pkt) + p->parsed.l4_off + ICMP_AT_CHECK, diff);
}

/* snat_rewrite: address, and port or echo identifier, of a packet. */
static void snat_rewrite(struct path *p, bool source, const struct nat_target *target)
{
    bool icmp = snat_icmp(p->parsed.proto);
    if (icmp && !p->parsed.later_fragment) {
        uint8_t *at = pkt_data(p->pkt) + p->parsed.l4_off + ICMP_AT_ID;
        snat_change(p, csum_diff(at, (const uint8_t *)&target->port, 2));
        store16(at, target->port);
        p->parsed.icmp_id = target->port;
    }
    path_nat(p, source, &target->addr, icmp ? 0 : target->port);
}

/* snat_quote: the flow an ICMP error is about, an echo's identifier as its source port. */
static bool snat_quote(const struct path *p, struct quote *quote)
{
    *quote = (struct quote){0};
    if (quote_find(p, quote))
        return true;
    if (quote->proto != (quote->v4 ? PROTO_ICMP : PROTO_ICMPV6) || !quote->l4_off ||
        quote->l4_off + ICMP_HLEN > quote->len)
        return false;
    const uint8_t *l4 = quote->ip + quote->l4_off;
    bool echo = l4[0] == (quote->v4 ? ICMP4_ECHO : ICMP6_ECHO);
    if (!echo && l4[0] != (quote->v4 ? ICMP4_ECHO_REPLY : ICMP6_ECHO_REPLY))
        return false;
    *(echo ? &quote->sport : &quote->dport) = load16(l4 + ICMP_AT_ID);
    return true;
}

/* snat_quote_rewrite: the same for the packet an error quotes. */
static void snat_quote_rewrite(struct path *p, struct quote *quote, bool source,
                               const struct nat_target *target)
{
    bool icmp = snat_icmp(quote->proto);
    if (icmp) {
        uint8_t *at = quote->ip + quote->l4_off;
        uint64_t diff = csum_diff(at + ICMP_AT_ID, (const uint8_t *)&target->port, 2);
        store16(at + ICMP_AT_ID, target->port);
        snat_change(p, diff + csum_change(at + ICMP_AT_CHECK, diff));
    }
    quote_nat(p, quote, source, &target->addr, icmp ? 0 : target->port);
}

static void snat_step(struct path *p, enum fwd_stage stage, enum fwd_drop drop,
                      const struct nat_tuple *tuple, const struct nat_target *target)
{
    path_step(p, (struct fwd_step){
        .stage = (uint8_t)stage, .drop = (uint8_t)drop, .flag = !drop, .len = tuple->proto,
        .a = drop ? 0 : path_v4(&target->addr), .b = drop ? 0 : be16_to_host(target->port),
        .c = path_v4(tuple->flags == FWD_TUPLE_OUT ? &tuple->saddr : &tuple->daddr),
        .d = (uint32_t)be16_to_host(tuple->sport) << 16 | be16_to_host(tuple->dport),
        .addr = tuple->flags == FWD_TUPLE_OUT ? tuple->daddr : tuple->saddr});
}

/* ---- row 8 ---- */

/* snat_leaves: is this destination outside the cluster, or a node that pods reach natively? */
static bool snat_leaves(const struct path *p)
{
    const struct ipcache_entry *dst = ipcache_lookup(p->dp->ipcache, &p->parsed.daddr);
    if (!dst || dst->identity == FWD_ID_UNKNOWN)
        return true;
    if (!addr_is_zero(&dst->tunnel_endpoint))
        return false;
    if (dst->identity == FWD_ID_REMOTE_NODE || dst->identity == FWD_ID_KUBE_APISERVER)
        return p->settings->tunnel;
    return dst->identity == FWD_ID_WORLD || dst->identity >> 24 == 1; /* 1: a CIDR's (5.1) */
}

/* snat_answer: is the packet part of a flow that came in? Its source must not change then. */
static bool snat_answer(const struct path *p)
{
    struct ct_tuple flow = p->loaded;
    struct ct_state state;
    flow.flags |= FWD_TUPLE_IN;
    return ct_get(&p->dp->ct, &flow, p->hash, &state);
}

static struct nat_tuple snat_tuple(const struct path *p)
{
    bool icmp = snat_icmp(p->parsed.proto);
    return (struct nat_tuple){.saddr = p->parsed.saddr, .daddr = p->parsed.daddr,
                              .sport = icmp ? p->parsed.icmp_id : p->parsed.sport,
                              .dport = icmp ? 0 : p->parsed.dport, .proto = p->parsed.proto,
                              .flags = FWD_TUPLE_OUT};
}

enum fwd_drop path_snat_error(struct path *p)
{
    struct quote quote;
    if (!snat_quote(p, &quote))
        return FWD_DROP_NO_MAPPING_FOR_NAT_MASQUERADE;
    bool icmp = snat_icmp(quote.proto);
    struct nat_tuple tuple = {.saddr = quote.daddr, .daddr = quote.saddr, .sport = quote.dport,
                              .dport = icmp ? 0 : quote.sport, .proto = quote.proto,
                              .flags = FWD_TUPLE_OUT};
    struct nat_target target;
    enum fwd_drop drop = FWD_DROP_NONE;
    if (!nat_lookup(p->dp->nat, &tuple, &target))
        drop = FWD_DROP_NO_MAPPING_FOR_NAT_MASQUERADE;
    snat_step(p, FWD_STAGE_SNAT, drop, &tuple, &target);
    if (drop)
        return drop;
    snat_quote_rewrite(p, &quote, false, &target);
    path_nat(p, true, &target.addr, 0);
    p->nat_done = true;
    return FWD_DROP_NONE;
}

/* snat_error: a pod complains about an answer it got: what it quotes is what it saw. Only that it was
 * too big concerns anybody outside. */
static enum fwd_drop snat_error(struct path *p)
{
    const struct parsed *parsed = &p->parsed;
    if (parsed->family == 4 && parsed->icmp_type == ICMP4_UNREACHABLE)
        return parsed->icmp_code == ICMP4_FRAG_NEEDED ? path_snat_error(p)
                                                      : FWD_DROP_UNKNOWN_ICMPV4_CODE;
    if (parsed->family == 6 && parsed->icmp_type == ICMP6_TOO_BIG)
        return path_snat_error(p);
    return FWD_DROP_UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE;
}

static enum fwd_drop snat_apply(struct path *p, const struct fwd_addr *behind)
{
    struct nat_tuple tuple = snat_tuple(p);
    struct nat_target target;
    enum fwd_drop drop =
        nat_map(p->dp->nat, &tuple, behind, p->now_ns, &target);
    snat_step(p, FWD_STAGE_SNAT, drop, &tuple, &target);
    if (!drop)
        snat_rewrite(p, true, &target);
    p->nat_done = true;
    return drop;
}

static bool snat_has_port(const struct parsed *parsed)
{
    return parsed->proto == PROTO_TCP || parsed->proto == PROTO_UDP || snat_is_echo(parsed);
}

/* snat_own: the node's own flows keep their address, but no pod may take their port. Their
 * conntrack entry tells the sweep how long. */
static enum fwd_drop snat_own(struct path *p, const struct fwd_addr *own)
{
    struct nat_tuple tuple = snat_tuple(p);
    if (p->tuple_drop || p->parsed.fragment || !snat_has_port(&p->parsed) ||
        be16_to_host(tuple.sport) < NAT_PORT_MIN || snat_answer(p))
        return FWD_DROP_NONE;
    p->src_identity = p->out->src_identity = FWD_ID_HOST;
    if (!stage_ct_lookup(p, CT_EGRESS))
        stage_ct_write(p, CT_EGRESS); /* a full conntrack is no reason to stop the host */
    return snat_apply(p, own);
}

static enum fwd_drop snat_pod(struct path *p)
{
    enum fwd_drop drop = stage_fragment(p);
    const struct parsed *parsed = &p->parsed;
    bool known = parsed->proto == PROTO_TCP || parsed->proto == PROTO_UDP || snat_is_icmp(parsed);
    if (!drop && !known)
        drop = FWD_DROP_UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE;
    if (!drop)
        drop = p->tuple_drop;
    if (drop || snat_answer(p))
        return drop;
    if (snat_has_port(parsed))
        return snat_apply(p, path_node(p));
    if (snat_is_echo_reply(parsed))
        return FWD_DROP_NONE; /* nobody we know asked: it is no mapping's business */
    return snat_error(p);
}

enum fwd_drop stage_snat(struct path *p)
{
    bool ip = p->parsed.ethertype == ETHERTYPE_IPV4 ||
              (p->parsed.ethertype == ETHERTYPE_IPV6 && !addr_is_zero(&p->settings->node_ip6));
    bool hidden = p->settings->masquerade; /* pods; clients of services hide here, too */
    if (!ip || (!hidden && !p->settings->nodeport))
        return FWD_DROP_NONE;
    if (p->l3_drop) /* whose it is cannot be told, so it does not leave */
        return hidden ? p->l3_drop : FWD_DROP_NONE;
    if (addr_equal(&p->parsed.saddr, path_node(p)))
        return snat_own(p, path_node(p));
    if (!hidden)
        return FWD_DROP_NONE;
    const struct fwd_lxc_row *local = lxc_lookup(p->dp->lxc, &p->parsed.saddr);
    if (!local || local->flags & FWD_LXC_HOST || !snat_leaves(p))
        return FWD_DROP_NONE;
    return snat_pod(p);
}

enum fwd_drop path_snat(struct path *p, const struct fwd_addr *behind)
{
    if (p->parsed.proto != PROTO_TCP && p->parsed.proto != PROTO_UDP)
        return FWD_DROP_UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE; /* SCTP: no port of it changes */
    if (addr_is_zero(behind) || addr_is_v4(behind) != (p->parsed.family == 4))
        return FWD_DROP_NO_MAPPING_FOR_NAT_MASQUERADE; /* no address of this family to hide behind */
    return snat_apply(p, behind);
}

enum fwd_drop path_reserve(struct path *p, const struct fwd_addr *own)
{
    bool ports = p->parsed.proto == PROTO_TCP || p->parsed.proto == PROTO_UDP;
    return ports && !addr_is_zero(own) && addr_equal(&p->parsed.saddr, own) ? snat_own(p, own) : FWD_DROP_NONE;
}

/* ---- row 9 ---- */

bool path_rev_snat_error(struct path *p, const struct fwd_addr *own)
{
    struct quote quote;
    struct nat_target target;
    if (p->l3_drop || !addr_equal(&p->parsed.daddr, own) || !snat_quote(p, &quote) ||
        !addr_equal(&quote.saddr, own))
        return false;
    struct nat_tuple tuple = {.saddr = quote.daddr, .daddr = quote.saddr, .sport = quote.dport,
                              .dport = quote.sport, .proto = quote.proto, .flags = FWD_TUPLE_IN};
    if (!nat_lookup(p->dp->nat, &tuple, &target))
        return false;
    snat_step(p, FWD_STAGE_REV_SNAT, FWD_DROP_NONE, &tuple, &target);
    snat_quote_rewrite(p, &quote, true, &target);
    path_nat(p, false, &target.addr, 0);
    return true;
}

static bool rev_snat_tuple(const struct path *p, struct nat_tuple *tuple)
{
    const struct parsed *parsed = &p->parsed;
    *tuple = (struct nat_tuple){.saddr = parsed->saddr, .daddr = parsed->daddr,
                                .sport = parsed->sport, .dport = parsed->dport,
                                .proto = parsed->proto, .flags = FWD_TUPLE_IN};
    if (snat_is_icmp(parsed)) {
        tuple->sport = 0;
        tuple->dport = parsed->icmp_id;
        return snat_is_echo_reply(parsed);
    }
    return parsed->proto == PROTO_TCP || parsed->proto == PROTO_UDP;
}

bool path_rev_snat(struct path *p, const struct fwd_addr *own)
{
    struct nat_tuple tuple;
    struct nat_target target;
    if (p->l3_drop || !addr_equal(&p->parsed.daddr, own))
        return false;
    if (p->loaded.flags & FWD_TUPLE_RELATED) {
        path_rev_snat_error(p, own);
        return false;
    }
    /* Later fragments without their first, and everything else that is odd: the host's own. */
    if (stage_fragment(p) || p->tuple_drop || !rev_snat_tuple(p, &tuple) ||
        be16_to_host(tuple.dport) < NAT_PORT_MIN || !nat_lookup(p->dp->nat, &tuple, &target))
        return false;
    snat_step(p, FWD_STAGE_REV_SNAT, FWD_DROP_NONE, &tuple, &target);
    snat_rewrite(p, false, &target);
    return true;
}

enum fwd_drop stage_rev_snat(struct path *p)
{
    if (p->settings->masquerade && !addr_is_zero(path_node(p)))
        path_rev_snat(p, path_node(p));
    return FWD_DROP_NONE;
}
