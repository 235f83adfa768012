/* addr_text.h - addresses in error texts of the tables, as people write them. */
#ifndef FWD_TABLES_ADDR_TEXT_H
#define FWD_TABLES_ADDR_TEXT_H

#include "base/pkt.h"

#include <arpa/inet.h>

struct addr_text {
    char text[INET6_ADDRSTRLEN];
};

static inline struct addr_text addr_text(const struct fwd_addr *addr)
{
    struct addr_text out = {""};
    if (addr_is_v4(addr))
        inet_ntop(AF_INET, addr->b + 12, out.text, sizeof(out.text));
    else
        inet_ntop(AF_INET6, addr->b, out.text, sizeof(out.text));
    return out;
}

#endif
