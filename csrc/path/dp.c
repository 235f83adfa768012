/* dp.c - a batch through the hooks: the first pass parses and asks for conntrack's index lines, the
 * second for its entries, the third runs the hook of each packet's port (D8). Holds the exits: the
 * only code that traces, counts a drop and reports it.
 *
 * Five callers: the pump, replay, two-node tests, fuzzing, benchmarks (D6).
 */
#include "base/vxlan.h"
#include "path/path.h"
#include "tables/ct_map.h"

/* ---- observation ---- */

static struct fwd_event *event_begin(struct path *p, enum fwd_event_type type, uint8_t subtype)
{
    struct fwd_event *event = events_next(p->dp->events);
    memset(event, 0, offsetof(struct fwd_event, data));
    uint32_t len = p->pkt->len;
    event->time_ns = p->now_ns;
    event->type = (uint8_t)type;
    event->subtype = subtype;
    event->source = p->endpoint ? p->endpoint->lxc_id : 0;
    event->hash = p->out->hash;
    event->len_orig = len;
    event->len_cap = (uint16_t)(len < FWD_CAPTURE_LEN ? len : FWD_CAPTURE_LEN);
    event->ct = p->out->ct;
    event->dir = (uint8_t)p->dir;
    event->src_identity = p->out->src_identity;
    event->dst_identity = p->out->dst_identity;
    event->rule_id = p->out->rule_id;
    event->policy_endpoint = p->out->policy_endpoint;
    event->match = p->out->match;
    event->proto = p->parsed.proto;
    event->dst_port = be16_to_host(p->parsed.dport);
    memcpy(event->data, pkt_data(p->pkt), event->len_cap);
    return event;
}

void path_trace_event(struct path *p, enum fwd_obs obs)
{
    bool from = obs >= FWD_OBS_FROM_ENDPOINT && obs <= FWD_OBS_FROM_NETWORK;
    if (p->settings->monitor_aggregation >= 1 && from)
        return;
    if (p->settings->monitor_aggregation >= 3 && p->monitor == 0)
        return;
    struct fwd_event *event = event_begin(p, FWD_EVENT_TRACE, (uint8_t)obs);
    event->orig_ip = p->orig_saddr;
    if (from)
        event->ct = FWD_CT_NONE;
    if (obs == FWD_OBS_TO_ENDPOINT && p->endpoint) {
        event->dst_id = p->endpoint->lxc_id;
        event->ifindex = p->endpoint->ifindex;
    }
}

void path_policy_verdict(struct path *p, enum fwd_drop drop, bool audited)
{
    path_trace(p, FWD_OBS_POLICY_VERDICT);
    if (!(p->settings->monitor_mask & FWD_MONITOR_VERDICT))
        return;
    struct fwd_event *event = event_begin(p, FWD_EVENT_VERDICT, audited);
    event->verdict = -(int32_t)drop;
}

/* ---- exits ---- */

/* verdict_metric: the column of the sum in = out + drops + punts a verdict is counted in. */
static uint8_t verdict_metric(uint8_t verdict)
{
    if (verdict == FWD_PUNT)
        return FWD_METRIC_PUNTED;
    return verdict == FWD_TO_STACK ? FWD_METRIC_TO_STACK : FWD_METRIC_SENT;
}

void path_send(struct path *p, enum fwd_verdict verdict, uint32_t port)
{
    metrics_add(p->dp->metrics, verdict_metric((uint8_t)verdict), (uint8_t)p->dir, p->pkt->len);
    p->out->dir = (uint8_t)p->dir;
    p->out->verdict = (uint8_t)verdict;
    p->out->port = port;
}

void path_punt(struct path *p)
{
    if (!endpoint_take_token(p->endpoint, p->settings, p->now_ns)) {
        path_drop(p, FWD_DROP_DROP_RATE_LIMITED);
        return;
    }
    metrics_add(p->dp->metrics, FWD_METRIC_PUNTED, (uint8_t)p->dir, p->pkt->len);
    p->out->dir = (uint8_t)p->dir;
    p->out->verdict = FWD_PUNT;
    p->out->port = p->pkt->port;
}

/* drop_report: the reason in the outcome and, when somebody listens, in the ring. */
static void drop_report(struct path *p, enum fwd_drop drop)
{
    p->out->drop = (uint8_t)drop;
    if (!(p->settings->monitor_mask & FWD_MONITOR_DROP))
        return;
    struct fwd_event *event = event_begin(p, FWD_EVENT_DROP, (uint8_t)drop);
    if (p->dir == FWD_DIR_INGRESS && p->endpoint) {
        event->dst_id = p->endpoint->lxc_id;
        event->ifindex = p->endpoint->ifindex;
    }
}

void path_drop(struct path *p, enum fwd_drop drop)
{
    metrics_add(p->dp->metrics, (uint8_t)drop, (uint8_t)p->dir, p->pkt->len);
    p->out->verdict = FWD_DROP;
    p->out->dir = (uint8_t)p->dir;
    p->out->port = FWD_PORT_NONE;
    drop_report(p, drop);
}

void path_answered(struct path *p, enum fwd_drop drop, enum fwd_metric metric)
{
    metrics_add(p->dp->metrics, (uint8_t)metric, (uint8_t)p->dir, p->pkt->len);
    drop_report(p, drop);
}

void fwd_dp_count_drop(struct fwd_dp *dp, uint64_t now_ns, enum fwd_drop reason, enum fwd_dir dir,
                       const struct fwd_pkt *pkt, const struct fwd_out *out)
{
    struct fwd_pkt frame = *pkt;
    struct fwd_out copy = {.ct = FWD_CT_NONE};
    if (out)
        copy = *out;
    struct path p = {.dp = dp, .settings = dp->settings, .pkt = &frame, .out = &copy,
                     .now_ns = now_ns, .dir = dir};
    if (out && out->verdict == FWD_TX_UNDERLAY && out->port == FWD_PORT_OVERLAY)
        pkt_pull(&frame, VXLAN_HLEN); /* counted and captured as the inner frame it was */
    if (out) {
        struct metric *sent = &dp->metrics->at[verdict_metric(out->verdict)][out->dir & 3];
        sent->packets--;
        sent->bytes -= frame.len;
    } else {
        metrics_add(dp->metrics, FWD_METRIC_RECEIVED, FWD_DIR_UNKNOWN, frame.len);
    }
    path_drop(&p, reason);
}

/* ---- the batch ---- */

/* path_begin: everything about a packet that needs no table but the hash of its flow. */
static void path_begin(struct path *p, struct fwd_dp *dp, uint64_t now_ns, uint32_t now_s,
                       struct fwd_pkt *pkt, struct fwd_out *out)
{
    struct fwd_step *steps = out->steps;
    memset(out, 0, sizeof(*out));
    out->steps = steps;
    out->ct = FWD_CT_NONE;
    memset(p, 0, offsetof(struct path, parsed));
    p->dp = dp;
    p->settings = dp->settings;
    p->pkt = pkt;
    p->out = out;
    p->now_ns = now_ns;
    p->ct_packet.now_s = now_s;
    p->steps = steps;
    p->ct_status = FWD_CT_NONE;
    p->monitor = FWD_CAPTURE_LEN; /* until conntrack knows better */
    p->datagram_len = pkt->len;
    if (pkt->port == FWD_PORT_OVERLAY) {
        if (pkt->len < VXLAN_HLEN)
            p->decap_drop = FWD_DROP_INVALID_PACKET_DROPPED;
        else if (!vxlan_parse(pkt_data(pkt), &p->vni))
            p->decap_drop = FWD_DROP_ERROR_RETRIEVING_TUNNEL_KEY;
        else if (pkt->len < VXLAN_HLEN + ETH_HLEN)
            p->decap_drop = FWD_DROP_INVALID_PACKET_DROPPED;
        else
            pkt_pull(pkt, VXLAN_HLEN);
        if (p->decap_drop) {
            memset(&p->parsed, 0, sizeof(p->parsed));
            return;
        }
    }
    p->eth_drop = parse_eth(pkt, &p->parsed);
    p->l3_drop = p->eth_drop ? p->eth_drop : parse_l3(pkt, &p->parsed);
    if (!p->l3_drop && !parse_vnet(pkt, &p->parsed))
        p->l3_drop = FWD_DROP_INVALID_PACKET_DROPPED;
    if (p->l3_drop)
        return;
    p->orig_saddr = p->parsed.saddr;
    ipcache_prefetch(dp->ipcache, &p->parsed.daddr);
    p->tuple_drop = ct_tuple_load(&p->parsed, &p->loaded, &p->ct_packet);
    if (p->tuple_drop || p->parsed.fragment)
        return;
    p->hash = ct_hash(dp->ct.seed, &p->loaded);
    out->hash = (uint32_t)p->hash;
    ct_prefetch(&dp->ct, &p->loaded, p->hash);
}

/* steps_report: the walk as events, for `fwd monitor -t step`. */
static void steps_report(struct path *p)
{
    for (uint32_t i = 0; i < p->out->n_steps; i++) {
        struct fwd_event *event = event_begin(p, FWD_EVENT_STEP, p->steps[i].stage);
        event->step = p->steps[i];
    }
}

static void path_run(struct path *p)
{
    struct fwd_step local[FWD_MAX_STEPS];
    bool report = p->settings->monitor_mask & FWD_MONITOR_STEP;
    if (report && !p->steps)
        p->steps = local;
    metrics_add(p->dp->metrics, FWD_METRIC_RECEIVED, FWD_DIR_UNKNOWN, p->pkt->len);
    if (p->pkt->hook == FWD_HOOK_TO_NETDEV)
        hook_to_netdev(p);
    else if (p->pkt->port == FWD_PORT_OVERLAY)
        hook_from_overlay(p);
    else if (p->pkt->port == FWD_PORT_HOST)
        hook_from_host(p);
    else if (p->pkt->port == FWD_PORT_NETDEV)
        hook_from_netdev(p);
    else
        hook_from_container(p);
    if (report)
        steps_report(p);
    if (p->steps == local)
        p->out->n_steps = 0; /* they were nobody's but the ring's */
}

uint32_t fwd_dp_run(struct fwd_dp *dp, uint64_t now_ns, struct fwd_pkt *in, uint32_t n,
                    struct fwd_out *out, uint32_t out_cap)
{
    struct path paths[FWD_BATCH];
    uint32_t todo = n < out_cap ? n : out_cap;
    uint32_t done = 0, now_s = (uint32_t)(now_ns / 1000000000u);
    while (done < todo) {
        uint32_t count = todo - done < FWD_BATCH ? todo - done : FWD_BATCH;
        for (uint32_t i = 0; i < count; i++)
            path_begin(&paths[i], dp, now_ns, now_s, &in[done + i], &out[done + i]);
        for (uint32_t i = 0; i < count; i++) {
            if (paths[i].hash)
                ct_prefetch_entries(&dp->ct, &paths[i].loaded, paths[i].hash);
        }
        for (uint32_t i = 0; i < count; i++)
            path_run(&paths[i]);
        done += count;
    }
    return done;
}
