/* ct.c - connection tracking, see ct.h; third step of both hooks (docs/datapath.md rows 2 and 11).
 *
 * What entries mean: which tuple finds which, how long one lives, what FIN, RST and a new SYN do
 * to it. Where they lie is ct_map.c's business.
 * Source: datapath reference section 3, era [C]; Cilium bpf/lib/conntrack.h.
 *
 * Theory. A TCP entry is *open* (SYNs only, short life), *established* (one packet without SYN
 * was seen), *half closed* (FIN at one hook), *closed* (both hooks, or a RST before both SYNs were
 * seen): a closed one is no longer refreshed and runs out. A SYN on a closing entry makes it open
 * again and is reported as NEW, so that policy speaks and the entry is rewritten. Other protocols
 * only live and run out. Nothing here looks at expiry: a packet revives what was not swept yet.
 */
#include "tables/arena.h"
#include "tables/ct_map.h"

enum { CT_REBALANCE_S = 30 }; /* a closing service flow may pick a new backend after that */

enum {
    CT_CLOSING = FWD_CT_RX_CLOSING | FWD_CT_TX_CLOSING,
    CT_STATE_FLAGS = FWD_CT_LB_LOOPBACK | FWD_CT_NODE_PORT | FWD_CT_PROXY_REDIRECT | FWD_CT_DSR |
                     FWD_CT_FROM_L7LB | FWD_CT_FROM_TUNNEL,
};

static void ct_tuple_reverse(struct ct_tuple *tuple)
{
    struct fwd_addr addr = tuple->saddr;
    uint16_t port = tuple->sport;
    tuple->saddr = tuple->daddr;
    tuple->daddr = addr;
    tuple->sport = tuple->dport;
    tuple->dport = port;
}

/* ---- packets ---- */

static void ct_load_icmp(const struct parsed *parsed, struct ct_tuple *tuple,
                         struct ct_packet *packet)
{
    static const uint8_t types[2][6] = { /* request, reply, then the errors */
        {8, 0, 3, 11, 12, 12},
        {128, 129, 1, 2, 3, 4},
    };
    const uint8_t *type = types[parsed->family == 6];
    packet->action = CT_ACTION_CREATE;
    if (parsed->icmp_type == type[0]) {
        tuple->dport = parsed->icmp_id;
    } else if (parsed->icmp_type == type[1]) {
        tuple->sport = parsed->icmp_id;
        packet->action = CT_ACTION_NONE;
    } else if (memchr(type + 2, parsed->icmp_type, 4)) {
        tuple->flags |= FWD_TUPLE_RELATED;
        packet->action = CT_ACTION_NONE;
    }
}

enum fwd_drop ct_tuple_load(const struct parsed *parsed, struct ct_tuple *tuple,
                            struct ct_packet *packet)
{
    bool icmp = parsed->proto == (parsed->family == 6 ? PROTO_ICMPV6 : PROTO_ICMP);
    *tuple = (struct ct_tuple){
        .daddr = parsed->daddr, .saddr = parsed->saddr, .proto = parsed->proto};
    packet->tcp_flags = 0;
    packet->action = CT_ACTION_NONE;
    if (!icmp && parsed->proto != PROTO_TCP && parsed->proto != PROTO_UDP &&
        parsed->proto != PROTO_SCTP)
        return FWD_DROP_CT_UNKNOWN_L4_PROTOCOL;
    if (!parsed->has_l4 && !parsed->later_fragment)
        return FWD_DROP_CT_TRUNCATED_OR_INVALID_HEADER;
    if (icmp) {
        ct_load_icmp(parsed, tuple, packet);
        return FWD_DROP_NONE;
    }
    /* Crosswise: the unflipped tuple is the key of the flow this packet would be a reply of. */
    tuple->dport = parsed->sport;
    tuple->sport = parsed->dport;
    if (parsed->proto != PROTO_TCP || parsed->later_fragment)
        return FWD_DROP_NONE;
    packet->tcp_flags = parsed->tcp_flags;
    if (parsed->tcp_flags & (TCP_RST | TCP_FIN))
        packet->action = CT_ACTION_CLOSE;
    else if (parsed->tcp_flags & TCP_SYN)
        packet->action = CT_ACTION_CREATE;
    return FWD_DROP_NONE;
}

static bool ct_alive(const struct ct_entry *entry)
{
    return (entry->flags & CT_CLOSING) != CT_CLOSING;
}

/* ct_report: OR the flags seen by the hook of @dir. Return: bytes worth reporting, 0 = none. */
static uint32_t ct_report(struct ct_entry *entry, const struct fwd_settings *settings,
                          enum ct_dir dir, uint8_t tcp_flags, uint32_t now_s)
{
    bool rx = dir == CT_INGRESS;
    uint8_t *seen = rx ? &entry->rx_flags_seen : &entry->tx_flags_seen;
    uint32_t *last_s = rx ? &entry->last_rx_report_s : &entry->last_tx_report_s;
    uint8_t grown = *seen | tcp_flags;
    if (grown == *seen && (uint64_t)*last_s + settings->ct_report_interval_s >= now_s)
        return 0;
    *seen = grown;
    *last_s = now_s;
    return FWD_CAPTURE_LEN;
}

static uint32_t ct_refresh(struct ct_entry *entry, const struct fwd_settings *settings,
                           enum ct_dir dir, uint8_t proto, uint8_t tcp_flags, uint32_t now_s)
{
    bool service = dir == CT_SERVICE;
    uint32_t lifetime_s = service ? settings->ct_service_any_s : settings->ct_any_s;
    if (proto == PROTO_TCP) {
        if (!(tcp_flags & TCP_SYN))
            entry->flags |= FWD_CT_SEEN_NON_SYN;
        lifetime_s = service ? settings->ct_service_tcp_s : settings->ct_tcp_s;
        if (!(entry->flags & FWD_CT_SEEN_NON_SYN))
            lifetime_s = settings->ct_tcp_syn_s;
    }
    entry->expires_s = now_s + lifetime_s;
    return ct_report(entry, settings, dir, tcp_flags, now_s);
}

static void ct_count(struct ct_entry *entry, enum ct_dir dir, uint32_t len)
{
    *(dir == CT_INGRESS ? &entry->rx_packets : &entry->tx_packets) += 1;
    *(dir == CT_INGRESS ? &entry->rx_bytes : &entry->tx_bytes) += len;
}

/* ct_close: FIN or RST passed the hook of @dir, which need not be the flow's direction. */
static void ct_close(struct ct_entry *entry, const struct fwd_settings *settings, enum ct_dir dir,
                     const struct ct_packet *packet)
{
    bool both_syns = (entry->rx_flags_seen & entry->tx_flags_seen & TCP_SYN) != 0;
    if (dir == CT_SERVICE || (packet->tcp_flags & TCP_RST && !both_syns))
        entry->flags |= CT_CLOSING;
    else
        entry->flags |= dir == CT_INGRESS ? FWD_CT_RX_CLOSING : FWD_CT_TX_CLOSING;
    if (!ct_alive(entry)) {
        entry->expires_s = packet->now_s + settings->ct_tcp_close_s;
        ct_report(entry, settings, dir, packet->tcp_flags, packet->now_s);
    }
}

static void ct_state_of(const struct ct_entry *entry, struct ct_state *state)
{
    bool service = entry->key.flags & FWD_TUPLE_SERVICE;
    *state = (struct ct_state){
        .src_identity = entry->src_identity,
        .backend_id = service ? (uint32_t)entry->backend_id : 0,
        .rev_nat_id = entry->rev_nat_id,
        .ifindex = entry->ifindex,
        .flags = entry->flags & CT_STATE_FLAGS,
    };
}

bool ct_get(const struct ct *ct, const struct ct_tuple *tuple, uint64_t hash,
            struct ct_state *state)
{
    const struct ct_map *map = ct_map_of(ct, tuple);
    uint32_t index = ct_map_find(map, tuple, hash);
    if (index == CT_NIL)
        return false;
    ct_state_of(ct_map_entry(map, index), state);
    return true;
}

/* ct_hit: one lookup of a packet. False: no entry, or one that this packet begins anew. */
static bool ct_hit(struct ct_map *map, const struct fwd_settings *settings,
                   const struct ct_tuple *key, uint64_t hash, enum ct_dir dir,
                   const struct ct_packet *packet, struct ct_state *state, uint32_t *monitor)
{
    uint32_t index = ct_map_find(map, key, hash);
    if (index == CT_NIL)
        return false;
    struct ct_entry *entry = ct_map_entry(map, index);
    bool restart = packet->tcp_flags & TCP_SYN && entry->flags & CT_CLOSING;
    if (dir == CT_SERVICE && restart &&
        (uint64_t)entry->last_tx_report_s + CT_REBALANCE_S <= packet->now_s)
        return false;
    if (ct_alive(entry))
        *monitor = ct_refresh(entry, settings, dir, key->proto, packet->tcp_flags, packet->now_s);
    ct_count(entry, dir, packet->len);
    if (restart && packet->action == CT_ACTION_CREATE) {
        entry->flags &= (uint16_t)~(CT_CLOSING | FWD_CT_SEEN_NON_SYN);
        entry->rx_flags_seen = entry->tx_flags_seen = 0;
        ct_refresh(entry, settings, dir, key->proto, packet->tcp_flags, packet->now_s);
        return false;
    }
    ct_state_of(entry, state);
    if (packet->action == CT_ACTION_CLOSE) {
        ct_close(entry, settings, dir, packet);
        *monitor = FWD_CAPTURE_LEN;
    }
    return true;
}

enum fwd_ct_status ct_lookup(struct ct *ct, const struct fwd_settings *settings,
                             struct ct_tuple *tuple, uint64_t hash, enum ct_dir dir,
                             enum ct_scope scope, const struct ct_packet *packet,
                             struct ct_state *state, uint32_t *monitor)
{
    struct ct_map *map = ct_map_of(ct, tuple);
    uint8_t related = tuple->flags & FWD_TUPLE_RELATED;
    bool ingress = dir == CT_INGRESS;
    *monitor = 0;
    if (dir == CT_SERVICE || scope != CT_SCOPE_FORWARD) {
        /* Replies first: policy must not be asked about them. */
        tuple->flags = related | (ingress ? FWD_TUPLE_OUT : FWD_TUPLE_IN);
        if (dir == CT_SERVICE)
            tuple->flags = FWD_TUPLE_SERVICE;
        if (ct_hit(map, settings, tuple, hash, dir, packet, state, monitor))
            return related && dir != CT_SERVICE ? FWD_CT_RELATED : FWD_CT_REPLY;
    }
    if (dir != CT_SERVICE && scope != CT_SCOPE_REVERSE) {
        ct_tuple_reverse(tuple);
        tuple->flags = related | (ingress ? FWD_TUPLE_IN : FWD_TUPLE_OUT);
        if (ct_hit(map, settings, tuple, hash, dir, packet, state, monitor))
            return FWD_CT_ESTABLISHED;
    }
    *monitor = FWD_CAPTURE_LEN;
    return FWD_CT_NEW;
}

enum fwd_drop ct_create(struct ct *ct, const struct fwd_settings *settings,
                        const struct ct_tuple *tuple, uint64_t hash, enum ct_dir dir,
                        const struct ct_packet *packet, const struct ct_state *state)
{
    struct ct_entry entry = {.src_identity = state->src_identity, .rev_nat_id = state->rev_nat_id};
    if (dir != CT_SERVICE) {
        entry.flags = state->flags & CT_STATE_FLAGS;
        entry.ifindex = state->ifindex;
    } else {
        entry.backend_id = state->backend_id;
    }
    /* Whatever the packet, a TCP flow starts as if its SYN had been seen. */
    uint8_t flags = tuple->proto == PROTO_TCP ? TCP_SYN : 0;
    ct_refresh(&entry, settings, dir, tuple->proto, flags, packet->now_s);
    ct_count(&entry, dir, packet->len);
    bool to_backend = dir == CT_EGRESS && state->flags & FWD_CT_NODE_PORT; /* 4.9/5 */
    if (dir != CT_SERVICE && !to_backend) {
        struct ct_tuple icmp = *tuple;
        icmp.sport = icmp.dport = 0;
        icmp.proto = addr_is_v4(&icmp.daddr) ? PROTO_ICMP : PROTO_ICMPV6;
        icmp.flags |= FWD_TUPLE_RELATED;
        /* Without it only errors about this pair of hosts need policy: no reason to refuse. */
        ct_map_store(ct->any, &icmp, ct_hash(ct->seed, &icmp), &entry, packet->now_s);
    }
    if (!ct_map_store(ct_map_of(ct, tuple), tuple, hash, &entry, packet->now_s))
        return FWD_DROP_CT_MAP_INSERTION_FAILED;
    return FWD_DROP_NONE;
}

bool ct_update_state(struct ct *ct, const struct ct_tuple *tuple, uint64_t hash,
                     const struct ct_state *state)
{
    struct ct_map *map = ct_map_of(ct, tuple);
    uint32_t index = ct_map_find(map, tuple, hash);
    if (index == CT_NIL)
        return false;
    struct ct_entry *entry = ct_map_entry(map, index);
    entry->rev_nat_id = state->rev_nat_id;
    if (tuple->flags & FWD_TUPLE_SERVICE)
        entry->backend_id = state->backend_id;
    entry->flags = (uint16_t)((entry->flags & ~CT_STATE_FLAGS) | (state->flags & CT_STATE_FLAGS));
    return true;
}

/* ---- abi.h ---- */

static struct ct_map *ct_map_named(const struct fwd_dp *dp, enum fwd_map map)
{
    return map == FWD_MAP_CT_TCP ? dp->ct.tcp : dp->ct.any;
}

uint32_t fwd_ct_dump(struct fwd_dp *dp, enum fwd_map map, uint64_t *cursor, struct fwd_ct_row *rows,
                     uint32_t cap)
{
    return ct_map_dump(ct_map_named(dp, map), cursor, rows, cap);
}

uint32_t fwd_ct_sweep(struct fwd_dp *dp, enum fwd_map map, uint32_t now_s, uint64_t *cursor,
                      uint32_t budget)
{
    return ct_map_sweep(ct_map_named(dp, map), now_s, cursor, budget);
}

uint32_t fwd_ct_purge_addr(struct fwd_dp *dp, enum fwd_map map, const struct fwd_addr *addr,
                           uint64_t *cursor, uint32_t budget)
{
    return ct_map_purge_addr(ct_map_named(dp, map), addr, cursor, budget);
}

/* ct_serviceless: a flow through a service that is gone, or that no longer has the flow's backend.
 * A service entry names the backend, the others lead to it: its address is their key's source. */
static bool ct_serviceless(const struct ct_entry *entry, const void *lb)
{
    const struct ct_tuple *key = &entry->key;
    struct lb_flow flow = {.rev_nat_id = entry->rev_nat_id, .proto = key->proto};
    if (!entry->rev_nat_id)
        return false;
    if (key->flags & FWD_TUPLE_SERVICE) {
        flow.addr = key->daddr;
        flow.port = key->sport;
        return !lb_has_service_flow(lb, &flow, (uint32_t)entry->backend_id);
    }
    flow.addr = key->saddr;
    flow.port = key->dport;
    if (key->flags & FWD_TUPLE_RELATED)
        flow.proto = 0; /* the companion stands for the pair of hosts */
    return !lb_has_backend_flow(lb, &flow);
}

uint32_t fwd_ct_purge_services(struct fwd_dp *dp, enum fwd_map map, uint64_t *cursor,
                               uint32_t budget)
{
    return ct_map_purge(ct_map_named(dp, map), ct_serviceless, &dp->lb, cursor, budget);
}
