/* udp.c - the sender and the receiver of the UDP rows, the same two commands on every bed.
 *
 *   udp recv PORT MOST_S           count what arrives; ends 0.5 s after the last datagram
 *   udp send ADDRESS PORT SIZE S   datagrams of SIZE bytes for S seconds, as fast as it can
 *   udp fill ADDRESS FLOWS PPS     one datagram from each of FLOWS pairs of ports, PPS a second
 *
 * Prints one JSON object: packets, bytes of payload and the seconds between first and last. It ends
 * by itself in any case: `recv` after MOST_S seconds, `fill` after FLOWS / PPS.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, SIZE_MAX_BYTES = 65507, IDLE_MS = 500, BUFFER = 4 << 20, PORTS = 50000,
       FIRST_PORT = 10000 };

static uint8_t payload[SIZE_MAX_BYTES];

struct batch {
    struct mmsghdr msgs[BATCH];
    struct iovec iov[BATCH];
};

static void die(const char *what)
{
    fprintf(stderr, "udp: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void report(uint64_t packets, uint64_t bytes, uint64_t refused, uint64_t ns)
{
    printf("{\"packets\": %llu, \"bytes\": %llu, \"refused\": %llu, \"seconds\": %.6f}\n",
           (unsigned long long)packets, (unsigned long long)bytes, (unsigned long long)refused,
           (double)ns / 1e9);
}

static int udp_socket(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = BUFFER;
    if (fd < 0)
        die("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    return fd;
}

static struct sockaddr_in address(const char *text, unsigned port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, text, &at.sin_addr) != 1)
        die(text);
    return at;
}

/* batch_init: @size bytes a message; receivers share one buffer, nobody looks at what came. */
static void batch_init(struct batch *batch, size_t size)
{
    memset(batch, 0, sizeof(*batch));
    for (int i = 0; i < BATCH; i++) {
        batch->iov[i] = (struct iovec){.iov_base = payload, .iov_len = size};
        batch->msgs[i].msg_hdr.msg_iov = &batch->iov[i];
        batch->msgs[i].msg_hdr.msg_iovlen = 1;
    }
}

static int receive(unsigned port, double most_s)
{
    static struct batch batch;
    int fd = udp_socket();
    struct sockaddr_in at = address("0.0.0.0", port);
    if (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0)
        die("bind");
    uint64_t packets = 0, bytes = 0, first = 0, last = 0;
    uint64_t end = clock_ns() + (uint64_t)(most_s * 1e9);
    batch_init(&batch, sizeof(payload));
    while (clock_ns() < end) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int n = poll(&ready, 1, IDLE_MS);
        if (n == 0 && packets)
            break;
        if (n <= 0)
            continue;
        n = recvmmsg(fd, batch.msgs, BATCH, MSG_DONTWAIT, NULL);
        if (n <= 0)
            continue;
        last = clock_ns();
        if (!first)
            first = last;
        packets += (uint64_t)n;
        for (int i = 0; i < n; i++)
            bytes += batch.msgs[i].msg_len;
    }
    report(packets, bytes, 0, last - first);
    return 0;
}

static int send_fast(const char *to, unsigned port, size_t size, double seconds)
{
    static struct batch batch;
    struct sockaddr_in at = address(to, port);
    int fd = udp_socket();
    if (size > sizeof(payload) || connect(fd, (struct sockaddr *)&at, sizeof(at)) != 0)
        die("connect");
    uint64_t packets = 0, refused = 0, start = clock_ns();
    uint64_t end = start + (uint64_t)(seconds * 1e9), now = start;
    batch_init(&batch, size);
    for (; now < end; now = clock_ns()) {
        int n = sendmmsg(fd, batch.msgs, BATCH, 0);
        if (n > 0)
            packets += (uint64_t)n;
        else
            refused++; /* ENOBUFS, or what an ICMP error left behind */
    }
    report(packets, packets * size, refused, now - start);
    return 0;
}

/* fill: source ports by socket, destination ports from FIRST_PORT on; paced so that none is lost
 * to a full queue. */
static int fill(const char *to, uint64_t flows, uint64_t pps)
{
    static struct batch batch;
    static struct sockaddr_in at[BATCH];
    uint64_t done = 0, refused = 0, start = clock_ns();
    batch_init(&batch, 18);
    for (int fd = -1; done < flows;) {
        if (done % PORTS == 0) {
            if (fd >= 0)
                close(fd);
            fd = udp_socket();
        }
        uint64_t left = PORTS - done % PORTS, most = flows - done < BATCH ? flows - done : BATCH;
        int n = (int)(left < most ? left : most);
        for (int i = 0; i < n; i++) {
            at[i] = address(to, FIRST_PORT + (unsigned)(done % PORTS) + (unsigned)i);
            batch.msgs[i].msg_hdr.msg_name = &at[i];
            batch.msgs[i].msg_hdr.msg_namelen = sizeof(at[i]);
        }
        int sent = sendmmsg(fd, batch.msgs, (unsigned)n, 0);
        if (sent <= 0) {
            refused++;
            sent = 1; /* skipped: a flow less */
        }
        done += (uint64_t)sent;
        uint64_t due = start + done * 1000000000u / pps, now = clock_ns();
        if (due > now) {
            struct timespec pause = {.tv_nsec = (long)((due - now) % 1000000000u)};
            nanosleep(&pause, NULL);
        }
    }
    report(done - refused, 18 * (done - refused), refused, clock_ns() - start);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "recv") == 0)
        return receive((unsigned)atoi(argv[2]), atof(argv[3]));
    if (argc == 6 && strcmp(argv[1], "send") == 0)
        return send_fast(argv[2], (unsigned)atoi(argv[3]), (size_t)atol(argv[4]), atof(argv[5]));
    if (argc == 5 && strcmp(argv[1], "fill") == 0 && strtoull(argv[4], NULL, 10) > 0)
        return fill(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    fprintf(stderr, "usage: udp recv PORT S | send ADDRESS PORT SIZE S | fill ADDRESS FLOWS PPS\n");
    return 2;
}
