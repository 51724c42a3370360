"""Signal actions, masks, waits and returns: signal(7). Sending is in ``kill.py``."""

from __future__ import annotations

import struct

from asyncsentry.abi import signal_h as abi
from asyncsentry.abi.time_h import TIMESPEC
from asyncsentry.clock import NS_PER_SECOND
from asyncsentry.errnos import EAGAIN, EINTR, EINVAL, Interrupted, LinuxError, TimedOut
from asyncsentry.syscalls.args import Int, Pointer, Signal, Size
from asyncsentry.syscalls.registry import NO_RESULT, Restart, syscall
from asyncsentry.tasks.signals import discard_ignored, force_signal
from asyncsentry.tasks.signals.actions import Action, bit
from asyncsentry.tasks.signals.altstack import describe_alt_stack, set_alt_stack
from asyncsentry.tasks.signals.frame import pop_frame
from asyncsentry.tasks.signals.siginfo import SigInfo
from asyncsentry.tasks.signals.state import AltStack
from asyncsentry.tasks.thread import Thread
from asyncsentry.waiter import POLLIN

_UNBLOCKABLE = (abi.SIGKILL, abi.SIGSTOP)
_UNBLOCKABLE_MASK = bit(abi.SIGKILL) | bit(abi.SIGSTOP)
_ALT_STACK = struct.Struct("<QI4xQ")


@syscall(13, errnos="EFAULT EINVAL")
def rt_sigaction(thread: Thread, signo: Signal, act: Pointer, oldact: Pointer, sigsetsize: Size) -> int:
    """rt_sigaction(2): the set's size first, then the new action is read, then the signal number is looked at."""
    _check_size(sigsetsize)
    new = None
    if act:
        handler, flags, restorer, mask = thread.memory.read_struct(act, abi.SIGACTION)
        new = Action(handler, flags & abi.SA_KNOWN, restorer, mask & ~_UNBLOCKABLE_MASK)
    if not 1 <= signo <= abi.NSIG or (new and signo in _UNBLOCKABLE):
        raise EINVAL(f"no action for signal {signo}")
    actions = thread.process.signals.actions
    old = actions[signo]
    if new:
        actions[signo] = new
        if actions.ignores(signo):
            discard_ignored(thread.process, signo)
    if oldact:
        thread.memory.write_struct(oldact, abi.SIGACTION, *old)
    return 0


@syscall(14, errnos="EFAULT EINVAL")
def rt_sigprocmask(thread: Thread, how: Int, new_set: Pointer, oldset: Pointer, sigsetsize: Size) -> int:
    """rt_sigprocmask(2)."""
    _check_size(sigsetsize)
    old = thread.signal_mask
    if new_set:
        mask = thread.memory.read_u64(new_set)
        if how == abi.SIG_BLOCK:
            thread.signal_mask = old | mask
        elif how == abi.SIG_UNBLOCK:
            thread.signal_mask = old & ~mask
        elif how == abi.SIG_SETMASK:
            thread.signal_mask = mask
        else:
            raise EINVAL(f"how is {how}")
    if oldset:
        thread.memory.write_u64(oldset, old)
    return 0


@syscall(15)
def rt_sigreturn(thread: Thread) -> None:
    """rt_sigreturn(2): a frame that makes no sense is answered with SIGSEGV."""
    try:
        pop_frame(thread)
    except LinuxError:
        force_signal(thread, SigInfo(abi.SIGSEGV, abi.SI_KERNEL))
    return NO_RESULT


@syscall(127, errnos="EFAULT EINVAL")
def rt_sigpending(thread: Thread, pending: Pointer, sigsetsize: Size) -> int:
    """rt_sigpending(2): what waits and is blocked, in as many bytes as asked for."""
    if sigsetsize > abi.SIGSET_SIZE:
        raise EINVAL(f"a signal set of {sigsetsize} bytes")
    mask = thread.pending_signals & thread.signal_mask
    thread.memory.write(pending, mask.to_bytes(abi.SIGSET_SIZE, "little")[:sigsetsize])
    return 0


@syscall(128, errnos="EAGAIN EFAULT EINTR EINVAL", restart=Restart.EINTR)
async def rt_sigtimedwait(thread: Thread, wanted: Pointer, info: Pointer, wait: Pointer, sigsetsize: Size) -> int:
    """rt_sigtimedwait(2): takes one of ``wanted`` from the queues instead of having it delivered."""
    _check_size(sigsetsize)
    mask = thread.memory.read_u64(wanted)
    deadline_ns = _read_deadline(thread, wait) if wait else None
    found = await _wait_signal(thread, mask, deadline_ns)
    if info:
        thread.memory.write(info, found.to_bytes())
    return found.signo


async def _wait_signal(thread: Thread, mask: int, deadline_ns: int | None) -> SigInfo:
    while (found := thread.take_pending_signal(mask)) is None:
        if deadline_ns is not None and thread.kernel.clock.now_ns() >= deadline_ns:
            raise EAGAIN("no signal within the time")
        try:
            await thread.block(thread.signal_queue, POLLIN, deadline_ns)
        except TimedOut:
            continue
        except Interrupted:
            # A signal that is not blocked ends the wait, too; it may be one of those waited for.
            if (found := thread.take_pending_signal(mask)) is None:
                raise
            return found
    return found


@syscall(130, errnos="EFAULT EINVAL", restart=Restart.NOHAND)
async def rt_sigsuspend(thread: Thread, mask: Pointer, sigsetsize: Size) -> int:
    """rt_sigsuspend(2): ends only by a handler, so always with EINTR."""
    _check_size(sigsetsize)
    with thread.temporary_signal_mask(thread.memory.read_u64(mask)):
        await thread.block_any(())
    return 0


@syscall(34, restart=Restart.NOHAND)
async def pause(thread: Thread) -> int:
    """pause(2)."""
    await thread.block_any(())
    return 0


@syscall(131, errnos="EFAULT EINVAL ENOMEM EPERM")
def sigaltstack(thread: Thread, new: Pointer, old: Pointer) -> int:
    """sigaltstack(2)."""
    stack = AltStack(*thread.memory.read_struct(new, _ALT_STACK)) if new else None
    stack_pointer = thread.context.get_registers().rsp
    present = describe_alt_stack(thread, stack_pointer)
    if stack is not None:
        set_alt_stack(thread, stack, stack_pointer)
    if old:
        thread.memory.write_struct(old, _ALT_STACK, *present)
    return 0


@syscall(219, errnos="EINTR", restart=Restart.BLOCK)
async def restart_syscall(thread: Thread) -> int:
    """restart_syscall(2): goes on with what a signal without a handler interrupted."""
    if thread.restart is None:
        raise EINTR("nothing to restart")
    return await thread.restart()


def _check_size(sigsetsize: int) -> None:
    if sigsetsize != abi.SIGSET_SIZE:
        raise EINVAL(f"a signal set of {sigsetsize} bytes")


def _read_deadline(thread: Thread, address: int) -> int:
    seconds, nanoseconds = thread.memory.read_struct(address, TIMESPEC)
    if seconds < 0 or not 0 <= nanoseconds < NS_PER_SECOND:
        raise EINVAL(f"timeout of {seconds} s, {nanoseconds} ns")
    return thread.kernel.clock.now_ns() + int(seconds) * NS_PER_SECOND + int(nanoseconds)
