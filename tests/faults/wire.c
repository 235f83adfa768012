/* wire.c - a bad wire between two network namespaces: it loses, doubles, reorders and cuts short.
 *
 * usage: wire NETNS1 NETNS2 RULES
 * Makes a TAP named eth0 in each namespace and carries frames between them until it is ended.
 * RULES is a file with one struct rules, mapped by the test as well (wire.py): probabilities in
 * millionths, the largest IP datagram that passes, and what became of the frames.
 */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FRAME_MAX = 65536, ETHER = 14, MILLION = 1000000, HOLD_MS = 2, HOLD_FRAMES = 3 };

struct rules {
    uint32_t loss, twice, reorder, size_max;
    uint64_t in, out, lost, doubled, late, too_big;
};

/* One way: a frame that is held back is sent after HOLD_FRAMES others, or HOLD_MS. */
struct way {
    int from, to;
    uint32_t held_len, held_for;
    uint8_t held[FRAME_MAX];
};

static struct rules *rules;
static struct way ways[2];
static uint64_t random_state = 0x9e3779b97f4a7c15;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static bool chance(uint32_t millionths)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 20) % MILLION < millionths;
}

static int open_tap_in(const char *path)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int netns = open(path, O_RDONLY | O_CLOEXEC);

    if (netns < 0 || setns(netns, CLONE_NEWNET))
        die(path);
    close(netns);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    strcpy(request.ifr_name, "eth0");
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request))
        die("making eth0");
    return fd;
}

static void put(struct way *way, const uint8_t *frame, uint32_t len)
{
    if (write(way->to, frame, len) == (ssize_t)len)
        rules->out++;
    else
        rules->lost++;
}

static void release(struct way *way)
{
    put(way, way->held, way->held_len);
    way->held_len = 0;
}

static void carry(struct way *way, const uint8_t *frame, uint32_t len)
{
    rules->in++;
    if (rules->size_max && len > ETHER + rules->size_max) {
        rules->too_big++;
    } else if (chance(rules->loss)) {
        rules->lost++;
    } else if (!way->held_len && chance(rules->reorder)) {
        memcpy(way->held, frame, len);
        way->held_len = len;
        way->held_for = HOLD_FRAMES;
        rules->late++;
    } else {
        put(way, frame, len);
        if (chance(rules->twice)) {
            rules->doubled++;
            put(way, frame, len);
        }
    }
    if (way->held_len && way->held_for-- == 0)
        release(way);
}

int main(int argc, char **argv)
{
    static uint8_t frame[FRAME_MAX];
    int fd = argc == 4 ? open(argv[3], O_RDWR | O_CLOEXEC) : -1;

    if (fd < 0)
        die("opening the rules");
    rules = mmap(NULL, sizeof(*rules), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (rules == MAP_FAILED)
        die("mapping the rules");
    int left = open_tap_in(argv[1]), right = open_tap_in(argv[2]);
    ways[0].from = ways[1].to = left;
    ways[0].to = ways[1].from = right;
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd ready[2] = {{left, POLLIN, 0}, {right, POLLIN, 0}};
        bool waits = ways[0].held_len || ways[1].held_len;
        int n = poll(ready, 2, waits ? HOLD_MS : -1);
        for (int i = 0; i < 2; i++) {
            if (n == 0 && ways[i].held_len)
                release(&ways[i]);
            ssize_t len;
            for (int k = 0; k < 64 && (len = read(ways[i].from, frame, sizeof(frame))) > 0; k++)
                carry(&ways[i], frame, (uint32_t)len);
        }
    }
}
