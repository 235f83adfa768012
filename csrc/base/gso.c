/* gso.c - see gso.h. Everything per segment is what the kernel would have done: length, IPv4 id and
 * header checksum, TCP sequence number and flags, UDP length, transport checksum.
 */
#include "base/gso.h"

#include "base/checksum.h"

enum {
    GSO_TCP_SEQ_AT = 4,
    GSO_TCP_FLAGS_AT = 12, /* with the header's length, one word */
    GSO_TCP_CSUM_AT = 16,
    GSO_UDP_CSUM_AT = 6,
    GSO_TCP_LAST_ONLY = 1 | 8, /* FIN, PSH */
    GSO_TCP_FIRST_ONLY = 128,  /* CWR */
};

/* A number of a header as its word lies in memory. */
static uint64_t gso_word(uint32_t number)
{
    return be16_to_host((uint16_t)number);
}

/* gso_sum_headers: what is the same in every segment, summed once: reading a header back that was
 * just written field by field would stall the processor more than all of its sum costs. */
static void gso_sum_headers(struct gso *gso, uint16_t csum_at)
{
    uint8_t head[GSO_HEAD_MAX];
    uint8_t *ip = head + gso->l3_off, *l4 = head + gso->l4_off;

    memcpy(head, gso->head, gso->head_len);
    memset(ip + 2, 0, 4);  /* total length, id */
    memset(ip + 10, 0, 2); /* checksum */
    gso->ip_sum = csum_partial(ip, (uint32_t)gso->l4_off - gso->l3_off, 0);
    /* The field holds the pseudo-header sum of the whole: take its length out, translated
     * addresses are in it already. */
    uint32_t whole = gso->head_len + gso->payload_len - gso->l4_off;
    gso->l4_sum = (uint64_t)load16(l4 + csum_at) + (uint16_t)~gso_word(whole);
    memset(l4 + 4, 0, gso->tcp ? 4 : 2); /* sequence number; UDP's length */
    if (gso->tcp)
        memset(l4 + GSO_TCP_FLAGS_AT, 0, 2);
    memset(l4 + csum_at, 0, 2);
    gso->l4_sum = csum_partial(l4, gso->head_len - gso->l4_off, gso->l4_sum);
}

bool gso_open(struct gso *gso, const struct fwd_pkt *pkt, uint32_t l3_off)
{
    const uint8_t *data = pkt_data(pkt);
    bool v4 = pkt->len > l3_off && data[l3_off] >> 4 == 4;
    uint32_t l4_off = pkt->csum_start;

    gso->tcp = pkt->gso_type == (v4 ? FWD_GSO_TCPV4 : FWD_GSO_TCPV6);
    uint16_t csum_at = gso->tcp ? GSO_TCP_CSUM_AT : GSO_UDP_CSUM_AT;
    uint32_t l4_min = gso->tcp ? TCP_HLEN : UDP_HLEN;
    if ((!gso->tcp && pkt->gso_type != FWD_GSO_UDP_L4) || !(pkt->vnet_flags & FWD_VNET_NEEDS_CSUM) ||
        !pkt->gso_size || pkt->csum_offset != csum_at ||
        l4_off < l3_off + (v4 ? IPV4_HLEN : IPV6_HLEN) || l4_off + l4_min > pkt->len)
        return false;
    /* The header's length is read from the header: virtio's hdr_len may be the whole first packet. */
    uint32_t l4_hlen = gso->tcp ? (uint32_t)(data[l4_off + 12] >> 4) * 4 : UDP_HLEN;
    uint32_t head_len = l4_off + l4_hlen;
    if (l4_hlen < l4_min || head_len > GSO_HEAD_MAX || head_len >= pkt->len)
        return false;
    gso->head = data;
    gso->head_len = head_len;
    gso->payload = data + head_len;
    gso->payload_len = pkt->len - head_len;
    gso->size = pkt->gso_size;
    gso->segments = (gso->payload_len + gso->size - 1) / gso->size;
    gso->l3_off = (uint16_t)l3_off;
    gso->l4_off = (uint16_t)l4_off;
    if (gso->segments > GSO_SEGMENTS_MAX)
        return false;
    gso_sum_headers(gso, csum_at);
    return true;
}

static void gso_l3(const struct gso *gso, uint32_t index, uint32_t l3_len, uint8_t *ip)
{
    if (ip[0] >> 4 == 4) {
        uint32_t id = get_be16(gso->head + gso->l3_off + 4) + index;
        put_be16(ip + 2, (uint16_t)l3_len);
        put_be16(ip + 4, (uint16_t)id);
        store16(ip + 10, csum_fold(gso->ip_sum + gso_word(l3_len) + gso_word(id)));
    } else {
        put_be16(ip + 4, (uint16_t)(l3_len - IPV6_HLEN));
    }
}

/* Sequence number and flags of the segment @at bytes into the payload. Return: what they add to
 * the checksum. */
static uint64_t gso_tcp(const struct gso *gso, uint32_t at, bool last, uint8_t *tcp)
{
    const uint8_t *from = gso->head + gso->l4_off;
    uint32_t seq = (uint32_t)get_be16(from + GSO_TCP_SEQ_AT) << 16 | get_be16(from + 6);
    uint32_t flags = get_be16(from + GSO_TCP_FLAGS_AT);

    seq += at;
    if (!last)
        flags &= ~(uint32_t)GSO_TCP_LAST_ONLY;
    if (at)
        flags &= ~(uint32_t)GSO_TCP_FIRST_ONLY;
    put_be16(tcp + GSO_TCP_SEQ_AT, (uint16_t)(seq >> 16));
    put_be16(tcp + 6, (uint16_t)seq);
    put_be16(tcp + GSO_TCP_FLAGS_AT, (uint16_t)flags);
    return gso_word(seq >> 16) + gso_word(seq) + gso_word(flags);
}

uint32_t gso_segment(const struct gso *gso, uint32_t index, uint8_t *head, uint8_t *payload)
{
    uint32_t at = index * gso->size;
    uint32_t left = gso->payload_len - at;
    uint32_t len = left < gso->size ? left : gso->size;
    uint32_t l4_len = gso->head_len - gso->l4_off + len;
    uint8_t *l4 = head + gso->l4_off;

    memcpy(head, gso->head, gso->head_len);
    gso_l3(gso, index, (uint32_t)gso->l4_off - gso->l3_off + l4_len, head + gso->l3_off);
    uint64_t sum = gso->l4_sum + gso_word(l4_len);
    if (gso->tcp) {
        sum += gso_tcp(gso, at, left == len, l4);
    } else {
        put_be16(l4 + 4, (uint16_t)l4_len);
        sum += gso_word(l4_len);
    }
    /* The header's length is even, so the payload's words line up with it. */
    uint16_t folded = csum_fold(payload ? csum_copy(payload, gso->payload + at, len, sum)
                                        : csum_partial(gso->payload + at, len, sum));
    if (!gso->tcp && !folded)
        folded = 0xffff; /* UDP's 0 would mean none */
    store16(l4 + (gso->tcp ? GSO_TCP_CSUM_AT : GSO_UDP_CSUM_AT), folded);
    return len;
}
