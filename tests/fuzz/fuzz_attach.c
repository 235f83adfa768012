/* fuzz_attach.c - an arena that another process, or a crash, has left: whatever lies in it, attach
 * refuses it or the datapath can live with it.
 *
 * First byte: 0 = the rest is the file; else the rest are patches {part, be16 offset, value, repeat}
 * of a sound arena, whose header is sealed again when bit 1 is set.
 */
#include "world.h"

#include "base/parse.h"

#include <sys/mman.h>
#include <unistd.h>

enum { CURL_IP = 0x0af4006c, LOCAL_IP = 0x0af4006d, NGINX = 0x0af402ab, SERVICE = 0x0a60000a,
       STICKY = 0x0a60000d, WORLD_IP = 0x08080808 };

/* image_make: the bytes to attach to. Return: their length. */
static size_t image_make(uint8_t *image, struct reader *reader)
{
    size_t size = world_size();
    uint8_t mode = read_byte(reader);
    if (mode == 0) {
        size_t len = reader->left < size ? reader->left : size;
        memcpy(image, reader->at, len);
        return len;
    }
    world_copy(image);
    for (int patches = 0; reader->left >= 5 && patches < 64; patches++) {
        size_t from, room;
        world_part(read_byte(reader), &from, &room);
        size_t at = read_be16(reader);
        uint8_t value = read_byte(reader), repeat = read_byte(reader);
        for (size_t i = 0; i <= repeat; i++)
            image[from + (at + i) % room] = value;
    }
    if (mode & 2)
        world_seal(image);
    return size;
}

/* use_once: a new flow, or a piece of one, from curl: to pods, services, and out of netdev. */
static void use_once(struct fwd_dp *dp, uint32_t turn)
{
    static const uint8_t macs[12] = {0xd2, 0xad, 0x65, 0x4d, 0xd0, 1, 0x96, 0x86, 0x44, 0xa6, 0x37,
                                     1};
    static const uint32_t targets[4] = {NGINX, LOCAL_IP, SERVICE, STICKY};
    static const uint16_t pieces[4] = {0, 0x2000, 0x0003, 0};
    uint8_t buffer[FWD_HEADROOM + 64] = {0};
    struct fwd_step steps[FWD_MAX_STEPS];
    struct fwd_out out = {.steps = steps};
    uint8_t *frame = buffer + FWD_HEADROOM;
    bool leaves = turn >= 16;
    uint32_t at = build_ipv4(frame, CURL_IP, leaves ? WORLD_IP : targets[turn & 3],
                             turn & 4 ? PROTO_UDP : PROTO_TCP, TCP_HLEN);
    memcpy(frame, macs, sizeof(macs));
    put16(frame + ETH_HLEN + 6, pieces[turn >> 2 & 3]);
    put16(frame + at, 40000 + turn / 8);
    put16(frame + at + 2, 80);
    frame[at + 12] = 0x50;
    frame[at + 13] = TCP_SYN;
    struct fwd_pkt pkt = {.buf = buffer, .size = sizeof(buffer), .off = FWD_HEADROOM,
                          .len = at + TCP_HLEN, .port = leaves ? FWD_PORT_NETDEV : CURL,
                          .hook = leaves ? FWD_HOOK_TO_NETDEV : FWD_HOOK_BY_PORT};
    must(fwd_dp_run(dp, 1000000000000ull + turn, &pkt, 1, &out, 1) == 1);
    must(out.verdict <= FWD_DROP);
}

static void use(struct fwd_dp *dp)
{
    world_read_all(dp, 1000);
    for (uint32_t turn = 0; turn < 24; turn++)
        use_once(dp, turn);
    world_read_all(dp, 2000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t *image;
    struct reader reader = {data, size};
    struct fwd_error err = {0};
    uint32_t torn = 0;
    if (!image)
        image = malloc(world_size());
    must(image != NULL);
    size_t len = image_make(image, &reader);
    int fd = memfd_create("fuzz-attach", MFD_CLOEXEC);
    must(fd >= 0 && write(fd, image, len) == (ssize_t)len);
    struct fwd_dp *dp = fwd_dp_attach(fd, world_boot, &torn, &err);
    must(dp != NULL || err.message[0] != 0);
    if (dp)
        use(dp);
    fwd_dp_close(dp);
    close(fd);
    return 0;
}
