"""Names and places: mkdir(2), mknod(2), link(2), symlink(2), unlink(2), rename(2), chdir(2), chroot(2), getcwd(2)."""

from __future__ import annotations

import os

from asyncsentry.abi.capability_h import CAP_DAC_READ_SEARCH, CAP_SYS_CHROOT
from asyncsentry.abi.fcntl_h import AT_EMPTY_PATH, AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW
from asyncsentry.errnos import EINVAL, ENOENT, ENOTDIR, EPERM, ERANGE
from asyncsentry.fs import names
from asyncsentry.fs.access import MAY_EXEC, check_access
from asyncsentry.fs.dentry import Location
from asyncsentry.fs.path import is_reachable, location_of, path_of, resolve
from asyncsentry.fs.rename import check_flags
from asyncsentry.fs.rename import rename as rename_path
from asyncsentry.fs.vfs import inode_at
from asyncsentry.syscalls.args import Buffer, Fd, Flags, Mode, PathPointer, Size, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.syscalls.status import WALK_ERRNOS, read_path_or_empty
from asyncsentry.tasks.thread import Thread

MAKE_ERRNOS = WALK_ERRNOS + " EBADF EDQUOT EEXIST EINVAL EMLINK ENOSPC EPERM EROFS"
REMOVE_ERRNOS = WALK_ERRNOS + " EBADF EBUSY EINVAL EISDIR ENOTEMPTY EPERM EROFS"
RENAME_ERRNOS = MAKE_ERRNOS + " EBUSY EISDIR ENOTEMPTY EXDEV"


# Making ------------------------------------------------------------------------------------------


@syscall(83, errnos=MAKE_ERRNOS)
async def mkdir(thread: Thread, path: PathPointer, mode: Mode) -> int:
    """mkdir(2)."""
    await names.mkdir(thread, AT_FDCWD, thread.memory.read_path(path), mode)
    return 0


@syscall(258, errnos=MAKE_ERRNOS)
async def mkdirat(thread: Thread, dirfd: Fd, path: PathPointer, mode: Mode) -> int:
    """mkdirat(2)."""
    await names.mkdir(thread, dirfd, thread.memory.read_path(path), mode)
    return 0


@syscall(133, errnos=MAKE_ERRNOS)
async def mknod(thread: Thread, path: PathPointer, mode: Mode, device: UInt) -> int:
    """mknod(2)."""
    await names.mknod(thread, AT_FDCWD, thread.memory.read_path(path), mode, _device(device))
    return 0


@syscall(259, errnos=MAKE_ERRNOS)
async def mknodat(thread: Thread, dirfd: Fd, path: PathPointer, mode: Mode, device: UInt) -> int:
    """mknodat(2)."""
    await names.mknod(thread, dirfd, thread.memory.read_path(path), mode, _device(device))
    return 0


def _device(number: int) -> int:
    """Turns the 32-bit device number of a call into a ``dev_t``, Linux's ``new_decode_dev``."""
    return os.makedev(number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00)


@syscall(88, errnos=MAKE_ERRNOS)
async def symlink(thread: Thread, target: PathPointer, path: PathPointer) -> int:
    """symlink(2)."""
    await names.symlink(thread, thread.memory.read_path(target), AT_FDCWD, thread.memory.read_path(path))
    return 0


@syscall(266, errnos=MAKE_ERRNOS)
async def symlinkat(thread: Thread, target: PathPointer, dirfd: Fd, path: PathPointer) -> int:
    """symlinkat(2)."""
    await names.symlink(thread, thread.memory.read_path(target), dirfd, thread.memory.read_path(path))
    return 0


@syscall(86, errnos=MAKE_ERRNOS + " EXDEV")
async def link(thread: Thread, old: PathPointer, new: PathPointer) -> int:
    """link(2): a symbolic link in last place is itself linked."""
    return await _link(thread, AT_FDCWD, old, AT_FDCWD, new, 0)


@syscall(265, errnos=MAKE_ERRNOS + " EXDEV")
async def linkat(thread: Thread, old_dirfd: Fd, old: PathPointer, new_dirfd: Fd, new: PathPointer,
                 flags: Flags) -> int:
    """linkat(2): AT_EMPTY_PATH, which could name files of others, needs CAP_DAC_READ_SEARCH."""
    return await _link(thread, old_dirfd, old, new_dirfd, new, flags)


async def _link(thread: Thread, old_dirfd: int, old: int, new_dirfd: int, new: int, flags: int) -> int:
    if flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
        raise EINVAL("unknown flags")
    if flags & AT_EMPTY_PATH and not thread.credentials.has(CAP_DAC_READ_SEARCH):
        raise ENOENT("AT_EMPTY_PATH needs a capability")
    source = await resolve(thread, old_dirfd, read_path_or_empty(thread, old, flags),
                           bool(flags & AT_SYMLINK_FOLLOW), bool(flags & AT_EMPTY_PATH))
    await names.link(thread, source, new_dirfd, thread.memory.read_path(new))
    return 0


# Removing and renaming ---------------------------------------------------------------------------


@syscall(87, errnos=REMOVE_ERRNOS)
async def unlink(thread: Thread, path: PathPointer) -> int:
    """unlink(2)."""
    await names.unlink(thread, AT_FDCWD, thread.memory.read_path(path))
    return 0


@syscall(263, errnos=REMOVE_ERRNOS)
async def unlinkat(thread: Thread, dirfd: Fd, path: PathPointer, flags: Flags) -> int:
    """unlinkat(2)."""
    if flags & ~AT_REMOVEDIR:
        raise EINVAL("unknown flags")
    remove = names.rmdir if flags & AT_REMOVEDIR else names.unlink
    await remove(thread, dirfd, thread.memory.read_path(path))
    return 0


@syscall(84, errnos=REMOVE_ERRNOS)
async def rmdir(thread: Thread, path: PathPointer) -> int:
    """rmdir(2)."""
    await names.rmdir(thread, AT_FDCWD, thread.memory.read_path(path))
    return 0


@syscall(82, errnos=RENAME_ERRNOS)
async def rename(thread: Thread, old: PathPointer, new: PathPointer) -> int:
    """rename(2)."""
    return await _rename(thread, AT_FDCWD, old, AT_FDCWD, new, 0)


@syscall(264, errnos=RENAME_ERRNOS)
async def renameat(thread: Thread, old_dirfd: Fd, old: PathPointer, new_dirfd: Fd, new: PathPointer) -> int:
    """renameat(2)."""
    return await _rename(thread, old_dirfd, old, new_dirfd, new, 0)


@syscall(316, errnos=RENAME_ERRNOS, missing="RENAME_WHITEOUT: EINVAL")
async def renameat2(thread: Thread, old_dirfd: Fd, old: PathPointer, new_dirfd: Fd, new: PathPointer,
                    flags: Flags) -> int:
    """renameat2(2): flags are checked before the paths are copied."""
    return await _rename(thread, old_dirfd, old, new_dirfd, new, flags)


async def _rename(thread: Thread, old_dirfd: int, old: int, new_dirfd: int, new: int, flags: int) -> int:
    check_flags(flags)
    old_path, new_path = thread.memory.read_path(old), thread.memory.read_path(new)
    await rename_path(thread, old_dirfd, old_path, new_dirfd, new_path, flags)
    return 0


# Places ------------------------------------------------------------------------------------------


@syscall(80, errnos=WALK_ERRNOS)
async def chdir(thread: Thread, path: PathPointer) -> int:
    """chdir(2)."""
    thread.fs.cwd = await _directory(thread, path)
    return 0


@syscall(81, errnos="EACCES EBADF ENOTDIR")
def fchdir(thread: Thread, fd: Fd) -> int:
    """fchdir(2): an O_PATH descriptor will do."""
    location = location_of(thread.fds.get(fd))
    if not inode_at(location).is_directory:
        raise ENOTDIR(f"fd {fd} is no directory")
    check_access(thread.credentials, inode_at(location), MAY_EXEC)
    thread.fs.cwd = location
    return 0


@syscall(161, errnos=WALK_ERRNOS + " EPERM")
async def chroot(thread: Thread, path: PathPointer) -> int:
    """chroot(2): the path is walked before CAP_SYS_CHROOT is asked for."""
    location = await _directory(thread, path)
    if not thread.credentials.has(CAP_SYS_CHROOT):
        raise EPERM("chroot needs CAP_SYS_CHROOT")
    thread.fs.root = location
    return 0


async def _directory(thread: Thread, path: int) -> Location:
    location = await resolve(thread, AT_FDCWD, thread.memory.read_path(path))
    inode = inode_at(location)
    if not inode.is_directory:
        raise ENOTDIR("not a directory")
    check_access(thread.credentials, inode, MAY_EXEC)
    return location


@syscall(79, errnos="EFAULT ENAMETOOLONG ENOENT ERANGE")
def getcwd(thread: Thread, buffer: Buffer, size: Size) -> int:
    """getcwd(2): gives the length with the NUL; ENOENT once the directory was removed."""
    cwd, root = thread.fs.cwd, thread.fs.root
    if cwd.dentry.unlinked:
        raise ENOENT("the working directory was removed")
    path = path_of(cwd, root)
    if not is_reachable(cwd, root):
        path = f"(unreachable){path}"
    encoded = os.fsencode(path) + b"\0"
    if len(encoded) > size:
        raise ERANGE("the buffer is too small")
    thread.memory.write(buffer, encoded)
    return len(encoded)
