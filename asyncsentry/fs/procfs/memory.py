"""A process' memory in /proc: sizes, argument strings, the memory itself. See proc_pid_mem(5), proc_pid_cmdline(5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncsentry import errnos
from asyncsentry.fs.file import SEEK_CUR, SEEK_SET, File
from asyncsentry.fs.procfs.base import Subject
from asyncsentry.fs.synthetic import TextInode

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location

PROT_WRITE, PROT_EXEC = 2, 4
STRINGS_MAX = 1 << 21
"""Bytes of arguments or environment shown at most; execve(2) allows no more."""
TRANSFER_MAX = 1 << 20
PAGE_SIZE = 4096


class MemoryFacts:
    """Sizes of one address space in bytes; all 0 without one."""

    __slots__ = (
        "data", "library", "locked", "peak_resident", "peak_total", "resident", "shared", "stack", "text", "total",
    )  # fmt: skip

    def __init__(self, memory: Any | None) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)
        if memory is not None:
            self._count(memory)

    total: int
    resident: int
    shared: int
    text: int
    library: int
    data: int
    stack: int
    locked: int
    peak_total: int
    peak_resident: int

    def _count(self, memory: Any) -> None:
        for vma in memory.vmas:
            size = vma.end - vma.start
            self.total += size
            if vma.name == "[stack]":
                self.stack += size
            elif vma.prot & PROT_EXEC and not vma.prot & PROT_WRITE and vma.file is not None:
                if memory.start_code <= vma.start < max(memory.end_code, memory.start_code + 1):
                    self.text += size
                else:
                    self.library += size
            elif vma.prot & PROT_WRITE and not vma.flags & 1:  # MAP_SHARED
                self.data += size
        self.resident = resident_bytes(memory)
        self.locked = getattr(memory, "locked_bytes", 0)
        self.peak_total = max(self.total, getattr(memory, "peak_vm", 0))
        self.peak_resident = max(self.resident, getattr(memory, "peak_rss", 0))


def resident_bytes(memory: Any) -> int:
    """Gives how much of an address space is in memory: what the host says, or else the memory's own estimate."""
    host_pid = getattr(memory.space, "host_pid", 0)
    if host_pid:
        try:
            with open(f"/proc/{host_pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * PAGE_SIZE
        except OSError:  # no host paths are left to a confined sentry
            pass
    return int(memory.resident_bytes)


def _strings(memory: Any, start: int, end: int) -> bytes:
    return bytes(memory.read_some(start, min(max(0, end - start), STRINGS_MAX)))


def render_cmdline(subject: Subject) -> bytes:
    """Renders /proc/PID/cmdline; follows setproctitle into the environment as get_mm_cmdline does."""
    memory = subject.memory
    if memory is None:
        return b""
    start, end = memory.arg_start, memory.arg_end
    text = _strings(memory, start, end)
    if not text or text.endswith(b"\0"):
        return text
    if (zero := text.find(b"\0")) >= 0:
        return text[: zero + 1]
    tail = _strings(memory, end, max(end, memory.env_end))
    return text + tail.partition(b"\0")[0]


def render_environ(subject: Subject) -> bytes:
    """Renders /proc/PID/environ."""
    memory = subject.memory
    return b"" if memory is None else _strings(memory, memory.env_start, memory.env_end)


def render_auxv(subject: Subject) -> bytes:
    """Renders /proc/PID/auxv as it was given to the program."""
    memory = subject.memory
    return b"" if memory is None else bytes(getattr(memory, "auxv", b""))


class MemInode(TextInode):
    """/proc/PID/mem."""

    def __init__(self, subject: Subject, uid: int, gid: int) -> None:
        super().__init__(subject.filesystem, None, subject, 0o600, None, uid, gid)

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens the memory the process has now: a later execve(2) does not change what is seen."""
        subject: Subject = self.subject
        subject.check_inspection(context)
        return MemFile(self, flags, location, subject.memory)


class MemFile(File):
    """Guest memory as a file: the position is the address."""

    seekable = True

    def __init__(self, inode: MemInode, flags: int, location: Location | None, memory: Any | None) -> None:
        super().__init__(inode, flags, location)
        self.memory = memory

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Copies memory out; EIO where nothing is mapped."""
        if self.memory is None:
            return b""
        start = self.position if offset is None else offset
        data = bytes(self.memory.read_some(start, min(count, TRANSFER_MAX)))
        if not data and count:
            raise errnos.EIO(f"no memory at {start:#x}")
        if offset is None:
            self.position += len(data)
        return data

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Copies into memory; EIO where nothing is mapped."""
        if self.memory is None:
            return 0
        start = self.position if offset is None else offset
        written = int(self.memory.write_some(start, data))
        if not written and data:
            raise errnos.EIO(f"no memory at {start:#x}")
        if offset is None:
            self.position += written
        return written

    def seek(self, offset: int, whence: int) -> int:
        """Moves to an address, which may have the top bit set."""
        if whence not in (SEEK_SET, SEEK_CUR):
            raise errnos.EINVAL("memory has no end to seek from")
        self.position = (offset + (self.position if whence == SEEK_CUR else 0)) & (1 << 64) - 1
        return self.position
