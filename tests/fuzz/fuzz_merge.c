/* fuzz_merge.c - datagrams of a peer: what merges must come out of the split as it went in, whatever
 * the bytes. An input is pieces {be16 length, datagram}; a length with its high bit set repeats the
 * piece before it as its neighbour would be: sequence number and IPv4 id moved on, sums mended.
 */
#include "world.h"

#include "base/checksum.h"
#include "base/gro.h"
#include "base/gso.h"

#include <string.h>

enum { PIECES = 48, PIECE_MAX = 1600, L3 = 22, SIZE = 70000, NEIGHBOUR = 0x8000 };

struct piece {
    uint8_t data[PIECE_MAX];
    uint32_t len;
    int owner; /* the packet it ended up in */
};

static struct piece pieces[PIECES];

/* The packet that would follow @from in its flow; false when it has no flow. */
static bool neighbour(struct piece *to, const struct piece *from)
{
    struct gro_item shape;
    gro_shape(&shape, from->data, from->len, 6);
    if (!shape.kind)
        return false;
    *to = *from;
    uint8_t *l4 = to->data + shape.l4_off;
    uint64_t sum = 0;
    if (shape.v4) {
        uint8_t *ip = to->data + L3;
        put_be16(ip + 4, shape.next_id);
        store16(ip + 10, 0);
        store16(ip + 10, csum_fold(csum_partial(ip, IPV4_HLEN, 0)));
    }
    if (shape.kind == GRO_TCP) {
        put_be16(l4 + 4, (uint16_t)(shape.next_seq >> 16));
        put_be16(l4 + 6, (uint16_t)shape.next_seq);
    }
    uint8_t *check = l4 + (shape.kind == GRO_TCP ? 16 : 6);
    uint32_t addresses = shape.v4 ? 8 : 32;
    store16(check, 0);
    sum = csum_partial(l4 - addresses, addresses, 0);
    sum += be16_to_host(shape.kind == GRO_TCP ? PROTO_TCP : PROTO_UDP);
    sum += be16_to_host((uint16_t)(to->len - shape.l4_off));
    uint16_t folded = csum_fold(csum_partial(l4, to->len - shape.l4_off, sum));
    store16(check, folded || shape.kind == GRO_TCP ? folded : 0xffff);
    return true;
}

/* @got is one wire packet of an item; a constant IPv4 id is numbered anew, nothing else differs. */
static void same(const struct gro_item *item, const uint8_t *got, const struct piece *want,
                 uint32_t len)
{
    must(len == want->len);
    if (item->v4 && !item->id_step && item->count > 1) {
        must(!memcmp(got, want->data, L3 + 4));
        must(!memcmp(got + L3 + 6, want->data + L3 + 6, 4));
        must(!memcmp(got + L3 + 12, want->data + L3 + 12, len - L3 - 12));
        return;
    }
    must(!memcmp(got, want->data, len));
}

/* The pieces of packet @index come out of it in order, and no others. */
static void check(const struct gro_item *item, struct fwd_pkt *pkt, int index, uint32_t n)
{
    static uint8_t wire[SIZE];
    struct gso gso = {0};
    uint32_t segment = 0;
    if (pkt->gso_size)
        must(gso_open(&gso, pkt, L3));
    for (uint32_t i = 0; i < n; i++) {
        if (pieces[i].owner != index)
            continue;
        if (!pkt->gso_size) {
            must(segment == 0);
            same(item, pkt_data(pkt), &pieces[i], pkt->len);
        } else {
            uint32_t len = gso_segment(&gso, segment, wire, wire + gso.head_len);
            same(item, wire, &pieces[i], gso.head_len + len);
        }
        segment++;
    }
    must(segment == (pkt->gso_size ? gso.segments : 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reader reader = {data, size};
    struct fwd_pkt pkts[PIECES] = {0};
    struct gro_item items[PIECES];
    uint32_t n = 0;
    int made = 0;

    for (; n < PIECES && reader.left; n++) {
        uint16_t ctl = read_be16(&reader);
        struct piece *piece = &pieces[n];
        if (ctl & NEIGHBOUR && n && neighbour(piece, &pieces[n - 1]))
            continue;
        piece->len = ctl % PIECE_MAX;
        for (uint32_t i = 0; i < piece->len; i++)
            piece->data[i] = read_byte(&reader);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct gro_item shape;
        gro_shape(&shape, pieces[i].data, pieces[i].len, 6);
        int at = shape.kind ? made - 1 : -1;
        while (at >= 0 && items[at].kind &&
               !gro_same_flow(&items[at], pkt_data(&pkts[at]), &shape, pieces[i].data))
            at--;
        pieces[i].owner = at;
        if (at >= 0 && items[at].kind &&
            gro_append(&items[at], &pkts[at], &shape, pieces[i].data, pieces[i].len))
            continue;
        uint8_t *buf = malloc(SIZE);
        must(buf != NULL);
        memcpy(buf, pieces[i].data, pieces[i].len);
        pkts[made] = (struct fwd_pkt){.buf = buf, .size = SIZE, .len = pieces[i].len};
        items[made] = shape;
        pieces[i].owner = made++;
    }
    for (int i = 0; i < made; i++) {
        gro_finish(&items[i], &pkts[i]);
        check(&items[i], &pkts[i], i, n);
        free(pkts[i].buf);
    }
    return 0;
}
