/* Times system calls from inside: `calls FILE BUDGET_MS [NAME…]` prints a line "name nanoseconds" for each.
 * `calls threads N` makes N threads, prints a line when all are parked, and ends when its input does. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *path;
static int file, null_file, own_pipe[2], to_child[2], from_child[2];
static char buffer[65536];
static uint32_t word;
static char *const program[] = {"/bin/true", NULL};
static char *const environment[] = {NULL};

static void require(int succeeded, const char *what) {
    if (succeeded) return;
    perror(what);
    exit(1);
}

static void call_getppid(void) { syscall(SYS_getppid); }
static void call_pread_4k(void) { require(pread(file, buffer, 4096, 0) == 4096, "pread"); }
static void call_pread_64k(void) { require(pread(file, buffer, 65536, 0) == 65536, "pread"); }
static void call_write_null(void) { require(write(null_file, buffer, 64) == 64, "write"); }

static void call_stat(void) {
    struct stat status;
    require(!stat(path, &status), "stat");
}

static void call_open_close(void) {
    int fd = open(path, O_RDONLY);
    require(fd >= 0, "open");
    close(fd);
}

static void call_pipe(void) {
    require(write(own_pipe[1], buffer, 64) == 64, "write");
    require(read(own_pipe[0], buffer, 64) == 64, "read");
}

static void call_ping_pong(void) {
    require(write(to_child[1], buffer, 1) == 1, "write");
    require(read(from_child[0], buffer, 1) == 1, "read");
}

static void call_mmap(void) {
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(page != MAP_FAILED, "mmap");
    *(volatile char *)page = 1;
    munmap(page, 4096);
}

static void call_futex_wake(void) { syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }
static void call_signal(void) { kill(getpid(), SIGUSR1); }

static void reap(pid_t pid) {
    int status;
    require(waitpid(pid, &status, 0) == pid && !status, "waitpid");
}

static void call_fork(void) {
    pid_t pid = fork();
    if (!pid) _exit(0);
    require(pid > 0, "fork");
    reap(pid);
}

static void call_fork_exec(void) {
    pid_t pid = fork();
    if (!pid) {
        execve(program[0], program, environment);
        _exit(127);
    }
    require(pid > 0, "fork");
    reap(pid);
}

static void call_spawn(void) {
    pid_t pid;
    require(!posix_spawn(&pid, program[0], NULL, NULL, program, environment), "posix_spawn");
    reap(pid);
}

static const struct measured {
    const char *name;
    void (*call)(void);
} all[] = {
    {"getppid", call_getppid},     {"pread_4k", call_pread_4k},   {"pread_64k", call_pread_64k},
    {"write_null", call_write_null}, {"stat", call_stat},         {"open_close", call_open_close},
    {"pipe", call_pipe},           {"ping_pong", call_ping_pong}, {"mmap", call_mmap},
    {"futex_wake", call_futex_wake}, {"signal", call_signal},     {"fork", call_fork},
    {"fork_exec", call_fork_exec}, {"spawn", call_spawn},
};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static int64_t time_ns(void (*call)(void), long count) {
    int64_t start = now_ns();
    for (long i = 0; i < count; i++) call();
    return now_ns() - start;
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Median over batches of 1/16 of the budget each, so that one disturbance does not count. */
static double median_ns(void (*call)(void), int64_t budget_ns) {
    enum { BATCHES = 64 };
    double batches[BATCHES];
    int count = 0;
    long size = 1;
    call();
    while (time_ns(call, size) < budget_ns / 32 && size < 1 << 20) size *= 2;
    for (int64_t end = now_ns() + budget_ns; count < 3 || (count < BATCHES && now_ns() < end); count++)
        batches[count] = (double)time_ns(call, size) / (double)size;
    qsort(batches, (size_t)count, sizeof *batches, compare);
    return batches[count / 2];
}

static void on_signal(int signo) { (void)signo; }

static pid_t start_partner(void) {
    require(!pipe(own_pipe) && !pipe(to_child) && !pipe(from_child), "pipe");
    pid_t pid = fork();
    require(pid >= 0, "fork");
    if (pid) return pid;
    close(to_child[1]);
    char byte;
    while (read(to_child[0], &byte, 1) == 1) require(write(from_child[1], &byte, 1) == 1, "write");
    _exit(0);
}

static int wanted(const char *name, int argc, char **argv) {
    for (int i = 3; i < argc; i++)
        if (!strcmp(argv[i], name)) return 1;
    return argc <= 3;
}

static void *park(void *nothing) {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    return nothing;
}

static int park_threads(int count) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 32768);
    pthread_t thread;
    int64_t start = now_ns();
    int made = 0;
    while (made < count && !pthread_create(&thread, &small, park, NULL)) made++;
    printf("%d %.0f\n", made, (double)(now_ns() - start) / (made ? made : 1));
    fflush(stdout);
    while (read(0, buffer, sizeof buffer) > 0) continue;
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "threads")) return park_threads(atoi(argv[2]));
    if (argc < 3) return 2;
    path = argv[1];
    file = open(path, O_RDONLY);
    null_file = open("/dev/null", O_WRONLY);
    require(file >= 0 && null_file >= 0, path);
    signal(SIGUSR1, on_signal);
    pid_t partner = start_partner();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!wanted(all[i].name, argc, argv)) continue;
        printf("%s %.0f\n", all[i].name, median_ns(all[i].call, atol(argv[2]) * 1000000L));
        fflush(stdout);
    }
    close(to_child[1]);
    reap(partner);
    return 0;
}
