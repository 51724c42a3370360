/* Attacks on what the platform keeps in a guest process, its stub and slots: stub_attacks CASE SEED [VICTIM].
 *
 * The layout is the platform's own header, as an attacker would read it from the source. A case exits with 0 unless it
 * sees something that must not be; dying of its own attack is the usual end and shows as another status. */
#include "hostile.h"
#include <sys/prctl.h>
#include <sys/ucontext.h>
#include <sys/uio.h>

static uint64_t state;
static long victim;
static volatile int stopping;

static struct control *control(int slot) { return (struct control *)(SLOTS_BASE + (uint64_t)slot * SLOT_SIZE + ALTSTACK_SIZE); }

/* The stub's clone_thread: a syscall, then `test %rax, %rax; jz; ret`. With r9 set it always comes back to us. */
static uint64_t gadget(void) {
    static const unsigned char code[] = {0x0f, 0x05, 0x48, 0x85, 0xc0, 0x74};
    for (uint64_t at = STUB_BASE; at < STUB_BASE + 0x3000; at++)
        if (!memcmp((void *)at, code, sizeof code)) return at;
    return 0;
}

static long via_stub(long number, long a, long b, long c, long d, long e) {
    static uint64_t found;
    if (!found) found = gadget();
    if (!found) _exit(99);
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register uint64_t r12 __asm__("r12") = found;
    __asm__ volatile("mov %%rsp, %%rbx\n and $-16, %%rsp\n lea 1f(%%rip), %%r9\n push %%r9\n jmp *%%r12\n 1: mov %%rbx, %%rsp\n"
                     : "=a"(result), "+r"(r10), "+r"(r8), "+D"(a), "+S"(b), "+d"(c)
                     : "a"(number), "r"(r12)
                     : "rbx", "rcx", "r11", "r9", "rbp", "memory");
    return result;
}

static void *scribbler(void *unused) {
    (void)unused;
    uint64_t local = state ^ 0x5555;
    while (!stopping) {
        uint64_t *word = (uint64_t *)(SLOTS_BASE + (next_random(&local) >> 16) % (4 * SLOT_SIZE / 8) * 8);
        if (below(&local, 2)) word = (uint64_t *)control((int)below(&local, 4)) + below(&local, 16);
        *word = below(&local, 3) ? below(&local, 5) : next_random(&local);
    }
    return NULL;
}

static void busy_calls(int count) {
    for (int i = 0; i < count; i++) {
        char byte;
        raw(SYS_getppid, 0, 0, 0, 0, 0, 0);
        raw(SYS_read, -1, (long)&byte, 1, 0, 0, 0);
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page != MAP_FAILED) munmap(page, 4096);
    }
}

static void scribble_once(void) {
    pthread_t thread;
    state ^= (uint64_t)getpid() << 32;
    pthread_create(&thread, NULL, scribbler, NULL);
    busy_calls(300);
}
static void scribble(void) { for (int i = 0; i < 60; i++) in_child(scribble_once); }

/* Another thread answers in the stub's place: the number of the child, how many calls were made, and more calls. */
static void *liar(void *unused) {
    (void)unused;
    for (uint64_t i = 0; !stopping; i++)
        for (int slot = 0; slot < 2; slot++) {
            struct control *c = control(slot);
            c->calls[0].result = victim;
            if (i % 7 == 0) c->calls_done = (uint32_t)(i % 3);
        }
    return NULL;
}
static void lie_once(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, liar, NULL);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        /* Were the lie believed, this would write to the victim and kill it. */
        if (child > 0) kill(child, SIGKILL), waitpid(child, NULL, 0);
    }
}
static void lie_about_children(void) { for (int i = 0; i < 25; i++) in_child(lie_once); }

static void *adder(void *unused) {
    (void)unused;
    while (!stopping)
        for (int slot = 0; slot < 2; slot++) {
            struct control *c = control(slot);
            if (c->calls[0].number != CALL_FORK && c->calls[0].number != CALL_CLONE) continue;
            for (int i = 1; i < 8; i++) c->calls[i] = c->calls[0];
            c->call_count = 8;
        }
    return NULL;
}
static void add_once(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, adder, NULL);
    for (int i = 0; i < 20; i++)
        if (fork() == 0) _exit(0);
}
static void bear_many(void) { for (int i = 0; i < 25; i++) in_child(add_once); }

/* Every syscall instruction of the stub, with random registers. */
static void jump_once(void) {
    uint64_t places[64];
    int count = 0;
    state ^= (uint64_t)getpid() * 0x9e3779b9;
    for (uint64_t at = STUB_BASE; at < STUB_BASE + 0x3000 && count < 64; at++)
        if (((unsigned char *)at)[0] == 0x0f && ((unsigned char *)at)[1] == 0x05) places[count++] = at;
    static const int numbers[] = {9, 10, 11, 15, 25, 26, 28, 56, 60, 3, 131, 149, 150, 157, 158, 231, 0x3ff0, 0x3ff1, 57, 62, 59};
    uint64_t values[6];
    for (int i = 0; i < 6; i++)
        switch (below(&state, 6)) {
        case 0: values[i] = STUB_BASE + below(&state, 16) * 4096; break;
        case 1: values[i] = SLOTS_BASE + below(&state, 16) * 4096; break;
        case 2: values[i] = below(&state, 0x10000) * 4096; break;
        case 3: values[i] = next_random(&state); break;
        case 4: values[i] = (uint64_t)values & ~4095UL; break;
        default: values[i] = below(&state, 64);
        }
    register uint64_t r10 __asm__("r10") = values[3], r8 __asm__("r8") = values[4], r9 __asm__("r9") = values[5];
    __asm__ volatile("jmp *%%rbx" ::"a"((uint64_t)numbers[below(&state, sizeof numbers / sizeof *numbers)]), "D"(values[0]),
                     "S"(values[1]), "d"(values[2]), "r"(r10), "r"(r8), "r"(r9), "b"(places[below(&state, (uint64_t)count)]));
}
static void jump_timed(void) {
    alarm(1);
    jump_once();
}
static void jump_into_the_stub(void) { for (int i = 0; i < 60; i++) { in_child(jump_timed); state++; } }

static int refused(long result) { return result == -EINVAL || result == -ENOMEM || result == -EPERM || result == -EFAULT || result == -EACCES; }
/* Guest calls on the stub and the slots, and on ranges that hold them. */
static void unmap_by_calls(void) {
    static const uint64_t starts[] = {STUB_BASE, STUB_BASE + 4096, SLOTS_BASE, SLOTS_BASE + SLOT_SIZE, 0x7fe000000000};
    static const uint64_t sizes[] = {4096, STUB_TEXT_SIZE, CHUNK_SIZE, 0x2000000000};
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 4; j++) {
            long at = (long)starts[i], size = (long)sizes[j];
            if (i == 4 && j < 3) continue;
            if (!refused(raw(SYS_munmap, at, size, 0, 0, 0, 0))) _exit(11);
            if (!refused(raw(SYS_mprotect, at, size, 7, 0, 0, 0))) _exit(12);
            if (!refused(raw(SYS_mmap, at, size, 3, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) _exit(13);
            if (!refused(raw(SYS_mmap, at, size, 3, MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) _exit(14);
            if (!refused(raw(SYS_mremap, at, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, 0x10000000, 0))) _exit(15);
            if (!refused(raw(SYS_madvise, at, size, MADV_DONTNEED, 0, 0, 0))) _exit(16);
            if (!refused(raw(SYS_mlock, at, size, 0, 0, 0, 0))) _exit(17);
            if (!refused(raw(SYS_msync, at, size, MS_SYNC, 0, 0, 0))) _exit(18);
            if (!refused(raw(SYS_mincore, at, size, (long)&state, 0, 0, 0))) _exit(19);
            if (!refused(raw(SYS_remap_file_pages, at, size, 0, 0, 0, 0)) && raw(SYS_remap_file_pages, at, size, 0, 0, 0, 0) != -ENOSYS) _exit(20);
            struct iovec place = {(void *)at, 64}, mine = {&state, 8};
            if (!refused(raw(SYS_process_vm_writev, getpid(), (long)&mine, 1, (long)&place, 1, 0))) _exit(21);
            if (!refused(raw(SYS_read, 0, at, 64, 0, 0, 0)) && raw(SYS_read, 0, at, 64, 0, 0, 0) != 0) _exit(22);
        }
    char *source = mmap(NULL, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!refused(raw(SYS_mremap, (long)source, 4096, 4096, 3, STUB_BASE, 0))) _exit(23);
    if (!refused(raw(SYS_mremap, (long)source, 4096, 4096, 3, SLOTS_BASE, 0))) _exit(24);
}

/* The same through the stub's own syscall instruction: the host's filter is all that stands in between. */
static void unmap_once(void) {
    long size = (long)(below(&state, 4) ? CHUNK_SIZE : 0x200000000000), at = (long)(below(&state, 2) ? SLOTS_BASE : STUB_BASE);
    if (below(&state, 3) == 0) at = 0;
    static const int numbers[] = {SYS_munmap, SYS_mprotect, SYS_madvise, SYS_mremap, SYS_mmap, SYS_munmap};
    via_stub(numbers[below(&state, 6)], at, size, (long)below(&state, 8), (long)(0x10 | below(&state, 64)), -1);
    busy_calls(5);
}
static void unmap_through_the_stub(void) { for (int i = 0; i < 60; i++) { in_child(unmap_once); next_random(&state); } }

/* Frames made of garbage, returned from through our own instruction and the stub's. */
static void garbage_frame(void) {
    static char frame[16384] __attribute__((aligned(64)));
    for (size_t i = 0; i < sizeof frame / 8; i++)
        ((uint64_t *)frame)[i] = below(&state, 3) ? below(&state, 8) : next_random(&state);
    ucontext_t *context = (ucontext_t *)(frame + 1024);
    if (below(&state, 2)) context->uc_mcontext.fpregs = (void *)(frame + 4096 + below(&state, 64));
    if (below(&state, 2)) context->uc_mcontext.gregs[REG_RIP] = (greg_t)(STUB_BASE + below(&state, 8192));
    if (below(&state, 2)) context->uc_mcontext.gregs[REG_RSP] = (greg_t)(SLOTS_BASE + below(&state, 16384));
    if (below(&state, 2)) context->uc_mcontext.gregs[REG_CSGSFS] = (greg_t)(below(&state, 2) ? 0x23 : next_random(&state));
    uint64_t at = below(&state, 2) ? gadget() : 0;
    alarm(1);
    if (at) __asm__ volatile("mov %0, %%rsp\n jmp *%1" ::"r"(context), "r"(at), "a"(SYS_rt_sigreturn));
    else __asm__ volatile("mov %0, %%rsp\n syscall" ::"r"(context), "a"(SYS_rt_sigreturn));
}
static void garbage_frames(void) { for (int i = 0; i < 150; i++) { in_child(garbage_frame); next_random(&state); } }

static void stack_in_slot_once(void) {
    uint64_t rsp = SLOTS_BASE + below(&state, 2 * SLOT_SIZE / 8) * 8;
    alarm(1);
    __asm__ volatile("mov %0, %%rsp\n mov $39, %%eax\n syscall\n push %%rax\n call 1f\n 1: pop %%rax\n mov $39, %%eax\n syscall\n"
                     "movq $0, 0\n" ::"r"(rsp) : "rax", "memory");
}
static void stack_in_the_slot(void) { for (int i = 0; i < 60; i++) { in_child(stack_in_slot_once); next_random(&state); } }

/* Blocks every host signal by a frame returned from through the stub, and runs on, or sleeps, for ever. */
static void spin(void) { for (;;) __asm__ volatile("pause"); }
static void sleep_in_the_stub(void) {
    static uint32_t word;
    for (;;) via_stub(SYS_futex, (long)&word, 0 /* FUTEX_WAIT */, 0, 0, 0);
}
static void block_everything(void (*then)(void)) {
    static char frame[8192] __attribute__((aligned(64)));
    static char stack[16384];
    ucontext_t *context = (ucontext_t *)(frame + 64);
    context->uc_mcontext.gregs[REG_RIP] = (greg_t)then;
    context->uc_mcontext.gregs[REG_RSP] = (greg_t)(stack + 8192 - 8);
    context->uc_mcontext.gregs[REG_CSGSFS] = 0x002b000000000033;
    context->uc_mcontext.gregs[REG_EFL] = 0x202;
    memset(&context->uc_sigmask, 0xff, 8);
    __asm__ volatile("mov %0, %%rsp\n jmp *%1" ::"r"(context), "r"(gadget()), "a"(SYS_rt_sigreturn));
}
static void expect_a_kill(void (*then)(void)) {
    int status = 0;
    pid_t child = fork();
    if (child == 0) block_everything(then);
    usleep(200000);
    kill(child, SIGKILL);
    if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) _exit(31);
}
static void be_unkillable(void) { expect_a_kill(spin); }
static void be_unkillable_asleep(void) { expect_a_kill(sleep_in_the_stub); }
static void be_killed_at_the_end(void) { block_everything(spin); }

/* A thread that leaves behind the sentry's back must not leave its number, by which its memory is reached. */
static void *exit_unseen(void *unused) {
    (void)unused;
    long result = via_stub(SYS_exit, 0, 0, 0, 0, 0);
    if (result != -EPERM) _exit(41);
    return NULL;
}
static void exit_through_the_stub(void) {
    pthread_t thread;
    for (int i = 0; i < 20; i++) {
        pthread_create(&thread, NULL, exit_unseen, NULL);
        pthread_join(thread, NULL);
    }
    via_stub(SYS_exit_group, 0, 0, 0, 0, 0);
}

static void *ring(void *unused) {
    (void)unused;
    for (int i = 0; i < 20000; i++) via_stub(DOORBELL_NR, 0, 0, 0, 0, 0);
    return NULL;
}
static void ring_for_nothing(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, ring, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

static void move_altstack_once(void) {
    static char memory[65536] __attribute__((aligned(16384)));
    stack_t stack = {below(&state, 2) ? (void *)memory : (void *)(STUB_BASE + 4096), 0, below(&state, 2) ? 16384 : 65536};
    alarm(1);
    via_stub(SYS_sigaltstack, (long)&stack, 0, 0, 0, 0);
    busy_calls(3);
}
static void move_the_altstack(void) { for (int i = 0; i < 4; i++) { in_child(move_altstack_once); next_random(&state); } }

/* Host calls asked for through the stub that only the sentry may ask for. */
static void ask_through_the_stub(void) {
    if (via_stub(SYS_clone, SIGCHLD, 0, 0, 0, 0) != -EPERM) _exit(51);
    if (via_stub(SYS_clone, 0x8000, 0, 0, 0, 0) != -EPERM) _exit(52);
    if (via_stub(SYS_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0) != -EPERM) _exit(53);
    for (int fd = 0; fd < 16; fd++)
        if (via_stub(SYS_mmap, 0, 4096, 1, MAP_PRIVATE, fd) != -EPERM) _exit(54);
    if (via_stub(SYS_mmap, SLOTS_BASE, CHUNK_SIZE, 3, MAP_SHARED | MAP_FIXED, LENT_SLOTS_FD) != -EPERM) _exit(55);
    via_stub(SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0); /* refused: it becomes a call of ours, answered by the sentry */
    via_stub(SYS_prctl, PR_SET_SECCOMP, 0, 0, 0, 0);
    via_stub(SYS_kill, victim, SIGKILL, 0, 0, 0);
    via_stub(SYS_tkill, victim, SIGKILL, 0, 0, 0);
    via_stub(SYS_ptrace, 16, victim, 0, 0, 0);
    if (via_stub(SYS_open, (long)"/etc/hostname", 0, 0, 0, 0) >= 0) _exit(56);
    via_stub(SYS_close_range, 0, ~0U, 0, 0, 0);
    for (int fd = 0; fd < 64; fd++) via_stub(SYS_close, fd, 0, 0, 0, 0);
    busy_calls(3);
}

/* The process goes while the sentry is busy with its threads' calls: the answers find nobody. */
static int pipe_ends[2];
static void *wait_for_bytes(void *unused) {
    (void)unused;
    char bytes[64];
    for (;;) raw(SYS_read, pipe_ends[0], (long)bytes, sizeof bytes, 0, 0, 0);
    return NULL;
}
static void *map_and_unmap(void *unused) {
    (void)unused;
    for (;;) busy_calls(100);
    return NULL;
}
static void leave_parked_once(void) {
    pthread_t thread;
    for (int i = 0; i < 3; i++) pthread_create(&thread, NULL, i ? wait_for_bytes : map_and_unmap, NULL);
    usleep(2000);
    via_stub(SYS_exit_group, 0, 0, 0, 0, 0);
}
static void leave_parked_threads(void) {
    pipe(pipe_ends);
    for (int i = 0; i < 40; i++) {
        pid_t child = fork();
        if (child == 0) leave_parked_once();
        for (int j = 0; j < 20; j++) write(pipe_ends[1], "xx", 2), usleep(200);
        waitpid(child, NULL, 0);
    }
}

static const struct { const char *name; void (*run)(void); } cases[] = {
    {"scribble", scribble}, {"lie_about_children", lie_about_children}, {"bear_many", bear_many},
    {"jump_into_the_stub", jump_into_the_stub}, {"unmap_by_calls", unmap_by_calls},
    {"unmap_through_the_stub", unmap_through_the_stub}, {"garbage_frames", garbage_frames},
    {"stack_in_the_slot", stack_in_the_slot}, {"be_unkillable", be_unkillable},
    {"be_unkillable_asleep", be_unkillable_asleep},
    {"be_killed_at_the_end", be_killed_at_the_end}, {"exit_through_the_stub", exit_through_the_stub},
    {"ring_for_nothing", ring_for_nothing}, {"move_the_altstack", move_the_altstack},
    {"ask_through_the_stub", ask_through_the_stub}, {"leave_parked_threads", leave_parked_threads},
};

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    state = seeded(strtoull(argv[2], NULL, 0));
    victim = argc > 3 ? atol(argv[3]) : 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(cases[i].name, argv[1])) {
            cases[i].run();
            return 0;
        }
    return 2;
}
