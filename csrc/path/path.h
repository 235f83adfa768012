/* path.h - the packet's context, and the contract of stages and hooks (D4).
 *
 * A stage is `static enum fwd_drop stage_x(struct path *p)`: 0 = go on, else the reason. It
 * touches p and the tables, nothing else. A hook is a straight list of stages and ends in one
 * verdict. Hooks alone trace; path_finish in dp.c alone counts and reports a drop.
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
    uint32_t now_s;
    uint32_t wire_len;          /* frame length on entry, what metrics count */
    struct fwd_step *steps;     /* NULL = nobody asks */

    /* first pass */
    struct parsed parsed;
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

    /* stage_ipcache_dst */
    const struct ipcache_entry *dst; /* NULL = miss */

    /* stage_ct_lookup, stage_policy */
    enum fwd_ct_status ct_status;
    struct ct_tuple tuple;      /* the matching key, or the one to create with */
    struct ct_state ct_state;
    uint32_t monitor;
    uint32_t policy_entry;
    struct fwd_addr orig_saddr; /* before reverse NAT; reported as orig-ip */
};

/* ---- dp.c: observation and the exits; only hooks call these ---- */

/* path_trace: the packet passes an observation point; counts what datapath reference 8.3 says. */
void path_trace(struct path *p, enum fwd_obs obs);

/* path_policy_verdict: the policy-verdict event; @drop 0 = allowed. */
void path_policy_verdict(struct path *p, enum fwd_drop drop);

/* path_send, path_punt, path_drop: the verdicts. path_drop counts and reports, nobody else does.
 * path_punt drops instead when the endpoint has used up its tokens. */
void path_send(struct path *p, enum fwd_verdict verdict, uint32_t port);
void path_punt(struct path *p);
void path_drop(struct path *p, enum fwd_drop drop);

/* ---- stage.c: stages both directions share ---- */

enum fwd_drop stage_parse(struct path *p);
enum fwd_drop stage_fragment(struct path *p);
enum fwd_drop stage_ct_lookup(struct path *p, enum ct_dir dir);
enum fwd_drop stage_ipcache_dst(struct path *p);
enum fwd_drop stage_policy(struct path *p, enum ct_dir dir);
enum fwd_drop stage_ct_write(struct path *p, enum ct_dir dir);
/* stage_l3: one hop: TTL - 1, then the MACs that are not NULL (datapath reference 7.1). */
enum fwd_drop stage_l3(struct path *p, const uint8_t *smac, const uint8_t *dmac);

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
/* path_to_stack: hand the packet to the host with these MACs (NULL = kept). */
void path_to_stack(struct path *p, const uint8_t *smac, const uint8_t *dmac); /* north_south.c */

/* path_step: note what a stage saw, when somebody asks (see step.h). */
static inline void path_step(struct path *p, struct fwd_step step)
{
    if (p->steps && p->out->n_steps < FWD_MAX_STEPS)
        p->steps[p->out->n_steps++] = step;
}

/* path_v4: the IPv4 part of an address for a step's word, be32 as it lies. */
static inline uint32_t path_v4(const struct fwd_addr *addr)
{
    uint32_t v4;
    memcpy(&v4, addr->b + 12, sizeof(v4));
    return v4;
}

#endif
