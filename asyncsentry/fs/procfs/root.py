"""The top of /proc: files about the machine, and a directory per process. See proc(5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from asyncsentry import errnos
from asyncsentry.fs.procfs import system, sysvipc
from asyncsentry.fs.procfs.base import ProcFileSystem, ProcKernel, Subject
from asyncsentry.fs.procfs.process import TaskDirectory, parse_number
from asyncsentry.fs.procfs.sys import add_parameters
from asyncsentry.fs.synthetic import Directory, Render, Symlink, TextInode

if TYPE_CHECKING:
    from asyncsentry.fs.inode import Inode

RENDERED: dict[str, Render] = {
    "buddyinfo": system.render_buddyinfo, "cmdline": system.render_cmdline, "cpuinfo": system.render_cpuinfo,
    "filesystems": system.render_filesystems, "interrupts": system.render_interrupts,
    "loadavg": system.render_loadavg, "meminfo": system.render_meminfo, "schedstat": system.render_schedstat,
    "softirqs": system.render_softirqs, "stat": system.render_stat, "uptime": system.render_uptime,
    "version": system.render_version, "vmstat": system.render_vmstat, "zoneinfo": system.render_zoneinfo,
    "pressure/cpu": system.render_pressure, "pressure/io": system.render_pressure,
    "pressure/memory": system.render_pressure, "sysvipc/msg": sysvipc.render_msg, "sysvipc/sem": sysvipc.render_sem,
    "sysvipc/shm": sysvipc.render_shm,
}  # fmt: skip

FIXED: dict[str, str] = {
    "cgroups": system.CGROUPS, "consoles": "", "crypto": "", "devices": system.DEVICES, "diskstats": "",
    "dma": " 4: cascade\n", "execdomains": "0-0\tLinux           \t[kernel]\n", "fb": "", "iomem": "", "ioports": "",
    "kallsyms": "", "key-users": system.KEY_USERS, "keys": "", "locks": "", "misc": "237 loop-control\n229 fuse\n",
    "modules": "", "mtrr": "", "partitions": "major minor  #blocks  name\n\n", "slabinfo": system.SLABINFO,
    "swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n", "timer_list": "", "tty/drivers": system.TTY_DRIVERS,
    "tty/ldiscs": "n_tty       0\n", "bus/input/devices": "", "bus/pci/devices": "",
}  # fmt: skip

PRIVATE = frozenset({"iomem", "ioports", "kallsyms", "slabinfo", "timer_list", "vmallocinfo", "keys"})
"""Files that only root reads."""

_DEAD_KEPT = 64

EMPTY_DIRECTORIES = ("acpi", "driver", "fs", "irq", "scsi", "tty/driver", "tty/ldisc")


def _same_text(text: str) -> str:
    return text


class SelfLink(Symlink):
    """/proc/self: the process that asks."""

    def target_for(self, context: Any) -> str:
        """Gives its pid."""
        if context is None:
            raise errnos.ENOENT("nobody asks")
        return str(context.process.pid)


class ThreadSelfLink(Symlink):
    """/proc/thread-self: the thread that asks."""

    def target_for(self, context: Any) -> str:
        """Gives the path of its directory."""
        if context is None:
            raise errnos.ENOENT("nobody asks")
        return f"{context.process.pid}/task/{context.tid}"


class RootDirectory(Directory):
    """/proc itself."""

    filesystem: ProcFileSystem

    def __init__(self, filesystem: ProcFileSystem) -> None:
        super().__init__(filesystem)
        self._directories: dict[int, TaskDirectory] = {}

    def find(self, name: str) -> Inode | None:
        """Finds a fixed name, a pid, or (though not listed) a tid."""
        found = self.children.get(name)
        if found is not None:
            return found
        number = parse_number(name)
        return None if number < 0 else self._process_directory(number)

    def _process_directory(self, pid: int) -> TaskDirectory | None:
        kernel = self.filesystem.kernel
        process = kernel.processes.get(pid)
        if process is None:
            thread = kernel.threads.get(pid)
            if thread is None:
                self._directories.pop(pid, None)
                return None
            process = thread.process
        directory = self._directories.get(pid)
        if directory is None or directory.subject.process is not process:
            self._forget_the_dead()
            directory = self._directories[pid] = TaskDirectory(Subject(self.filesystem, process, pid, False))
        directory.update_owner()
        return directory

    def items(self) -> Iterable[tuple[str, Inode]]:
        """Lists fixed names and the processes, dropping what is kept of those that are gone."""
        processes = self.filesystem.kernel.processes
        self._forget_the_dead()
        yield from self.children.items()
        for pid in sorted(processes):
            directory = self._process_directory(pid)
            if directory is not None:
                yield str(pid), directory


    def _forget_the_dead(self) -> None:
        """Drops what is kept of processes that are gone, cached names included, once it is much."""
        kernel = self.filesystem.kernel
        if len(self._directories) < 2 * len(kernel.threads) + _DEAD_KEPT:
            return
        names = self.filesystem.root_dentry.children
        for pid in [pid for pid, directory in self._directories.items() if not directory.subject.exists]:
            del self._directories[pid]
            name = names.get(str(pid))
            if name is not None and not name.mounts:
                name.unlinked = True
                del names[str(pid)]


def store_sysrq(proc: ProcFileSystem, data: bytes, writer: Any) -> None:
    """Takes a request and does nothing: there is no console to reach."""


def make_proc(device: int, kernel: ProcKernel, options: Mapping[str, str] | None = None) -> ProcFileSystem:
    """Makes a proc file system that shows ``kernel``; of mount(2)'s options there is ``subset=pid``, proc(5).

    Hiding the processes of others (``hidepid``) is refused: a lookup does not know who asks.
    """
    only_processes = _check_options(options or {})
    proc = ProcFileSystem(device, kernel)
    root = RootDirectory(proc)
    proc.root = root
    root.add("self", SelfLink(proc))
    root.add("thread-self", ThreadSelfLink(proc))
    if only_processes:
        proc.options = "subset=pid"
        return proc
    for path, render in RENDERED.items():
        _place(root, path, TextInode(proc, render, proc))
    for path, text in FIXED.items():
        _place(root, path, TextInode(proc, _same_text, text, 0o400 if path in PRIVATE else 0o444))
    for path in EMPTY_DIRECTORIES:
        _directory(root, path)
    _place(root, "sysrq-trigger", TextInode(proc, None, proc, 0o200, store_sysrq))
    for name, target in (("mounts", "self/mounts"), ("net", "self/net")):
        root.add(name, Symlink(proc, target))
    add_parameters(proc, root.subdirectory("sys"))
    return proc


def _check_options(options: Mapping[str, str]) -> bool:
    """Gives whether only processes are to be shown; EINVAL for options there are not."""
    for name, value in options.items():
        harmless = name == "gid" or (name, value) in (("hidepid", "0"), ("hidepid", "off"), ("subset", "pid"))
        if not harmless:
            raise errnos.EINVAL(f"no proc option {name}={value}")
    return options.get("subset") == "pid"


def _directory(root: Directory, path: str) -> Directory:
    directory = root
    for name in filter(None, path.split("/")):
        directory = directory.subdirectory(name)
    return directory


def _place(root: Directory, path: str, inode: Inode) -> None:
    folder, _, name = path.rpartition("/")
    _directory(root, folder).add(name, inode)
