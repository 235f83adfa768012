/* unity.c - the release translation unit (D1): every .c of the library in reading order.
 *
 * Lint, sanitizers and fuzzers compile each file alone; releases compile this one, so that the
 * compiler sees the whole packet path at once and static functions inline across rooms.
 */
#include "base/checksum.c"
#include "base/parse.c"
#include "base/gso.c"
#include "base/gro.c"

#include "tables/ct_map.c"
#include "tables/ct.c"
#include "tables/lpm.c"
#include "tables/ipcache.c"
#include "tables/endpoint.c"
#include "tables/policy.c"
#include "tables/peer.c"
#include "tables/frag.c"
#include "tables/lb.c"
#include "tables/lb_control.c"
#include "tables/lb_outside.c"
#include "tables/nat.c"
#include "tables/events.c"
#include "tables/arena.c"

#include "path/stage.c"
#include "path/service.c"
#include "path/quote.c"
#include "path/icmp_error.c"
#include "path/mss.c"
#include "path/egress.c"
#include "path/ingress.c"
#include "path/nat.c"
#include "path/nodeport.c"
#include "path/north_south.c"
#include "path/dp.c"

#include "io/pump.c"
#include "io/loop.c"
#include "io/tap.c"
#include "io/udp.c"
#include "io/udp_send.c"
