/* ingress.c - the receiving node, rows 9-11 of docs/datapath.md, read top to bottom.
 *
 * Called by dp.c for UDP payloads of the tunnel port (hook_from_overlay), and by the sending side
 * for local delivery (hook_to_container). Source: datapath reference 1.6-1.8.
 */
#include "base/vxlan.h"
#include "path/path.h"

/* Row 10: the tunnel key. The first pass has taken the header off when there was one. */
static enum fwd_drop stage_decap(struct path *p)
{
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_DECAP, .drop = (uint8_t)p->decap_drop,
                                   .flag = !p->decap_drop, .a = p->vni, .b = p->datagram_len,
                                   .addr = p->pkt->outer_src});
    p->src_identity = p->out->src_identity = p->vni;
    p->out->vni = p->vni;
    return p->decap_drop;
}

static bool remote_node_identity(uint32_t identity)
{
    return identity == FWD_ID_REMOTE_NODE || identity == FWD_ID_KUBE_APISERVER ||
           identity >> 24 == 2;
}

/* peer_source: does the inner source live behind the outer one, and is the VNI its identity? */
static enum fwd_drop peer_source(const struct path *p, const struct fwd_peer_row *peer,
                                 const struct ipcache_entry *src)
{
    const struct fwd_addr *outer = &p->pkt->outer_src;
    bool behind = addr_equal(&p->parsed.saddr, outer) ||
                  (src && addr_equal(&src->tunnel_endpoint, outer));
    if (!behind)
        return FWD_DROP_SPOOFED_TUNNEL_SOURCE;
    if (peer && peer->fixed_vni)
        return FWD_DROP_NONE; /* its VNI was compared, its identity is ours to give */
    /* A peer that says remote-node claims less than it could: the source is what the ipcache says
     * (1.8/9). A node's own address also stands for clients from outside that it sends on (4.9/6). */
    uint32_t known = src ? src->identity : FWD_ID_WORLD;
    bool same = path_wire_identity(known) == p->vni || remote_node_identity(p->vni) ||
                (remote_node_identity(known) && p->vni == FWD_ID_WORLD);
    return same ? FWD_DROP_NONE : FWD_DROP_VNI_NOT_IDENTITY;
}

/* Row 10: whom to believe (D13). Refines remote-node identities by ipcache ([C], 1.8/9). */
static enum fwd_drop stage_peer(struct path *p)
{
    const struct fwd_peer_row *peer = peer_lookup(p->dp->peers, &p->pkt->outer_src);
    const struct ipcache_entry *src = ipcache_lookup(p->dp->ipcache, &p->parsed.saddr);
    enum fwd_drop drop = FWD_DROP_NONE;
    if (peer && peer->fixed_vni) {
        p->src_identity = peer->identity;
        if (p->vni != peer->vni)
            drop = FWD_DROP_VNI_NOT_IDENTITY;
    } else if (p->vni == FWD_ID_HOST) {
        drop = FWD_DROP_INVALID_IDENTITY; /* nobody outside is this host */
    } else if (remote_node_identity(p->vni) && src) {
        p->src_identity = src->identity;
    }
    if (!drop && p->settings->verify_source)
        drop = peer_source(p, peer, src);
    p->out->src_identity = p->src_identity;
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_PEER, .drop = (uint8_t)drop,
                                   .flag = peer != NULL, .a = p->vni, .b = p->src_identity,
                                   .c = src ? src->identity : 0,
                                   .d = src ? path_v4(&src->tunnel_endpoint) : 0,
                                   .addr = p->pkt->outer_src});
    return drop;
}

/* known_peer: the outer half of stage_peer, before anything inside is looked at. */
static enum fwd_drop stage_known_peer(struct path *p)
{
    if (!p->settings->verify_peer || peer_lookup(p->dp->peers, &p->pkt->outer_src))
        return FWD_DROP_NONE;
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_PEER, .drop = FWD_DROP_UNKNOWN_PEER,
                                   .a = p->vni, .b = p->src_identity, .addr = p->pkt->outer_src});
    return FWD_DROP_UNKNOWN_PEER;
}

/* Row 10: is the inner destination ours? Its address and the node's own are in cilium_lxc. */
static const struct fwd_lxc_row *stage_endpoint(struct path *p)
{
    const struct fwd_lxc_row *local = lxc_lookup(p->dp->lxc, &p->parsed.daddr);
    struct endpoint *endpoint = local ? endpoint_get(p->dp->endpoints, local->lxc_id) : NULL;
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_ENDPOINT, .flag = local != NULL,
                                   .a = local ? local->lxc_id : 0, .b = local ? local->flags : 0,
                                   .c = endpoint ? endpoint->ifindex : 0,
                                   .d = endpoint ? endpoint->identity : 0,
                                   .addr = p->parsed.daddr});
    return local;
}

static enum fwd_drop to_container_ip(struct path *p)
{
    enum fwd_drop drop;
    if ((drop = stage_fragment(p)) || (drop = stage_ct_lookup(p, CT_INGRESS)))
        return drop;
    stage_loopback(p);
    if ((drop = stage_policy(p, CT_INGRESS)) || (drop = stage_ct_write(p, CT_INGRESS)))
        return drop;
    return stage_rev_nat(p);
}

/* Row 11: the receiver's own program. */
void hook_to_container(struct path *p, struct endpoint *endpoint)
{
    p->dir = FWD_DIR_INGRESS;
    p->endpoint = endpoint;
    p->dst_identity = p->out->dst_identity = endpoint->identity;
    p->orig_saddr = p->parsed.saddr;
    p->rev_nat_id = 0; /* what the sending side knew is in its own entry */
    p->hairpin = false;
    p->fragment_known = false;
    enum fwd_drop drop = to_container_ip(p);
    if (drop) {
        path_drop(p, drop);
        return;
    }
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_DELIVER, .a = endpoint->lxc_id,
                                   .b = endpoint->ifindex, .c = endpoint->identity});
    path_trace(p, FWD_OBS_TO_ENDPOINT);
    path_send(p, FWD_TX_ENDPOINT, endpoint->lxc_id);
}

void path_deliver_local(struct path *p, uint32_t lxc_id)
{
    struct endpoint *endpoint = endpoint_get(p->dp->endpoints, lxc_id);
    if (!endpoint) {
        path_drop(p, FWD_DROP_DROP_EP_NOT_READY);
        return;
    }
    p->out->port = lxc_id;
    enum fwd_drop drop = stage_l3(p, endpoint->node_mac, endpoint->mac);
    if (drop) {
        path_refuse(p, drop);
        return;
    }
    metrics_add(p->dp->metrics, FWD_METRIC_FORWARDED, (uint8_t)p->dir, p->pkt->len);
    hook_to_container(p, endpoint);
}

/* from_overlay_ip: row 10 for an inner IP packet: check, find, deliver. */
static enum fwd_drop from_overlay_ip(struct path *p)
{
    enum fwd_drop drop;
    if ((drop = stage_parse(p)) || (drop = stage_peer(p)))
        return drop;
    const struct fwd_lxc_row *local = stage_endpoint(p);
    if (!local || local->flags & FWD_LXC_HOST) {
        if (path_nodeport(p) || path_nodeport_reply(p)) /* a service's, or its answer (4.9) */
            return FWD_DROP_NONE;
        path_to_stack(p, p->settings->router_mac, p->settings->host_mac);
        return FWD_DROP_NONE;
    }
    stage_mss(p);
    path_deliver_local(p, local->lxc_id);
    return FWD_DROP_NONE;
}

/* Rows 9 and 10: a UDP payload of the tunnel port. from-netdev lets it pass untouched. */
void hook_from_overlay(struct path *p)
{
    p->dir = FWD_DIR_INGRESS;
    p->from_tunnel = true;
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_FROM_NETDEV, .a = p->datagram_len});
    path_trace(p, FWD_OBS_FROM_NETWORK);
    enum fwd_drop drop = stage_decap(p);
    if (!drop && !p->eth_drop)
        path_trace(p, FWD_OBS_FROM_OVERLAY);
    if (!drop)
        drop = stage_known_peer(p);
    if (drop) {
        path_drop(p, drop);
        return;
    }
    bool ip = p->parsed.ethertype == ETHERTYPE_IPV4 || p->parsed.ethertype == ETHERTYPE_IPV6;
    if (p->eth_drop || !ip) {
        path_pass(p); /* not ours to judge (1.8/2, 4) */
        return;
    }
    drop = from_overlay_ip(p);
    if (drop)
        path_drop(p, drop);
}
