/* fuzz_vnet.c - the vnet header of a TAP: ten bytes a pod's kernel wrote, then its frame. What the
 * I/O room lets pass must be safe to follow, through the datapath and to the finished checksum.
 */
#include "world.h"

#include "base/gso.h"

enum { VNET_HLEN = 10, TUNNEL_L3_OFF = 22 };

/* A super-packet for the wire: as many headers as it makes packets, each within its room. */
static void split(const struct fwd_pkt *pkt)
{
    uint8_t head[GSO_HEAD_MAX];
    struct gso gso;
    uint32_t total = 0;
    if (!gso_open(&gso, pkt, TUNNEL_L3_OFF))
        return;
    for (uint32_t i = 0; i < gso.segments; i++)
        total += gso_segment(&gso, i, head, NULL);
    must(total == gso.payload_len && gso.head_len + total == pkt->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < VNET_HLEN)
        return 0;
    struct run run = run_begin();
    uint32_t len = (uint32_t)size - VNET_HLEN;
    struct fwd_out out = {0};
    struct fwd_pkt pkt = {.buf = malloc(FWD_HEADROOM + len), .size = FWD_HEADROOM + len,
                          .off = FWD_HEADROOM, .len = len, .port = CURL};
    must(pkt.buf != NULL);
    memset(pkt.buf, 0, FWD_HEADROOM);
    if (len)
        memcpy(pkt.buf + FWD_HEADROOM, data + VNET_HLEN, len);
    if (tap_header(&pkt, data)) {
        must(fwd_dp_run(run.dp, run.now_ns, &pkt, 1, &out, 1) == 1);
        run.sent++;
        if (pkt.gso_size && out.verdict == FWD_TX_UNDERLAY)
            split(&pkt);
        must(fwd_pkt_finish_csum(&pkt)); /* its offsets are inside, wherever the frame begins now */
    }
    free(pkt.buf);
    run_end(&run);
    return 0;
}
