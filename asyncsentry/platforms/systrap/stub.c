/* The stub: the only code of ours in a guest process.
 *
 * One handler takes every trap (SIGSYS from the seccomp filter, faults, our interrupt signal) on an alternate
 * stack inside the thread's slot, publishes it to the sentry, waits for the answer (spinning a while, then parked
 * in the doorbell syscall), makes the host calls the sentry asked for, and returns through rt_sigreturn.
 *
 * Freestanding, no libc, no TLS, no vector registers, position-independent. Guest code may jump anywhere in here with
 * any registers: the filter (filter.py) allows from these addresses only calls that harm nobody else. */
#include "layout.h"

#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>

#define SIGNAL_FLAGS (0x4u | 0x08000000u | 0x04000000u) /* SA_SIGINFO | SA_ONSTACK | SA_RESTORER */

struct kernel_sigaction {
    void (*handler)(int, void *, void *);
    uint64_t flags;
    void (*restorer)(void);
    uint64_t mask;
};

struct altstack {
    void *sp;
    int flags;
    int pad;
    uint64_t size;
};

static char newborn_process_stack[4096] __attribute__((aligned(4096)));

static inline long syscall6(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static inline long syscall3(long number, long a, long b, long c) { return syscall6(number, a, b, c, 0, 0, 0); }

static void die(void) __attribute__((noreturn));
static void die(void) {
    for (;;) syscall3(__NR_exit_group, 127, 0, 0);
}

static inline struct control *control_of(uintptr_t address_in_slot) {
    return (struct control *)((address_in_slot & ~(SLOT_SIZE - 1)) + ALTSTACK_SIZE);
}

static inline uint64_t cycles(void) { return __builtin_ia32_rdtsc(); }

/* Waits for the sentry's answer. The sentry clears spin_usable before it sleeps and then looks at the state once
 * more, and we publish the state before we look at spin_usable: one of the two sees the other. */
static void wait_for_answer(struct control *control) {
    __atomic_store_n(&control->state, SLOT_TRAPPED, __ATOMIC_SEQ_CST);
    uint64_t end = cycles() + control->spin_cycles;
    while (__atomic_load_n(&control->spin_usable, __ATOMIC_SEQ_CST)) {
        if (__atomic_load_n(&control->state, __ATOMIC_ACQUIRE) == SLOT_ANSWERED) return;
        if (cycles() > end) break;
        __builtin_ia32_pause();
    }
    while (__atomic_load_n(&control->state, __ATOMIC_ACQUIRE) != SLOT_ANSWERED) {
        long answer = syscall3(DOORBELL_NR, (long)control, 0, 0);
        if (answer == -38) die(); /* ENOSYS: the sentry is gone */
        if (answer == BELL_SLEEP) syscall6(__NR_futex, (long)&control->state, 0 /* FUTEX_WAIT */, SLOT_TRAPPED, 0, 0, 0);
    }
}

#pragma GCC visibility push(hidden)
extern void return_to_guest(uint64_t frame) __attribute__((noreturn));
extern void restore(void);
extern long clone_thread(long flags, uint64_t stack, void *start);
#pragma GCC visibility pop
__asm__(
    ".globl restore, return_to_guest, clone_thread\n.hidden restore, return_to_guest, clone_thread\n"
    "return_to_guest: mov %rdi, %rsp\n" /* rt_sigreturn expects rsp at the ucontext */
    "restore: mov $15, %eax\n syscall\n"
    "clone_thread: mov %rdx, %r9\n xor %edx, %edx\n xor %r10d, %r10d\n xor %r8d, %r8d\n mov $56, %eax\n"
    " syscall\n test %rax, %rax\n jz 1f\n ret\n"
    "1: xor %ebp, %ebp\n mov %rsp, %rdi\n jmp *%r9\n"
    /* Never reached: the ptrace platform steps a tracee over this one instruction, found by its bytes. */
    "lock cmpxchg %edx, (%rdi)\n");

static void handler(int signo, void *info, void *frame);

static void serve(struct control *control);

/* A thread or process that has just come to be: no frame yet; the sentry writes one into the slot. */
static void enter(struct control *control) __attribute__((noreturn));
static void enter(struct control *control) {
    struct altstack stack = {(char *)control - ALTSTACK_SIZE, 0, 0, ALTSTACK_SIZE};
    if (syscall3(__NR_sigaltstack, (long)&stack, 0, 0)) die();
    control->phase = PHASE_NEWBORN;
    control->spin_usable = 0;
    serve(control);
    return_to_guest(control->frame);
}

static void newborn_thread(uint64_t stack) __attribute__((noreturn));
static void newborn_thread(uint64_t stack) { enter(control_of(stack - 1)); }

static long map_slots(uint64_t address, int descriptor) {
    long result = syscall6(__NR_mmap, (long)address, CHUNK_SIZE, 3, 0x11 /* MAP_SHARED | MAP_FIXED */, descriptor, 0);
    if (result != (long)address) return result;
    return syscall3(__NR_madvise, (long)address, CHUNK_SIZE, 10 /* MADV_DONTFORK */);
}

static void newborn_process(uint64_t stack) __attribute__((noreturn));
static void newborn_process(uint64_t stack) {
    (void)stack;
    if (syscall3(__NR_prctl, PR_SET_PDEATHSIG, 9, 0)) die();
    if (map_slots(SLOTS_BASE, LENT_SLOTS_FD)) die();
    syscall3(__NR_close, LENT_SLOTS_FD, 0, 0);
    enter(control_of(SLOTS_BASE));
}

static long run_call(struct host_call *call) {
    const uint64_t *a = call->arguments;
    switch (call->number) {
    case CALL_FORK:
        return clone_thread((long)a[0], (uint64_t)newborn_process_stack + sizeof newborn_process_stack, newborn_process);
    case CALL_CLONE:
        return clone_thread((long)a[0], a[1], newborn_thread);
    case CALL_COMPARE_EXCHANGE: {
        uint32_t expected = (uint32_t)a[1];
        __atomic_compare_exchange_n((uint32_t *)a[0], &expected, (uint32_t)a[2], 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        return expected;
    }
    case __NR_mmap:
        if (a[0] >= SLOTS_BASE) return map_slots(a[0], LENT_SLOTS_FD); /* one more chunk of slots */
        break;
    }
    return syscall6((long)call->number, (long)a[0], (long)a[1], (long)a[2], (long)a[3], (long)a[4], (long)a[5]);
}

static int run_calls(struct control *control) {
    uint32_t count = control->call_count;
    for (uint32_t i = 0; i < count && i < MAX_CALLS; i++) {
        struct host_call *call = &control->calls[i];
        call->result = run_call(call);
        if (call->lends_descriptor) syscall3(__NR_close, (long)call->arguments[4], 0, 0);
        control->calls_done = i + 1;
        /* -4095…-1 are errors; compare_exchange gives an unsigned 32-bit word and never fails. */
        if (call->result < 0 && call->result >= -4095) return 0;
    }
    return 1;
}

/* Publishes the trap and does what the sentry says until it says to go on. */
static void serve(struct control *control) {
    for (;;) {
        wait_for_answer(control);
        control->phase = PHASE_CALLED;
        control->calls_done = 0;
        int succeeded = run_calls(control);
        if (succeeded && control->action == ACTION_RESUME) break;
    }
    __atomic_store_n(&control->state, SLOT_RUNNING, __ATOMIC_RELEASE);
}

static void handler(int signo, void *info, void *frame) {
    (void)info;
    struct control *control = control_of((uintptr_t)frame);
    control->signo = (uint32_t)signo;
    control->frame = (uint64_t)frame;
    control->phase = PHASE_TRAP;
    serve(control);
}

/* The zygote: the first process, from which all others are forked -------------------------------------------------- */

static char zygote_stack[4096] __attribute__((aligned(4096), used));

static void drop_capabilities(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    if (syscall3(__NR_capset, (long)&header, (long)none, 0)) die();
}

static void catch_signals(void) {
    static const unsigned char caught[] = {4 /* ILL */, 5 /* TRAP */, 7 /* BUS */, 8 /* FPE */, 11 /* SEGV */,
                                           31 /* SYS */, INTERRUPT_SIGNAL};
    struct kernel_sigaction action = {handler, SIGNAL_FLAGS, restore, ~0UL};
    for (unsigned i = 0; i < sizeof caught; i++)
        if (syscall6(__NR_rt_sigaction, caught[i], (long)&action, 0, 8, 0, 0)) die();
}

/* The sentry has assembled the filter into the slot after the zygote's own: a sock_fprog with its array behind it. */
static void install_filter(void) {
    struct sock_fprog *program = (struct sock_fprog *)(SLOTS_BASE + SLOT_SIZE);
    program->filter = (struct sock_filter *)(program + 1);
    if (syscall6(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)) die();
    if (syscall3(__NR_seccomp, SECCOMP_SET_MODE_FILTER,
                 SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, (long)program) != LISTENER_FD)
        die();
}

/* Runs on zygote_stack; host_stack is where execve(2) left the stack pointer. */
__attribute__((used)) static void zygote(uint64_t host_stack) {
    if (syscall3(__NR_prctl, PR_SET_PDEATHSIG, 9, 0)) die();
    drop_capabilities();
    /* The sentry switched address randomisation off for us, so the stack ends at the end of user space. */
    uint64_t stack_low = (host_stack & ~4095UL) - (1UL << 18);
    if (syscall3(__NR_munmap, (long)stack_low, (long)(USER_END - stack_low), 0)) die();
    if (map_slots(SLOTS_BASE, CHUNK_FD)) die();
    syscall3(__NR_close, CHUNK_FD, 0, 0);
    catch_signals();
    struct control *control = control_of(SLOTS_BASE);
    struct altstack stack = {(void *)SLOTS_BASE, 0, 0, ALTSTACK_SIZE};
    if (syscall3(__NR_sigaltstack, (long)&stack, 0, 0)) die();
    control->spin_usable = 0;
    install_filter();
    syscall3(__NR_close, READY_FD, 0, 0); /* end of file tells the sentry to fetch the listener */
    syscall3(TEMPLATE_NR, 0, 0, 0);       /* traps; the handler serves the sentry for ever */
    die();
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n lea zygote_stack+4096(%rip), %rsp\n xor %ebp, %ebp\n call zygote\n hlt\n");
