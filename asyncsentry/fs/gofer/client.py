"""A file system of host files: inodes made of what a gofer answers.

Two ways of caching. An *exclusive* mount belongs to this sandbox alone: attributes, names and listings
are asked once and kept. A *shared* one is also changed by the host: every lookup and every
:meth:`GoferInode.refresh` asks. Two ways of addressing: on an exclusive, read-only mount (an overlay's lower
layer) files are named by their path from the root, so the gofer keeps nothing for them; elsewhere each inode
has a handle there, closed when the inode goes.
"""

from __future__ import annotations

import os
import resource
import stat as stat_bits
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from asyncsentry import errnos
from asyncsentry.fs.devices import open_special
from asyncsentry.fs.file import O_ACCMODE, O_RDONLY, File
from asyncsentry.fs.gofer import protocol
from asyncsentry.fs.gofer.connection import Gofer
from asyncsentry.fs.gofer.files import HostDescriptor, HostDirectoryFile, HostFile
from asyncsentry.fs.gofer.protocol import U32, Reader, pack_target, pack_text
from asyncsentry.fs.inode import AttributeChange, DirectoryEntry, FileSystem, Inode, Owner, Stat, StatFs

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location

V9FS_MAGIC = 0x01021997
"""Linux's nearest kin: files served by another process over a socket."""
_IDLE_DESCRIPTORS = 512
"""Descriptors of exclusive mounts kept open for the next open(2) of the same file, if our limit allows."""
_CACHED_NAMES = 50_000
"""Names all directories of an exclusive mount remember together."""
_PLUS_LIMIT = 256
"""Directories up to this many names are listed with attributes at once."""
_UNLIMITED = 0xFFFF_FFFF
_MISSES_BEFORE_PLUS = 2
_WALK_NAMES_MAX = 64


class Attributes(NamedTuple):
    """What the host's statx(2) tells of a file: the fields of the protocol's ATTRIBUTES."""

    mode: int
    nlink: int
    uid: int
    gid: int
    dev: int
    ino: int
    rdev: int
    size: int
    blocks: int
    blksize: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int

    @classmethod
    def take(cls, reader: Reader) -> Attributes:
        """Takes them off an answer."""
        return cls._make(reader.fields(protocol.ATTRIBUTES))


class _Found(NamedTuple):
    """One file in an answer."""

    handle: int
    attributes: Attributes
    target: bytes = b""
    xattr_names: bytes | None = None
    """Joined with NULs; ``None`` if not told."""

    @classmethod
    def take(cls, reader: Reader, handle: int) -> _Found:
        """Takes it off an answer to a walk or a listing."""
        return cls(handle, Attributes.take(reader), reader.text(protocol.MAX_PATH), reader.text(protocol.MAX_XATTR))


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
        self._caching: OrderedDict[GoferInode, int] = OrderedDict()
        self._cached_names = 0
        self._statfs = StatFs(V9FS_MAGIC)

    @classmethod
    async def attach(cls, gofer: Gofer, index: int, device: int, exclusive: bool) -> GoferFileSystem:
        """Opens mount number ``index`` of a gofer."""
        filesystem = cls(device, gofer, index, exclusive)
        reader = Reader((await gofer.call(protocol.ATTACH, U32.pack(index))).payload)
        filesystem.root_handle = reader.number(U32)
        found = _Found(filesystem.root_handle, Attributes.take(reader))
        filesystem.root = GoferInode(filesystem, found, b"")
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

    def inode_number(self, attributes: Attributes) -> int:
        """Gives the guest's inode number: the host's, made distinct if the mount spans host file systems."""
        index = self._host_devices.setdefault(attributes.dev, len(self._host_devices))
        return attributes.ino ^ index << 56

    def adopt(self, found: _Found, path: bytes) -> GoferInode:
        """Gives the inode of a file the gofer told of: the known one, or a new one."""
        attributes = found.attributes
        key = (attributes.dev, attributes.ino)
        inode = self._inodes.get(key)
        # Without a handle that pins it, an inode number may by now be another file's; hard links share one.
        if inode is not None and (not self.uses_paths or inode.path == path or attributes.nlink > 1):
            if found.handle and found.handle != inode.handle:
                self.gofer.close_later(found.handle)
            inode.apply(attributes)
            return inode
        inode = self._inodes[key] = GoferInode(self, found, path)
        return inode

    def keep_idle(self, descriptor: HostDescriptor, inode: GoferInode) -> None:
        """Keeps a descriptor nobody uses, closing the one idle longest when there are too many."""
        self._idle[descriptor] = inode
        if len(self._idle) > self._idle_max:
            oldest, owner = self._idle.popitem(last=False)
            owner.forget_descriptor(oldest)

    def note_cached(self, directory: GoferInode, names: int) -> None:
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


class GoferInode(Inode):
    """A host file."""

    filesystem: GoferFileSystem

    def __init__(self, filesystem: GoferFileSystem, found: _Found, path: bytes) -> None:
        super().__init__(filesystem, filesystem.inode_number(found.attributes), found.attributes.mode)
        self.handle = found.handle or filesystem.root_handle
        self.path = path
        """From the root of the mount, where files are addressed so; else empty."""
        self.attributes = found.attributes
        self._target = found.target
        self._children: dict[str, GoferInode] = {}
        self._listing: list[DirectoryEntry] | None = None
        self._names: frozenset[str] | None = None
        self._misses = 0
        self._reader: HostDescriptor | None = None
        self._writer: HostDescriptor | None = None
        self._is_stale = False
        self._xattr_names: list[str] | None = None
        if filesystem.exclusive and found.xattr_names is not None:
            self._xattr_names = _split_names(found.xattr_names)
        self.apply(found.attributes)

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

    async def refresh(self) -> None:
        """Asks the host for the present attributes of a shared file: through an open descriptor if there is one."""
        if self.filesystem.exclusive or self._apply_descriptor():
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
            values.append(value or 0)
        reply = await self._call(protocol.SETATTR, protocol.CHANGE.pack(mask, *values))
        self.apply(Attributes.take(Reader(reply)))

    async def _call(self, operation: int, arguments: bytes = b"") -> bytes:
        return (await self.filesystem.gofer.call(operation, self.host_target + arguments)).payload

    # Looking names up ----------------------------------------------------------------------------

    async def lookup(self, name: str) -> Inode:
        """Finds a name: on exclusive mounts without a trip once it is known, or the directory is listed."""
        if self.filesystem.exclusive:
            found = self._children.get(name)
            if found is not None:
                return found
            if self._names is not None:
                await self._note_miss(name)
                if name in self._children:
                    return self._children[name]
        answer = (await self.lookup_path([name]))[0]
        if answer is None:
            raise errnos.ENOENT(f"no {name!r}")
        return answer

    async def _note_miss(self, name: str) -> None:
        """Reckons with a listed directory: a name not listed is not there; several lookups are a scan."""
        assert self._names is not None
        if name not in self._names:
            raise errnos.ENOENT(f"no {name!r}")
        self._misses += 1
        if self._misses > _MISSES_BEFORE_PLUS:
            self._misses = 0
            await self._list(_UNLIMITED)

    async def lookup_path(self, names: Sequence[str]) -> list[Inode | None]:
        """Finds a chain of names, each in the one before, in one trip.

        Ends early at what is no directory (a link, say) and with ``None`` at a name that does not exist.
        """
        packed = [os.fsencode(name) for name in names[:_WALK_NAMES_MAX]]
        while len(packed) > 1 and sum(map(len, packed)) + len(packed) > protocol.MAX_PATH:
            packed.pop()
        keep = 0 if self.filesystem.uses_paths else protocol.KEEP
        reply = Reader(await self._call(protocol.WALK, U32.pack(keep) + pack_text(b"/".join(packed))))
        error, count = reply.number(U32), reply.number(U32)
        inodes: list[Inode | None] = []
        parent = self
        for name, text in zip(packed[:count], names, strict=False):
            found = _Found.take(reply, reply.number(U32))
            parent = parent._adopt_child(name, text, found)
            inodes.append(parent)
        if error == errnos.ENOENT.errno:
            inodes.append(None)
        elif error and not inodes:
            raise errnos.BY_NUMBER.get(error, errnos.EIO)(f"the host does not let {names[0]!r} be found")
        return inodes

    def _adopt_child(self, name: bytes, text: str, found: _Found) -> GoferInode:
        filesystem = self.filesystem
        path = (self.path + b"/" + name if self.path else name) if filesystem.uses_paths else b""
        child = filesystem.adopt(found, path)
        if filesystem.exclusive and text not in self._children:
            self._children[text] = child
            filesystem.note_cached(self, 1)
        return child

    def forget_names(self) -> None:
        """Drops what is remembered of the directory's names; asking again finds the same inodes."""
        self._children = {}
        self._note_names_changed()

    async def entries(self) -> list[DirectoryEntry]:
        """Lists the names; an exclusive directory is listed once."""
        if self._listing is not None:
            return self._listing
        return await self._list(_PLUS_LIMIT if self.filesystem.uses_paths else 0)

    async def _list(self, plus_limit: int) -> list[DirectoryEntry]:
        reply = Reader(await self._call(protocol.READDIR, U32.pack(plus_limit)))
        device = self.attributes.dev
        listing = []
        while not reply.is_at_end:
            ino, kind, has_attributes = reply.fields(protocol.ENTRY)
            name = reply.text(protocol.MAX_NAME)
            text = os.fsdecode(name)
            if has_attributes:
                found = _Found.take(reply, 0)
                number = self._adopt_child(name, text, found).ino
            else:
                number = self.filesystem.inode_number(self.attributes._replace(dev=device, ino=ino))
            listing.append(DirectoryEntry(text, number, kind))
        if self.filesystem.exclusive:
            self.filesystem.note_cached(self, len(listing))
            self._listing = listing
            self._names = frozenset(entry.name for entry in listing)
        return listing

    async def readlink(self) -> str:
        """Gives the target, which came with the lookup."""
        if not self.is_symlink:
            raise errnos.EINVAL("not a symbolic link")
        if not self._target:
            self._target = await self._call(protocol.READLINK)
        return os.fsdecode(self._target)

    # Changing names ------------------------------------------------------------------------------

    async def create(self, name: str, mode: int, owner: Owner) -> Inode:
        """Makes a regular file; its descriptor comes along and waits for the open(2) that follows."""
        return await self._create(name, mode, owner)

    async def create_unnamed(self, mode: int, owner: Owner) -> Inode:
        """Makes a regular file without a name."""
        return await self._create("", mode, owner)

    async def _create(self, name: str, mode: int, owner: Owner) -> GoferInode:
        packed = os.fsencode(name)
        arguments = pack_text(packed) + U32.pack(mode) + U32.pack(protocol.KEEP) + protocol.OWNER.pack(*owner)
        reply = await self.filesystem.gofer.call(protocol.CREATE, self.host_target + arguments)
        assert reply.descriptor is not None
        reader = Reader(reply.payload)
        inode = self._enter(name, _Found(reader.number(U32), Attributes.take(reader)))
        inode._writer = HostDescriptor(reply.descriptor, readable=True, writable=True)
        self.filesystem.keep_idle(inode._writer, inode)
        return inode

    async def mkdir(self, name: str, mode: int, owner: Owner) -> Inode:
        """Makes a directory."""
        return await self._make(protocol.MKDIR, name, mode, owner)

    async def symlink(self, name: str, target: str, owner: Owner) -> Inode:
        """Makes a symbolic link."""
        return await self._make(protocol.SYMLINK, name, 0o777, owner, os.fsencode(target))

    async def mknod(self, name: str, mode: int, device: int, owner: Owner) -> Inode:
        """Makes a FIFO, a socket or an empty file; the host gets no device nodes from us."""
        if stat_bits.S_ISREG(mode):
            return await self._create(name, mode, owner)
        return await self._make(protocol.MKNOD, name, mode, owner)

    async def _make(self, operation: int, name: str, mode: int, owner: Owner, target: bytes = b"") -> GoferInode:
        arguments = (pack_text(os.fsencode(name)) + U32.pack(mode) + U32.pack(protocol.KEEP)
                     + protocol.OWNER.pack(*owner) + pack_text(target))  # fmt: skip
        reader = Reader(await self._call(operation, arguments))
        return self._enter(name, _Found(reader.number(U32), Attributes.take(reader), target))

    def _enter(self, name: str, found: _Found) -> GoferInode:
        """Takes a new file into the caches."""
        child = self._adopt_child(os.fsencode(name), name, found)
        self._note_names_changed()
        return child

    def _note_names_changed(self) -> None:
        self._listing = self._names = None

    async def link(self, name: str, target: Inode) -> None:
        """Gives a file one more name."""
        assert isinstance(target, GoferInode)
        reply = await self.filesystem.gofer.call(
            protocol.LINK, target.host_target + self.host_target + pack_text(os.fsencode(name)))
        target.apply(Attributes.take(Reader(reply.payload)))
        if self.filesystem.exclusive:
            self._children[name] = target
        self._note_names_changed()

    async def unlink(self, name: str, victim: Inode) -> None:
        """Takes a name away."""
        await self._remove(name, victim, is_directory=False)

    async def rmdir(self, name: str, victim: Inode) -> None:
        """Removes an empty directory."""
        await self._remove(name, victim, is_directory=True)

    async def _remove(self, name: str, victim: Inode, is_directory: bool) -> None:
        await self._call(protocol.UNLINK, pack_text(os.fsencode(name)) + U32.pack(is_directory))
        victim.nlink = 0 if is_directory else max(0, victim.nlink - 1)
        self._children.pop(name, None)
        self._note_names_changed()

    async def rename(self, name: str, moved: Inode, parent: Inode, new_name: str, replaced: Inode | None,
                     exchange: bool) -> None:
        """Moves a name on the host."""
        assert isinstance(parent, GoferInode)
        flags = U32.pack(2 if exchange else 0)
        await self.filesystem.gofer.call(protocol.RENAME, self.host_target + parent.host_target
                                         + pack_text(os.fsencode(name)) + pack_text(os.fsencode(new_name)) + flags)
        if replaced is not None and not exchange:
            replaced.nlink = 0 if replaced.is_directory else max(0, replaced.nlink - 1)
        child, other = self._children.pop(name, None), parent._children.pop(new_name, None)
        if child is not None:
            parent._children[new_name] = child
        if exchange and other is not None:
            self._children[name] = other
        self._note_names_changed()
        parent._note_names_changed()

    async def sync(self) -> None:
        """Writes a directory through, fsync(2)."""
        await self._call(protocol.FSYNC)

    # Content -------------------------------------------------------------------------------------

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens a directory or a regular file."""
        if self.is_directory:
            return HostDirectoryFile(self, flags, location)
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
        if self._xattr_names is not None and name not in self._xattr_names:
            raise errnos.ENODATA(f"no attribute {name!r}")
        return await self._call(protocol.GETXATTR, pack_text(os.fsencode(name)))

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
        if self._xattr_names is not None:
            return self._xattr_names
        names = _split_names(await self._call(protocol.LISTXATTR))
        if self.filesystem.exclusive:
            self._xattr_names = names
        return names


def _split_names(packed: bytes) -> list[str]:
    return [os.fsdecode(name) for name in packed.split(b"\0") if name]
