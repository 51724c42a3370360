"""Device numbers: which driver answers when a character device is opened, and the opening of special files.

Any file system may hold device nodes, so their open goes through one registry that hangs from the kernel
as ``kernel.devices``. See makedev(3), mknod(2), fifo(7).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, cast

from asyncsentry import errnos
from asyncsentry.abi.stat_h import S_IFCHR, S_IFIFO

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.file import File
    from asyncsentry.fs.inode import Inode

Opener = Callable[["Inode", int, "Location", object], Awaitable["File"]]
"""Opens a device: its inode, flags, location, and the opening guest thread."""


class DeviceRegistry:
    """Character devices by (major, minor); a driver may also take a whole major."""

    def __init__(self) -> None:
        self._by_number: dict[tuple[int, int], Opener] = {}
        self._by_major: dict[int, Opener] = {}

    def register(self, major: int, minor: int | None, opener: Opener) -> None:
        """Lets ``opener`` answer for one device, or for all of ``major`` when ``minor`` is ``None``."""
        if minor is None:
            self._by_major[major] = opener
        else:
            self._by_number[major, minor] = opener

    async def open(self, inode: Inode, flags: int, location: Location, context: object) -> File:
        """Opens the device an inode stands for; ENXIO if there is no driver."""
        major, minor = os.major(inode.rdev), os.minor(inode.rdev)
        opener = self._by_number.get((major, minor)) or self._by_major.get(major)
        if opener is None:
            raise errnos.ENXIO(f"no driver for device {major}:{minor}")
        return await opener(inode, flags, location, context)


class _Kernel(Protocol):
    devices: DeviceRegistry


class _Opener(Protocol):
    """What opening a device asks of a guest thread."""

    kernel: _Kernel


async def open_special(inode: Inode, flags: int, location: Location, context: object) -> File:
    """Opens a FIFO or a device node in any file system; sockets and block devices say ENXIO."""
    if inode.kind == S_IFIFO:
        from asyncsentry.fs.pipe import open_fifo  # pipes know inodes, not the other way round

        return await open_fifo(inode, flags, location, context)
    if inode.kind == S_IFCHR:
        return await cast(_Opener, context).kernel.devices.open(inode, flags, location, context)
    raise errnos.ENXIO("a socket or a block device cannot be opened")
