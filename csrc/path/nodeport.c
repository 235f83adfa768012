/* nodeport.c - services for traffic that is no pod's: from outside (NodePort, externalIP, LoadBalancer,
 * hostPort; rows 8 and 9 of docs/datapath.md), and the host's own to whatever service.
 *
 * Called by north_south.c for frames from and to netdev and from cilium_host, by ingress.c and egress.c
 * for what comes from and goes to the overlay.
 * Source: datapath reference 4.3, 4.5, 4.9 (nodeport_lb4, rev_nodeport_lb4), 4.10, era [C], SNAT mode.
 *
 * Theory. The client's flow to the backend is one conntrack entry of the egress kind, marked
 * NODE_PORT, with the service's rev_nat_id. A local backend sees the client; its answer is translated
 * as soon as it leaves the pod. For a remote one the node puts its own address in the client's place, the
 * router's through the tunnel, so that answers come back here and take both steps in reverse. ICMP
 * errors take the same ways: the packet they quote tells the flow.
 * The host is one more client. A backend that is the node itself would answer its own stack without
 * asking us, so for that one the loopback address stands in the client's place.
 */
#include "base/hash.h"
#include "path/path.h"

/* Bytes 4-7 and 8-11 of Cilium's default seed JLfvgnHc2kaSUFaI, as one number: nodes with the same
 * table and the same seed give one client the same backend. */
#define MAGLEV_SEED_IPV4 0x71dcda46u
#define MAGLEV_SEED_IPV6 0x92505688u

/* ---- choice ---- */

static uint32_t nodeport_word(const struct fwd_addr *addr, uint32_t n)
{
    uint32_t word;
    memcpy(&word, addr->b + n * 4, sizeof(word));
    return word;
}

/* maglev_hash: of a client; its port does not matter when it sticks to a backend ([C]). The
 * destination is left out, so that one client meets one backend on all addresses of a service. */
static uint32_t maglev_hash(const struct path *p, const struct lb_service *service)
{
    const struct fwd_addr *client = &p->parsed.saddr;
    uint32_t ports = (uint32_t)p->parsed.dport << 16;
    if (!(service->flags & FWD_SVC_AFFINITY))
        ports |= p->parsed.sport;
    if (p->parsed.family == 4)
        return jhash_words(path_v4(client), ports, p->parsed.proto, MAGLEV_SEED_IPV4);
    uint32_t w[3] = {nodeport_word(client, 0), nodeport_word(client, 1), nodeport_word(client, 2)};
    jhash_mix(w);
    w[0] += nodeport_word(client, 3);
    w[1] += ports;
    w[2] += p->parsed.proto;
    jhash_mix(w);
    w[0] += MAGLEV_SEED_IPV6;
    jhash_final(w);
    return w[2];
}

const struct lb_backend *path_maglev(const struct path *p, const struct lb_service *service)
{
    return lb_maglev(&p->dp->lb, service, maglev_hash(p, service));
}

/* nodeport_choose: may this client use the service, and which backend is it given? A ClusterIP is
 * refused before a backend is chosen, so that strangers leave nothing in conntrack. */
static enum fwd_drop nodeport_choose(struct path *p, const struct lb_service *service,
                                     const struct lb_backend **backend)
{
    if (service->flags & FWD_SVC_SOURCE_RANGE &&
        !lb_source_allowed(&p->dp->lb, service->rev_nat_id, &p->parsed.saddr))
        return FWD_DROP_DENIED_BY_LB_SRC_RANGE_CHECK;
    if (!service->key.proto) /* the wildcard: a known address, another port */
        return FWD_DROP_SERVICE_BACKEND_NOT_FOUND;
    if (!(service->flags & FWD_SVC_ROUTABLE))
        return FWD_DROP_IS_A_CLUSTERIP;
    enum fwd_drop drop = path_lb_local(p, service, backend);
    if (!drop && service->flags & FWD_SVC_HOST_PORT &&
        !lxc_lookup(p->dp->lxc, &(*backend)->addr))
        drop = FWD_DROP_INVALID_PACKET_DROPPED; /* a hostPort is its own host's */
    return drop;
}

/* ---- the way in ---- */

/* nodeport_by_host: is the client the node itself? */
static bool nodeport_by_host(const struct path *p)
{
    return p->pkt->port == FWD_PORT_HOST && p->src_identity == FWD_ID_HOST;
}

/* nodeport_track: translate, and the entry by which answers will be known. Its source is the world
 * whatever the client's identity (4.9/5), or the host. */
static enum fwd_drop nodeport_track(struct path *p, const struct lb_service *service,
                                    const struct lb_backend *backend)
{
    uint32_t client = p->src_identity;
    p->rev_nat_id = service->rev_nat_id;
    path_nat(p, false, &backend->addr, backend->port);
    path_load_tuple(p);
    enum fwd_drop drop = stage_ct_lookup(p, CT_EGRESS);
    if (drop)
        return drop;
    if (!nodeport_by_host(p))
        p->src_identity = FWD_ID_WORLD;
    drop = stage_ct_write(p, CT_EGRESS);
    p->src_identity = client;
    return drop;
}

/* nodeport_out: leave by netdev. There is no FIB here: who owns netdev resolves the next hop. */
static void nodeport_out(struct path *p)
{
    path_trace(p, FWD_OBS_TO_NETWORK);
    path_send(p, FWD_TX_UNDERLAY, FWD_PORT_NETDEV);
}

/* nodeport_error: is it an ICMP error? Those go where the flow they quote goes. */
static bool nodeport_error(const struct path *p)
{
    return (p->loaded.flags & FWD_TUPLE_RELATED) != 0;
}

static enum fwd_drop nodeport_snat(struct path *p, const struct fwd_addr *behind)
{
    return nodeport_error(p) ? path_snat_error(p) : path_snat(p, behind);
}

/* nodeport_remote: to a backend on another node, under an address of ours. What the host would have
 * to send there itself cannot be handed back to it: it believes nobody who has its address. */
static enum fwd_drop nodeport_remote(struct path *p)
{
    p->dir = FWD_DIR_EGRESS;
    stage_ipcache_dst(p);
    bool tunnel = path_tunnelled(p), host = nodeport_by_host(p);
    if (host && !tunnel)
        return FWD_DROP_STALE_OR_UNROUTABLE_IP;
    enum fwd_drop drop =
        tunnel ? stage_mtu(p) : stage_l3(p, p->settings->router_mac, NULL);
    if (!drop)
        drop = nodeport_snat(p, tunnel ? path_router(p) : path_node(p));
    if (drop)
        return drop;
    if (!host)
        p->src_identity = p->out->src_identity = FWD_ID_WORLD;
    if (tunnel) {
        stage_mss(p);
        return path_encap(p, p->dst);
    }
    nodeport_out(p);
    return FWD_DROP_NONE;
}

static enum fwd_drop nodeport_forward(struct path *p)
{
    const struct fwd_lxc_row *local = lxc_lookup(p->dp->lxc, &p->parsed.daddr);
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_LOCAL, .flag = local != NULL,
                                   .a = local ? local->lxc_id : 0, .b = local ? local->flags : 0,
                                   .addr = p->parsed.daddr});
    if (!local)
        return nodeport_remote(p);
    if (!(local->flags & FWD_LXC_HOST)) {
        path_deliver_local(p, local->lxc_id);
        return FWD_DROP_NONE;
    }
    if (nodeport_by_host(p)) {
        enum fwd_drop drop = nodeport_snat(p, path_loopback(p));
        if (drop)
            return drop;
        path_to_stack(p, p->settings->router_mac, p->settings->host_mac);
        return FWD_DROP_NONE;
    }
    path_send(p, FWD_TO_STACK, FWD_PORT_HOST);
    return FWD_DROP_NONE;
}

/* nodeport_ports: is it a packet with ports, be they its first fragment's? */
static bool nodeport_ports(struct path *p)
{
    uint8_t proto = p->parsed.proto;
    if (p->l3_drop ||
        (proto != PROTO_TCP && proto != PROTO_UDP && proto != PROTO_SCTP))
        return false;
    if (p->parsed.fragment && (!p->settings->fragments || stage_fragment(p)))
        return false;
    return !p->tuple_drop;
}

/* nodeport_told: a client complains about an answer: to its backend. */
static bool nodeport_told(struct path *p)
{
    if (!path_error_outside(p))
        return false;
    enum fwd_drop drop = nodeport_forward(p);
    if (drop)
        path_drop(p, drop);
    return true;
}

/* nodeport_enter: to the chosen backend, or no further. */
static void nodeport_enter(struct path *p, const struct lb_service *service,
                           const struct lb_backend *backend, enum fwd_drop drop)
{
    path_lb_step(p, service, backend, drop);
    if (!drop)
        drop = nodeport_track(p, service, backend);
    if (!drop)
        drop = nodeport_forward(p);
    if (drop)
        path_refuse(p, drop);
}

bool path_nodeport(struct path *p)
{
    if (!p->settings->nodeport)
        return false;
    if (!nodeport_ports(p))
        return nodeport_told(p);
    const struct lb_backend *backend = NULL;
    const struct lb_service *service =
        lb_lookup_outside(&p->dp->lb, &p->parsed.daddr, p->parsed.dport, p->parsed.proto);
    if (!service)
        return false;
    p->from_outside = p->by_maglev = true;
    enum fwd_drop drop = nodeport_choose(p, service, &backend);
    nodeport_enter(p, service, backend, drop);
    return true;
}

bool path_host_service(struct path *p)
{
    if (!nodeport_by_host(p))
        return false;
    if (addr_equal(&p->parsed.daddr, path_loopback(p)))
        return path_nodeport_reply(p);
    if (!nodeport_ports(p))
        return nodeport_told(p);
    const struct lb_backend *backend = NULL;
    const struct lb_service *service =
        lb_lookup(&p->dp->lb, &p->parsed.daddr, p->parsed.dport, p->parsed.proto);
    if (!service)
        return false;
    p->from_outside = true;
    enum fwd_drop drop = path_lb_local(p, service, &backend);
    nodeport_enter(p, service, backend, drop);
    return true;
}

/* ---- the way back ---- */

/* nodeport_rev_nat: give an answer the service's address. False: it is none of ours. */
static bool nodeport_rev_nat(struct path *p)
{
    struct ct_tuple flow = p->loaded;
    struct ct_state state;
    flow.flags = FWD_TUPLE_OUT;
    if (!ct_get(&p->dp->ct, &flow, p->hash, &state) || !(state.flags & FWD_CT_NODE_PORT) ||
        !state.rev_nat_id || stage_ct_lookup(p, CT_INGRESS) || p->ct_status != FWD_CT_REPLY)
        return false;
    stage_rev_nat(p);
    return true;
}

/* nodeport_answer: to the client: the host, or through the tunnel when it lives behind one, else out of
 * netdev. */
static void nodeport_answer(struct path *p)
{
    enum fwd_drop drop;
    const struct fwd_lxc_row *own = lxc_lookup(p->dp->lxc, &p->parsed.daddr);
    stage_ipcache_dst(p);
    if (p->from_tunnel)
        stage_mss(p);
    if (own && own->flags & FWD_LXC_HOST) {
        path_to_stack(p, p->settings->router_mac, p->settings->host_mac);
        return;
    }
    if (path_tunnelled(p)) {
        p->dir = FWD_DIR_EGRESS;
        p->src_identity = p->out->src_identity = FWD_ID_WORLD; /* as the service's (4.9/6) */
        p->nat_done = true;
        drop = path_encap(p, p->dst);
    } else if (!(drop = stage_l3(p, p->settings->router_mac, NULL))) {
        nodeport_out(p);
    }
    if (drop)
        path_drop(p, drop);
}

bool path_nodeport_reply(struct path *p)
{
    const struct fwd_addr *own[] = {path_node(p), path_router(p), path_loopback(p)};
    bool error = nodeport_error(p), ours = false;
    bool netdev = p->pkt->port == FWD_PORT_NETDEV; /* the host's own never come back there */
    if ((netdev && !p->settings->nodeport) || (!error && !nodeport_ports(p)))
        return false;
    for (uint32_t i = 0; i < 3 && !ours; i++)
        ours = error ? path_rev_snat_error(p, own[i]) : path_rev_snat(p, own[i]);
    if (!ours)
        return false;
    path_load_tuple(p);
    if (!(error ? path_error_leave(p) : nodeport_rev_nat(p)))
        return false; /* a pod's or the host's own flow: the usual way from here on */
    nodeport_answer(p);
    return true;
}

static bool nodeport_leave(struct path *p)
{
    if (!lxc_lookup(p->dp->lxc, &p->parsed.saddr))
        return false;
    if (nodeport_error(p))
        return path_error_leave(p);
    return nodeport_ports(p) && nodeport_rev_nat(p);
}

bool path_nodeport_leave(struct path *p)
{
    return p->settings->nodeport && nodeport_leave(p);
}

/* path_nat_fwd: answers of local backends to clients behind the tunnel get the service's address;
 * what the host sends from the router's has its port in the table of those who hide behind it. */
enum fwd_drop path_nat_fwd(struct path *p)
{
    bool request = p->ct_status == FWD_CT_NEW || p->ct_status == FWD_CT_ESTABLISHED;
    if (!p->settings->nodeport || p->nat_done)
        return FWD_DROP_NONE;
    if (!request && path_nodeport_leave(p)) {
        p->src_identity = p->out->src_identity = FWD_ID_WORLD; /* as the service's (4.9/6) */
        return FWD_DROP_NONE;
    }
    return path_reserve(p, path_router(p));
}

bool path_nodeport_return(struct path *p)
{
    bool answer = p->ct_status == FWD_CT_REPLY || p->ct_status == FWD_CT_RELATED;
    if (!answer || !(p->ct_state.flags & FWD_CT_NODE_PORT) || !nodeport_leave(p))
        return false;
    nodeport_answer(p);
    return true;
}
