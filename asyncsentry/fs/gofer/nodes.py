"""The files the gofer holds open for the sentry: mounts, and nodes that handles stand for.

A path in a request is plain names below a node, resolved with openat2(2) so that it can neither leave the node nor
follow a link. A file found by O_PATH is reached again by its number in ``/proc/self/fd``, which is this process'
working directory: so no call takes an absolute path.

File systems of the host's kernel (proc, sysfs, …) mounted somewhere below a directory that is served tell of the host
and steer it, and a guest may unmount what the sandbox has put over them. So they are closed: their roots look like
empty directories and lead nowhere, unless a mount was made of one on purpose.
"""

from __future__ import annotations

import errno
import os

from asyncsentry.fs.gofer.hostcalls import filesystem_magic, is_mount_root, open_beneath
from asyncsentry.fs.gofer.protocol import U32, Reader

_KERNEL_FILESYSTEMS = frozenset({
    0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x64626720, 0x74726163, 0x73636673, 0xCAFE4A11, 0x6165676C, 0xDE5E81E4,
    0x62656570, 0xF97CFF8C, 0x42494E4D, 0x1CD1, 0x65735543, 0x19800202,
})  # fmt: skip
"""linux/magic.h: proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs, bpf, pstore, efivarfs, configfs,
selinuxfs, binfmt_misc, devpts, fusectl, mqueue."""


class Mount:
    """A host file or directory the sentry may reach, and what it may do there."""

    __slots__ = ("_closed_devices", "fd", "host_sockets", "read_only")

    def __init__(self, fd: int, read_only: bool, host_sockets: bool) -> None:
        self._closed_devices = {os.fstat(fd).st_dev: False}
        self.fd = fd
        self.read_only = read_only
        self.host_sockets = host_sockets
        """Whether it may connect to host Unix sockets found below."""

    def is_closed(self, fd: int) -> bool:
        """Whether a file found below is the root of a closed file system; EACCES if it is inside of one."""
        device = os.fstat(fd).st_dev
        closed = self._closed_devices.get(device)
        if closed is None:
            closed = self._closed_devices[device] = filesystem_magic(fd) in _KERNEL_FILESYSTEMS
        if closed and not is_mount_root(fd):
            raise OSError(errno.EACCES, "a file system of the host's kernel")
        return closed


class Node:
    """What a handle stands for."""

    __slots__ = ("fd", "mount")

    def __init__(self, fd: int, mount: Mount) -> None:
        self.fd = fd
        self.mount = mount


class Answer:
    """A reply frame's content."""

    __slots__ = ("descriptor", "has_more", "payload")

    def __init__(self, payload: bytes, descriptor: int | None = None, has_more: bool = False) -> None:
        self.payload = payload
        self.descriptor = descriptor
        self.has_more = has_more


class Place:
    """A file found for the time of one request; use it in a ``with`` statement."""

    __slots__ = ("_owned", "fd", "is_closed", "mount")

    def __init__(self, fd: int, mount: Mount, owned: bool) -> None:
        self.fd = fd
        self.mount = mount
        self._owned = owned
        self.is_closed = False
        """Whether it only looks like an empty directory."""

    @property
    def by_number(self) -> str:
        """The path of the file itself, for calls that take no descriptor."""
        return str(self.fd)

    def check_writable(self) -> None:
        """Raises EROFS on a read-only mount."""
        if self.mount.read_only:
            raise OSError(errno.EROFS, "read-only mount")

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *error: object) -> None:
        if self._owned:
            os.close(self.fd)


class NodeTable:
    """Nodes by handle. The mounts have the first ones, for ever."""

    def __init__(self, mounts: list[Mount], limit: int) -> None:
        self.mounts = mounts
        self._nodes = {number: Node(mount.fd, mount) for number, mount in enumerate(mounts, 1)}
        self._next_handle = len(mounts) + 1
        self._limit = limit

    def find(self, reader: Reader) -> Place:
        """Finds the file a request names by a handle and a path below it."""
        place = self.find_to_look(reader)
        if place.is_closed:
            with place:
                raise OSError(errno.EACCES, "a file system of the host's kernel")
        return place

    def find_to_look(self, reader: Reader) -> Place:
        """Finds a file whose outside alone is asked about."""
        handle = reader.number(U32)
        path = reader.path()
        node = self._nodes.get(handle)
        if node is None:
            raise OSError(errno.EBADF, "no such node")
        place = Place(open_beneath(node.fd, path), node.mount, True) if path else Place(node.fd, node.mount, False)
        try:
            place.is_closed = node.mount.is_closed(place.fd)
        except OSError:
            with place:
                raise
        return place

    def keep(self, fd: int, mount: Mount) -> int:
        """Gives a handle to a descriptor, which from now on belongs to the table."""
        if len(self._nodes) >= self._limit:
            os.close(fd)
            raise OSError(errno.ENFILE, "too many nodes")
        handle = self._next_handle
        while handle in self._nodes:
            handle += 1
        self._next_handle = handle % 0xFFFF_FFFF + 1
        self._nodes[handle] = Node(fd, mount)
        return handle

    def close(self, handle: int) -> None:
        """Forgets a node; a mount or an unknown handle is left alone."""
        if handle > len(self.mounts) and (node := self._nodes.pop(handle, None)):
            os.close(node.fd)
