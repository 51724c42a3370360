"""The registry: a syscall is declared once, by decorating the function that answers it.

``@syscall(0, errnos="EBADF EFAULT", restart=Restart.SYS)`` on ``def read(thread, fd: Fd, ...)`` is all
there is to say: the dispatch row, strace's form, the coverage page and the consistency tests derive
from it. ``def`` handlers never block; ``async def`` handlers may; a ``def`` on
a hot path may answer at once, or else give the coroutine of the rest, which may block. Numbers: asm/unistd_64.h.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from asyncsentry.syscalls import args
from asyncsentry.syscalls.args import EXPRESSIONS

Handler = TypeVar("Handler", bound=Callable[..., Any])

NO_RESULT = None
"""Returned by a handler that has set the registers itself (rt_sigreturn, execve)."""


class Restart(enum.IntEnum):
    """What an interruption by a signal becomes: Linux's internal error numbers, linux/errno.h."""

    EINTR = 4
    """Always EINTR."""
    SYS = 512
    """ERESTARTSYS: restarted if the handler has SA_RESTART or none runs."""
    NOINTR = 513
    """ERESTARTNOINTR: always restarted."""
    NOHAND = 514
    """ERESTARTNOHAND: restarted only if no handler runs."""
    BLOCK = 516
    """ERESTART_RESTARTBLOCK: as NOHAND, through restart_syscall(2): see ``Thread.restart``."""


class Support(enum.Enum):
    """How much of a call is there."""

    FULL = "supported"
    PARTIAL = "partial"
    NONE = "unsupported"


@dataclass(slots=True)
class Row:
    """All that is known of one syscall."""

    number: int
    name: str
    support: Support
    missing: str
    """What a partial call lacks, or why an absent one is absent."""
    errnos: tuple[str, ...]
    restart: Restart
    parameters: tuple[tuple[str, Any], ...]
    """Names and types of the parameters after ``thread``."""
    is_async: bool
    handler: Callable[..., Any]
    invoke: Callable[[Any], Any]
    """``invoke(thread)`` decodes the trapped registers and calls the handler."""


ROWS: dict[int, Row] = {}
"""Every declared syscall by number: constant once ``asyncsentry.syscalls`` is imported."""


def syscall(number: int, *, errnos: str = "", restart: Restart = Restart.SYS, missing: str = "") -> Callable[
        [Handler], Handler]:
    """Declares the decorated function to answer syscall ``number``; its name is the call's name.

    ``missing`` says what does not work and makes the call partial. A trailing underscore in the
    function's name is dropped (``open_``, ``exit_``).
    """

    def declare(handler: Handler) -> Handler:
        name = handler.__name__.rstrip("_")
        assert number not in ROWS, f"syscall {number} is declared twice: {name}, {ROWS[number].name}"
        parameters = _parameters(handler)
        ROWS[number] = Row(
            number=number, name=name, support=Support.PARTIAL if missing else Support.FULL, missing=missing,
            errnos=tuple(errnos.split()), restart=restart, parameters=parameters,
            is_async=bool(handler.__code__.co_flags & inspect.CO_COROUTINE), handler=handler, invoke=handler,
        )  # fmt: skip
        ROWS[number].invoke = partial(_invoke_first, ROWS[number])
        return handler

    return declare


def _invoke_first(row: Row, thread: Any) -> Any:
    """Stands in for ``invoke`` until the first call: compiling all decoders would cost each start 40 ms."""
    row.invoke = compile_decoder(row)
    return row.invoke(thread)


def _parameters(handler: Callable[..., Any]) -> tuple[tuple[str, Any], ...]:
    """Gives names and types after ``thread``; annotations are names of :mod:`asyncsentry.syscalls.args`."""
    annotations = [(name, kind) for name, kind in handler.__annotations__.items() if name != "return"][1:]
    return tuple((name, getattr(args, kind)) for name, kind in annotations)


def compile_decoder(row: Row) -> Callable[[Any], Any]:
    """Builds a row's ``invoke``. A generated function decodes in 0.2 µs what a loop over converters does in 1 µs."""
    if not row.parameters:
        return row.handler
    registers = [f"a{i}" for i in range(6)]
    kinds = [kind for _, kind in row.parameters]
    decoded = ", ".join(EXPRESSIONS[kind].format(register) for kind, register in zip(kinds, registers, strict=False))
    source = (
        f"def invoke(thread):\n    {', '.join(registers)} = thread.context.arguments\n"
        f"    return handler(thread, {decoded})\n"
    )
    namespace: dict[str, Any] = {"handler": row.handler}
    exec(compile(source, f"<decoder of {row.name}>", "exec"), namespace)
    invoke: Callable[[Any], Any] = namespace["invoke"]
    return invoke
