"""The kinds of file systems a guest may mount by name, and the options each takes. See mount(2), tmpfs(5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asyncsentry import errnos
from asyncsentry.fs import devfs
from asyncsentry.fs.cgroupfs import make_cgroup
from asyncsentry.fs.inode import FileSystem
from asyncsentry.fs.options import parse_id, parse_number, parse_size
from asyncsentry.fs.procfs.root import make_proc
from asyncsentry.fs.sysfs import make_sys
from asyncsentry.fs.tmpfs import TmpFileSystem
from asyncsentry.fs.tty.devpts import make_devpts

Maker = Callable[[Any, dict[str, str]], Awaitable[FileSystem]]
"""Makes an instance for a kernel from its options."""

_IGNORED = ("huge", "inode64", "inode32", "mpol", "noswap", "usrquota", "grpquota")


async def make_tmpfs(kernel: Any, options: dict[str, str]) -> FileSystem:
    """Makes a tmpfs: half the memory large unless told otherwise."""
    memory = memory_size(kernel)
    filesystem = TmpFileSystem(kernel.allocate_device(), kernel.clock, size=memory // 2)
    apply_tmpfs_options(filesystem, options, memory)
    return filesystem


def apply_tmpfs_options(filesystem: TmpFileSystem, options: dict[str, str], memory: int) -> None:
    """Sets what a mount or a remount of a tmpfs asks for; EINVAL for options there are not."""
    root = filesystem.root
    for name, value in options.items():
        if name in ("size", "nr_blocks"):
            size = parse_size(value, memory) * (4096 if name == "nr_blocks" else 1)
            limit = -(-size // 4096) or None
            if limit is not None and limit < filesystem.budget.used:
                raise errnos.EINVAL("smaller than what it holds")
            filesystem.budget.limit = limit
        elif name == "nr_inodes":
            filesystem.inodes_max = parse_size(value, memory) or None
        elif name == "mode":
            root.mode = root.mode & ~0o7777 | parse_number(value, 8) & 0o7777
        elif name == "uid":
            root.uid = parse_id(value)
        elif name == "gid":
            root.gid = parse_id(value)
        elif name not in _IGNORED:
            raise errnos.EINVAL(f"no tmpfs option {name!r}")


def memory_size(kernel: Any) -> int:
    """Gives the bytes of memory guests believe to have."""
    limit: int | None = kernel.memory_limit
    return limit if limit is not None else int(kernel.host_facts.memory_bytes)


async def _make_ramfs(kernel: Any, options: dict[str, str]) -> FileSystem:
    filesystem = TmpFileSystem(kernel.allocate_device(), kernel.clock, mode=0o755)
    filesystem.name = "ramfs"
    apply_tmpfs_options(filesystem, {"mode": options["mode"]} if "mode" in options else {}, 0)
    return filesystem


async def _make_proc(kernel: Any, options: dict[str, str]) -> FileSystem:
    return make_proc(kernel.allocate_device(), kernel, options)


async def _make_sysfs(kernel: Any, options: dict[str, str]) -> FileSystem:
    return make_sys(kernel.allocate_device(), kernel)


async def _make_mqueue(kernel: Any, options: dict[str, str]) -> FileSystem:
    filesystem: FileSystem = kernel.mqueues  # all mounts show the one set of queues
    return filesystem


async def _make_cgroup(kernel: Any, options: dict[str, str]) -> FileSystem:
    return make_cgroup(kernel.allocate_device(), kernel)


async def _make_devpts(kernel: Any, options: dict[str, str]) -> FileSystem:
    return make_devpts(kernel.allocate_device(), kernel.terminals, options)


async def _make_devtmpfs(kernel: Any, options: dict[str, str]) -> FileSystem:
    filesystem = TmpFileSystem(kernel.allocate_device(), kernel.clock, mode=0o755)
    filesystem.name = "devtmpfs"
    await devfs.populate(filesystem.root)
    return filesystem


MAKERS: dict[str, Maker] = {
    "cgroup2": _make_cgroup,
    "devpts": _make_devpts,
    "devtmpfs": _make_devtmpfs,
    "mqueue": _make_mqueue,
    "proc": _make_proc,
    "ramfs": _make_ramfs,
    "sysfs": _make_sysfs,
    "tmpfs": make_tmpfs,
}
"""By the name mount(2) is given."""
