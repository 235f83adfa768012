/* pkt.h - the packet buffer: push and pull are the only ways to move its edges.
 *
 * Every table-free room and every stage uses these; lengths are proven once in parse.c, accessors
 * trust them afterwards (smoltcp's rule).
 */
#ifndef FWD_BASE_PKT_H
#define FWD_BASE_PKT_H

#include "abi.h"

#include <string.h>

enum { ETH_HLEN = 14, ETH_ALEN = 6, IPV4_HLEN = 20, IPV6_HLEN = 40, UDP_HLEN = 8, TCP_HLEN = 20 };
enum { ETHERTYPE_IPV4 = 0x0800, ETHERTYPE_ARP = 0x0806, ETHERTYPE_VLAN = 0x8100,
       ETHERTYPE_QINQ = 0x88a8, ETHERTYPE_IPV6 = 0x86dd, ETHERTYPE_MIN = 0x0600 };
enum { PROTO_ICMP = 1, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_ICMPV6 = 58, PROTO_SCTP = 132 };

static inline uint8_t *pkt_data(const struct fwd_pkt *pkt)
{
    return pkt->buf + pkt->off;
}

/* pkt_push: make @n bytes of room before the frame. Return: its new start, NULL without headroom. */
static inline uint8_t *pkt_push(struct fwd_pkt *pkt, uint32_t n)
{
    if (pkt->off < n)
        return NULL;
    pkt->off -= n;
    pkt->len += n;
    pkt->csum_start = (uint16_t)(pkt->csum_start + n);
    return pkt_data(pkt);
}

/* pkt_pull: drop @n bytes from the front. Return: the new start, NULL when the frame is shorter. */
static inline uint8_t *pkt_pull(struct fwd_pkt *pkt, uint32_t n)
{
    if (pkt->len < n)
        return NULL;
    pkt->off += n;
    pkt->len -= n;
    pkt->csum_start = (uint16_t)(pkt->csum_start - n);
    return pkt_data(pkt);
}

/* Loads and stores for unaligned wire fields: frames start at any address. */
static inline uint16_t load16(const uint8_t *at) /* be16, as it lies */
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static inline void store16(uint8_t *at, uint16_t value)
{
    memcpy(at, &value, sizeof(value));
}

static inline uint16_t be16_to_host(uint16_t value)
{
    return (uint16_t)(value >> 8 | value << 8);
}

static inline uint16_t get_be16(const uint8_t *at) /* host order */
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline void put_be16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* ---- addresses (D5) ---- */

static inline bool addr_equal(const struct fwd_addr *a, const struct fwd_addr *b)
{
    return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}

static inline void addr_from_v4(struct fwd_addr *addr, const uint8_t v4[4])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    memcpy(addr->b, mapped, sizeof(mapped));
    memcpy(addr->b + 12, v4, 4);
}

static inline bool addr_is_v4(const struct fwd_addr *addr)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return memcmp(addr->b, mapped, sizeof(mapped)) == 0;
}

static inline bool addr_is_zero(const struct fwd_addr *addr)
{
    static const struct fwd_addr zero;
    return addr_equal(addr, &zero);
}

#endif
