/* oracle.c - packets cut out of fuzz bytes, and the judge of what became of them. See world.h. */
#include "world.h"

#include "base/checksum.h"
#include "base/parse.h"
#include "base/vxlan.h"

#include <stdio.h>

enum { NODE = 0xc0a83869, NODE2 = 0xc0a8386a, LEGACY = 0xc0a8386b };
enum { ICMP_ERROR_HLEN = 8, TAIL_ROOM = 256, START_S = 1000, RECORDS_MAX = 32 };

_Noreturn void must_not(const char *truth, const char *file, int line)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, truth);
    abort();
}

void put16(uint8_t *at, uint32_t value)
{
    put_be16(at, (uint16_t)value);
}

void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

/* ---- input ---- */

uint8_t read_byte(struct reader *reader)
{
    if (!reader->left)
        return 0;
    reader->left--;
    return *reader->at++;
}

uint16_t read_be16(struct reader *reader)
{
    uint8_t high = read_byte(reader);
    return (uint16_t)(high << 8 | read_byte(reader));
}

uint32_t build_ipv4(uint8_t *frame, uint32_t saddr, uint32_t daddr, uint8_t proto,
                    uint16_t payload_len)
{
    uint8_t *ip = frame + ETH_HLEN;
    memset(frame, 0, ETH_HLEN + IPV4_HLEN);
    frame[0] = frame[6] = 2;
    put16(frame + 12, ETHERTYPE_IPV4);
    ip[0] = 0x45;
    put16(ip + 2, IPV4_HLEN + (uint32_t)payload_len);
    ip[8] = 64;
    ip[9] = proto;
    put32(ip + 12, saddr);
    put32(ip + 16, daddr);
    store16(ip + 10, csum_fold(csum_partial(ip, IPV4_HLEN, 0)));
    return ETH_HLEN + IPV4_HLEN;
}

struct run run_begin(void)
{
    return (struct run){.dp = world_view(), .now_ns = START_S * 1000000000ull};
}

static void fill_packet(struct fwd_pkt *pkt, enum fuzz_class class, uint8_t ctl, uint8_t arg)
{
    static const uint32_t ports[FUZZ_CLASSES] = {CURL, LOCAL, FWD_PORT_OVERLAY, FWD_PORT_OVERLAY,
                                                 FWD_PORT_HOST, FWD_PORT_NETDEV, FWD_PORT_NETDEV,
                                                 NO_POD};
    pkt->port = ports[class];
    pkt->hook = class == FROM_TO_NETDEV ? FWD_HOOK_TO_NETDEV : FWD_HOOK_BY_PORT;
    pkt->outer_src = v4(class == FROM_LEGACY ? LEGACY : NODE2);
    pkt->outer_dst = v4(NODE);
    if (!(ctl & CTL_OFFLOAD) || pkt->port == FWD_PORT_OVERLAY)
        return;
    uint32_t start = arg < 128 ? (arg & 2 ? 54 : 34) : arg;
    uint32_t offset = arg < 128 ? (arg & 1 ? 16 : 6) : arg;
    if (start + offset + 2 > pkt->len) /* the I/O room has refused those */
        return;
    pkt->vnet_flags = FWD_VNET_NEEDS_CSUM;
    pkt->csum_start = (uint16_t)start;
    pkt->csum_offset = (uint16_t)offset;
    pkt->gso_size = arg & 4 ? 1400 : 0;
    pkt->gso_type = arg & 4 ? FWD_GSO_TCPV4 : FWD_GSO_NONE;
}

/* ---- the oracle ---- */

/* What is left of each checksum of a packet that parses, modulo 0xffff: 0 = right. Whatever the
 * datapath translates, what was wrong stays wrong by as much, and what was right stays right. */
struct residue {
    bool parses, has_l4, has_quote;
    uint32_t ip, l4, quote;
    struct parsed parsed;
};

static uint32_t csum_residue(uint64_t sum)
{
    return (uint32_t)(sum % 0xffff);
}

/* quote_residue: of the IPv4 header that an ICMP error quotes, when there is a whole one. */
static void quote_residue(const uint8_t *icmp, struct residue *residue)
{
    uint8_t type = icmp[0];
    const uint8_t *ip = icmp + ICMP_ERROR_HLEN;
    bool error = type == 3 || type == 11 || type == 12;
    if (!error || residue->parsed.l4_len < ICMP_ERROR_HLEN + IPV4_HLEN || ip[0] != 0x45)
        return;
    residue->has_quote = true;
    residue->quote = csum_residue(csum_partial(ip, IPV4_HLEN, 0));
}

static struct residue frame_residue(const struct fwd_pkt *pkt)
{
    struct residue residue = {0};
    struct parsed *parsed = &residue.parsed;
    if (parse_eth(pkt, parsed) || parse_l3(pkt, parsed))
        return residue;
    const uint8_t *frame = pkt_data(pkt);
    residue.parses = true;
    if (parsed->family == 4)
        residue.ip = csum_residue(csum_partial(frame + ETH_HLEN,
                                               (uint32_t)parsed->l4_off - ETH_HLEN, 0));
    bool covered = parsed->proto == PROTO_TCP || parsed->proto == PROTO_UDP ||
                   parsed->proto == PROTO_ICMPV6;
    bool icmp = parsed->proto == PROTO_ICMP;
    bool unsummed = parsed->proto == PROTO_UDP && parsed->has_l4 &&
                    load16(frame + parsed->l4_off + 6) == 0;
    residue.has_l4 = parsed->has_l4 && !parsed->later_fragment && (covered || icmp) && !unsummed &&
                     !(pkt->vnet_flags & FWD_VNET_NEEDS_CSUM);
    if (residue.has_l4) {
        uint64_t sum = covered ? csum_pseudo(&parsed->saddr, &parsed->daddr, parsed->proto,
                                             parsed->l4_len) : 0;
        residue.l4 = csum_residue(csum_partial(frame + parsed->l4_off, parsed->l4_len, sum));
        if (icmp)
            quote_residue(frame + parsed->l4_off, &residue);
    }
    return residue;
}

/* judge_frame: a frame that goes on. @answer: we made it, so everything in it is right. */
static void judge_frame(const struct residue *before, const struct residue *after, bool answer)
{
    if (answer) {
        must(after->parses && after->ip == 0);
        must(!after->has_l4 || after->l4 == 0);
        return;
    }
    must(after->parses);
    must(before->parsed.family == after->parsed.family);
    must(before->ip == after->ip);
    if (before->has_l4 && after->has_l4)
        must(before->l4 == after->l4);
    must(before->has_l4 == after->has_l4);
    must(before->has_quote == after->has_quote && before->quote == after->quote);
}

static void judge(const struct fwd_pkt *pkt, const struct fwd_out *out,
                  const struct residue *before)
{
    struct fwd_pkt frame = *pkt;
    must(out->verdict <= FWD_DROP && out->n_trace <= FWD_MAX_TRACE);
    must(out->n_steps <= FWD_MAX_STEPS);
    must(pkt->off <= pkt->size && pkt->len <= pkt->size - pkt->off);
    if (out->verdict == FWD_DROP) {
        must(out->drop != 0);
        return;
    }
    bool ours = out->drop == 0; /* else it has become an ICMP error */
    if (out->verdict == FWD_PUNT)
        return;
    if (out->verdict == FWD_TX_UNDERLAY && out->port == FWD_PORT_OVERLAY) {
        uint32_t vni;
        must(pkt->len >= VXLAN_HLEN && vxlan_parse(pkt_data(pkt), &vni) && vni == out->vni);
        must(!addr_is_zero(&out->remote));
        pkt_pull(&frame, VXLAN_HLEN);
        must(before->parses);
    } else if (out->verdict == FWD_TX_ENDPOINT) {
        must(out->port == CURL || out->port == LOCAL);
        must(before->parses);
    } else if (ours && !before->parses) {
        return; /* the stack and the wire get what is not IP as it is */
    }
    struct residue after = frame_residue(&frame);
    judge_frame(before, &after, !ours);
}

struct fwd_out run_packet(struct run *run, enum fuzz_class class, uint8_t ctl, uint8_t arg,
                          const uint8_t *frame, uint32_t len)
{
    static const uint64_t times[4] = {0, 1000000, 1000000000, 100000000000};
    struct fwd_step steps[FWD_MAX_STEPS];
    struct fwd_out out = {.steps = steps};
    uint32_t size = FWD_HEADROOM + len + (ctl & CTL_TAIL ? TAIL_ROOM : 0);
    struct fwd_pkt pkt = {.buf = malloc(size), .size = size, .off = FWD_HEADROOM, .len = len};
    must(pkt.buf != NULL);
    memset(pkt.buf, 0, size); /* what lies around a frame is not of this input */
    if (len)
        memcpy(pkt.buf + FWD_HEADROOM, frame, len);
    fill_packet(&pkt, class, ctl, arg);
    struct fwd_pkt inner = pkt;
    if (pkt.port == FWD_PORT_OVERLAY && len >= VXLAN_HLEN)
        pkt_pull(&inner, VXLAN_HLEN);
    struct residue before = frame_residue(&inner);
    run->now_ns += times[(ctl & CTL_TIME) >> 4];
    must(fwd_dp_run(run->dp, run->now_ns, &pkt, 1, &out, 1) == 1);
    run->sent++;
    judge(&pkt, &out, &before);
    fwd_pkt_finish_csum(&pkt);
    free(pkt.buf);
    out.steps = NULL;
    return out;
}

void run_records(struct run *run, struct reader *reader, enum fuzz_class first,
                 enum fuzz_class second)
{
    for (int records = 0; reader->left && records < RECORDS_MAX; records++) {
        uint8_t ctl = read_byte(reader), arg = read_byte(reader);
        uint32_t len = read_be16(reader);
        if (len > reader->left)
            len = (uint32_t)reader->left;
        enum fuzz_class class = ctl & CTL_CLASS;
        if (!(ctl & CTL_FOREIGN))
            class = ctl & 1 ? second : first;
        run_packet(run, class, ctl, arg, reader->at, len);
        reader->at += len;
        reader->left -= len;
    }
}

void run_end(struct run *run)
{
    struct fwd_metric_row rows[64];
    uint64_t at = 0, in = 0, out = 0;
    do {
        uint32_t n = fwd_metrics_dump(run->dp, &at, rows, 64);
        for (uint32_t i = 0; i < n; i++) {
            uint8_t reason = rows[i].reason;
            if (reason == FWD_METRIC_RECEIVED)
                in += rows[i].packets;
            else if (reason == FWD_METRIC_SENT || reason == FWD_METRIC_TO_STACK ||
                     reason == FWD_METRIC_PUNTED || reason >= FWD_DROP_INVALID_SOURCE_MAC)
                out += rows[i].packets;
        }
    } while (at);
    must(in == run->sent && in == out);
    fwd_dp_close(run->dp);
}
