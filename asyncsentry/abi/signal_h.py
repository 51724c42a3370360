"""Signals: numbers, flags, codes and layouts. asm/signal.h, asm-generic/siginfo.h, linux/signalfd.h."""

from __future__ import annotations

from struct import Struct

NSIG = 64
SIGSET_SIZE = 8
"""The only ``sigsetsize`` the calls accept."""

SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE = range(1, 9)
SIGKILL, SIGUSR1, SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGSTKFLT = range(9, 17)
SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGXCPU = range(17, 25)
SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH, SIGIO, SIGPWR, SIGSYS = range(25, 32)
SIGPOLL = SIGIO
SIGRTMIN = 32
"""The kernel's first real-time signal; libc keeps the first ones for itself."""
SIGRTMAX = 64

NAMES = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
    9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
    16: "SIGSTKFLT", 17: "SIGCHLD", 18: "SIGCONT", 19: "SIGSTOP", 20: "SIGTSTP", 21: "SIGTTIN", 22: "SIGTTOU",
    23: "SIGURG", 24: "SIGXCPU", 25: "SIGXFSZ", 26: "SIGVTALRM", 27: "SIGPROF", 28: "SIGWINCH", 29: "SIGIO",
    30: "SIGPWR", 31: "SIGSYS",
}  # fmt: skip

SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = range(3)
SIG_DFL, SIG_IGN = 0, 1

SA_NOCLDSTOP = 0x1
SA_NOCLDWAIT = 0x2
SA_SIGINFO = 0x4
SA_EXPOSE_TAGBITS = 0x800
SA_RESTORER = 0x0400_0000
SA_ONSTACK = 0x0800_0000
SA_RESTART = 0x1000_0000
SA_NODEFER = 0x4000_0000
SA_RESETHAND = 0x8000_0000
SA_KNOWN = (SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_EXPOSE_TAGBITS | SA_RESTORER | SA_ONSTACK | SA_RESTART
            | SA_NODEFER | SA_RESETHAND)
"""Flags that sigaction(2) keeps; it drops the others, so that programs can tell what is supported."""

SS_ONSTACK = 1
SS_DISABLE = 2
SS_AUTODISARM = 1 << 31
MINSIGSTKSZ = 2048

SI_USER = 0
SI_KERNEL = 0x80
SI_QUEUE = -1
SI_TIMER = -2
SI_MESGQ = -3
SI_ASYNCIO = -4
SI_SIGIO = -5
SI_TKILL = -6

ILL_ILLOPC = 1
ILL_ILLOPN = 2
FPE_INTDIV, FPE_INTOVF, FPE_FLTDIV, FPE_FLTOVF, FPE_FLTUND, FPE_FLTRES, FPE_FLTINV, FPE_FLTSUB = range(1, 9)
SEGV_MAPERR, SEGV_ACCERR, SEGV_BNDERR, SEGV_PKUERR = range(1, 5)
BUS_ADRALN, BUS_ADRERR, BUS_OBJERR = range(1, 4)
TRAP_BRKPT, TRAP_TRACE, TRAP_BRANCH, TRAP_HWBKPT = range(1, 5)
CLD_EXITED, CLD_KILLED, CLD_DUMPED, CLD_TRAPPED, CLD_STOPPED, CLD_CONTINUED = range(1, 7)
POLL_IN, POLL_OUT, POLL_MSG, POLL_ERR, POLL_PRI, POLL_HUP = range(1, 7)
SYS_SECCOMP = 1
SYS_USER_DISPATCH = 2

AUDIT_ARCH_X86_64 = 0xC000_003E

SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD = range(3)
SIGEV_THREAD_ID = 4

PIDFD_SIGNAL_THREAD, PIDFD_SIGNAL_THREAD_GROUP, PIDFD_SIGNAL_PROCESS_GROUP = 1, 2, 4

SIGINFO_SIZE = 128
KERNEL_SIGINFO_SIZE = 48
"""How much of a siginfo_t Linux itself keeps; the rest is always zero."""

SIGACTION = Struct("<QQQQ")
"""struct sigaction as the kernel has it: handler, flags, restorer, mask."""
STACK = Struct("<Qi4xQ")
"""stack_t: ss_sp, ss_flags, ss_size."""
SIGINFO_HEAD = Struct("<iii4x")
"""si_signo, si_errno, si_code, and padding up to the union."""
SIGINFO_KILL = Struct("<II")
SIGINFO_TIMER = Struct("<iiQ")
"""si_timerid, si_overrun, si_value."""
SIGINFO_RT = Struct("<IIQ")
SIGINFO_CHILD = Struct("<IIi4xqq")
"""si_pid, si_uid, si_status, si_utime, si_stime (clock ticks)."""
SIGINFO_FAULT = Struct("<QQQI")
"""si_addr, two words for bounds, protection key."""
SIGINFO_POLL = Struct("<qi")
SIGINFO_SYS = Struct("<QiI")
SIGEVENT = Struct("<QiiI44x")
"""struct sigevent: sigev_value, sigev_signo, sigev_notify, sigev_notify_thread_id."""
SIGSET_ARGUMENT = Struct("<QQ")
"""The pair pselect6(2) takes: pointer to the set, its size."""
