/* fuzz_icmp.c - ICMP errors about connections: the bytes are what an error says, from the embedded
 * IP header on. The connections they may be about: direct, and through a service, to a remote and
 * to a local pod, of a pod and of a client outside.
 */
#include "world.h"

#include "base/checksum.h"
#include "base/vxlan.h"

enum { CURL_IP = 0x0af4006c, LOCAL_IP = 0x0af4006d, NGINX = 0x0af402ab, VIP = 0x0a60000a,
       NODE = 0xc0a83869, ROUTER = 0x0af40096, CLIENT = 0xcb007109 };
enum { ICMP_HLEN = 8, SAID_MAX = 512, SPORT = 43512 };

static void send_udp(struct run *run, enum fuzz_class class, uint32_t saddr, uint32_t daddr,
                     uint16_t sport, uint16_t dport)
{
    uint8_t frame[64];
    static const uint8_t macs[12] = {0xd2, 0xad, 0x65, 0x4d, 0xd0, 1, 0x96, 0x86, 0x44, 0xa6, 0x37,
                                     1};
    uint32_t at = build_ipv4(frame, saddr, daddr, PROTO_UDP, UDP_HLEN);
    memcpy(frame, macs, sizeof(macs));
    put16(frame + at, sport);
    put16(frame + at + 2, dport);
    put16(frame + at + 4, UDP_HLEN);
    put16(frame + at + 6, 0);
    run_packet(run, class, 0, 0, frame, at + UDP_HLEN);
}

/* send_error: from nginx's node to curl, or from local to curl, or from curl back; from a client
 * outside to the node's services, and from their backends to it. */
static void send_error(struct run *run, uint8_t way, uint8_t kind, uint8_t code,
                       const uint8_t *said, uint32_t len)
{
    static const struct {
        enum fuzz_class class;
        uint32_t saddr, daddr;
        uint8_t macs[12];
    } ways[8] = {
        {FROM_NODE2, NGINX, CURL_IP, {2, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2}},
        {FROM_LOCAL, LOCAL_IP, CURL_IP,
         {0xd2, 0xad, 0x65, 0x4d, 0xd0, 2, 0x96, 0x86, 0x44, 0xa6, 0x37, 2}},
        {FROM_CURL, CURL_IP, LOCAL_IP,
         {0xd2, 0xad, 0x65, 0x4d, 0xd0, 1, 0x96, 0x86, 0x44, 0xa6, 0x37, 1}},
        {FROM_CURL, CURL_IP, VIP,
         {0xd2, 0xad, 0x65, 0x4d, 0xd0, 1, 0x96, 0x86, 0x44, 0xa6, 0x37, 1}},
        {FROM_NETDEV, CLIENT, NODE, {2, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2}},
        {FROM_TO_NETDEV, LOCAL_IP, CLIENT, {2, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2}},
        {FROM_NODE2, NGINX, ROUTER, {2, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2}},
        {FROM_NETDEV, NGINX, NODE, {2, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2}},
    };
    uint8_t buffer[VXLAN_HLEN + ETH_HLEN + IPV4_HLEN + ICMP_HLEN + SAID_MAX];
    uint8_t *frame = buffer + VXLAN_HLEN;
    way &= 7;
    uint32_t at = build_ipv4(frame, ways[way].saddr, ways[way].daddr, PROTO_ICMP,
                             (uint16_t)(ICMP_HLEN + len));
    memcpy(frame, ways[way].macs, sizeof(ways[way].macs));
    memset(frame + at, 0, ICMP_HLEN);
    frame[at] = kind;
    frame[at + 1] = code;
    if (len)
        memcpy(frame + at + ICMP_HLEN, said, len);
    store16(frame + at + 2, csum_fold(csum_partial(frame + at, ICMP_HLEN + len, 0)));
    at += ICMP_HLEN + len;
    if (ways[way].class == FROM_NODE2) {
        vxlan_build(buffer, 25002);
        run_packet(run, FROM_NODE2, 0, 0, buffer, VXLAN_HLEN + at);
    } else {
        run_packet(run, ways[way].class, 0, 0, frame, at);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t kinds[4] = {3, 11, 12, 3};
    struct reader reader = {data, size};
    struct run run = run_begin();
    for (uint16_t sport = SPORT; sport < SPORT + 4; sport++)
        send_udp(&run, FROM_CURL, CURL_IP, VIP, sport, 80); /* their hashes choose the backends */
    send_udp(&run, FROM_CURL, CURL_IP, NGINX, SPORT + 4, 53);
    send_udp(&run, FROM_CURL, CURL_IP, LOCAL_IP, SPORT + 5, 53);
    for (uint16_t sport = SPORT; sport < SPORT + 4; sport++)
        send_udp(&run, FROM_NETDEV, CLIENT, NODE, sport, sport & 1 ? 30080 : 30081);
    send_udp(&run, FROM_TO_NETDEV, CURL_IP, CLIENT, SPORT, 53);
    while (reader.left) {
        uint8_t way = read_byte(&reader), code = read_byte(&reader);
        uint32_t len = read_be16(&reader) % SAID_MAX;
        if (len > reader.left)
            len = (uint32_t)reader.left;
        send_error(&run, way, kinds[way >> 3 & 3], code & 15, reader.at, len);
        reader.at += len;
        reader.left -= len;
    }
    run_end(&run);
    return 0;
}
