"""Readiness: who waits for what, and how they learn of it.

A :class:`WaitQueue` belongs to an object whose state can change (a pipe, a socket, a child list).
A :class:`Waiter` is one interest in it: a mask of ``POLL*`` bits and a callback that is called,
synchronously and at most once per change, from :meth:`WaitQueue.notify`. Callbacks never run guest
code and never block: they mark something ready (a thread, an epoll item) and return.

The rule that makes lost wake-ups impossible: between a failed ``try_*`` and :meth:`WaitQueue.add`
there is no ``await``. After poll(2), and gVisor's and Linux's wait queues.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

POLLIN = 0x001
POLLPRI = 0x002
POLLOUT = 0x004
POLLERR = 0x008
POLLHUP = 0x010
POLLNVAL = 0x020
POLLRDNORM = 0x040
POLLRDBAND = 0x080
POLLWRNORM = 0x100
POLLWRBAND = 0x200
POLLMSG = 0x400
POLLRDHUP = 0x2000

READABLE = POLLIN | POLLRDNORM
WRITABLE = POLLOUT | POLLWRNORM
ALWAYS = POLLERR | POLLHUP
"""Reported whether asked for or not, poll(2)."""


class Waiter:
    """One interest in a queue: ``callback(mask)`` runs when any bit of ``mask`` becomes ready.

    The callback of an exclusive waiter may answer ``False``: nobody was waiting there, tell the next one too.
    """

    __slots__ = ("callback", "exclusive", "mask")

    def __init__(self, callback: Callable[[int], object], mask: int, exclusive: bool = False) -> None:
        self.callback = callback
        self.mask = mask
        self.exclusive = exclusive


class WaitQueue:
    """The waiters of one object, in order of arrival. Costs one attribute until someone waits."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[Waiter] | None = None

    def add(self, waiter: Waiter) -> None:
        """Adds a waiter at the end; adding one twice is a bug of the caller."""
        if self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Removes a waiter; one that is not there (any more) is no error."""
        if self._waiters and waiter in self._waiters:
            self._waiters.remove(waiter)

    def notify(self, mask: int) -> None:
        """Tells every waiter interested in ``mask``; of exclusive waiters only the first, unless something ended."""
        if not self._waiters:
            return
        exclusive_woken = False
        for waiter in tuple(self._waiters):
            if not waiter.mask & mask or (waiter.exclusive and exclusive_woken):
                continue
            was_there = waiter.callback(mask) is not False
            exclusive_woken = exclusive_woken or (was_there and waiter.exclusive and not mask & ALWAYS)

    def wanted(self) -> int:
        """Gives the bits anybody waits for."""
        mask = 0
        for waiter in self._waiters or ():
            mask |= waiter.mask
        return mask

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def __len__(self) -> int:
        return len(self._waiters or ())


class BlockContext(Protocol):
    """All that file systems and the network stack see of a guest thread that waits."""

    async def block(self, queue: WaitQueue, mask: int, deadline_ns: int | None = None) -> None:
        """Waits until ``queue`` reports any bit of ``mask``.

        ``deadline_ns`` is on CLOCK_MONOTONIC. Raises ``Interrupted`` or ``TimedOut``. Joins the
        queue before its first suspension, so ``try, block, try again`` loses no wake-up. May
        return spuriously: always try again.
        """
