"""Guests that cannot be interrupted: those that have blocked the host signal we make threads trap with.

Guest code can return from a signal with a mask of its choice. A thread that runs on and on with our signal blocked
will never trap, not even to be killed, so its host process is. The stub, too, runs with signals blocked, but for
microseconds: what tells the two apart is processor time. And it sleeps only once its trap was taken: who sleeps in
futex(2) with signals blocked and has not trapped does so of its own accord, through the stub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.platforms._native import lib

if TYPE_CHECKING:
    import asyncio

    from asyncsentry.platforms.systrap.context import SystrapContext
    from asyncsentry.platforms.systrap.platform import SystrapPlatform

CHECK_S = 0.5
BUSY_TICKS = 10
"""Clock ticks (hundredths of a second) between two checks that the stub cannot have used."""
SYS_FUTEX = 202
_SIGNAL_BIT = 1 << (lib.INTERRUPT_SIGNAL - 1)


class Watchdog:
    """Looks again at threads that were interrupted until they have trapped."""

    def __init__(self, platform: SystrapPlatform) -> None:
        self._platform = platform
        self._expected: dict[SystrapContext, int | None] = {}
        """Threads that should trap, with the processor time they had used at the last check."""
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, context: SystrapContext) -> None:
        """Watches a thread that has just been interrupted."""
        self._expected.setdefault(context)
        if self._timer is None:
            self._timer = self._platform.loop.call_later(CHECK_S, self._check)

    def close(self) -> None:
        """Stops watching."""
        self._expected.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        expected, self._expected = self._expected, {}
        for context, used_before in expected.items():
            if not context.is_interrupted or context.space.is_dead:
                continue
            try:
                used, is_blocked = _processor_time(context), _blocks_interrupt(context)
                sleeps = is_blocked and _sleeps_on_a_futex(context)
            except OSError:  # it has gone
                continue
            if is_blocked and used_before is not None and (sleeps or used - used_before >= BUSY_TICKS):
                self._platform.kill(context.space)
                continue
            self._expected[context] = used if is_blocked else None
            lib.thread_kill(context.space.host_pid, context.host_tid, lib.INTERRUPT_SIGNAL)
        if self._expected and self._timer is None:
            self._timer = self._platform.loop.call_later(CHECK_S, self._check)


def _processor_time(context: SystrapContext) -> int:
    with open(f"/proc/{context.space.host_pid}/task/{context.host_tid}/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12])


def _sleeps_on_a_futex(context: SystrapContext) -> bool:
    """Whether it is in a futex(2) of the host's; one that was woken and waits for a processor is not."""
    with open(f"/proc/{context.space.host_pid}/task/{context.host_tid}/syscall", "rb") as syscall:
        return syscall.read().split(maxsplit=1)[0] == b"%d" % SYS_FUTEX


def _blocks_interrupt(context: SystrapContext) -> bool:
    with open(f"/proc/{context.space.host_pid}/task/{context.host_tid}/status", "rb") as status:
        for line in status:
            if line.startswith(b"SigBlk:"):
                return bool(int(line.split()[1], 16) & _SIGNAL_BIT)
    return False
