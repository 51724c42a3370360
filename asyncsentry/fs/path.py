"""Walking a path, path_resolution(7): from text to a :class:`~asyncsentry.fs.dentry.Location`.

:func:`walk_cached` answers the common case without an await: every component cached, in file systems only
we change. Whatever it does not know it leaves to :class:`Walker`, which does everything and may ask a file
system. Both see the same cache, so they cannot disagree.
After Linux's ``link_path_walk``; the ``RESOLVE_*`` restrictions are openat2(2)'s.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import (
    AT_FDCWD,
    RESOLVE_BENEATH,
    RESOLVE_CACHED,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from asyncsentry.abi.mount_h import MS_NOSYMFOLLOW
from asyncsentry.abi.stat_h import S_IFDIR, S_IFLNK, S_IFMT, S_ISVTX
from asyncsentry.fs.access import MAY_EXEC, FileCredentials, check_access, permits
from asyncsentry.fs.anon import ANON_INODE_FS, AnonInode
from asyncsentry.fs.dcache import NAME_MAX, lookup, lookup_chain
from asyncsentry.fs.dentry import Dentry, Location
from asyncsentry.fs.fdtable import FdTable
from asyncsentry.fs.file import File
from asyncsentry.fs.inode import Inode
from asyncsentry.fs.mount import Mount, topmost

LINKS_MAX = 40
"""Symbolic links one walk follows before ELOOP, path_resolution(7)."""
_SEARCHABLE_DIRECTORY = S_IFDIR | 0o111
_SHARED_AND_STICKY = S_ISVTX | 0o002
_LINKS_CACHED = 8  # more are left to the full walk, which counts to LINKS_MAX


class FsView(Protocol):
    """Root, working directory and umask of a walking thread."""

    root: Location
    cwd: Location
    umask: int


class PathContext(Protocol):
    """What a walk asks of a guest thread."""

    @property
    def fs(self) -> FsView:
        """Its root, working directory and umask."""

    @property
    def credentials(self) -> FileCredentials:
        """Its credentials."""

    @property
    def fds(self) -> FdTable:
        """Its descriptors."""


class Parent(NamedTuple):
    """A directory and the last component of a path in it, which may not exist (yet)."""

    location: Location
    name: str
    """Never empty except for the root itself; may be ``.`` or ``..``."""
    trailing_slash: bool
    known: Dentry | None = None
    """What the walk learned of the name on its way, in a file system that must otherwise be asked again."""

    async def look(self) -> Dentry:
        """Gives the dentry of the name, perhaps a negative one."""
        if self.known is not None:
            return self.known
        return await lookup(self.location.dentry, self.name)

    @property
    def is_ordinary(self) -> bool:
        """Whether the name could name a new file: not ``.``, ``..`` or the root."""
        return self.name not in ("", ".", "..")


# The fast walk -----------------------------------------------------------------------------------


def walk_cached(context: PathContext, dirfd: int, path: str, follow: bool) -> Location | None:
    """Walks a path through the cache; ``None`` when the full walk must be asked.

    Raises ENOENT for a name known not to exist: the one error it is sure of.
    """
    if path[:1] == "/":
        start = context.fs.root
    elif dirfd == AT_FDCWD:
        start = context.fs.cwd
    else:
        file = context.fds.files.get(dirfd)
        if file is None or file.location is None:
            return None
        start = file.location
    return _walk_cached(context, start, path, follow, 0)


def _walk_cached(context: PathContext, start: Location, path: str, follow: bool, links: int) -> Location | None:
    mount, dentry = start
    if path[-1:] == "/" or not mount.filesystem.exclusive:
        return None
    names = path.split("/")
    last = len(names) - 1
    for index, name in enumerate(names):
        if not name:
            continue
        directory = dentry
        inode = directory.inode
        assert inode is not None
        mode = inode.mode
        if mode & _SEARCHABLE_DIRECTORY != _SEARCHABLE_DIRECTORY and (
            mode & S_IFMT != S_IFDIR or not permits(context.credentials, inode, MAY_EXEC)
        ):
            return None
        child = directory.children.get(name)
        if child is None:
            up = directory.parent
            if name != ".." or up is None or up.mounts or directory in (mount.root, context.fs.root.dentry):
                return None
            dentry = up
            continue
        dentry = child
        if dentry.mounts:
            mount, dentry = topmost(Location(mount, dentry))
            if not mount.filesystem.exclusive:
                return None
        inode = dentry.inode
        if inode is None:
            raise errnos.ENOENT(f"no {name!r}")
        if inode.mode & S_IFMT == S_IFLNK and (follow or index < last):
            target = inode.link_target
            if not target or links >= _LINKS_CACHED or mount.flags & MS_NOSYMFOLLOW or (
                    index == last and mode & _SHARED_AND_STICKY == _SHARED_AND_STICKY):
                return None
            from_here = context.fs.root if target[0] == "/" else Location(mount, directory)
            return _walk_cached(context, from_here, "/".join((target, *names[index + 1 :])), follow, links + 1)
    return Location(mount, dentry)


def parent_cached(context: PathContext, dirfd: int, path: str) -> tuple[Location, str] | None:
    """Gives directory and last component of a plain path through the cache; ``None`` when it does not suffice."""
    head, slash, name = path.rpartition("/")
    if name in ("", ".", ".."):
        return None
    if head:
        location = walk_cached(context, dirfd, head, True)
    elif slash:
        location = context.fs.root
    else:
        location = directory_of(context, dirfd)
    if location is None or not location.mount.filesystem.exclusive:
        return None
    inode = location.dentry.inode
    if inode is None or inode.mode & _SEARCHABLE_DIRECTORY != _SEARCHABLE_DIRECTORY:
        return None
    return location, name


# The full walk -----------------------------------------------------------------------------------


class Walker:
    """One walk under way: where it is, and the components still to go (last first)."""

    __slots__ = ("_context", "_fresh", "_links", "_resolve", "_root", "location", "pending", "trailing_slash")

    def __init__(self, context: PathContext, dirfd: int, path: str, resolve: int = 0) -> None:
        self._context = context
        self._resolve = resolve
        self._links = 0
        self._fresh: dict[tuple[Dentry, str], Dentry] = {}
        """What this walk has asked about already, so that a shared file system need not be asked again."""
        self.pending: list[str] = []
        self.trailing_slash = False
        """Whether the last component was followed by a slash, so must be a directory."""
        if path[:1] == "/" and not resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT):
            self.location = self._root = context.fs.root
        else:
            self.location = directory_of(context, dirfd)
            scoped = resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)
            self._root = self.location if scoped else context.fs.root
        self.push(path)

    def push(self, path: str) -> None:
        """Puts a path, or the target of a link, before what is still to go."""
        if path[:1] == "/":
            self._jump_to_root()
        if not self.pending and path[-1:] == "/":
            self.trailing_slash = True
        self.pending += [name for name in reversed(path.split("/")) if name]

    async def to_end(self, follow: bool) -> Location:
        """Walks to the end, where something must exist; ``follow`` says what a link there means."""
        pending = self.pending
        while pending:
            name = pending.pop()
            await self._step(name, follow or bool(pending) or self.trailing_slash)
        if self.trailing_slash and not self.inode.is_directory:
            raise errnos.ENOTDIR("a path that ends in a slash leads to no directory")
        return self.location

    async def to_parent(self) -> str:
        """Walks to the directory of the last component and gives that component, unwalked ('' for a root)."""
        pending = self.pending
        while len(pending) > 1:
            await self._step(pending.pop(), True)
        if not pending:
            return ""
        self._check_search()
        return pending.pop()

    async def child(self, name: str) -> Dentry:
        """Looks one ordinary name up where the walk stands."""
        directory = self.location.dentry
        child = directory.children.get(name)
        if child is not None and (child.mounts or self.location.mount.filesystem.exclusive):
            return child
        known = self.known(name)
        if known is not None:
            return known
        if self._resolve & RESOLVE_CACHED:
            raise errnos.EAGAIN("not cached")
        names = [name]
        for following in reversed(self.pending):
            if following in (".", "..") or len(following) > NAME_MAX:
                break
            names.append(following)
        if len(names) == 1:
            return await lookup(directory, name)
        chain = await lookup_chain(directory, names)
        for dentry in chain:
            assert dentry.parent is not None
            self._fresh[dentry.parent, dentry.name] = dentry
        return chain[0]

    def known(self, name: str) -> Dentry | None:
        """Gives what this walk already learned of a name where it stands, if that still holds."""
        directory = self.location.dentry
        known = self._fresh.get((directory, name))
        if known is None or directory.children.get(name) is (None if known.inode is None else known):
            return known
        return None

    def enter(self, child: Dentry) -> Location:
        """Gives the location of an existing child: what is mounted there, if anything."""
        below = Location(self.location.mount, child)
        if child.mounts:
            below = topmost(below)
            self._check_crossing(below.mount)
        return below

    def go_up(self) -> None:
        """Does ``..``: never above the root, and out of a mount to what it covers."""
        mount, dentry = self.location
        if self.location == self._root:
            if self._resolve & RESOLVE_BENEATH:
                raise errnos.EXDEV("leads out of the starting directory")
            return
        while dentry is mount.root:
            if mount.parent is None:
                return
            mount, dentry = mount.where
            if Location(mount, dentry) == self._root:
                return
        self._check_crossing(mount)
        self.location = topmost(Location(mount, dentry.parent or dentry))

    async def follow(self, link: Location) -> None:
        """Follows a symbolic link found where the walk stands."""
        self._links += 1
        inode = link.dentry.inode
        assert inode is not None
        if self._links > LINKS_MAX or self._resolve & RESOLVE_NO_SYMLINKS or link.mount.flags & MS_NOSYMFOLLOW:
            raise errnos.ELOOP("too many links, or links are not to be followed")
        if not self.pending:
            self._check_trailing_link(inode)
        target = inode.magic_target(self._context)
        if target is not None:
            self._jump(target)
            return
        text = await inode.readlink_by(self._context)
        if not text:
            raise errnos.ENOENT("an empty link")
        if inode.filesystem.exclusive:
            inode.link_target = text
        self.push(text)

    def _check_trailing_link(self, link: Inode) -> None:
        """Guards shared directories against links laid as traps: fs.protected_symlinks=1, Linux's may_follow_link."""
        directory = self.inode
        if (
            directory.mode & _SHARED_AND_STICKY == _SHARED_AND_STICKY
            and link.uid not in (self._context.credentials.fsuid, directory.uid)
        ):
            raise errnos.EACCES("another's link in a shared directory")

    @property
    def inode(self) -> Inode:
        """What stands where the walk is."""
        inode = self.location.dentry.inode
        assert inode is not None
        return inode

    async def _step(self, name: str, follow: bool) -> None:
        self._check_search()
        if name == ".":
            return
        if name == "..":
            self.go_up()
            return
        child = await self.child(name)
        if child.inode is None:
            raise errnos.ENOENT(f"no {name!r}")
        below = self.enter(child)
        inode = below.dentry.inode
        assert inode is not None
        if follow and inode.mode & S_IFMT == S_IFLNK:
            await self.follow(below)
        else:
            self.location = below

    def _check_search(self) -> None:
        inode = self.inode
        if not inode.is_directory:
            raise errnos.ENOTDIR("a component is no directory")
        if inode.mode & 0o111 != 0o111:
            check_access(self._context.credentials, inode, MAY_EXEC)

    def _jump_to_root(self) -> None:
        if self._resolve & RESOLVE_BENEATH:
            raise errnos.EXDEV("leads out of the starting directory")
        self._check_crossing(self._root.mount)
        self.location = self._root

    def _jump(self, target: Location) -> None:
        if self._resolve & RESOLVE_NO_MAGICLINKS:
            raise errnos.ELOOP("a magic link")
        if self._resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT):
            raise errnos.EXDEV("a magic link leads anywhere")
        self._check_crossing(target.mount)
        self.location = target

    def _check_crossing(self, mount: Mount) -> None:
        if self._resolve & RESOLVE_NO_XDEV and mount is not self.location.mount:
            raise errnos.EXDEV("crosses into another mount")


def directory_of(context: PathContext, dirfd: int) -> Location:
    """Gives where a relative path starts: the working directory or an open directory."""
    if dirfd == AT_FDCWD:
        return context.fs.cwd
    file = context.fds.get(dirfd)
    location = file.location
    if location is None or location.dentry.inode is None or not location.dentry.inode.is_directory:
        raise errnos.ENOTDIR(f"fd {dirfd} is no directory")
    return location


async def resolve(context: PathContext, dirfd: int, path: str, follow: bool = True, empty_path: bool = False,
                  resolve_flags: int = 0) -> Location:
    """Walks a path to something that exists.

    ``follow`` says whether a link in last place is followed, ``empty_path`` whether "" means ``dirfd`` itself
    (AT_EMPTY_PATH).
    """
    if not path:
        if not empty_path:
            raise errnos.ENOENT("an empty path")
        return context.fs.cwd if dirfd == AT_FDCWD else location_of(context.fds.get(dirfd))
    if not resolve_flags:
        location = walk_cached(context, dirfd, path, follow)
        if location is not None:
            return location
    return await Walker(context, dirfd, path, resolve_flags).to_end(follow)


async def walk_parent(context: PathContext, dirfd: int, path: str) -> Parent:
    """Walks to the directory that holds, or would hold, the path's last component."""
    if not path:
        raise errnos.ENOENT("an empty path")
    cached = parent_cached(context, dirfd, path)
    if cached is not None:
        return Parent(*cached, False)
    walker = Walker(context, dirfd, path)
    name = await walker.to_parent()
    return Parent(walker.location, name, walker.trailing_slash, walker.known(name))


async def resolve_parent(context: PathContext, dirfd: int, path: str) -> tuple[Location, str]:
    """Gives directory and last component of a path; EEXIST if that is ``.``, ``..`` or the root."""
    parent = await walk_parent(context, dirfd, path)
    if not parent.is_ordinary:
        raise errnos.EEXIST("the path names a directory")
    return parent.location, parent.name


# From a location back to text --------------------------------------------------------------------


def path_of(location: Location, root: Location) -> str:
    """Gives the path from ``root`` (from the top, if it is not below that) to a location, as /proc/PID/fd shows it.

    A removed name gets `` (deleted)`` added; a file without a place gives its description, e.g. ``pipe:[7]``.
    """
    mount = location.mount
    dentry: Dentry = location.dentry
    if dentry is mount.root and dentry.name and dentry.parent is None:
        return dentry.name + (" (deleted)" if dentry.unlinked else "")
    suffix = " (deleted)" if dentry.unlinked else ""
    names: list[str] = []
    while (mount, dentry) != root:
        if dentry is mount.root or dentry.parent is None:
            if mount.parent is None:
                break
            mount, dentry = mount.where
            continue
        names.append(dentry.name)
        dentry = dentry.parent
    return f"/{'/'.join(reversed(names))}{suffix}"


def is_reachable(location: Location, root: Location) -> bool:
    """Whether ``..`` leads from a location up to ``root``."""
    mount = location.mount
    dentry: Dentry = location.dentry
    while (mount, dentry) != root:
        if dentry is mount.root or dentry.parent is None:
            if mount.parent is None:
                return False
            mount, dentry = mount.where
        else:
            dentry = dentry.parent
    return True


# Files without a place ---------------------------------------------------------------------------


def location_of(file: File) -> Location:
    """Gives an open file's location, making a hidden one for files without a place (pipes, sockets …)."""
    if file.location is None:
        inode = file.inode if file.inode is not None else AnonInode(ANON_INODE_FS, 1)
        dentry = Dentry(file.describe(), None, inode)
        file.location = Location(Mount(0, inode.filesystem, dentry), dentry)
    return file.location
