/* Random system calls with hostile arguments: random_calls SEED PROCESSES THREADS CALLS ROUNDS REWRITERS.
 *
 * Each of PROCESSES children starts THREADS threads that make CALLS random calls each, while the child's first
 * thread pokes them with signals so that no call blocks for long. What a call does to the program is no matter:
 * a child that dies is followed by another, ROUNDS of them in all. REWRITERS more threads per child change every
 * buffer, path and structure all the while: what the sentry reads twice is different the second time. */
#include "hostile.h"
#include "call_table.h"
#include <poll.h>
#include <sys/uio.h>

#define PAGE 4096
enum { RW_PAGES = 16 };

static char *writable, *read_only, *inaccessible, *unmapped;
static int thread_count, rewriter_count;
static long call_count;
static volatile int finished;

static const char *const paths[] = {
    "/", ".", "..", "/tmp", "/tmp/a", "/tmp/b", "a", "b/c", "/proc/self/mem", "/proc/self/maps", "/proc/self/fd/0",
    "/proc/self/exe", "/proc/self/root", "/proc/1/root/", "/dev/null", "/dev/zero", "/dev/ptmx", "/dev/tty", "/dev/full",
    "/sys", "/proc/sys/kernel/hostname", "/dev/pts/0", "", "/tmp/../../../..", "/proc/self/task", "/dev/shm/x",
    "/proc/self/cwd/../../x", "/proc/thread-self/attr/current", "tmpfs", "proc", "bind", "/sys/fs/cgroup", "user.x",
    "security.capability", "system.posix_acl_access", "trusted.overlay.opaque", "\xff\xfe\x80", "a\nb", "/proc/self/fdinfo/1",
};

static void fill(uint64_t *state);

static uint64_t pointer(uint64_t *state) {
    uint64_t offset = below(state, 16) * 8;
    switch (below(state, 22)) {
    case 0: return (uint64_t)unmapped + offset;
    case 1: return (uint64_t)inaccessible + offset;
    case 2: return (uint64_t)read_only + offset;
    case 3: return (uint64_t)read_only + PAGE - below(state, 64);           /* runs into the inaccessible page */
    case 4: return (uint64_t)writable + RW_PAGES * PAGE - below(state, 64); /* runs into the read-only page */
    case 5: return (uint64_t)unmapped - below(state, 32);
    case 6: return 0xffff800000000000UL + offset;
    case 7: return 0xffffffffff600000UL;
    case 8: return STUB_BASE + below(state, STUB_TEXT_SIZE);
    case 9: return SLOTS_BASE + below(state, 64 * SLOT_SIZE);
    case 10: return ~0UL - below(state, 4096);
    case 11: return (uint64_t)&call_count + offset;
    case 12: return below(state, 65536);
    case 13: return 0x7ffffffff000UL - below(state, 64);
    default: return (uint64_t)writable + below(state, RW_PAGES * PAGE / 8) * 8;
    }
}

static uint64_t value(uint64_t *state) {
    switch (below(state, 20)) {
    case 0: return 0;
    case 1: return below(state, 8);
    case 2: return below(state, 64);
    case 3: return (uint64_t)-1;
    case 4: return (uint64_t)-100; /* AT_FDCWD */
    case 5: return next_random(state);
    case 6: return 1UL << below(state, 64);
    case 7: return 0x7fffffff + below(state, 3);
    case 8: return ~0UL >> below(state, 63);
    case 9: return below(state, 65536);
    case 10: return (1UL << below(state, 32)) | (1UL << below(state, 32));
    case 11: case 12: case 13: return below(state, 24); /* a descriptor, often */
    case 14: return (uint64_t)paths[below(state, sizeof paths / sizeof *paths)];
    default: return pointer(state);
    }
}

/* Random words in the writable pages: small numbers, pointers, flags, and paths. */
static void fill(uint64_t *state) {
    uint64_t *words = (uint64_t *)writable;
    for (int i = 0; i < 24; i++) {
        uint64_t at = below(state, RW_PAGES * PAGE / 8 - 64);
        if (below(state, 4) == 0)
            strcpy((char *)&words[at], paths[below(state, sizeof paths / sizeof *paths)]);
        else
            words[at] = value(state);
    }
}

static char *room(uint64_t *state) { return writable + below(state, RW_PAGES * PAGE / 16 - 64) * 16; }

static uint64_t iovecs(uint64_t *state) {
    struct iovec *vector = (struct iovec *)room(state);
    for (int i = 0; i < 8; i++)
        vector[i] = (struct iovec){(void *)pointer(state), below(state, 4) ? below(state, 256) : value(state)};
    return (uint64_t)vector;
}

static uint64_t message(uint64_t *state) {
    struct msghdr *header = (struct msghdr *)room(state);
    *header = (struct msghdr){(void *)pointer(state), (socklen_t)below(state, 130), (void *)iovecs(state), below(state, 8),
                              (void *)pointer(state), below(state, 256), (int)below(state, 256)};
    struct cmsghdr *control = (struct cmsghdr *)room(state);
    *control = (struct cmsghdr){below(state, 64), SOL_SOCKET, (int)below(state, 4)};
    for (int i = 0; i < 6; i++) ((int *)CMSG_DATA(control))[i] = (int)below(state, 24);
    if (below(state, 3)) header->msg_control = control;
    if (below(state, 2)) header->msg_name = NULL;
    return (uint64_t)header;
}

static uint64_t socket_address(uint64_t *state) {
    struct sockaddr_un *address = (struct sockaddr_un *)room(state);
    address->sun_family = below(state, 4) ? AF_UNIX : (sa_family_t)below(state, 50);
    snprintf(address->sun_path, 100, "%c/tmp/s%d", below(state, 2) ? 0 : '/', (int)below(state, 4));
    return (uint64_t)address;
}

static uint64_t poll_array(uint64_t *state) {
    struct pollfd *array = (struct pollfd *)room(state);
    for (int i = 0; i < 8; i++) array[i] = (struct pollfd){(int)below(state, 24), (short)next_random(state), -1};
    return (uint64_t)array;
}

/* A control code of a family that somebody may answer: terminals, blocks, sockets, files. */
static uint64_t control_code(uint64_t *state) {
    static const uint32_t bases[] = {0x5400, 0x8900, 0x80045430, 0x1200, 0x6600, 0xc0045877, 0x40045431, 0xb700};
    return bases[below(state, 8)] + below(state, 128);
}

/* A likely argument of the kind a letter of call_table.h names. */
static uint64_t likely(uint64_t *state, char kind) {
    switch (kind) {
    case 'f': return below(state, 26);
    case 'd': return below(state, 3) ? (uint64_t)AT_FDCWD : below(state, 26);
    case 'p': return (uint64_t)paths[below(state, sizeof paths / sizeof *paths)];
    case 'b': return (uint64_t)room(state);
    case 'n': return below(state, 80);
    case 's': return below(state, 3) ? below(state, 40000) : 1UL << below(state, 64);
    case 'i': return below(state, 8);
    case 'x': return below(state, 3) ? 1UL << below(state, 32) | (below(state, 2) ? 1UL << below(state, 32) : 0) : 0;
    case 'o': return below(state, 3) ? below(state, 100000) : 1UL << below(state, 64);
    case 'v': return iovecs(state);
    case 'a': return socket_address(state);
    case 'A': return 2 + below(state, 110);
    case 'm': return message(state);
    case 'g': return below(state, 4) ? below(state, 60) : below(state, 2) ? 0 : (uint64_t)-1 - below(state, 60);
    case 't': {
        struct timespec *time = (struct timespec *)room(state);
        time[0] = time[1] = (struct timespec){below(state, 3) ? 0 : (time_t)value(state), (long)below(state, 1000000)};
        return (uint64_t)time;
    }
    case 'q': return poll_array(state);
    case 'S': { uint64_t signo = below(state, 66); return signo == SIGKILL || signo == SIGSTOP ? 0 : signo; }
    case 'C': return below(state, 3) ? below(state, 40) : 1024 + below(state, 20);
    case 'I': return control_code(state);
    case 'F': return below(state, 14) | below(state, 4) << 7;
    case 'P': return 0x1001 + below(state, 20);
    case 'E': return 8;
    case 'V': { uint64_t *list = (uint64_t *)room(state); list[0] = (uint64_t)paths[0]; list[below(state, 8)] = pointer(state);
                list[8] = 0; return (uint64_t)list; }
    case 'l': { int *length = (int *)room(state); *length = (int)below(state, 200); return (uint64_t)length; }
    case '1': return 1;
    case '3': return 24;
    case '0': return 0;
    }
    return value(state);
}

static void open_descriptors(void) {
    int ends[2];
    raw(SYS_close_range, 20, ~0U, 0, 0, 0, 0);
    struct sockaddr_un address = {AF_UNIX, "/tmp/socket"};
    pipe(ends);
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    open("/tmp", O_RDONLY | O_DIRECTORY);
    open("/tmp/a", O_RDWR | O_CREAT, 0666);
    open("/proc/self/maps", O_RDONLY);
    bind(socket(AF_UNIX, SOCK_DGRAM, 0), (struct sockaddr *)&address, sizeof address);
    raw(SYS_epoll_create1, 0, 0, 0, 0, 0, 0);
    raw(SYS_eventfd2, 0, 0, 0, 0, 0, 0);
    raw(SYS_timerfd_create, 1, 0, 0, 0, 0, 0);
    raw(SYS_memfd_create, (long)"m", 0, 0, 0, 0, 0);
    raw(SYS_inotify_init1, 0, 0, 0, 0, 0, 0);
    open("/dev/ptmx", O_RDWR);
}

/* Makes a call; whoever finds itself in a child that the call has made leaves. */
static void make(long nr, const long *a) {
    int may_fork = nr == SYS_clone || nr == SYS_fork || nr == SYS_vfork || nr == SYS_clone3;
    long tid = may_fork ? raw(SYS_gettid, 0, 0, 0, 0, 0, 0) : 0, pid = may_fork ? raw(SYS_getpid, 0, 0, 0, 0, 0, 0) : 0;
    raw(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (may_fork && (raw(SYS_gettid, 0, 0, 0, 0, 0, 0) != tid || raw(SYS_getpid, 0, 0, 0, 0, 0, 0) != pid))
        raw(SYS_exit_group, 0, 0, 0, 0, 0, 0);
}

/* Makes a call that looks right but for, sometimes, one argument. */
static void plausible_call(uint64_t *state) {
    size_t row = below(state, sizeof call_table / sizeof *call_table);
    const char *kinds = call_table[row].arguments;
    long arguments[6] = {0};
    for (int i = 0; i < 6 && kinds[i]; i++) arguments[i] = (long)likely(state, kinds[i]);
    if (below(state, 3) == 0) arguments[below(state, 6)] = (long)value(state);
    make(call_table[row].number, arguments);
}

static long number(uint64_t *state) {
    uint64_t kind = below(state, 40);
    if (kind == 0) return (long)(0x40000000 | below(state, 600)); /* x32 */
    if (kind == 1) return (long)next_random(state);
    if (kind == 2) return -(long)below(state, 600);
    if (kind == 3) return (long)(below(state, 501) | 1UL << 32);
    return (long)below(state, 501);
}

/* What by design ends the caller for good, or hides it from the signals that keep it going. */
static int is_excluded(long nr) { return nr == SYS_exit || nr == SYS_exit_group || nr == SYS_rt_sigreturn; }

static void *worker(void *argument) {
    uint64_t state = seeded((uint64_t)argument);
    for (long i = 0; i < call_count; i++) {
        if (i % 8 == 0) fill(&state);
        if (i % 64 == 63) open_descriptors();
        if (below(&state, 4)) {
            plausible_call(&state);
            continue;
        }
        long nr = number(&state), arguments[6];
        for (int j = 0; j < 6; j++) arguments[j] = (long)value(&state);
        if (!is_excluded(nr)) make(nr, arguments);
    }
    __atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST);
    for (;;) raw(SYS_pause, 0, 0, 0, 0, 0, 0);
    return NULL;
}

static void *rewriter(void *argument) {
    uint64_t state = seeded((uint64_t)argument);
    uint64_t *words = (uint64_t *)writable;
    for (;;) {
        fill(&state);
        for (int i = 0; i < 200; i++) {
            uint64_t at = below(&state, RW_PAGES * PAGE / 8 - 1), old = words[at];
            words[at] = below(&state, 3) ? value(&state) : old ^ 1UL << below(&state, 64);
            __asm__ volatile("" ::: "memory");
            words[at] = old;
        }
    }
    return NULL;
}

static void on_signal(int signo) { (void)signo; }

static void make_memory(void) {
    char *base = mmap(NULL, (RW_PAGES + 3) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    writable = base;
    read_only = base + RW_PAGES * PAGE;
    inaccessible = read_only + PAGE;
    unmapped = inaccessible + PAGE;
    mprotect(read_only, PAGE, PROT_READ);
    mprotect(inaccessible, PAGE, PROT_NONE);
    munmap(unmapped, PAGE);
}

static void child(uint64_t seed) {
    pthread_t threads[64];
    make_memory();
    open_descriptors();
    struct sigaction action = {.sa_handler = on_signal};
    for (int signo = 1; signo < 65; signo++)
        if (signo != SIGSEGV && signo != SIGBUS && signo != SIGILL && signo != SIGFPE && signo != SIGTRAP && signo != SIGSYS)
            sigaction(signo, &action, NULL);
    for (int i = 0; i < thread_count; i++) pthread_create(&threads[i], NULL, worker, (void *)(seed * 64 + (uint64_t)i));
    for (int i = 0; i < rewriter_count; i++) pthread_create(&threads[32 + i], NULL, rewriter, (void *)(seed * 64 + 32 + (uint64_t)i));
    long pid = raw(SYS_getpid, 0, 0, 0, 0, 0, 0);
    for (int round = 0; round < 1000 && finished < thread_count; round++) {
        struct timespec pause = {0, 10000000};
        nanosleep(&pause, NULL);
        for (long tid = pid + 1; tid <= pid + 4 * thread_count; tid++) raw(SYS_tgkill, pid, tid, SIGUSR1, 0, 0, 0);
    }
    raw(SYS_exit_group, 0, 0, 0, 0, 0, 0);
}

enum { CHILDREN_MAX = 64, PATIENCE = 300 };
static struct { pid_t pid; int age; } children[CHILDREN_MAX];

static void start(uint64_t seed) {
    for (int i = 0; i < CHILDREN_MAX; i++) {
        if (children[i].pid > 0) continue;
        children[i].age = 0;
        children[i].pid = fork();
        if (children[i].pid == 0) child(seed);
        return;
    }
}

/* Collects the dead, kills what is stopped or stuck, and gives how many are left. */
static int reap(void) {
    int left = 0;
    for (int i = 0; i < CHILDREN_MAX; i++) {
        if (children[i].pid <= 0) continue;
        if (waitpid(children[i].pid, NULL, WNOHANG)) children[i].pid = 0;
        else if (++children[i].age > PATIENCE) kill(children[i].pid, SIGKILL);
        left += children[i].pid > 0;
    }
    return left;
}

int main(int argc, char **argv) {
    if (argc < 7) return 2;
    rewriter_count = atoi(argv[6]);
    uint64_t seed = strtoull(argv[1], NULL, 0) << 16;
    int processes = atoi(argv[2]), rounds = atoi(argv[5]), started = 0, running = 0;
    thread_count = atoi(argv[3]);
    call_count = atol(argv[4]);
    long ignore[4] = {(long)SIG_IGN}, normal[4] = {(long)SIG_DFL};
    for (int signo = 1; signo < 65; signo++) raw(SYS_rt_sigaction, signo, (long)(signo == SIGCHLD ? normal : ignore), 0, 8, 0, 0);
    while (started < rounds || running > 0) {
        struct timespec pause = {0, 5000000};
        for (; running < processes && started < rounds; running++, started++) start(seed + (uint64_t)started);
        nanosleep(&pause, NULL);
        running = reap();
    }
    return 0;
}
