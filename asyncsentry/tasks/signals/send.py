"""Sending signals: who gets one, whether it counts, and whom it wakes. kill(2), signal(7).

After Linux's send_signal_locked(), prepare_signal() and complete_signal().
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from asyncsentry.abi import signal_h as abi
from asyncsentry.abi.resource_h import RLIMIT_SIGPENDING
from asyncsentry.errnos import EAGAIN
from asyncsentry.tasks.cputime import process_cpu_ns
from asyncsentry.tasks.signals.actions import ALL_SIGNALS, CONTINUE_SIGNAL, STOP_SIGNALS, UNBLOCKABLE, bit
from asyncsentry.tasks.signals.siginfo import SigInfo
from asyncsentry.waiter import POLLIN, READABLE

if TYPE_CHECKING:
    from asyncsentry.tasks.process import Process, ProcessGroup
    from asyncsentry.tasks.signals.pending import PendingSignals
    from asyncsentry.tasks.thread import Thread


def send_to_process(process: Process, info: SigInfo) -> bool:
    """Sends a signal to a process; ``False`` if it was dropped. EAGAIN if too many are queued, sigqueue(3).

    A process that is ending or a zombie takes it without effect.
    """
    if not process.threads or process.group_exit_status is not None:
        return False
    _prepare(process, info.signo)
    if _is_ignored(process.leader, info) or not _enqueue(process.leader, process.signals.pending, info):
        return False
    for thread in tuple(process.threads.values()):
        thread.signal_queue.notify(READABLE)
    _complete(process, info)
    return True


def send_to_thread(thread: Thread, info: SigInfo) -> bool:
    """Sends a signal to one thread; as :func:`send_to_process` otherwise."""
    if thread.exit_status is not None or thread.process.group_exit_status is not None:
        return False
    _prepare(thread.process, info.signo)
    if _is_ignored(thread, info) or not _enqueue(thread, thread.pending, info):
        return False
    thread.signal_queue.notify(READABLE)
    if info.signo == abi.SIGKILL:
        _complete(thread.process, info)
    elif _wants(thread, info.signo):
        thread.kick()
    return True


def send_to_group(group: ProcessGroup, info: SigInfo) -> None:
    """Sends a signal to every process of a group, without asking who may."""
    for process in sorted(group.members, key=lambda member: member.pid):
        send_to_process(process, _copy(info))


def signal_group(group: ProcessGroup, signo: int) -> None:
    """Sends a process group a signal of the kernel's own making (SIGINT from a terminal)."""
    send_to_group(group, SigInfo(signo, abi.SI_KERNEL))


def raise_signal(thread: Thread, signo: int) -> None:
    """Sends a thread a signal of the kernel's own making (SIGPIPE, SIGXFSZ, …)."""
    send_to_thread(thread, SigInfo(signo, abi.SI_USER, pid=thread.process.pid, uid=thread.credentials.ruid))


def continue_process(process: Process) -> None:
    """Lets a stopped process go on, as SIGCONT does however it is handled."""
    if not process.stop_signal:
        return
    was_complete = process.is_stop_complete
    process.stop_signal = 0
    process.stop_report = None
    if was_complete:
        process.continue_report = True
        notify_parent(process, abi.CLD_CONTINUED)
    process.signals.stop_queue.notify(POLLIN)


def notify_parent(process: Process, code: int) -> bool:
    """Tells a parent what became of its child: SIGCHLD (or the clone's own signal) and its waits.

    ``code`` is one of ``CLD_*``. Gives whether the parent does not want to wait for a dead child
    (SIGCHLD ignored or SA_NOCLDWAIT), which must then be reaped at once.
    """
    parent = process.parent
    if parent is None:
        return False
    is_death = code in (abi.CLD_EXITED, abi.CLD_KILLED, abi.CLD_DUMPED)
    signo = process.exit_signal if is_death else abi.SIGCHLD
    action = parent.signals.actions[abi.SIGCHLD]
    is_wanted = True
    if is_death and signo == abi.SIGCHLD and (action.handler == abi.SIG_IGN or action.flags & abi.SA_NOCLDWAIT):
        is_wanted = False
    muted = action.handler == abi.SIG_IGN or (not is_death and action.flags & abi.SA_NOCLDSTOP)
    if signo and not (signo == abi.SIGCHLD and muted):
        with suppress(EAGAIN):  # a real-time exit_signal and a full queue: lost, as in Linux
            send_to_process(parent, _child_info(process, signo, code))
    parent.child_queue.notify(POLLIN)
    return not is_wanted


def discard_ignored(process: Process, signo: int) -> None:
    """Throws away what waits of a signal that has just become ignored, sigaction(2)."""
    process.signals.pending.discard(bit(signo))
    for thread in process.threads.values():
        thread.pending.discard(bit(signo))
        if thread.interrupt_pending:
            thread.recalculate()


def thread_leaving(thread: Thread) -> None:
    """Hands on what an ending thread was to deliver for its process; call it before it leaves the table."""
    shared = thread.process.signals.pending.mask & ~thread.signal_mask
    thread.pending.discard(ALL_SIGNALS)
    thread.process.last_credentials = thread.credentials
    if len(thread.process.threads) == 1:
        thread.process.timers.release()
        thread.process.signals.pending.discard(ALL_SIGNALS)
    for other in thread.process.threads.values():
        if other is not thread and shared & ~other.signal_mask and other.exit_status is None:
            other.kick()
            shared &= other.signal_mask


def _prepare(process: Process, signo: int) -> None:
    """Does what stop and continue signals do the moment they are sent, even if blocked or ignored."""
    if bit(signo) & STOP_SIGNALS:
        _discard_everywhere(process, CONTINUE_SIGNAL)
    elif signo == abi.SIGCONT:
        _discard_everywhere(process, STOP_SIGNALS)
        continue_process(process)


def _discard_everywhere(process: Process, mask: int) -> None:
    process.signals.pending.discard(mask)
    for thread in process.threads.values():
        thread.pending.discard(mask)


def _is_ignored(thread: Thread, info: SigInfo) -> bool:
    """Whether a signal need not be queued at all, sig_ignored()."""
    signo, state = info.signo, thread.process.signals
    if thread.signal_mask & bit(signo) or (thread.saved_signal_mask or 0) & bit(signo):
        return False  # it may be unblocked after its action has changed, or be asked for
    if state.is_unkillable and state.actions[signo].handler == abi.SIG_DFL:
        return not (bit(signo) & UNBLOCKABLE and info.comes_from_outside)
    return state.actions.ignores(signo)


def _enqueue(thread: Thread, pending: PendingSignals, info: SigInfo) -> bool:
    is_realtime = info.signo >= abi.SIGRTMIN
    if info.code == abi.SI_TIMER and info.source is not None:
        pending.add(info)  # each timer's signal waits for itself, and its place was taken when the timer was made
        return True
    if not is_realtime and pending.mask & bit(info.signo):
        return False
    process = thread.process
    limit = process.limits.soft(RLIMIT_SIGPENDING)
    if not process.signals.counts.charge(info, thread.credentials.ruid, limit):
        if is_realtime and info.code != abi.SI_USER:
            raise EAGAIN(f"user {thread.credentials.ruid} has {limit} signals queued")
        if is_realtime and pending.mask & bit(info.signo):
            return False  # Linux, too, then knows only that there is one
    pending.add(info)
    return True


def _complete(process: Process, info: SigInfo) -> None:
    """Finds a thread to deliver a process's signal; complete_signal()."""
    if info.signo == abi.SIGKILL:
        for thread in tuple(process.threads.values()):
            thread.kick()
        process.signals.stop_queue.notify(READABLE)
        return
    leader = process.leader
    others = [thread for thread in process.threads.values() if thread is not leader]
    willing = [thread for thread in (leader, *others) if _wants(thread, info.signo)]
    idle = [thread for thread in willing if not thread.interrupt_pending]
    for thread in (idle or willing)[:1]:
        thread.kick()


def _wants(thread: Thread, signo: int) -> bool:
    return not thread.signal_mask & bit(signo) and thread.exit_status is None and not thread.is_stopped


def _copy(info: SigInfo) -> SigInfo:
    return SigInfo(info.signo, info.code, pid=info.pid, uid=info.uid, value=info.value, errno=info.errno, raw=info.raw)


def _child_info(process: Process, signo: int, code: int) -> SigInfo:
    wait_status = process.exit_status if process.exit_status is not None else process.group_exit_status or 0
    status = {
        abi.CLD_EXITED: wait_status >> 8 & 0xFF, abi.CLD_KILLED: wait_status & 0x7F, abi.CLD_DUMPED: wait_status & 0x7F,
        abi.CLD_CONTINUED: abi.SIGCONT,
    }.get(code, process.stop_signal)  # fmt: skip
    user_ns, system_ns = process_cpu_ns(process)
    return SigInfo(signo, code, pid=process.pid, uid=process.credentials.ruid, status=status, utime=user_ns,
                   stime=system_ns)
