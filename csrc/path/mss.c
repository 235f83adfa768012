/* mss.c - TCP's maximum segment size, lowered in SYNs to what the tunnel carries.
 *
 * Called by egress.c before encapsulation, by ingress.c before delivery and by nodeport.c for clients
 * outside, so that one clamping node is enough for both directions. For pods whose device has a larger
 * MTU than the tunnel, and for peers that cannot be told by ICMP; off unless features.mss_clamp is on.
 * Source: RFC 9293 section 3.2 (options), RFC 6691 (headers without options count).
 */
#include "base/checksum.h"
#include "path/path.h"

enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_MSS = 2, OPTION_MSS_LEN = 4, MSS_LEAST = 536 };

/* mss_option: where the value of the MSS option lies, from the start of the TCP header of @hlen
 * bytes; 0 = there is none, or the options are broken and none of our business. */
static uint32_t mss_option(const uint8_t *tcp, uint32_t hlen)
{
    uint32_t at = TCP_HLEN;
    while (at + 2 <= hlen && tcp[at] != OPTION_END) {
        if (tcp[at] == OPTION_NOP) {
            at++;
            continue;
        }
        uint32_t len = tcp[at + 1];
        if (len < 2 || at + len > hlen)
            return 0;
        if (tcp[at] == OPTION_MSS)
            return len == OPTION_MSS_LEN ? at + 2 : 0;
        at += len;
    }
    return 0;
}

void stage_mss(struct path *p)
{
    const struct parsed *parsed = &p->parsed;
    uint32_t mtu = p->settings->tunnel_mtu;
    uint32_t headers = (parsed->family == 4 ? IPV4_HLEN : IPV6_HLEN) + TCP_HLEN;
    if (!p->settings->mss_clamp || mtu < headers + MSS_LEAST || parsed->proto != PROTO_TCP ||
        !parsed->has_l4 || parsed->later_fragment || !(parsed->tcp_flags & TCP_SYN))
        return;
    uint8_t *tcp = pkt_data(p->pkt) + parsed->l4_off;
    uint32_t hlen = (tcp[12] >> 4) * 4u;
    uint32_t at = hlen <= parsed->l4_len ? mss_option(tcp, hlen) : 0;
    uint16_t most = (uint16_t)(mtu - headers);
    if (!at || get_be16(tcp + at) <= most)
        return;
    uint8_t before[4];
    uint8_t *words = tcp + (at & ~1u);
    uint32_t len = at & 1 ? 4 : 2; /* an odd value straddles two words of the sum; within the header */
    memcpy(before, words, len);
    path_step(p, (struct fwd_step){.stage = FWD_STAGE_MSS, .flag = 1, .a = get_be16(tcp + at),
                                   .b = most});
    put_be16(tcp + at, most);
    if (!(p->pkt->vnet_flags & FWD_VNET_NEEDS_CSUM)) /* else the segment is not summed up yet */
        csum_change(tcp + 16, csum_diff(before, words, len));
}
