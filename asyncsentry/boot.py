"""Boot: from a configuration to a kernel with its platform, gofer and file systems up."""

from __future__ import annotations

import asyncio
import os
import resource
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from asyncsentry import syscalls
from asyncsentry.abi.fcntl_h import AT_FDCWD
from asyncsentry.abi.stat_h import S_IFREG
from asyncsentry.errnos import EEXIST, ENOENT, LinuxError
from asyncsentry.fs import devfs
from asyncsentry.fs.cgroupfs import make_cgroup
from asyncsentry.fs.fdtable import FdTable
from asyncsentry.fs.gofer.client import GoferFileSystem
from asyncsentry.fs.gofer.connection import Gofer, HostMount
from asyncsentry.fs.hostfacts import HostFacts
from asyncsentry.fs.mount import MountNamespace
from asyncsentry.fs.names import mkdir, mknod
from asyncsentry.fs.overlay import OverlayFileSystem
from asyncsentry.fs.path import resolve
from asyncsentry.fs.procfs.root import make_proc
from asyncsentry.fs.sysfs import make_sys
from asyncsentry.fs.tmpfs import TmpFileSystem
from asyncsentry.fs.tty.devpts import make_devpts
from asyncsentry.kernel import Kernel
from asyncsentry.syscalls.dispatch import Dispatch
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.fscontext import FsContext
from asyncsentry.tasks.oom import MemoryWatch

if TYPE_CHECKING:
    from asyncsentry.clock import Clock, RandomSource
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.inode import FileSystem
    from asyncsentry.platforms.base import Platform
    from asyncsentry.tasks.thread import Thread


class Volume(NamedTuple):
    """A host directory or file that appears in the sandbox, shared with the host."""

    source: str
    target: str
    read_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Volume:
        """Reads ``SRC:DST[:ro]``; ValueError for anything else."""
        parts = text.split(":")
        if len(parts) not in (2, 3) or not all(parts) or parts[2:] not in ([], ["ro"], ["rw"]):
            raise ValueError(f"a volume is SRC:DST[:ro], not {text!r}")
        if not parts[1].startswith("/"):
            raise ValueError(f"a volume's place in the sandbox is an absolute path, not {parts[1]!r}")
        return cls(parts[0], parts[1], parts[2:] == ["ro"])


@dataclass(slots=True)
class Configuration:
    """Everything a sandbox is made from."""

    root: str = "/"
    volumes: list[Volume] = field(default_factory=list)
    network: str = "none"
    hostname: str = "asyncsentry"
    platform: str = "systrap"
    overlay: str = "memory"
    """``memory``: changes to the root stay in the sandbox; ``none``: they reach the host."""
    memory_limit: int | None = None
    clock: Clock | None = None
    random: RandomSource | None = None


def make_platform(name: str) -> Platform:
    """Gives a platform by name; ValueError if there is none of that name."""
    if name == "systrap":
        from asyncsentry.platforms.systrap.platform import SystrapPlatform

        return SystrapPlatform()
    if name == "ptrace":
        from asyncsentry.platforms.ptrace.platform import PtracePlatform

        return PtracePlatform()
    raise ValueError(f"no platform named {name!r}: systrap and ptrace are there")


class ConfigurationError(Exception):
    """What was asked for cannot be; the text says why."""


class Machine:
    """A booted kernel with the host processes behind it."""

    def __init__(self, kernel: Kernel, gofer: Gofer) -> None:
        self.kernel = kernel
        self.gofer = gofer

    async def shut_down(self) -> None:
        """Ends every guest process and the gofer, and gives back all host resources, whatever of it fails."""
        kernel = self.kernel
        if kernel.memory is not None:
            kernel.memory.stop()
        tasks = [thread.task for thread in kernel.threads.values() if thread.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with AsyncExitStack() as last_to_first:
            last_to_first.push_async_callback(self.gofer.close)
            mounted = {mount.filesystem for mount in kernel.mounts.root_mount.subtree()}
            for filesystem in mounted | set(kernel.filesystems):
                last_to_first.push_async_callback(filesystem.release)
            last_to_first.callback(kernel.shared_memory.close)
            last_to_first.push_async_callback(kernel.unix.close)
            for thread in kernel.threads.values():
                last_to_first.push_async_callback(_let_go, thread)
            last_to_first.push_async_callback(kernel.platform.close)


async def _let_go(thread: Thread) -> None:
    await thread.fds.close_all()
    if thread.memory.users:
        thread.memory.users = 0
        await thread.memory.release()


async def boot(configuration: Configuration) -> Machine:
    """Brings a kernel up. Nothing is left behind if that fails."""
    check_configuration(configuration)
    platform = make_platform(configuration.platform)
    mounts = [HostMount(configuration.root, configuration.overlay != "none")]
    mounts += [HostMount(volume.source, volume.read_only) for volume in configuration.volumes]
    gofer = Gofer.start(mounts)
    try:
        syscalls.load()  # takes a while the first time; the gofer comes up meanwhile
        await platform.start()
        kernel = Kernel(platform, configuration.clock, configuration.random, configuration.hostname)
        kernel.network = configuration.network
        kernel.memory_limit = configuration.memory_limit
        kernel.dispatch = Dispatch()
        kernel.host_facts = HostFacts.capture()
        devfs.MemoryDevices(kernel.random).register(kernel.devices)
        await _mount_all(kernel, gofer, configuration)
        _raise_descriptor_limit()
        _limit_memory(kernel, configuration.memory_limit)
    except BaseException:
        await platform.close()
        await gofer.close()
        raise
    return Machine(kernel, gofer)


def _raise_descriptor_limit() -> None:
    """Lets this process open all the descriptors it may: files of guests, their memory and processes take one each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a hard limit above what the kernel allows now
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _limit_memory(kernel: Kernel, limit: int | None) -> None:
    """Holds a sandbox to its limit; without one only files in memory are held to a share of the host's.

    Those are ours, not the guests', so the host could not get them back by ending guests.
    """
    kernel.file_memory = MemoryWatch(kernel, limit or kernel.host_facts.memory_bytes // 4 * 3)
    for filesystem in (kernel.memfds, *(mount.filesystem for mount in kernel.mounts.root_mount.subtree())):
        kernel.file_memory.adopt(filesystem)
    if limit is not None:
        kernel.memory = kernel.file_memory
        kernel.memory.start()


class Mounter:
    """The path context of the kernel itself: the sandbox's root, all powers."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.fs = FsContext(kernel.mounts.root, kernel.mounts.root, 0)
        self.credentials = Credentials()
        self.fds = FdTable()


async def _mount_all(kernel: Kernel, gofer: Gofer, configuration: Configuration) -> None:
    is_overlaid = configuration.overlay != "none"
    memory = kernel.memory_limit or kernel.host_facts.memory_bytes  # half of it is what Linux lets a tmpfs grow to
    root: FileSystem = await GoferFileSystem.attach(gofer, 0, kernel.allocate_device(), exclusive=is_overlaid)
    if is_overlaid:
        upper = TmpFileSystem(kernel.allocate_device(), kernel.clock, size=memory // 2, mode=0o755)
        root = OverlayFileSystem(kernel.allocate_device(), root, upper)
    kernel.mounts = MountNamespace(root, source="overlay" if is_overlaid else "root")
    mounter = Mounter(kernel)
    proc = make_proc(kernel.allocate_device(), kernel)
    await _mount(mounter, "/proc", proc, "proc")
    await _mount(mounter, "/sys", make_sys(kernel.allocate_device(), kernel), "sysfs")
    await _mount(mounter, "/sys/fs/cgroup", make_cgroup(kernel.allocate_device(), kernel), "cgroup2")
    dev = TmpFileSystem(kernel.allocate_device(), kernel.clock, size=1 << 26, mode=0o755)
    await devfs.populate(dev.root)
    await _mount(mounter, "/dev", dev, "tmpfs")
    kernel.null_device = await resolve(mounter, AT_FDCWD, "/dev/null")
    devpts = make_devpts(kernel.allocate_device(), kernel.terminals, {"gid": "5", "mode": "620", "ptmxmode": "666"})
    await _mount(mounter, "/dev/pts", devpts, "devpts")
    await _mount(mounter, "/dev/shm", TmpFileSystem(kernel.allocate_device(), kernel.clock, size=memory // 2), "tmpfs")
    for index, volume in enumerate(configuration.volumes, start=1):
        filesystem = await GoferFileSystem.attach(gofer, index, kernel.allocate_device(), exclusive=False)
        await _mount(mounter, volume.target, filesystem, volume.source)


async def _mount(mounter: Mounter, target: str, filesystem: FileSystem, source: str) -> None:
    """Mounts a file system, making the place for it where the root has none, as runtimes do."""
    try:
        location = await resolve(mounter, AT_FDCWD, target)
    except ENOENT:
        location = await _make_mountpoint(mounter, target, filesystem.root.is_directory)
    mounter.kernel.mounts.mount(location, filesystem, source=source)


async def _make_mountpoint(mounter: Mounter, target: str, is_directory: bool) -> Location:
    parts = target.strip("/").split("/")
    try:
        for count in range(1, len(parts) + 1):
            path = "/" + "/".join(parts[:count])
            with suppress(EEXIST):
                if is_directory or count < len(parts):
                    await mkdir(mounter, AT_FDCWD, path, 0o755)
                else:
                    await mknod(mounter, AT_FDCWD, path, S_IFREG | 0o644)
        return await resolve(mounter, AT_FDCWD, target)
    except LinuxError as error:
        raise ConfigurationError(f"the root has no {target} to mount on, and it cannot be made: {error}") from None


def check_configuration(configuration: Configuration) -> None:
    """Raises ConfigurationError, with what to do, for host paths that cannot be served."""
    if not os.path.isdir(configuration.root):
        raise ConfigurationError(f"the root {configuration.root} is no directory on this host")
    if not os.access(configuration.root, os.R_OK | os.X_OK):
        raise ConfigurationError(f"the root {configuration.root} cannot be read by this user")
    for volume in configuration.volumes:
        if not os.path.exists(volume.source):
            raise ConfigurationError(f"the volume's source {volume.source} does not exist on this host")
