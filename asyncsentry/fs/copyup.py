"""Copying the content of a lower file into memory, and reading a lower file until that happens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import O_NOATIME
from asyncsentry.fs.content import Content, PageBudget
from asyncsentry.fs.file import O_RDONLY, File, seek_regular

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.inode import Inode
    from asyncsentry.fs.overlayinode import OverlayRegular

_AT_ONCE_MAX = 1 << 20
"""Copying this much from the page cache takes a fraction of a millisecond, less than a thread's hand-over is worth."""
_CHUNK = 8 << 20


async def copy_content(lower: Inode, budget: PageBudget, size_limit: int | None) -> Content:
    """Gives a copy of a lower file's content, or of no more than its first ``size_limit`` bytes."""
    content = Content(budget)
    if size_limit == 0:
        return content
    file = await lower.open(O_RDONLY | O_NOATIME, None, None)  # type: ignore[arg-type]  # opened for ourselves alone
    try:
        source = file.host_descriptor(writable=False)
        size = os.fstat(source).st_size if size_limit is None else min(size_limit, os.fstat(source).st_size)
        if size <= _AT_ONCE_MAX:
            content.copy_from(source, size)
        else:
            await _copy_large(source, content, size, budget)
    finally:
        await file.release()
    return content


async def _copy_large(source: int, content: Content, size: int, budget: PageBudget) -> None:
    """Copies data, not holes, in worker threads, so that the loop goes on meanwhile."""
    from aiofiles.os import sendfile  # most sandboxes copy no large file, and all want to start fast

    data_size = min(size, os.fstat(source).st_blocks * 512)
    if budget.free * 4096 < data_size:
        raise errnos.ENOSPC("no room to copy the file up")
    content.truncate(size)
    target = content.host_descriptor(writable=False)
    position = 0
    while (position := _next_data(source, position, size)) < size:
        end = min(size, os.lseek(source, position, os.SEEK_HOLE))
        while position < end:
            os.lseek(target, position, os.SEEK_SET)  # nobody else has the new file yet
            try:
                copied = await sendfile(target, source, position, min(_CHUNK, end - position))
            except OSError as error:
                raise errnos.from_host(error) from None
            if not copied:
                return  # the host has cut the file short
            position += copied
    _ = content.blocks  # counts the new pages


def _next_data(source: int, position: int, size: int) -> int:
    try:
        return os.lseek(source, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errnos.ENXIO.errno:
            return size
        raise errnos.from_host(error) from None


class LowerFile(File):
    """A regular file opened for reading before its content was copied up; afterwards it reads the copy."""

    seekable = True
    pollable = False
    inode: OverlayRegular

    def __init__(self, inode: OverlayRegular, flags: int, location: Location | None, lower: File) -> None:
        super().__init__(inode, flags, location)
        self._lower = lower

    @property
    def host_fd(self) -> int | None:
        """The lower file's descriptor, until there is a copy."""
        return self._lower.host_fd if self.inode.content is None else None

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Reads from the copy if there is one by now."""
        start = self.position if offset is None else offset
        content = self.inode.content
        data = self._lower.try_read(count, start) if content is None else content.read(start, count)
        if offset is None:
            self.position = start + len(data)
        return data

    def seek(self, offset: int, whence: int) -> int:
        """Moves the position; knows data and holes."""
        content = self.inode.content
        if content is None:
            self._lower.position = self.position
            self.position = self._lower.seek(offset, whence)
        else:
            self.position = seek_regular(self, content.size, offset, whence, content.seek_hole_or_data)
        return self.position

    def host_descriptor(self, writable: bool) -> int:
        """Gives the lower descriptor, or the copy's."""
        if writable:
            raise errnos.EACCES("opened for reading only")
        content = self.inode.content
        return self._lower.host_descriptor(False) if content is None else content.host_descriptor(False)

    async def sync(self, data_only: bool = False) -> None:
        """Has nothing to write."""

    async def release(self) -> None:
        """Gives the lower file up."""
        await self._lower.release()
