"""tmpfs: a file system in memory, and the files of memfd_create(2). See tmpfs(5).

All its operations are immediate; they are coroutines only because the interface is. Names are a dict per
directory, content is :class:`~asyncsentry.fs.content.Content`. It trusts its caller to have checked permissions.
"""

from __future__ import annotations

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import F_SEAL_EXEC, F_SEAL_SEAL
from asyncsentry.abi.stat_h import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from asyncsentry.clock import CLOCK_REALTIME, Clock
from asyncsentry.fs.content import Content, PageBudget
from asyncsentry.fs.dentry import Dentry, Location
from asyncsentry.fs.devices import open_special
from asyncsentry.fs.directory import DirectoryFile
from asyncsentry.fs.file import File
from asyncsentry.fs.inode import AttributeChange, DirectoryEntry, FileSystem, Inode, Owner, Stat, StatFs
from asyncsentry.fs.memfile import TmpFile
from asyncsentry.fs.mount import Mount
from asyncsentry.fs.xattr import XattrStore

TMPFS_MAGIC = 0x01021994
_ENTRY_SIZE = 20  # what Linux adds to a directory's size per name
_DAY_NS = 86_400_000_000_000
_LINKS_MAX = 1 << 20


class TmpFileSystem(FileSystem):
    """One tmpfs. ``size`` and ``inodes`` limit it; ``None`` for no limit."""

    name = "tmpfs"

    def __init__(self, device: int, clock: Clock, size: int | None = None, mode: int = 0o1777, uid: int = 0,
                 gid: int = 0, inodes: int | None = None) -> None:
        super().__init__(device)
        self.clock = clock
        self.budget = PageBudget(None if size is None else -(-size // 4096))
        self.inodes_max = inodes
        self.inode_count = 0
        self._next_ino = 0
        self.root: TmpDirectory = TmpDirectory(self, S_IFDIR | mode & 0o7777, Owner(uid, gid))

    def now_ns(self) -> int:
        """Gives the time for time stamps."""
        return self.clock.now_ns(CLOCK_REALTIME)

    def new_ino(self) -> int:
        """Gives the next inode number; ENOSPC when there are as many inodes as allowed."""
        if self.inodes_max is not None and self.inode_count >= self.inodes_max:
            raise errnos.ENOSPC("no inodes left")
        self.inode_count += 1
        self._next_ino += 1
        return self._next_ino

    async def release(self) -> None:
        """Gives all host descriptors back."""
        self.budget.close()

    def statfs(self) -> StatFs:
        """Gives sizes; all zero without a limit, as Linux shows."""
        answer = StatFs(TMPFS_MAGIC)
        if self.budget.limit is not None:
            answer.blocks = self.budget.limit
            answer.blocks_free = answer.blocks_available = self.budget.free
        if self.inodes_max is not None:
            answer.files = self.inodes_max
            answer.files_free = self.inodes_max - self.inode_count
        return answer

    def mount_options(self) -> str:
        """Gives ``size`` and ``mode`` as /proc/mounts shows them."""
        options = [] if self.budget.limit is None else [f"size={self.budget.limit * 4}k"]
        if self.inodes_max is not None:
            options.append(f"nr_inodes={self.inodes_max}")
        if self.root.mode & 0o7777 != 0o1777:
            options.append(f"mode={self.root.mode & 0o7777:o}")
        options += [f"{name}={value}" for name, value in (("uid", self.root.uid), ("gid", self.root.gid)) if value]
        return ",".join(options)


class TmpInode(Inode):
    """What all files of a tmpfs have: attributes, times, extended attributes."""

    filesystem: TmpFileSystem

    def __init__(self, filesystem: TmpFileSystem, mode: int, owner: Owner, rdev: int = 0) -> None:
        ino = filesystem.new_ino()
        super().__init__(filesystem, ino, mode, owner.uid, owner.gid)
        self.rdev = rdev
        self.atime_ns = self.mtime_ns = self.ctime_ns = self.btime_ns = filesystem.now_ns()
        self._xattrs: XattrStore | None = None

    def __del__(self) -> None:
        if hasattr(self, "filesystem"):  # not when there was no number left for it
            self.filesystem.inode_count -= 1

    @property
    def size(self) -> int:
        """``st_size``."""
        return 0

    @property
    def blocks(self) -> int:
        """``st_blocks``."""
        return 0

    def stat(self) -> Stat:
        """Gives the attributes."""
        return Stat(
            self.filesystem.device, self.ino, self.mode, self.nlink, self.uid, self.gid, self.rdev, self.size,
            self.blocks, 4096, self.atime_ns, self.mtime_ns, self.ctime_ns, self.btime_ns,
        )  # fmt: skip

    async def set_attributes(self, change: AttributeChange) -> None:
        """Changes attributes at once."""
        if change.size is not None:
            self.set_size(change.size)
        if change.mode is not None:
            self.mode = self.mode & S_IFMT | change.mode
        if change.uid is not None:
            self.uid = change.uid
        if change.gid is not None:
            self.gid = change.gid
        self.ctime_ns = self.filesystem.now_ns()
        if change.atime_ns is not None:
            self.atime_ns = change.atime_ns
        if change.mtime_ns is not None:
            self.mtime_ns = change.mtime_ns

    def set_size(self, size: int) -> None:
        """Truncates or extends a regular file."""
        raise errnos.EINVAL("only regular files have a size to set")

    def changed(self) -> None:
        """Stamps a change of content."""
        self.mtime_ns = self.ctime_ns = self.filesystem.now_ns()

    def accessed(self) -> None:
        """Stamps a reading, by the rules of relatime, mount(8)."""
        now_ns = self.filesystem.now_ns()
        if self.atime_ns <= self.mtime_ns or self.atime_ns <= self.ctime_ns or now_ns - self.atime_ns > _DAY_NS:
            self.atime_ns = now_ns

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens a FIFO or a device node; other kinds override this."""
        return await open_special(self, flags, location, context)

    async def get_xattr(self, name: str) -> bytes:
        """Gives an attribute's value."""
        if self._xattrs is None:
            raise errnos.ENODATA(f"no attribute {name!r}")
        return self._xattrs.get(name)

    async def set_xattr(self, name: str, value: bytes, flags: int) -> None:
        """Sets an attribute."""
        if self._xattrs is None:
            self._xattrs = XattrStore()
        self._xattrs.set(name, value, flags)
        self.ctime_ns = self.filesystem.now_ns()

    async def remove_xattr(self, name: str) -> None:
        """Removes an attribute."""
        if self._xattrs is None:
            raise errnos.ENODATA(f"no attribute {name!r}")
        self._xattrs.remove(name)
        self.ctime_ns = self.filesystem.now_ns()

    async def list_xattrs(self) -> list[str]:
        """Lists the names."""
        return [] if self._xattrs is None else self._xattrs.names()


class TmpSymlink(TmpInode):
    """A symbolic link."""

    def __init__(self, filesystem: TmpFileSystem, owner: Owner, target: str) -> None:
        super().__init__(filesystem, S_IFLNK | 0o777, owner)
        self.target = target

    @property
    def size(self) -> int:
        """The length of the target."""
        return len(self.target.encode(errors="surrogateescape"))

    async def readlink(self) -> str:
        """Gives the target's text."""
        return self.target


class TmpDirectory(TmpInode):
    """A directory: names in the order they were made."""

    def __init__(self, filesystem: TmpFileSystem, mode: int, owner: Owner) -> None:
        super().__init__(filesystem, mode, owner)
        self.nlink = 2
        self.names: dict[str, TmpInode] = {}

    @property
    def size(self) -> int:
        """Grows with the number of names."""
        return _ENTRY_SIZE * (len(self.names) + 2)

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens it for listing."""
        return DirectoryFile(self, flags, location)

    async def lookup(self, name: str) -> Inode:
        """Finds a name."""
        inode = self.names.get(name)
        if inode is None:
            raise errnos.ENOENT(f"no {name!r}")
        return inode

    async def entries(self) -> list[DirectoryEntry]:
        """Lists the names, newest first as on Linux."""
        self.accessed()
        return [DirectoryEntry(name, inode.ino, inode.mode >> 12) for name, inode in reversed(self.names.items())]

    async def create(self, name: str, mode: int, owner: Owner) -> Inode:
        """Makes a regular file."""
        return self._add(name, TmpRegular(self.filesystem, S_IFREG | mode, owner))

    async def create_unnamed(self, mode: int, owner: Owner) -> Inode:
        """Makes a regular file without a name."""
        inode = TmpRegular(self.filesystem, S_IFREG | mode, owner)
        inode.nlink = 0
        return inode

    async def mkdir(self, name: str, mode: int, owner: Owner) -> Inode:
        """Makes a directory."""
        return self._add(name, TmpDirectory(self.filesystem, S_IFDIR | mode, owner))

    async def symlink(self, name: str, target: str, owner: Owner) -> Inode:
        """Makes a symbolic link."""
        return self._add(name, TmpSymlink(self.filesystem, owner, target))

    async def mknod(self, name: str, mode: int, device: int, owner: Owner) -> Inode:
        """Makes a FIFO, a socket's name or a device node."""
        return self._add(name, TmpInode(self.filesystem, mode, owner, device))

    async def link(self, name: str, target: Inode) -> None:
        """Gives a file one more name."""
        assert isinstance(target, TmpInode)
        if target.nlink >= _LINKS_MAX:
            raise errnos.EMLINK("too many names")
        self._add(name, target)
        target.nlink += 1
        target.ctime_ns = self.ctime_ns

    async def unlink(self, name: str, victim: Inode) -> None:
        """Takes a name away."""
        self._remove(name, victim)
        victim.nlink -= 1

    async def rmdir(self, name: str, victim: Inode) -> None:
        """Removes an empty directory."""
        assert isinstance(victim, TmpDirectory)
        if victim.names:
            raise errnos.ENOTEMPTY(f"{name!r} is not empty")
        self._remove(name, victim)
        victim.nlink = 0

    async def rename(self, name: str, moved: Inode, parent: Inode, new_name: str, replaced: Inode | None,
                     exchange: bool) -> None:
        """Moves a name, or lets two change places."""
        assert isinstance(moved, TmpInode)
        assert isinstance(parent, TmpDirectory)
        if replaced is not None:
            assert isinstance(replaced, TmpInode)
            if not exchange and isinstance(replaced, TmpDirectory) and replaced.names:
                raise errnos.ENOTEMPTY(f"{new_name!r} is not empty")
            parent._remove(new_name, replaced)
        self._remove(name, moved)
        parent._add(new_name, moved)
        moved.ctime_ns = parent.ctime_ns
        if replaced is None:
            return
        if exchange:
            self._add(name, replaced)
            replaced.ctime_ns = self.ctime_ns
        else:
            replaced.nlink = 0 if replaced.is_directory else replaced.nlink - 1

    def _add(self, name: str, inode: TmpInode) -> TmpInode:
        if name in self.names:
            raise errnos.EEXIST(f"{name!r} exists")
        self.names[name] = inode
        if inode.is_directory:
            self.nlink += 1
        self.changed()
        return inode

    def _remove(self, name: str, inode: Inode) -> None:
        if self.names.get(name) is not inode:
            raise errnos.ENOENT(f"{name!r} is gone")
        del self.names[name]
        if inode.is_directory:
            self.nlink -= 1
        self.changed()
        if isinstance(inode, TmpInode):
            inode.ctime_ns = self.ctime_ns


class TmpRegular(TmpInode):
    """A regular file."""

    def __init__(self, filesystem: TmpFileSystem, mode: int, owner: Owner, seals: int = F_SEAL_SEAL) -> None:
        super().__init__(filesystem, mode, owner)
        self.content = Content(filesystem.budget, seals)

    @property
    def size(self) -> int:
        """The length of the content."""
        return self.content.size

    @property
    def blocks(self) -> int:
        """What it takes, holes not counted."""
        return self.content.blocks

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens it."""
        return TmpFile(self, flags, location, getattr(context, "credentials", None))

    def set_size(self, size: int) -> None:
        """Truncates or extends it."""
        self.content.truncate(size)
        self.changed()


MFD_CLOEXEC = 1
MFD_ALLOW_SEALING = 2
MFD_NOEXEC_SEAL = 8


def memfd_file(filesystem: TmpFileSystem, name: str, flags: int, owner: Owner | None = None) -> TmpFile:
    """Makes the file memfd_create(2) opens: no directory holds it, and it may be sealed if ``flags`` says so."""
    mode, seals = 0o777, 0 if flags & (MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL) else F_SEAL_SEAL
    if flags & MFD_NOEXEC_SEAL:
        mode, seals = 0o666, F_SEAL_EXEC
    inode = TmpRegular(filesystem, S_IFREG | mode, owner or Owner(0, 0), seals)
    inode.nlink = 0
    dentry = Dentry(f"/memfd:{name}", None, inode)
    dentry.unlinked = True
    location = Location(Mount(0, filesystem, dentry, source="tmpfs"), dentry)
    return TmpFile(inode, 0o2 | 0o100000, location)
