/* path.h - the packet's context, and the contract of stages and hooks (D4).
 *
 * A stage is `enum fwd_drop stage_x(struct path *p)`, static where one side alone runs it: 0 = go
 * on, else the reason. It touches p and the tables, nothing else. A hook is a straight list of
 * stages and ends in one verdict. Hooks alone pass observation points (stage_policy its verdict's);
 * path_drop in dp.c alone counts and reports a drop.
 * Fields are grouped by who writes them; what one group reads was written by one above it.
 */
#ifndef FWD_PATH_PATH_H
#define FWD_PATH_PATH_H

#include "base/parse.h"
#include "tables/arena.h"

struct path {
    /* dp.c, before the first stage */
    struct fwd_dp *dp;
    const struct fwd_settings *settings;
    struct fwd_pkt *pkt;
    struct fwd_out *out;
    uint64_t now_ns;
    struct fwd_step *steps;     /* NULL = nobody asks */

    /* first pass */
    enum fwd_drop decap_drop;   /* what the first pass found; each hook reports it in its own order */
    enum fwd_drop eth_drop, l3_drop, tuple_drop;
    uint32_t vni;               /* from-overlay: as received */
    uint32_t datagram_len;      /* from-overlay: UDP payload length */
    struct ct_tuple loaded;     /* unflipped, see ct_tuple_load */
    struct ct_packet ct_packet;
    uint64_t hash;

    /* the hooks' entry */
    struct endpoint *endpoint;  /* the one whose program speaks: sender at egress, receiver at ingress */
    uint32_t src_identity, dst_identity;
    enum fwd_dir dir;           /* direction drops are counted under */
    bool from_tunnel;
    bool from_outside;          /* nodeport.c: to a service, from outside or the host */
    bool by_maglev;             /* and from outside: the same backend on every node */
    bool fragment_known;        /* stage_fragment has spoken */
    bool nat_done;              /* its addresses are final, or another frame took its place */

    /* stage_lb */
    uint16_t rev_nat_id;        /* of the service this packet was sent to, 0 = none */
    bool hairpin;               /* a pod that reaches itself, by stage_lb or its ct entry */

    /* stage_ipcache_dst */
    const struct ipcache_entry *dst; /* NULL = miss */

    /* stage_ct_lookup, stage_policy */
    enum fwd_ct_status ct_status;
    struct ct_tuple tuple;      /* the matching key, or the one to create with */
    struct ct_state ct_state;
    uint32_t monitor;
    uint32_t policy_entry;
    struct fwd_addr orig_saddr; /* before reverse NAT; reported as orig-ip */

    /* first pass again; last, because parse_eth clears it itself */
    struct parsed parsed;
};

/* ---- dp.c: observation and the exits; only hooks call these ---- */

/* path_trace_event: report an observation point to those who listen. Called by path_trace alone. */
void path_trace_event(struct path *p, enum fwd_obs obs);

/* path_policy_verdict: the policy-verdict event; @drop 0 = allowed, @audited = it passes for all
 * that. */
void path_policy_verdict(struct path *p, enum fwd_drop drop, bool audited);

/* path_send, path_punt, path_drop: the verdicts. path_drop counts and reports, nobody else does.
 * path_punt drops instead when the endpoint has used up its tokens. */
void path_send(struct path *p, enum fwd_verdict verdict, uint32_t port);
void path_punt(struct path *p);
void path_drop(struct path *p, enum fwd_drop drop);
/* path_answered: report @drop like path_drop, count it under @metric: an answer is on its way. */
void path_answered(struct path *p, enum fwd_drop drop, enum fwd_metric metric);

/* ---- stage.c: stages both directions share ---- */

enum fwd_drop stage_parse(struct path *p);
enum fwd_drop stage_fragment(struct path *p);
enum fwd_drop stage_ct_lookup(struct path *p, enum ct_dir dir);
enum fwd_drop stage_ipcache_dst(struct path *p);
enum fwd_drop stage_policy(struct path *p, enum ct_dir dir);
enum fwd_drop stage_ct_write(struct path *p, enum ct_dir dir);
/* stage_l3: one hop: TTL - 1, then the MACs that are not NULL (datapath reference 7.1). */
enum fwd_drop stage_l3(struct path *p, const uint8_t *smac, const uint8_t *dmac);

/* ---- service.c: row 1 and its reverse ---- */

enum fwd_drop stage_lb(struct path *p);
enum fwd_drop stage_rev_nat(struct path *p);
/* stage_loopback: does a new packet at the receiver come from itself through a service (4.8)? */
void stage_loopback(struct path *p);
/* path_nat: another source or destination. @port be16, 0 = keep; later fragments have none. */
void path_nat(struct path *p, bool source, const struct fwd_addr *addr, uint16_t port);
/* path_lb_local: the backend of a packet to @service. path_lb_step: and its step. */
enum fwd_drop path_lb_local(struct path *p, const struct lb_service *service,
                            const struct lb_backend **chosen);
void path_lb_step(struct path *p, const struct lb_service *service,
                  const struct lb_backend *backend, enum fwd_drop drop);
/* path_undo_lb: give a pod's packet back the addresses it was sent with, for an error to quote. */
void path_undo_lb(struct path *p);
/* path_load_tuple: tuple and hash after the headers changed. */
void path_load_tuple(struct path *p);

/* ---- icmp_error.c ---- */

/* path_refuse: path_drop for a packet whose sender may be told: where the settings, the protocol
 * and the sender's error tokens allow it, an ICMP error goes back in the packet's place. */
void path_refuse(struct path *p, enum fwd_drop drop);
/* stage_mtu: does the packet fit the tunnel, or may it be fragmented on the way (6.2)? */
enum fwd_drop stage_mtu(struct path *p);
/* stage_mss: lower the MSS option of a SYN to what the tunnel carries (mss.c). */
void stage_mss(struct path *p);
/* path_nd: a pod's neighbour discovery, before its source is checked (7.5). True: verdict given. */
bool path_nd(struct path *p);

/* ---- quote.c ---- */

/* The packet an ICMP error quotes, as far as it is there. */
struct quote {
    uint8_t *ip;
    uint32_t len;               /* bytes of it */
    uint32_t l4_off;
    struct fwd_addr saddr, daddr;
    uint16_t sport, dport;      /* be16 */
    uint8_t proto;
    bool v4;
};
/* quote_find: the flow an ICMP error is about. False: the packet is none, or too little of the
 * flow's packet is quoted. */
bool quote_find(const struct path *p, struct quote *quote);
/* quote_nat: another source or destination in the quoted packet. Every word that changes goes into
 * the error's own checksum, too. @port be16, 0 = keep. */
void quote_nat(struct path *p, struct quote *quote, bool source, const struct fwd_addr *addr,
               uint16_t port);
/* path_error_lb, path_error_rev_nat: an ICMP error about a flow that goes through a service, from
 * the client and to it: addresses outside and inside the quoted packet. True: it was one. */
bool path_error_lb(struct path *p);
bool path_error_rev_nat(struct path *p);
/* path_error_outside, path_error_leave: the same for a client from outside: an error about an answer
 * it got reads as the backend's own, an error about its packet as the service's. Whoever speaks. */
bool path_error_outside(struct path *p);
bool path_error_leave(struct path *p);

/* ---- nat.c: masquerading, rows 8 and 9 ---- */

/* stage_snat: give a packet that leaves netdev the node's address where that is due. */
enum fwd_drop stage_snat(struct path *p);
/* stage_rev_snat: and take it from the answer again. What is nobody's mapping passes untouched. */
enum fwd_drop stage_rev_snat(struct path *p);

/* path_snat: give a packet this address as its source, whatever it is. */
enum fwd_drop path_snat(struct path *p, const struct fwd_addr *behind);
/* path_snat_error: an error about an answer that the packet's own flow got behind an address. */
enum fwd_drop path_snat_error(struct path *p);
/* path_reserve: what the node sends from @own into the overlay takes its port there, so that nobody
 * from outside is given the same one. */
enum fwd_drop path_reserve(struct path *p, const struct fwd_addr *own);
/* path_rev_snat: an answer to @own goes back to who hides behind it. False: to nobody. */
bool path_rev_snat(struct path *p, const struct fwd_addr *own);
/* path_rev_snat_error: and an error about what left under @own. */
bool path_rev_snat_error(struct path *p, const struct fwd_addr *own);

/* ---- nodeport.c: services for traffic from outside, and of the host ---- */

/* path_nodeport: a packet from netdev or the overlay to a service, or an error about its answer. True:
 * verdict given. */
bool path_nodeport(struct path *p);
/* path_host_service: what the host sends to a service, about its answer, or as its backend. True:
 * verdict given. */
bool path_host_service(struct path *p);
/* path_nodeport_reply: what came for the node itself, if it is a remote backend's answer, goes back
 * out to the client. True: verdict given. */
bool path_nodeport_reply(struct path *p);
/* path_nodeport_leave: an answer of a local backend on its way out gets the service's address. */
bool path_nodeport_leave(struct path *p);
/* path_nat_fwd: what the overlay's hook does with addresses (1.8, to-overlay). */
enum fwd_drop path_nat_fwd(struct path *p);
/* path_nodeport_return: that, when it leaves the pod (1.4/5), and out to the client. True: verdict
 * given. */
bool path_nodeport_return(struct path *p);
/* path_maglev: the backend that a service's Maglev table gives this client, NULL = ask the dice. */
const struct lb_backend *path_maglev(const struct path *p, const struct lb_service *service);

/* ---- hooks ---- */

void hook_from_container(struct path *p);                                  /* egress.c */
bool path_tunnelled(const struct path *p);                                 /* egress.c */
enum fwd_drop path_encap(struct path *p, const struct ipcache_entry *dst); /* egress.c: rows 6b-8 */
void hook_from_overlay(struct path *p);                                    /* ingress.c */
void hook_to_container(struct path *p, struct endpoint *endpoint);         /* ingress.c */
/* path_deliver_local: the edge from a sending to a receiving endpoint, row 6a or 10 to 11. */
void path_deliver_local(struct path *p, uint32_t lxc_id);                  /* ingress.c */
void hook_from_host(struct path *p);                                       /* north_south.c */
void hook_from_netdev(struct path *p);                                     /* north_south.c */
void hook_to_netdev(struct path *p);                                       /* north_south.c */
/* path_to_stack: one hop to the host, with these MACs (NULL = kept), past to-stack. path_pass: the
 * host gets the packet as it is, for it is none of ours: no hop, no observation point (1.8, 1.10). */
void path_to_stack(struct path *p, const uint8_t *smac, const uint8_t *dmac); /* north_south.c */
void path_pass(struct path *p);                                               /* north_south.c */

static inline void path_note(struct path *p, struct fwd_step step)
{
    if (p->out->n_steps < FWD_MAX_STEPS)
        p->steps[p->out->n_steps++] = step;
}

/* path_trace: the packet passes an observation point; counts what datapath reference 8.3 says. Inline
 * because @obs is a constant at every call. */
static inline void path_trace(struct path *p, enum fwd_obs obs)
{
    uint8_t reason = FWD_METRIC_FORWARDED, dir = FWD_DIR_EGRESS;
    bool counted = true;
    switch (obs) {
    case FWD_OBS_FROM_HOST:
    case FWD_OBS_FROM_STACK:
    case FWD_OBS_FROM_OVERLAY:
    case FWD_OBS_FROM_NETWORK:
        reason = FWD_METRIC_PLAINTEXT;
        dir = FWD_DIR_INGRESS;
        break;
    case FWD_OBS_TO_ENDPOINT:
        dir = FWD_DIR_INGRESS;
        break;
    case FWD_OBS_FROM_ENDPOINT:
    case FWD_OBS_FROM_PROXY:
    case FWD_OBS_TO_PROXY:
    case FWD_OBS_POLICY_VERDICT:
        counted = false;
        break;
    default:
        break;
    }
    if (p->out->n_trace < FWD_MAX_TRACE)
        p->out->trace[p->out->n_trace++] = (uint8_t)obs;
    if (counted)
        metrics_add(p->dp->metrics, reason, dir, p->pkt->len);
    if (p->settings->monitor_mask & FWD_MONITOR_TRACE && obs != FWD_OBS_POLICY_VERDICT)
        path_trace_event(p, obs);
}

/* path_loopback: the source of a pod that reaches itself, all zero = there is none (4.8). */
static inline const struct fwd_addr *path_loopback(const struct path *p)
{
    return p->parsed.family == 4 ? &p->settings->loopback : &p->settings->loopback6;
}

/* path_router: the node's address inside the overlay, of the packet's family. */
static inline const struct fwd_addr *path_router(const struct path *p)
{
    return p->parsed.family == 4 ? &p->settings->router_ip4 : &p->settings->router_ip6;
}

/* path_node: and the one outside of it. */
static inline const struct fwd_addr *path_node(const struct path *p)
{
    return p->parsed.family == 4 ? &p->settings->node_ip : &p->settings->node_ip6;
}

/* path_step: note what a stage saw, a struct fwd_step (see step.h), when somebody asks. A macro, so
 * that otherwise nothing of the step is made. */
#define path_step(p, ...) \
    do { \
        if ((p)->steps) \
            path_note((p), __VA_ARGS__); \
    } while (0)

/* path_v4: the IPv4 part of an address for a step's word, be32 as it lies. */
static inline uint32_t path_v4(const struct fwd_addr *addr)
{
    uint32_t v4;
    memcpy(&v4, addr->b + 12, sizeof(v4));
    return v4;
}

/* path_wire_identity: what the VNI says of an identity (datapath reference 6.4). Those with a high
 * byte never leave their node: 1 are parts of the world (CIDRs), 2 are remote nodes. */
static inline uint32_t path_wire_identity(uint32_t identity)
{
    if (identity == FWD_ID_HOST || identity >> 24 == 2)
        return FWD_ID_REMOTE_NODE;
    bool world = identity == FWD_ID_WORLD_IPV4 || identity == FWD_ID_WORLD_IPV6;
    return world || identity >> 24 ? FWD_ID_WORLD : identity;
}

#endif
