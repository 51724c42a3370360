"""The bytes of a file kept in memory: a bytearray while small, a host memfd once large or mapped.

A memfd can be mapped by guests and read at the host's speed, but costs a host descriptor; most files are
small and are never mapped. Both forms look the same from outside, holes included. Bytes are counted in pages
against a :class:`PageBudget`, as tmpfs(5) does for its ``size`` option. Content lives as long as something refers
to it, so the descriptor and the pages go back when the last reference goes (``__del__``); a file system that goes
as a whole closes all descriptors at once, since directories and their names refer to each other.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import (
    F_ADD_SEALS,
    F_SEAL_FUTURE_WRITE,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
)
from asyncsentry.fs.file import OFFSET_MAX, SEEK_DATA
from asyncsentry.fs.hostfile import fallocate

if TYPE_CHECKING:
    from asyncsentry.memory.account import MemoryAccount

SMALL_MAX = 64 << 10
"""Content up to this size stays in a bytearray until it is mapped."""
_SMALL_AT_MOST = 16 << 20
"""... and up to this one if the host has no descriptor left for a memfd."""
_PAGE = 4096
_ZERO_PAGE = bytes(_PAGE)
_EXHAUSTED = (errnos.EMFILE.errno, errnos.ENFILE.errno)


class PageBudget:
    """How many pages a file system uses and may use; ``limit`` is ``None`` for no limit."""

    __slots__ = ("__weakref__", "_in_memfds", "account", "limit", "used")

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.used = 0
        self.account: MemoryAccount | None = None
        """The memory of the whole sandbox, if that is limited."""
        self._in_memfds: weakref.WeakSet[Content] = weakref.WeakSet()

    def charge(self, pages: int) -> None:
        """Counts pages as used (or, if negative, as free); ENOSPC when there are not as many."""
        if pages > 0 and (self.limit is not None or self.account is not None) and pages > self.free:
            raise errnos.ENOSPC("the file system is full")
        self.used += pages

    def recount(self) -> None:
        """Asks the host afresh how many pages its contents have: guests that map them add some."""
        for content in tuple(self._in_memfds):
            content.recount()

    def watch(self, content: Content) -> None:
        """Remembers that a content has a host descriptor."""
        self._in_memfds.add(content)

    def close(self) -> None:
        """Closes the descriptors of all its contents, which nobody may use any more."""
        for content in tuple(self._in_memfds):
            content.close()

    @property
    def free(self) -> int:
        """Pages left, a large number without a limit."""
        free = OFFSET_MAX // _PAGE if self.limit is None else max(0, self.limit - self.used)
        return free if self.account is None else min(free, self.account.free_bytes() // _PAGE)


class Content:
    """What is in one regular file."""

    __slots__ = (
        "__weakref__",
        "_budget",
        "_dense_end",
        "_pages",
        "_small",
        "_small_has_holes",
        "host_fd",
        "seals",
        "size",
    )

    def __init__(self, budget: PageBudget, seals: int = F_SEAL_SEAL) -> None:
        self._budget = budget
        self._small = bytearray()
        self._small_has_holes = False
        """Whether pages of zeros in it may never have been written."""
        self._pages = 0
        self._dense_end = 0
        """How many pages a memfd without holes has, so that writing needs no recount; -1 if it may have holes."""
        self.size = 0
        self.host_fd: int | None = None
        """The memfd, or ``None`` while small."""
        self.seals = seals

    def __del__(self) -> None:
        self._budget.used -= self._pages
        self.close()

    def close(self) -> None:
        """Gives the memfd back, and with it the bytes in it."""
        if self.host_fd is not None:
            os.close(self.host_fd)
            self.host_fd = None

    @property
    def blocks(self) -> int:
        """Blocks of 512 bytes in use, ``st_blocks``."""
        if self.host_fd is not None:
            self.recount()
        return self._pages * 8

    def read(self, offset: int, count: int) -> bytes:
        """Gives up to ``count`` bytes at ``offset``."""
        if self.host_fd is None:
            return bytes(self._small[offset : offset + count])
        return os.pread(self.host_fd, min(count, max(0, self.size - offset)), offset)

    def write(self, offset: int, data: bytes) -> int:
        """Writes at ``offset`` and gives how much went in; ENOSPC when there is room for nothing."""
        if not data:
            return 0
        if self.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
            raise errnos.EPERM("sealed against writing")
        end = offset + len(data)
        if end > OFFSET_MAX:
            raise errnos.EFBIG("past the largest file size")
        if end > self.size and self.seals & F_SEAL_GROW:
            raise errnos.EPERM("sealed against growing")
        self._prepare_for(end)
        if self.host_fd is None:
            return self._write_small(offset, data)
        return self._write_host(self.host_fd, offset, data)

    def truncate(self, size: int) -> None:
        """Cuts the content or extends it with a hole."""
        if size > OFFSET_MAX:
            raise errnos.EFBIG("past the largest file size")
        if (size < self.size and self.seals & F_SEAL_SHRINK) or (size > self.size and self.seals & F_SEAL_GROW):
            raise errnos.EPERM("sealed against changing size")
        self._prepare_for(size)
        if self.host_fd is not None:
            _host(os.ftruncate, self.host_fd, size)
            self.size = size
            self.recount()
        elif size < self.size:
            del self._small[size:]
            self._charge(_pages(size) - self._pages)
        else:
            self._extend_small(size)
        self.size = size

    async def allocate(self, mode: int, offset: int, length: int) -> None:
        """Does fallocate(2) with one of the modes a tmpfs knows: reserve (0, KEEP_SIZE) or punch a hole."""
        end = offset + length
        if mode & _PUNCH_HOLE:
            if self.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
                raise errnos.EPERM("sealed against writing")
        elif end > self.size and self.seals & F_SEAL_GROW:
            raise errnos.EPERM("sealed against growing")
        elif _pages(end) - offset // _PAGE > self._budget.free + self._pages:
            raise errnos.ENOSPC("the file system is full")
        await fallocate(self.host_descriptor(False), mode, offset, length)
        if self.host_fd is not None:  # its file system may have gone, or others have changed its size meanwhile
            self.size = os.fstat(self.host_fd).st_size
            self.recount()

    def seek_hole_or_data(self, offset: int, whence: int) -> int:
        """Gives where the next data (SEEK_DATA) or hole (SEEK_HOLE) from ``offset`` begins; ENXIO past the end."""
        if not 0 <= offset < self.size:
            raise errnos.ENXIO("past the end")
        if self.host_fd is None:
            page = offset // _PAGE * _PAGE
            while page < self.size:
                has_data = self._has_data(page)
                if has_data == (whence == SEEK_DATA):
                    return max(page, offset)
                page += _PAGE
            if whence == SEEK_DATA:
                raise errnos.ENXIO("no data from there on")
            return self.size
        return int(_host(os.lseek, self.host_fd, offset, whence))

    def host_descriptor(self, writable: bool) -> int:
        """Gives the memfd, moving the content into one if needed."""
        if writable and self.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
            raise errnos.EPERM("sealed against writing")
        self._move_to_host()
        if self.host_fd is None:
            raise errnos.ENFILE("the host gives no more descriptors")
        return self.host_fd

    def add_seals(self, seals: int) -> None:
        """Adds seals, F_ADD_SEALS; EBUSY while a guest has it mapped writable, as the host tells."""
        if self.seals & F_SEAL_SEAL:
            raise errnos.EPERM("sealed against more seals")
        _host(fcntl.fcntl, self.host_descriptor(False), F_ADD_SEALS, seals & ~F_SEAL_SEAL)
        self.seals |= seals

    def copy_from(self, host_fd: int, size: int) -> None:
        """Fills empty content from a host file, keeping its holes: overlay's copy-up."""
        if size <= SMALL_MAX:
            data = os.pread(host_fd, size, 0)
            self._charge(_pages(len(data)) - self._pages)
            self._small = bytearray(data)
            self.size = len(data)
            return
        self._budget.charge(_pages(size))  # the upper bound first: better ENOSPC now than half a file
        self._budget.used -= _pages(size)
        memfd = self.host_descriptor(False)
        _host(os.ftruncate, memfd, size)
        _copy_extents(host_fd, memfd, size)
        self.size = size
        self.recount()

    def _write_small(self, offset: int, data: bytes) -> int:
        end = offset + len(data)
        self._charge(max(_pages(end), self._pages) - self._pages)
        if offset > self.size:
            self._small.extend(bytes(offset - self.size))
            self._small_has_holes = True
        self._small[offset:end] = data
        self.size = max(self.size, end)
        return len(data)

    def _write_host(self, host_fd: int, offset: int, data: bytes) -> int:
        data = self._cut_to_room(host_fd, offset, data)
        end_page = _pages(offset + len(data))
        is_dense = offset // _PAGE <= self._dense_end
        written = int(_host(os.pwrite, host_fd, data, offset))
        self.size = max(self.size, offset + written)
        if not is_dense:
            self.recount()
        elif end_page > self._dense_end:
            self._budget.used += end_page - self._pages
            self._pages = self._dense_end = end_page
        return written

    def _cut_to_room(self, host_fd: int, offset: int, data: bytes) -> bytes:
        """Gives as much of ``data`` as the budget allows to be written at ``offset``; ENOSPC for nothing."""
        free, first, end = self._budget.free, offset // _PAGE, _pages(offset + len(data))
        if end - first <= free:
            return data
        for page in range(first, end):
            if not _is_hole(host_fd, page * _PAGE):
                continue
            if not free:
                if page * _PAGE <= offset:
                    raise errnos.ENOSPC("the file system is full")
                return data[: page * _PAGE - offset]
            free -= 1
        return data

    def _extend_small(self, size: int) -> None:
        self._charge(_pages(size) - self._pages)
        self._small.extend(bytes(size - self.size))
        self._small_has_holes = self._small_has_holes or size > self.size

    def _prepare_for(self, size: int) -> None:
        """Gets ready to hold ``size`` bytes."""
        if self.host_fd is None and size > SMALL_MAX:
            self._move_to_host()
            if self.host_fd is None and size > _SMALL_AT_MOST:
                raise errnos.ENOSPC("the host gives no more descriptors")

    def _move_to_host(self) -> None:
        """Moves the bytes into a memfd; stays as it is when the host has no descriptor left."""
        if self.host_fd is not None:
            return
        try:
            memfd = os.memfd_create("asyncsentry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            if error.errno in _EXHAUSTED:
                return
            raise errnos.from_host(error) from None
        try:
            os.ftruncate(memfd, self.size)
            for offset in range(0, self.size, _PAGE):
                if self._has_data(offset):
                    os.pwrite(memfd, self._small[offset : offset + _PAGE], offset)
        except OSError as error:
            os.close(memfd)
            raise errnos.from_host(error) from None
        self.host_fd = memfd
        self._budget.watch(self)
        self._small = bytearray()
        self.recount()

    def _has_data(self, page: int) -> bool:
        """Whether the small content's page at this offset was ever written, as far as can be told."""
        return not self._small_has_holes or self._small[page : page + _PAGE] != _ZERO_PAGE[: self.size - page]

    def _charge(self, pages: int) -> None:
        self._budget.charge(pages)
        self._pages += pages

    def recount(self) -> None:
        """Asks the host how many pages exist; mapped memory adds some without telling us."""
        if self.host_fd is None:
            return
        pages = os.fstat(self.host_fd).st_blocks // 8
        self._budget.used += pages - self._pages
        self._pages = pages
        self._dense_end = pages if pages == _pages(self.size) else -1


_PUNCH_HOLE = 2


def _is_hole(host_fd: int, offset: int) -> bool:
    try:
        return os.lseek(host_fd, offset, os.SEEK_DATA) != offset
    except OSError:  # ENXIO: no data from there on
        return True


def _copy_extents(source: int, target: int, size: int) -> None:
    position = 0
    while position < size:
        try:
            position = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errnos.ENXIO.errno:
                return
            raise errnos.from_host(error) from error
        end = min(size, os.lseek(source, position, os.SEEK_HOLE))
        while position < end:
            data = os.pread(source, min(1 << 20, end - position), position)
            if not data:
                return
            position += _host(os.pwrite, target, data, position)


def _host(call: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a host call on content, translating its errors."""
    try:
        return call(*arguments)
    except OSError as error:
        raise errnos.from_host(error) from error


def _pages(size: int) -> int:
    return -(-size // _PAGE)
