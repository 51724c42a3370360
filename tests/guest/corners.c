/* Corners that cut across parts of the kernel, as a program sees them. Each case returns 0, or the line it failed at.
 * The cases run in a directory of their own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #what, errno); return 1; } } while (0)
#define FAILS(what, error) CHECK((errno = 0, (long)(what) == -1) && errno == (error))

extern char **environ;
static char buffer[1 << 16];

static int copy_to(const char *from, const char *to)
{
    int in = open(from, O_RDONLY), out = open(to, O_CREAT | O_WRONLY | O_TRUNC, 0755);
    ssize_t got;
    CHECK(in >= 0 && out >= 0);
    while ((got = read(in, buffer, sizeof buffer)) > 0)
        CHECK(write(out, buffer, got) == got);
    close(in);
    close(out);
    return 0;
}

static int run(const char *path)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        execl(path, path, "exit_with_7", NULL);
        _exit(errno);
    }
    CHECK(waitpid(child, &status, 0) == child);
    return WEXITSTATUS(status);
}

static int a_running_program_cannot_be_written(void)
{
    int to_child[2], to_parent[2], status;
    CHECK(!copy_to("/proc/self/exe", "program"));
    CHECK(!pipe(to_child) && !pipe(to_parent));
    pid_t child = fork();
    if (child == 0) {
        dup2(to_child[0], 0);
        dup2(to_parent[1], 1);
        close(to_child[1]);
        execl("program", "program", "say_and_wait", NULL);
        _exit(errno);
    }
    CHECK(read(to_parent[0], buffer, 1) == 1);
    FAILS(open("program", O_WRONLY), ETXTBSY);
    FAILS(open("program", O_RDWR), ETXTBSY);
    FAILS(open("program", O_RDONLY | O_TRUNC), ETXTBSY);
    FAILS(truncate("program", 0), ETXTBSY);
    CHECK(open("program", O_RDONLY) >= 0);
    CHECK(!chmod("program", 0700) && !rename("program", "moved") && !link("moved", "program"));
    FAILS(open("program", O_WRONLY), ETXTBSY);
    CHECK(!unlink("moved"));
    close(to_child[1]);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    int fd = open("program", O_WRONLY);
    CHECK(fd >= 0);
    close(fd);
    return 0;
}

static int a_program_open_for_writing_does_not_run(void)
{
    CHECK(!copy_to("/proc/self/exe", "program"));
    CHECK(run("./program") == 7);
    int fd = open("program", O_WRONLY | O_APPEND);
    CHECK(fd >= 0);
    CHECK(run("./program") == ETXTBSY);
    int copy = dup(fd);
    close(fd);
    CHECK(run("./program") == ETXTBSY);
    void *mapped = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, open("program", O_RDONLY), 0);
    CHECK(mapped != MAP_FAILED);
    close(copy);
    CHECK(run("./program") == 7);
    return 0;
}

static int scripts_and_failed_execs_leave_no_trace(void)
{
    int fd = open("script", O_CREAT | O_WRONLY, 0755);
    CHECK(fd >= 0 && write(fd, "#!./program\n", 12) == 12);
    CHECK(run("./script") == ETXTBSY);
    close(fd);
    CHECK(!copy_to("/proc/self/exe", "program") && chmod("program", 0) == 0);
    run("./program");
    CHECK((fd = open("script", O_WRONLY)) >= 0);
    close(fd);
    CHECK((fd = open("program", O_WRONLY)) >= 0);
    close(fd);
    CHECK(!truncate("program", 100) && !chmod("program", 0755));
    CHECK(run("./program") != 7);
    CHECK((fd = open("program", O_WRONLY)) >= 0);
    return 0;
}

static int a_memfd_runs_while_open(void)
{
    int fd = memfd_create("program", 0), in = open("/proc/self/exe", O_RDONLY), status;
    ssize_t got;
    while ((got = read(in, buffer, sizeof buffer)) > 0)
        CHECK(write(fd, buffer, got) == got);
    pid_t child = fork();
    if (child == 0) {
        char *argv[] = {"program", "exit_with_7", NULL};
        fexecve(fd, argv, environ);
        _exit(errno);
    }
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
    return 0;
}

static int write_hints_are_kept_with_the_file(void)
{
    uint64_t hint = 7;
    int fd = open("file", O_CREAT | O_RDONLY, 0644), again = open("file", O_RDONLY);
    CHECK(!fcntl(fd, F_GET_RW_HINT, &hint) && hint == 0);
    hint = RWH_WRITE_LIFE_SHORT;
    CHECK(!fcntl(fd, F_SET_RW_HINT, &hint));
    CHECK(!fcntl(again, F_GET_RW_HINT, &hint) && hint == RWH_WRITE_LIFE_SHORT);
    hint = 6;
    FAILS(fcntl(fd, F_SET_RW_HINT, &hint), EINVAL);
    FAILS(fcntl(fd, F_GET_RW_HINT, 8), EFAULT);
    FAILS(fcntl(fd, F_GET_FILE_RW_HINT, &hint), EINVAL);
    CHECK(fcntl(fd, F_GETLEASE) == F_UNLCK);
    return 0;
}

static volatile sig_atomic_t signals;
static char *volatile handler_stack;

static void count_signal(int signo)
{
    signals += signo > 0;
    handler_stack = (char *)__builtin_frame_address(0);
}

static int a_frame_lets_the_stack_grow(void)
{
    enum { ROOM = 1 << 20 };
    char *low = mmap(NULL, 4 * ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *page = low + 3 * ROOM;
    CHECK(!munmap(low, 4 * ROOM));
    CHECK(mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0) == page);
    stack_t stack = {.ss_sp = page - (64 << 10), .ss_size = (64 << 10) + 512};
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_ONSTACK};
    CHECK(!sigaltstack(&stack, NULL) && !sigaction(SIGUSR1, &action, NULL));
    CHECK(!raise(SIGUSR1));
    CHECK(signals == 1 && handler_stack < page && handler_stack > page - (64 << 10));
    return 0;
}

static int signals_may_come_while_memory_changes(void)
{
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART | SA_ONSTACK};
    struct itimerval timer = {{0, 300}, {0, 300}};
    CHECK(!sigaction(SIGALRM, &action, NULL) && !setitimer(ITIMER_REAL, &timer, NULL));
    for (int round = 0; round < 20000 && signals < 100; round++) {
        char *area = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(area != MAP_FAILED);
        stack_t stack = {.ss_sp = area, .ss_size = 1 << 16}, off = {.ss_flags = SS_DISABLE};
        CHECK(!sigaltstack(&stack, NULL));
        CHECK(!mprotect(area, 1 << 15, PROT_READ));
        CHECK(!mprotect(area, 1 << 16, PROT_READ | PROT_WRITE));
        CHECK(!sigaltstack(&off, NULL));
        FAILS(mmap(area + 1, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EINVAL);
        CHECK(mremap(area, 1 << 16, 1 << 17, MREMAP_MAYMOVE) != MAP_FAILED || errno == EFAULT);
        munmap(area, 1 << 16);
    }
    CHECK(signals > 0);
    return 0;
}

static int memory_of_other_processes_takes_advice(void)
{
    char *area = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct iovec both[] = {{.iov_base = area, .iov_len = 4096}, {.iov_base = area + 4096, .iov_len = 4096}};
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    int other = syscall(SYS_pidfd_open, child, 0), self = syscall(SYS_pidfd_open, getpid(), 0), status;
    memset(area, 1, 8192);
    CHECK(syscall(SYS_process_madvise, self, both, 2, MADV_COLD, 0) == 8192);
    CHECK(syscall(SYS_process_madvise, other, both, 2, MADV_PAGEOUT, 0) == 8192);
    CHECK(area[0] == 1 && area[4096] == 1);
    FAILS(syscall(SYS_process_madvise, other, both, 2, MADV_DONTNEED, 0), EINVAL);
    FAILS(syscall(SYS_process_madvise, other, both, 2, MADV_COLD, 1), EINVAL);
    FAILS(syscall(SYS_process_madvise, 0, both, 2, MADV_COLD, 0), EBADF);
    FAILS(syscall(SYS_process_madvise, other, 8, 2, MADV_COLD, 0), EFAULT);
    both[1].iov_base = NULL;
    CHECK(syscall(SYS_process_madvise, self, both, 2, MADV_COLD, 0) == 4096);
    both[0].iov_base = NULL;
    FAILS(syscall(SYS_process_madvise, other, both, 2, MADV_COLD, 0), ENOMEM);
    FAILS(syscall(SYS_process_mrelease, other, 1), EINVAL);
    FAILS(syscall(SYS_process_mrelease, other, 0), EINVAL);
    FAILS(syscall(SYS_process_mrelease, 0, 0), EBADF);
    CHECK(!kill(child, SIGKILL));
    CHECK(waitid(P_PID, child, NULL, WEXITED | WNOWAIT) == 0);
    FAILS(syscall(SYS_process_mrelease, other, 0), ESRCH);
    CHECK(waitpid(child, &status, 0) == child);
    FAILS(syscall(SYS_process_mrelease, other, 0), ESRCH);
    return 0;
}

static int namespaces_tell_what_they_are(void)
{
    unsigned owner = 7;
    int user = open("/proc/self/ns/user", O_RDONLY), pid = open("/proc/self/ns/pid", O_RDONLY);
    int mount = open("/proc/self/ns/mnt", O_RDONLY), found = ioctl(mount, NS_GET_USERNS);
    struct stat first, second;
    CHECK(found >= 0 && !fstat(found, &first) && !fstat(user, &second) && first.st_ino == second.st_ino);
    CHECK(fcntl(found, F_GETFD) == FD_CLOEXEC);
    CHECK(ioctl(mount, NS_GET_NSTYPE) == CLONE_NEWNS && ioctl(pid, NS_GET_NSTYPE) == CLONE_NEWPID);
    FAILS(ioctl(user, NS_GET_USERNS), EPERM);
    FAILS(ioctl(pid, NS_GET_PARENT), EPERM);
    FAILS(ioctl(mount, NS_GET_PARENT), EINVAL);
    CHECK(!ioctl(user, NS_GET_OWNER_UID, &owner) && owner == 0);
    FAILS(ioctl(pid, NS_GET_OWNER_UID, &owner), EINVAL);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
} cases[] = {
    {"a_running_program_cannot_be_written", a_running_program_cannot_be_written},
    {"a_program_open_for_writing_does_not_run", a_program_open_for_writing_does_not_run},
    {"scripts_and_failed_execs_leave_no_trace", scripts_and_failed_execs_leave_no_trace},
    {"a_memfd_runs_while_open", a_memfd_runs_while_open},
    {"a_frame_lets_the_stack_grow", a_frame_lets_the_stack_grow},
    {"signals_may_come_while_memory_changes", signals_may_come_while_memory_changes},
    {"memory_of_other_processes_takes_advice", memory_of_other_processes_takes_advice},
    {"namespaces_tell_what_they_are", namespaces_tell_what_they_are},
    {"write_hints_are_kept_with_the_file", write_hints_are_kept_with_the_file},
};

static int remove_it(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    return (void)st, (void)kind, (void)where, remove(path);
}

static int run_in_a_directory(int (*run)(void))
{
    char directory[] = "/tmp/cornersXXXXXX";
    if (!mkdtemp(directory) || chdir(directory))
        return 2;
    int result = run();
    nftw(directory, remove_it, 8, FTW_DEPTH | FTW_PHYS);
    return result;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    if (!strcmp(argv[1], "exit_with_7"))
        return 7;
    if (!strcmp(argv[1], "say_and_wait"))
        return write(1, "x", 1) != 1 || read(0, buffer, 1) != 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(argv[1], cases[i].name))
            return run_in_a_directory(cases[i].run);
    return 2;
}
