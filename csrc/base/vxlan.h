/* vxlan.h - the 8-byte VXLAN header (RFC 7348 section 5): flags, 24 reserved bits, VNI, 8 reserved. */
#ifndef FWD_BASE_VXLAN_H
#define FWD_BASE_VXLAN_H

#include "base/pkt.h"

enum { VXLAN_HLEN = 8, VXLAN_FLAG_I = 0x08, VXLAN_VNI_MAX = 0xffffff };

static inline void vxlan_build(uint8_t *at, uint32_t vni)
{
    memset(at, 0, VXLAN_HLEN);
    at[0] = VXLAN_FLAG_I;
    at[4] = (uint8_t)(vni >> 16);
    at[5] = (uint8_t)(vni >> 8);
    at[6] = (uint8_t)vni;
}

/* vxlan_parse: the VNI of 8 bytes at @at. False without the I flag or with any reserved bit set:
 * the kernel's receiver discards both, and neither carries a tunnel key we could trust. */
static inline bool vxlan_parse(const uint8_t *at, uint32_t *vni)
{
    if (at[0] != VXLAN_FLAG_I || at[1] || at[2] || at[3] || at[7])
        return false;
    *vni = (uint32_t)at[4] << 16 | (uint32_t)at[5] << 8 | at[6];
    return true;
}

#endif
