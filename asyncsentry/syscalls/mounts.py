"""Mounts: mount(2), umount2(2), pivot_root(2). The tree of mounts itself is ``fs/mount.py``."""

from __future__ import annotations

import os

from asyncsentry.abi import mount_h as abi
from asyncsentry.abi.capability_h import CAP_SYS_ADMIN
from asyncsentry.abi.fcntl_h import AT_FDCWD
from asyncsentry.errnos import EBUSY, EFAULT, EINVAL, ENODEV, ENOENT, ENOTDIR, EPERM
from asyncsentry.fs.dentry import Location
from asyncsentry.fs.file import File
from asyncsentry.fs.kinds import MAKERS, apply_tmpfs_options, memory_size
from asyncsentry.fs.mount import Mount, MountNamespace, topmost
from asyncsentry.fs.options import parse_options
from asyncsentry.fs.path import is_reachable, resolve
from asyncsentry.fs.tmpfs import TmpFileSystem
from asyncsentry.fs.vfs import inode_at
from asyncsentry.syscalls.args import Flags, PathPointer, Pointer
from asyncsentry.syscalls.registry import syscall
from asyncsentry.syscalls.status import WALK_ERRNOS
from asyncsentry.tasks.thread import Thread

_PROPAGATION = abi.MS_SHARED | abi.MS_PRIVATE | abi.MS_SLAVE | abi.MS_UNBINDABLE
_ATIME_FLAGS = abi.MS_NOATIME | abi.MS_NODIRATIME | abi.MS_RELATIME | abi.MS_STRICTATIME
_PAGE = 4096


def namespace_of(thread: Thread) -> MountNamespace:
    """Gives the mount namespace a thread is in."""
    return thread.fs.root.mount.namespace or thread.kernel.mounts


@syscall(165, errnos=WALK_ERRNOS + " EBUSY EINVAL ENODEV ENOTBLK ENXIO EPERM EROFS",
         missing="all propagation is private; of kinds there are tmpfs, ramfs, devtmpfs, devpts, sysfs and proc")
async def mount(thread: Thread, source: PathPointer, target: PathPointer, kind: PathPointer, flags: Pointer,
                data: Pointer) -> int:
    """mount(2): copies its strings, walks to the target, asks for CAP_SYS_ADMIN, then does what the flags say."""
    kind_name = _read_optional(thread, kind)
    source_name = _read_optional(thread, source)
    options = _read_options(thread, data)
    at = await resolve(thread, AT_FDCWD, thread.memory.read_path(target))
    _check_admin(thread)
    if flags & abi.MS_MGC_MSK == abi.MS_MGC_VAL:
        flags = Pointer(flags & ~abi.MS_MGC_MSK)
    mount_flags = _mount_flags(flags)
    if flags & abi.MS_REMOUNT:
        _remount(thread, at, flags, mount_flags, options)
    elif flags & abi.MS_BIND:
        await _bind(thread, source_name, at, bool(flags & abi.MS_REC))
    elif flags & _PROPAGATION:
        _set_propagation(at, flags)
    elif flags & abi.MS_MOVE:
        await _move(thread, source_name, at)
    else:
        await _mount_new(thread, kind_name, source_name or "none", at, mount_flags, options)
    return 0


def _read_optional(thread: Thread, address: int) -> str | None:
    return thread.memory.read_path(address) if address else None


def _read_options(thread: Thread, address: int) -> str:
    if not address:
        return ""
    page = thread.memory.read_some(address, _PAGE)
    if not page:
        raise EFAULT("the options cannot be read")
    return os.fsdecode(page.partition(b"\0")[0])


def _check_admin(thread: Thread) -> None:
    if not thread.credentials.has(CAP_SYS_ADMIN):
        raise EPERM("mounting needs CAP_SYS_ADMIN")


def _mount_flags(flags: int) -> int:
    """Gives the flags of the mount itself; relatime unless told otherwise."""
    wanted = flags & abi.MNT_FLAGS | abi.MS_RELATIME
    if flags & (abi.MS_NOATIME | abi.MS_STRICTATIME):
        wanted &= ~abi.MS_RELATIME
    return wanted


async def _mount_new(thread: Thread, kind: str | None, source: str, at: Location, flags: int, options: str) -> None:
    if kind is None:
        raise EINVAL("no kind of file system given")
    maker = MAKERS.get(kind)
    if maker is None:
        raise ENODEV(f"no file system {kind!r}")
    filesystem = await maker(thread.kernel, parse_options(options))
    thread.kernel.filesystems.add(filesystem)
    if thread.kernel.file_memory is not None:
        thread.kernel.file_memory.adopt(filesystem)
    namespace_of(thread).mount(at, filesystem, flags, source)


async def _bind(thread: Thread, source: str | None, at: Location, recursive: bool) -> None:
    if not source:
        raise EINVAL("no source given")
    what = await resolve(thread, AT_FDCWD, source)
    if what.mount.namespace is None:
        raise EINVAL("the source is not mounted here")
    namespace_of(thread).bind(at, what, recursive)


async def _move(thread: Thread, source: str | None, at: Location) -> None:
    if not source:
        raise EINVAL("no source given")
    what = await resolve(thread, AT_FDCWD, source)
    if what.dentry is not what.mount.root or what.mount.namespace is not namespace_of(thread):
        raise EINVAL("the source is no mount point")
    if inode_at(what).is_directory != inode_at(at).is_directory:
        raise EINVAL("a directory goes onto a directory, a file onto a file")
    namespace_of(thread).move(what.mount, at)


def _set_propagation(at: Location, flags: int) -> None:
    kinds = flags & _PROPAGATION
    if kinds & (kinds - 1) or flags & ~(_PROPAGATION | abi.MS_REC | abi.MS_SILENT):
        raise EINVAL("one kind of propagation at a time")
    if at.dentry is not at.mount.root:
        raise EINVAL("not a mount point")


def _remount(thread: Thread, at: Location, flags: int, mount_flags: int, options: str) -> None:
    mount = at.mount
    if at.dentry is not mount.root:
        raise EINVAL("not a mount point")
    if not flags & _ATIME_FLAGS:  # kept unless named, mount(2)
        mount_flags = mount_flags & ~_ATIME_FLAGS | mount.flags & _ATIME_FLAGS
    if not flags & abi.MS_BIND:
        if isinstance(mount.filesystem, TmpFileSystem):
            apply_tmpfs_options(mount.filesystem, parse_options(options), memory_size(thread.kernel))
        mount.filesystem.read_only = bool(flags & abi.MS_RDONLY)
    mount.flags = mount_flags


# umount2(2) --------------------------------------------------------------------------------------


@syscall(166, errnos=WALK_ERRNOS + " EAGAIN EBUSY EINVAL EPERM", missing="MNT_EXPIRE: EINVAL")
async def umount2(thread: Thread, target: PathPointer, flags: Flags) -> int:
    """umount2(2): flags, then the path, then CAP_SYS_ADMIN, then whether something is mounted there and unused."""
    if flags & ~(abi.MNT_FORCE | abi.MNT_DETACH | abi.UMOUNT_NOFOLLOW):
        raise EINVAL("unknown flags")
    path = thread.memory.read_path(target)
    at = topmost(await resolve(thread, AT_FDCWD, path, follow=not flags & abi.UMOUNT_NOFOLLOW))
    _check_admin(thread)
    namespace = namespace_of(thread)
    if at.dentry is not at.mount.root or at.mount.namespace is not namespace:
        raise EINVAL("nothing is mounted there")
    detach = bool(flags & abi.MNT_DETACH)
    if not detach and is_in_use(thread, at.mount):
        raise EBUSY("in use")
    for filesystem in namespace.umount(at.mount, detach):
        if not detach:
            await filesystem.release()
    return 0


def is_in_use(thread: Thread, mount: Mount) -> bool:
    """Whether some guest has a file of the mount open or mapped, or stands in it."""
    for other in thread.kernel.threads.values():
        if mount in (other.fs.root.mount, other.fs.cwd.mount):
            return True
        mapped = (vma.file for vma in other.memory.vmas if isinstance(vma.file, File))
        for file in (*other.fds.files.values(), *mapped):
            if file.location is not None and file.location.mount is mount:
                return True
    return False


# pivot_root(2) -----------------------------------------------------------------------------------


@syscall(155, errnos=WALK_ERRNOS + " EBUSY EINVAL EPERM")
async def pivot_root(thread: Thread, new_root: PathPointer, put_old: PathPointer) -> int:
    """pivot_root(2): every thread whose root or working directory was the old root is moved to the new one."""
    _check_admin(thread)
    new = await _directory(thread, thread.memory.read_path(new_root))
    old = await _directory(thread, thread.memory.read_path(put_old))
    root, namespace = thread.fs.root, namespace_of(thread)
    _check_pivot(namespace, root, new, old)
    namespace.pivot(new, old)
    for other in thread.kernel.threads.values():
        fs = other.fs
        fs.root = new if fs.root == root else fs.root
        fs.cwd = new if fs.cwd == root else fs.cwd
    return 0


async def _directory(thread: Thread, path: str) -> Location:
    location = await resolve(thread, AT_FDCWD, path)
    if not inode_at(location).is_directory:
        raise ENOTDIR("not a directory")
    return location


def _check_pivot(namespace: MountNamespace, root: Location, new: Location, old: Location) -> None:
    if new.dentry.unlinked:
        raise ENOENT("the new root was removed")
    if root.mount in (new.mount, old.mount):
        raise EBUSY("the new root must be another mount than the present one")
    if root.mount is not namespace.root_mount or root.dentry is not root.mount.root:
        raise EINVAL("the present root is no mount point")
    if new.dentry is not new.mount.root or new.mount.parent is None:
        raise EINVAL("the new root is no mount point")
    if not is_reachable(old, new) or not is_reachable(new, root):
        raise EINVAL("the old root must go below the new one")
