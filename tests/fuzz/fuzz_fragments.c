/* fuzz_fragments.c - datagrams in pieces: eight bytes are one fragment, so that the fuzzer orders
 * pieces instead of guessing headers. A later piece must never pass where its first one may not.
 */
#include "world.h"

#include "base/parse.h"
#include "base/vxlan.h"

enum { CURL_IP = 0x0af4006c, LOCAL_IP = 0x0af4006d, NGINX = 0x0af402ab, VIP = 0x0a60000a,
       PIECE_MAX = 24, DENIED = 443 };

struct piece {
    uint8_t way, id, proto, offset, more, len, dport, sport;
};

static uint32_t build_piece(uint8_t *frame, const struct piece *piece, bool overlay)
{
    static const uint8_t protos[4] = {PROTO_TCP, PROTO_UDP, PROTO_ICMP, PROTO_SCTP};
    static const uint32_t targets[4] = {NGINX, LOCAL_IP, VIP, CURL_IP};
    static const uint16_t dports[4] = {80, DENIED, 8080, 53};
    static const uint8_t macs[12] = {0xd2, 0xad, 0x65, 0x4d, 0xd0, 1, 0x96, 0x86, 0x44, 0xa6, 0x37,
                                     1};
    uint8_t l4[PIECE_MAX] = {0};
    uint16_t len = (uint16_t)(piece->len % (PIECE_MAX + 1));
    uint32_t at = build_ipv4(frame, overlay ? NGINX : CURL_IP,
                             overlay ? CURL_IP : targets[piece->way >> 1 & 3],
                             protos[piece->proto & 3], len);
    uint8_t *ip = frame + ETH_HLEN;
    if (!overlay)
        memcpy(frame, macs, sizeof(macs));
    put16(ip + 4, piece->id & 7u);
    put16(ip + 6, (piece->more & 1u) << 13 | (piece->offset & 3u) * (piece->offset >> 2));
    store16(ip + 10, 0);
    put16(l4, 40000u + (piece->sport & 3));
    put16(l4 + 2, dports[piece->dport & 3]);
    l4[12] = 0x50;
    l4[13] = TCP_SYN;
    memcpy(frame + at, l4, len);
    return at + len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run run = run_begin();
    uint32_t denied_ids = 0, other_ids = 0;
    for (; size >= sizeof(struct piece); size -= sizeof(struct piece)) {
        struct piece piece;
        uint8_t buffer[VXLAN_HLEN + ETH_HLEN + IPV4_HLEN + PIECE_MAX];
        uint8_t *frame = buffer + VXLAN_HLEN;
        memcpy(&piece, data, sizeof(piece));
        data += sizeof(piece);
        bool overlay = piece.way & 1;
        uint32_t len = build_piece(frame, &piece, overlay);
        vxlan_build(buffer, 25002);
        struct fwd_out out = overlay
            ? run_packet(&run, FROM_NODE2, piece.more & CTL_TIME, 0, buffer, VXLAN_HLEN + len)
            : run_packet(&run, FROM_CURL, piece.more & CTL_TIME, 0, frame, len);
        if (overlay || (piece.way >> 1 & 3) != 0 || (piece.proto & 3) != 0)
            continue; /* the claim is about TCP of curl to nginx, which may not go to DENIED */
        bool later = (piece.offset & 3) * (piece.offset >> 2) != 0;
        uint32_t bit = 1u << (piece.id & 7);
        if (!later) {
            *((piece.dport & 3) == 1 ? &denied_ids : &other_ids) |= bit;
            must((piece.dport & 3) != 1 || out.drop); /* denied, silently or not */
        } else if (!out.drop) {
            must(other_ids & bit); /* some first piece of this id may pass */
        }
    }
    run_end(&run);
    return 0;
}
