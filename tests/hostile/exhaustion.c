/* Taking all there is of something: exhaustion CASE. Exits with 0 once it has been refused more, or enough is enough. */
#include "hostile.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/timerfd.h>

static void raise_descriptors(void) {
    struct rlimit limit = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &limit);
}
static void descriptors(void) {
    raise_descriptors();
    for (int i = 0; i < 60000; i++)
        if (open("/dev/null", O_RDONLY) < 0) return;
}
static void host_files(void) { /* each of these is a descriptor of the sentry's, too */
    char name[64];
    raise_descriptors();
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "/tmp/%d", i);
        int fd = open(name, O_RDWR | O_CREAT, 0600);
        if (fd < 0) return;
        if (ftruncate(fd, 1 << 20) || mmap(NULL, 4096, 3, MAP_SHARED, fd, 0) == MAP_FAILED) return;
    }
}
static void memfds(void) {
    raise_descriptors();
    for (int i = 0; i < 30000; i++) {
        int fd = (int)raw(SYS_memfd_create, (long)"m", 0, 0, 0, 0, 0);
        if (fd < 0) return;
        if (mmap(NULL, 4096, 3, MAP_SHARED, fd, 0) == MAP_FAILED || ftruncate(fd, 1 << 20)) return;
    }
}
static void pipes_and_sockets(void) {
    int ends[2];
    static char block[65536];
    raise_descriptors();
    for (int i = 0; i < 5000; i++) {
        if (pipe2(ends, O_NONBLOCK)) return;
        fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
        while (write(ends[1], block, sizeof block) > 0) {}
        if (socketpair(AF_UNIX, i % 2 ? SOCK_STREAM : SOCK_DGRAM, 0, ends)) return;
        int size = 1 << 30;
        setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        while (send(ends[0], block, sizeof block, MSG_DONTWAIT) > 0) {}
    }
}
static void fork_bomb(void) { for (;;) if (fork() < 0) _exit(0); }
static void bomb(void) {
    if (fork() == 0) fork_bomb();
    sleep(2);
    kill(-1, SIGKILL);
}
static void *sleeper(void *unused) { for (;;) pause(); return unused; }
static void threads(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 65536);
    for (int i = 0; i < 5000; i++)
        if (pthread_create(&thread, &attributes, sleeper, NULL)) return;
    _exit(1);
}
static void memory(void) { /* until it is refused, or we are killed: both will do */
    for (;;) {
        char *more = mmap(NULL, 16 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (more == MAP_FAILED) return;
        memset(more, 1, 16 << 20);
    }
}
static void shared_memory(void) {
    for (;;) {
        int id = shmget(IPC_PRIVATE, 16 << 20, 0600);
        if (id < 0) return;
        char *more = shmat(id, NULL, 0);
        if (more == (void *)-1) return;
        memset(more, 1, 16 << 20);
    }
}
static void mappings(void) {
    for (int i = 0; i < 70000; i++)
        if (mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) return;
}
static void fill(const char *name) {
    static char block[1 << 20];
    int fd = open(name, O_RDWR | O_CREAT, 0600);
    memset(block, 1, sizeof block);
    while (write(fd, block, sizeof block) > 0) {}
    if (posix_fallocate(fd, 0, 1L << 45) == 0) _exit(1);
    unlink(name);
}
static void full_tmpfs(void) { fill("/dev/shm/x"); }
static void full_root(void) { fill("/root/x"); }
static void many_files(void) {
    char name[64];
    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "/dev/shm/f%d", i);
        int fd = open(name, O_RDWR | O_CREAT, 0600);
        if (fd < 0) return;
        close(fd);
    }
}
static void deep_directories(void) {
    chdir("/tmp");
    for (int i = 0; i < 3000; i++)
        if (mkdir("d", 0700) || chdir("d")) break;
    char path[65536];
    getcwd(path, sizeof path);
    open("../../../x", O_CREAT | O_RDWR, 0600);
    readlink("/proc/self/cwd", path, sizeof path);
    for (int i = 0; i < 3001; i++) { if (chdir("..") || rmdir("d")) { unlink("x"); } }
}
static void link_loops(void) {
    char path[8192], *end = path;
    symlink("/tmp/l2", "/tmp/l1");
    symlink("/tmp/l1", "/tmp/l2");
    symlink("l3/l3/l3/l3/l3/l3/l3/l3", "/tmp/l3");
    if (open("/tmp/l1", O_RDONLY) >= 0 || errno != ELOOP) _exit(1);
    if (open("/tmp/l3/x", O_RDONLY) >= 0 || errno != ELOOP) _exit(2);
    symlink(".", "/tmp/dot");
    end += sprintf(end, "/tmp");
    while (end - path < 4000) end += sprintf(end, "/dot");
    if (open(path, O_RDONLY) >= 0 || errno != ELOOP) _exit(3);
    memset(path, 'x', sizeof path - 1);
    path[0] = '/';
    if (open(path, O_RDONLY) >= 0 || errno != ENAMETOOLONG) _exit(4);
}
static void huge_arguments(void) {
    static char *list[200001];
    static char text[131072 + 16];
    memset(text, 'x', 131072);
    for (int i = 0; i < 200000; i++) list[i] = text;
    execve("/bin/hello", list, NULL);
    if (errno != E2BIG) _exit(1);
    list[1] = NULL;
    execve("/bin/hello", list, NULL);
    if (errno != E2BIG) _exit(2);
    for (int i = 0; i < 200000; i++) list[i] = "";
    execve("/bin/hello", list, list);
}
static void timers(void) {
    raise_descriptors();
    struct itimerspec often = {{0, 100000}, {0, 100000}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int i = 0; i < 20000; i++) {
        int id;
        if (raw(SYS_timer_create, i % 2, (long)&event, (long)&id, 0, 0, 0)) break;
        raw(SYS_timer_settime, id, 0, (long)&often, 0, 0, 0);
    }
    for (int i = 0; i < 3000; i++) {
        int fd = timerfd_create(CLOCK_MONOTONIC, 0);
        if (fd < 0) break;
        timerfd_settime(fd, 0, &often, NULL);
    }
    sleep(1);
}
static void watches(void) {
    int fd = inotify_init1(IN_NONBLOCK);
    char name[64];
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "/tmp/w%d", i);
        close(open(name, O_CREAT | O_RDWR, 0600));
        if (inotify_add_watch(fd, name, IN_ALL_EVENTS) < 0) break;
        unlink(name);
    }
    for (int i = 0; i < 40000; i++) close(open("/tmp/w", O_CREAT | O_RDWR, 0600)), unlink("/tmp/w");
    for (int i = 0; i < 500 && inotify_init1(0) >= 0; i++) {}
}
static void nested_epolls(void) {
    int inner = eventfd(1, 0), all[200];
    struct epoll_event event = {EPOLLIN, {0}};
    for (int i = 0; i < 200; i++) {
        all[i] = epoll_create1(0);
        epoll_ctl(all[i], EPOLL_CTL_ADD, inner, &event);
        for (int j = 0; j < i; j++) epoll_ctl(all[i], EPOLL_CTL_ADD, all[j], &event);
        inner = all[i];
    }
    for (int i = 0; i < 200; i++) { /* loops must be refused */
        if (!epoll_ctl(all[0], EPOLL_CTL_ADD, all[i], &event)) _exit(1);
        epoll_wait(all[i], &event, 1, 0);
    }
}
static void *own_memory(void *unused) { return unused; }
static void signals(void) {
    sigset_t all;
    union sigval value = {0};
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int i = 0; i < 200000; i++)
        if (sigqueue(getpid(), SIGRTMIN + i % 20, value)) return;
    own_memory(NULL);
}
static void rights_in_flight(void) {
    raise_descriptors();
    int ends[2], sent[200];
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    for (int i = 0; i < 200; i++) sent[i] = ends[i % 2];
    for (int round = 0; round < 3000; round++) {
        char byte = 0, space[CMSG_SPACE(sizeof sent)];
        struct iovec bytes = {&byte, 1};
        struct msghdr message = {0, 0, &bytes, 1, space, sizeof space, 0};
        struct cmsghdr *control = CMSG_FIRSTHDR(&message);
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = CMSG_LEN(sizeof sent);
        memcpy(CMSG_DATA(control), sent, sizeof sent);
        if (sendmsg(ends[0], &message, MSG_DONTWAIT) < 0) return;
    }
}
static void terminals(void) {
    raise_descriptors();
    static char block[1 << 20];
    for (int i = 0; i < 5000; i++) {
        int fd = open("/dev/ptmx", O_RDWR | O_NONBLOCK);
        if (fd < 0) break;
        write(fd, block, i ? 64 : sizeof block);
    }
}
static void locks(void) {
    int fd = open("/tmp/locked", O_RDWR | O_CREAT, 0600);
    for (int i = 0; i < 5000; i++) {
        struct flock lock = {i % 2 ? F_WRLCK : F_RDLCK, SEEK_SET, i * 2, 1, 0};
        if (fcntl(fd, F_SETLK, &lock)) return;
    }
}

static const struct { const char *name; void (*run)(void); } cases[] = {
    {"descriptors", descriptors}, {"host_files", host_files}, {"memfds", memfds}, {"pipes_and_sockets", pipes_and_sockets},
    {"bomb", bomb}, {"threads", threads}, {"memory", memory}, {"shared_memory", shared_memory}, {"mappings", mappings},
    {"full_tmpfs", full_tmpfs}, {"full_root", full_root}, {"many_files", many_files},
    {"deep_directories", deep_directories}, {"link_loops", link_loops}, {"huge_arguments", huge_arguments},
    {"timers", timers}, {"watches", watches}, {"nested_epolls", nested_epolls}, {"signals", signals},
    {"rights_in_flight", rights_in_flight}, {"terminals", terminals}, {"locks", locks},
};

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(cases[i].name, argv[1])) {
            cases[i].run();
            return 0;
        }
    return 2;
}
