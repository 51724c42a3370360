"""Strace: prints system calls the way strace(1) does, from nothing but their declarations.

An :class:`~asyncsentry.syscalls.dispatch.Instrument`. What a parameter looks like follows from its type; a few
flag words, named here by call and parameter, print symbolically. A call is one line, written when it returns.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, TextIO

from asyncsentry import errnos
from asyncsentry.errnos import LinuxError
from asyncsentry.syscalls import args
from asyncsentry.syscalls.registry import Restart, Row

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread

TEXT_MAX = 32
AT_FDCWD = -100
_UNFINISHED = {-restart.value: restart for restart in Restart if restart is not Restart.EINTR}

_OPEN = {
    0o100: "O_CREAT", 0o200: "O_EXCL", 0o400: "O_NOCTTY", 0o1000: "O_TRUNC", 0o2000: "O_APPEND", 0o4000: "O_NONBLOCK",
    0o10000: "O_DSYNC", 0o40000: "O_DIRECT", 0o200000: "O_DIRECTORY", 0o400000: "O_NOFOLLOW", 0o1000000: "O_NOATIME",
    0o2000000: "O_CLOEXEC", 0o10000000: "O_PATH",
}  # fmt: skip
_PROT = {1: "PROT_READ", 2: "PROT_WRITE", 4: "PROT_EXEC"}
_MAP = {
    1: "MAP_SHARED", 2: "MAP_PRIVATE", 0x10: "MAP_FIXED", 0x20: "MAP_ANONYMOUS", 0x100: "MAP_GROWSDOWN",
    0x800: "MAP_DENYWRITE", 0x4000: "MAP_NORESERVE", 0x8000: "MAP_POPULATE", 0x20000: "MAP_STACK",
    0x100000: "MAP_FIXED_NOREPLACE",
}  # fmt: skip
_AT = {0x100: "AT_SYMLINK_NOFOLLOW", 0x200: "AT_REMOVEDIR", 0x400: "AT_SYMLINK_FOLLOW", 0x1000: "AT_EMPTY_PATH"}
_ACCESS = {4: "R_OK", 2: "W_OK", 1: "X_OK"}
_ACCESS_MODES = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")

FLAG_NAMES: dict[tuple[str, str], dict[int, str]] = {
    ("open", "flags"): _OPEN, ("openat", "flags"): _OPEN, ("pipe2", "flags"): _OPEN, ("dup3", "flags"): _OPEN,
    ("mmap", "prot"): _PROT, ("mmap", "flags"): _MAP, ("mprotect", "prot"): _PROT,
    ("newfstatat", "flags"): _AT, ("unlinkat", "flags"): _AT, ("linkat", "flags"): _AT, ("statx", "flags"): _AT,
    ("access", "mode"): _ACCESS, ("faccessat", "mode"): _ACCESS, ("faccessat2", "mode"): _ACCESS,
}  # fmt: skip
"""Symbolic names of bits, by call and parameter."""

OUTPUT_BUFFERS = frozenset(("read", "pread64", "recvfrom", "readlink", "readlinkat", "getcwd", "getrandom"))
"""Calls whose buffer holds what they gave."""


class Strace:
    """Writes a line per call to a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._entered: dict[int, str] = {}

    def enter(self, thread: Thread, row: Row | None, number: int, arguments: tuple[int, ...]) -> int | None:
        """Formats the arguments while they are as the caller left them."""
        if row is None:
            shown = ", ".join(f"{argument:#x}" for argument in arguments)
            self._entered[thread.tid] = f"syscall_{number:#x}({shown})"
        else:
            self._entered[thread.tid] = self._format(thread, row, arguments, None)
            if row.name in ("exit", "exit_group", "execve"):
                self._write(thread, f"{self._entered[thread.tid]} = ?" if row.name != "execve" else "")
        return None

    def leave(self, thread: Thread, row: Row | None, number: int, arguments: tuple[int, ...],
              result: int | None) -> int | None:
        """Writes the line."""
        text = self._entered.pop(thread.tid, "")
        if row is not None and row.name in OUTPUT_BUFFERS and result is not None and result >= 0:
            text = self._format(thread, row, arguments, result)
        if row is None or row.name not in ("exit", "exit_group"):
            self._write(thread, f"{text} = {format_result(row, result)}")
        return result

    def _write(self, thread: Thread, line: str) -> None:
        if line:
            self._stream.write(f"[pid {thread.tid:5}] {line}\n")
            self._stream.flush()

    def _format(self, thread: Thread, row: Row, arguments: tuple[int, ...], result: int | None) -> str:
        shown = []
        for index, (name, kind) in enumerate(row.parameters):
            following = arguments[index + 1] if index + 1 < len(arguments) else 0
            shown.append(_format_argument(thread, row, name, kind, arguments[index], following, result))
        return f"{row.name}({', '.join(shown)})"


def format_result(row: Row | None, result: int | None) -> str:
    """Formats what a call returned as strace does."""
    if result is None:
        return "0" if row is not None and row.name.startswith("exec") else "?"
    if result in _UNFINISHED:
        return f"? ERESTART{_UNFINISHED[result].name} (To be restarted)"
    if -4096 < result < 0 and -result in errnos.BY_NUMBER:
        return f"-1 {errnos.BY_NUMBER[-result].__name__} ({os.strerror(-result)})"
    is_address = row is not None and row.name in ("mmap", "brk", "mremap", "shmat")
    return f"{result:#x}" if is_address else str(result)


def _format_argument(thread: Thread, row: Row, name: str, kind: Any, value: int, following: int,
                     result: int | None) -> str:
    signed = (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
    names = FLAG_NAMES.get((row.name, name))
    if names is not None:
        return format_flags(value & 0xFFFFFFFF, names)
    if kind is args.Fd:
        return "AT_FDCWD" if signed == AT_FDCWD else str(signed)
    if kind is args.PathPointer:
        return _format_path(thread, value)
    if kind is args.Buffer:
        return _format_buffer(thread, row, value, following, result)
    if kind is args.Signal:
        return _signal_name(signed)
    if kind is args.Mode:
        return f"{value & 0xFFFFFFFF:#o}".replace("0o", "0")
    if kind in (args.Pointer, args.Flags):
        return f"{value:#x}" if value else ("NULL" if kind is args.Pointer else "0")
    if kind is args.Long:
        return str((value ^ 1 << 63) - (1 << 63))
    return str(signed if kind is args.Int else value)


def format_flags(value: int, names: dict[int, str]) -> str:
    """Formats a flag word by the names of its bits; what has no name stays a number."""
    shown = [_ACCESS_MODES[value & 3]] if names is _OPEN else []
    value &= ~3 if names is _OPEN else ~0
    for bit, name in names.items():
        if value & bit:
            shown.append(name)
            value &= ~bit
    if value or not shown:
        shown.append(f"{value:#x}" if value else "0")
    return "|".join(shown)


def _format_path(thread: Thread, address: int) -> str:
    if not address:
        return "NULL"
    try:
        return quote(thread.memory.read_string(address), 4096)
    except LinuxError:
        return f"{address:#x}"


def _format_buffer(thread: Thread, row: Row, address: int, count: int, result: int | None) -> str:
    if row.name in OUTPUT_BUFFERS and result is None:
        return f"{address:#x}"
    length = count if result is None else result
    data = thread.memory.read_some(address, min(length, TEXT_MAX))
    return quote(data, TEXT_MAX) + ("..." if length > TEXT_MAX else "")


def quote(data: bytes, limit: int) -> str:
    """Gives bytes as a C string literal."""
    escapes = {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x0B: "\\v", 0x0C: "\\f"}
    shown = []
    for index, byte in enumerate(data[:limit]):
        if byte in escapes:
            shown.append(escapes[byte])
        elif 0x20 <= byte < 0x7F:
            shown.append(chr(byte))
        else:
            digit_follows = index + 1 < len(data) and 0x30 <= data[index + 1] <= 0x39
            shown.append(f"\\{byte:03o}" if digit_follows else f"\\{byte:o}")
    return '"' + "".join(shown) + '"'


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRT_{number - 32}" if 32 <= number <= 64 else str(number)
