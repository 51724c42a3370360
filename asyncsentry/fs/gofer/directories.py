"""Directories of the host: finding, listing and changing names, with what exclusive mounts remember of them."""

from __future__ import annotations

import os
import stat as stat_bits
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from asyncsentry import errnos
from asyncsentry.fs.file import File
from asyncsentry.fs.gofer import protocol
from asyncsentry.fs.gofer.attributes import Attributes, Found
from asyncsentry.fs.gofer.files import HostDescriptor, HostDirectoryFile
from asyncsentry.fs.gofer.inodes import GoferInode
from asyncsentry.fs.gofer.protocol import U32, Reader, pack_text
from asyncsentry.fs.inode import DirectoryEntry, Inode, Owner

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.gofer.client import GoferFileSystem

_PLUS_LIMIT = 256
"""Directories up to this many names are listed with attributes at once."""
_UNLIMITED = 0xFFFF_FFFF
_MISSES_BEFORE_PLUS = 2
_ABSENCES_BEFORE_LISTING = 3
_NEVER = -(1 << 60)
_HUGE = 1 << 20
"""Size of a directory that takes long to list: some 20 000 names."""
_WALK_NAMES_MAX = 64


class _Row(NamedTuple):
    """What a listing told of a file nobody has looked up yet."""

    attributes: bytes
    target: bytes
    xattr_names: bytes


class GoferDirectory(GoferInode):
    """A host directory."""

    def __init__(self, filesystem: GoferFileSystem, found: Found, path: bytes) -> None:
        super().__init__(filesystem, found, path)
        self._children: dict[str, GoferInode] = {}
        self._rows: dict[str, _Row] = {}
        self._listing: list[DirectoryEntry] | None = None
        self._names: frozenset[str] | None = None
        self._misses = 0
        self._absences = 0

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens it for listing."""
        return HostDirectoryFile(self, flags, location)

    # Looking names up ----------------------------------------------------------------------------

    async def lookup(self, name: str) -> Inode:
        """Finds a name: on exclusive mounts without a trip once it is known, or the directory is listed."""
        answer = (await self.lookup_path([name]))[0]
        if answer is None:
            raise errnos.ENOENT(f"no {name!r}")
        return answer

    async def _find_known(self, name: str) -> tuple[bool, GoferInode | None]:
        """Says whether a name needs no asking, and what it stands for; ``None`` if it is known not to exist.

        Programs search directories for many names in vain (PATH, libraries, modules), or ask for all names of one
        (``ls -l``). After a few of either kind the directory is listed, with attributes in the second case.
        """
        child = self._children.get(name)
        if child is not None:
            return True, child
        if self._names is None:
            if self._absences < _ABSENCES_BEFORE_LISTING or not await self._try_list(_PLUS_LIMIT):
                return False, None
            assert self._names is not None
        if name not in self._names:
            return True, None
        if not self.filesystem.uses_paths:
            return False, None
        if name not in self._rows:
            self._misses += 1
            if self._misses <= _MISSES_BEFORE_PLUS:
                return False, None
            self._misses = 0
            await self._try_list(_UNLIMITED)
        row = self._rows.pop(name, None)
        if row is None:
            return False, None
        found = Found(0, Attributes.unpack(row.attributes), row.target, row.xattr_names)
        return True, self._adopt_child(os.fsencode(name), name, found)

    async def _try_list(self, plus_limit: int) -> bool:
        """Lists the directory for our own use, unless it is huge or may be searched but not read."""
        if self.attributes.size > _HUGE:
            return False
        try:
            await self._list(plus_limit)
        except errnos.EACCES:
            self._absences = _NEVER
            return False
        return True

    async def lookup_path(self, names: Sequence[str]) -> list[Inode | None]:
        """Finds a chain of names, each in the one before, in one trip.

        Ends early at what is no directory (a link, say) and with ``None`` at a name that does not exist.
        """
        if self.filesystem.exclusive:
            is_known, child = await self._find_known(names[0])
            if isinstance(child, GoferDirectory) and len(names) > 1:
                return [child, *await child.lookup_path(names[1:])]
            if is_known:
                return [child]
        packed = [os.fsencode(name) for name in names[:_WALK_NAMES_MAX]]
        while len(packed) > 1 and sum(map(len, packed)) + len(packed) > protocol.MAX_PATH:
            packed.pop()
        # Of the files programs look up by name, most are opened next: that saves a quarter of all trips.
        flags = protocol.OPEN_LAST if self.filesystem.uses_paths else protocol.KEEP
        arguments = U32.pack(flags) + pack_text(b"/".join(packed))
        payload, descriptor = await self.filesystem.gofer.call(protocol.WALK, self.host_target + arguments)
        reply = Reader(payload)
        error, count = reply.number(U32), reply.number(U32)
        inodes: list[Inode | None] = []
        parent: GoferInode = self
        for name, text in zip(packed[:count], names, strict=False):
            assert isinstance(parent, GoferDirectory)
            handle, _, _, _, attributes, target, xattr_names = reply.row()
            parent = parent._adopt_child(name, text, Found(handle, Attributes.unpack(attributes), target, xattr_names))
            inodes.append(parent)
        if descriptor is not None:
            parent.offer_reader(HostDescriptor(descriptor, readable=True, writable=False))
        if error == errnos.ENOENT.errno:
            inodes.append(None)
            if isinstance(parent, GoferDirectory):
                parent._absences += 1
        elif error and not inodes:
            raise errnos.BY_NUMBER.get(error, errnos.EIO)(f"the host does not let {names[0]!r} be found")
        return inodes

    def _adopt_child(self, name: bytes, text: str, found: Found) -> GoferInode:
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
        self._rows = {}
        self._note_names_changed()

    async def entries(self) -> list[DirectoryEntry]:
        """Lists the names; an exclusive directory is listed once."""
        if self._listing is not None:
            return self._listing
        return await self._list(_PLUS_LIMIT)

    async def _list(self, plus_limit: int) -> list[DirectoryEntry]:
        if not self.filesystem.uses_paths:
            plus_limit = 0  # attributes without a handle would be of no use
        reply = Reader(await self._call(protocol.READDIR, U32.pack(plus_limit)))
        filesystem, own_device = self.filesystem, self.attributes.dev
        listing = []
        rows = {}
        while not reply.is_at_end:
            _, ino, kind, name, attributes, target, xattr_names = reply.row()
            text = os.fsdecode(name)
            device = own_device
            if attributes:
                rows[text] = _Row(attributes, target, xattr_names)
                device, ino = protocol.DEVICE_AND_INO.unpack_from(attributes, protocol.DEVICE_OFFSET)
            listing.append(DirectoryEntry(text, filesystem.inode_number(device, ino), kind))
        if filesystem.exclusive:
            filesystem.note_cached(self, len(listing))
            self._listing, self._rows = listing, rows
            self._names = frozenset(entry.name for entry in listing)
        return listing

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
        inode = self._enter(name, Found(reader.number(U32), Attributes.take(reader)))
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
        return self._enter(name, Found(reader.number(U32), Attributes.take(reader), target))

    def _enter(self, name: str, found: Found) -> GoferInode:
        """Takes a new file into the caches."""
        if not name:
            return self.filesystem.adopt(found, b"")
        self._rows.pop(name, None)
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
        self._rows.pop(name, None)
        self._note_names_changed()

    async def rename(self, name: str, moved: Inode, parent: Inode, new_name: str, replaced: Inode | None,
                     exchange: bool) -> None:
        """Moves a name on the host."""
        assert isinstance(parent, GoferDirectory)
        flags = U32.pack(2 if exchange else 0)
        await self.filesystem.gofer.call(protocol.RENAME, self.host_target + parent.host_target
                                         + pack_text(os.fsencode(name)) + pack_text(os.fsencode(new_name)) + flags)
        if replaced is not None and not exchange:
            replaced.nlink = 0 if replaced.is_directory else max(0, replaced.nlink - 1)
        self._rows.pop(name, None)
        parent._rows.pop(new_name, None)
        child, other = self._children.pop(name, None), parent._children.pop(new_name, None)
        if child is not None:
            parent._children[new_name] = child
        if exchange and other is not None:
            self._children[name] = other
        self._note_names_changed()
        parent._note_names_changed()

    async def sync_names(self) -> None:
        """Writes the directory through, fsync(2)."""
        await self._call(protocol.FSYNC)

