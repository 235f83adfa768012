/* gro.c - see gro.h. Only neighbours merge: a packet is compared with the newest of its flow and
 * appended to it or not; nothing is put in front, nothing is ever reordered.
 */
#include "base/gro.h"

#include "base/checksum.h"
#include "base/vxlan.h"

enum {
    GRO_L3_OFF = VXLAN_HLEN + ETH_HLEN,
    GRO_TCP_ACK = 0x10, GRO_TCP_PSH = 0x08,
    GRO_TCP_CSUM_AT = 16, GRO_UDP_CSUM_AT = 6,
    GRO_IP_DF = 0x4000,
};

/* ---- shape ---- */

/* gro_l3: where the transport header is. False: fragments, options, extensions: left alone. */
static bool gro_l3(struct gro_item *item, const uint8_t *data, uint32_t len, uint8_t *proto)
{
    const uint8_t *ip = data + GRO_L3_OFF;
    if (len < GRO_L3_OFF + IPV4_HLEN)
        return false;
    uint16_t ethertype = get_be16(data + GRO_L3_OFF - 2);
    item->l3_off = GRO_L3_OFF;
    item->v4 = ethertype == ETHERTYPE_IPV4;
    if (item->v4) {
        item->l4_off = GRO_L3_OFF + IPV4_HLEN;
        item->next_id = (uint16_t)(get_be16(ip + 4) + 1);
        *proto = ip[9];
        return ip[0] == 0x45 && !(get_be16(ip + 6) & ~GRO_IP_DF) &&
               get_be16(ip + 2) == len - GRO_L3_OFF && !csum_fold(csum_partial(ip, IPV4_HLEN, 0));
    }
    item->l4_off = GRO_L3_OFF + IPV6_HLEN;
    *proto = len < item->l4_off ? 0 : ip[6];
    return ethertype == ETHERTYPE_IPV6 && len >= item->l4_off && ip[0] >> 4 == 6 &&
           get_be16(ip + 4) == len - item->l4_off;
}

static void gro_shape_tcp(struct gro_item *item, const uint8_t *data, uint32_t len)
{
    const uint8_t *tcp = data + item->l4_off;
    if (len < (uint32_t)item->l4_off + TCP_HLEN)
        return;
    uint32_t hlen = (uint32_t)(tcp[12] >> 4) * 4;
    if (hlen < TCP_HLEN || item->l4_off + hlen > len)
        return;
    item->kind = GRO_TCP;
    item->head_len = (uint16_t)(item->l4_off + hlen);
    item->size = (uint16_t)(len - item->head_len);
    item->next_seq = ((uint32_t)get_be16(tcp + 4) << 16 | get_be16(tcp + 6)) + item->size;
    item->open = item->size > 0 && tcp[13] == GRO_TCP_ACK;
}

static void gro_shape_udp(struct gro_item *item, const uint8_t *data, uint32_t len)
{
    const uint8_t *udp = data + item->l4_off;
    if (len <= (uint32_t)item->l4_off + UDP_HLEN || get_be16(udp + 4) != len - item->l4_off)
        return;
    item->kind = GRO_UDP;
    item->head_len = (uint16_t)(item->l4_off + UDP_HLEN);
    item->size = (uint16_t)(len - item->head_len);
    item->open = load16(udp + GRO_UDP_CSUM_AT) != 0; /* without a checksum nothing vouches for it */
}

void gro_shape(struct gro_item *item, const uint8_t *data, uint32_t len, uint32_t kinds)
{
    uint8_t proto = 0;
    memset(item, 0, sizeof(*item));
    item->count = 1;
    if (!kinds || len > GRO_L3_OFF + GRO_L3_LEN_MAX || !gro_l3(item, data, len, &proto))
        return;
    if (proto == PROTO_TCP && kinds >> GRO_TCP & 1)
        gro_shape_tcp(item, data, len);
    else if (proto == PROTO_UDP && kinds >> GRO_UDP & 1)
        gro_shape_udp(item, data, len);
    if (item->kind) {
        uint32_t ports, saddr, daddr;
        memcpy(&ports, data + item->l4_off, sizeof(ports));
        memcpy(&saddr, data + item->l4_off - (item->v4 ? 8 : 20), sizeof(saddr));
        memcpy(&daddr, data + item->l4_off - 4, sizeof(daddr));
        item->flow = ports ^ saddr * 3 ^ daddr * 5 ^ item->kind;
    }
}

bool gro_same_flow(const struct gro_item *a, const uint8_t *a_data, const struct gro_item *b,
                   const uint8_t *b_data)
{
    if (a->flow != b->flow || a->kind != b->kind || a->v4 != b->v4)
        return false;
    uint32_t from = (uint32_t)a->l4_off - (a->v4 ? 8 : 32); /* addresses, then the ports */
    return memcmp(a_data + from, b_data + from, a->l4_off - from + 4) == 0;
}

/* ---- append ---- */

/* gro_same_headers: every byte that gso.c would copy and that is not per segment. */
static bool gro_same_headers(const struct gro_item *item, const uint8_t *a, const uint8_t *b)
{
    uint32_t l3 = item->l3_off, l4 = item->l4_off;
    if (memcmp(a, b, l3) != 0) /* tunnel and link */
        return false;
    if (item->v4 ? load16(a + l3) != load16(b + l3) || memcmp(a + l3 + 6, b + l3 + 6, 4) != 0
                 : memcmp(a + l3, b + l3, 4) != 0 || load16(a + l3 + 6) != load16(b + l3 + 6))
        return false; /* service class, DF, TTL, protocol; flow label, hop limit */
    if (item->kind == GRO_UDP)
        return true;
    uint32_t options = l4 + TCP_HLEN;
    return memcmp(a + l4 + 8, b + l4 + 8, 5) == 0 &&   /* acknowledged, header length */
           memcmp(a + l4 + 14, b + l4 + 14, 2) == 0 && /* window */
           memcmp(a + l4 + 18, b + l4 + 18, 2) == 0 && /* urgent pointer */
           memcmp(a + options, b + options, item->head_len - options) == 0;
}

/* gro_next_id: is @id the one gso.c would give the next segment, or the same for atomic ones? */
static bool gro_next_id(struct gro_item *item, const uint8_t *first, const uint8_t *next)
{
    if (!item->v4)
        return true;
    uint16_t id = get_be16(next + item->l3_off + 4);
    bool atomic = get_be16(first + item->l3_off + 6) & GRO_IP_DF;
    if (item->count == 1)
        item->id_step = !(atomic && id == get_be16(first + item->l3_off + 4));
    uint16_t want = (uint16_t)(item->id_step ? item->next_id : item->next_id - 1);
    if (id != want)
        return false;
    item->next_id = (uint16_t)(item->next_id + item->id_step);
    return true;
}

/* gro_pseudo: pseudo-header sum of a packet whose transport part has @l4_len bytes. */
static uint64_t gro_pseudo(const struct gro_item *item, const uint8_t *data, uint32_t l4_len)
{
    uint32_t bytes = item->v4 ? 8 : 32;
    uint64_t proto = be16_to_host(item->kind == GRO_TCP ? PROTO_TCP : PROTO_UDP);
    return csum_partial(data + item->l4_off - bytes, bytes,
                        proto + be16_to_host((uint16_t)l4_len));
}

static bool gro_checksum_right(struct gro_item *item, const uint8_t *data, uint32_t len)
{
    if (!item->checked)
        item->checked = !csum_fold(csum_partial(data + item->l4_off, len - item->l4_off,
                                                gro_pseudo(item, data, len - item->l4_off)));
    return item->checked;
}

static bool gro_fits(const struct gro_item *item, const struct fwd_pkt *pkt,
                     const struct gro_item *incoming, uint32_t payload)
{
    if (item->kind == GRO_TCP ? incoming->next_seq - payload != item->next_seq
                              : item->count >= GRO_UDP_SEGMENTS_MAX)
        return false;
    return item->head_len == incoming->head_len && payload && payload <= item->size &&
           pkt->len - item->l3_off + payload <= GRO_L3_LEN_MAX &&
           pkt->off + pkt->len + payload <= pkt->size;
}

bool gro_append(struct gro_item *item, struct fwd_pkt *pkt, const struct gro_item *incoming,
                const uint8_t *data, uint32_t len)
{
    uint8_t *first = pkt_data(pkt);
    uint32_t payload = incoming->size;
    uint8_t flags = item->kind == GRO_TCP ? data[item->l4_off + 13] : 0;
    bool last = flags & GRO_TCP_PSH || payload < item->size;

    if (!item->open || !gro_fits(item, pkt, incoming, payload) ||
        (item->kind == GRO_TCP && (flags & ~GRO_TCP_PSH) != GRO_TCP_ACK) ||
        (item->kind == GRO_UDP && !incoming->open) || !gro_same_headers(item, first, data) ||
        !gro_checksum_right(item, first, pkt->len) || !gro_next_id(item, first, data))
        return false;
    /* A wrong sum leaves bytes behind the packet's end, where they are nothing. */
    uint32_t l4_hlen = (uint32_t)item->head_len - item->l4_off;
    uint64_t sum = gro_pseudo(item, data, l4_hlen + payload);
    sum = csum_partial(data + item->l4_off, l4_hlen, sum);
    if (csum_fold(csum_copy(first + pkt->len, data + len - payload, payload, sum))) {
        item->open = false;
        return false;
    }
    first[item->l4_off + (item->kind == GRO_TCP ? 13 : 0)] |= flags & GRO_TCP_PSH;
    pkt->len += payload;
    item->next_seq += payload;
    item->count++;
    item->open = !last;
    return true;
}

void gro_finish(const struct gro_item *item, struct fwd_pkt *pkt)
{
    if (item->count < 2)
        return;
    uint8_t *data = pkt_data(pkt), *ip = data + item->l3_off, *l4 = data + item->l4_off;
    uint32_t l4_len = pkt->len - item->l4_off;
    bool tcp = item->kind == GRO_TCP;

    if (item->v4) {
        put_be16(ip + 2, (uint16_t)(pkt->len - item->l3_off));
        store16(ip + 10, 0);
        store16(ip + 10, csum_fold(csum_partial(ip, IPV4_HLEN, 0)));
    } else {
        put_be16(ip + 4, (uint16_t)l4_len);
    }
    if (!tcp)
        put_be16(l4 + 4, (uint16_t)l4_len);
    pkt->csum_start = item->l4_off;
    pkt->csum_offset = tcp ? GRO_TCP_CSUM_AT : GRO_UDP_CSUM_AT;
    store16(l4 + pkt->csum_offset, (uint16_t)~csum_fold(gro_pseudo(item, data, l4_len)));
    pkt->vnet_flags = FWD_VNET_NEEDS_CSUM;
    pkt->gso_type = !tcp ? FWD_GSO_UDP_L4 : item->v4 ? FWD_GSO_TCPV4 : FWD_GSO_TCPV6;
    pkt->gso_size = item->size;
    pkt->hdr_len = item->head_len;
}
