/* abi.h - the only header Python sees: structs, enums and functions of the datapath library.
 *
 * cdef-safe C: csrc/build_ext.py runs it through `cc -E -DFWD_CDEF` and hands the result to cffi.
 * Layouts are asserted at the end; FWD_ABI_VERSION is compared at import and in arenas.
 *
 * Conventions: addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d (D5). `be16`/`be32` in a comment
 * marks network order, everything else is host order. `size` is storage, `len` bytes in use.
 * Every function that can fail takes a struct fwd_error and says what was being done.
 * Longer than other headers on purpose: one place has every layout (D2), and its comments are the
 * documentation of the library.
 */
#ifndef FWD_ABI_H
#define FWD_ABI_H

#ifndef FWD_CDEF
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#define FWD_EXPORT __attribute__((visibility("default")))
#else
#define FWD_EXPORT
#endif

enum {
    FWD_ABI_VERSION = 8,
    FWD_MAX_TRACE = 8,     /* observation points one packet can pass on one node */
    FWD_MAX_STEPS = 24,    /* stages one packet can pass on one node, with room */
    FWD_CAPTURE_LEN = 128, /* packet bytes an event keeps (Cilium's TRACE_PAYLOAD_LEN) */
    FWD_HEADROOM = 128,    /* bytes kept free before a received frame for tunnel headers */
    FWD_BATCH = 32,        /* packets parsed and prefetched together */
    FWD_MAGLEV_SIZE = 1021, /* places of a Maglev table, a prime; Cilium's choices: 251..131071 */
};

/* ---- enums that come from .def rows (D3) ---- */

enum fwd_drop {
    FWD_DROP_NONE = 0,
#define DROP(number, name, text, advice) FWD_DROP_##name = number,
#include "drop_reasons.def"
#undef DROP
};

enum fwd_obs {
#define OBS(number, name, text, summary) FWD_OBS_##name = number,
#include "obs_points.def"
#undef OBS
};

enum fwd_ct_status {
#define CT_STATUS(number, name, text, sentence) FWD_CT_##name = number,
#include "ct_status.def"
#undef CT_STATUS
    FWD_CT_NONE = 255, /* conntrack was not asked */
};

enum fwd_stage {
#define STAGE(number, name, row, function, seed) FWD_STAGE_##name = number,
#include "stages.def"
#undef STAGE
};

enum fwd_verdict {
    FWD_TX_ENDPOINT = 0, /* write the frame to the port of a local endpoint */
    FWD_TX_UNDERLAY = 1, /* send the bytes as a UDP payload to `remote`, or out of netdev */
    FWD_TO_STACK = 2,    /* hand the frame to the host (cilium_host) */
    FWD_PUNT = 3,        /* the slow path answers (ARP, ND, echo to the router) */
    FWD_DROP = 4,        /* dead; `drop` says why */
};

/* Ports of the datapath. An endpoint's port is its lxc_id (1..65535). */
enum {
    FWD_PORT_NONE = 0,
    FWD_PORT_HOST = 0x10000,    /* cilium_host: from and to the host's stack */
    FWD_PORT_NETDEV = 0x10001,  /* eth0: native traffic from and to the wire */
    FWD_PORT_OVERLAY = 0x10002, /* UDP payloads of the tunnel port */
};

enum fwd_hook_sel {
    FWD_HOOK_BY_PORT = 0,   /* the port's own entry hook */
    FWD_HOOK_TO_NETDEV = 1, /* a frame on its way out of netdev */
};

enum fwd_dir { FWD_DIR_UNKNOWN = 0, FWD_DIR_INGRESS = 1, FWD_DIR_EGRESS = 2, FWD_DIR_SERVICE = 3 };

/* Metric reasons below 130 (Cilium's cilium_metrics). Drop codes are reasons too. */
enum fwd_metric {
    FWD_METRIC_FORWARDED = 0,
    FWD_METRIC_PLAINTEXT = 3, /* arrived on an interface */
    FWD_METRIC_FRAGMENT = 9,
    FWD_METRIC_FRAGMENT_UPDATE_FAILED = 10,
    FWD_METRIC_PUNTED = 100, /* handed to the slow path; fwd's own */
    FWD_METRIC_RECEIVED = 101, /* packets that entered the datapath: the left side of the sum */
    FWD_METRIC_TO_STACK = 102, /* verdict TO_STACK: third term of the right side */
    FWD_METRIC_SENT = 103,     /* verdicts TX_ENDPOINT and TX_UNDERLAY */
    /* Of these, packets whose place an ICMP error to their sender took, by its reason. They count
     * as sent, not under their drop reason, so that the sum holds. */
    FWD_METRIC_ANSWERED_TTL = 104,
    FWD_METRIC_ANSWERED_TOO_BIG = 105,
    FWD_METRIC_ANSWERED_NO_BACKEND = 106,
    FWD_METRIC_ANSWERED_DENIED = 107,
};

/* virtio_net_hdr flags and gso types (uapi/linux/virtio_net.h) */
enum {
    FWD_VNET_NEEDS_CSUM = 1,
    FWD_VNET_DATA_VALID = 2,
    FWD_GSO_NONE = 0,
    FWD_GSO_TCPV4 = 1,
    FWD_GSO_TCPV6 = 4,
    FWD_GSO_UDP_L4 = 5,
};

enum fwd_policy_match { /* Cilium's match types, datapath reference 8.4 */
    FWD_MATCH_NONE = 0,
    FWD_MATCH_L3_ONLY = 1,
    FWD_MATCH_L3_L4 = 2,
    FWD_MATCH_L4_ONLY = 3,
    FWD_MATCH_ALL = 4,
    FWD_MATCH_L3_PROTO = 5,
    FWD_MATCH_PROTO_ONLY = 6,
};

enum fwd_event_type {
    FWD_EVENT_DROP = 1,
    FWD_EVENT_STEP = 2,
    FWD_EVENT_TRACE = 4,
    FWD_EVENT_VERDICT = 5,
};

/* monitor_mask bits of struct fwd_settings: which events are written to the ring */
enum { FWD_MONITOR_DROP = 1, FWD_MONITOR_TRACE = 2, FWD_MONITOR_VERDICT = 4, FWD_MONITOR_STEP = 8 };

enum { /* flags of a cilium_lxc entry */
    FWD_LXC_HOST = 1,   /* the address is the node's own */
    FWD_LXC_ROUTER = 4, /* and the pods' gateway: its echo requests go to the slow path */
};

enum { /* flags of an ipcache entry */
    FWD_IPCACHE_SKIP_TUNNEL = 1,
    FWD_IPCACHE_HAS_TUNNEL = 2,
};

enum { /* tuple flags, datapath reference 3.1 */
    FWD_TUPLE_OUT = 0,
    FWD_TUPLE_IN = 1,
    FWD_TUPLE_RELATED = 2,
    FWD_TUPLE_SERVICE = 4,
};

enum { /* ct entry flags, datapath reference 2.3 */
    FWD_CT_RX_CLOSING = 1,
    FWD_CT_TX_CLOSING = 2,
    FWD_CT_LB_LOOPBACK = 8,
    FWD_CT_SEEN_NON_SYN = 16,
    FWD_CT_NODE_PORT = 32,
    FWD_CT_PROXY_REDIRECT = 64,
    FWD_CT_DSR = 128,
    FWD_CT_FROM_L7LB = 256,
    FWD_CT_FROM_TUNNEL = 1024,
};

enum { /* service flags, datapath reference 2.4: flags in the low byte, flags2 in the high one */
    FWD_SVC_EXTERNAL_IP = 1,
    FWD_SVC_NODE_PORT = 2,
    FWD_SVC_EXT_LOCAL = 4,
    FWD_SVC_HOST_PORT = 8,
    FWD_SVC_AFFINITY = 16,
    FWD_SVC_LOAD_BALANCER = 32,
    FWD_SVC_ROUTABLE = 64,
    FWD_SVC_SOURCE_RANGE = 128,
    FWD_SVC_INT_LOCAL = 16 << 8,
    FWD_SVC_TWO_SCOPES = 32 << 8,
};

enum fwd_scope { FWD_SCOPE_EXTERNAL = 0, FWD_SCOPE_INTERNAL = 1 };

enum fwd_backend_state { /* datapath reference 2.4; only active ones take new connections */
    FWD_BACKEND_ACTIVE = 0,
    FWD_BACKEND_TERMINATING = 1,
    FWD_BACKEND_QUARANTINED = 2,
    FWD_BACKEND_MAINTENANCE = 3,
};

enum fwd_map { FWD_MAP_CT_TCP = 0, FWD_MAP_CT_ANY = 1 };

/* reserved identities, datapath reference 5.1 */
enum {
    FWD_ID_UNKNOWN = 0,
    FWD_ID_HOST = 1,
    FWD_ID_WORLD = 2,
    FWD_ID_HEALTH = 4,
    FWD_ID_INIT = 5,
    FWD_ID_REMOTE_NODE = 6,
    FWD_ID_KUBE_APISERVER = 7,
    FWD_ID_WORLD_IPV4 = 9,
    FWD_ID_WORLD_IPV6 = 10,
};

/* ---- values ---- */

struct fwd_addr {
    uint8_t b[16];
};

struct fwd_error {
    int32_t code;      /* errno-like, 0 = no error */
    char message[248]; /* what was being done, to which object, what to do next */
};

/* Capacities and seeds an arena is made with; they cannot change while it lives. */
struct fwd_params {
    uint32_t ct_tcp, ct_any;    /* conntrack entries */
    uint32_t ipcache;           /* prefixes */
    uint32_t endpoints;         /* local endpoints */
    uint32_t lxc;               /* local addresses, the node's own included */
    uint32_t policy;            /* policy map entries of all endpoints together */
    uint32_t peers;             /* remote nodes */
    uint32_t fragments;         /* datagrams whose ports are remembered */
    uint32_t events;            /* event ring slots, a power of two */
    uint32_t services;          /* frontends, both scopes */
    uint32_t backends;
    uint32_t slots;             /* backend slots of all services together */
    uint32_t affinity;          /* clients that stick to a backend */
    uint32_t nat;               /* halves of masquerade mappings */
    uint32_t source_ranges;     /* prefixes of all services that check who comes */
    uint32_t maglev;            /* services with a Maglev table */
    uint64_t hash_seed;
    uint8_t boot_id[16];        /* of the running kernel: its clock gives conntrack its meaning */
};

/* What a reload may change. Lifetimes in seconds, datapath reference 3.5. */
struct fwd_settings {
    uint32_t ct_tcp_s, ct_tcp_syn_s, ct_tcp_close_s, ct_any_s, ct_service_tcp_s, ct_service_any_s;
    uint32_t ct_report_interval_s;
    uint32_t monitor_mask;      /* FWD_MONITOR_*; 0 = no events at all */
    uint32_t monitor_aggregation; /* 0 none, 1 no from-* events, 3 only when conntrack says so */
    uint32_t punt_rate_pps, punt_burst; /* token bucket of every endpoint for the slow path */
    uint16_t tunnel_port;       /* host order */
    uint8_t tunnel;             /* 1 vxlan, 0 disabled: remote pods go to the stack */
    uint8_t verify_peer, verify_source; /* D13 */
    uint8_t fragments;          /* track fragments; 0 = drop 157 */
    uint8_t icmp_frag_needed;   /* policy lets ICMP 3/4 through */
    uint8_t ttl_exceeded_reply; /* IPv4 too is told of TTL 0; IPv6 always is */
    uint8_t reject_no_backend, reject_deny; /* an ICMP error instead of silence */
    uint16_t tunnel_mtu;        /* largest inner IP datagram, bytes; 0 = not checked */
    uint8_t masquerade;         /* pods' packets to the world leave netdev under node_ip or node_ip6 */
    uint8_t nodeport;           /* services are there for traffic from netdev, too */
    uint8_t mss_clamp;          /* lower TCP's MSS to what tunnel_mtu carries */
    uint8_t policy_audit;       /* what policy would deny passes and is reported */
    uint8_t pad[2];
    struct fwd_addr node_ip, node_ip6; /* all zero: none of that family */
    struct fwd_addr router_ip4, router_ip6; /* source of ICMP errors; all zero = none are sent */
    uint8_t router_mac[6], host_mac[6]; /* cilium_host as next hop, and as receiver */
    struct fwd_addr loopback, loopback6; /* source a pod sees that reaches itself through a service */
    uint8_t vlan_allowed[512];  /* bit per VLAN id */
};

/* One packet of a batch. The frame is buf[off .. off+len); edges move by push and pull only. */
struct fwd_pkt {
    uint8_t *buf;
    uint32_t size;
    uint32_t off, len;
    uint32_t port;             /* where it came in */
    uint8_t hook;              /* enum fwd_hook_sel */
    uint8_t vnet_flags;        /* FWD_VNET_* */
    uint8_t gso_type;
    uint8_t pad;
    uint16_t gso_size;         /* payload bytes of each wire packet; 0 = not a super-packet */
    uint16_t hdr_len;
    uint16_t csum_start, csum_offset; /* from the frame's first byte; valid with NEEDS_CSUM */
    struct fwd_addr outer_src, outer_dst; /* overlay only */
};

/* What one stage saw and which entry it used. a..d by stage, see csrc/path/step.h. */
struct fwd_step {
    uint8_t stage;             /* enum fwd_stage */
    uint8_t drop;              /* its result; 0 = go on */
    uint8_t flag;              /* 1 = the table had an entry */
    uint8_t len;               /* prefix length and the like */
    uint32_t a, b, c, d;
    struct fwd_addr addr;
};

/* What became of one packet. The packet itself was changed in place. */
struct fwd_out {
    uint8_t verdict;           /* enum fwd_verdict */
    uint8_t drop;              /* enum fwd_drop; with TX_* or TO_STACK: why the frame is now an
                                * ICMP error to the packet's sender */
    uint8_t ct;                /* enum fwd_ct_status of the last lookup */
    uint8_t match;             /* enum fwd_policy_match of the last policy lookup */
    uint8_t dir;               /* direction the verdict is counted under */
    uint8_t n_trace;
    uint8_t trace[FWD_MAX_TRACE]; /* enum fwd_obs in order */
    uint16_t n_steps;
    uint32_t port;             /* TX_ENDPOINT: lxc_id; TX_UNDERLAY: OVERLAY or NETDEV */
    uint32_t src_identity, dst_identity;
    uint32_t rule_id;          /* of the last policy lookup; 0 = no entry */
    uint32_t policy_endpoint;  /* lxc_id whose policy spoke last, 0 = none */
    uint32_t hash;             /* of the flow */
    uint32_t vni;
    struct fwd_addr remote;    /* TX_UNDERLAY to OVERLAY: the peer */
    struct fwd_step *steps;    /* FWD_MAX_STEPS of them, or NULL: the caller's wish to be told */
};

/* ---- rows: what Python writes into tables and reads back ---- */

struct fwd_endpoint_row {
    uint16_t lxc_id;           /* 1..65535 */
    uint16_t pad;
    uint32_t identity;
    uint32_t ifindex;
    uint8_t mac[6];            /* the pod's */
    uint8_t node_mac[6];       /* the node's on that link */
};

struct fwd_lxc_row {
    struct fwd_addr addr;
    uint16_t lxc_id;           /* 0 for the node's own addresses */
    uint16_t flags;            /* FWD_LXC_HOST */
};

struct fwd_ipcache_row {
    struct fwd_addr prefix;    /* masked, IPv4 mapped */
    struct fwd_addr tunnel_endpoint; /* all zero = none */
    uint32_t identity;
    uint8_t family;            /* 4 or 6 */
    uint8_t prefix_len;        /* of that family: 0..32 or 0..128 */
    uint8_t flags;
    uint8_t pad;
};

struct fwd_policy_row {
    uint32_t identity;         /* 0 = any */
    uint32_t rule_id;          /* the compiler's number, never 0; names the rule in verdicts */
    uint16_t lxc_id;
    uint16_t port;             /* host order, low bits beyond the prefix are 0 */
    uint8_t dir;               /* FWD_DIR_INGRESS or _EGRESS */
    uint8_t proto;             /* 0 with prefix_len 0 = any */
    uint8_t prefix_len;        /* 0 any, 8 protocol, 8 + n port prefix of n bits (Cilium [C]) */
    uint8_t deny;
    uint64_t packets, bytes;   /* read back only */
};

struct fwd_peer_row {
    struct fwd_addr ip;        /* underlay address */
    uint32_t vni;              /* with fixed_vni: the one VNI both ways */
    uint32_t identity;         /* with fixed_vni: identity of all that comes from there */
    uint8_t fixed_vni;
    uint8_t pad[3];
};

struct fwd_service_row {
    struct fwd_addr frontend;
    uint16_t port;             /* host order */
    uint8_t proto;
    uint8_t scope;             /* enum fwd_scope */
    uint16_t flags;            /* FWD_SVC_* */
    uint16_t rev_nat_id;       /* 1..65535; both scopes of a frontend share it */
    uint32_t affinity_timeout_s;
    uint32_t count;            /* backend slots; read back only */
};

struct fwd_backend_row {
    struct fwd_addr addr;
    uint32_t id;               /* never 0 */
    uint16_t port;             /* host order; 0 = keep the packet's */
    uint8_t proto;
    uint8_t state;             /* enum fwd_backend_state */
};

/* Who may use a service with FWD_SVC_SOURCE_RANGE from outside. */
struct fwd_source_range_row {
    struct fwd_addr prefix;    /* masked, IPv4 mapped */
    uint16_t rev_nat_id;
    uint8_t family;            /* 4 or 6 */
    uint8_t prefix_len;        /* of that family */
};

struct fwd_ct_row {
    struct fwd_addr daddr, saddr;
    uint16_t dport, sport;     /* be16, as stored (datapath reference 3.1) */
    uint8_t proto, tuple_flags;
    uint16_t flags;            /* FWD_CT_* */
    uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
    uint32_t expires_s;        /* seconds of the caller's clock */
    uint32_t src_identity;
    uint32_t last_rx_report_s, last_tx_report_s;
    uint32_t backend_id;
    uint16_t rev_nat_id;
    uint16_t ifindex;
    uint8_t rx_flags_seen, tx_flags_seen;
    uint8_t pad[6];
};

struct fwd_nat_row {
    struct fwd_addr daddr, saddr; /* the key: as in the packet before translation */
    struct fwd_addr to_addr;   /* an OUT entry's new source, an IN entry's new destination */
    uint16_t dport, sport, to_port; /* be16; of echo the identifier */
    uint8_t proto, flags;      /* FWD_TUPLE_OUT or _IN */
    uint64_t created_ns;
};

struct fwd_metric_row {
    uint64_t packets, bytes;
    uint8_t reason;            /* enum fwd_metric or enum fwd_drop */
    uint8_t dir;
    uint8_t pad[6];
};

struct fwd_table_stats {
    uint32_t cap, count;
    uint64_t size;             /* bytes of storage */
    uint64_t evictions, failures; /* conntrack: half-open flows evicted; inserts refused */
};

struct fwd_event {
    uint64_t time_ns;
    uint8_t type;              /* enum fwd_event_type */
    uint8_t subtype;           /* drop reason, observation point; verdict: 1 = audited */
    uint16_t source;           /* endpoint that speaks, 0 = the node */
    uint32_t hash;
    uint32_t len_orig;
    uint16_t len_cap;
    uint8_t ct;                /* enum fwd_ct_status, FWD_CT_NONE = unknown */
    uint8_t dir;
    uint32_t src_identity, dst_identity;
    uint32_t dst_id;           /* endpoint the packet goes to, 0 = none */
    uint32_t ifindex;
    uint32_t rule_id;          /* verdict and drop */
    int32_t verdict;           /* verdict: 0 allow, -code deny */
    uint16_t dst_port;         /* host order */
    uint8_t proto, match;
    uint32_t policy_endpoint;
    struct fwd_addr orig_ip;
    struct fwd_step step;      /* FWD_EVENT_STEP */
    uint8_t data[FWD_CAPTURE_LEN];
};

/* ---- the datapath ---- */

struct fwd_dp; /* a handle on one arena; the arena itself is position-independent */

FWD_EXPORT uint32_t fwd_abi_version(void);
FWD_EXPORT uint64_t fwd_arena_size(const struct fwd_params *params);

/* fwd_dp_create: map an arena and lay out empty tables.
 * @fd: memfd to size and map, or -1 for an anonymous arena (tests, replay)
 * Return: a handle for fwd_dp_close, NULL with @err filled. */
FWD_EXPORT struct fwd_dp *fwd_dp_create(const struct fwd_params *params, int fd,
                                        struct fwd_error *err);
/* fwd_dp_attach: map an arena another process left and check every byte that is trusted later.
 * @boot_id: of the running kernel; another one means another clock and is refused.
 * Torn entries are dropped and counted in @torn. */
FWD_EXPORT struct fwd_dp *fwd_dp_attach(int fd, const uint8_t boot_id[16], uint32_t *torn,
                                        struct fwd_error *err);
/* fwd_dp_view: the arena of @dp as it is now, copy on write: what runs on the view changes nothing
 * behind it. @fd: the memfd @dp was made with. Valid while @dp does not change. */
FWD_EXPORT struct fwd_dp *fwd_dp_view(const struct fwd_dp *dp, int fd, struct fwd_error *err);
FWD_EXPORT void fwd_dp_close(struct fwd_dp *dp);
FWD_EXPORT void fwd_dp_params(const struct fwd_dp *dp, struct fwd_params *params);
FWD_EXPORT void fwd_dp_settings_get(const struct fwd_dp *dp, struct fwd_settings *settings);
FWD_EXPORT void fwd_dp_settings_set(struct fwd_dp *dp, const struct fwd_settings *settings);
FWD_EXPORT uint64_t fwd_dp_generation(const struct fwd_dp *dp);
FWD_EXPORT void fwd_dp_generation_set(struct fwd_dp *dp, uint64_t generation);

/* fwd_dp_run: decide on a batch. Takes packets in order until @in or @out is used up.
 * @now_ns: monotonic, never smaller than in the call before
 * Return: packets taken; out[i] belongs to in[i]. */
FWD_EXPORT uint32_t fwd_dp_run(struct fwd_dp *dp, uint64_t now_ns, struct fwd_pkt *in, uint32_t n,
                               struct fwd_out *out, uint32_t out_cap);

/* fwd_dp_count_drop: the I/O room's drops (243..246) go through the same counter and event. The
 * packet is taken off the column @out->verdict put it in, so that in = out + drops + punts holds;
 * a packet the datapath never saw comes with @out NULL and counts as received here. */
FWD_EXPORT void fwd_dp_count_drop(struct fwd_dp *dp, uint64_t now_ns, enum fwd_drop reason,
                                  enum fwd_dir dir, const struct fwd_pkt *pkt,
                                  const struct fwd_out *out);

/* fwd_pkt_finish_csum: fill in a partial checksum, in place. False: offsets outside the frame. */
FWD_EXPORT bool fwd_pkt_finish_csum(struct fwd_pkt *pkt);

/* ---- tables: upsert, delete, get, dump by cursor ----
 * Upserts return 0, or -1 with @err when the table is full or the row is invalid.
 * Deletes return 1 when something was deleted, else 0. Dumps start with *cursor = 0, return the
 * number of rows written and leave *cursor = 0 at the end; rows that change in between may be
 * missed, rows that stay are seen once. */

FWD_EXPORT int fwd_endpoint_upsert(struct fwd_dp *dp, const struct fwd_endpoint_row *row,
                                   struct fwd_error *err);
FWD_EXPORT int fwd_endpoint_delete(struct fwd_dp *dp, uint16_t lxc_id);
FWD_EXPORT uint32_t fwd_endpoint_dump(struct fwd_dp *dp, uint64_t *cursor,
                                      struct fwd_endpoint_row *rows, uint32_t cap);
FWD_EXPORT int fwd_lxc_upsert(struct fwd_dp *dp, const struct fwd_lxc_row *row,
                              struct fwd_error *err);
FWD_EXPORT int fwd_lxc_delete(struct fwd_dp *dp, const struct fwd_addr *addr);
FWD_EXPORT uint32_t fwd_lxc_dump(struct fwd_dp *dp, uint64_t *cursor, struct fwd_lxc_row *rows,
                                 uint32_t cap);
FWD_EXPORT int fwd_ipcache_upsert(struct fwd_dp *dp, const struct fwd_ipcache_row *row,
                                  struct fwd_error *err);
FWD_EXPORT int fwd_ipcache_delete(struct fwd_dp *dp, const struct fwd_ipcache_row *key);
/* fwd_ipcache_settle: make lookups among many prefix lengths fast again after changes; about 0.1 s
 * for a million prefixes, beside packets in another thread if need be. Return: 1, or 0 when there
 * were changes meanwhile. */
FWD_EXPORT int fwd_ipcache_settle(struct fwd_dp *dp);
FWD_EXPORT int fwd_ipcache_lookup(struct fwd_dp *dp, const struct fwd_addr *addr,
                                  struct fwd_ipcache_row *row);
FWD_EXPORT uint32_t fwd_ipcache_dump(struct fwd_dp *dp, uint64_t *cursor,
                                     struct fwd_ipcache_row *rows, uint32_t cap);
FWD_EXPORT int fwd_policy_upsert(struct fwd_dp *dp, const struct fwd_policy_row *row,
                                 struct fwd_error *err);
FWD_EXPORT int fwd_policy_delete(struct fwd_dp *dp, const struct fwd_policy_row *key);
/* fwd_policy_lookup: the verdict of 5.3 without touching counters; *row = the entry that decided.
 * Return: 0 allow, else FWD_DROP_POLICY_DENIED (no entry) or FWD_DROP_POLICY_DENY. */
FWD_EXPORT int fwd_policy_lookup(struct fwd_dp *dp, uint16_t lxc_id, uint8_t dir, uint32_t identity,
                                 uint8_t proto, uint16_t port, struct fwd_policy_row *row,
                                 uint8_t *match);
FWD_EXPORT uint32_t fwd_policy_dump(struct fwd_dp *dp, uint64_t *cursor,
                                    struct fwd_policy_row *rows, uint32_t cap);
FWD_EXPORT int fwd_peer_upsert(struct fwd_dp *dp, const struct fwd_peer_row *row,
                               struct fwd_error *err);
FWD_EXPORT int fwd_peer_delete(struct fwd_dp *dp, const struct fwd_addr *ip);
FWD_EXPORT uint32_t fwd_peer_dump(struct fwd_dp *dp, uint64_t *cursor, struct fwd_peer_row *rows,
                                  uint32_t cap);

/* fwd_service_upsert: a frontend and its @n backend slots, which take new connections at random.
 * Slots are rewritten one by one, so every packet in between finds an old or a new backend. */
FWD_EXPORT int fwd_service_upsert(struct fwd_dp *dp, const struct fwd_service_row *row,
                                  const uint32_t *backend_ids, uint32_t n, struct fwd_error *err);
FWD_EXPORT int fwd_service_delete(struct fwd_dp *dp, const struct fwd_service_row *key);
FWD_EXPORT uint32_t fwd_service_dump(struct fwd_dp *dp, uint64_t *cursor,
                                     struct fwd_service_row *rows, uint32_t cap);
/* fwd_service_slots: the backend ids of a frontend, at most @cap. Return: how many. */
FWD_EXPORT uint32_t fwd_service_slots(struct fwd_dp *dp, const struct fwd_service_row *key,
                                      uint32_t *backend_ids, uint32_t cap);
FWD_EXPORT int fwd_backend_upsert(struct fwd_dp *dp, const struct fwd_backend_row *row,
                                  struct fwd_error *err);
FWD_EXPORT int fwd_backend_delete(struct fwd_dp *dp, uint32_t id);
FWD_EXPORT uint32_t fwd_backend_dump(struct fwd_dp *dp, uint64_t *cursor,
                                     struct fwd_backend_row *rows, uint32_t cap);

FWD_EXPORT int fwd_source_range_upsert(struct fwd_dp *dp, const struct fwd_source_range_row *row,
                                       struct fwd_error *err);
FWD_EXPORT int fwd_source_range_delete(struct fwd_dp *dp, const struct fwd_source_range_row *row);
FWD_EXPORT uint32_t fwd_source_range_dump(struct fwd_dp *dp, uint64_t *cursor,
                                          struct fwd_source_range_row *rows, uint32_t cap);
/* fwd_maglev_upsert: FWD_MAGLEV_SIZE backend ids, the table by which the service of @rev_nat_id
 * gives new connections from outside to backends. Without one they are given at random. */
FWD_EXPORT int fwd_maglev_upsert(struct fwd_dp *dp, uint16_t rev_nat_id,
                                 const uint32_t *backend_ids, struct fwd_error *err);
FWD_EXPORT int fwd_maglev_delete(struct fwd_dp *dp, uint16_t rev_nat_id);
/* fwd_maglev_get: the table into @backend_ids. Return: FWD_MAGLEV_SIZE, 0 = there is none. */
FWD_EXPORT uint32_t fwd_maglev_get(struct fwd_dp *dp, uint16_t rev_nat_id, uint32_t *backend_ids);

FWD_EXPORT uint32_t fwd_ct_dump(struct fwd_dp *dp, enum fwd_map map, uint64_t *cursor,
                                struct fwd_ct_row *rows, uint32_t cap);
/* fwd_ct_sweep: walk at most @budget entries from *cursor, delete those with expires_s < now_s.
 * Return: entries deleted; *cursor = 0 after the last one. */
FWD_EXPORT uint32_t fwd_ct_sweep(struct fwd_dp *dp, enum fwd_map map, uint32_t now_s,
                                 uint64_t *cursor, uint32_t budget);
/* fwd_ct_purge_addr: the same walk, deleting every entry that has @addr on either side. */
FWD_EXPORT uint32_t fwd_ct_purge_addr(struct fwd_dp *dp, enum fwd_map map,
                                      const struct fwd_addr *addr, uint64_t *cursor,
                                      uint32_t budget);
/* fwd_ct_purge_services: the same walk, deleting entries of flows through a service that is gone or
 * no longer has their backend. */
FWD_EXPORT uint32_t fwd_ct_purge_services(struct fwd_dp *dp, enum fwd_map map, uint64_t *cursor,
                                          uint32_t budget);
FWD_EXPORT uint32_t fwd_nat_dump(struct fwd_dp *dp, uint64_t *cursor, struct fwd_nat_row *rows,
                                 uint32_t cap);
/* fwd_nat_sweep: walk at most @budget entries from *cursor, delete mappings whose flow conntrack has
 * forgotten. Return: mappings deleted; *cursor = 0 after the last entry. */
FWD_EXPORT uint32_t fwd_nat_sweep(struct fwd_dp *dp, uint64_t *cursor, uint32_t budget);
FWD_EXPORT uint32_t fwd_metrics_dump(struct fwd_dp *dp, uint64_t *cursor,
                                     struct fwd_metric_row *rows, uint32_t cap);

enum fwd_table { FWD_TABLE_CT_TCP, FWD_TABLE_CT_ANY, FWD_TABLE_IPCACHE, FWD_TABLE_ENDPOINT,
                 FWD_TABLE_LXC, FWD_TABLE_POLICY, FWD_TABLE_PEER, FWD_TABLE_FRAG,
                 FWD_TABLE_SERVICE, FWD_TABLE_BACKEND, FWD_TABLE_AFFINITY, FWD_TABLE_SLOT,
                 FWD_TABLE_NAT, FWD_TABLE_SOURCE_RANGE, FWD_TABLE_MAGLEV };
FWD_EXPORT void fwd_table_stats(const struct fwd_dp *dp, enum fwd_table table,
                                struct fwd_table_stats *stats);

/* fwd_events_read: drain the ring. *lost grows by the events overwritten unread. */
FWD_EXPORT uint32_t fwd_events_read(struct fwd_dp *dp, struct fwd_event *events, uint32_t cap,
                                    uint64_t *lost);

/* ---- base, exported for the tests' slow twins ---- */

FWD_EXPORT uint16_t fwd_csum(const uint8_t *data, uint32_t len, uint32_t initial); /* be16 */

/* ---- the pump (csrc/io): the only syscalls after start-up ---- */

struct fwd_pump;

struct fwd_pump_stats {
    uint64_t wakeups;          /* calls of fwd_pump_run that found work */
    uint64_t rx_packets, tx_packets; /* frames read from and written to TAPs and the socket */
    uint64_t rx_syscalls, tx_syscalls;
    uint64_t udp_rx_overflow;  /* datagrams the kernel dropped on the socket (SO_RXQ_OVFL) */
    uint64_t tap_write_errors, udp_send_errors;
    uint64_t punts, punts_lost;
    uint64_t spins, spin_hits; /* busy waits for more, and those that found it */
    uint64_t tap_rx_super, tap_rx_super_bytes; /* super-packets of TAPs, and their frame bytes */
    uint64_t tap_tx_super, tap_tx_super_bytes;
    uint64_t tap_split;        /* super-packets a TAP did not take whole */
    uint64_t udp_rx_datagrams, udp_tx_datagrams; /* on the wire */
    uint64_t udp_rx_merged;    /* datagrams that became part of another packet */
    uint64_t udp_tx_trains, udp_tx_train_datagrams; /* sends with UDP_SEGMENT, what they carried */
    uint64_t udp_segment_refused, tap_uso_refused; /* by the kernel; sent without the offload */
    uint64_t rx_errors;        /* reads that failed, other than for want of packets */
};

enum { /* offloads of the pump; each can be switched, and falls back by itself */
    FWD_OFFLOAD_UDP_SEGMENT = 1, /* trains of equal datagrams in one send */
    FWD_OFFLOAD_UDP_GRO = 2,     /* the socket delivers trains; the caller has set UDP_GRO */
    FWD_OFFLOAD_MERGE_TCP = 4,   /* datagrams with neighbouring TCP segments become one packet */
    FWD_OFFLOAD_MERGE_UDP = 8,   /* the same for UDP; the TAPs take USO */
};

struct fwd_punt {
    uint32_t port;             /* where the frame came in */
    uint32_t len;
    uint64_t time_ns;
    uint8_t data[2048];        /* the frame; longer ones are cut: no slow-path protocol is longer */
};

/* fwd_pump_new: @epoll_fd is made here and is what asyncio watches. */
FWD_EXPORT struct fwd_pump *fwd_pump_new(struct fwd_dp *dp, struct fwd_error *err);
FWD_EXPORT void fwd_pump_free(struct fwd_pump *pump);
FWD_EXPORT int fwd_pump_epoll_fd(const struct fwd_pump *pump);
/* fwd_pump_add_tap: watch a TAP opened with IFF_NO_PI|IFF_VNET_HDR, non-blocking. The fd stays
 * the caller's. @vnet_hdr_size: as set with TUNSETVNETHDRSZ (10, 12 or 24). */
FWD_EXPORT int fwd_pump_add_tap(struct fwd_pump *pump, uint32_t port, int fd,
                                uint32_t vnet_hdr_size, struct fwd_error *err);
FWD_EXPORT int fwd_pump_add_udp(struct fwd_pump *pump, int fd, struct fwd_error *err);
FWD_EXPORT int fwd_pump_remove(struct fwd_pump *pump, uint32_t port);
/* fwd_pump_offload_set: FWD_OFFLOAD_* to use from now on. @segments_max: datagrams the kernel takes
 * in one UDP_SEGMENT train (64 before Linux 6.9, 128 since). All off in a new pump. */
FWD_EXPORT void fwd_pump_offload_set(struct fwd_pump *pump, uint32_t offload,
                                     uint32_t segments_max);
/* fwd_pump_offload_get: those still in use: an offload the kernel keeps refusing is off. */
FWD_EXPORT uint32_t fwd_pump_offload_get(const struct fwd_pump *pump);
/* fwd_pump_run: move packets until nothing is ready or @budget_ns is used up; waits up to
 * @linger_ns for more once it had work. Return: packets moved. */
FWD_EXPORT uint32_t fwd_pump_run(struct fwd_pump *pump, uint64_t budget_ns, uint64_t linger_ns);
/* fwd_pump_eager: did the budget end the last run in the midst of packets? The next should follow
 * without a sleep between. Never without spin. */
FWD_EXPORT int fwd_pump_eager(const struct fwd_pump *pump);
/* fwd_pump_spin_set: how long a run may wait busily for more, before it lingers; 0 = never. */
FWD_EXPORT void fwd_pump_spin_set(struct fwd_pump *pump, uint64_t spin_ns);
/* fwd_pump_write: a slow-path frame to a TAP port. Return: 0, or -errno. */
FWD_EXPORT int fwd_pump_write(struct fwd_pump *pump, uint32_t port, const uint8_t *frame,
                              uint32_t len);
FWD_EXPORT uint32_t fwd_pump_punts(struct fwd_pump *pump, struct fwd_punt *punts, uint32_t cap);
/* fwd_pump_gone: ports whose device vanished since the last call; the pump has let go of them. */
FWD_EXPORT uint32_t fwd_pump_gone(struct fwd_pump *pump, uint32_t *ports, uint32_t cap);
FWD_EXPORT void fwd_pump_stats_get(const struct fwd_pump *pump, struct fwd_pump_stats *stats);

#ifndef FWD_CDEF
static_assert(sizeof(struct fwd_addr) == 16, "addresses are 16 bytes");
static_assert(sizeof(struct fwd_params) == 88, "arena header layout");
static_assert(sizeof(struct fwd_endpoint_row) == 24, "row layout");
static_assert(sizeof(struct fwd_lxc_row) == 20, "row layout");
static_assert(sizeof(struct fwd_ipcache_row) == 40, "row layout");
static_assert(sizeof(struct fwd_policy_row) == 32, "row layout");
static_assert(sizeof(struct fwd_peer_row) == 28, "row layout");
static_assert(sizeof(struct fwd_service_row) == 32, "row layout");
static_assert(sizeof(struct fwd_backend_row) == 24, "row layout");
static_assert(sizeof(struct fwd_source_range_row) == 20, "row layout");
static_assert(sizeof(struct fwd_ct_row) == 104, "row layout");
static_assert(sizeof(struct fwd_nat_row) == 64, "row layout");
static_assert(sizeof(struct fwd_step) == 36, "step layout");
static_assert(sizeof(struct fwd_event) == 240, "event layout");
#endif

#endif
