"""inotify_init(2), inotify_add_watch(2), inotify_rm_watch(2)."""

from __future__ import annotations

from asyncsentry.abi.fcntl_h import AT_FDCWD
from asyncsentry.abi.inotify_h import IN_CLOEXEC, IN_DONT_FOLLOW, IN_NONBLOCK, IN_ONLYDIR
from asyncsentry.errnos import EINVAL, ENOTDIR
from asyncsentry.fs.access import MAY_READ, check_access
from asyncsentry.fs.anon import ANON_INODE_FS, AnonInode
from asyncsentry.fs.inotify import InotifyFile, is_valid_mask
from asyncsentry.fs.path import resolve
from asyncsentry.fs.vfs import inode_at
from asyncsentry.syscalls.args import Fd, Flags, Int, PathPointer
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.thread import Thread

_ONLY_OWN_CHANGES = "events only for changes made through the sandbox"


@syscall(253, errnos="EMFILE ENFILE", missing=_ONLY_OWN_CHANGES)
def inotify_init(thread: Thread) -> int:
    """inotify_init(2)."""
    return _init(thread, 0)


@syscall(294, errnos="EINVAL EMFILE ENFILE", missing=_ONLY_OWN_CHANGES)
def inotify_init1(thread: Thread, flags: Flags) -> int:
    """inotify_init1(2)."""
    if flags & ~(IN_NONBLOCK | IN_CLOEXEC):
        raise EINVAL(f"flags {flags:#o}")
    return _init(thread, flags)


def _init(thread: Thread, flags: int) -> int:
    kernel = thread.kernel
    thread.fds.lowest_free()  # EMFILE before an instance is counted
    file = InotifyFile(AnonInode(ANON_INODE_FS, kernel.allocate_inode()), flags, kernel.inotify,
                       thread.credentials.ruid)  # fmt: skip
    return thread.fds.install(file, bool(flags & IN_CLOEXEC))


@syscall(254, errnos="EACCES EBADF EEXIST EFAULT EINVAL ENAMETOOLONG ENOENT ENOSPC ENOTDIR",
         missing=_ONLY_OWN_CHANGES)
async def inotify_add_watch(thread: Thread, fd: Fd, path: PathPointer, mask: Flags) -> int:
    """inotify_add_watch(2): EINVAL for the mask, EBADF, EINVAL for the file, then the path, which must be readable."""
    if not is_valid_mask(mask):
        raise EINVAL(f"mask {mask:#x}")
    file = _instance(thread, fd)
    location = await resolve(thread, AT_FDCWD, thread.memory.read_path(path), follow=not mask & IN_DONT_FOLLOW)
    inode = inode_at(location)
    if mask & IN_ONLYDIR and not inode.is_directory:
        raise ENOTDIR("only directories were asked for")
    check_access(thread.credentials, inode, MAY_READ)
    return file.add_watch(inode, mask)


@syscall(255, errnos="EBADF EINVAL", missing=_ONLY_OWN_CHANGES)
def inotify_rm_watch(thread: Thread, fd: Fd, wd: Int) -> int:
    """inotify_rm_watch(2)."""
    _instance(thread, fd).remove_watch(wd)
    return 0


def _instance(thread: Thread, fd: int) -> InotifyFile:
    file = thread.fds.get(fd)
    if not isinstance(file, InotifyFile):
        raise EINVAL(f"fd {fd} is no inotify instance")
    return file
