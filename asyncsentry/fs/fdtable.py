"""Descriptor tables: small numbers for open file descriptions, with close-on-exec flags.

Shared between threads that were cloned with CLONE_FILES, copied by fork(2). The lowest free number
is always taken, as POSIX asks.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from asyncsentry import errnos
from asyncsentry.fs.file import File


class FdTable:
    """The descriptors of one process (or of several that share them)."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.files: dict[int, File] = {}
        """Read directly on hot paths; change only through the methods."""
        self.close_on_exec: set[int] = set()
        self.users = 1
        """Guest threads that share this table."""
        self.limit = limit
        """RLIMIT_NOFILE: numbers at or above it are not given out."""
        self.lock_waits: list[FdTable | File] = []
        """Owners of the POSIX locks its threads wait for; kept by ``locks.py``, which looks for deadlock in it."""
        self._free: list[int] = []
        self._in_free: set[int] = set()
        """What :attr:`_free` holds, so that dup2(2) in a loop does not add a number again and again."""
        self._next = 0

    def get(self, fd: int) -> File:
        """Finds an open description; EBADF if there is none."""
        file = self.files.get(fd)
        if file is None:
            raise errnos.EBADF(f"fd {fd} is closed")
        return file

    def lowest_free(self, at_least: int = 0) -> int:
        """Gives the lowest unused number from ``at_least``; EMFILE when the limit is reached."""
        if at_least:
            number = at_least
            while number in self.files:
                number += 1
        else:
            while self._free and self._free[0] in self.files:
                self._in_free.discard(heapq.heappop(self._free))
            while self._next in self.files:
                self._next += 1
            number = self._free[0] if self._free and self._free[0] < self._next else self._next
        if number >= self.limit:
            raise errnos.EMFILE(f"limit of {self.limit} descriptors")
        return number

    def install(self, file: File, close_on_exec: bool = False, at_least: int = 0) -> int:
        """Numbers a file with the lowest free descriptor and counts the reference."""
        fd = self.lowest_free(at_least)
        self.put(fd, file, close_on_exec)
        return fd

    def put(self, fd: int, file: File, close_on_exec: bool = False) -> None:
        """Places a file at a number known to be free."""
        self.files[fd] = file
        file.references += 1
        if close_on_exec:
            self.close_on_exec.add(fd)

    def take(self, fd: int) -> File:
        """Removes a descriptor and hands its reference to the caller, who must :func:`drop` it."""
        file = self.get(fd)
        del self.files[fd]
        self.close_on_exec.discard(fd)
        if fd not in self._in_free:
            self._in_free.add(fd)
            heapq.heappush(self._free, fd)
        if file.inode is not None and file.inode.locks is not None:
            file.inode.locks.release_owner(self)
        return file

    async def close(self, fd: int) -> None:
        """Closes a descriptor, releasing the file with its last one."""
        await drop(self.take(fd))

    def copy(self) -> FdTable:
        """Gives a table with the same open descriptions, fork(2)."""
        table = FdTable(self.limit)
        for fd, file in self.files.items():
            table.put(fd, file, fd in self.close_on_exec)
        return table

    async def close_all(self, only_on_exec: bool = False) -> None:
        """Closes every descriptor, or those marked close-on-exec."""
        for fd in list(self.close_on_exec if only_on_exec else self.files):
            if fd in self.files:
                await self.close(fd)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.files))


async def drop(file: File) -> None:
    """Gives up one reference to a file; the last one releases it."""
    file.references -= 1
    if file.references == 0:
        await file.finish()
