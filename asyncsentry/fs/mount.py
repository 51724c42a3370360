"""Mounts: where file systems hang in the tree a guest sees, and the namespaces that hold them.

A mount shows one dentry tree of a file system (its ``root``) at a *mountpoint*, which is a dentry in its
parent mount. At most one mount sits on one (mount, dentry) pair; mounting there again stacks on the root
of the first. Propagation is private throughout. See mount_namespaces(7), mount(2), proc_pid_mountinfo(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi import mount_h as abi
from asyncsentry.fs.dentry import Dentry, Location

if TYPE_CHECKING:
    from asyncsentry.fs.inode import FileSystem

MOUNTS_MAX = 100_000
"""Mounts one namespace may hold, ``fs.mount-max``."""

_OPTION_NAMES = (
    (abi.MS_NOSUID, "nosuid"), (abi.MS_NODEV, "nodev"), (abi.MS_NOEXEC, "noexec"), (abi.MS_NOATIME, "noatime"),
    (abi.MS_NODIRATIME, "nodiratime"), (abi.MS_RELATIME, "relatime"), (abi.MS_NOSYMFOLLOW, "nosymfollow"),
)  # fmt: skip


class Mount:
    """One file system (or a part of one, for bind mounts) at one place."""

    def __init__(self, mount_id: int, filesystem: FileSystem, root: Dentry, flags: int = 0, source: str = "none",
                 namespace: MountNamespace | None = None) -> None:
        self.mount_id = mount_id
        self.filesystem = filesystem
        self.root = root
        self.flags = flags
        """``MS_*`` bits within :data:`~asyncsentry.abi.mount_h.MNT_FLAGS`."""
        self.source = source
        """What mount(2) was given as the source, shown in /proc/mounts."""
        self.namespace = namespace
        """``None`` for a detached mount, and for the hidden ones of anonymous files."""
        self.parent: Mount | None = None
        self.mountpoint: Dentry | None = None
        self.children: dict[Dentry, Mount] = {}

    @property
    def read_only(self) -> bool:
        """Whether nothing may be written through it."""
        return bool(self.flags & abi.MS_RDONLY) or self.filesystem.read_only

    @property
    def where(self) -> Location:
        """The location it covers; its own root for the root of a namespace."""
        if self.parent is None or self.mountpoint is None:
            return Location(self, self.root)
        return Location(self.parent, self.mountpoint)

    def option_names(self) -> str:
        """Gives the per-mount options as /proc/mounts shows them, e.g. ``rw,nosuid,relatime``."""
        names = ["ro" if self.flags & abi.MS_RDONLY else "rw"]
        names += [name for flag, name in _OPTION_NAMES if self.flags & flag]
        return ",".join(names)

    def root_path(self) -> str:
        """Gives the path of its root within the file system, mountinfo's fourth field."""
        return path_in_filesystem(self.root)

    def attach(self, parent: Mount, mountpoint: Dentry) -> None:
        """Hangs it on a dentry of ``parent`` that carries none there."""
        self.parent, self.mountpoint, self.namespace = parent, mountpoint, parent.namespace
        parent.children[mountpoint] = self
        mountpoint.mounts += 1

    def detach(self) -> None:
        """Takes it off its parent; mounts below it stay with it."""
        if self.parent is not None and self.mountpoint is not None:
            del self.parent.children[self.mountpoint]
            self.mountpoint.mounts -= 1
        self.parent = self.mountpoint = None

    def subtree(self) -> Iterator[Mount]:
        """Gives it and every mount below it, parents first, in order of mounting."""
        pending = [self]  # not recursive: guests stack mounts as high as MOUNTS_MAX
        while pending:
            mount = pending.pop()
            yield mount
            pending += reversed(mount.children.values())


def path_in_filesystem(dentry: Dentry) -> str:
    """Gives the path from the root of the file system to a dentry."""
    names: list[str] = []
    at: Dentry | None = dentry
    while at is not None and at.parent is not None:
        names.append(at.name)
        at = at.parent
    return "/" + "/".join(reversed(names))


def topmost(location: Location) -> Location:
    """Gives what a walk that arrives at ``location`` sees: the root of the last mount stacked on it."""
    mount, dentry = location
    while dentry.mounts:
        child = mount.children.get(dentry)
        if child is None:
            break
        mount, dentry = child, child.root
    return Location(mount, dentry)


class MountNamespace:
    """A tree of mounts; what CLONE_NEWNS copies."""

    def __init__(self, filesystem: FileSystem, flags: int = 0, source: str = "none") -> None:
        self._next_id = 20  # Linux's first visible numbers are small too; nothing depends on it
        self.count = 1
        self.users = 1
        self.root_mount = Mount(self._allocate_id(), filesystem, filesystem.root_dentry, flags, source, self)

    def _allocate_id(self) -> int:
        self._next_id += 1
        return self._next_id

    @property
    def root(self) -> Location:
        """Where a new process starts: the top of everything."""
        return topmost(Location(self.root_mount, self.root_mount.root))

    def mount(self, location: Location, filesystem: FileSystem, flags: int = 0, source: str = "none") -> Mount:
        """Mounts a file system on top of what is at ``location``."""
        return self._add(location, filesystem, filesystem.root_dentry, flags, source)

    def bind(self, location: Location, what: Location, recursive: bool = False) -> Mount:
        """Makes ``what`` visible at ``location`` too, with its flags; ``recursive`` takes the mounts below along."""
        if recursive and self.count + sum(1 for _ in what.mount.subtree()) > MOUNTS_MAX:
            raise errnos.ENOSPC("too many mounts")
        copy = self._copy_tree(what.mount, what.dentry, recursive)
        self._attach(copy, location)
        return copy

    def move(self, mount: Mount, location: Location) -> None:
        """Moves a mount, with all below it, to another place: MS_MOVE."""
        if mount.parent is None:
            raise errnos.EINVAL("the root cannot be moved")
        if mount in _ancestors(location.mount):
            raise errnos.ELOOP("a mount cannot be moved below itself")
        target = topmost(location)
        mount.detach()
        mount.attach(target.mount, target.dentry)

    def umount(self, mount: Mount, detach: bool = False) -> list[FileSystem]:
        """Takes a mount away; EBUSY if others hang below it and ``detach`` (MNT_DETACH) is not given.

        Gives the file systems that are now nowhere mounted, for the caller to release when unused.
        """
        if mount.namespace is not self or mount.parent is None:
            raise errnos.EINVAL("not mounted here")
        if mount.children and not detach:
            raise errnos.EBUSY("other mounts hang below it")
        gone = list(mount.subtree())
        for each in reversed(gone):
            each.detach()
            each.namespace = None
        self.count -= len(gone)
        left = {each.filesystem for each in self}
        return list({each.filesystem: None for each in gone if each.filesystem not in left})

    def pivot(self, new_root: Location, put_old: Location) -> Mount:
        """Makes a mount the root and hangs the old root at ``put_old``, pivot_root(2); gives the old root."""
        new, old = new_root.mount, self.root_mount
        target = topmost(put_old)
        new.detach()
        self.root_mount = new
        old.attach(target.mount, target.dentry)
        return old

    def copy(self) -> tuple[MountNamespace, dict[Mount, Mount]]:
        """Copies the namespace, CLONE_NEWNS; also tells which new mount stands for which old one."""
        other = MountNamespace.__new__(MountNamespace)
        other._next_id, other.count, other.users = self._next_id, self.count, 1
        pairs: dict[Mount, Mount] = {}
        for old in self:
            new = Mount(other._allocate_id(), old.filesystem, old.root, old.flags, old.source, other)
            pairs[old] = new
            if old.parent is not None and old.mountpoint is not None:
                new.attach(pairs[old.parent], old.mountpoint)
        other.root_mount = pairs[self.root_mount]
        return other, pairs

    def __iter__(self) -> Iterator[Mount]:
        """Every mount, parents first."""
        return self.root_mount.subtree()

    def _add(self, location: Location, filesystem: FileSystem, root: Dentry, flags: int, source: str) -> Mount:
        mount = Mount(self._allocate_id(), filesystem, root, flags & abi.MNT_FLAGS, source)
        self._attach(mount, location)
        return mount

    def _attach(self, mount: Mount, location: Location) -> None:
        target = topmost(location)
        added = sum(1 for _ in mount.subtree())
        if self.count + added > MOUNTS_MAX:
            raise errnos.ENOSPC("too many mounts")
        if _is_directory(target.dentry) != _is_directory(mount.root):
            raise errnos.ENOTDIR("a directory can only be mounted on a directory, a file on a file")
        if target.dentry.unlinked:
            raise errnos.ENOENT("the mount point was removed")
        mount.attach(target.mount, target.dentry)
        for each in mount.subtree():
            each.namespace = self
        self.count += added

    def _copy_tree(self, mount: Mount, root: Dentry, recursive: bool) -> Mount:
        copy = Mount(self._allocate_id(), mount.filesystem, root, mount.flags, mount.source)
        pending = [(mount, copy)] if recursive else []
        while pending:
            old, new = pending.pop()
            for mountpoint, child in tuple(old.children.items()):
                if _is_below(mountpoint, new.root):
                    below = Mount(self._allocate_id(), child.filesystem, child.root, child.flags, child.source)
                    below.attach(new, mountpoint)
                    pending.append((child, below))
        return copy


def _is_directory(dentry: Dentry) -> bool:
    return dentry.inode is not None and dentry.inode.is_directory


def _is_below(dentry: Dentry, root: Dentry) -> bool:
    at: Dentry | None = dentry
    while at is not None:
        if at is root:
            return True
        at = at.parent
    return False


def _ancestors(mount: Mount) -> Iterator[Mount]:
    at: Mount | None = mount
    while at is not None:
        yield at
        at = at.parent
