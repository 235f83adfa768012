/* world.h - what every fuzz target shares: a populated datapath (world.c, which includes the whole
 * library), packets cut out of fuzz bytes and the judge of what became of them (oracle.c). A target
 * is a few lines and links with these two.
 */
#ifndef FWD_FUZZ_WORLD_H
#define FWD_FUZZ_WORLD_H

#include "abi.h"

#include <stdlib.h>

enum { CURL = 2825, LOCAL = 2827, NO_POD = 999 };

/* The port classes of a record's ctl byte. */
enum fuzz_class { FROM_CURL, FROM_LOCAL, FROM_NODE2, FROM_LEGACY, FROM_HOST, FROM_NETDEV,
                  FROM_TO_NETDEV, FROM_NOBODY, FUZZ_CLASSES };

/* Bits of ctl: 0-2 class, 3 tail room, 4-5 time step, 6 offloads from arg, 7 class is meant. */
enum { CTL_CLASS = 7, CTL_TAIL = 8, CTL_TIME = 48, CTL_OFFLOAD = 64, CTL_FOREIGN = 128 };

struct reader {
    const uint8_t *at;
    size_t left;
};

/* read_byte, read_be16: 0 when nothing is left. */
uint8_t read_byte(struct reader *reader);
uint16_t read_be16(struct reader *reader);

/* One input's datapath: the world as it was made, whatever earlier inputs did. */
struct run {
    struct fwd_dp *dp;
    uint64_t now_ns;
    uint64_t sent; /* packets given to the datapath */
};

struct run run_begin(void);
/* run_packet: give one frame to the datapath and judge the outcome; aborts when it is wrong. */
struct fwd_out run_packet(struct run *run, enum fuzz_class class, uint8_t ctl, uint8_t arg,
                          const uint8_t *frame, uint32_t len);
/* run_records: all of @reader as records {ctl, arg, be16 length, frame}. @home: the class a record
 * has by itself, of two; bit 0 of its class picks. */
void run_records(struct run *run, struct reader *reader, enum fuzz_class first,
                 enum fuzz_class second);
/* run_end: the sum of the counters: in = sent + to-stack + punts + drops. */
void run_end(struct run *run);

/* world_view: the populated datapath, copy on write; the caller closes it. */
struct fwd_dp *world_view(void);
/* world_size, world_copy: the bytes of the populated arena; world_seal makes its header's check
 * right again after changes, world_boot is the boot id to attach with. */
size_t world_size(void);
void world_copy(uint8_t *to);
/* world_part: where the header (0) or a table lies in it; @number wraps around. */
void world_part(uint8_t number, size_t *offset, size_t *size);
void world_seal(uint8_t *arena);
extern const uint8_t world_boot[16];

/* tap_header: what a TAP's vnet header makes of a frame; false = refused. */
bool tap_header(struct fwd_pkt *pkt, const uint8_t *header);

/* world_read_all: dump every table, look into policy and ipcache, sweep conntrack. */
void world_read_all(struct fwd_dp *dp, uint32_t now_s);

/* build_ipv4: an Ethernet and IPv4 header for @payload_len bytes at @frame, checksum included. */
uint32_t build_ipv4(uint8_t *frame, uint32_t saddr, uint32_t daddr, uint8_t proto,
                    uint16_t payload_len);
struct fwd_addr v4(uint32_t word);
void put16(uint8_t *at, uint32_t value);
void put32(uint8_t *at, uint32_t value);

/* must: the oracle's word. */
#define must(truth) do { if (!(truth)) must_not(#truth, __FILE__, __LINE__); } while (0)
_Noreturn void must_not(const char *truth, const char *file, int line);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
