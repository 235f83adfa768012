/* stage.c - the stages that the sending and the receiving side share.
 *
 * Called by the hooks in egress.c, ingress.c and north_south.c, in the order of docs/datapath.md.
 * Each returns 0 or a drop reason, which the hook reports. Beside their tables they write the
 * fragment metric and the policy verdict's event, for only they know when there is one.
 */
#include "base/checksum.h"
#include "path/path.h"

enum fwd_drop stage_parse(struct path *p)
{
    enum fwd_drop drop = p->l3_drop;
    if (!drop && p->parsed.fragment && !p->settings->fragments)
        drop = FWD_DROP_IP_FRAGMENTATION_NOT_SUPPORTED;
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_PARSE, .drop = (uint8_t)drop,
                                   .len = p->parsed.proto, .a = p->parsed.ethertype,
                                   .b = p->pkt->len, .addr = p->parsed.daddr});
    return drop;
}

/* stage_fragment: the ports of a later fragment are its first one's (datapath reference 5.5). Echo
 * identifiers take the same way, so that a large ping is one flow. */
enum fwd_drop stage_fragment(struct path *p)
{
    struct parsed *parsed = &p->parsed;
    if (!parsed->fragment || p->fragment_known)
        return FWD_DROP_NONE;
    metrics_add(p->dp->metrics, FWD_METRIC_FRAGMENT, (uint8_t)p->dir, p->pkt->len);
    if (p->tuple_drop == FWD_DROP_CT_UNKNOWN_L4_PROTOCOL)
        return FWD_DROP_NONE; /* it has no ports to remember, and conntrack says so */
    struct frag_key key = {.daddr = parsed->daddr, .saddr = parsed->saddr, .id = parsed->frag_id,
                           .proto = parsed->proto};
    bool icmp = parsed->proto == PROTO_ICMP || parsed->proto == PROTO_ICMPV6;
    if (!parsed->later_fragment) {
        if (parsed->has_l4)
            frag_store(p->dp->frags, &key, icmp ? parsed->icmp_id : parsed->sport,
                       icmp ? parsed->icmp_type : parsed->dport);
    } else {
        uint16_t first, second;
        if (!frag_fetch(p->dp->frags, &key, &first, &second))
            return FWD_DROP_FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND;
        parsed->has_l4 = 1;
        if (icmp) {
            parsed->icmp_id = first;
            parsed->icmp_type = (uint8_t)second;
        } else {
            parsed->sport = first;
            parsed->dport = second;
        }
    }
    p->fragment_known = true;
    path_load_tuple(p);
    return FWD_DROP_NONE;
}

void path_load_tuple(struct path *p)
{
    p->tuple_drop = ct_tuple_load(&p->parsed, &p->loaded, &p->ct_packet);
    p->hash = ct_hash(p->dp->ct.seed, &p->loaded);
    p->out->hash = (uint32_t)p->hash;
}

enum fwd_drop stage_ct_lookup(struct path *p, enum ct_dir dir)
{
    enum fwd_drop drop = p->tuple_drop;
    p->ct_status = FWD_CT_NONE;
    if (!drop) {
        p->tuple = p->loaded;
        p->ct_packet.len = p->pkt->len;
        memset(&p->ct_state, 0, sizeof(p->ct_state));
        /* A just translated request must never be taken for a reply ([C], 1.3/2). */
        enum ct_scope scope = p->rev_nat_id ? CT_SCOPE_FORWARD : CT_SCOPE_BIDIR;
        p->ct_status = ct_lookup(&p->dp->ct, p->settings, &p->tuple, p->hash, dir, scope,
                                 &p->ct_packet, &p->ct_state, &p->monitor);
        p->hairpin |= (p->ct_state.flags & FWD_CT_LB_LOOPBACK) != 0;
        p->out->ct = (uint8_t)p->ct_status;
    }
    path_step(p, (struct fwd_step){
        .stage = dir == CT_EGRESS ? FWD_STAGE_CT_EGRESS : FWD_STAGE_CT_INGRESS,
        .drop = (uint8_t)drop, .flag = !drop && p->ct_status != FWD_CT_NEW,
        .len = p->parsed.proto, .a = (uint32_t)p->ct_status,
        .b = (uint32_t)be16_to_host(p->tuple.sport) << 16 | be16_to_host(p->tuple.dport),
        .c = p->tuple.flags, .d = p->monitor, .addr = p->tuple.saddr});
    return drop;
}

static void ipcache_step(struct path *p)
{
    struct fwd_step step = {.stage = FWD_STAGE_IPCACHE_DST, .flag = p->dst != NULL,
                            .a = p->dst_identity, .addr = p->parsed.daddr};
    if (p->dst) {
        step.b = path_v4(&p->dst->tunnel_endpoint);
        step.c = p->dst->flags;
        step.len = p->dst->prefix_len;
        step.addr = p->dst->prefix;
    }
    path_step(p, step);
}

enum fwd_drop stage_ipcache_dst(struct path *p)
{
    const struct ipcache_entry *entry = ipcache_lookup(p->dp->ipcache, &p->parsed.daddr);
    p->dst = entry && entry->identity != FWD_ID_UNKNOWN ? entry : NULL;
    p->dst_identity = p->dst ? p->dst->identity : FWD_ID_WORLD;
    p->out->dst_identity = p->dst_identity;
    if (p->steps)
        ipcache_step(p);
    return FWD_DROP_NONE;
}

/* policy_key: what 5.3 looks up for this packet: the flow's destination port, or the ICMP type. */
static struct policy_key policy_key(const struct path *p, enum ct_dir dir)
{
    bool icmp = p->parsed.proto == PROTO_ICMP || p->parsed.proto == PROTO_ICMPV6;
    return (struct policy_key){
        .lxc_id = p->endpoint->lxc_id,
        .port = icmp ? p->parsed.icmp_type : be16_to_host(p->parsed.dport),
        .identity = dir == CT_EGRESS ? p->dst_identity : p->src_identity,
        .dir = dir == CT_EGRESS ? FWD_DIR_EGRESS : FWD_DIR_INGRESS,
        .proto = p->parsed.proto,
        .l3_l4 = 1,
    };
}

static struct policy_result policy_verdict(const struct path *p, enum ct_dir dir,
                                           const struct policy_key *key)
{
    struct policy_result result = {.entry = UINT32_MAX};
    const struct parsed *parsed = &p->parsed;
    if (dir == CT_EGRESS && parsed->proto == PROTO_UDP && key->port == p->settings->tunnel_port)
        result.drop = FWD_DROP_ENCAPSULATION_TRAFFIC_IS_PROHIBITED;
    else if (!(p->settings->icmp_frag_needed && parsed->proto == PROTO_ICMP &&
               parsed->icmp_type == 3 && parsed->icmp_code == 4))
        result = policy_lookup(p->dp->policy, key);
    return result;
}

/* stage_policy: evaluated for every packet in request direction, never for replies. Audit mode lets
 * pass what it denies and says so once a flow (5.3/5). */
enum fwd_drop stage_policy(struct path *p, enum ct_dir dir)
{
    if (p->ct_status == FWD_CT_REPLY || p->ct_status == FWD_CT_RELATED || p->hairpin)
        return FWD_DROP_NONE;
    struct policy_key key = policy_key(p, dir);
    struct policy_result result = policy_verdict(p, dir, &key);
    if (result.entry != UINT32_MAX)
        policy_count(p->dp->policy, result.entry, p->pkt->len);
    bool audited = p->settings->policy_audit && (result.drop == FWD_DROP_POLICY_DENIED ||
                                                 result.drop == FWD_DROP_POLICY_DENY);
    p->out->rule_id = result.rule_id;
    p->out->match = result.match;
    p->out->policy_endpoint = key.lxc_id;
    path_step(p, (struct fwd_step){
        .stage = dir == CT_EGRESS ? FWD_STAGE_POLICY_EGRESS : FWD_STAGE_POLICY_INGRESS,
        .drop = audited ? 0 : (uint8_t)result.drop, .flag = result.entry != UINT32_MAX,
        .len = key.proto, .a = result.rule_id, .b = result.match, .c = key.identity,
        .d = key.lxc_id});
    if ((result.drop && !audited) || p->ct_status == FWD_CT_NEW)
        path_policy_verdict(p, result.drop, audited);
    return audited ? FWD_DROP_NONE : result.drop;
}

enum fwd_drop stage_ct_write(struct path *p, enum ct_dir dir)
{
    /* A flow that now goes through another service, or none, is written anew. */
    bool other = p->ct_status == FWD_CT_ESTABLISHED && dir == CT_EGRESS &&
                 p->ct_state.rev_nat_id != p->rev_nat_id;
    if (p->ct_status != FWD_CT_NEW && !other)
        return FWD_DROP_NONE;
    p->ct_state.src_identity = p->src_identity;
    p->ct_state.rev_nat_id = p->rev_nat_id;
    if (p->hairpin)
        p->ct_state.flags |= FWD_CT_LB_LOOPBACK;
    if (p->from_tunnel)
        p->ct_state.flags |= FWD_CT_FROM_TUNNEL;
    if (p->from_outside)
        p->ct_state.flags |= FWD_CT_NODE_PORT; /* in both entries: its answer is told by it, too */
    enum fwd_drop drop = ct_create(&p->dp->ct, p->settings, &p->tuple, p->hash, dir, &p->ct_packet,
                                   &p->ct_state);
    path_step(p, (struct fwd_step){
        .stage = dir == CT_EGRESS ? FWD_STAGE_CT_CREATE_EGRESS : FWD_STAGE_CT_CREATE_INGRESS,
        .drop = (uint8_t)drop, .flag = !drop, .len = p->parsed.proto, .a = (uint32_t)p->ct_status,
        .c = p->tuple.flags});
    return drop;
}

enum fwd_drop stage_l3(struct path *p, const uint8_t *smac, const uint8_t *dmac)
{
    uint8_t *frame = pkt_data(p->pkt);
    uint8_t *ip = frame + ETH_HLEN;
    uint32_t ttl = p->parsed.ttl;
    enum fwd_drop drop = ttl <= 1 ? FWD_DROP_TTL_EXCEEDED : FWD_DROP_NONE;
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_L3, .drop = (uint8_t)drop, .a = ttl,
                                   .b = p->out->port, .addr = p->parsed.daddr});
    if (drop)
        return drop;
    if (p->parsed.family == 4) {
        uint16_t before = load16(ip + 8); /* TTL and protocol share the 16-bit word */
        ip[8]--;
        store16(ip + 10, csum_update16(load16(ip + 10), before, load16(ip + 8)));
    } else {
        ip[7]--;
    }
    p->parsed.ttl--;
    if (smac)
        memcpy(frame + ETH_ALEN, smac, ETH_ALEN);
    if (dmac)
        memcpy(frame, dmac, ETH_ALEN);
    return FWD_DROP_NONE;
}
