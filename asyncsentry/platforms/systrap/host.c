/* The sentry's side of systrap: watching slots, answering traps, reading frames. Included into the cffi module.
 *
 * Slots are memory that hostile guests write at any time. The rule here: a field is loaded once into a local or into
 * the private slot_record, checked there, and only then used. No pointer is ever read from a slot and followed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "layout.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS /* Linux 6.6 */
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP 1
#endif

#define MAX_SLOTS (1 << 17)
#define TID_TABLE (1 << 18) /* open addressing, never more than half full */
#define MAX_HOT 8
#define WAKING_US 100 /* more than waking an idle virtual processor takes */
#define MAX_PARKED 64
#define RINGS_AT_ONCE 256
#define FRAME_LIMIT 8192 /* the largest frame we copy for a template or a child */

/* The kernel's x86-64 signal frame: struct ucontext with struct sigcontext_64, asm/sigcontext.h, then siginfo. */
enum {
    UC_STACK = 16, UC_MCONTEXT = 40, UC_SIGINFO = 304, UC_SIZE = 304 + 128,
    MC_CS_SS = 18 * 8, MC_ERR = 19 * 8, MC_TRAPNO = 20 * 8, MC_CR2 = 22 * 8, MC_FPSTATE = 23 * 8,
    SI_CODE = 8, SI_ADDRESS = 16, SI_ARCH = 28,
    FP_MAGIC1_OFFSET = 464, FP_EXTENDED_SIZE = 468, FP_XFEATURES = 472, FP_HEADER = 512, FP_MXCSR = 24, FP_MXCSR_MASK = 28,
};
#define FP_XSTATE_MAGIC1 0x46505853U

/* Where each of struct user_regs_struct's first 20 registers lies in sigcontext, in 8-byte words; -1: not there. */
static const signed char gregs[20] = {7, 6, 5, 4, 10, 11, 3, 2, 1, 0, 13, 14, 12, 9, 8, -1, 16, -1, 17, 15};
enum { REG_AX = 13 };

static uint64_t load64(const char *at) { uint64_t value; memcpy(&value, at, 8); return value; }
static uint32_t load32(const char *at) { uint32_t value; memcpy(&value, at, 4); return value; }
static void store64(char *at, uint64_t value) { memcpy(at, &value, 8); }
static void store32(char *at, uint32_t value) { memcpy(at, &value, 4); }

struct hub {
    int listener;
    uint64_t cycles_per_us;
    struct slot_record *slots;
    int32_t hot[MAX_HOT];
    int hot_count;
    cpu_set_t processors; /* those we and all guests may use */
    uint32_t wakes;
    int32_t parked;    /* threads with an unanswered notification */
    int has_woken;
    int32_t *tids;     /* hash table: key … */
    int32_t *tid_slot; /* … and value */
    char *fp_template; /* a pristine frame from UC_SIZE up, i.e. its FP state */
    uint64_t fp_size;  /* its extended size, 0 before the template was taken */
    uint64_t fp_features;
    uint32_t mxcsr_mask;
    char scratch[FRAME_LIMIT];
};

static struct control *control_of(const struct slot_record *slot) {
    return (struct control *)(slot->memory + ALTSTACK_SIZE);
}

struct hub *hub_new(void) {
    struct hub *hub = calloc(1, sizeof *hub);
    if (!hub) return NULL;
    hub->listener = -1;
    sched_getaffinity(0, sizeof hub->processors, &hub->processors);
    hub->slots = calloc(MAX_SLOTS, sizeof *hub->slots);
    hub->tids = calloc(TID_TABLE, sizeof *hub->tids);
    hub->tid_slot = calloc(TID_TABLE, sizeof *hub->tid_slot);
    hub->fp_template = malloc(FRAME_LIMIT);
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    uint64_t start = __builtin_ia32_rdtsc(), elapsed_ns;
    do {
        clock_gettime(CLOCK_MONOTONIC, &to);
        elapsed_ns = (uint64_t)(to.tv_sec - from.tv_sec) * 1000000000 + (uint64_t)to.tv_nsec - (uint64_t)from.tv_nsec;
    } while (elapsed_ns < 50000);
    hub->cycles_per_us = (__builtin_ia32_rdtsc() - start) * 1000 / elapsed_ns;
    return hub;
}

void hub_free(struct hub *hub) {
    free(hub->slots);
    free(hub->tids);
    free(hub->tid_slot);
    free(hub->fp_template);
    free(hub);
}

void hub_listen(struct hub *hub, int listener) { hub->listener = listener; }

/* Whether a bell and its answer hand the CPU over (right while we sleep after answering) or wake another one (right while
 * we spin for the next trap: a guest handed our CPU could not run). Hosts before 6.6 know only the second. */
int hub_hand_over(struct hub *hub, int on) {
    return ioctl(hub->listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, on ? SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP : 0) ? -errno : 0;
}

struct slot_record *hub_slot(struct hub *hub, int slot) { return &hub->slots[slot]; }

int hub_attach_chunk(struct hub *hub, int fd, int first, uint64_t guest_base) {
    char *memory = mmap(NULL, CHUNK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) return -errno;
    for (int i = 0; i < (int)SLOTS_PER_CHUNK; i++) {
        struct slot_record *slot = &hub->slots[first + i];
        memset(slot, 0, sizeof *slot);
        slot->memory = memory + (size_t)i * SLOT_SIZE;
        slot->guest_base = guest_base + (uint64_t)i * SLOT_SIZE;
    }
    return 0;
}

/* Keeps a thread at the bell: its notification stays unanswered. One that is there already is of a ring that came to
 * nothing (the thread was killed, or does not keep to the stub). */
static void park(struct hub *hub, struct slot_record *slot, uint64_t notification) {
    hub->parked += !slot->notification;
    slot->notification = notification;
}

static uint64_t unpark(struct hub *hub, struct slot_record *slot) {
    uint64_t notification = slot->notification;
    hub->parked -= notification != 0;
    slot->notification = 0;
    return notification;
}

/* Has a taken slot's thread sleep on its state word instead, if many are at the bell already: the host kernel walks the
 * list of unanswered notifications at every bell and answer. */
void hub_park(struct hub *hub, int number) {
    struct slot_record *slot = &hub->slots[number];
    if (hub->parked <= MAX_PARKED || !slot->notification) return;
    struct seccomp_notif_resp response = {unpark(hub, slot), BELL_SLEEP, 0, 0};
    slot->on_futex = 1;
    ioctl(hub->listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
}

void hub_detach_chunk(struct hub *hub, int first) {
    /* Threads that died hot are still on the list that hub_spin looks through. */
    int kept = 0;
    for (int i = 0; i < hub->hot_count; i++)
        if (hub->hot[i] < first || hub->hot[i] >= first + (int)SLOTS_PER_CHUNK) hub->hot[kept++] = hub->hot[i];
    hub->hot_count = kept;
    for (int i = 0; i < (int)SLOTS_PER_CHUNK; i++) unpark(hub, &hub->slots[first + i]);
    munmap(hub->slots[first].memory, CHUNK_SIZE);
    memset(&hub->slots[first], 0, SLOTS_PER_CHUNK * sizeof *hub->slots);
}

/* Threads by host tid ------------------------------------------------------------------------------------------ */

static uint32_t tid_place(struct hub *hub, int tid) {
    uint32_t place = (uint32_t)tid * 2654435761u % TID_TABLE;
    while (hub->tids[place] && hub->tids[place] != tid) place = (place + 1) % TID_TABLE;
    return place;
}

static int slot_of_tid(struct hub *hub, int tid) {
    uint32_t place = tid_place(hub, tid);
    return hub->tids[place] ? hub->tid_slot[place] : -1;
}

void hub_bind(struct hub *hub, int slot, int tid) {
    uint32_t place = tid_place(hub, tid);
    hub->tids[place] = tid;
    hub->tid_slot[place] = slot;
    hub->slots[slot].tid = tid;
}

void hub_unbind(struct hub *hub, int slot) {
    uint32_t place = tid_place(hub, hub->slots[slot].tid);
    hub->slots[slot].tid = 0;
    if (!hub->tids[place] || hub->tid_slot[place] != slot) return; /* the host has given the tid to another since */
    hub->tids[place] = 0;
    /* Close the gap: whatever follows without a hole is put in again. */
    for (uint32_t next = (place + 1) % TID_TABLE; hub->tids[next]; next = (next + 1) % TID_TABLE) {
        int tid = hub->tids[next], slot_there = hub->tid_slot[next];
        hub->tids[next] = 0;
        uint32_t better = tid_place(hub, tid);
        hub->tids[better] = tid;
        hub->tid_slot[better] = slot_there;
    }
}

/* Taking a trap ------------------------------------------------------------------------------------------------ */

/* Copies what a trapped thread wants into its private record. A frame that does not lie inside the slot, or an odd
 * signal number, gives KIND_BAD: the caller ends the guest process. */
static void take(struct slot_record *slot) {
    struct control *control = control_of(slot);
    uint64_t offset = __atomic_load_n(&control->frame, __ATOMIC_RELAXED) - slot->guest_base;
    uint32_t signo = __atomic_load_n(&control->signo, __ATOMIC_RELAXED);
    uint32_t phase = __atomic_load_n(&control->phase, __ATOMIC_RELAXED);
    slot->taken = 1;
    slot->issued = slot->call_count;
    slot->call_count = 0;
    if (phase != PHASE_TRAP) { /* a newborn has no frame yet; after calls it is the one we know */
        slot->kind = phase == PHASE_CALLED ? KIND_CALLED : KIND_NEWBORN;
        return;
    }
    slot->kind = KIND_BAD;
    if (offset > ALTSTACK_SIZE - UC_SIZE || offset % 8) return;
    const char *uc = slot->memory + offset, *mc = uc + UC_MCONTEXT, *si = uc + UC_SIGINFO;
    slot->frame_offset = offset;
    slot->signo = signo;
    if (signo == SIGSYS) {
        slot->kind = KIND_SYSCALL;
        slot->number = load32(si + SI_ARCH) == AUDIT_ARCH_X86_64 ? load64(mc + REG_AX * 8) : ~0UL;
        slot->arguments[0] = load64(mc + 8 * 8);
        slot->arguments[1] = load64(mc + 9 * 8);
        slot->arguments[2] = load64(mc + 12 * 8);
        slot->arguments[3] = load64(mc + 2 * 8);
        slot->arguments[4] = load64(mc + 0 * 8);
        slot->arguments[5] = load64(mc + 1 * 8);
    } else if (signo == INTERRUPT_SIGNAL) {
        slot->kind = KIND_INTERRUPT;
    } else if (signo == SIGSEGV || signo == SIGBUS || signo == SIGFPE || signo == SIGILL || signo == SIGTRAP) {
        slot->kind = KIND_FAULT;
        slot->code = (int32_t)load32(si + SI_CODE);
        slot->address = load64(si + SI_ADDRESS);
        slot->trapno = load64(mc + MC_TRAPNO);
        slot->error = load64(mc + MC_ERR);
    }
}

static int is_waiting(const struct slot_record *slot) {
    return !slot->taken && __atomic_load_n(&control_of(slot)->state, __ATOMIC_SEQ_CST) == SLOT_TRAPPED;
}

/* Looks at the hot slots for a while, or for wake_cycles if a parked thread was woken since: it needs a while to get to
 * its CPU. Gives one that trapped, taken, or -1. */
int hub_spin(struct hub *hub, uint64_t cycles, uint64_t wake_cycles) {
    if (!hub->hot_count) return -1;
    if (cycles && hub->has_woken) {
        hub->has_woken = 0;
        cycles = wake_cycles;
    }
    uint64_t end = __builtin_ia32_rdtsc() + cycles;
    do {
        for (int i = 0; i < hub->hot_count; i++) {
            struct slot_record *slot = &hub->slots[hub->hot[i]];
            if (is_waiting(slot)) {
                take(slot);
                return hub->hot[i];
            }
        }
        __builtin_ia32_pause();
    } while (__builtin_ia32_rdtsc() < end);
    return -1;
}

static void cool(struct hub *hub, struct slot_record *slot) {
    (void)hub;
    slot->hot = 0;
    if (slot->memory) __atomic_store_n(&control_of(slot)->spin_usable, 0, __ATOMIC_SEQ_CST);
}

/* Before sleeping: tells every hot slot to ring from now on, then looks once more. */
int hub_sleep(struct hub *hub) {
    for (int i = 0; i < hub->hot_count; i++) cool(hub, &hub->slots[hub->hot[i]]);
    int found = -1;
    for (int i = 0; i < hub->hot_count && found < 0; i++)
        if (is_waiting(&hub->slots[hub->hot[i]])) found = hub->hot[i];
    hub->hot_count = 0;
    if (found >= 0) take(&hub->slots[found]);
    return found;
}

static void make_hot(struct hub *hub, int number) {
    struct slot_record *slot = &hub->slots[number];
    if (slot->hot) return;
    if (hub->hot_count == MAX_HOT) {
        /* The oldest makes room. It rings unless it has trapped already, so ask it to and leave it to the bell. */
        cool(hub, &hub->slots[hub->hot[0]]);
        memmove(hub->hot, hub->hot + 1, (MAX_HOT - 1) * sizeof *hub->hot);
        hub->hot_count--;
    }
    hub->hot[hub->hot_count++] = number;
    slot->hot = 1;
}

/* Makes a slot ready for a newborn, whatever its last owner left there. */
void slot_reset(struct hub *hub, int number) {
    struct slot_record *slot = &hub->slots[number];
    memset(control_of(slot), 0, offsetof(struct control, calls));
    slot->taken = 0;
    slot->on_futex = 0;
    slot->call_count = 0;
    unpark(hub, slot);
}

/* Has a parked thread wake up on another processor than ours, where it could not run while we spin for its next trap. The
 * host's scheduler leaves it here by itself, since it has often run here (cold): then spinning never catches anything. */
static int send_away(struct hub *hub, const struct slot_record *slot) {
    cpu_set_t elsewhere = hub->processors;
    CPU_CLR(sched_getcpu(), &elsewhere);
    if (!CPU_COUNT(&elsewhere) || slot->tid <= 0) return 0;
    uint64_t id = slot->notification; /* while it is valid, the tid is that thread's and nobody else's */
    if (ioctl(hub->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id)) return 0;
    return !sched_setaffinity(slot->tid, sizeof elsewhere, &elsewhere);
}

/* Ties a thread to our processor, so that what it makes next starts there too, or lets it go again: a child started on an
 * idle processor would cost a wake-up of 40 us at each of the hand-overs of its birth. */
void hub_tie(struct hub *hub, int number, int here) {
    cpu_set_t ours;
    CPU_ZERO(&ours);
    CPU_SET(sched_getcpu(), &ours);
    if (hub->slots[number].tid > 0)
        sched_setaffinity(hub->slots[number].tid, sizeof ours, here ? &ours : &hub->processors);
}

/* Lets a taken slot run on. spin_us > 0 keeps it hot: the stub will spin that long at its next trap. */
void hub_answer(struct hub *hub, int number, int action, uint32_t spin_us) {
    struct slot_record *slot = &hub->slots[number];
    struct control *control = control_of(slot);
    control->call_count = slot->call_count;
    control->action = (uint32_t)action;
    control->frame = slot->guest_base + slot->frame_offset;
    int sent_away = 0;
    if (spin_us) {
        make_hot(hub, number);
        /* Waking a processor keeps us in the host's kernel while the thread runs already: it must outlast that. */
        uint32_t wake_us = slot->notification ? WAKING_US : 0;
        if (slot->notification) sent_away = send_away(hub, slot);
        control->spin_cycles = (spin_us + wake_us) * hub->cycles_per_us;
        __atomic_store_n(&control->spin_usable, 1, __ATOMIC_SEQ_CST);
    } else if (slot->hot == 0) {
        __atomic_store_n(&control->spin_usable, 0, __ATOMIC_SEQ_CST);
    }
    slot->taken = 0;
    __atomic_store_n(&control->state, SLOT_ANSWERED, __ATOMIC_SEQ_CST);
    int sleeps = slot->on_futex;
    if (sleeps) {
        slot->on_futex = 0;
        syscall(SYS_futex, &control->state, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    struct seccomp_notif_resp response = {unpark(hub, slot), 0, 0, 0};
    if (response.id || sleeps) {
        hub->wakes++;
        hub->has_woken = 1;
        if (response.id) ioctl(hub->listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
        if (sent_away) sched_setaffinity(slot->tid, sizeof hub->processors, &hub->processors);
    }
}

/* How many parked threads were woken since this was last asked. */
uint32_t hub_take_wakes(struct hub *hub) {
    uint32_t wakes = hub->wakes;
    hub->wakes = 0;
    return wakes;
}


void hub_answer_result(struct hub *hub, int number, uint64_t result, uint32_t spin_us) {
    struct slot_record *slot = &hub->slots[number];
    store64(slot->memory + slot->frame_offset + UC_MCONTEXT + REG_AX * 8, result);
    hub_answer(hub, number, ACTION_RESUME, spin_us);
}

/* The doorbell ------------------------------------------------------------------------------------------------- */

enum { NOTHING = -1, FOR_PYTHON = -2, DEAD = -3 };

/* Takes the next notification. A ring of a known thread is handled here: a slot that was not taken yet is taken and
 * given back; a slot in work keeps the notification, so that the thread stays parked. Anything else goes to event. */
int hub_doorbell(struct hub *hub, struct hub_event *event) {
    for (int rings = 0; rings < RINGS_AT_ONCE; rings++) {
        struct pollfd readable = {hub->listener, POLLIN, 0};
        if (poll(&readable, 1, 0) <= 0) return NOTHING;
        if (!(readable.revents & POLLIN)) return DEAD;
        struct seccomp_notif notification;
        memset(&notification, 0, sizeof notification);
        if (ioctl(hub->listener, SECCOMP_IOCTL_NOTIF_RECV, &notification)) {
            if (errno == EINTR || errno == ENOENT) continue; /* whoever rang has died since */
            return DEAD;
        }
        int number = slot_of_tid(hub, (int)notification.pid);
        if (notification.data.nr == DOORBELL_NR && number >= 0) {
            struct slot_record *slot = &hub->slots[number];
            uint32_t state = __atomic_load_n(&control_of(slot)->state, __ATOMIC_SEQ_CST);
            if (slot->taken || state == SLOT_TRAPPED) park(hub, slot, notification.id);
            if (slot->taken) {
                hub_park(hub, number);
                continue;
            }
            if (state == SLOT_TRAPPED) {
                take(slot);
                return number;
            }
            /* Answered while it was on its way to the bell. */
            struct seccomp_notif_resp response = {notification.id, 0, 0, 0};
            ioctl(hub->listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
            continue;
        }
        event->id = notification.id;
        event->tid = (int32_t)notification.pid;
        event->slot = number;
        event->number = notification.data.nr;
        for (int i = 0; i < 6; i++) event->arguments[i] = notification.data.args[i];
        return FOR_PYTHON;
    }
    return NOTHING; /* guests that ring for nothing must not keep us here; the listener stays readable */
}

/* Takes a thread that rang for the first time in a slot it was expected in. */
void hub_adopt(struct hub *hub, int number, int tid, uint64_t id) {
    struct slot_record *slot = &hub->slots[number];
    hub_bind(hub, number, tid);
    park(hub, slot, id);
    take(slot);
}

int hub_reply(struct hub *hub, uint64_t id, int error, int go_on) {
    struct seccomp_notif_resp response = {id, 0, -error, go_on ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0};
    return ioctl(hub->listener, SECCOMP_IOCTL_NOTIF_SEND, &response) ? -errno : 0;
}

int hub_lend(struct hub *hub, uint64_t id, int fd, int number) {
    struct seccomp_notif_addfd lend = {id, SECCOMP_ADDFD_FLAG_SETFD, (uint32_t)fd, (uint32_t)number, O_CLOEXEC};
    return ioctl(hub->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &lend) < 0 ? -errno : 0;
}

/* Call lists --------------------------------------------------------------------------------------------------- */

int slot_add_call(struct hub *hub, int number, uint64_t call, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                  uint64_t e, uint64_t f, int lends) {
    struct slot_record *slot = &hub->slots[number];
    if (slot->call_count >= MAX_CALLS) return -1;
    struct host_call *entry = &control_of(slot)->calls[slot->call_count++];
    *entry = (struct host_call){call, {a, b, c, d, e, f}, 0, (uint32_t)lends, 0};
    return 0;
}

/* How many of the calls last issued were made, the last of them perhaps in vain; -1 if the answer cannot be the stub's. */
int slot_calls_done(struct hub *hub, int number) {
    struct slot_record *slot = &hub->slots[number];
    struct control *control = control_of(slot);
    uint32_t done = __atomic_load_n(&control->calls_done, __ATOMIC_RELAXED);
    if (slot->kind != KIND_CALLED || done == 0 || done > slot->issued || done > MAX_CALLS) return -1;
    int64_t last = __atomic_load_n(&control->calls[done - 1].result, __ATOMIC_RELAXED);
    return done == slot->issued || (last < 0 && last >= -4095) ? (int)done : -1;
}

int64_t slot_call_result(struct hub *hub, int number, uint32_t index) {
    return control_of(&hub->slots[number])->calls[index % MAX_CALLS].result;
}

/* Frames ------------------------------------------------------------------------------------------------------- */

void slot_get_registers(struct hub *hub, int number, uint64_t *registers) {
    struct slot_record *slot = &hub->slots[number];
    const char *mc = slot->memory + slot->frame_offset + UC_MCONTEXT;
    for (int i = 0; i < 20; i++) registers[i] = gregs[i] < 0 ? 0 : load64(mc + gregs[i] * 8);
    registers[17] = load32(mc + MC_CS_SS) & 0xffff;
}

void slot_set_registers(struct hub *hub, int number, const uint64_t *registers) {
    struct slot_record *slot = &hub->slots[number];
    char *mc = slot->memory + slot->frame_offset + UC_MCONTEXT;
    for (int i = 0; i < 20; i++)
        if (gregs[i] >= 0) store64(mc + gregs[i] * 8, registers[i]);
    store64(mc + MC_CS_SS, 0x002b000000000033UL); /* cs, gs, fs, ss: 64-bit user code and data */
}

void slot_set_result(struct hub *hub, int number, uint64_t result) {
    struct slot_record *slot = &hub->slots[number];
    store64(slot->memory + slot->frame_offset + UC_MCONTEXT + REG_AX * 8, result);
}

/* Where the FP state of a slot's frame lies, or NULL if the frame says something impossible. */
static char *fp_state(struct hub *hub, struct slot_record *slot) {
    uint64_t offset = load64(slot->memory + slot->frame_offset + UC_MCONTEXT + MC_FPSTATE) - slot->guest_base;
    if (offset % 64 || offset > ALTSTACK_SIZE || offset + hub->fp_size > ALTSTACK_SIZE) return NULL;
    return slot->memory + offset;
}

/* Keeps the zygote's first frame's FP state as the initial one. */
int hub_take_template(struct hub *hub, int number) {
    struct slot_record *slot = &hub->slots[number];
    char *fp = fp_state(hub, slot);
    if (!fp) return -1;
    uint32_t size = load32(fp + FP_EXTENDED_SIZE);
    if (load32(fp + FP_MAGIC1_OFFSET) != FP_XSTATE_MAGIC1 || size > FRAME_LIMIT - 1024) return -1;
    hub->fp_size = size;
    hub->fp_features = load64(fp + FP_XFEATURES);
    hub->mxcsr_mask = load32(fp + FP_MXCSR_MASK);
    memcpy(hub->fp_template, fp, size);
    memset(hub->fp_template, 0, FP_MAGIC1_OFFSET - 48); /* registers; software-reserved bytes stay */
    store32(hub->fp_template, 0x37f);                   /* control word at reset */
    store32(hub->fp_template + FP_MXCSR, 0x1f80);
    store32(hub->fp_template + FP_MXCSR_MASK, hub->mxcsr_mask);
    memset(hub->fp_template + FP_HEADER, 0, size - 4 - FP_HEADER); /* XSTATE_BV 0: every component initial */
    return 0;
}

/* Builds a frame from nothing, for a thread that has none: everything zero, FP state initial. */
void slot_build_frame(struct hub *hub, int number) {
    struct slot_record *slot = &hub->slots[number];
    uint64_t fp_offset = (ALTSTACK_SIZE - hub->fp_size) & ~63UL;
    slot->frame_offset = (fp_offset - UC_SIZE) & ~15UL;
    char *uc = slot->memory + slot->frame_offset;
    memset(uc, 0, UC_SIZE);
    store64(uc, 1 | 2 | 4); /* UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS */
    store64(uc + UC_STACK, slot->guest_base);
    store64(uc + UC_STACK + 16, ALTSTACK_SIZE);
    store64(uc + UC_MCONTEXT + MC_CS_SS, 0x002b000000000033UL);
    store64(uc + UC_MCONTEXT + 17 * 8, 0x202);
    store64(uc + UC_MCONTEXT + MC_FPSTATE, slot->guest_base + fp_offset);
    memcpy(slot->memory + fp_offset, hub->fp_template, hub->fp_size);
}

uint32_t slot_get_fpstate(struct hub *hub, int number, char *image) {
    char *fp = fp_state(hub, &hub->slots[number]);
    if (!fp) return 0;
    memcpy(image, fp, hub->fp_size);
    return (uint32_t)hub->fp_size;
}

/* Installs an FP image of hostile origin, or with size 0 the initial state; -1 if the kernel would refuse it. */
int slot_set_fpstate(struct hub *hub, int number, const char *image, uint32_t size) {
    char *fp = fp_state(hub, &hub->slots[number]);
    if (!fp) return -1;
    if (!size) {
        memcpy(fp, hub->fp_template, hub->fp_size);
        return 0;
    }
    if (size != hub->fp_size || load32(image + FP_MAGIC1_OFFSET) != FP_XSTATE_MAGIC1) return -1;
    if (load64(image + FP_HEADER) & ~hub->fp_features || load32(image + FP_MXCSR) & ~hub->mxcsr_mask) return -1;
    for (int i = 8; i < 64; i += 8)
        if (load64(image + FP_HEADER + i)) return -1;
    memcpy(fp, image, FP_MAGIC1_OFFSET);
    memcpy(fp + FP_HEADER, image + FP_HEADER, hub->fp_size - FP_HEADER - 4);
    memcpy(fp + FP_MAGIC1_OFFSET, hub->fp_template + FP_MAGIC1_OFFSET, FP_HEADER - FP_MAGIC1_OFFSET);
    memcpy(fp + hub->fp_size - 4, hub->fp_template + hub->fp_size - 4, 4);
    return 0;
}

/* Gives a newborn slot the frame of the one it was copied from. */
void slot_copy_frame(struct hub *hub, int from, int to) {
    uint64_t registers[27];
    slot_build_frame(hub, to);
    slot_get_registers(hub, from, registers);
    slot_set_registers(hub, to, registers);
    char *source = fp_state(hub, &hub->slots[from]), *target = fp_state(hub, &hub->slots[to]);
    if (source && target) {
        memcpy(hub->scratch, source, hub->fp_size); /* once: its owner's siblings may be writing it */
        slot_set_fpstate(hub, to, hub->scratch, (uint32_t)hub->fp_size);
    }
}

/* Guest memory ------------------------------------------------------------------------------------------------- */

#define COPY_BUFFER_SIZE (1 << 20)

uint64_t hub_cycles_per_us(struct hub *hub) { return hub->cycles_per_us; }

/* Copies at most COPY_BUFFER_SIZE bytes of guest memory into a buffer; gives how many were readable, or -errno if none. */
int64_t vm_read(char *buffer, int pid, uint64_t address, uint64_t count) {
    struct iovec local = {buffer, count}, remote = {(void *)address, count};
    ssize_t done = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    return done < 0 ? -errno : done;
}

int64_t vm_write(int pid, uint64_t address, const char *data, uint64_t count) {
    struct iovec local = {(void *)(uintptr_t)data, count}, remote = {(void *)address, count};
    ssize_t done = process_vm_writev(pid, &local, 1, &remote, 1, 0);
    return done < 0 ? -errno : done;
}

/* A file's bytes straight into guest memory: gives the count, -errno of the file, or -EFAULT. offset -1: no seeking. */
int64_t vm_write_from_file(char *buffer, int pid, uint64_t address, uint64_t count, int fd, int64_t offset) {
    if (count > COPY_BUFFER_SIZE) count = COPY_BUFFER_SIZE;
    ssize_t got = pread(fd, buffer, count, offset);
    if (got <= 0) return got < 0 ? -errno : 0;
    int64_t done = vm_write(pid, address, buffer, (uint64_t)got);
    return done == 0 ? -EFAULT : done;
}

/* Host processes ----------------------------------------------------------------------------------------------- */

/* Starts the stub in a session of its own (terminal signals must not reach it), with fixed addresses; traced, it stops
 * before its first instruction. The two descriptors become CHUNK_FD and READY_FD. */
int spawn_stub(int stub_fd, int chunk_fd, int ready_fd, int traced) {
    static char *const arguments[] = {(char *)"asyncsentry-guest", NULL};
    static char *const environment[] = {NULL};
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = vfork();
    if (pid == 0) {
        int stub = fcntl(stub_fd, F_DUPFD_CLOEXEC, 64), chunk = fcntl(chunk_fd, F_DUPFD_CLOEXEC, 64);
        int ready = fcntl(ready_fd, F_DUPFD_CLOEXEC, 64);
        if (stub < 0 || chunk < 0 || ready < 0 || dup2(chunk, CHUNK_FD) < 0 || dup2(ready, READY_FD) < 0) _exit(126);
        for (int fd = 0; fd < CHUNK_FD; fd++) close(fd);
        if (syscall(SYS_close_range, READY_FD + 1, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */)) _exit(126);
        setsid();
        /* When the host runs out of memory, guests go first. */
        int first = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (first >= 0 && (write(first, "1000", 4) != 4 || close(first))) _exit(126);
        personality(ADDR_NO_RANDOMIZE);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigset_t none;
        sigemptyset(&none);
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        if (traced && ptrace(PTRACE_TRACEME, 0, 0, 0)) _exit(126);
        syscall(SYS_execveat, stub, "", arguments, environment, AT_EMPTY_PATH);
        _exit(126);
    }
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid < 0 ? -error : pid;
}

int pidfd_open_(int pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : fd;
}

int pidfd_getfd_(int pidfd, int fd) {
    int got = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    return got < 0 ? -errno : got;
}

int thread_kill(int tgid, int tid, int signo) { return syscall(SYS_tgkill, tgid, tid, signo) ? -errno : 0; }
