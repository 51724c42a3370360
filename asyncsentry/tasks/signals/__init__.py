"""Signals: sending, waiting for, and delivering them. signal(7).

Tour: ``siginfo.py`` is what travels, ``actions.py`` what a process does about it, ``pending.py`` where it waits,
``state.py`` the parts of process and thread that belong to signals. ``send.py`` puts one in (``force.py`` if it
cannot be escaped), ``delivery.py`` takes it out just before guest code runs on: ``frame.py`` builds what a handler
finds, ``stop.py`` halts a process, ``altstack.py`` is sigaltstack(2).
"""

from asyncsentry.tasks.signals.actions import ALL_SIGNALS, Action, ActionTable, bit, mask_of
from asyncsentry.tasks.signals.delivery import RESTARTS, deliver
from asyncsentry.tasks.signals.force import force_fault, force_kill, force_signal
from asyncsentry.tasks.signals.send import (
    continue_process,
    discard_ignored,
    notify_parent,
    raise_signal,
    send_to_group,
    send_to_process,
    send_to_thread,
    thread_leaving,
)
from asyncsentry.tasks.signals.siginfo import SigInfo, fault_to_siginfo
from asyncsentry.tasks.signals.state import AltStack, SignalReceiver, SignalState
from asyncsentry.tasks.signals.stop import finish_stop, is_orphaned, wait_while_stopped

__all__ = [
    "ALL_SIGNALS", "RESTARTS", "Action", "ActionTable", "AltStack", "SigInfo", "SignalReceiver", "SignalState", "bit",
    "continue_process", "deliver", "discard_ignored", "fault_to_siginfo", "finish_stop", "force_fault", "force_kill",
    "force_signal", "is_orphaned", "mask_of", "notify_parent", "raise_signal", "send_to_group", "send_to_process",
    "send_to_thread", "thread_leaving", "wait_while_stopped",
]  # fmt: skip
