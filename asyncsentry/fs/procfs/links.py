"""Magic links of /proc/PID: they lead to an object, not to a name. See symlink(7), proc_pid_cwd(5)."""

from __future__ import annotations

import stat as stat_bits
from typing import Any

from asyncsentry import errnos
from asyncsentry.abi.nsfs_h import NS_GET_NSTYPE, NS_GET_OWNER_UID, NS_GET_PARENT, NS_GET_USERNS
from asyncsentry.abi.sched_h import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from asyncsentry.fs.anon import AnonInode, InternalFileSystem
from asyncsentry.fs.dentry import Dentry, Location
from asyncsentry.fs.file import O_RDONLY, File
from asyncsentry.fs.mount import Mount
from asyncsentry.fs.path import path_of
from asyncsentry.fs.procfs.base import Subject
from asyncsentry.fs.synthetic import SyntheticInode

NSFS_MAGIC = 0x6E736673
NSFS = InternalFileSystem("nsfs", NSFS_MAGIC, 0xF0F04)
"""What fstat(2) tells of namespace files; constant and never mounted."""


def path_seen_by(context: Any, location: Location) -> str:
    """Gives the path of a location as the reading thread sees it."""
    root = context.fs.root if context is not None else location_root(location)
    return path_of(location, root)


def location_root(location: Location) -> Location:
    """Gives the root of the mount tree a location is in."""
    mount = location.mount
    while mount.parent is not None:
        mount = mount.parent
    return Location(mount, mount.root)


class MagicLink(SyntheticInode):
    """A link whose end is worked out when it is followed."""

    def __init__(self, subject: Subject, uid: int, gid: int) -> None:
        super().__init__(subject.filesystem, stat_bits.S_IFLNK | 0o777, uid, gid)
        self.subject = subject

    def location_of(self) -> Location | None:
        """Gives where it leads, or ``None``."""
        raise NotImplementedError

    def text_for(self, context: Any) -> str:
        """Gives what readlink(2) shows the thread ``context``."""
        location = self.location_of()
        if location is None:
            raise errnos.ENOENT("leads nowhere")
        return path_seen_by(context, location)

    def magic_target(self, context: object) -> Location | None:
        """Gives the end of the link to a walk; EACCES to those who may not inspect the process."""
        self.subject.check_inspection(context)
        location = self.location_of()
        if location is None:
            raise errnos.ENOENT("leads nowhere")
        return location

    async def readlink(self) -> str:
        """Gives the text as nobody in particular sees it."""
        return self.text_for(None)

    async def readlink_by(self, context: object) -> str:
        """Gives the text as ``context`` sees it, if it may."""
        self.subject.check_inspection(context)
        return self.text_for(context)


class ExeLink(MagicLink):
    """/proc/PID/exe."""

    def location_of(self) -> Location | None:
        """Gives the program's file."""
        location: Location | None = self.subject.process.executable if self.subject.thread is not None else None
        return location


class CwdLink(MagicLink):
    """/proc/PID/cwd."""

    def location_of(self) -> Location | None:
        """Gives the working directory."""
        thread = self.subject.thread
        return None if thread is None else thread.fs.cwd


class RootLink(MagicLink):
    """/proc/PID/root."""

    def location_of(self) -> Location | None:
        """Gives the root directory."""
        thread = self.subject.thread
        return None if thread is None else thread.fs.root


NAMESPACES: tuple[tuple[str, str, int], ...] = (
    ("cgroup", "cgroup", 4026531835), ("ipc", "ipc", 4026531839), ("mnt", "mnt", 4026531841),
    ("net", "net", 4026531840), ("pid", "pid", 4026531836), ("pid_for_children", "pid", 4026531836),
    ("time", "time", 4026531834), ("time_for_children", "time", 4026531834), ("user", "user", 4026531837),
    ("uts", "uts", 4026531838),
)  # fmt: skip
"""Name, kind and inode number of the initial namespaces, as on Linux."""


class NamespaceLink(MagicLink):
    """/proc/PID/ns/KIND."""

    def __init__(self, subject: Subject, kind: str, number: int, uid: int, gid: int) -> None:
        super().__init__(subject, uid, gid)
        self.kind_name = kind
        self.number = number

    def namespace_number(self) -> int:
        """Gives the inode number that identifies the namespace the process is in."""
        thread = self.subject.live()
        namespaces = getattr(thread, "namespaces", None)
        found = getattr(namespaces, self.kind_name, None)
        return int(getattr(found, "ino", self.number))

    def text_for(self, context: Any) -> str:
        """Gives e.g. ``net:[4026531840]``."""
        return f"{self.kind_name}:[{self.namespace_number()}]"

    def location_of(self) -> Location | None:
        """Gives a place for the namespace's inode."""
        inode = NamespaceInode(self.kind_name, self.namespace_number())
        dentry = Dentry(f"{self.kind_name}:[{inode.ino}]", None, inode)
        return Location(Mount(0, NSFS, dentry), dentry)


class NamespaceInode(AnonInode):
    """A namespace as a file: it can be opened, compared by inode number, and given to setns(2)."""

    def __init__(self, kind: str, number: int) -> None:
        super().__init__(NSFS, number, stat_bits.S_IFREG | 0o444)
        self.kind_name = kind

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens it."""
        return NamespaceFile(self, flags, location)


class NamespaceFile(File):
    """An open namespace."""

    inode: NamespaceInode

    def __init__(self, inode: NamespaceInode, flags: int, location: Location) -> None:
        super().__init__(inode, flags, None)
        self.text = location.dentry.name

    def ioctl(self, thread: object, request: int, argument: int) -> int:
        """Tells kind, owner and relatives, ioctl_nsfs(2): all belong to the initial user namespace."""
        caller: Any = thread
        kind = self.inode.kind_name
        if request == NS_GET_NSTYPE:
            return _CLONE_FLAGS[kind]
        if request == NS_GET_USERNS:
            if kind == "user":
                raise errnos.EPERM("the initial user namespace has no parent")
            return int(caller.fds.install(_initial_user_namespace(), close_on_exec=True))
        if request == NS_GET_PARENT:
            raise errnos.EPERM("it has no parent") if kind in ("pid", "user") else errnos.EINVAL("no tree of those")
        if request == NS_GET_OWNER_UID:
            if kind != "user":
                raise errnos.EINVAL("not a user namespace")
            caller.memory.write_u32(argument, 0)
            return 0
        raise errnos.ENOTTY(f"no ioctl {request:#x} here")

    def describe(self) -> str:
        """Gives e.g. ``net:[4026531840]``."""
        return self.text


def _initial_user_namespace() -> NamespaceFile:
    number = next(number for name, _, number in NAMESPACES if name == "user")
    inode = NamespaceInode("user", number)
    dentry = Dentry(f"user:[{number}]", None, inode)
    return NamespaceFile(inode, O_RDONLY, Location(Mount(0, NSFS, dentry), dentry))


_CLONE_FLAGS = {
    "cgroup": CLONE_NEWCGROUP, "ipc": CLONE_NEWIPC, "mnt": CLONE_NEWNS, "net": CLONE_NEWNET, "pid": CLONE_NEWPID,
    "time": CLONE_NEWTIME, "user": CLONE_NEWUSER, "uts": CLONE_NEWUTS,
}  # fmt: skip
