"""Where AF_UNIX meets the file system: sockets bound to paths are inodes whose ``bound_socket`` is set."""

from __future__ import annotations

import os
import stat as stat_bits
from typing import TYPE_CHECKING, Protocol, cast

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import AT_FDCWD
from asyncsentry.fs import access, names
from asyncsentry.fs.path import PathContext, resolve
from asyncsentry.fs.vfs import inode_at

if TYPE_CHECKING:
    from asyncsentry.fs.inode import Inode


class Bindable(Protocol):
    """What becomes reachable through an inode."""

    inode: Inode | None


async def make_socket_node(caller: object, name: bytes, socket: Bindable) -> Inode:
    """Makes the name of a socket being bound; EADDRINUSE if it is taken."""
    assert socket.inode is not None
    mode = stat_bits.S_IFSOCK | stat_bits.S_IMODE(socket.inode.mode)
    try:
        location = await names.mknod(cast(PathContext, caller), AT_FDCWD, os.fsdecode(name), mode)
    except errnos.EEXIST:
        raise errnos.EADDRINUSE(f"{name!r} exists") from None
    inode = inode_at(location)
    inode.bound_socket = socket
    return inode


async def find_bound(caller: object, name: bytes) -> object:
    """Finds the socket bound to a path; needs write permission on it, unix(7)."""
    context = cast(PathContext, caller)
    inode = inode_at(await resolve(context, AT_FDCWD, os.fsdecode(name)))
    access.check_access(context.credentials, inode, access.MAY_WRITE)
    if not stat_bits.S_ISSOCK(inode.mode) or inode.bound_socket is None:
        raise errnos.ECONNREFUSED(f"nobody listens at {name!r}")
    return inode.bound_socket
