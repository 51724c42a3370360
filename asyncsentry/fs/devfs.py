"""/dev: the memory devices (null, zero, full, random, urandom, kmsg) and the tree of nodes that name them.

The tree itself is a tmpfs, as in a container: guests may add to it. A node only carries a device number;
what opening it does is found in the kernel's device registry by that number. See null(4), random(4).
"""

from __future__ import annotations

import os
import stat as stat_bits
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from asyncsentry import errnos
from asyncsentry.clock import RandomSource
from asyncsentry.fs.file import File
from asyncsentry.fs.inode import Inode, Owner
from asyncsentry.waiter import READABLE, WRITABLE

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.devices import DeviceRegistry

CHUNK_MAX = 1 << 24
"""Most bytes one try makes out of nothing; callers that want more try again."""

MEM_MAJOR = 1
NULL, ZERO, FULL, RANDOM, URANDOM, KMSG = 3, 5, 7, 8, 9, 11
TTYAUX_MAJOR = 5
TTY, CONSOLE, PTMX = 0, 1, 2

RNDGETENTCNT = 0x80045200
ENTROPY_BITS = 256


class DeviceFile(File):
    """A memory device: always ready, reads and writes at any offset alike."""

    seekable = True
    pollable = False

    def poll(self) -> int:
        """Is always ready."""
        return READABLE | WRITABLE

    def seek(self, offset: int, whence: int) -> int:
        """Stays at 0 whatever is asked."""
        self.position = 0
        return 0


class NullFile(DeviceFile):
    """/dev/null."""

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Is at its end."""
        return b""

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Swallows everything."""
        return len(data)


class ZeroFile(DeviceFile):
    """/dev/zero."""

    maps_as_anonymous = True

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Gives zero bytes."""
        return bytes(min(count, CHUNK_MAX))

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Swallows everything."""
        return len(data)


class FullFile(ZeroFile):
    """/dev/full."""

    maps_as_anonymous = False

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Is full."""
        raise errnos.ENOSPC("/dev/full is full")


class _Memory(Protocol):
    def write_i32(self, address: int, value: int) -> None: ...


class _Caller(Protocol):
    memory: _Memory


class RandomFile(DeviceFile):
    """/dev/random and /dev/urandom, which are one thing since Linux 5.18."""

    def __init__(self, random: RandomSource, inode: Inode | None, flags: int, location: Location | None) -> None:
        super().__init__(inode, flags, location)
        self.random = random
        self.pollable = inode is not None and os.minor(inode.rdev) == RANDOM

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Gives random bytes."""
        return self.random.bytes(min(count, CHUNK_MAX))

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Accepts entropy it has no need of."""
        return len(data)

    def ioctl(self, thread: object, request: int, argument: int) -> int | Awaitable[int]:
        """Answers RNDGETENTCNT: the pool is always full."""
        if request != RNDGETENTCNT:
            raise errnos.EINVAL(f"no ioctl {request:#x} here")
        caller: _Caller = thread  # type: ignore[assignment]  # ioctl(2) callers are guest threads
        caller.memory.write_i32(argument, ENTROPY_BITS)
        return 0


class KmsgFile(DeviceFile):
    """/dev/kmsg: what is written is taken, nothing is ever there to read."""

    pollable = True

    def poll(self) -> int:
        """Is always writable, never readable."""
        return WRITABLE

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Has no record to give."""
        raise errnos.WouldBlock

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Drops the record."""
        return len(data)


class MemoryDevices:
    """Opens the memory devices of one kernel, by minor number."""

    def __init__(self, random: RandomSource) -> None:
        self.random = random

    async def open(self, inode: Inode, flags: int, location: Location, context: object) -> File:
        """Opens the device an inode stands for; ENXIO if there is none of that number."""
        minor = os.minor(inode.rdev)
        if minor in (RANDOM, URANDOM):
            return RandomFile(self.random, inode, flags, location)
        kind = {NULL: NullFile, ZERO: ZeroFile, FULL: FullFile, KMSG: KmsgFile}.get(minor)
        if kind is None:
            raise errnos.ENXIO(f"no memory device {minor}")
        return kind(inode, flags, location)

    def register(self, devices: DeviceRegistry) -> None:
        """Answers for the memory devices' major number."""
        devices.register(MEM_MAJOR, None, self.open)


NODES: tuple[tuple[str, int, int, int], ...] = (
    ("null", MEM_MAJOR, NULL, 0o666), ("zero", MEM_MAJOR, ZERO, 0o666), ("full", MEM_MAJOR, FULL, 0o666),
    ("random", MEM_MAJOR, RANDOM, 0o666), ("urandom", MEM_MAJOR, URANDOM, 0o666),
    ("tty", TTYAUX_MAJOR, TTY, 0o666),
)  # fmt: skip
"""Name, major, minor and permissions of the nodes every /dev has."""

LINKS: tuple[tuple[str, str], ...] = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"), ("core", "/proc/kcore"),
)  # fmt: skip


async def populate(root: Inode, console: bool = False) -> None:
    """Fills an empty writable directory with what every /dev has; names already there are left alone.

    ``pts`` and ``shm`` are made as empty directories for devpts and a tmpfs to be mounted on.
    """
    owner = Owner(0, 0)
    nodes = (*NODES, ("console", TTYAUX_MAJOR, CONSOLE, 0o600)) if console else NODES
    for name, major, minor, mode in nodes:
        if not await _exists(root, name):
            await root.mknod(name, stat_bits.S_IFCHR | mode, os.makedev(major, minor), owner)
    for name, target in LINKS:
        if not await _exists(root, name):
            await root.symlink(name, target, owner)
    for name, mode in (("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777)):
        if not await _exists(root, name):
            await root.mkdir(name, mode, owner)


async def _exists(root: Inode, name: str) -> bool:
    try:
        await root.lookup(name)
    except errnos.ENOENT:
        return False
    return True
