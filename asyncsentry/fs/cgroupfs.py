"""cgroup2 as a container sees its own group: what limits it and what it uses, for programs that size themselves by it.

The one group is the sandbox. It cannot be divided: there are no controllers to enable below it. The JVM,
Node, Go's automaxprocs and monitoring agents read these files. See cgroups(7) and Linux's cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from asyncsentry import errnos
from asyncsentry.clock import Clock
from asyncsentry.fs.hostfacts import HostFacts
from asyncsentry.fs.synthetic import Directory, Render, SyntheticFileSystem, TextInode
from asyncsentry.memory.account import MemoryAccount

CGROUP2_SUPER_MAGIC = 0x63677270
NS_PER_US = 1000


class CgroupKernel(Protocol):
    """What cgroup files ask of the kernel object."""

    clock: Clock
    host_facts: HostFacts
    memory_limit: int | None
    sysctls: Any
    task_facts: Any

    @property
    def memory(self) -> MemoryAccount | None:
        """What guests use, if they are held to a limit."""

    @property
    def processes(self) -> Mapping[int, Any]:
        """Every process by pid."""

    @property
    def threads(self) -> Mapping[int, Any]:
        """Every live thread by tid."""


class CgroupFileSystem(SyntheticFileSystem):
    """One mounted cgroup2. Its files are made by :func:`make_cgroup`."""

    name = "cgroup2"
    magic = CGROUP2_SUPER_MAGIC

    def __init__(self, device: int, kernel: CgroupKernel) -> None:
        super().__init__(device, kernel.clock)
        self.kernel = kernel


def memory_used(group: CgroupFileSystem) -> int:
    """Gives the bytes of memory guests use: measured if there is a limit, else what they map and may have in use."""
    if group.kernel.memory is not None:
        return group.kernel.memory.used
    memories = {id(thread.memory): thread.memory for thread in group.kernel.threads.values()}
    return sum(int(memory.resident_bytes) for memory in memories.values())


def render_processes(group: CgroupFileSystem) -> str:
    """Renders the pids in the group."""
    return "".join(f"{pid}\n" for pid in sorted(group.kernel.processes))


def render_threads(group: CgroupFileSystem) -> str:
    """Renders the tids in the group."""
    return "".join(f"{tid}\n" for tid in sorted(group.kernel.threads))


def store_processes(group: CgroupFileSystem, data: bytes, writer: Any) -> None:
    """Lets a process join the one group it is in already."""
    try:
        pid = int(data)
    except ValueError:
        raise errnos.EINVAL("not a pid") from None
    if pid and pid not in group.kernel.processes:
        raise errnos.ESRCH(f"no process {pid}")


def render_memory_max(group: CgroupFileSystem) -> str:
    """Renders the memory limit."""
    limit = group.kernel.memory_limit
    return "max\n" if limit is None else f"{limit}\n"


def render_memory_current(group: CgroupFileSystem) -> str:
    """Renders the memory in use."""
    return f"{memory_used(group)}\n"


def render_memory_stat(group: CgroupFileSystem) -> str:
    """Renders the memory in use by kind; guests have no page cache of their own."""
    used = memory_used(group)
    kinds = {"anon": used, "file": 0, "kernel": 0, "shmem": 0, "inactive_anon": 0, "active_anon": used,
             "inactive_file": 0, "active_file": 0, "pgfault": 0, "pgmajfault": 0}  # fmt: skip
    return "".join(f"{name} {value}\n" for name, value in kinds.items())


def render_cpu_stat(group: CgroupFileSystem) -> str:
    """Renders the processor time used."""
    facts = group.kernel.task_facts
    times = [facts.process_cpu(process) for process in list(group.kernel.processes.values())]
    user, system = (sum(values) // NS_PER_US for values in zip(*times, strict=True)) if times else (0, 0)
    return (
        f"usage_usec {user + system}\nuser_usec {user}\nsystem_usec {system}\n"
        "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"
    )


def render_cpus(group: CgroupFileSystem) -> str:
    """Renders the processors."""
    return f"{group.kernel.host_facts.cpu_list()}\n"


def render_task_count(group: CgroupFileSystem) -> str:
    """Renders how many threads there are."""
    return f"{len(group.kernel.threads)}\n"


def render_task_limit(group: CgroupFileSystem) -> str:
    """Renders how many there may be."""
    return f"{group.kernel.sysctls.integer('kernel.threads-max')}\n"


def render_events(group: CgroupFileSystem) -> str:
    """Renders whether anything lives in the group."""
    return f"populated {int(bool(group.kernel.threads))}\nfrozen 0\n"


def _same_text(text: str) -> str:
    return text


RENDERED: dict[str, Render] = {
    "cgroup.events": render_events, "cgroup.threads": render_threads, "cpu.stat": render_cpu_stat,
    "cpuset.cpus.effective": render_cpus, "memory.current": render_memory_current, "memory.max": render_memory_max,
    "memory.peak": render_memory_current, "memory.stat": render_memory_stat, "pids.current": render_task_count,
    "pids.max": render_task_limit, "pids.peak": render_task_count,
}  # fmt: skip

FIXED: dict[str, str] = {
    "cgroup.controllers": "cpuset cpu io memory pids\n",
    "cgroup.subtree_control": "",
    "cgroup.max.depth": "0\n",
    "cgroup.max.descendants": "0\n",
    "cgroup.stat": "nr_descendants 0\nnr_dying_descendants 0\n",
    "cgroup.type": "domain\n",
    "cgroup.freeze": "0\n",
    "cpu.max": "max 100000\n",
    "cpu.weight": "100\n",
    "cpu.weight.nice": "0\n",
    "cpuset.cpus": "\n",
    "cpuset.mems": "\n",
    "cpuset.mems.effective": "0\n",
    "io.stat": "",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    "memory.high": "max\n",
    "memory.low": "0\n",
    "memory.min": "0\n",
    "memory.oom.group": "0\n",
    "memory.swap.current": "0\n",
    "memory.swap.max": "0\n",
    "pids.events": "max 0\n",
}


def make_cgroup(device: int, kernel: CgroupKernel) -> CgroupFileSystem:
    """Makes a cgroup2 file system that shows ``kernel`` as one group."""
    group = CgroupFileSystem(device, kernel)
    root = Directory(group, 0o555)
    group.root = root
    root.add("cgroup.procs", TextInode(group, render_processes, group, 0o644, store_processes))
    for name, render in RENDERED.items():
        root.add(name, TextInode(group, render, group))
    for name, text in FIXED.items():
        root.add(name, TextInode(group, _same_text, text))
    return group
