"""Who may do what to a file: mode bits, capabilities that override them, sticky directories, set-ID bits.

These checks run in the virtual file system, before a file system is asked to do anything. After Linux's
``inode_permission``, ``may_delete``, ``setattr_prepare`` and ``setattr_should_drop_suidgid``.
See path_resolution(7), capabilities(7), inode(7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from asyncsentry import errnos
from asyncsentry.abi.capability_h import CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID
from asyncsentry.abi.stat_h import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, S_ISUID, S_ISVTX, S_IXGRP

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.inode import Inode

MAY_EXEC, MAY_WRITE, MAY_READ = 1, 2, 4
"""Also R_OK, W_OK and X_OK of access(2)."""


class FileCredentials(Protocol):
    """What file access asks of a thread's credentials."""

    @property
    def fsuid(self) -> int:
        """User ID for file access."""

    @property
    def fsgid(self) -> int:
        """Group ID for file access."""

    def has(self, capability: int) -> bool:
        """Whether a capability is effective."""

    def in_group(self, gid: int) -> bool:
        """Whether it counts as a member of the group."""


def permits(credentials: FileCredentials, inode: Inode, mask: int) -> bool:
    """Whether mode bits or capabilities allow all of ``mask`` (``MAY_*``)."""
    mode = inode.mode
    if credentials.fsuid == inode.uid:
        bits = mode >> 6
    elif credentials.in_group(inode.gid):
        bits = mode >> 3
    else:
        bits = mode
    if not mask & ~bits:
        return True
    if mode & S_IFMT == S_IFDIR:
        if not mask & MAY_WRITE and credentials.has(CAP_DAC_READ_SEARCH):
            return True
        return credentials.has(CAP_DAC_OVERRIDE)
    if mask == MAY_READ and credentials.has(CAP_DAC_READ_SEARCH):
        return True
    return (not mask & MAY_EXEC or bool(mode & 0o111)) and credentials.has(CAP_DAC_OVERRIDE)


def check_access(credentials: FileCredentials, inode: Inode, mask: int) -> None:
    """Raises EACCES unless all of ``mask`` is allowed; EROFS for writing below a read-only file system."""
    if mask & MAY_WRITE and inode.filesystem.read_only and inode.mode & S_IFMT in (S_IFREG, S_IFDIR, S_IFLNK):
        raise errnos.EROFS("the file system is read-only")
    if not permits(credentials, inode, mask):
        raise errnos.EACCES("permission denied by mode")


def check_writable_mount(location: Location) -> None:
    """Raises EROFS when nothing may be changed through the location's mount."""
    if location.mount.read_only:
        raise errnos.EROFS("mounted read-only")


def is_owner(credentials: FileCredentials, inode: Inode) -> bool:
    """Whether it owns the file or may act as if (CAP_FOWNER)."""
    return credentials.fsuid == inode.uid or credentials.has(CAP_FOWNER)


def check_create(credentials: FileCredentials, directory: Inode) -> None:
    """Raises unless a name may be added to ``directory``."""
    check_access(credentials, directory, MAY_WRITE | MAY_EXEC)


def check_delete(credentials: FileCredentials, directory: Inode, victim: Inode, as_directory: bool) -> None:
    """Raises unless ``victim``'s name may be taken out of ``directory``: permissions, sticky bit, then kind."""
    check_access(credentials, directory, MAY_WRITE | MAY_EXEC)
    if (
        directory.mode & S_ISVTX
        and credentials.fsuid not in (victim.uid, directory.uid)
        and not credentials.has(CAP_FOWNER)
    ):
        raise errnos.EPERM("the directory is sticky and the file another's")
    if as_directory and not victim.is_directory:
        raise errnos.ENOTDIR("not a directory")
    if not as_directory and victim.is_directory:
        raise errnos.EISDIR("is a directory")


def check_link_source(credentials: FileCredentials, inode: Inode) -> None:
    """Raises EPERM unless its owner, or someone who may read and write it, links a file: fs.protected_hardlinks=1."""
    if is_owner(credentials, inode):
        return
    mode = inode.mode
    is_plain = mode & S_IFMT == S_IFREG and not mode & S_ISUID and mode & (S_ISGID | S_IXGRP) != S_ISGID | S_IXGRP
    if not is_plain or not permits(credentials, inode, MAY_READ | MAY_WRITE):
        raise errnos.EPERM("only its owner may link it")


def mode_for_chmod(credentials: FileCredentials, inode: Inode, mode: int) -> int:
    """Gives the permission bits chmod(2) may set: S_ISGID is lost on a foreign group without CAP_FSETID."""
    if not is_owner(credentials, inode):
        raise errnos.EPERM("only its owner may change the mode")
    if mode & S_ISGID and not credentials.in_group(inode.gid) and not credentials.has(CAP_FSETID):
        mode &= ~S_ISGID
    return mode & 0o7777


def check_chown(credentials: FileCredentials, inode: Inode, uid: int | None, gid: int | None) -> None:
    """Raises EPERM unless owner and group may become ``uid`` and ``gid`` (``None`` leaves one alone)."""
    if credentials.has(CAP_CHOWN):
        return
    if uid is not None and not (credentials.fsuid == inode.uid == uid):
        raise errnos.EPERM("only CAP_CHOWN may give files away")
    if gid is not None and not (
        credentials.fsuid == inode.uid and (credentials.in_group(gid) or gid == inode.gid)
    ):
        raise errnos.EPERM("not a member of that group")


def mode_after_chown(inode: Inode) -> int | None:
    """Gives the permission bits chown(2) leaves, or ``None`` for no change: set-ID bits of files go."""
    if inode.is_directory:
        return None
    kept = _without_set_id(inode.mode)
    return kept & 0o7777 if kept != inode.mode else None


def mode_after_write(credentials: FileCredentials, inode: Inode) -> int | None:
    """Gives the permission bits a write or truncation leaves, or ``None`` for no change."""
    if not inode.mode & (S_ISUID | S_ISGID) or inode.mode & S_IFMT != S_IFREG or credentials.has(CAP_FSETID):
        return None
    kept = _without_set_id(inode.mode)
    return kept & 0o7777 if kept != inode.mode else None


def mode_for_new(credentials: FileCredentials, directory: Inode, mode: int) -> tuple[int, int]:
    """Gives mode (with type) and group of a file made in ``directory``, which may be set-group-ID."""
    if not directory.mode & S_ISGID:
        return mode, credentials.fsgid
    gid = directory.gid
    if mode & S_IFMT == S_IFDIR:
        mode |= S_ISGID
    elif mode & S_ISGID and mode & S_IXGRP and not credentials.in_group(gid) and not credentials.has(CAP_FSETID):
        mode &= ~S_ISGID
    return mode, gid


def _without_set_id(mode: int) -> int:
    mode &= ~S_ISUID
    if mode & S_IXGRP:  # without it the bit once meant mandatory locking and stays
        mode &= ~S_ISGID
    return mode
