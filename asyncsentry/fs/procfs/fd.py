"""/proc/PID/fd and fdinfo: descriptors as magic links, and what there is to know of each. See proc_pid_fd(5)."""

from __future__ import annotations

import stat as stat_bits
from collections.abc import Iterable
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.fs.file import File
from asyncsentry.fs.path import location_of
from asyncsentry.fs.procfs.base import ProcFileSystem, Subject
from asyncsentry.fs.procfs.links import MagicLink
from asyncsentry.fs.synthetic import Directory, TextInode

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.inode import Inode

O_CLOEXEC = 0o2000000


class FdLink(MagicLink):
    """/proc/PID/fd/N: leads to the open file itself, even if it has no path."""

    def __init__(self, subject: Subject, fd: int, file: File, uid: int, gid: int) -> None:
        super().__init__(subject, uid, gid)
        self.fd = fd
        self.file = file
        bits = (0o500 if file.readable else 0) | (0o300 if file.writable else 0)
        self.mode = stat_bits.S_IFLNK | bits

    @property
    def size(self) -> int:
        """Linux shows 64 for these links."""
        return 64

    def location_of(self) -> Location | None:
        """Gives the file's place; for files without a path (``pipe:[7]``) one that no walk leaves."""
        return location_of(self.file)


class FdDirectory(Directory):
    """/proc/PID/fd."""

    filesystem: ProcFileSystem

    def __init__(self, subject: Subject, uid: int, gid: int, mode: int = 0o500) -> None:
        super().__init__(subject.filesystem, mode, uid, gid)
        self.subject = subject

    def files(self) -> dict[int, File]:
        """Gives the open files by descriptor; none for a zombie."""
        thread = self.subject.thread
        return {} if thread is None else thread.fds.files

    def make(self, fd: int, file: File) -> Inode:
        """Makes the inode shown for a descriptor."""
        return FdLink(self.subject, fd, file, self.uid, self.gid)

    def find(self, name: str) -> Inode | None:
        """Finds a descriptor by its number."""
        if not name.isascii() or not name.isdigit() or (name[0] == "0" and name != "0") or len(name) > 10:
            return None
        file = self.files().get(int(name))
        return None if file is None else self.make(int(name), file)

    def items(self) -> Iterable[tuple[str, Inode]]:
        """Lists the descriptors in order."""
        return [(str(fd), self.make(fd, file)) for fd, file in sorted(self.files().items())]

    def check_access(self, context: object) -> None:
        """Lets only those look who may inspect the process."""
        self.subject.check_inspection(context)


class FdInfoDirectory(FdDirectory):
    """/proc/PID/fdinfo."""

    def __init__(self, subject: Subject, uid: int, gid: int) -> None:
        super().__init__(subject, uid, gid, 0o555)

    def make(self, fd: int, file: File) -> Inode:
        """Makes the text file about a descriptor."""
        return FdInfoInode(self.subject, fd, self.uid, self.gid)


class FdInfoInode(TextInode):
    """/proc/PID/fdinfo/N; looks the descriptor up when it is read."""

    def __init__(self, subject: Subject, fd: int, uid: int, gid: int) -> None:
        super().__init__(subject.filesystem, render_fdinfo, (subject, fd), 0o444, None, uid, gid)

    def check_access(self, context: object, flags: int) -> None:
        """Lets only those look who may inspect the process."""
        self.subject[0].check_inspection(context)


def render_fdinfo(about: tuple[Subject, int]) -> str:
    """Renders position, flags, mount and inode of an open file, and what its own kind adds."""
    subject, fd = about
    thread = subject.live()
    file: File | None = thread.fds.files.get(fd)
    if file is None:
        raise errnos.ENOENT(f"fd {fd} is closed")
    flags = file.flags | (O_CLOEXEC if fd in thread.fds.close_on_exec else 0)
    mount_id = file.location.mount.mount_id if file.location is not None else 0
    ino = file.inode.ino if file.inode is not None else 0
    extra = getattr(file, "fdinfo", None)
    text = f"pos:\t{file.position}\nflags:\t0{flags:o}\nmnt_id:\t{mount_id}\nino:\t{ino}\n"
    return text + (extra() if callable(extra) else "")
