"""/dev: the memory devices through their numbers, and what populates the directory; /sys beside it."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from asyncsentry import errnos
from asyncsentry.clock import RandomSource, VirtualClock
from asyncsentry.fs.cgroupfs import make_cgroup
from asyncsentry.fs.devfs import RNDGETENTCNT, MemoryDevices, populate
from asyncsentry.fs.devices import DeviceRegistry
from asyncsentry.fs.file import File
from asyncsentry.fs.hostfacts import HostFacts, format_list, format_mask
from asyncsentry.fs.inode import Inode
from asyncsentry.fs.sysfs import make_sys
from asyncsentry.fs.tmpfs import TmpFileSystem
from asyncsentry.sysctl import Sysctls


@pytest.fixture
async def dev() -> TmpFileSystem:
    filesystem = TmpFileSystem(3, VirtualClock(), mode=0o755)
    await populate(filesystem.root)
    return filesystem


@pytest.fixture
def thread() -> Any:
    devices = DeviceRegistry()
    MemoryDevices(RandomSource()).register(devices)
    return SimpleNamespace(kernel=SimpleNamespace(devices=devices))


async def open_device(dev: TmpFileSystem, thread: Any, name: str) -> File:
    inode = await dev.root.lookup(name)
    return await thread.kernel.devices.open(inode, 2, None, thread)


async def test_null_swallows_and_is_empty(dev: TmpFileSystem, thread: Any) -> None:
    null = await open_device(dev, thread, "null")
    assert null.try_write(b"gone") == 4
    assert null.try_read(10) == b""
    assert null.seek(100, 0) == 0


async def test_zero_gives_zeros_and_maps_as_memory(dev: TmpFileSystem, thread: Any) -> None:
    zero = await open_device(dev, thread, "zero")
    assert zero.try_read(5, 1000) == bytes(5)
    assert zero.maps_as_anonymous


async def test_full_is_full(dev: TmpFileSystem, thread: Any) -> None:
    full = await open_device(dev, thread, "full")
    assert full.try_read(3) == bytes(3)
    assert not full.maps_as_anonymous
    with pytest.raises(errnos.ENOSPC):
        full.try_write(b"x")


async def test_random_bytes_come_from_the_kernels_source(dev: TmpFileSystem, thread: Any) -> None:
    written: list[tuple[int, int]] = []
    caller = SimpleNamespace(memory=SimpleNamespace(write_i32=lambda address, value: written.append((address, value))))
    for name in ("random", "urandom"):
        device = await open_device(dev, thread, name)
        assert len(device.try_read(16)) == 16
        assert device.try_write(b"seed") == 4
        device.ioctl(caller, RNDGETENTCNT, 0x10)
    assert written == [(0x10, 256)] * 2


async def test_an_unknown_device_is_no_device(dev: TmpFileSystem, thread: Any) -> None:
    inode = await dev.root.lookup("null")
    inode.rdev = os.makedev(1, 77)
    with pytest.raises(errnos.ENXIO):
        await thread.kernel.devices.open(inode, 0, None, thread)


async def test_populating_twice_changes_nothing(dev: TmpFileSystem) -> None:
    before = [entry.name for entry in await dev.root.entries()]
    await populate(dev.root)
    assert [entry.name for entry in await dev.root.entries()] == before
    assert (await dev.root.lookup("shm")).mode & 0o7777 == 0o1777
    assert await (await dev.root.lookup("fd")).readlink() == "/proc/self/fd"


def test_masks_and_lists_look_like_linux() -> None:
    assert format_mask((1 << 40) - 1) == "ff,ffffffff"
    assert format_mask(1 << 32) == "1,00000000"
    assert format_list([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert format_list([]) == ""


async def walk(root: Inode, path: str) -> str:
    inode = root
    for name in path.split("/"):
        inode = await inode.lookup(name)
    file = await inode.open(0, None, None)  # type: ignore[arg-type]  # nobody asks where it was opened
    return file.try_read(4096).decode()


async def test_sysfs_shows_the_processors_of_the_sandbox() -> None:
    kernel = SimpleNamespace(clock=VirtualClock(), host_facts=HostFacts(3, 1 << 30), memory_limit=None)
    root = make_sys(4, kernel).root  # type: ignore[arg-type]  # a kernel as far as sysfs sees it
    assert await walk(root, "devices/system/cpu/online") == "0-2\n"
    assert await walk(root, "devices/system/cpu/cpu2/topology/core_cpus") == "4\n"
    assert await walk(root, "devices/system/node/node0/cpulist") == "0-2\n"
    assert "[madvise]" in await walk(root, "kernel/mm/transparent_hugepage/enabled")
    assert "MemTotal:        1048576 kB" in await walk(root, "devices/system/node/node0/meminfo")
    with pytest.raises(errnos.ENOENT):
        await root.lookup("nothing")


async def test_a_cgroup_shows_the_limits_of_the_sandbox() -> None:
    memory = SimpleNamespace(resident_bytes=4096)
    facts = SimpleNamespace(process_cpu=lambda process: (3_000_000, 1_000_000))
    kernel: Any = SimpleNamespace(
        clock=VirtualClock(), host_facts=HostFacts(2, 1 << 30), memory_limit=1 << 20, memory=None, sysctls=Sysctls(),
        task_facts=facts, processes={1: object()}, threads={1: SimpleNamespace(memory=memory)},
    )  # fmt: skip
    root = make_cgroup(4, kernel).root
    assert await walk(root, "memory.max") == "1048576\n"
    assert await walk(root, "memory.current") == "4096\n"
    assert await walk(root, "cgroup.procs") == "1\n"
    assert (await walk(root, "cpu.stat")).startswith("usage_usec 4000\nuser_usec 3000\nsystem_usec 1000\n")
    assert await walk(root, "cpuset.cpus.effective") == "0-1\n"
    kernel.memory = SimpleNamespace(used=12288)
    assert await walk(root, "memory.current") == "12288\n"
    kernel.memory_limit = None
    assert await walk(root, "memory.max") == "max\n"
