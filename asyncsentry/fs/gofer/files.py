"""Open files whose content lies behind a host descriptor, and open directories that list an inode.

A :class:`HostDescriptor` is a descriptor the gofer donated, shared by all open files of an inode: reads and
writes are pread(2) and pwrite(2) on it with our own positions, so the host's file offset means nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import O_APPEND, O_DSYNC, O_SYNC
from asyncsentry.fs.access import mode_after_write
from asyncsentry.fs.directory import DirectoryFile
from asyncsentry.fs.file import SEEK_END, File, seek_regular
from asyncsentry.fs.hostfile import fallocate, sync_host_file

if TYPE_CHECKING:
    from asyncsentry.fs.access import FileCredentials
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.gofer.directories import GoferDirectory
    from asyncsentry.fs.gofer.inodes import GoferInode


class HostDescriptor:
    """A host descriptor of a regular file and how many open files use it."""

    __slots__ = ("fd", "readable", "users", "writable")

    def __init__(self, fd: int, readable: bool, writable: bool) -> None:
        self.fd = fd
        self.readable = readable
        self.writable = writable
        self.users = 0

    def close(self) -> None:
        """Closes the host descriptor; harmless when done before."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()


class HostFile(File):
    """An open regular file of a gofer mount."""

    seekable = True
    pollable = False

    def __init__(self, inode: GoferInode, flags: int, location: Location | None, descriptor: HostDescriptor,
                 credentials: FileCredentials | None = None) -> None:
        super().__init__(inode, flags, location)
        self.host_inode = inode
        self.descriptor = descriptor
        self._credentials = credentials
        """Who opened it: decides whether writing keeps set-ID bits. ``None`` for the kernel itself."""

    @property
    def host_fd(self) -> int | None:
        """The donated descriptor."""
        return self.descriptor.fd

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Reads from the host file."""
        start = self.position if offset is None else offset
        try:
            data = os.pread(self.descriptor.fd, count, start)
        except OSError as error:
            raise errnos.from_host(error) from None
        if offset is None:
            self.position = start + len(data)
        return data

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Writes to the host file, at its end with O_APPEND."""
        flags = self.flags
        start = self.position if offset is None else offset
        how = os.RWF_APPEND if flags & O_APPEND else 0
        if flags & O_DSYNC:
            how |= os.RWF_SYNC if flags & O_SYNC == O_SYNC else os.RWF_DSYNC
        try:
            written = os.pwritev(self.descriptor.fd, (data,), start, how) if how else os.pwrite(
                self.descriptor.fd, data, start)  # fmt: skip
        except OSError as error:
            raise errnos.from_host(error) from None
        self.host_inode.note_write()
        if self.host_inode.mode & 0o6000 and written and self._credentials is not None:
            self._drop_set_id(self._credentials)
        if offset is None:
            self.position = self.size if flags & O_APPEND else start + written
        return written

    def _drop_set_id(self, credentials: FileCredentials) -> None:
        """Does what the host does for writers that are not root, as we may be."""
        mode = mode_after_write(credentials, self.host_inode)
        if mode is not None:
            try:
                os.fchmod(self.descriptor.fd, mode)
            except PermissionError:
                pass  # then we are not root, and the host has done it
            self.host_inode.mode = self.host_inode.kind | mode

    @property
    def size(self) -> int:
        """The host file's present size."""
        return os.fstat(self.descriptor.fd).st_size

    def seek(self, offset: int, whence: int) -> int:
        """Moves the position; data and holes are the host's."""
        size = self.size if whence == SEEK_END else 0
        self.position = seek_regular(self, size, offset, whence, self._seek_hole_or_data)
        return self.position

    def _seek_hole_or_data(self, offset: int, whence: int) -> int:
        try:
            return os.lseek(self.descriptor.fd, offset, whence)
        except OSError as error:
            raise errnos.from_host(error) from None

    def host_descriptor(self, writable: bool) -> int:
        """Gives the donated descriptor."""
        if not self.descriptor.readable or (writable and not self.descriptor.writable):
            raise errnos.EACCES("not opened for that")
        if writable:
            self.host_inode.note_write()
        return self.descriptor.fd

    async def sync(self, data_only: bool = False) -> None:
        """Writes the host file through."""
        await sync_host_file(self.descriptor.fd, data_only)

    async def fallocate(self, mode: int, offset: int, length: int) -> None:
        """Reserves space or punches a hole on the host, fallocate(2)."""
        await fallocate(self.descriptor.fd, mode, offset, length)
        self.host_inode.note_write()

    async def release(self) -> None:
        """Gives up the descriptor."""
        self.host_inode.release_descriptor(self.descriptor)


class HostDirectoryFile(DirectoryFile):
    """An open directory of a gofer mount."""

    async def sync(self, data_only: bool = False) -> None:
        """Writes the host directory through."""
        inode = cast("GoferDirectory", self.inode)
        if not inode.filesystem.read_only:
            await inode.sync_names()
