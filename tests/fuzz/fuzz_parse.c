/* fuzz_parse.c - bytes to fields: parse.c, the tuple, and finishing a checksum. */
#include "world.h"

#include "base/parse.h"
#include "tables/ct.h"

/* check_fields: after parse_l3 every offset lies inside the frame and inside the datagram. */
static void check_fields(const struct fwd_pkt *pkt, const struct parsed *parsed)
{
    must(parsed->family == 4 || parsed->family == 6);
    must(parsed->l3_off == ETH_HLEN && parsed->l4_off >= ETH_HLEN + IPV4_HLEN);
    must(parsed->l3_len + ETH_HLEN <= pkt->len);
    must(parsed->l4_off + parsed->l4_len == ETH_HLEN + parsed->l3_len);
    must(!parsed->later_fragment || (parsed->fragment && !parsed->has_l4));
    if (parsed->has_l4)
        must(parsed->l4_len >= (parsed->proto == PROTO_TCP ? TCP_HLEN : UDP_HLEN));
    struct ct_tuple tuple;
    struct ct_packet packet;
    ct_tuple_load(parsed, &tuple, &packet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    uint32_t len = (uint32_t)size - 4;
    uint8_t *frame = malloc(len ? len : 1);
    must(frame != NULL);
    memcpy(frame, data + 4, len);
    struct fwd_pkt pkt = {.buf = frame, .size = len, .len = len};
    struct parsed parsed;
    if (!parse_eth(&pkt, &parsed) && !parse_l3(&pkt, &parsed))
        check_fields(&pkt, &parsed);
    pkt.vnet_flags = FWD_VNET_NEEDS_CSUM;
    pkt.csum_start = (uint16_t)(data[0] << 8 | data[1]);
    pkt.csum_offset = (uint16_t)(data[2] << 8 | data[3]);
    fwd_pkt_finish_csum(&pkt);
    free(frame);
    return 0;
}
