"""Open regular files whose content is in memory: tmpfs, memfd_create(2), and what an overlay has copied up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import (
    F_ALL_SEALS,
    F_SEAL_EXEC,
    F_SEAL_FUTURE_WRITE,
    F_SEAL_GROW,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    O_APPEND,
    O_NOATIME,
)
from asyncsentry.abi.mount_h import MS_NOATIME, MS_RDONLY
from asyncsentry.abi.stat_h import S_IFREG
from asyncsentry.fs.access import mode_after_write
from asyncsentry.fs.file import File, seek_regular

if TYPE_CHECKING:
    from asyncsentry.fs.access import FileCredentials
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.tmpfs import TmpRegular


class TmpFile(File):
    """An open regular file in memory."""

    seekable = True
    pollable = False
    inode: TmpRegular

    def __init__(self, inode: TmpRegular, flags: int, location: Location,
                 credentials: FileCredentials | None = None) -> None:
        super().__init__(inode, flags, location)
        self._content = inode.content
        self._credentials = credentials
        """Who opened it: decides whether writing keeps set-ID bits. ``None`` for the kernel itself."""
        self._no_atime = bool(location.mount.flags & (MS_NOATIME | MS_RDONLY))

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Reads; never blocks."""
        data = self._content.read(self.position if offset is None else offset, count)
        if offset is None:
            self.position += len(data)
        if not (self._no_atime or self.flags & O_NOATIME):
            self.inode.accessed()
        return data

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Writes; never blocks."""
        inode = self.inode
        at = self._content.size if self.flags & O_APPEND else self.position if offset is None else offset
        written = self._content.write(at, data)
        if offset is None:
            self.position = at + written
        if written:
            inode.changed()
            if inode.mode & 0o6000 and self._credentials is not None:
                mode = mode_after_write(self._credentials, inode)
                inode.mode = inode.mode if mode is None else S_IFREG | mode
        return written

    def seek(self, offset: int, whence: int) -> int:
        """Moves the position; knows data and holes."""
        self.position = seek_regular(self, self._content.size, offset, whence, self._content.seek_hole_or_data)
        return self.position

    def host_descriptor(self, writable: bool) -> int:
        """Gives the memfd with the content."""
        return self._content.host_descriptor(writable)

    async def sync(self, data_only: bool = False) -> None:
        """Has nothing to write."""

    async def fallocate(self, mode: int, offset: int, length: int) -> None:
        """Reserves space or punches a hole, fallocate(2)."""
        await self._content.allocate(mode, offset, length)
        self.inode.changed()

    def add_seals(self, seals: int) -> None:
        """Adds seals, F_ADD_SEALS."""
        if seals & ~F_ALL_SEALS:
            raise errnos.EINVAL("unknown seals")
        if seals & F_SEAL_EXEC and self.inode.mode & 0o111:
            seals |= F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE
        if not self.writable:
            raise errnos.EPERM("only a writer may seal")
        self._content.add_seals(seals)

    def get_seals(self) -> int:
        """Gives the seals, F_GET_SEALS."""
        return self._content.seals
