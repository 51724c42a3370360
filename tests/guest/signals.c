/* Signals and timers as a real program sees them. One case per run: `signals CASE`; silence and 0 mean success. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <xmmintrin.h>

static int failures;
#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            printf("%s:%d: %s (errno %d)\n", __func__, __LINE__, #condition, errno); \
            failures++; \
        } \
    } while (0)

#define MS 1000000L

static volatile int signo, code, count;
static void *volatile address;
static volatile long trapno, fault_error, cr2;
static sigjmp_buf escape;

static void note(int number, siginfo_t *info, void *context) {
    const ucontext_t *uc = context;
    signo = number;
    code = info->si_code;
    address = info->si_addr;
    count++;
    trapno = uc->uc_mcontext.gregs[REG_TRAPNO];
    fault_error = uc->uc_mcontext.gregs[REG_ERR];
    cr2 = uc->uc_mcontext.gregs[REG_CR2];
}

static void note_and_leave(int number, siginfo_t *info, void *context) {
    note(number, info, context);
    siglongjmp(escape, 1);
}

static void catch(int number, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {0};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | flags;
    signo = code = count = 0;
    sigaction(number, &action, 0);
}

static long now_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000 * MS + time.tv_nsec;
}

static void start_timer(int which, long first_us, long interval_us) {
    struct itimerval value = {{0, interval_us}, {0, first_us}};
    setitimer(which, &value, 0);
}

static void faults(void) {
    for (int i = 0; i < 32; i++)
        if (i == SIGSEGV || i == SIGFPE || i == SIGILL) catch(i, note_and_leave, 0);
    if (!sigsetjmp(escape, 1)) *(volatile int *)0x1234 = 1;
    CHECK(signo == SIGSEGV && code == SEGV_MAPERR && address == (void *)0x1234);
    CHECK(trapno == 14 && cr2 == 0x1234 && fault_error & 2);
    void *page = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!sigsetjmp(escape, 1)) *(volatile int *)page = 1;
    CHECK(signo == SIGSEGV && code == SEGV_ACCERR && address == page);
    volatile int zero = 0;
    if (!sigsetjmp(escape, 1)) zero = 100 / zero;
    CHECK(signo == SIGFPE && code == FPE_INTDIV);
    if (!sigsetjmp(escape, 1)) __asm__ volatile("ud2");
    CHECK(signo == SIGILL && code == ILL_ILLOPN);
    if (!sigsetjmp(escape, 1)) __asm__ volatile("hlt");
    CHECK(signo == SIGSEGV && code == SI_KERNEL && trapno == 13);
    catch(SIGTRAP, note, 0);
    __asm__ volatile("int3");
    CHECK(signo == SIGTRAP && code == SI_KERNEL);
}

static void spoil_vectors(int number, siginfo_t *info, void *context) {
    note(number, info, context);
    CHECK(_mm_getcsr() == 0x1f80);
    __asm__ volatile("xorps %%xmm7, %%xmm7\n fldpi" ::: "xmm7");
}

static void vectors_survive(void) {
    catch(SIGUSR1, spoil_vectors, 0);
    double before[2] = {1, 2}, after[2];
    long result;
    _mm_setcsr(0x7f80);
    __asm__ volatile("movupd %2, %%xmm7\n mov $62, %%eax\n syscall\n movupd %%xmm7, %1"
                     : "=&a"(result), "=m"(after)
                     : "m"(before), "D"((long)getpid()), "S"((long)SIGUSR1)
                     : "rcx", "r11", "xmm7", "memory");
    CHECK(_mm_getcsr() == 0x7f80);
    _mm_setcsr(0x1f80);
    CHECK(result == 0 && count == 1 && after[0] == 1 && after[1] == 2);
}

static volatile int depth;
static void recurse(int level) {
    volatile char room[4096];
    room[0] = (char)level;
    depth = level;
    recurse(level + 1);
    depth += room[0];
}

static void stack_overflow(void) {
    static char alternate[16384] __attribute__((aligned(16)));
    stack_t stack = {alternate, 0, sizeof alternate};
    CHECK(sigaltstack(&stack, 0) == 0);
    catch(SIGSEGV, note_and_leave, SA_ONSTACK);
    if (!sigsetjmp(escape, 1)) recurse(0);
    CHECK(signo == SIGSEGV && depth > 1000);
    CHECK(sigaltstack(0, &stack) == 0 && stack.ss_flags == 0);
}

static volatile int values[8], value_count;
static void keep_value(int number, siginfo_t *info, void *context) {
    note(number, info, context);
    values[value_count++] = info->si_value.sival_int;
}

static void real_time_order(void) {
    struct sigaction action = {0};
    action.sa_sigaction = keep_value;
    action.sa_flags = SA_SIGINFO;
    sigfillset(&action.sa_mask);
    sigaction(SIGRTMIN + 2, &action, 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 2);
    sigprocmask(SIG_BLOCK, &set, 0);
    for (int i = 0; i < 5; i++) CHECK(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = i}) == 0);
    CHECK(value_count == 0);
    sigprocmask(SIG_UNBLOCK, &set, 0);
    CHECK(value_count == 5);
    for (int i = 0; i < 5; i++) CHECK(values[i] == i);
}

static void restarts(void) {
    int ends[2];
    char byte;
    CHECK(pipe(ends) == 0);
    catch(SIGALRM, note, SA_RESTART);
    pid_t child = fork();
    if (!child) {
        usleep(60000);
        _exit(write(ends[1], "x", 1) != 1);
    }
    start_timer(ITIMER_REAL, 10000, 10000); /* again and again: one of them finds us in the call */
    CHECK(read(ends[0], &byte, 1) == 1 && count >= 1);
    catch(SIGALRM, note, 0);
    CHECK(read(ends[0], &byte, 1) == -1 && errno == EINTR);
    while (waitpid(child, 0, 0) == -1 && errno == EINTR);
    struct timespec time = {0, 500 * MS}, left = {0};
    CHECK(nanosleep(&time, &left) == -1 && errno == EINTR && left.tv_nsec > 10 * MS && left.tv_nsec < 500 * MS);
    start_timer(ITIMER_REAL, 0, 0);
}

static void a_stop_does_not_shorten_a_sleep(void) {
    pid_t child = fork();
    if (!child) {
        struct timespec time = {0, 80 * MS};
        long start = now_ns(CLOCK_MONOTONIC);
        int result = nanosleep(&time, 0);
        _exit(result != 0 || now_ns(CLOCK_MONOTONIC) - start < 80 * MS);
    }
    usleep(20000);
    int status;
    kill(child, SIGSTOP);
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    kill(child, SIGCONT);
    CHECK(waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status));
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static int fate_of(void (*deed)(void)) {
    int status = -1;
    pid_t child = fork();
    if (!child) {
        deed();
        _exit(99);
    }
    waitpid(child, &status, 0);
    return status;
}

static void write_nowhere(void) { *(volatile int *)0 = 1; }
static void spin_and_be_killed(void) {
    if (!fork()) {
        usleep(20000);
        kill(getppid(), SIGSTOP);
        kill(getppid(), SIGKILL);
        _exit(0);
    }
    for (;;);
}

static void fates(void) {
    CHECK(fate_of(write_nowhere) == SIGSEGV);
    CHECK((fate_of(abort) & 0x7f) == SIGABRT);
    CHECK(fate_of(spin_and_be_killed) == SIGKILL);
}

static void *spin(void *stop) {
    while (!*(volatile int *)stop);
    return 0;
}

static void *await_usr2(void *result) {
    sigset_t set;
    int number;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigwait(&set, &number);
    *(volatile int *)result = number;
    return 0;
}

static void threads(void) {
    volatile int stop = 0, number = 0;
    pthread_t thread;
    catch(SIGUSR1, note, 0);
    pthread_create(&thread, 0, spin, (void *)&stop);
    pthread_kill(thread, SIGUSR1);
    for (int i = 0; i < 1000 && !count; i++) usleep(1000);
    CHECK(count == 1 && code == SI_TKILL);
    stop = 1;
    pthread_join(thread, 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, 0);
    pthread_create(&thread, 0, await_usr2, (void *)&number);
    usleep(5000);
    kill(getpid(), SIGUSR2);
    pthread_join(thread, 0);
    CHECK(number == SIGUSR2);
}

static void interval_timers(void) {
    catch(SIGALRM, note, 0);
    start_timer(ITIMER_REAL, 5000, 5000);
    for (int i = 1; i <= 5; i++) CHECK(pause() == -1 && errno == EINTR && count >= i);
    start_timer(ITIMER_REAL, 0, 0);
    catch(SIGPROF, note, SA_RESTART);
    start_timer(ITIMER_PROF, 20000, 0);
    for (long start = now_ns(CLOCK_MONOTONIC); !count && now_ns(CLOCK_MONOTONIC) - start < 3000 * MS;);
    CHECK(count == 1);
}

static void posix_timers(void) {
    timer_t timer;
    struct sigevent event = {0};
    event.sigev_signo = SIGRTMIN + 1;
    event.sigev_value.sival_int = 77;
    catch(SIGRTMIN + 1, keep_value, 0);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    struct itimerspec setting = {{0, 3 * MS}, {0, 3 * MS}};
    CHECK(timer_settime(timer, 0, &setting, 0) == 0);
    while (count < 4) pause();
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, 0);
    usleep(40000);
    int before = count;
    sigprocmask(SIG_UNBLOCK, &set, 0);
    CHECK(count > before && code == SI_TIMER && values[0] == 77);
    CHECK(timer_delete(timer) == 0 && timer_delete(timer) == -1);
}

static void *use_cpu(void *used) {
    long start = now_ns(CLOCK_THREAD_CPUTIME_ID);
    for (volatile long i = 0; i < 60000000; i++);
    *(long *)used = now_ns(CLOCK_THREAD_CPUTIME_ID) - start;
    return 0;
}

static void cpu_clocks(void) {
    long mine = 0, other = 0, start = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    pthread_t thread;
    pthread_create(&thread, 0, use_cpu, &other);
    use_cpu(&mine);
    pthread_join(thread, 0);
    long both = now_ns(CLOCK_PROCESS_CPUTIME_ID) - start;

    CHECK(mine > MS && other > MS);
    CHECK(both > (mine + other) / 10 * 7 && both < (mine + other) * 2 + 100 * MS);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {
        {"faults", faults},
        {"vectors_survive", vectors_survive},
        {"stack_overflow", stack_overflow},
        {"real_time_order", real_time_order},
        {"restarts", restarts},
        {"a_stop_does_not_shorten_a_sleep", a_stop_does_not_shorten_a_sleep},
        {"fates", fates},
        {"threads", threads},
        {"interval_timers", interval_timers},
        {"posix_timers", posix_timers},
        {"cpu_clocks", cpu_clocks},
    };
    for (unsigned i = 0; argc == 2 && i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(cases[i].name, argv[1])) {
            cases[i].run();
            return failures != 0;
        }
    return 2;
}
