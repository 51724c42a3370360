"""Inodes of host files: attributes, content and extended attributes. Directories are in ``directories.py``."""

from __future__ import annotations

import os
import stat as stat_bits
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.fs.devices import open_special
from asyncsentry.fs.file import O_ACCMODE, O_RDONLY, File
from asyncsentry.fs.gofer import protocol
from asyncsentry.fs.gofer.attributes import Attributes, Found
from asyncsentry.fs.gofer.files import HostDescriptor, HostFile
from asyncsentry.fs.gofer.protocol import U32, Reader, clamp_time, pack_target, pack_text
from asyncsentry.fs.inode import AttributeChange, Inode, Stat

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.gofer.client import GoferFileSystem

_FRESH_S = 0.001
"""How long the answer to a lookup of a shared file may serve the system call that made it."""


class GoferInode(Inode):
    """A host file."""

    filesystem: GoferFileSystem

    def __init__(self, filesystem: GoferFileSystem, found: Found, path: bytes) -> None:
        attributes = found.attributes
        super().__init__(filesystem, filesystem.inode_number(attributes.dev, attributes.ino), attributes.mode)
        self.handle = found.handle or filesystem.root_handle
        self.path = path
        """From the root of the mount, where files are addressed so; else empty."""
        self.attributes = attributes
        self._target = found.target
        self._reader: HostDescriptor | None = None
        self._writer: HostDescriptor | None = None
        self._is_stale = False
        self._xattr_names = found.xattr_names
        """Joined with NULs; ``None`` if not known."""
        self._fresh_until = 0.0
        self.apply(attributes)

    def __del__(self) -> None:
        if self.handle != self.filesystem.root_handle:
            self.filesystem.gofer.close_later(self.handle)

    @property
    def host_target(self) -> bytes:
        """How requests name the file."""
        return pack_target(self.handle, self.path)

    # Attributes ----------------------------------------------------------------------------------

    def apply(self, attributes: Attributes) -> None:
        """Takes over attributes the gofer told."""
        self.attributes = attributes
        self.mode, self.nlink, self.uid, self.gid = attributes[:4]
        self.rdev = attributes.rdev
        self._is_stale = False

    def note_write(self) -> None:
        """Notes that size and times have changed through a donated descriptor."""
        self._is_stale = True

    def stat(self) -> Stat:
        """Gives the attributes as last known; after writes of ours, as the open descriptor tells."""
        if self._is_stale:
            self._apply_descriptor()
        a = self.attributes
        return Stat(self.filesystem.device, self.ino, a.mode, self.nlink, a.uid, a.gid, a.rdev, a.size, a.blocks,
                    a.blksize, a.atime_ns, a.mtime_ns, a.ctime_ns, a.btime_ns)  # fmt: skip

    def _apply_descriptor(self) -> bool:
        descriptor = self._writer or self._reader
        if descriptor is None:
            return False
        s = os.fstat(descriptor.fd)
        self.apply(self.attributes._replace(
            mode=s.st_mode, nlink=s.st_nlink, uid=s.st_uid, gid=s.st_gid, size=s.st_size, blocks=s.st_blocks,
            atime_ns=s.st_atime_ns, mtime_ns=s.st_mtime_ns, ctime_ns=s.st_ctime_ns))  # fmt: skip
        return True

    def note_looked_up(self, found: Found) -> None:
        """Notes what a lookup has just told: for the rest of the system call that made it, it need not be asked."""
        self._xattr_names = found.xattr_names
        self._fresh_until = self.filesystem.gofer.time() + _FRESH_S

    @property
    def _is_fresh(self) -> bool:
        return self.filesystem.exclusive or self.filesystem.gofer.time() < self._fresh_until

    async def refresh(self) -> None:
        """Asks the host for the present attributes of a shared file: through an open descriptor if there is one."""
        if self.filesystem.exclusive or self._apply_descriptor() or self._is_fresh:
            self._fresh_until = 0.0
            return
        reply = await self._call(protocol.GETATTR)
        self.apply(Attributes.take(Reader(reply)))

    async def set_attributes(self, change: AttributeChange) -> None:
        """Changes the host file's attributes."""
        mask = 0
        values: list[int] = []
        for bit, value in zip((1, 2, 4, 8, 16, 32), (change.mode, change.uid, change.gid, change.size,
                                                     change.atime_ns, change.mtime_ns), strict=True):  # fmt: skip
            mask |= bit if value is not None else 0
            values.append(clamp_time(value or 0) if bit in (16, 32) else value or 0)
        reply = await self._call(protocol.SETATTR, protocol.CHANGE.pack(mask, *values))
        self.apply(Attributes.take(Reader(reply)))

    async def _call(self, operation: int, arguments: bytes = b"") -> bytes:
        return (await self.filesystem.gofer.call(operation, self.host_target + arguments)).payload

    async def readlink(self) -> str:
        """Gives the target, which came with the lookup."""
        if not self.is_symlink:
            raise errnos.EINVAL("not a symbolic link")
        if not self._target:
            self._target = await self._call(protocol.READLINK)
        return os.fsdecode(self._target)

    # Content -------------------------------------------------------------------------------------

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens a regular file, or something special that the host knows only the name of."""
        if not stat_bits.S_ISREG(self.mode):
            return await open_special(self, flags, location, context)
        descriptor = await self.acquire_descriptor(flags & O_ACCMODE != O_RDONLY)
        return HostFile(self, flags, location, descriptor, getattr(context, "credentials", None))

    async def acquire_descriptor(self, writable: bool) -> HostDescriptor:
        """Gives a host descriptor of the content, from the gofer if none is at hand; pair with a release."""
        descriptor = self._usable_descriptor(writable)
        if descriptor is None:
            fresh = await self._open_on_host(writable)
            descriptor = self._usable_descriptor(writable)  # somebody may have been quicker
            if descriptor is None:
                descriptor = fresh
                if writable:
                    self._writer = fresh
                else:
                    self._reader = fresh
        if not descriptor.users:
            self.filesystem.take_idle(descriptor)
        descriptor.users += 1
        return descriptor

    def offer_reader(self, descriptor: HostDescriptor) -> None:
        """Keeps a descriptor for reading that came without being asked for, if there is none yet."""
        if self._reader is None:
            self._reader = descriptor
            self.filesystem.keep_idle(descriptor, self)

    def _usable_descriptor(self, writable: bool) -> HostDescriptor | None:
        writer = self._writer
        if writable:
            return writer
        return self._reader or (writer if writer is not None and writer.readable else None)

    async def _open_on_host(self, writable: bool) -> HostDescriptor:
        gofer, target = self.filesystem.gofer, self.host_target
        readable = True
        try:
            reply = await gofer.call(protocol.OPEN, target + U32.pack(os.O_RDWR if writable else os.O_RDONLY))
        except errnos.EACCES:
            if not writable:
                raise
            readable = False  # mappings need a descriptor that reads, writing alone does not
            reply = await gofer.call(protocol.OPEN, target + U32.pack(os.O_WRONLY))
        assert reply.descriptor is not None
        self.apply(Attributes.take(Reader(reply.payload)))
        return HostDescriptor(reply.descriptor, readable, writable)

    def release_descriptor(self, descriptor: HostDescriptor) -> None:
        """Gives up one use; the last one closes it, or keeps it for the next open(2) where that is safe."""
        descriptor.users -= 1
        if descriptor.users:
            return
        if self._is_stale:
            self._apply_descriptor()
        if self.filesystem.uses_paths and not descriptor.writable:
            self.filesystem.keep_idle(descriptor, self)
        else:
            self.forget_descriptor(descriptor)

    def forget_descriptor(self, descriptor: HostDescriptor) -> None:
        """Closes a descriptor nobody uses."""
        if descriptor is self._reader:
            self._reader = None
        if descriptor is self._writer:
            self._writer = None
        descriptor.close()

    async def connect_host_socket(self, kind: int) -> int:
        """Connects to a host Unix socket and gives the connected descriptor; ECONNREFUSED unless allowed."""
        reply = await self.filesystem.gofer.call(protocol.CONNECT, self.host_target + U32.pack(kind))
        assert reply.descriptor is not None
        return reply.descriptor

    # Extended attributes -------------------------------------------------------------------------

    async def get_xattr(self, name: str) -> bytes:
        """Asks the host for an attribute's value, unless it is known to have none of that name."""
        packed = os.fsencode(name)
        if self._is_fresh and self._xattr_names is not None and packed not in self._xattr_names.split(b"\0"):
            raise errnos.ENODATA(f"no attribute {name!r}")
        return await self._call(protocol.GETXATTR, pack_text(packed))

    async def set_xattr(self, name: str, value: bytes, flags: int) -> None:
        """Sets an attribute on the host."""
        self._xattr_names = None
        await self._call(protocol.SETXATTR, pack_text(os.fsencode(name)) + pack_text(value) + U32.pack(flags))

    async def remove_xattr(self, name: str) -> None:
        """Removes one."""
        self._xattr_names = None
        await self._call(protocol.REMOVEXATTR, pack_text(os.fsencode(name)))

    async def list_xattrs(self) -> list[str]:
        """Lists the names."""
        packed = self._xattr_names
        if packed is None or not self._is_fresh:
            packed = self._xattr_names = await self._call(protocol.LISTXATTR)
        return [os.fsdecode(name) for name in packed.split(b"\0") if name]
