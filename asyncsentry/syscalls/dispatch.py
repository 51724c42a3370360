"""Dispatch: from a trapped number to an answer, and the one place where instruments attach.

Dispatch turns a handler's outcome into what Linux returns in ``rax``: a result, ``-errno``, or one of
the internal restart numbers that signal delivery resolves (``tasks/signals``). With no instrument attached
the cost is one attribute test.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

from asyncsentry.errnos import ENOSYS, Interrupted, LinuxError, SentryBug
from asyncsentry.syscalls.registry import ROWS, Row

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread

COUNTED_MAX = 1023
"""Highest number whose calls are counted: those above are no Linux syscall's."""
_MINUS_ENOSYS = -ENOSYS.errno


class Instrument(Protocol):
    """Something that watches or changes calls: strace, hooks, injected faults, metrics."""

    def enter(self, thread: Thread, row: Row | None, number: int, arguments: tuple[int, ...]) -> int | None:
        """Runs before a call; an int answers it in the handler's place."""

    def leave(self, thread: Thread, row: Row | None, number: int, arguments: tuple[int, ...],
              result: int | None) -> int | None:
        """Runs after a call with its result and gives the result the guest gets."""


class Dispatch:
    """Answers system calls. One per kernel; the rows are shared and constant."""

    def __init__(self) -> None:
        self.rows: list[Row | None] = [ROWS.get(number) for number in range(max(ROWS, default=0) + 1)]
        self.instruments: list[Instrument] = []
        self.unimplemented: dict[int, int] = {}
        """How often each absent number was called."""

    def call(self, thread: Thread) -> Any:
        """Answers the call ``thread`` is trapped in, or begins to.

        Gives the result (``None`` if the registers are already set), or something for :meth:`finish` to await:
        calls that never block are answered without a coroutine.
        """
        if self.instruments:
            return self._call_watched(thread)
        number = thread.context.number
        row = self.rows[number] if number < len(self.rows) else None
        if row is None:
            return self._absent(number)
        try:
            return row.invoke(thread)
        except LinuxError as error:
            return -error.errno
        except Interrupted:
            return -row.restart

    async def finish(self, thread: Thread, pending: Awaitable[int | None]) -> int | None:
        """Awaits a call that :meth:`call` began."""
        number = thread.context.number
        try:
            return await pending
        except LinuxError as error:
            return -error.errno
        except Interrupted:
            row = self.rows[number]
            assert row is not None
            return -row.restart

    async def _call_watched(self, thread: Thread) -> int | None:
        number, arguments = thread.context.number, thread.context.arguments
        row = self.rows[number] if number < len(self.rows) else None
        result: int | None = None
        for instrument in self.instruments:
            if (result := instrument.enter(thread, row, number, arguments)) is not None:
                break
        else:
            result = await self._answer(thread, row, number)
        for instrument in self.instruments:
            result = instrument.leave(thread, row, number, arguments, result)
        return result

    async def _answer(self, thread: Thread, row: Row | None, number: int) -> int | None:
        if row is None:
            return self._absent(number)
        try:
            result: Any = row.invoke(thread)
            answer: int | None = result if result is None or result.__class__ is int else await result
        except LinuxError as error:
            return -error.errno
        except Interrupted:
            return -row.restart
        return answer

    def _absent(self, number: int) -> int:
        if number <= COUNTED_MAX:  # guests may call any of 2**64
            self.unimplemented[number] = self.unimplemented.get(number, 0) + 1
        return _MINUS_ENOSYS

    def describe_failure(self, thread: Thread, error: BaseException) -> SentryBug:
        """Says which call of which thread met something nobody foresaw."""
        number = thread.context.number
        row = ROWS.get(number)
        name = row.name if row else f"syscall_{number:#x}"
        arguments = ", ".join(f"{argument:#x}" for argument in thread.context.arguments)
        return SentryBug(f"{type(error).__name__} in {name}({arguments}) of thread {thread.tid}: {error}")
