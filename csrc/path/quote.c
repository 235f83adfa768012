/* quote.c - ICMP errors about flows that are translated: what they quote is translated, too, and the
 * error's own checksum follows.
 *
 * Called by service.c (path_error_lb at row 1, path_error_rev_nat at row 11) and by nodeport.c for
 * clients from outside; quote_find and quote_nat by nat.c as well. Conntrack looks at an error's outer addresses only (datapath reference
 * 3.4), so flows of two services with one backend, and routers on the way, are told apart here.
 */
#include "base/checksum.h"
#include "path/path.h"

enum { QUOTE_OFF = 8 }; /* behind the ICMP header */

static bool quote_ports(struct quote *quote)
{
    bool known = quote->proto == PROTO_TCP || quote->proto == PROTO_UDP;
    if (!known || quote->l4_off + 4 > quote->len)
        return false;
    quote->sport = load16(quote->ip + quote->l4_off);
    quote->dport = load16(quote->ip + quote->l4_off + 2);
    return true;
}

static bool quote_find_ipv4(struct quote *quote)
{
    const uint8_t *ip = quote->ip;
    if (quote->len < IPV4_HLEN || ip[0] >> 4 != 4 || (ip[0] & 15) * 4u < IPV4_HLEN ||
        (get_be16(ip + 6) & 0x1fff) != 0)
        return false;
    quote->l4_off = (ip[0] & 15) * 4u;
    quote->proto = ip[9];
    addr_from_v4(&quote->saddr, ip + 12);
    addr_from_v4(&quote->daddr, ip + 16);
    return quote_ports(quote);
}

static bool quote_find_ipv6(struct quote *quote)
{
    const uint8_t *ip = quote->ip;
    if (quote->len < IPV6_HLEN || ip[0] >> 4 != 6)
        return false;
    quote->l4_off = IPV6_HLEN;
    quote->proto = ip[6]; /* extension headers: not looked behind, no flow of ours has them */
    memcpy(quote->saddr.b, ip + 8, 16);
    memcpy(quote->daddr.b, ip + 24, 16);
    return quote_ports(quote);
}

bool quote_find(const struct path *p, struct quote *quote)
{
    const struct parsed *parsed = &p->parsed;
    if (!(p->loaded.flags & FWD_TUPLE_RELATED) || parsed->fragment || parsed->l4_len < QUOTE_OFF)
        return false;
    quote->ip = pkt_data(p->pkt) + parsed->l4_off + QUOTE_OFF;
    quote->len = parsed->l4_len - QUOTE_OFF;
    quote->v4 = parsed->family == 4;
    return quote->v4 ? quote_find_ipv4(quote) : quote_find_ipv6(quote);
}

/* quote_check: where the quoted L4 checksum lies, NULL = not quoted, or none was sent. */
static uint8_t *quote_check(const struct quote *quote)
{
    uint32_t off = quote->l4_off;
    switch (quote->proto) {
    case PROTO_TCP:
        off += 16;
        break;
    case PROTO_UDP:
        off += 6;
        break;
    case PROTO_ICMPV6:
        off += 2;
        break;
    default:
        return NULL; /* an echo's covers no addresses */
    }
    uint8_t *at = quote->ip + off;
    return off + 2 > quote->len || (quote->proto == PROTO_UDP && load16(at) == 0) ? NULL : at;
}

void quote_nat(struct path *p, struct quote *quote, bool source, const struct fwd_addr *addr,
               uint16_t port)
{
    uint32_t len = quote->v4 ? 4 : 16;
    uint8_t *at = quote->ip + (quote->v4 ? (source ? 12 : 16) : (source ? 8 : 24));
    uint64_t addr_diff = csum_diff(at, addr->b + 16 - len, len), port_diff = 0;
    memcpy(at, addr->b + 16 - len, len);
    uint64_t diff = addr_diff;
    if (quote->v4)
        diff += csum_change(quote->ip + 10, addr_diff);
    if (port) {
        uint8_t *old = quote->ip + quote->l4_off + (source ? 0 : 2);
        port_diff = csum_diff(old, (const uint8_t *)&port, 2);
        store16(old, port);
    }
    uint8_t *check = quote_check(quote);
    if (check)
        diff += csum_change(check, addr_diff + port_diff);
    if (!(p->pkt->vnet_flags & FWD_VNET_NEEDS_CSUM)) /* else it is not summed up yet */
        csum_change(pkt_data(p->pkt) + p->parsed.l4_off + 2, diff + port_diff);
}

static void quote_step(struct path *p, enum fwd_stage stage, const struct lb_frontend *frontend,
                       const struct ct_state *state, const struct quote *quote)
{
    path_step(p, (struct fwd_step){
        .stage = (uint8_t)stage, .flag = 1, .a = state->rev_nat_id,
        .b = path_v4(&frontend->addr), .c = state->backend_id, .len = quote->proto,
        .d = (uint32_t)be16_to_host(frontend->port) << 16 |
             be16_to_host(stage == FWD_STAGE_LB ? quote->sport : quote->dport),
        .addr = frontend->addr});
}

static bool quote_ct(const struct path *p, const struct ct_tuple *key, struct ct_state *state)
{
    return ct_get(&p->dp->ct, key, ct_hash(p->dp->ct.seed, key), state);
}

/* quote_backend: who sent the answer that is quoted, NULL = no service's backend. The answer came
 * from the frontend, so it reads like a service entry. */
static const struct lb_backend *quote_backend(const struct path *p, const struct quote *quote,
                                              struct ct_state *state)
{
    struct ct_tuple key = {.saddr = quote->daddr, .daddr = quote->saddr, .sport = quote->sport,
                           .dport = quote->dport, .proto = quote->proto,
                           .flags = FWD_TUPLE_SERVICE};
    return quote_ct(p, &key, state) ? lb_backend_get(&p->dp->lb, state->backend_id) : NULL;
}

/* quote_lb: the quoted answer, and the error itself, as @backend knows them. */
static void quote_lb(struct path *p, struct quote *quote, const struct ct_state *state,
                     const struct lb_backend *backend)
{
    const struct lb_frontend frontend = {.addr = quote->saddr, .port = quote->sport};
    quote_step(p, FWD_STAGE_LB, &frontend, state, quote);
    quote_nat(p, quote, true, &backend->addr, backend->port);
    path_nat(p, false, &backend->addr, 0);
}

bool path_error_lb(struct path *p)
{
    struct quote quote;
    struct ct_state state;
    if (!quote_find(p, &quote) || !addr_equal(&quote.saddr, &p->parsed.daddr) ||
        !addr_equal(&quote.daddr, &p->parsed.saddr))
        return false;
    const struct lb_backend *backend = quote_backend(p, &quote, &state);
    if (!backend)
        return false;
    quote_lb(p, &quote, &state, backend);
    if (addr_equal(&backend->addr, &p->parsed.saddr) && !addr_is_zero(path_loopback(p))) {
        p->hairpin = true;
        quote_nat(p, &quote, false, path_loopback(p), 0);
        path_nat(p, true, path_loopback(p), 0);
    }
    p->rev_nat_id = state.rev_nat_id;
    path_load_tuple(p);
    return true;
}

bool path_error_outside(struct path *p)
{
    struct quote quote;
    struct ct_state state, flow;
    if (!quote_find(p, &quote) || !addr_equal(&quote.saddr, &p->parsed.daddr))
        return false;
    const struct lb_backend *backend = quote_backend(p, &quote, &state);
    if (!backend)
        return false;
    /* Pods have service entries, too: those are no business of anybody's from outside. */
    struct ct_tuple key = {.saddr = backend->addr, .daddr = quote.daddr, .sport = quote.dport,
                           .dport = backend->port ? backend->port : quote.sport,
                           .proto = quote.proto, .flags = FWD_TUPLE_OUT};
    if (!quote_ct(p, &key, &flow) || !(flow.flags & FWD_CT_NODE_PORT))
        return false;
    quote_lb(p, &quote, &state, backend);
    path_load_tuple(p);
    return true;
}

bool path_error_rev_nat(struct path *p)
{
    struct quote quote;
    struct ct_state state;
    if (!quote_find(p, &quote) || !addr_equal(&quote.saddr, &p->parsed.daddr))
        return false;
    /* The quoted packet is the pod's own as it left the node, after the backend was chosen. */
    struct ct_tuple key = {.saddr = quote.daddr, .daddr = quote.saddr, .sport = quote.sport,
                           .dport = quote.dport, .proto = quote.proto, .flags = FWD_TUPLE_OUT};
    const struct fwd_addr backend = quote.daddr;
    bool from_backend = addr_equal(&p->parsed.saddr, &backend);
    if (!quote_ct(p, &key, &state))
        return false;
    const struct lb_frontend *frontend =
        state.rev_nat_id ? lb_rev_nat_get(&p->dp->lb, state.rev_nat_id) : NULL;
    if (!frontend)
        return true; /* the flow is known and went to no service: nothing to translate back */
    quote_step(p, FWD_STAGE_REV_NAT, frontend, &state, &quote);
    if (state.flags & FWD_CT_LB_LOOPBACK) {
        quote_nat(p, &quote, true, &backend, 0);
        path_nat(p, false, &backend, 0);
    }
    quote_nat(p, &quote, false, &frontend->addr, frontend->port);
    if (from_backend) /* a router on the way keeps its own address */
        path_nat(p, true, &frontend->addr, 0);
    return true;
}

bool path_error_leave(struct path *p)
{
    struct quote quote;
    struct ct_state state;
    if (!quote_find(p, &quote) || !addr_equal(&quote.saddr, &p->parsed.daddr))
        return false;
    struct ct_tuple key = {.saddr = quote.daddr, .daddr = quote.saddr, .sport = quote.sport,
                           .dport = quote.dport, .proto = quote.proto, .flags = FWD_TUPLE_OUT};
    if (!quote_ct(p, &key, &state) || !(state.flags & FWD_CT_NODE_PORT) || !state.rev_nat_id)
        return false;
    const struct lb_frontend *frontend = lb_rev_nat_get(&p->dp->lb, state.rev_nat_id);
    if (!frontend)
        return false;
    quote_step(p, FWD_STAGE_REV_NAT, frontend, &state, &quote);
    quote_nat(p, &quote, false, &frontend->addr, frontend->port);
    path_nat(p, true, &frontend->addr, 0); /* what is behind the service has no address outside */
    path_load_tuple(p);
    return true;
}
