"""Extended attributes: which names a thread may touch, and a store for file systems that keep them in memory.

See xattr(7); after Linux's ``xattr_permission`` and its handlers for security.* and trusted.*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi.capability_h import CAP_SETFCAP, CAP_SYS_ADMIN
from asyncsentry.abi.stat_h import S_IFDIR, S_IFREG, S_ISVTX
from asyncsentry.abi.xattr_h import XATTR_CREATE, XATTR_REPLACE
from asyncsentry.fs.access import MAY_READ, MAY_WRITE, FileCredentials, check_access, is_owner

if TYPE_CHECKING:
    from asyncsentry.fs.inode import Inode

TOTAL_MAX = 1 << 20
"""Bytes of names and values one in-memory inode may hold."""


def check_name(name: str) -> None:
    """Raises EOPNOTSUPP unless the name is in a namespace there is: user, trusted, security."""
    prefix, _, rest = name.partition(".")
    if prefix not in ("user", "trusted", "security"):
        raise errnos.EOPNOTSUPP(f"no attributes {name!r}")
    if not rest:
        raise errnos.EINVAL("the name ends with its namespace")


def check_permission(credentials: FileCredentials, inode: Inode, name: str, writing: bool) -> None:
    """Raises unless the thread may read or write this attribute of the file."""
    if name.startswith("trusted."):
        if not credentials.has(CAP_SYS_ADMIN):
            raise errnos.EPERM("trusted.* is for CAP_SYS_ADMIN") if writing else errnos.ENODATA("not visible")
        return
    if name.startswith("security."):
        if writing:
            _check_security(credentials, name)
        return
    if inode.kind not in (S_IFREG, S_IFDIR):
        raise errnos.EPERM("user.* is for files and directories") if writing else errnos.ENODATA("none here")
    if writing and inode.is_directory and inode.mode & S_ISVTX and not is_owner(credentials, inode):
        raise errnos.EPERM("the directory is sticky and another's")
    check_access(credentials, inode, MAY_WRITE if writing else MAY_READ)


def visible(credentials: FileCredentials, names: list[str]) -> list[str]:
    """Gives the names listxattr(2) shows this thread."""
    if credentials.has(CAP_SYS_ADMIN):
        return names
    return [name for name in names if not name.startswith("trusted.")]


def _check_security(credentials: FileCredentials, name: str) -> None:
    needed = CAP_SETFCAP if name == "security.capability" else CAP_SYS_ADMIN
    if not credentials.has(needed):
        raise errnos.EPERM(f"{name} needs a capability")


class XattrStore:
    """The attributes of one inode in memory."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def get(self, name: str) -> bytes:
        """Gives a value; ENODATA if there is none."""
        value = self._values.get(name)
        if value is None:
            raise errnos.ENODATA(f"no attribute {name!r}")
        return value

    def set(self, name: str, value: bytes, flags: int) -> None:
        """Sets a value, minding XATTR_CREATE and XATTR_REPLACE."""
        if flags & XATTR_CREATE and name in self._values:
            raise errnos.EEXIST(f"attribute {name!r} exists")
        if flags & XATTR_REPLACE and name not in self._values:
            raise errnos.ENODATA(f"no attribute {name!r}")
        if self._size() - len(self._values.get(name, b"")) + len(name) + len(value) > TOTAL_MAX:
            raise errnos.ENOSPC("too many attributes")
        self._values[name] = value

    def remove(self, name: str) -> None:
        """Removes one; ENODATA if it is not there."""
        if self._values.pop(name, None) is None:
            raise errnos.ENODATA(f"no attribute {name!r}")

    def names(self) -> list[str]:
        """Lists the names."""
        return list(self._values)

    def _size(self) -> int:
        return sum(len(name) + len(value) for name, value in self._values.items())
