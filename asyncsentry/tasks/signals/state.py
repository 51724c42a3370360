"""The signal state of processes and threads.

A thread's :attr:`~SignalReceiver.interrupt_pending` is Linux's TIF_SIGPENDING: true while something waits that
the thread must deliver (or stop, or leave for). Whoever changes what is pending or blocked calls
:meth:`SignalReceiver.recalculate`; the ``signal_mask`` property does it by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from asyncsentry.abi import signal_h as abi
from asyncsentry.errnos import Interrupted
from asyncsentry.platforms.base import Fault
from asyncsentry.tasks.block import Blocker
from asyncsentry.tasks.signals.actions import ALL_SIGNALS, UNBLOCKABLE, ActionTable, bit
from asyncsentry.tasks.signals.pending import PendingSignals, QueuedCounts
from asyncsentry.waiter import WaitQueue

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel
    from asyncsentry.platforms.base import Context
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.signals.siginfo import SigInfo


class AltStack(NamedTuple):
    """An alternate signal stack, sigaltstack(2)."""

    address: int = 0
    flags: int = abi.SS_DISABLE
    size: int = 0

    def holds(self, stack_pointer: int) -> bool:
        """Whether a stack pointer lies in it, whatever the flags say."""
        return self.address < stack_pointer <= self.address + self.size

    def flags_at(self, stack_pointer: int) -> int:
        """Gives SS_DISABLE, SS_ONSTACK or 0 for a thread with this stack pointer."""
        if not self.size:
            return abi.SS_DISABLE
        if self.flags & abi.SS_AUTODISARM:
            return 0
        return abi.SS_ONSTACK if self.holds(stack_pointer) else 0


class SignalState:
    """What the threads of a process share: actions, and signals for any of them."""

    __slots__ = ("actions", "counts", "is_unkillable", "pending", "stop_queue")

    def __init__(self, counts: QueuedCounts, actions: ActionTable | None = None, is_unkillable: bool = False) -> None:
        self.counts = counts
        self.actions = actions or ActionTable()
        """One object in all processes that CLONE_SIGHAND binds together."""
        self.pending = PendingSignals(counts)
        self.is_unkillable = is_unkillable
        """Whether signals it has no handler for do nothing to it: pid 1, pid_namespaces(7)."""
        self.stop_queue = WaitQueue()
        """Notified with POLLIN when a stopped process goes on."""

    def copy(self, share_actions: bool = False) -> SignalState:
        """Gives the state of a new process: the same actions, nothing pending."""
        return SignalState(self.counts, self.actions if share_actions else self.actions.copy())

    def reset_on_exec(self) -> None:
        """Forgets handlers, which are gone with the old program; also ends sharing with other processes."""
        self.actions = self.actions.after_exec()


class SignalReceiver(Blocker):
    """The signal half of a guest thread."""

    process: Process
    context: Context
    kill_pending: bool

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._signal_mask = 0
        self.saved_signal_mask: int | None = None
        """The mask to go back to after a handler, while sigsuspend(2), ppoll(2) and kin have theirs in place."""
        self.pending = PendingSignals(kernel.queued_signals)
        """Signals for this thread alone; those for any thread are in ``process.signals.pending``."""
        self.alt_stack = AltStack()
        self.signal_queue = WaitQueue()
        """Notified with POLLIN when a signal arrives for it, blocked or not: signalfd(2), sigtimedwait(2)."""
        self.last_fault = Fault(0, 0, 0, 0, 0)
        """The processor's last complaint, for the machine context of signal frames."""
        self.is_stopped = False
        """Whether it takes part in a stop of its process (state T in /proc)."""

    @property
    def signal_mask(self) -> int:
        """The signals it blocks."""
        return self._signal_mask

    @signal_mask.setter
    def signal_mask(self, mask: int) -> None:
        mask &= ALL_SIGNALS & ~UNBLOCKABLE
        newly_blocked = mask & ~self._signal_mask
        self._signal_mask = mask
        if self.interrupt_pending and newly_blocked:
            self._hand_on(newly_blocked)
        self.recalculate()

    @property
    def pending_signals(self) -> int:
        """The mask of all signals waiting for it or for its process, blocked or not."""
        return self.pending.mask | self.process.signals.pending.mask

    @property
    def is_dying(self) -> bool:
        """Whether nothing it does can matter any more, fatal_signal_pending(): long copies end early."""
        return self.interrupt_pending and (
            self.kill_pending or self.process.group_exit_status is not None
            or bool(self.pending_signals & bit(abi.SIGKILL)))

    def recalculate(self) -> None:
        """Works out :attr:`interrupt_pending` afresh."""
        process = self.process
        self.interrupt_pending = bool(
            (self.pending.mask | process.signals.pending.mask) & ~self._signal_mask
            or process.stop_signal
            or self.kill_pending
            or process.group_exit_status is not None
        )

    def kick(self) -> None:
        """Makes the thread come to where signals are delivered, from a wait or from guest code."""
        self.interrupt_pending = True
        if self.is_blocked:
            self.interrupt()
        else:
            self.context.interrupt()

    def take_pending_signal(self, mask: int) -> SigInfo | None:
        """Removes and gives the next waiting signal among ``mask``, the thread's own first."""
        mask &= ~UNBLOCKABLE
        info = self.pending.take(mask) or self.process.signals.pending.take(mask)
        if info is not None:
            self.recalculate()
        return info

    def inherit_signals(self, parent: SignalReceiver, shares_memory: bool) -> None:
        """Takes over what clone(2) passes on: the mask, and the alternate stack if it has its own copy of it."""
        self.signal_mask = parent.signal_mask
        if not shares_memory:
            self.alt_stack = parent.alt_stack

    @contextmanager
    def temporary_signal_mask(self, mask: int | None) -> Iterator[None]:
        """Has another mask in place for one wait: ppoll(2), pselect(2), epoll_pwait(2); ``None`` changes nothing.

        After an interruption the mask stays until delivery has chosen the signal that caused it.
        """
        if mask is None:
            yield
            return
        self.saved_signal_mask = self.signal_mask
        self.signal_mask = mask
        try:
            yield
        except Interrupted:
            raise
        except BaseException:
            self.restore_signal_mask()
            raise
        self.restore_signal_mask()

    def restore_signal_mask(self) -> None:
        """Ends a temporary mask; a no-op if none is in place."""
        if self.saved_signal_mask is not None:
            self.signal_mask, self.saved_signal_mask = self.saved_signal_mask, None

    def _hand_on(self, newly_blocked: int) -> None:
        """Lets another thread take what was sent to the process and this thread will not take now.

        The kernel's retarget_shared_pending().
        """
        waiting = self.process.signals.pending.mask & newly_blocked
        if not waiting:
            return
        for other in self.process.threads.values():
            if other is not self and waiting & ~other.signal_mask and other.exit_status is None:
                other.kick()
                waiting &= other.signal_mask
                if not waiting:
                    return
