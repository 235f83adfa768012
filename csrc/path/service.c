/* service.c - row 1 of docs/datapath.md, services for traffic of pods, and reverse NAT at row 11.
 *
 * Called by egress.c (stage_lb, before conntrack, so that policy and ipcache see the backend), by
 * ingress.c (stage_loopback, stage_rev_nat) and nodeport.c. Translation happens here alone, both ways.
 * Source: datapath reference 4.1, 4.2, 4.4, 4.7, 4.8, era [C]; RFC 1624 for the checksums.
 */
#include "base/checksum.h"
#include "path/path.h"

/* ---- rewriting ---- */

/* nat_l4_check: where the L4 checksum lies that covers addresses or ports; NULL = nowhere. */
static uint8_t *nat_l4_check(const struct path *p)
{
    uint8_t *l4 = pkt_data(p->pkt) + p->parsed.l4_off;
    if (p->parsed.later_fragment)
        return NULL;
    switch (p->parsed.proto) {
    case PROTO_TCP:
        return l4 + 16;
    case PROTO_UDP:
        return l4 + 6;
    case PROTO_ICMPV6:
        return l4 + 2;
    default: /* ICMPv4 covers no addresses, SCTP's CRC neither; its ports are never changed */
        return NULL;
    }
}

/* nat_fix_l4: a partial checksum is a folded pseudo-header sum, which ports are not part of; a UDP
 * checksum of zero means none and stays (datapath reference 7.6). */
static void nat_fix_l4(struct path *p, uint64_t addr_diff, uint64_t port_diff)
{
    uint8_t *at = nat_l4_check(p);
    if (!at)
        return;
    uint16_t check = load16(at);
    if (p->pkt->vnet_flags & FWD_VNET_NEEDS_CSUM) {
        store16(at, (uint16_t)~csum_fold((uint64_t)check + addr_diff));
        return;
    }
    bool udp = p->parsed.proto == PROTO_UDP;
    if (udp && check == 0)
        return;
    check = csum_apply(check, addr_diff + port_diff);
    store16(at, udp && check == 0 ? 0xffff : check);
}

void path_nat(struct path *p, bool source, const struct fwd_addr *addr, uint16_t port)
{
    struct parsed *parsed = &p->parsed;
    uint8_t *ip = pkt_data(p->pkt) + ETH_HLEN;
    bool v4 = parsed->family == 4;
    uint32_t len = v4 ? 4 : 16;
    uint8_t *at = ip + (v4 ? (source ? 12 : 16) : (source ? 8 : 24));
    uint64_t addr_diff = csum_diff(at, addr->b + 16 - len, len), port_diff = 0;
    memcpy(at, addr->b + 16 - len, len);
    if (v4)
        store16(ip + 10, csum_apply(load16(ip + 10), addr_diff));
    *(source ? &parsed->saddr : &parsed->daddr) = *addr;
    if (port && (parsed->proto == PROTO_TCP || parsed->proto == PROTO_UDP)) {
        uint16_t *known = source ? &parsed->sport : &parsed->dport;
        uint8_t *l4 = pkt_data(p->pkt) + parsed->l4_off + (source ? 0 : 2);
        port_diff = (uint64_t)(uint16_t)~*known + port;
        *known = port;
        if (!parsed->later_fragment)
            store16(l4, port);
    }
    nat_fix_l4(p, addr_diff, port_diff);
}

/* ---- row 1 ---- */

/* lb_choose: the backend a service flow starts with, or goes over to. */
static const struct lb_backend *lb_choose(struct path *p, const struct lb_service *service)
{
    const struct lb_backend *backend = NULL;
    if (service->flags & FWD_SVC_AFFINITY)
        backend = lb_affinity_get(&p->dp->lb, service, &p->parsed.saddr, p->ct_packet.now_s);
    if (!backend && p->by_maglev)
        backend = path_maglev(p, service);
    /* The flow's hash is keyed by the arena's seed: random to clients, the same in a replay. */
    return backend ? backend : lb_select(&p->dp->lb, service, p->hash >> 16);
}

/* Stick to the backend of a known flow, choose one for a new flow (4.2, [C]). */
enum fwd_drop path_lb_local(struct path *p, const struct lb_service *service,
                            const struct lb_backend **chosen)
{
    struct ct *ct = &p->dp->ct;
    struct ct_tuple tuple = p->loaded;
    struct ct_state state = {0};
    uint32_t monitor;
    p->ct_packet.len = p->pkt->len;
    enum fwd_ct_status status = ct_lookup(ct, p->settings, &tuple, p->hash, CT_SERVICE,
                                          CT_SCOPE_BIDIR, &p->ct_packet, &state, &monitor);
    bool known = status != FWD_CT_NEW && state.rev_nat_id == service->rev_nat_id;
    const struct lb_backend *backend = known ? lb_backend_get(&p->dp->lb, state.backend_id) : NULL;
    /* A backend that drains keeps its connections but takes no new one. */
    if (backend && backend->state != FWD_BACKEND_ACTIVE && p->ct_packet.tcp_flags & TCP_SYN)
        backend = NULL;
    if (!backend) {
        backend = lb_choose(p, service);
        if (!backend)
            return FWD_DROP_SERVICE_BACKEND_NOT_FOUND;
        state = (struct ct_state){.backend_id = backend->id, .rev_nat_id = service->rev_nat_id,
                                  .src_identity = p->src_identity};
        bool updated = known && ct_update_state(ct, &tuple, p->hash, &state);
        if (!updated && ct_create(ct, p->settings, &tuple, p->hash, CT_SERVICE, &p->ct_packet,
                                  &state))
            return FWD_DROP_CT_MAP_INSERTION_FAILED;
    }
    if (service->flags & FWD_SVC_AFFINITY)
        lb_affinity_set(&p->dp->lb, service, &p->parsed.saddr, backend->id, p->ct_packet.now_s);
    *chosen = backend;
    return FWD_DROP_NONE;
}

void path_lb_step(struct path *p, const struct lb_service *service,
                  const struct lb_backend *backend, enum fwd_drop drop)
{
    if (!p->steps)
        return;
    struct fwd_step step = {.stage = FWD_STAGE_LB, .drop = (uint8_t)drop, .flag = service != NULL,
                            .len = p->parsed.proto, .addr = p->parsed.daddr,
                            .d = (uint32_t)be16_to_host(p->parsed.dport) << 16};
    if (service)
        step.a = service->rev_nat_id;
    if (backend) {
        step.b = path_v4(&backend->addr);
        step.c = backend->id;
        step.d |= be16_to_host(backend->port ? backend->port : p->parsed.dport);
    }
    path_step(p, step);
}

enum fwd_drop stage_lb(struct path *p)
{
    uint8_t proto = p->parsed.proto;
    bool ports = proto == PROTO_TCP || proto == PROTO_UDP || proto == PROTO_SCTP;
    if (p->tuple_drop || !ports) {
        path_error_lb(p);
        return FWD_DROP_NONE;
    }
    const struct lb_backend *backend = NULL;
    const struct lb_service *service =
        lb_lookup(&p->dp->lb, &p->parsed.daddr, p->parsed.dport, proto);
    enum fwd_drop drop = service ? path_lb_local(p, service, &backend) : FWD_DROP_NONE;
    path_lb_step(p, service, backend, drop);
    if (!backend)
        return drop;
    p->rev_nat_id = service->rev_nat_id;
    if (addr_equal(&p->parsed.saddr, &backend->addr) && !addr_is_zero(path_loopback(p))) {
        p->hairpin = true;
        path_nat(p, true, path_loopback(p), 0);
    }
    path_nat(p, false, &backend->addr, backend->port);
    path_load_tuple(p);
    return FWD_DROP_NONE;
}

void path_undo_lb(struct path *p)
{
    const struct lb_frontend *frontend =
        p->rev_nat_id ? lb_rev_nat_get(&p->dp->lb, p->rev_nat_id) : NULL;
    const struct fwd_addr backend = p->parsed.daddr;
    if (!frontend)
        return;
    if (p->hairpin)
        path_nat(p, true, &backend, 0);
    path_nat(p, false, &frontend->addr, frontend->port);
}

/* ---- row 11 ---- */

void stage_loopback(struct path *p)
{
    struct ct_tuple sent = p->tuple;
    struct ct_state state;
    if (p->ct_status != FWD_CT_NEW || !addr_equal(&p->parsed.saddr, path_loopback(p)))
        return;
    sent.flags = FWD_TUPLE_OUT; /* the entry that the same pod's sending side has just made */
    if (ct_get(&p->dp->ct, &sent, p->hash, &state) && state.flags & FWD_CT_LB_LOOPBACK) {
        p->hairpin = true;
        p->rev_nat_id = state.rev_nat_id;
    }
}

enum fwd_drop stage_rev_nat(struct path *p)
{
    if (path_error_rev_nat(p))
        return FWD_DROP_NONE;
    bool answer = p->ct_status == FWD_CT_REPLY || p->ct_status == FWD_CT_RELATED;
    if (!answer || !p->ct_state.rev_nat_id)
        return FWD_DROP_NONE;
    const struct lb_frontend *frontend = lb_rev_nat_get(&p->dp->lb, p->ct_state.rev_nat_id);
    struct fwd_step step = {.stage = FWD_STAGE_REV_NAT, .flag = frontend != NULL,
                            .a = p->ct_state.rev_nat_id};
    if (frontend) {
        struct fwd_addr backend = p->parsed.saddr;
        step.b = path_v4(&frontend->addr);
        step.d = (uint32_t)be16_to_host(frontend->port) << 16 | be16_to_host(p->parsed.sport);
        step.addr = frontend->addr;
        if (p->ct_state.flags & FWD_CT_LB_LOOPBACK)
            path_nat(p, false, &backend, 0);
        path_nat(p, true, &frontend->addr, frontend->port);
    }
    path_step(p, step); /* an unknown id is no error: the frontend was removed, replies go on */
    return FWD_DROP_NONE;
}
