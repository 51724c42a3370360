/* What the stub and the sentry agree on: addresses, the slot, and the numbers they exchange.
 *
 * A slot is one guest thread's part of memory shared with the sentry. Its upper end:
 *
 *     slot base                                             altstack top          slot end
 *     |  … free …  | newborn stack | signal frame (uc, siginfo, xsave) |  struct control  |
 *
 * The host kernel writes its signal frame at the top of the alternate stack, so the frame *is* the thread's
 * register file: the sentry edits it in place and the handler's sigreturn installs it.
 * Everything in a slot can be written by the guest that owns it, at any time: the sentry treats it as hostile. */
#ifndef ASYNCSENTRY_LAYOUT_H
#define ASYNCSENTRY_LAYOUT_H

#include <stdint.h>

#define STUB_BASE 0x7ff000000000UL  /* where the stub is linked and mapped in every guest process */
#define STUB_TEXT_SIZE 0x10000UL    /* the filter lets host calls through only from these addresses */
#define SLOTS_BASE 0x7ff100000000UL /* where a process sees its own chunks of slots */
#define SLOTS_END 0x7ff140000000UL
#define USER_END 0x7ffffffff000UL

#define SLOT_SIZE 16384UL /* also the alignment: the handler finds its slot from its stack pointer */
#define SLOTS_PER_CHUNK 64UL
#define CHUNK_SIZE (SLOT_SIZE * SLOTS_PER_CHUNK) /* one memfd; a process has one per 64 threads */
#define CONTROL_SIZE 2560UL
#define NEWBORN_STACK_OFFSET (SLOT_SIZE - 8192UL) /* below any frame: an AVX-512 frame takes 3.7 KiB */

#define MAX_CALLS 32
#define CHUNK_FD 3              /* descriptors the zygote starts with: its chunk, and a socket that it closes when ready */
#define READY_FD 4
#define LISTENER_FD 0           /* what seccomp(2) gives the zygote, whose standard streams are closed */
#define LENT_FD 10             /* number under which the sentry lends a descriptor for one mmap */
#define LENT_SLOTS_FD 11       /* the same for slots: threads of the process may be mapping files meanwhile */
#define INTERRUPT_SIGNAL 32    /* host signal that makes running guest code trap */
#define DOORBELL_NR 0x3ff0     /* no Linux syscall has this number */
#define BELL_SLEEP 1           /* a bell's answer: go and sleep on the slot's state, futex(2) */
#define TEMPLATE_NR 0x3ff1     /* trapped once by the zygote, to obtain a signal frame */

enum slot_state { SLOT_RUNNING = 0, SLOT_TRAPPED = 1, SLOT_ANSWERED = 2 };
enum slot_phase { PHASE_TRAP = 0, PHASE_NEWBORN = 1, PHASE_CALLED = 2 };
/* Why a slot is handed to the sentry: TrapKind of base.py, except for the two that only the platform sees. */
enum slot_kind { KIND_BAD = 0, KIND_SYSCALL = 1, KIND_FAULT = 2, KIND_INTERRUPT = 3, KIND_CALLED = 4, KIND_NEWBORN = 6 };
enum slot_action { ACTION_RESUME = 0, ACTION_REPORT = 1 };

/* Pseudo call numbers in a call list, above any Linux number. */
#define CALL_FORK 0x10000
#define CALL_CLONE 0x10001
#define CALL_COMPARE_EXCHANGE 0x10002

struct host_call {
    uint64_t number;
    uint64_t arguments[6];
    int64_t result;
    uint32_t lends_descriptor; /* close it, the fifth argument, afterwards */
    uint32_t unused;
};

struct control {
    uint32_t state;      /* enum slot_state */
    uint32_t spin_usable; /* 0: ring the doorbell at once */
    uint64_t spin_cycles; /* how long to spin for an answer before ringing */
    uint64_t frame;      /* guest address of the ucontext */
    uint32_t signo;
    uint32_t action;     /* enum slot_action */
    uint32_t call_count;
    uint32_t calls_done; /* how many ran; fewer than call_count: the last of them failed */
    uint32_t phase;      /* enum slot_phase: a new trap, no frame yet, or back from the call list */
    uint32_t unused;
    struct host_call calls[MAX_CALLS];
};

_Static_assert(sizeof(struct control) <= CONTROL_SIZE, "the control block must fit above the alternate stack");

#define ALTSTACK_SIZE (SLOT_SIZE - CONTROL_SIZE)

#endif
