// Sockets and System V and POSIX messages as a program sees them. Each case prints what every call gave; the test
// compares the transcript of the native run with that of the sandbox. Nothing depends on time or on host limits.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHOW(call)                                                                                       \
    do {                                                                                                 \
        errno = 0;                                                                                       \
        long result = (long)(call);                                                                      \
        printf("%s = %ld%s%s\n", #call, result, result < 0 ? " " : "", result < 0 ? strerrorname_np(errno) : ""); \
    } while (0)
// For calls that give a number of no meaning when they succeed (a descriptor, an identifier).
#define TRY(call)                                                                                        \
    do {                                                                                                 \
        errno = 0;                                                                                       \
        long result = (long)(call);                                                                      \
        printf("%s: %s\n", #call, result < 0 ? strerrorname_np(errno) : "ok");                            \
    } while (0)
#define TELL(format, ...) printf("    " format "\n", __VA_ARGS__)

static char buf[1 << 16];

static int ready(int fd)
{
    struct pollfd p = {fd, 0x3fff, 0};
    return poll(&p, 1, 0) > 0 ? p.revents : 0;
}

static struct sockaddr_un address;
static socklen_t named(const char *name)
{
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, name, strlen(name + 1) + 1);
    return sizeof(sa_family_t) + strlen(name + 1) + 1 + (name[0] != 0);
}

static void pairs_of(int type)
{
    int s[2], n;
    SHOW(socketpair(AF_UNIX, type, 0, s));
    SHOW(ready(s[0]));
    SHOW(send(s[0], "hello", 5, 0));
    SHOW(send(s[0], "world", 5, MSG_EOR));
    SHOW(ready(s[1]));
    SHOW((ioctl(s[1], FIONREAD, &n), n));
    SHOW(recv(s[1], buf, 3, MSG_PEEK));
    SHOW(recv(s[1], buf, 3, MSG_TRUNC));
    SHOW(recv(s[1], buf, 100, MSG_DONTWAIT));
    SHOW(recv(s[1], buf, 100, MSG_DONTWAIT));
    SHOW(send(s[0], "", 0, 0));
    SHOW(recv(s[1], buf, 100, MSG_DONTWAIT));
    SHOW(send(s[0], buf, 1, MSG_DONTWAIT | MSG_NOSIGNAL));
    SHOW(send(s[0], (void *)8, 10, 0));
    SHOW(recv(s[1], (void *)8, 10, MSG_DONTWAIT));
    SHOW(sendto(s[0], "x", 1, 0, (void *)&address, named("@nobody")));
    SHOW(listen(s[0], 1));
    SHOW(accept(s[0], 0, 0));
    SHOW(shutdown(s[0], 9));
    SHOW(shutdown(s[0], SHUT_WR));
    SHOW(ready(s[0]));
    SHOW(ready(s[1]));
    SHOW(send(s[0], "x", 1, MSG_NOSIGNAL));
    SHOW(send(s[1], "unread", 6, 0));
    SHOW(close(s[0]));
    SHOW(ready(s[1]));
    SHOW(send(s[1], "x", 1, MSG_NOSIGNAL));
    SHOW(recv(s[1], buf, 100, MSG_DONTWAIT));
    SHOW(recv(s[1], buf, 100, MSG_DONTWAIT));
    SHOW(ready(s[1]));
    SHOW(close(s[1]));
}

static void streams(void) { pairs_of(SOCK_STREAM); }
static void datagrams(void) { pairs_of(SOCK_DGRAM); }
static void packets(void) { pairs_of(SOCK_SEQPACKET); }

static void names(void)
{
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socklen_t length = sizeof address;
    struct stat st;
    SHOW(listen(listener, 1));
    SHOW(bind(listener, (void *)&address, named("path")));
    SHOW(bind(listener, (void *)&address, named("again")));
    SHOW(bind(client, (void *)&address, named("path")));
    SHOW(stat("path", &st));
    TELL("mode %o size %ld", st.st_mode, (long)st.st_size);
    TRY(open("path", O_RDONLY));
    SHOW(connect(client, (void *)&address, named("path")));
    SHOW(connect(client, (void *)&address, named("missing")));
    SHOW(listen(listener, 0));
    SHOW(ready(listener));
    SHOW(connect(client, (void *)&address, named("path")));
    SHOW(connect(client, (void *)&address, named("path")));
    int second = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SHOW(connect(second, (void *)&address, named("path")));
    SHOW(ready(second));
    SHOW(ready(listener));
    int server = accept4(listener, (void *)&address, &length, SOCK_CLOEXEC);
    TELL("peer %u, flags %x %x", length, fcntl(server, F_GETFD), fcntl(server, F_GETFL));
    length = sizeof address;
    SHOW(getsockname(server, (void *)&address, &length));
    TELL("%u %s", length, address.sun_path);
    SHOW(rename("path", "moved"));
    SHOW(connect(second, (void *)&address, named("moved")));
    int datagram = socket(AF_UNIX, SOCK_DGRAM, 0);
    SHOW(connect(datagram, (void *)&address, named("moved")));
    SHOW(bind(datagram, (void *)&address, sizeof(sa_family_t)));
    length = sizeof address;
    SHOW(getsockname(datagram, (void *)&address, &length));
    TELL("%u", length);
    SHOW(bind(datagram, (void *)&address, 1));
    SHOW(connect(second, (void *)&address, 200));
    SHOW(close(listener));
    SHOW(recv(second, buf, 1, 0));
    SHOW(recv(second, buf, 1, 0));
    SHOW(unlink("moved"));
    TRY(socket(AF_UNIX, 4, 0));
    TRY(socket(AF_UNIX, 77, 0));
    TRY(socket(AF_UNIX, SOCK_STREAM, 9));
    TRY(socket(99, SOCK_STREAM, 0));
}

static void show_message(int fd, size_t room, int flags)
{
    struct iovec piece = {buf, 100};
    char control[512];
    struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = room};
    errno = 0;
    long result = recvmsg(fd, &header, flags);
    TELL("room %zu: %ld %s flags %x controllen %zu", room, result, result < 0 ? strerrorname_np(errno) : "",
         header.msg_flags, (size_t)header.msg_controllen);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c && result >= 0; c = CMSG_NXTHDR(&header, c)) {
        TELL("    level %d type %d length %zu", c->cmsg_level, c->cmsg_type, (size_t)c->cmsg_len);
        if (c->cmsg_type == SCM_RIGHTS)
            for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++)
                close(((int *)CMSG_DATA(c))[i]);
        else if (c->cmsg_len == CMSG_LEN(sizeof(struct ucred)))
            TELL("    own pid %d", ((struct ucred *)CMSG_DATA(c))->pid == getpid());
    }
}

static long send_control(int fd, int type, const void *data, size_t size)
{
    struct iovec piece = {.iov_base = "x", .iov_len = 1};
    char control[2048] = {0};
    struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control,
                            .msg_controllen = CMSG_SPACE(size)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(c), data, size);
    return sendmsg(fd, &header, 0);
}

static void ancillary(void)
{
    int s[2], fds[254], on = 1, bad = 999;
    struct ucred claim = {getpid(), 77, 88};
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    for (int i = 0; i < 254; i++)
        fds[i] = s[0];
    for (size_t room = 0; room <= 40; room += 4) {
        SHOW(send_control(s[0], SCM_RIGHTS, fds, 3 * sizeof(int)));
        show_message(s[1], room, 0);
    }
    SHOW(send_control(s[0], SCM_RIGHTS, &bad, sizeof bad));
    SHOW(send_control(s[0], SCM_RIGHTS, fds, sizeof fds));
    SHOW(send_control(s[0], 99, fds, 4));
    SHOW(send(s[0], "ab", 2, 0));
    SHOW(send_control(s[0], SCM_RIGHTS, fds, 4));
    SHOW(send(s[0], "cd", 2, 0));
    show_message(s[1], 100, MSG_PEEK | MSG_CMSG_CLOEXEC);
    show_message(s[1], 100, 0);
    show_message(s[1], 100, 0);
    SHOW(setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    SHOW(write(s[0], "w", 1));
    SHOW(send_control(s[0], SCM_CREDENTIALS, &claim, sizeof claim));
    show_message(s[1], 100, 0);
    show_message(s[1], 20, 0);
    claim.pid = 1 << 30;
    SHOW(send_control(s[0], SCM_CREDENTIALS, &claim, sizeof claim));
    SHOW(send_control(s[0], SCM_CREDENTIALS, &claim, 8));
    show_message(s[1], 100, MSG_DONTWAIT);
}

static void options(void)
{
    static const int asked[] = {SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ERROR, SO_ACCEPTCONN, SO_REUSEADDR, SO_KEEPALIVE,
                                SO_PASSCRED, SO_PRIORITY, SO_RCVLOWAT, SO_SNDLOWAT, SO_PEERSEC, SO_PEEK_OFF, 999};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), value = 1;
    socklen_t length;
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        length = sizeof value;
        value = -7;
        SHOW(getsockopt(fd, SOL_SOCKET, asked[i], &value, &length));
        TELL("option %d: %d, %u bytes", asked[i], value, length);
        value = 3;
        SHOW(setsockopt(fd, SOL_SOCKET, asked[i], &value, sizeof value));
    }
    static const int sizes[] = {0, 1, 3000, 100000};
    for (int i = 0; i < 4; i++) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sizes[i], 4), setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &sizes[i], 4);
        getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, &length);
        TELL("send buffer %d", value);
        getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, &length);
        TELL("receive buffer %d", value);
    }
    struct timeval wait = {0, 1000000};
    SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait));
    SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, 4));
    SHOW(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, 3));
    SHOW(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, (void *)8, 4));
    SHOW(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, 4));
    length = -1;
    SHOW(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &length));
    SHOW(getsockopt(0, SOL_SOCKET, SO_TYPE, &value, &length));
}

static long operate(int set, int number, int change, int flags)
{
    struct sembuf operation = {number, change, flags};
    return semop(set, &operation, 1);
}

static void system_v(void)
{
    int set = semget(IPC_PRIVATE, 2, 0600), queue = msgget(IPC_PRIVATE, 0600), status;
    struct { long type; char text[100]; } message = {3, "three"};
    SHOW(operate(set, 0, 3, SEM_UNDO));
    SHOW(operate(set, 0, -4, IPC_NOWAIT));
    SHOW(operate(set, 0, 0, IPC_NOWAIT));
    SHOW(operate(set, 2, 1, 0));
    SHOW(operate(set, 1, 32767, 0));
    SHOW(operate(set, 1, 1, 0));
    SHOW(semctl(set, 0, SETVAL, 40000));
    SHOW(semctl(set, 5, GETVAL));
    if (!fork())
        _exit(operate(set, 0, -2, SEM_UNDO) || operate(set, 0, -2, 0));
    while (semctl(set, 0, GETNCNT) != 1)
        usleep(1000);
    SHOW(operate(set, 0, 1, 0));
    SHOW((wait(&status), status));
    SHOW(semctl(set, 0, GETVAL));
    SHOW(semctl(set, 0, IPC_RMID));
    SHOW(operate(set, 0, 1, 0));
    SHOW(msgsnd(queue, &message, 6, 0));
    message.type = 0;
    SHOW(msgsnd(queue, &message, 6, 0));
    SHOW(msgsnd(queue, &message, 9000, 0));
    SHOW(msgrcv(queue, &message, 2, 0, IPC_NOWAIT));
    SHOW(msgrcv(queue, &message, 2, -2, IPC_NOWAIT));
    SHOW(msgrcv(queue, &message, 2, -3, MSG_NOERROR));
    SHOW(message.type);
    SHOW(msgctl(queue, IPC_RMID, 0));
    SHOW(msgrcv(queue, &message, 2, 0, 0));
}

static void posix_queues(void)
{
    char name[40];
    snprintf(name, sizeof name, "/sockets-%d", getpid());
    struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 8};
    unsigned priority;
    TRY(mq_open(name, O_RDWR));
    mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attributes);
    TRY(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attributes));
    SHOW(ready(queue));
    SHOW(mq_send(queue, "low", 3, 1));
    SHOW(mq_send(queue, "high", 4, 7));
    SHOW(mq_send(queue, "full", 4, 7));
    SHOW(mq_send(queue, "123456789", 9, 7));
    SHOW(mq_send(queue, "x", 1, 32768));
    SHOW(ready(queue));
    SHOW(mq_receive(queue, buf, 7, &priority));
    SHOW(mq_receive(queue, buf, 8, &priority));
    SHOW(priority);
    SHOW(mq_getattr(queue, &attributes));
    TELL("%ld %ld %ld %lo", attributes.mq_maxmsg, attributes.mq_msgsize, attributes.mq_curmsgs, attributes.mq_flags);
    SHOW(mq_receive(queue, buf, 8, &priority));
    SHOW(mq_receive(queue, buf, 8, &priority));
    SHOW(mq_unlink(name));
    SHOW(mq_unlink(name));
    SHOW(mq_send(queue, "still", 5, 0));
}

static void internet(void)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), on = 1, n;
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;
    SHOW(connect(client, (void *)&name, 8));
    SHOW(bind(listener, (void *)&name, sizeof name));
    SHOW(listen(listener, 3));
    SHOW(getsockname(listener, (void *)&name, &length));
    SHOW(connect(client, (void *)&name, sizeof name));
    SHOW(connect(client, (void *)&name, sizeof name));
    int server = accept(listener, 0, 0);
    SHOW(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    SHOW(send(client, "hello world", 11, 0));
    SHOW(recv(server, buf, 5, MSG_WAITALL));
    SHOW((ioctl(server, FIONREAD, &n), n));
    SHOW(recv(server, buf, 3, MSG_TRUNC));
    SHOW(recvfrom(server, buf, 100, 0, (void *)&name, &length));
    TELL("address of %u bytes", length);
    SHOW(recv(server, buf, 1, MSG_DONTWAIT));
    SHOW(ready(server));
    SHOW(shutdown(client, SHUT_WR));
    SHOW(recv(server, buf, 1, 0));
    SHOW(ready(server));
    SHOW(send(client, "x", 1, MSG_NOSIGNAL));
    SHOW(close(client));
    SHOW(shutdown(listener, SHUT_RDWR));
    SHOW(accept(listener, 0, 0));
    TRY(socket(AF_INET, SOCK_SEQPACKET, 0));
    TRY(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {
        {"streams", streams}, {"datagrams", datagrams}, {"packets", packets}, {"names", names},
        {"ancillary", ancillary}, {"options", options}, {"system_v", system_v}, {"posix_queues", posix_queues},
        {"internet", internet},
    };
    char directory[] = "/tmp/socketsXXXXXX";
    if (argc != 2 || !mkdtemp(directory) || chdir(directory))
        return 2;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(argv[1], cases[i].name))
            cases[i].run();
    return rmdir(directory);
}
