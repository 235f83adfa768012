/* errors.c - system calls on TAPs and UDP sockets that fail to order. For LD_PRELOAD.
 *
 * FWD_TEST_ERRORS names a file with one struct rule a call, mapped by the test that gives orders
 * and reads the counters (errors.py), and by every process it preloads. Everything else, such as
 * writing a log, passes untouched. Built by the test that uses it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

enum call { /* in the order of errors.py */
    READ, WRITEV, SENDMSG, SENDMMSG, RECVMMSG, PPOLL, EPOLL_WAIT, EPOLL_PWAIT2, EPOLL_CTL,
    TUNSETIFF, TUNGETIFF, TUNSETOFFLOAD, TUNGETVNETHDRSZ, TUNSETVNETHDRSZ, CALLS
};

/* @error: errno to fail with, 0 = none. @every: each such call, counted from the order on.
 * @left: failures still to give. @trains: only sends with a control message (UDP_SEGMENT).
 * @calls, @hits: calls seen, and failed. */
struct rule {
    uint32_t error, every, left, trains;
    uint64_t calls, hits;
};

static struct rule *rules;

__attribute__((constructor)) static void map_rules(void)
{
    const char *path = getenv("FWD_TEST_ERRORS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *at = mmap(NULL, CALLS * sizeof(*rules), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    rules = at == MAP_FAILED ? NULL : at;
}

/* A TAP's descriptor or a UDP socket. */
static bool is_ours(int fd)
{
    struct stat status;
    int protocol = 0;
    socklen_t len = sizeof(protocol);

    if (!rules || fstat(fd, &status))
        return false;
    if (S_ISCHR(status.st_mode))
        return status.st_rdev == makedev(10, 200); /* /dev/net/tun */
    return S_ISSOCK(status.st_mode) &&
           !getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) && protocol == 17;
}

/* Is this call to fail? errno is set then. */
static bool fails(enum call call, bool train)
{
    struct rule *rule = &rules[call];

    if (rule->error && rule->trains && !train)
        return false;
    uint64_t calls = __atomic_add_fetch(&rule->calls, 1, __ATOMIC_RELAXED);
    if (!rule->error || !rule->left || calls % rule->every)
        return false;
    rule->left--;
    __atomic_add_fetch(&rule->hits, 1, __ATOMIC_RELAXED);
    errno = (int)rule->error;
    return true;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t read(int fd, void *buf, size_t size)
{
    if (is_ours(fd) && fails(READ, false))
        return -1;
    return REAL(read)(fd, buf, size);
}

ssize_t writev(int fd, const struct iovec *iov, int n)
{
    if (is_ours(fd) && fails(WRITEV, false))
        return -1;
    return REAL(writev)(fd, iov, n);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (is_ours(fd) && fails(SENDMSG, msg->msg_controllen > 0))
        return -1;
    return REAL(sendmsg)(fd, msg, flags);
}

int sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
    if (is_ours(fd) && fails(SENDMMSG, msgs[0].msg_hdr.msg_controllen > 0))
        return -1;
    return REAL(sendmmsg)(fd, msgs, n, flags);
}

int recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout)
{
    if (is_ours(fd) && fails(RECVMMSG, false))
        return -1;
    return REAL(recvmmsg)(fd, msgs, n, flags, timeout);
}

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" /* of the header's ppoll */
int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    if (n == 1 && is_ours(fds->fd) && fails(PPOLL, false))
        return -1;
    return REAL(ppoll)(fds, n, timeout, mask);
}

int epoll_wait(int fd, struct epoll_event *events, int n, int timeout)
{
    if (rules && fails(EPOLL_WAIT, false))
        return -1;
    return REAL(epoll_wait)(fd, events, n, timeout);
}

int epoll_pwait2(int fd, struct epoll_event *events, int n, const struct timespec *timeout,
                 const sigset_t *mask)
{
    if (rules && fails(EPOLL_PWAIT2, false))
        return -1;
    return REAL(epoll_pwait2)(fd, events, n, timeout, mask);
}

int epoll_ctl(int fd, int op, int target, struct epoll_event *event)
{
    if (is_ours(target) && fails(EPOLL_CTL, false))
        return -1;
    return REAL(epoll_ctl)(fd, op, target, event);
}

int ioctl(int fd, unsigned long request, ...)
{
    static const uint32_t requests[] = {0x400454ca, 0x800454d2, 0x400454d0, 0x800454d7,
                                        0x400454d8};
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    for (uint32_t i = 0; rules && i < sizeof(requests) / sizeof(requests[0]); i++)
        if ((uint32_t)request == requests[i] && fails((enum call)(TUNSETIFF + (int)i), false))
            return -1;
    int (*real)(int, unsigned long, ...) = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT,
                                                                                   "ioctl");
    return real(fd, request, argument);
}
