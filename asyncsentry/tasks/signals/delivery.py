"""Delivering signals: the last thing before a thread goes back to guest code. signal(7).

After Linux's get_signal(), handle_signal() and arch_do_signal_or_restart().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi import signal_h as abi
from asyncsentry.errnos import EINTR, LinuxError
from asyncsentry.tasks.signals.actions import UNBLOCKABLE, Action, Default, bit, default_action
from asyncsentry.tasks.signals.force import force_kill, force_signal
from asyncsentry.tasks.signals.frame import push_frame
from asyncsentry.tasks.signals.siginfo import SigInfo
from asyncsentry.tasks.signals.stop import begin_stop, is_orphaned, wait_while_stopped

if TYPE_CHECKING:
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread

ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK = -512, -513, -514, -516
RESTARTS = frozenset((ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK))
"""Results that must not reach a guest: whether they become EINTR or another try is decided here."""

_RESTART_SYSCALL = 219
_SYSCALL_INSTRUCTION_SIZE = 2
_ADDRESS_MASK = (1 << 64) - 1


async def deliver(thread: Thread, result: int | None, from_syscall: bool) -> None:
    """Makes a trapped thread ready to run on: settles the call it is in, enters handlers, stops or ends it.

    ``result`` is what its system call gave (``None`` if it has set the registers itself). The run loop calls
    this before it resumes a thread whose ``interrupt_pending`` is true, that has a ``saved_signal_mask``, or whose
    result is in :data:`RESTARTS`. When the thread is to end, this returns with ``thread.exit_status`` set, and
    the thread must not be resumed.
    """
    if not from_syscall:
        result = None
    elif result is not None:
        result = await thread.memory.settle(thread.context, result)
    while True:
        while (chosen := await _next_handled(thread)) is not None:
            info, action = chosen
            _settle_call(thread, result, action)
            result = None
            await _enter_handler(thread, info, action)
        if _is_leaving(thread):
            return
        _settle_call(thread, result, None)
        result = None
        thread.restore_signal_mask()
        thread.recalculate()
        if not thread.interrupt_pending:
            return


async def _next_handled(thread: Thread) -> tuple[SigInfo, Action] | None:
    """Takes signals, doing what needs no handler, until one has a handler; ``None`` if there is no more."""
    process = thread.process
    while True:
        if process.stop_signal:
            await wait_while_stopped(thread)
        if _is_leaving(thread) or (info := _dequeue(thread)) is None:
            return None
        action = process.signals.actions[info.signo]
        if info.signo == abi.SIGKILL:
            _terminate(process, info.signo)
        elif action.handler == abi.SIG_DFL:
            _do_default(process, info)
        elif action.handler != abi.SIG_IGN:
            if action.flags & abi.SA_RESETHAND:
                process.signals.actions[info.signo] = action._replace(handler=abi.SIG_DFL)
            return info, action


def _dequeue(thread: Thread) -> SigInfo | None:
    unblocked = ~thread.signal_mask
    own, shared = thread.pending, thread.process.signals.pending
    return own.take_fault(unblocked) or own.take(unblocked) or shared.take(unblocked)


def _do_default(process: Process, info: SigInfo) -> None:
    kind = default_action(info.signo)
    if kind in (Default.IGNORE, Default.CONTINUE):
        return
    if process.signals.is_unkillable and not (bit(info.signo) & UNBLOCKABLE and info.comes_from_outside):
        return
    if kind is Default.STOP:
        if info.signo == abi.SIGSTOP or not is_orphaned(process.group):
            begin_stop(process, info.signo)
        return
    _terminate(process, info.signo)


def _terminate(process: Process, signo: int) -> None:
    """Begins to end a process. No core is dumped, so the status never has the core flag, as with RLIMIT_CORE 0."""
    from asyncsentry.tasks.exit import begin_group_exit  # exit.py needs this package

    begin_group_exit(process, signo)


def _is_leaving(thread: Thread) -> bool:
    return thread.exit_status is not None or thread.kill_pending


def _settle_call(thread: Thread, result: int | None, action: Action | None) -> None:
    """Puts what the call gave into the registers, or has it made again; ``action`` is the handler to run first."""
    if result is None:
        return
    context = thread.context
    if result not in RESTARTS:
        context.set_result(result)
    elif action is not None and not _is_restarted_after(result, action):
        context.set_result(-EINTR.errno)
    else:
        registers = context.get_registers()
        registers.rip = (registers.rip - _SYSCALL_INSTRUCTION_SIZE) & _ADDRESS_MASK
        registers.rax = _RESTART_SYSCALL if result == ERESTART_RESTARTBLOCK else context.number
        context.set_registers(registers)


def _is_restarted_after(result: int, action: Action) -> bool:
    return result == ERESTARTNOINTR or (result == ERESTARTSYS and bool(action.flags & abi.SA_RESTART))


async def _enter_handler(thread: Thread, info: SigInfo, action: Action) -> None:
    """Has the guest run its handler next, with the signals blocked that sigaction(2) asks for."""
    try:
        await push_frame(thread, action, info)
    except LinuxError:
        # There is no stack to put the frame on. A handler for SIGSEGV may have another (SA_ONSTACK).
        if info.signo == abi.SIGSEGV:
            force_kill(thread, abi.SIGSEGV)
        else:
            force_signal(thread, SigInfo(abi.SIGSEGV, abi.SI_KERNEL))
        return
    thread.saved_signal_mask = None
    blocked = action.mask if action.flags & abi.SA_NODEFER else action.mask | bit(info.signo)
    thread.signal_mask |= blocked
