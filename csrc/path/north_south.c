/* north_south.c - the host side: cilium_host and netdev, and handing packets to the stack.
 *
 * Called by dp.c for frames of these ports, by egress.c and ingress.c for the stack. Masquerading is
 * nat.c's, services for traffic from outside and of the host are nodeport.c's.
 * Source: datapath reference 1.4/12, 1.10.
 */
#include "path/path.h"

enum { VLAN_HLEN = 4, VLAN_ID_MASK = 0x0fff };

void path_to_stack(struct path *p, const uint8_t *smac, const uint8_t *dmac)
{
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_TO_STACK, .a = p->parsed.ttl,
                                   .addr = p->parsed.daddr});
    enum fwd_drop drop = stage_l3(p, smac, dmac);
    if (drop) {
        path_refuse(p, drop);
        return;
    }
    path_trace(p, FWD_OBS_TO_STACK);
    path_send(p, FWD_TO_STACK, FWD_PORT_HOST);
}

void path_pass(struct path *p)
{
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_TO_STACK, .a = p->parsed.ttl,
                                   .addr = p->parsed.daddr});
    path_send(p, FWD_TO_STACK, FWD_PORT_HOST);
}

/* outside_identity: of a source that only came by: what the ipcache says, never HOST. */
static uint32_t outside_identity(const struct path *p)
{
    const struct ipcache_entry *src =
        p->parsed.family ? ipcache_lookup(p->dp->ipcache, &p->parsed.saddr) : NULL;
    bool usable = src && src->identity != FWD_ID_UNKNOWN && src->identity != FWD_ID_HOST;
    return usable ? src->identity : FWD_ID_WORLD;
}

/* host_identity: who speaks through cilium_host. A TAP carries no mark, so the address tells: the
 * node's own are the host, what it merely routes to us keeps the identity of its source. */
static uint32_t host_identity(const struct path *p)
{
    const struct fwd_lxc_row *own =
        p->parsed.family ? lxc_lookup(p->dp->lxc, &p->parsed.saddr) : NULL;
    bool host = !p->parsed.family || (own && own->flags & FWD_LXC_HOST);
    return host ? FWD_ID_HOST : outside_identity(p);
}

/* from_host_ip: the host stack sends toward pods through cilium_host. */
static enum fwd_drop from_host_ip(struct path *p)
{
    enum fwd_drop drop = stage_parse(p);
    if (drop || path_host_service(p))
        return drop;
    const struct fwd_lxc_row *local = lxc_lookup(p->dp->lxc, &p->parsed.daddr);
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_LOCAL, .flag = local != NULL,
                                   .a = local ? local->lxc_id : 0, .b = local ? local->flags : 0,
                                   .addr = p->parsed.daddr});
    if (local && !(local->flags & FWD_LXC_HOST)) {
        path_deliver_local(p, local->lxc_id);
        return FWD_DROP_NONE;
    }
    stage_ipcache_dst(p);
    if (!local && path_tunnelled(p))
        return (drop = stage_mtu(p)) ? drop : path_encap(p, p->dst);
    bool skip = p->dst && (p->dst->flags & FWD_IPCACHE_SKIP_TUNNEL);
    /* What the host routed to us and we would hand straight back would loop (1.10). A CIDR's
     * identity (5.1) is a part of the world. */
    bool world = p->dst_identity == FWD_ID_WORLD || p->dst_identity >> 24 == 1;
    if (!local && !skip && world)
        return FWD_DROP_STALE_OR_UNROUTABLE_IP;
    if (!local && !skip) /* another node: the host's own end takes it from here */
        memcpy(pkt_data(p->pkt), p->settings->host_mac, ETH_ALEN);
    path_pass(p);
    return FWD_DROP_NONE;
}

void hook_from_host(struct path *p)
{
    p->dir = FWD_DIR_EGRESS;
    p->src_identity = p->out->src_identity = host_identity(p);
    path_trace(p, FWD_OBS_FROM_HOST);
    enum fwd_drop drop = p->eth_drop;
    if (!drop)
        drop = from_host_ip(p);
    if (drop)
        path_refuse(p, drop);
}

/* stage_vlan: a tagged frame passes when its id is allowed and is dropped otherwise; untagged and
 * priority-tagged frames (id 0) are not its business. */
static enum fwd_drop stage_vlan(struct path *p, enum fwd_stage stage, bool *tagged)
{
    uint16_t id = 0;
    bool vlan = p->parsed.ethertype == ETHERTYPE_VLAN || p->parsed.ethertype == ETHERTYPE_QINQ;
    if (!p->eth_drop && vlan && p->pkt->len >= ETH_HLEN + VLAN_HLEN)
        id = get_be16(pkt_data(p->pkt) + ETH_HLEN) & VLAN_ID_MASK;
    bool allowed = p->settings->vlan_allowed[id >> 3] >> (id & 7) & 1;
    enum fwd_drop drop = id && !allowed ? FWD_DROP_VLAN_FILTERED : FWD_DROP_NONE;
    path_step(p, (struct fwd_step){.stage = (uint8_t)stage, .drop = (uint8_t)drop,
                                   .a = p->pkt->len, .b = id});
    *tagged = id != 0;
    return drop;
}

/* Row 9: eth0 ingress. An allowed VLAN frame is seen again on its VLAN device, so no more here. */
void hook_from_netdev(struct path *p)
{
    bool tagged;
    p->dir = FWD_DIR_INGRESS;
    enum fwd_drop drop = stage_vlan(p, FWD_STAGE_FROM_NETDEV, &tagged);
    if (drop) {
        path_drop(p, drop);
        return;
    }
    if (!tagged) {
        p->src_identity = p->out->src_identity = outside_identity(p);
        if (!p->eth_drop)
            path_trace(p, FWD_OBS_FROM_NETWORK);
        if (path_nodeport(p) || path_nodeport_reply(p))
            return;
        drop = stage_rev_snat(p);
    }
    if (drop) {
        path_drop(p, drop);
        return;
    }
    path_send(p, FWD_TO_STACK, FWD_PORT_HOST);
}

/* Row 8: eth0 egress of a native frame. */
void hook_to_netdev(struct path *p)
{
    bool tagged;
    p->dir = FWD_DIR_EGRESS;
    enum fwd_drop drop = stage_vlan(p, FWD_STAGE_TO_NETDEV, &tagged);
    if (!drop && !tagged && !path_nodeport_leave(p))
        drop = stage_snat(p);
    if (drop) {
        path_drop(p, drop);
        return;
    }
    if (!tagged)
        path_trace(p, FWD_OBS_TO_NETWORK);
    path_send(p, FWD_TX_UNDERLAY, FWD_PORT_NETDEV);
}
