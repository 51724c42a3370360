"""Queues of signals that wait to be delivered, and how many one user may have waiting.

Below SIGRTMIN a signal waits once, whoever sends it how often; real-time signals wait each and in order, signal(7).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from asyncsentry.tasks.signals.actions import SYNCHRONOUS, bit
from asyncsentry.tasks.signals.siginfo import SigInfo


class QueuedCounts:
    """How many signals each real user has queued, RLIMIT_SIGPENDING. One per kernel."""

    __slots__ = ("by_uid",)

    def __init__(self) -> None:
        self.by_uid: dict[int, int] = {}

    def charge(self, info: SigInfo, uid: int, limit: int) -> bool:
        """Counts a signal against its receiver's user; ``False`` if that user is at the limit."""
        count = self.by_uid.get(uid, 0)
        if count >= limit:
            return False
        self.by_uid[uid] = count + 1
        info.charged_uid = uid
        return True

    def discharge(self, info: SigInfo) -> None:
        """Takes a signal that left its queue off the count."""
        if info.charged_uid is not None:
            self.by_uid[info.charged_uid] -= 1
            info.charged_uid = None


class PendingSignals:
    """The signals waiting for one thread, or for any thread of one process."""

    __slots__ = ("_counts", "_queues", "mask")

    def __init__(self, counts: QueuedCounts) -> None:
        self.mask = 0
        """The bits of all that wait here."""
        self._queues: dict[int, deque[SigInfo]] = {}
        self._counts = counts

    def add(self, info: SigInfo) -> None:
        """Queues a signal at the end of its kind."""
        self._queues.setdefault(info.signo, deque()).append(info)
        self.mask |= bit(info.signo)

    def take(self, wanted: int) -> SigInfo | None:
        """Removes and gives the next signal among ``wanted``: faults first, then the lowest number."""
        candidates = self.mask & wanted
        if not candidates:
            return None
        candidates = candidates & SYNCHRONOUS or candidates
        signo = (candidates & -candidates).bit_length()
        info = self._queues[signo].popleft()
        self._left(signo, (info,))
        return info

    def take_fault(self, wanted: int) -> SigInfo | None:
        """Removes and gives the first signal that the thread's own instruction caused, if one waits."""
        candidates = self.mask & wanted & SYNCHRONOUS
        while candidates:
            signo = (candidates & -candidates).bit_length()
            for info in self._queues[signo]:
                if info.is_synchronous:
                    self._queues[signo].remove(info)
                    self._left(signo, (info,))
                    return info
            candidates &= candidates - 1
        return None

    def discard(self, unwanted: int) -> None:
        """Throws away everything among ``unwanted``."""
        candidates = self.mask & unwanted
        while candidates:
            signo = (candidates & -candidates).bit_length()
            candidates &= candidates - 1
            gone = tuple(self._queues[signo])
            self._queues[signo].clear()
            self._left(signo, gone)

    def __iter__(self) -> Iterator[SigInfo]:
        for queue in self._queues.values():
            yield from queue

    def _left(self, signo: int, gone: tuple[SigInfo, ...]) -> None:
        if not self._queues[signo]:
            del self._queues[signo]
            self.mask &= ~bit(signo)
        for info in gone:
            self._counts.discharge(info)
            if info.source is not None:
                info.source.signal_taken(info)
