"""A file system of host files: inodes made of what a gofer answers.

Two ways of caching. An *exclusive* mount belongs to this sandbox alone: attributes, names and listings
are asked once and kept. A *shared* one is also changed by the host: every lookup and every
:meth:`GoferInode.refresh` asks. Two ways of addressing: on an exclusive, read-only mount (an overlay's lower
layer) files are named by their path from the root, so the gofer keeps nothing for them; elsewhere each inode
has a handle there, closed when the inode goes.
"""

from __future__ import annotations

import resource
import stat as stat_bits
from collections import OrderedDict
from weakref import WeakValueDictionary

from asyncsentry.fs.gofer import protocol
from asyncsentry.fs.gofer.attributes import Attributes, Found
from asyncsentry.fs.gofer.connection import Gofer
from asyncsentry.fs.gofer.directories import GoferDirectory
from asyncsentry.fs.gofer.files import HostDescriptor
from asyncsentry.fs.gofer.inodes import GoferInode
from asyncsentry.fs.gofer.protocol import U32, Reader, pack_target
from asyncsentry.fs.inode import FileSystem, StatFs

__all__ = ["GoferFileSystem", "GoferInode"]

V9FS_MAGIC = 0x01021997
"""Linux's nearest kin: files served by another process over a socket."""
_IDLE_DESCRIPTORS = 512
"""Descriptors of exclusive mounts kept open for the next open(2) of the same file, if our limit allows."""
_CACHED_NAMES = 50_000
"""Names all directories of an exclusive mount remember together."""


class GoferFileSystem(FileSystem):
    """One mount of a gofer. Make it with :meth:`attach`."""

    name = "9p"

    def __init__(self, device: int, gofer: Gofer, index: int, exclusive: bool) -> None:
        super().__init__(device)
        self.gofer = gofer
        self.exclusive = exclusive
        self.read_only = gofer.mounts[index].read_only
        self.uses_paths = exclusive and self.read_only
        """Whether files are addressed by their path from the root."""
        self.root_handle = 0
        self._inodes: WeakValueDictionary[tuple[int, int], GoferInode] = WeakValueDictionary()
        self._host_devices: dict[int, int] = {}
        self._idle: OrderedDict[HostDescriptor, GoferInode] = OrderedDict()
        self._idle_max = min(_IDLE_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._caching: OrderedDict[GoferDirectory, int] = OrderedDict()
        self._cached_names = 0
        self._statfs = StatFs(V9FS_MAGIC)

    @classmethod
    async def attach(cls, gofer: Gofer, index: int, device: int, exclusive: bool) -> GoferFileSystem:
        """Opens mount number ``index`` of a gofer."""
        filesystem = cls(device, gofer, index, exclusive)
        reader = Reader((await gofer.call(protocol.ATTACH, U32.pack(index))).payload)
        filesystem.root_handle = reader.number(U32)
        found = Found(filesystem.root_handle, Attributes.take(reader))
        filesystem.root = filesystem._make(found, b"")
        await filesystem.refresh()
        return filesystem

    def statfs(self) -> StatFs:
        """Gives the host's sizes as of the last :meth:`refresh`."""
        return self._statfs

    async def refresh(self) -> None:
        """Asks the host for its present sizes."""
        reply = await self.gofer.call(protocol.STATFS, pack_target(self.root_handle, b""))
        _, size, blocks, free, available, files, files_free, name_max = Reader(reply.payload).fields(
            protocol.STATFS_REPLY)  # fmt: skip
        self._statfs = StatFs(V9FS_MAGIC, size, blocks, free, available, files, files_free, name_max)

    async def sync(self) -> None:
        """Writes the host file system through, unless nothing of ours can be waiting there."""
        if not self.read_only:
            await self.gofer.call(protocol.SYNCFS, pack_target(self.root_handle, b""))

    async def release(self) -> None:
        """Closes the descriptors kept for later; the gofer itself belongs to whoever started it."""
        for descriptor, inode in list(self._idle.items()):
            inode.forget_descriptor(descriptor)
        self._idle.clear()

    # Inodes --------------------------------------------------------------------------------------

    def inode_number(self, device: int, ino: int) -> int:
        """Gives the guest's inode number: the host's, made distinct if the mount spans host file systems."""
        number = self._host_devices.setdefault(device, len(self._host_devices))
        return ino ^ (number & 0xFF) << 56

    def _make(self, found: Found, path: bytes) -> GoferInode:
        is_directory = stat_bits.S_ISDIR(found.attributes.mode)
        return (GoferDirectory if is_directory else GoferInode)(self, found, path)

    def adopt(self, found: Found, path: bytes) -> GoferInode:
        """Gives the inode of a file the gofer told of: the known one, or a new one."""
        attributes = found.attributes
        key = (attributes.dev, attributes.ino)
        inode = self._inodes.get(key)
        # Without a handle that pins it, an inode number may by now be another file's; hard links share one.
        if inode is not None and (not self.uses_paths or inode.path == path or attributes.nlink > 1):
            if found.handle and found.handle != inode.handle:
                self.gofer.close_later(found.handle)
            inode.apply(attributes)
        else:
            inode = self._inodes[key] = self._make(found, path)
        if not self.exclusive:
            inode.note_looked_up(found)
        return inode

    def keep_idle(self, descriptor: HostDescriptor, inode: GoferInode) -> None:
        """Keeps a descriptor nobody uses, closing the one idle longest when there are too many."""
        self._idle[descriptor] = inode
        if len(self._idle) > self._idle_max:
            oldest, owner = self._idle.popitem(last=False)
            owner.forget_descriptor(oldest)

    def note_cached(self, directory: GoferDirectory, names: int) -> None:
        """Counts names a directory remembers, making those forget that have learnt nothing for longest."""
        self._caching[directory] = self._caching.pop(directory, 0) + names
        self._cached_names += names
        while self._cached_names > _CACHED_NAMES and len(self._caching) > 1:
            oldest, count = self._caching.popitem(last=False)
            self._cached_names -= count
            oldest.forget_names()

    def take_idle(self, descriptor: HostDescriptor) -> None:
        """Notes that a kept descriptor is in use again."""
        self._idle.pop(descriptor, None)
