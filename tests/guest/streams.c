// Streams, polling and transfers as a program sees them. Each case prints what every call gave; the test compares
// the transcript of the native run with that of the sandbox. Nothing here depends on time or on free descriptors.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((void *)8)
#define SHOW(call)                                                                                       \
    do {                                                                                                 \
        errno = 0;                                                                                       \
        long result = (long)(call);                                                                      \
        printf("%s = %ld%s%s\n", #call, result, result < 0 ? " " : "", result < 0 ? strerrorname_np(errno) : ""); \
    } while (0)
#define TELL(format, ...) printf("    " format "\n", __VA_ARGS__)

static char buf[1 << 20];
static struct stat st;
static unsigned long long word;

static void on_signal(int signo) { (void)signo; }

static void set_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

static void pipes(void)
{
    int p[2], n;
    SHOW(pipe(p));
    SHOW(fstat(p[0], &st));
    TELL("mode %o size %ld blksize %ld links %ld", st.st_mode, (long)st.st_size, (long)st.st_blksize, (long)st.st_nlink);
    SHOW(write(p[1], "abc", 3));
    SHOW(read(p[0], buf, 2));
    SHOW(read(p[0], buf, 2));
    SHOW(fcntl(p[0], F_GETPIPE_SZ));
    SHOW(fcntl(p[0], F_SETPIPE_SZ, 10000));
    SHOW(lseek(p[0], 0, 0));
    SHOW(pread(p[0], buf, 1, 0));
    SHOW(ftruncate(p[1], 0));
    SHOW(fsync(p[0]));
    SHOW(fcntl(p[0], F_GETFL));
    SHOW(fcntl(p[1], F_GETFL));
    SHOW(read(p[1], buf, 1));
    SHOW(write(p[0], buf, 1));
    SHOW(read(p[0], buf, 0));
    SHOW(write(p[1], buf, 0));
    SHOW(write(p[1], buf, 100));
    SHOW(ioctl(p[0], FIONREAD, &n));
    TELL("%d to read", n);
    SHOW(read(p[0], BAD, 10));
    SHOW(read(p[0], buf, 1000));
    SHOW(write(p[1], BAD, 10));
    set_nonblocking(p[0]);
    set_nonblocking(p[1]);
    SHOW(read(p[0], buf, 10));
    SHOW(write(p[1], buf, sizeof buf));
    SHOW(write(p[1], buf, 1));
    struct pollfd fds[3] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}, {-5, POLLIN, 7}};
    SHOW(poll(fds, 3, 0));
    TELL("%x %x %x", fds[0].revents, fds[1].revents, fds[2].revents);
    SHOW(read(p[0], buf, 4095));
    SHOW(poll(fds, 2, 0));
    TELL("%x %x", fds[0].revents, fds[1].revents);
    SHOW(read(p[0], buf, 1));
    SHOW(poll(fds, 2, 0));
    TELL("%x %x", fds[0].revents, fds[1].revents);
    SHOW(write(p[1], buf, 5000));
    signal(SIGPIPE, SIG_IGN);
    SHOW(close(p[0]));
    SHOW(write(p[1], "x", 1));
    SHOW(poll(fds + 1, 1, 0));
    TELL("%x", fds[1].revents);
    SHOW(pipe2(p, O_DIRECT | O_NONBLOCK));
    SHOW(write(p[1], "abcdef", 6));
    SHOW(write(p[1], "gh", 2));
    SHOW(read(p[0], buf, 3));
    SHOW(read(p[0], buf, 30));
    SHOW(write(p[1], buf, 10000));
    SHOW(read(p[0], buf, 20000));
    SHOW(fcntl(p[1], F_GETFL));
    SHOW(fcntl(p[0], F_GETFL));
    SHOW(pipe2(p, 1));
    SHOW(pipe(BAD));
}

static void fifos(void)
{
    int r, w;
    SHOW(mkfifo("fifo", 0600));
    SHOW(open("fifo", O_WRONLY | O_NONBLOCK));
    SHOW((r = open("fifo", O_RDONLY | O_NONBLOCK)) >= 0);
    SHOW(read(r, buf, 1));
    struct pollfd fds = {r, POLLIN, 0};
    SHOW(poll(&fds, 1, 0));
    SHOW((w = open("fifo", O_WRONLY)) >= 0);
    SHOW(write(w, "hello", 5));
    SHOW(fstat(r, &st));
    TELL("mode %o size %ld", st.st_mode, (long)st.st_size);
    close(w);
    SHOW(poll(&fds, 1, 0));
    TELL("%x", fds.revents);
    SHOW(read(r, buf, 9));
    SHOW(poll(&fds, 1, 0));
    TELL("%x", fds.revents);
    close(r);
    fflush(stdout);
    if (!fork()) {
        w = open("fifo", O_WRONLY);
        usleep(20000);
        _exit(write(w, "child", 5) != 5);
    }
    SHOW((r = open("fifo", O_RDONLY)) >= 0);
    SHOW(read(r, buf, 9));
    SHOW(read(r, buf, 9));
    wait(0);
    close(r);
    SHOW((r = open("fifo", O_RDWR)) >= 0);
    SHOW(write(r, "zz", 2));
    SHOW(read(r, buf, 9));
}

static void events(void)
{
    int fd;
    SHOW((fd = eventfd(5, EFD_NONBLOCK | EFD_SEMAPHORE)) >= 0);
    SHOW(fstat(fd, &st));
    TELL("mode %o size %ld", st.st_mode, (long)st.st_size);
    SHOW(read(fd, &word, 8));
    TELL("%llu", word);
    word = ~0ull;
    SHOW(write(fd, &word, 8));
    word = ~0ull - 1;
    SHOW(write(fd, &word, 8));
    word = 3;
    SHOW(write(fd, &word, 4));
    SHOW(write(fd, &word, 8));
    SHOW(read(fd, &word, 16));
    SHOW(pread(fd, &word, 8, 0));
    SHOW(fcntl(fd, F_GETFL));
    SHOW(eventfd(0, 4));

    struct itimerspec times = {{0, 5000000}, {0, 10000000}}, before;
    SHOW((fd = timerfd_create(CLOCK_MONOTONIC, 0)) >= 0);
    SHOW(timerfd_settime(fd, 0, &times, 0));
    SHOW(read(fd, &word, 8));
    usleep(22000);
    SHOW(read(fd, &word, 8));
    TELL("at least four: %d", word >= 4);
    SHOW(timerfd_gettime(fd, &before));
    TELL("%ld %ld %d", before.it_interval.tv_nsec, (long)before.it_value.tv_sec, before.it_value.tv_nsec <= 5000000);
    memset(&times, 0, sizeof times);
    SHOW(timerfd_settime(fd, 0, &times, &before));
    TELL("%ld", before.it_interval.tv_nsec);
    set_nonblocking(fd);
    SHOW(read(fd, &word, 8));
    SHOW(read(fd, &word, 4));
    SHOW(timerfd_create(5, 0));
    SHOW(timerfd_settime(0, 0, &times, 0));
    SHOW(timerfd_settime(fd, 9, &times, 0));
    SHOW(write(fd, &word, 8));
    times.it_value.tv_nsec = 1;
    SHOW(timerfd_settime(fd, TFD_TIMER_ABSTIME, &times, 0));
    SHOW(read(fd, &word, 8));

    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGKILL);
    SHOW((fd = signalfd(-1, &mask, SFD_NONBLOCK)) >= 0);
    sigprocmask(SIG_BLOCK, &mask, 0);
    struct signalfd_siginfo info;
    SHOW(read(fd, &info, sizeof info));
    kill(getpid(), SIGUSR1);
    struct pollfd fds = {fd, POLLIN, 0};
    SHOW(poll(&fds, 1, 0));
    SHOW(read(fd, &info, sizeof info));
    TELL("%u %d %d", info.ssi_signo, info.ssi_code, info.ssi_pid == (unsigned)getpid());
    SHOW(read(fd, &info, 10));
    union sigval value = {.sival_int = 42};
    sigqueue(getpid(), SIGUSR1, value);
    SHOW(read(fd, &info, sizeof info));
    TELL("%d %d", info.ssi_int, info.ssi_code);
    SHOW(fcntl(fd, F_GETFL));
}

static void epolls(void)
{
    int ep, outer, p[2];
    struct epoll_event event = {EPOLLIN, {.u64 = 77}}, out[4];
    SHOW((ep = epoll_create1(EPOLL_CLOEXEC)) >= 0);
    SHOW(epoll_create1(3));
    SHOW(epoll_create(0));
    SHOW(pipe(p));
    SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &event));
    SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &event));
    SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &event));
    SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, 999, &event));
    SHOW(epoll_ctl(p[0], EPOLL_CTL_ADD, p[1], &event));
    SHOW(epoll_ctl(ep, 9, p[0], &event));
    SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, p[1], &event));
    SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, p[1], 0));
    SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, p[1], 0));
    static const char *always_ready[] = {"/etc/passwd", "/", "/dev/null", "/dev/zero", "/dev/urandom"};
    for (int i = 0; i < 5; i++) {
        int fd = open(always_ready[i], O_RDONLY);
        SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event));
        close(fd);
    }
    SHOW(epoll_wait(ep, out, 4, 0));
    SHOW(write(p[1], "x", 1));
    SHOW(epoll_wait(ep, out, 4, -1));
    TELL("%x %lu", out[0].events, (long)out[0].data.u64);
    SHOW(epoll_wait(ep, out, 4, 0));
    event.events = EPOLLIN | EPOLLET;
    SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &event));
    SHOW(epoll_wait(ep, out, 4, 0));
    SHOW(epoll_wait(ep, out, 4, 0));
    SHOW(write(p[1], "y", 1));
    SHOW(epoll_wait(ep, out, 4, 0));
    SHOW(epoll_wait(ep, out, 4, 0));
    event.events = EPOLLIN | EPOLLONESHOT;
    SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &event));
    SHOW(epoll_wait(ep, out, 4, 0));
    SHOW(epoll_wait(ep, out, 4, 0));
    SHOW((outer = epoll_create1(0)) >= 0);
    event.events = EPOLLIN;
    SHOW(epoll_ctl(outer, EPOLL_CTL_ADD, ep, &event));
    SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, outer, &event));
    SHOW(epoll_wait(outer, out, 4, 0));
    SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &event));
    SHOW(epoll_wait(outer, out, 4, 0));
    close(p[1]);
    SHOW(epoll_wait(ep, out, 4, 0));
    TELL("%x", out[0].events);
    SHOW(epoll_wait(ep, out, 0, 0));
    SHOW(epoll_wait(ep, BAD, 4, 0));
    SHOW(epoll_wait(ep, out, 4, 0));
    event.events = EPOLLIN | EPOLLEXCLUSIVE;
    SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &event));
    SHOW(epoll_ctl(outer, EPOLL_CTL_ADD, p[0], &event));
    SHOW(epoll_ctl(outer, EPOLL_CTL_MOD, p[0], &event));
    SHOW(close(p[0]));
    SHOW(epoll_wait(ep, out, 4, 0));
    SHOW(read(ep, buf, 8));
    SHOW(fstat(ep, &st));
    TELL("mode %o", st.st_mode);
}

static void waiting(void)
{
    int p[2], regular = open("/etc/passwd", O_RDONLY), ep = epoll_create1(0);
    struct epoll_event out[4];
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct timespec spec = {1, 0};
    struct timeval val = {1, 0};
    sigaction(SIGALRM, &action, 0);
    ualarm(20000, 0);
    SHOW(poll(0, 0, 1000));
    ualarm(20000, 0);
    SHOW(ppoll(0, 0, &spec, 0));
    ualarm(20000, 0);
    SHOW(select(0, 0, 0, 0, &val));
    TELL("time went on: %d", val.tv_sec == 0 && val.tv_usec < 990000);
    ualarm(20000, 0);
    SHOW(epoll_wait(ep, out, 4, 1000));
    SHOW(pipe(p));
    fflush(stdout);
    if (!fork()) {
        usleep(60000);
        _exit(write(p[1], "late", 4) != 4);
    }
    ualarm(20000, 0);
    SHOW(read(p[0], buf, 10));
    wait(0);
    action.sa_flags = 0;
    sigaction(SIGALRM, &action, 0);
    ualarm(20000, 0);
    SHOW(read(p[0], buf, 10));
    fd_set reads, writes;
    FD_ZERO(&reads);
    FD_ZERO(&writes);
    FD_SET(p[0], &reads);
    FD_SET(regular, &reads);
    FD_SET(p[1], &writes);
    val = (struct timeval){0, 0};
    SHOW(select(20, &reads, &writes, 0, &val));
    TELL("%d %d %d", !!FD_ISSET(p[0], &reads), !!FD_ISSET(p[1], &writes), !!FD_ISSET(regular, &reads));
    FD_SET(63, &reads);
    SHOW(select(64, &reads, 0, 0, &val));
    SHOW(select(-1, 0, 0, 0, 0));
    val.tv_sec = -1;
    SHOW(select(0, 0, 0, 0, &val));
    SHOW(poll(BAD, 1, 0));
    SHOW(poll(0, 1 << 30, 0));
    struct pollfd fds = {regular, POLLIN | POLLOUT, 0};
    SHOW(poll(&fds, 1, 0));
    TELL("%x", fds.revents);
    int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    fds = (struct pollfd){s[0], POLLIN | POLLOUT | POLLRDHUP, 0};
    SHOW(poll(&fds, 1, 0));
    TELL("%x", fds.revents);
    close(s[1]);
    SHOW(poll(&fds, 1, 0));
    TELL("%x", fds.revents);
    SHOW(read(s[0], buf, 1));
    signal(SIGPIPE, SIG_IGN);
    SHOW(write(s[0], buf, 1));
}

static void files(void)
{
    int fd, dir = open("/", O_RDONLY);
    struct iovec vector[2] = {{buf, 3}, {buf + 100, 4}};
    SHOW((fd = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600)) >= 0);
    SHOW(write(fd, "0123456789", 10));
    SHOW(pwrite(fd, "AB", 2, 4));
    SHOW(pread(fd, buf, 100, 2));
    SHOW(pread(fd, buf, 1, -1));
    SHOW(lseek(fd, 0, SEEK_CUR));
    SHOW(preadv(fd, vector, 2, 1));
    TELL("%.3s %.4s", buf, buf + 100);
    SHOW(readv(fd, vector, 2));
    SHOW(lseek(fd, 0, SEEK_SET));
    SHOW(readv(fd, vector, 2));
    SHOW(writev(fd, vector, 1025));
    SHOW(writev(fd, BAD, 1));
    vector[0].iov_len = -1;
    SHOW(readv(fd, vector, 2));
    vector[0].iov_len = 3;
    SHOW(preadv2(fd, vector, 2, -1, 0));
    SHOW(pwritev2(fd, vector, 1, -1, RWF_APPEND));
    SHOW(lseek(fd, 0, SEEK_END));
    SHOW(pwritev2(fd, vector, 1, 0, RWF_DSYNC));
    SHOW(read(fd, BAD, 1));
    SHOW(pread(fd, BAD, 1, 0));
    SHOW(lseek(fd, 0, SEEK_CUR));
    SHOW(write(fd, BAD, 1));
    SHOW(write(fd, buf, 0));
    SHOW(read(dir, buf, 1));
    SHOW(pread(dir, buf, 1, 0));
    SHOW(read(fd, buf, -1));
    SHOW(fcntl(fd, F_SETFL, O_APPEND));
    SHOW(pwrite(fd, "tail", 4, 0));
    SHOW(fstat(fd, &st));
    TELL("size %ld", (long)st.st_size);
    SHOW(readahead(fd, 0, 10));
    SHOW(posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED));
    SHOW(posix_fadvise(fd, 0, 0, 9));
}

static void splices(void)
{
    int from = open("from", O_RDWR | O_CREAT, 0600), to = open("to", O_RDWR | O_CREAT | O_APPEND, 0600), p[2];
    struct iovec vector = {buf, 3};
    off_t offset = 2;
    SHOW(pipe(p));
    SHOW(write(from, "0123456789abc", 13));
    SHOW(sendfile(to, from, 0, 4));
    fcntl(to, F_SETFL, 0);
    SHOW(sendfile(to, from, &offset, 4));
    TELL("offset %ld", (long)offset);
    SHOW(copy_file_range(from, &offset, to, 0, 100, 0));
    SHOW(lseek(to, 0, SEEK_CUR));
    SHOW(copy_file_range(from, 0, from, 0, 5, 0));
    SHOW(copy_file_range(from, 0, p[1], 0, 5, 0));
    offset = 0;
    SHOW(copy_file_range(from, &offset, from, &offset, 5, 0));
    SHOW(splice(from, &offset, p[1], 0, 5, 0));
    TELL("offset %ld", (long)offset);
    SHOW(tee(p[0], p[0], 1, 0));
    SHOW(tee(p[0], p[1], 1, 0));
    SHOW(splice(p[0], 0, to, 0, 100, 0));
    SHOW(splice(from, 0, to, 0, 1, 0));
    SHOW(splice(p[0], &offset, to, 0, 1, 0));
    SHOW(splice(p[0], 0, to, 0, 1, SPLICE_F_NONBLOCK));
    SHOW(splice(p[0], 0, to, 0, 1, 64));
    SHOW(vmsplice(p[1], &vector, 1, 0));
    SHOW(vmsplice(p[0], &vector, 1, 0));
    SHOW(vmsplice(from, &vector, 1, 0));
    SHOW(sendfile(p[1], p[0], 0, 1));
    SHOW(sendfile(1, -1, 0, 1));
    offset = -1;
    SHOW(sendfile(to, from, &offset, 1));
    SHOW(fstat(to, &st));
    TELL("size %ld", (long)st.st_size);
}

static void watches(void)
{
    int fd, wd;
    SHOW(mkdir("watched", 0700));
    SHOW((fd = inotify_init1(IN_NONBLOCK)) >= 0);
    SHOW(wd = inotify_add_watch(fd, "watched", IN_ALL_EVENTS));
    SHOW(inotify_add_watch(fd, "watched", 0));
    SHOW(inotify_add_watch(fd, "nothing", IN_OPEN));
    SHOW(inotify_add_watch(fd, "/etc/passwd", IN_OPEN | IN_ONLYDIR));
    SHOW(inotify_add_watch(fd, "watched", IN_OPEN | IN_MASK_CREATE));
    SHOW(read(fd, buf, sizeof buf));
    int file = open("watched/a", O_RDWR | O_CREAT, 0600);
    SHOW(write(file, "hello", 5));
    SHOW(pread(file, buf, 5, 0));
    SHOW(fchmod(file, 0644));
    SHOW(close(file));
    SHOW(rename("watched/a", "watched/b"));
    SHOW(mkdir("watched/c", 0700));
    SHOW(rmdir("watched/c"));
    SHOW(read(fd, buf, 8));
    SHOW(unlink("watched/b"));
    SHOW(rmdir("watched"));
    ssize_t count = read(fd, buf, sizeof buf);
    for (ssize_t at = 0; at < count;) {
        struct inotify_event *event = (void *)(buf + at);
        TELL("%d %x %d %s", event->wd, event->mask, event->cookie != 0, event->len ? event->name : "");
        at += sizeof *event + event->len;
    }
    SHOW(inotify_rm_watch(fd, wd));
    SHOW(inotify_rm_watch(0, wd));
}

// Every way from a file to an epoll instance is a wake-up: nested sets may not multiply them without end.
static void nests(void)
{
    enum { WIDTH = 14, DEPTH = 5 };
    int sets[DEPTH][WIDTH], chain[8], leaf = eventfd(0, 0);
    struct epoll_event event = {.events = EPOLLIN};
    for (int level = 0; level < DEPTH; level++) {
        int added = 0, refused = 0;
        for (int i = 0; i < WIDTH; i++) {
            sets[level][i] = epoll_create1(0);
            for (int j = 0; j < (level ? WIDTH : 1); j++)
                if (epoll_ctl(sets[level][i], EPOLL_CTL_ADD, level ? sets[level - 1][j] : leaf, &event) == 0)
                    added++;
                else
                    refused = errno;
        }
        TELL("level %d: %d added, %s", level, added, refused ? strerrorname_np(refused) : "none refused");
    }
    for (int i = 0; i < 8; i++) {
        chain[i] = epoll_create1(0);
        if (i)
            SHOW(epoll_ctl(chain[i], EPOLL_CTL_ADD, chain[i - 1], &event));
    }
    SHOW(epoll_ctl(chain[0], EPOLL_CTL_ADD, chain[2], &event));
    SHOW(epoll_ctl(chain[0], EPOLL_CTL_ADD, chain[0], &event));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {
        {"pipes", pipes}, {"fifos", fifos}, {"events", events}, {"epolls", epolls},
        {"waiting", waiting}, {"files", files}, {"splices", splices}, {"watches", watches},
        {"nests", nests},
    };
    char directory[] = "/tmp/streamsXXXXXX";
    if (argc != 2 || !mkdtemp(directory) || chdir(directory))
        return 2;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(argv[1], cases[i].name))
            cases[i].run();
    static const char *left[] = {"fifo", "file", "from", "to"};
    for (int i = 0; i < 4; i++)
        unlink(left[i]);
    return rmdir(directory);
}
