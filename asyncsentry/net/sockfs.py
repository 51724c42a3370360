"""The file system sockets live in: never mounted, gives each socket an inode number and attributes."""

from __future__ import annotations

import stat as stat_bits
from typing import TYPE_CHECKING

from asyncsentry.clock import CLOCK_REALTIME
from asyncsentry.fs.inode import AttributeChange, FileSystem, Inode, Stat, StatFs

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel

SOCKFS_MAGIC = 0x534F434B


class SocketFileSystem(FileSystem):
    """The home of socket inodes, one per kernel."""

    name = "sockfs"

    def statfs(self) -> StatFs:
        """Gives the magic number; there is nothing to measure."""
        return StatFs(SOCKFS_MAGIC)


class SocketInode(Inode):
    """The attributes of one socket, for fstat(2), fchmod(2) and fchown(2)."""

    def __init__(self, kernel: Kernel, uid: int, gid: int) -> None:
        super().__init__(kernel.socket_filesystem, kernel.allocate_inode(), stat_bits.S_IFSOCK | 0o777, uid, gid)
        self._created_ns = kernel.clock.now_ns(CLOCK_REALTIME)

    def stat(self) -> Stat:
        """Gives the attributes; the times are those of the socket's creation."""
        made = self._created_ns
        return Stat(self.filesystem.device, self.ino, self.mode, 1, self.uid, self.gid, 0, 0, 0, 4096, made, made,
                    made, made)

    async def set_attributes(self, change: AttributeChange) -> None:
        """Changes owner and permissions; the mode becomes that of the name bind(2) makes."""
        if change.mode is not None:
            self.mode = stat_bits.S_IFSOCK | change.mode
        self.uid = self.uid if change.uid is None else change.uid
        self.gid = self.gid if change.gid is None else change.gid
