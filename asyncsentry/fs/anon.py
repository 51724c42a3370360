"""Anonymous inodes: what fstat(2) tells of pipes, sockets, epoll and event descriptors.

Their file systems have no root and are never mounted; they only lend a device number and a magic
number. They are constants, the same in every sandbox.
"""

from __future__ import annotations

import os
import stat as stat_bits
from typing import TYPE_CHECKING, Final, Protocol, cast

from asyncsentry.fs.devices import open_special
from asyncsentry.fs.file import File
from asyncsentry.fs.inode import AttributeChange, FileSystem, Inode, Owner, Stat, StatFs

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.file import File

ROOT: Final = Owner(0, 0)


class InternalFileSystem(FileSystem):
    """A file system that exists only inside the kernel, like Linux's pipefs."""

    def __init__(self, name: str, magic: int, device: int) -> None:
        super().__init__(device)
        self.name = name
        self._magic = magic

    def statfs(self) -> StatFs:
        """Gives the magic number; there are no blocks to count."""
        return StatFs(self._magic)


# Device numbers far above those a kernel gives to mounts, which count up from 1.
ANON_INODE_FS: Final = InternalFileSystem("anon_inodefs", 0x09041934, os.makedev(0, 0xFFF01))
PIPE_FS: Final = InternalFileSystem("pipefs", 0x50495045, os.makedev(0, 0xFFF02))
SOCK_FS: Final = InternalFileSystem("sockfs", 0x534F434B, os.makedev(0, 0xFFF03))


class AnonInode(Inode):
    """An inode without a name. Linux gives event descriptors mode 0600 and no type at all."""

    def __init__(self, filesystem: FileSystem, ino: int, mode: int = 0o600, owner: Owner = ROOT,
                 now_ns: int = 0) -> None:
        super().__init__(filesystem, ino, mode, owner.uid, owner.gid)
        self.atime_ns = self.mtime_ns = self.ctime_ns = now_ns

    def stat(self) -> Stat:
        """Gives size 0 and the times of creation."""
        return Stat(
            dev=self.filesystem.device, ino=self.ino, mode=self.mode, nlink=self.nlink, uid=self.uid, gid=self.gid,
            rdev=0, size=0, blocks=0, blksize=4096, atime_ns=self.atime_ns, mtime_ns=self.mtime_ns,
            ctime_ns=self.ctime_ns, btime_ns=0,
        )  # fmt: skip

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens a pipe anew through ``/proc/self/fd``; other anonymous files cannot be."""
        return await open_special(self, flags, location, context)

    async def set_attributes(self, change: AttributeChange) -> None:
        """Keeps owner, permission bits and times; there is no size to change."""
        if change.mode is not None:
            self.mode = stat_bits.S_IFMT(self.mode) | change.mode
        for name in ("uid", "gid", "atime_ns", "mtime_ns"):
            value = getattr(change, name)
            if value is not None:
                setattr(self, name, value)


class AnonFile(File):
    """An event descriptor: lseek(2) does nothing on it and succeeds, Linux's noop_llseek()."""

    def seek(self, offset: int, whence: int) -> int:
        """Stays where it is."""
        return self.position


class _GuestMemory(Protocol):
    def write_i32(self, address: int, value: int) -> None: ...


class _Caller(Protocol):
    memory: _GuestMemory


def store_int(thread: object, address: int, value: int) -> int:
    """Answers an ioctl(2) whose argument points to an ``int`` of the calling thread's; gives 0."""
    cast(_Caller, thread).memory.write_i32(address, value)
    return 0
