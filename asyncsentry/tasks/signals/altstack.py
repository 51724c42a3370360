"""Changing the alternate signal stack: sigaltstack(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi import signal_h as abi
from asyncsentry.errnos import EINVAL, ENOMEM, EPERM
from asyncsentry.tasks.signals.state import AltStack

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread

_FLAG_BITS = abi.SS_AUTODISARM


def describe_alt_stack(thread: Thread, stack_pointer: int) -> AltStack:
    """Gives the stack as sigaltstack(2) tells it, with SS_ONSTACK if the thread runs on it."""
    stack = thread.alt_stack
    return stack._replace(flags=stack.flags_at(stack_pointer) | stack.flags & _FLAG_BITS)


def set_alt_stack(thread: Thread, new: AltStack, stack_pointer: int) -> None:
    """Changes a thread's alternate stack: EPERM while it runs on it, EINVAL for flags, ENOMEM if too small."""
    flags = new.flags & 0xFFFF_FFFF
    if thread.alt_stack.flags_at(stack_pointer) & abi.SS_ONSTACK:
        raise EPERM("the thread runs on its alternate stack")
    mode = flags & ~_FLAG_BITS
    if mode not in (abi.SS_DISABLE, abi.SS_ONSTACK, 0):
        raise EINVAL(f"alternate stack flags {flags:#x}")
    if mode == abi.SS_DISABLE:
        thread.alt_stack = AltStack(0, flags, 0)
        return
    if new.size < abi.MINSIGSTKSZ:
        raise ENOMEM(f"an alternate stack of {new.size} bytes")
    thread.alt_stack = AltStack(new.address, flags, new.size)
