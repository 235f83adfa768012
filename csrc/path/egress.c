/* egress.c - the sending node, rows 0-8 of docs/datapath.md, read top to bottom.
 *
 * Called by dp.c for frames a pod's TAP gave (hook_from_container). The only edge to the receiving
 * side is local delivery (row 6a -> 11). Source: datapath reference 1.1-1.5.
 */
#include "base/vxlan.h"
#include "path/path.h"

/* Row 0. A pod may send only from its own address and MAC (D13). The address comes first: it is
 * what Cilium checks, the MAC is ours. */
static enum fwd_drop stage_source_ip(struct path *p)
{
    const struct fwd_lxc_row *own = lxc_lookup_source(p->dp->lxc, p->endpoint, &p->parsed.saddr);
    bool known = own && !(own->flags & FWD_LXC_HOST) && own->lxc_id == p->endpoint->lxc_id;
    enum fwd_drop drop = FWD_DROP_NONE;
    if (!known)
        drop = FWD_DROP_INVALID_SOURCE_IP;
    else if (memcmp(pkt_data(p->pkt) + ETH_ALEN, p->endpoint->mac, ETH_ALEN) != 0)
        drop = FWD_DROP_INVALID_SOURCE_MAC;
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_SOURCE_IP, .drop = (uint8_t)drop,
                                   .flag = known, .a = p->endpoint->lxc_id, .b = p->src_identity,
                                   .addr = p->parsed.saddr});
    return drop;
}

/* Row 8: eth0 egress. The kernel's UDP socket builds the outer headers; nothing to filter here. */
static void hook_to_underlay(struct path *p)
{
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_TO_NETDEV, .a = p->pkt->len});
    path_trace(p, FWD_OBS_TO_NETWORK);
    path_send(p, FWD_TX_UNDERLAY, FWD_PORT_OVERLAY);
    uint8_t *at = pkt_push(p->pkt, VXLAN_HLEN);
    if (at) /* always: path_encap saw the room for it */
        vxlan_build(at, p->out->vni);
}

/* tunnel_vni: what the peer is told of the source. */
static uint32_t tunnel_vni(const struct path *p, const struct fwd_addr *remote)
{
    const struct fwd_peer_row *peer = peer_fixed_vni(p->dp->peers, remote);
    return peer ? peer->vni : path_wire_identity(p->src_identity);
}

/* Row 7: cilium_vxlan egress. */
static enum fwd_drop hook_to_overlay(struct path *p)
{
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_TO_OVERLAY, .a = p->out->vni});
    uint32_t identity = p->src_identity;
    enum fwd_drop drop = path_nat_fwd(p);
    if (p->src_identity != identity) /* the service speaks now, not its backend */
        p->out->vni = tunnel_vni(p, &p->out->remote);
    if (!drop)
        hook_to_underlay(p);
    return drop;
}

/* Row 6b. The inner TTL and MACs stay as the pod sent them: the receiver takes the one hop. The
 * header goes on last, so that every event on the way captures the inner frame. */
enum fwd_drop path_encap(struct path *p, const struct ipcache_entry *dst)
{
    struct fwd_out *out = p->out;
    out->remote = dst->tunnel_endpoint;
    out->vni = tunnel_vni(p, &out->remote);
    bool room = p->pkt->off >= VXLAN_HLEN;
    enum fwd_drop drop = room ? FWD_DROP_NONE : FWD_DROP_ERROR_WRITING_TO_PACKET;
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_ENCAP, .drop = (uint8_t)drop, .flag = 1,
                                   .a = out->vni, .b = path_v4(&out->remote),
                                   .addr = out->remote});
    if (drop)
        return drop;
    path_trace(p, FWD_OBS_TO_OVERLAY);
    return hook_to_overlay(p);
}

/* path_tunnelled: does the destination's ipcache entry lead into the overlay (6.5)? */
bool path_tunnelled(const struct path *p)
{
    return p->settings->tunnel && p->dst && !addr_is_zero(&p->dst->tunnel_endpoint) &&
           !(p->dst->flags & FWD_IPCACHE_SKIP_TUNNEL);
}

static bool echo_request(const struct parsed *parsed)
{
    return parsed->has_l4 && !parsed->fragment &&
           ((parsed->proto == PROTO_ICMP && parsed->icmp_type == 8) ||
            (parsed->proto == PROTO_ICMPV6 && parsed->icmp_type == 128));
}

/* Row 6: where to. Local endpoint, overlay, or the host's stack, in this order. */
static enum fwd_drop stage_forward(struct path *p)
{
    /* A pod's reply to itself goes to the loopback address: its own is the source ([C], 4.8). */
    bool to_itself = p->hairpin &&
                     (p->ct_status == FWD_CT_REPLY || p->ct_status == FWD_CT_RELATED);
    const struct fwd_lxc_row *local =
        lxc_lookup(p->dp->lxc, to_itself ? &p->parsed.saddr : &p->parsed.daddr);
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_LOCAL, .flag = local != NULL,
                                   .a = local ? local->lxc_id : 0, .b = local ? local->flags : 0,
                                   .addr = p->parsed.daddr});
    if (local && !(local->flags & FWD_LXC_HOST)) {
        path_deliver_local(p, local->lxc_id);
        return FWD_DROP_NONE;
    }
    if (local && local->flags & FWD_LXC_ROUTER && echo_request(&p->parsed)) {
        path_punt(p);
        return FWD_DROP_NONE;
    }
    if (!local && path_tunnelled(p)) {
        enum fwd_drop drop = stage_mtu(p);
        if (!drop)
            stage_mss(p);
        return drop ? drop : path_encap(p, p->dst);
    }
    path_to_stack(p, NULL, p->settings->router_mac);
    return FWD_DROP_NONE;
}

static enum fwd_drop from_container_ip(struct path *p)
{
    enum fwd_drop drop;
    if ((drop = stage_parse(p)) || (drop = stage_source_ip(p)) || (drop = stage_fragment(p)) ||
        (drop = stage_lb(p)) || (drop = stage_ct_lookup(p, CT_EGRESS)) ||
        (drop = stage_ipcache_dst(p)) || (drop = stage_policy(p, CT_EGRESS)) ||
        (drop = stage_ct_write(p, CT_EGRESS)))
        return drop;
    return path_nodeport_return(p) ? FWD_DROP_NONE : stage_forward(p);
}

/* Row 0: lxc ingress. */
void hook_from_container(struct path *p)
{
    p->dir = FWD_DIR_EGRESS;
    p->endpoint = endpoint_get(p->dp->endpoints, p->pkt->port);
    if (!p->endpoint) {
        path_drop(p, FWD_DROP_ENDPOINT_GONE);
        return;
    }
    p->src_identity = p->out->src_identity = p->endpoint->identity;
    path_trace(p, FWD_OBS_FROM_ENDPOINT);
    enum fwd_drop drop = p->eth_drop;
    if (!drop && p->parsed.ethertype == ETHERTYPE_ARP) {
        path_punt(p);
        return;
    }
    if (!drop && !p->l3_drop && path_nd(p))
        return;
    if (!drop)
        drop = from_container_ip(p);
    if (drop)
        path_refuse(p, drop);
}
