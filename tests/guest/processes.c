/* Processes, threads, futexes and identities as a program sees them. Each case returns 0, or the line it failed at.
 * Nothing here forks without bound: every child exits or is waited for. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #what, errno); return 1; } } while (0)

extern char **environ;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int counter, go;
static pthread_mutex_t *shared;

static int status_of(pid_t pid) { int status; return waitpid(pid, &status, 0) == pid ? status : -1; }

static void *add(void *result) {
    for (int i = 0; i < 2000; i++) { pthread_mutex_lock(&mutex); counter++; pthread_mutex_unlock(&mutex); }
    return result;
}

static int mutexes_exclude_and_joins_return(void) {
    pthread_t threads[8]; void *result;
    for (int i = 0; i < 8; i++) CHECK(!pthread_create(&threads[i], 0, add, &counter));
    for (int i = 0; i < 8; i++) CHECK(!pthread_join(threads[i], &result) && result == &counter);
    CHECK(counter == 16000);
    return 0;
}

static void *wait_for_go(void *unused) {
    pthread_mutex_lock(&mutex);
    while (!go) pthread_cond_wait(&condition, &mutex);
    counter++;
    pthread_mutex_unlock(&mutex);
    return unused;
}

static int broadcasts_wake_all(void) {
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) CHECK(!pthread_create(&threads[i], 0, wait_for_go, 0));
    usleep(5000);
    pthread_mutex_lock(&mutex); go = 1; pthread_cond_broadcast(&condition); pthread_mutex_unlock(&mutex);
    for (int i = 0; i < 8; i++) CHECK(!pthread_join(threads[i], 0));
    CHECK(counter == 8);
    return 0;
}

static int make_shared(int robust, int protocol) {
    pthread_mutexattr_t attributes;
    shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (robust) pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    CHECK(!pthread_mutexattr_setprotocol(&attributes, protocol));
    CHECK(!pthread_mutex_init(shared, &attributes));
    return 0;
}

static int processes_share_a_mutex(void) {
    pid_t children[3];
    CHECK(!make_shared(0, PTHREAD_PRIO_NONE));
    int *count = (int *)(shared + 1);
    for (int i = 0; i < 3; i++)
        if (!(children[i] = fork())) {
            for (int k = 0; k < 2000; k++) { pthread_mutex_lock(shared); ++*count; pthread_mutex_unlock(shared); }
            _exit(0);
        }
    for (int i = 0; i < 3; i++) CHECK(status_of(children[i]) == 0);
    CHECK(*count == 6000);
    return 0;
}

static void *die_holding(void *unused) { pthread_mutex_lock(shared); return unused; }

static int dead_owners_are_noticed(void) {
    pthread_t thread;
    for (int protocol = PTHREAD_PRIO_NONE; protocol <= PTHREAD_PRIO_INHERIT; protocol++) {
        CHECK(!make_shared(1, protocol));
        CHECK(!pthread_create(&thread, 0, die_holding, 0) && !pthread_join(thread, 0));
        CHECK(pthread_mutex_lock(shared) == EOWNERDEAD);
        pthread_mutex_consistent(shared); pthread_mutex_unlock(shared);
        pid_t child = fork();
        if (!child) { pthread_mutex_lock(shared); usleep(20000); _exit(5); }
        usleep(5000);
        CHECK(pthread_mutex_lock(shared) == EOWNERDEAD);
        pthread_mutex_consistent(shared); pthread_mutex_unlock(shared);
        CHECK(status_of(child) == 5 << 8);
    }
    return 0;
}

static void *hold(void *unused) { pthread_mutex_lock(shared); usleep(20000); pthread_mutex_unlock(shared); return unused; }

static int priority_inheriting_locks_are_handed_over(void) {
    pthread_t threads[4]; struct timespec deadline;
    CHECK(!make_shared(0, PTHREAD_PRIO_INHERIT));
    for (int i = 0; i < 4; i++) CHECK(!pthread_create(&threads[i], 0, hold, 0));
    usleep(5000);
    CHECK(pthread_mutex_trylock(shared) == EBUSY);
    clock_gettime(CLOCK_REALTIME, &deadline);
    CHECK(pthread_mutex_timedlock(shared, &deadline) == ETIMEDOUT);
    for (int i = 0; i < 4; i++) CHECK(!pthread_join(threads[i], 0));
    CHECK(!pthread_mutex_lock(shared) && !pthread_mutex_unlock(shared));
    return 0;
}

static int children_report_how_they_ended(void) {
    siginfo_t info; int status; pid_t child;
    if (!(child = fork())) _exit(7);
    CHECK(!waitid(P_PID, child, &info, WEXITED | WNOWAIT) && info.si_code == CLD_EXITED && info.si_status == 7);
    CHECK(status_of(child) == 7 << 8);
    if (!(child = fork())) { raise(SIGTERM); _exit(0); }
    status = status_of(child); CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    if (!(child = fork())) { for (;;) pause(); }
    kill(child, SIGSTOP); CHECK(waitpid(child, &status, WUNTRACED) == child && WSTOPSIG(status) == SIGSTOP);
    CHECK(waitpid(child, &status, WUNTRACED | WNOHANG) == 0);
    kill(child, SIGCONT); CHECK(waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status));
    kill(child, SIGKILL); CHECK(!waitid(P_PID, child, &info, WEXITED) && info.si_code == CLD_KILLED);
    CHECK(waitpid(-1, &status, 0) == -1 && errno == ECHILD);
    return 0;
}

static int ignoring_sigchld_leaves_no_zombies(void) {
    signal(SIGCHLD, SIG_IGN);
    if (!fork()) _exit(0);
    CHECK(wait(0) == -1 && errno == ECHILD);
    return 0;
}

static int subreapers_adopt(void) {
    int pipes[2]; char byte; pid_t me = getpid(), child;
    CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1) && !pipe(pipes));
    if (!(child = fork())) {
        if (!fork()) { read(pipes[0], &byte, 1); _exit(getppid() == me ? 11 : 12); }
        _exit(0);
    }
    CHECK(status_of(child) == 0 && write(pipes[1], "x", 1) == 1);
    int status; CHECK(wait(&status) > 0 && status == 11 << 8);
    return 0;
}

static int spawned_programs_run_and_failures_are_told(void) {
    char *argv[] = {"true", "--as-child", 0}; pid_t child;
    CHECK(!posix_spawn(&child, "/proc/self/exe", 0, 0, argv, environ));
    CHECK(status_of(child) == 23 << 8);
    CHECK(posix_spawn(&child, "/nonexistent", 0, 0, argv, environ) == ENOENT);
    return 0;
}

static void *sleep_for_ever(void *unused) { for (;;) pause(); return unused; }
static void *spin_for_ever(void *unused) { for (volatile long i = 0;; i++) ; return unused; }
static void *exec_self(void *unused) {
    char *argv[] = {"x", "--as-child", 0};
    execv("/proc/self/exe", argv);
    return unused;
}

static int exec_and_exit_end_all_other_threads(void) {
    for (int execs = 0; execs < 2; execs++) {
        pid_t child = fork(); pthread_t thread;
        if (!child) {
            pthread_create(&thread, 0, sleep_for_ever, 0);
            pthread_create(&thread, 0, spin_for_ever, 0);
            usleep(1000);
            if (!execs) exit(9);
            pthread_create(&thread, 0, exec_self, 0);
            pthread_join(thread, 0);
            _exit(1);
        }
        CHECK(status_of(child) == (execs ? 23 : 9) << 8);
    }
    return 0;
}

static int pidfds_turn_readable(void) {
    siginfo_t info; pid_t child = fork();
    if (!child) { usleep(5000); _exit(9); }
    struct pollfd item = {syscall(SYS_pidfd_open, child, 0), POLLIN, 0};
    CHECK(item.fd >= 0 && poll(&item, 1, 5000) == 1);
    CHECK(!waitid(P_PIDFD, item.fd, &info, WEXITED) && info.si_status == 9);
    return 0;
}

static int identities_only_go_down(void) {
    if (geteuid()) return 0;
    pid_t child = fork();
    if (!child) {
        uid_t real, effective, saved;
        CHECK(!setresgid(5, 5, 5) && !setresuid(5, 6, 7));
        CHECK(!getresuid(&real, &effective, &saved) && real == 5 && effective == 6 && saved == 7);
        CHECK(setuid(0) == -1 && errno == EPERM);
        CHECK(!seteuid(7) && geteuid() == 7);
        CHECK(prctl(PR_GET_DUMPABLE) == 0);
        _exit(0);
    }
    CHECK(status_of(child) == 0);
    return 0;
}

static int limits_bind(void) {
    struct rlimit limit;
    CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = 5; CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
    int fd, last = -1;
    while ((fd = dup(0)) >= 0 && fd < 64) last = fd;
    CHECK(fd == -1 && errno == EMFILE && last == 4);
    return 0;
}

static volatile sig_atomic_t trapped;
static void on_sigsys(int signo, siginfo_t *info, void *context) { (void)signo; (void)context; trapped = info->si_syscall; }

static int confine(int number, unsigned action) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {4, filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

static int filters_confine(void) {
    struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO}; pid_t child;
    if (!(child = fork())) { prctl(PR_SET_SECCOMP, 1); syscall(SYS_getpid); syscall(SYS_exit, 5); }
    CHECK(status_of(child) == SIGKILL);
    CHECK(!confine(SYS_getpgid, SECCOMP_RET_ERRNO | 99));
    CHECK(syscall(SYS_getpgid, 0) == -1 && errno == 99);
    sigaction(SIGSYS, &action, 0);
    CHECK(!confine(SYS_getsid, SECCOMP_RET_TRAP));
    syscall(SYS_getsid, 0); CHECK(trapped == SYS_getsid);
    if (!(child = fork())) { confine(SYS_getuid, SECCOMP_RET_KILL_PROCESS); syscall(SYS_getuid); _exit(0); }
    int status = status_of(child); CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    return 0;
}

static const struct { const char *name; int (*run)(void); } cases[] = {
    {"mutexes_exclude_and_joins_return", mutexes_exclude_and_joins_return},
    {"broadcasts_wake_all", broadcasts_wake_all},
    {"processes_share_a_mutex", processes_share_a_mutex},
    {"dead_owners_are_noticed", dead_owners_are_noticed},
    {"priority_inheriting_locks_are_handed_over", priority_inheriting_locks_are_handed_over},
    {"children_report_how_they_ended", children_report_how_they_ended},
    {"ignoring_sigchld_leaves_no_zombies", ignoring_sigchld_leaves_no_zombies},
    {"subreapers_adopt", subreapers_adopt},
    {"spawned_programs_run_and_failures_are_told", spawned_programs_run_and_failures_are_told},
    {"exec_and_exit_end_all_other_threads", exec_and_exit_end_all_other_threads},
    {"pidfds_turn_readable", pidfds_turn_readable},
    {"identities_only_go_down", identities_only_go_down},
    {"limits_bind", limits_bind},
    {"filters_confine", filters_confine},
};

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "--as-child")) return getpid() == syscall(SYS_gettid) ? 23 : 24;
    for (size_t i = 0; argc == 2 && i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(argv[1], cases[i].name)) return cases[i].run();
    return 125;
}
