/* What programs do with sockets when they connect to another machine: a line for each, "ok" or what was wrong.
 *
 * sockets check ADDRESS PORT CLOSED SILENT   all of it; at CLOSED nobody listens, SILENT is an address of nobody's
 * sockets race PORT ADDRESS PORT             a hostile program: threads that change what a call was looked at with
 * sockets unlock PORT ADDRESS PORT           a hostile program: what might undo that a socket is bound to an interface
 * sockets epolls ADDRESS PORT                copies of one epoll, and numbers that who answers uses itself
 * sockets threads ADDRESS PORT               a thread with descriptors of its own, and one whose first thread has ended
 * sockets apart ADDRESS PORT                 connect from a network namespace of one's own
 * sockets large ADDRESS PORT ADDRESS6         datagrams of all sizes to those who send them back
 * sockets times ADDRESS PORT COUNT           microseconds of a connection, the middle one of so many
 * sockets send ADDRESS PORT MEGABYTES        as fast as it goes; says how long it took, and how much
 *                                            processor time, in seconds
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif

static struct sockaddr_in world, closed, silent;

static struct sockaddr_in at(const char *address, int port) {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &name.sin_addr);
    return name;
}

static int to(int fd, struct sockaddr_in *name) { return connect(fd, (void *)name, sizeof *name); }

static void told(const char *what, int is_ok) {
    int code = errno;
    printf("%s %s", what, is_ok ? "ok\n" : "WRONG ");
    if (!is_ok) printf("%s\n", strerror(code));
    fflush(stdout);
}

/* Whether the other machine's server answers over this socket. */
static int answers(int fd) {
    char text[512] = {0};
    int size = 0, more;
    struct pollfd seen = {fd, POLLIN, 0};
    if (write(fd, "GET / HTTP/1.0\r\n\r\n", 18) != 18) return 0;
    while (poll(&seen, 1, 3000) == 1 && (more = read(fd, text + size, 511 - size)) > 0) size += more;
    return strstr(text, "hello") != NULL;
}

static int finished(int fd) {
    struct pollfd seen = {fd, POLLOUT, 0};
    int error = -1;
    socklen_t size = sizeof error;
    poll(&seen, 1, 3000);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
}

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t size = sizeof value;
    getsockopt(fd, level, name, &value, &size);
    return value;
}

static void set(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

static void nothing(int number) { (void)number; }

static void waiting_and_not(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    told("waits", to(fd, &world) == 0 && getpeername(fd, (void *)&name, &size) == 0 && answers(fd)
                      && name.sin_addr.s_addr == world.sin_addr.s_addr && !(fcntl(fd, F_GETFL) & O_NONBLOCK));
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int code = to(fd, &world);
    told("waits-not", (code == 0 || errno == EINPROGRESS) && finished(fd) == 0 && answers(fd)
                          && fcntl(fd, F_GETFL) & O_NONBLOCK && fcntl(fd, F_GETFD) & FD_CLOEXEC);
    told("twice", to(fd, &world) == 0 && to(fd, &world) == -1 && errno == EISCONN);
    close(fd);
    fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6, .sin6_port = world.sin_port};
    memcpy(mapped.sin6_addr.s6_addr + 10, "\xff\xff", 2);
    memcpy(mapped.sin6_addr.s6_addr + 12, &world.sin_addr, 4);
    told("mapped", connect(fd, (void *)&mapped, sizeof mapped) == 0 && answers(fd));
    close(fd);
}

static void carried(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), copy = dup(fd), poller = epoll_create1(0);
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1), set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 77), set(fd, IPPROTO_IP, IP_TOS, 16);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1), set(fd, SOL_SOCKET, SO_RCVBUF, 30000);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u64 = 0x123456789abcdefULL}, seen = {0};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    told("options", to(fd, &world) == 0 && option(fd, IPPROTO_TCP, TCP_NODELAY) && option(fd, IPPROTO_IP, IP_TOS) == 16
                        && option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 77 && option(fd, SOL_SOCKET, SO_KEEPALIVE)
                        && option(fd, SOL_SOCKET, SO_RCVBUF) == 60000);
    told("epoll", epoll_wait(poller, &seen, 1, 2000) == 1 && seen.data.u64 == event.data.u64 && seen.events & EPOLLOUT);
    told("epoll-changed", epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event) == 0);
    told("copy", answers(copy));
    close(fd), close(copy), close(poller);
}

static void failing(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    told("refused", to(fd, &closed) == -1 && errno == ECONNREFUSED);
    told("again", to(fd, &world) == 0 && answers(fd));
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    told("refused-later", to(fd, &closed) == -1 && errno == EINPROGRESS && finished(fd) == ECONNREFUSED);
    told("no-port", listen(fd, 5) == -1 && errno == EACCES);
    told("again-later", (to(fd, &world) == 0 || errno == EINPROGRESS) && finished(fd) == 0 && answers(fd));
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval limit = {0, 200000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    told("time-out", to(fd, &silent) == -1 && errno == EINPROGRESS);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sigaction action = {.sa_handler = nothing};
    sigaction(SIGALRM, &action, NULL);
    ualarm(200000, 0);
    told("interrupted", to(fd, &silent) == -1 && errno == EINTR);
    close(fd);
    told("fast-open", sendto(fd = socket(AF_INET, SOCK_STREAM, 0), "x", 1, MSG_FASTOPEN, (void *)&world, sizeof world) == -1
                          && errno == EOPNOTSUPP);
    told("pointer", connect(fd, (void *)1, 16) == -1 && errno == EFAULT);
    told("length", connect(fd, (void *)&world, 3) == -1 && errno == EINVAL);
    told("number", to(-1, &world) == -1 && errno == EBADF);
    told("no-socket", to(1, &world) == -1 && errno == ENOTSOCK);
    close(fd);
}

static void inside(void) {
    int server = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in name = at("127.0.0.1", 7070);
    told("own-port", bind(server, (void *)&name, sizeof name) == 0 && listen(server, 5) == 0 && to(fd, &name) == 0);
    close(fd), close(server);
    struct sockaddr_un path = {.sun_family = AF_UNIX, .sun_path = "/a-socket"};
    struct ucred who;
    socklen_t size = sizeof who;
    server = socket(AF_UNIX, SOCK_STREAM, 0), fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(server, (void *)&path, sizeof path), listen(server, 5);
    int code = connect(fd, (void *)&path, sizeof path), end = accept(server, NULL, NULL);
    told("unix", code == 0 && getsockopt(end, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.pid == getpid());
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in echo = world;
    char text[8] = {0};
    struct pollfd seen = {fd, POLLIN, 0};
    echo.sin_port = htons(9007);
    told("datagram", sendto(fd, "hey", 3, 0, (void *)&echo, sizeof echo) == 3 && poll(&seen, 1, 3000) == 1
                         && recv(fd, text, 8, 0) == 3 && !strcmp(text, "hey"));
    to(fd, &closed);
    send(fd, "x", 1, 0);
    told("datagram-refused", poll(&seen, 1, 3000) == 1 && recv(fd, text, 8, 0) == -1 && errno == ECONNREFUSED);
}

/* --- race --- */

static volatile int is_over, target, ours, theirs;
static struct sockaddr_in aims[2], name;

static void *flips(void *_) {
    for (int turn = 0; !is_over; turn++) {
        memcpy(&name, &aims[turn & 1], sizeof name);
        dup2(turn & 2 ? ours : theirs, target);
    }
    return _;
}

static void race(void) {
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    pthread_t other;
    ours = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    to(ours, &aims[1]);
    finished(ours);
    connect(ours, &none, sizeof none);
    theirs = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    target = dup(theirs);
    pthread_create(&other, NULL, flips, NULL);
    for (int turn = 0; turn < 1000; turn++) {
        connect(target, (void *)&name, sizeof name);
        if (turn % 8 == 0) connect(ours, &none, sizeof none);
    }
    is_over = 1;
    pthread_join(other, NULL);
    puts("over");
}

/* --- what is hostile, or rare --- */

static struct sockaddr_in6 at6(const char *address, int port) {
    struct sockaddr_in6 name = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    inet_pton(AF_INET6, address, &name.sin6_addr);
    return name;
}

static void unlock(int near_port, const char *address, int port) {
    static const char *near[] = {"::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::"};
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    struct timeval limit = {1, 0};
    char far[64];
    snprintf(far, sizeof far, strchr(address, ':') ? "%s" : "::ffff:%s", address);
    struct sockaddr_in6 away = at6(far, port), link = at6("fe80::1", 0);
    link.sin6_scope_id = 1;
    for (int turn = 0; turn < 4; turn++) {
        int fd = socket(AF_INET6, SOCK_STREAM, 0);
        struct sockaddr_in6 aim = at6(near[turn], near_port);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        told("out", connect(fd, (void *)&away, sizeof away) == 0 && connect(fd, &none, sizeof none) == 0);
        int device = option(fd, SOL_SOCKET, SO_BINDTOIFINDEX);
        bind(fd, (void *)&link, sizeof link), bind(fd, (void *)&link, sizeof link);
        told("still-bound", device > 1 && option(fd, SOL_SOCKET, SO_BINDTOIFINDEX) == device);
        set(fd, SOL_SOCKET, SO_BINDTOIFINDEX, 0), set(fd, SOL_SOCKET, SO_BINDTOIFINDEX, 1);
        setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "", 1);
        told("bound-for-good", option(fd, SOL_SOCKET, SO_BINDTOIFINDEX) == device);
        told("not-back-in", connect(fd, (void *)&aim, sizeof aim) == -1 && errno == ENETUNREACH);
        told("out-again", connect(fd, (void *)&away, sizeof away) == 0 && answers(fd));
        close(fd);
    }
}

static void epolls(void) {
    int first = epoll_create1(0), poller = fcntl(first, F_DUPFD, 960), are_right = 1;
    struct epoll_event event = {.events = EPOLLOUT}, seen = {0};
    close(first);
    /* Each of the numbers that who answers is likely to have something at. */
    for (int number = 3; number < 60; number++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd != number) dup2(fd, number), close(fd);
        event.data.u64 = number;
        epoll_ctl(poller, EPOLL_CTL_ADD, number, &event);
        are_right &= to(number, &world) == 0 && epoll_wait(poller, &seen, 1, 2000) == 1 && seen.data.u64 == (unsigned)number
                     && epoll_ctl(poller, EPOLL_CTL_DEL, number, NULL) == 0;
        close(number);
    }
    told("numbers", are_right);
    for (int copies = 0; copies < 300; copies++) dup(poller);
    /* So often that who answers has no number left, if it closes one too few. */
    for (int turn = 0; turn < 90; turn++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        event.data.u64 = 5000 + turn;
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
        are_right &= to(fd, &world) == 0 && epoll_wait(poller, &seen, 1, 2000) == 1 && seen.data.u64 == 5000u + turn;
        close(fd);
    }
    told("copies", are_right);
}

static void *has_its_own(void *_) {
    int is_apart = unshare(CLONE_FILES) == 0, fd = fcntl(socket(AF_INET, SOCK_STREAM, 0), F_DUPFD, 50);
    told("own-descriptors", is_apart && to(fd, &world) == 0 && answers(fd));
    return _;
}

static void *is_left(void *first) {
    pthread_join(*(pthread_t *)first, NULL);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    told("first-has-ended", to(fd, &world) == 0 && answers(fd));
    exit(0);
}

static void threads(void) {
    static pthread_t first;
    pthread_t other;
    pthread_create(&other, NULL, has_its_own, NULL);
    pthread_join(other, NULL);
    first = pthread_self();
    pthread_create(&other, NULL, is_left, &first);
    pthread_exit(NULL);
}

/* A datagram of this size comes back as it went. */
static int echoed(int family, void *name, socklen_t length, int size) {
    static char sent[65536], got[65536];
    int fd = socket(family, SOCK_DGRAM, 0), is_same = 0;
    struct pollfd seen = {fd, POLLIN, 0};
    for (int at = 0; at < size; at++) sent[at] = at * 7 + at / 256 + size;
    /* What is in parts is lost with any of them, and a busy machine loses some. */
    for (int turn = 0; turn < 5 && !is_same; turn++) {
        if (sendto(fd, sent, size, 0, name, length) != size) break;
        is_same = poll(&seen, 1, 1000) == 1 && recv(fd, got, sizeof got, 0) == size && !memcmp(sent, got, size);
    }
    close(fd);
    return is_same;
}

static void large(int port, const char *address6) {
    struct sockaddr_in6 name6 = at6(address6, port);
    int sizes[] = {100, 1472, 1473, 4000, 20000, 65507};
    for (int each = 0; each < 6; each++) {
        told("four", echoed(AF_INET, &world, sizeof world, sizes[each]));
        told("six", echoed(AF_INET6, &name6, sizeof name6, sizes[each]));
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static int by_size(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

static void times(int count) {
    double *took = calloc(count, sizeof *took);
    for (int turn = 0; turn < count; turn++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        double begun = now();
        if (to(fd, &world) != 0) exit(1);
        took[turn] = (now() - begun) * 1e6;
        close(fd);
    }
    qsort(took, count, sizeof *took, by_size);
    printf("%.1f\n", took[count / 2]);
}

static void sends(int megabytes) {
    static char data[1 << 20];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (to(fd, &world) != 0) exit(1);
    double begun = now();
    for (long left = (long)megabytes << 20, more; left > 0; left -= more)
        if ((more = write(fd, data, left < (long)sizeof data ? left : (long)sizeof data)) < 0) exit(1);
    shutdown(fd, SHUT_WR);
    if (read(fd, data, 1) < 0) exit(1);
    printf("%.4f %.4f\n", now() - begun, clock() / (double)CLOCKS_PER_SEC);
}

int main(int count, char **words) {
    if (!strcmp(words[1], "check")) {
        world = at(words[2], atoi(words[3])), closed = at(words[2], atoi(words[4])), silent = at(words[5], 80);
        waiting_and_not(), carried(), failing(), inside();
    } else if (!strcmp(words[1], "race")) {
        aims[0] = at("127.0.0.1", atoi(words[2])), aims[1] = at(words[3], atoi(words[4]));
        race();
    } else if (!strcmp(words[1], "unlock")) {
        unlock(atoi(words[2]), words[3], atoi(words[4]));
    } else if (!strcmp(words[1], "epolls") || !strcmp(words[1], "threads")) {
        world = at(words[2], atoi(words[3]));
        (!strcmp(words[1], "epolls") ? epolls : threads)();
    } else if (!strcmp(words[1], "large")) {
        world = at(words[2], atoi(words[3]));
        large(atoi(words[3]), words[4]);
    } else if (!strcmp(words[1], "times") || !strcmp(words[1], "send")) {
        world = at(words[2], atoi(words[3]));
        (!strcmp(words[1], "send") ? sends : times)(atoi(words[4]));
    } else {
        world = at(words[2], atoi(words[3]));
        int is_apart = unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0, fd = socket(AF_INET, SOCK_STREAM, 0);
        told("apart", is_apart && to(fd, &world) == -1 && errno == ENETUNREACH);
    }
    return count < 0;
}
