/* The other ways into a kernel: int 0x80, sysenter, x32 numbers, vsyscalls, 32-bit code. legacy_entries CASE SEED. */
#include "hostile.h"
#include <sys/time.h>

static uint64_t state;

static long int80(long number, long a, long b, long c, long d, long e) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

static void interrupt_80(void) {
    char *low = mmap((void *)0x20000000, 65536, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    strcpy(low, "/etc/passwd");
    for (long number = 0; number < 500; number++) {
        if (number == 1 || number == 252 || number == 119 || number == 173) continue; /* exits and sigreturns */
        if (int80(number, (long)low, 0, 0, 0, 0) != -ENOSYS) _exit(11);
    }
    for (int i = 0; i < 2000; i++)
        int80((long)below(&state, 500), (long)next_random(&state), (long)low, (long)below(&state, 9), 0, (long)next_random(&state));
}

static void sysenter_once(void) {
    alarm(1);
    __asm__ volatile("mov %%rsp, %%rbp\n sysenter" ::"a"(below(&state, 400)), "b"(1), "c"(2), "d"(3) : "memory");
}
static void sysenter(void) { for (int i = 0; i < 20; i++) { in_child(sysenter_once); next_random(&state); } }

static void x32_numbers(void) {
    for (long number = 0; number < 600; number++)
        if (raw(0x40000000L | number, 1, 2, 3, 4, 5, 6) != -ENOSYS) _exit(21);
    for (int i = 0; i < 2000; i++) {
        long number = (long)(next_random(&state) | 1UL << (32 + below(&state, 31)));
        long result = raw(number, 1, 2, 3, 4, 5, 6);
        if (result != -ENOSYS) _exit(22);
    }
}

/* The numbers of old: Linux looks at the lower 32 bits of rax only since 6.x; either way nothing else may happen. */
static void vsyscall_calls(void) {
    struct timeval now = {0, 0}, plain;
    gettimeofday(&plain, NULL);
    long failed = ((long (*)(void *, void *))0xffffffffff600000)(&now, NULL);
    if (failed || labs(now.tv_sec - plain.tv_sec) > 5) _exit(31);
    long seconds = ((long (*)(void *))0xffffffffff600400)(NULL);
    if (labs(seconds - plain.tv_sec) > 5) _exit(32);
    unsigned cpu = ~0U;
    if (((long (*)(unsigned *, void *, void *))0xffffffffff600800)(&cpu, NULL, NULL) || cpu > 4096) _exit(33);
}
static void vsyscall_bad_pointers(void) {
    ((long (*)(void *, void *))0xffffffffff600000)((void *)8, (void *)-1);
}
static void vsyscall_elsewhere(void) { ((void (*)(void))(0xffffffffff600000 + below(&state, 4096)))(); }
static void vsyscall(void) {
    int status = in_child(vsyscall_calls);
    if (WIFEXITED(status) && WEXITSTATUS(status)) _exit(WEXITSTATUS(status)); /* or SIGSEGV: the host has none */
    in_child(vsyscall_bad_pointers);
    for (int i = 0; i < 10; i++) { in_child(vsyscall_elsewhere); next_random(&state); }
    volatile char *page = (char *)0xffffffffff600000;
    char byte;
    int fds[2];
    pipe(fds);
    if (write(fds[1], (void *)page, 8) >= 0) _exit(34); /* not to be read, as on a host that only lets it run */
    (void)byte;
}

/* 32-bit code: a far return to the compatibility segment, then calls of both kinds from there. */
static void compatibility_once(void) {
    char *code = mmap((void *)0x30000000, 8192, 7, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    static const unsigned char program[] = {
        0xb8, 20, 0, 0, 0, 0xcd, 0x80,       /* mov $20, %eax; int $0x80 (getpid) */
        0xb8, 1, 0, 0, 0, 0x0f, 0x05,        /* mov $1, %eax; syscall */
        0xb8, 1, 0, 0, 0, 0x0f, 0x34,        /* mov $1, %eax; sysenter */
        0xf4, 0xeb, 0xfe,                    /* hlt; loop */
    };
    memcpy(code, program, sizeof program);
    alarm(1);
    if (below(&state, 2))
        __asm__ volatile("mov $0x30001ff0, %%rsp\n pushq $0x23\n pushq $0x30000000\n lretq" ::: "memory");
    __asm__ volatile("mov $0x30001ff0, %%rsp\n pushq $0x2b\n pushq $0x30001ff0\n pushq $0x202\n pushq $0x23\n pushq $0x30000000\n iretq" ::: "memory");
}
static void compatibility_mode(void) { for (int i = 0; i < 20; i++) { in_child(compatibility_once); next_random(&state); } }

static void trap_flag_once(void) {
    alarm(1);
    __asm__ volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n mov $39, %%eax\n syscall\n nop\n nop" ::: "rax", "rcx", "r11", "memory");
}
static void on_trap(int signo) { (void)signo; }
static void odd_flags_once(void) {
    signal(SIGTRAP, on_trap);
    alarm(1);
    __asm__ volatile("pushfq\n orq %0, (%%rsp)\n popfq\n mov $39, %%eax\n syscall\n int3\n mov $39, %%eax\n syscall" ::"r"(next_random(&state) & 0x254fd5UL)
                     : "rax", "rcx", "r11", "memory");
    _exit(0);
}
static void odd_flags(void) {
    for (int i = 0; i < 5; i++) in_child(trap_flag_once);
    for (int i = 0; i < 40; i++) { in_child(odd_flags_once); next_random(&state); }
}

/* Segment registers and bases of every kind. */
static void segments_once(void) {
    alarm(1);
    raw(SYS_arch_prctl, 0x1001, (long)next_random(&state), 0, 0, 0, 0);
    raw(SYS_arch_prctl, 0x1002, (long)(next_random(&state) >> 17), 0, 0, 0, 0);
    unsigned short selector = (unsigned short)next_random(&state);
    __asm__ volatile("mov %0, %%fs\n mov $39, %%eax\n syscall\n mov %0, %%gs\n mov $39, %%eax\n syscall\n mov %0, %%ds\n"
                     "mov $39, %%eax\n syscall" ::"r"(below(&state, 2) ? (unsigned)selector : 0x2bU) : "rax", "rcx", "r11");
    raw(SYS_exit_group, 0, 0, 0, 0, 0, 0);
}
static void segments(void) { for (int i = 0; i < 40; i++) { in_child(segments_once); next_random(&state); } }

static const struct { const char *name; void (*run)(void); } cases[] = {
    {"interrupt_80", interrupt_80}, {"sysenter", sysenter}, {"x32_numbers", x32_numbers}, {"vsyscall", vsyscall},
    {"compatibility_mode", compatibility_mode}, {"odd_flags", odd_flags}, {"segments", segments},
};

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    state = seeded(strtoull(argv[2], NULL, 0));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(cases[i].name, argv[1])) {
            cases[i].run();
            return 0;
        }
    return 2;
}
