"""Signals a thread cannot escape: what its own instruction did to it. The kernel's force_sig()."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi import signal_h as abi
from asyncsentry.platforms.base import Fault
from asyncsentry.tasks.signals.actions import Action, bit
from asyncsentry.tasks.signals.siginfo import SigInfo, fault_to_siginfo

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread


def force_signal(thread: Thread, info: SigInfo) -> None:
    """Sends a thread a signal it cannot escape: if blocked or ignored, it gets the default action.

    For what its own instruction did, the kernel's force_sig().
    """
    state, signo = thread.process.signals, info.signo
    action = state.actions[signo]
    if action.handler == abi.SIG_IGN or thread.signal_mask & bit(signo):
        action = Action(abi.SIG_DFL, action.flags, action.restorer, action.mask)
        state.actions[signo] = action
        thread.signal_mask &= ~bit(signo)
    if action.handler == abi.SIG_DFL:
        state.is_unkillable = False
    if thread.process.group_exit_status is None and not thread.pending.mask & bit(signo):
        thread.pending.add(info)
    thread.kick()


def force_fault(thread: Thread, fault: Fault) -> None:
    """Sends a thread the signal for a fault it trapped with, and keeps the fault for the frame."""
    thread.last_fault = fault
    force_signal(thread, fault_to_siginfo(fault))


def force_kill(thread: Thread, signo: int) -> None:
    """Makes a thread's process die of ``signo`` whatever it has arranged, e.g. when a frame cannot be written."""
    actions = thread.process.signals.actions
    actions[signo] = Action()
    force_signal(thread, SigInfo(signo, abi.SI_KERNEL))
