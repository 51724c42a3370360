"""/sys: the little of a machine that programs look for. See sysfs(5).

Processors as :class:`~asyncsentry.fs.hostfacts.HostFacts` shows them, one memory node, no hardware. What
reads it: nproc, lscpu, glibc (``get_nprocs``), the JVM (cgroups, huge pages), Node, numactl.
"""

from __future__ import annotations

from typing import Any, Protocol

from asyncsentry.clock import Clock
from asyncsentry.fs.hostfacts import HostFacts, format_mask
from asyncsentry.fs.synthetic import Directory, Render, Store, Symlink, SyntheticFileSystem, TextInode

SYSFS_MAGIC = 0x62656572
_KIB = 1024


class SysKernel(Protocol):
    """What sysfs asks of the kernel object."""

    clock: Clock
    host_facts: HostFacts
    memory_limit: int | None


class SysFileSystem(SyntheticFileSystem):
    """One mounted sysfs. Its tree is made by :func:`make_sys`."""

    name = "sysfs"
    magic = SYSFS_MAGIC

    def __init__(self, device: int, kernel: SysKernel) -> None:
        super().__init__(device, kernel.clock)
        self.kernel = kernel


class AttributeInode(TextInode):
    """A sysfs attribute: shows the size of a page whatever it holds."""

    @property
    def size(self) -> int:
        """What stat(2) shows for every attribute."""
        return 4096


def _same_text(text: str) -> str:
    return text


def render_node_memory(sys: SysFileSystem) -> str:
    """Renders the memory of the one node."""
    facts = sys.kernel.host_facts
    total = min(facts.memory_bytes, sys.kernel.memory_limit or facts.memory_bytes)
    free = min(total, facts.memory_free_bytes())
    rows = (("MemTotal", total), ("MemFree", free), ("MemUsed", total - free))
    return "".join(f"Node 0 {name + ':':<15} {size // _KIB:8d} kB\n" for name, size in rows)


def render_node_counters(sys: SysFileSystem) -> str:
    """Renders the allocation counters of the one node."""
    names = ("numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node")
    return "".join(f"{name} 0\n" for name in names)


def ignore_store(subject: Any, data: bytes, writer: Any) -> None:
    """Takes a setting that has no effect here."""


EMPTY_DIRECTORIES = (
    "block", "bus", "class/block", "class/mem", "class/misc", "class/net", "class/power_supply", "class/thermal",
    "class/tty", "dev/block", "dev/char", "devices/platform", "devices/virtual", "firmware", "fs/bpf", "fs/cgroup",
    "fs/pstore", "hypervisor", "kernel/debug", "kernel/security", "kernel/tracing", "kernel/slab", "module", "power",
    "kernel/mm/hugepages",
)  # fmt: skip

HUGE_PAGES = "kernel/mm/transparent_hugepage"

FIXED: dict[str, str] = {
    f"{HUGE_PAGES}/enabled": "always [madvise] never\n",
    f"{HUGE_PAGES}/defrag": "always defer defer+madvise [madvise] never\n",
    f"{HUGE_PAGES}/shmem_enabled": "always within_size advise [never] deny force\n",
    f"{HUGE_PAGES}/hpage_pmd_size": "2097152\n",
    f"{HUGE_PAGES}/use_zero_page": "1\n",
    f"{HUGE_PAGES}/khugepaged/defrag": "1\n",
    f"{HUGE_PAGES}/khugepaged/max_ptes_none": "511\n",
    "kernel/mm/ksm/run": "0\n",
    "kernel/mm/ksm/pages_shared": "0\n",
    "kernel/mm/ksm/pages_sharing": "0\n",
    "kernel/mm/lru_gen/enabled": "0x0000\n",
    "kernel/profiling": "0\n",
    "kernel/fscaps": "1\n",
    "kernel/uevent_seqnum": "0\n",
    "kernel/cpu_byteorder": "little\n",
    "kernel/address_bits": "64\n",
    "devices/system/node/has_cpu": "0\n",
    "devices/system/node/has_memory": "0\n",
    "devices/system/node/has_normal_memory": "0\n",
    "devices/system/node/online": "0\n",
    "devices/system/node/possible": "0\n",
    "devices/system/node/node0/distance": "10\n",
    "devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    "devices/system/clocksource/clocksource0/available_clocksource": "tsc \n",
    "devices/system/cpu/smt/active": "0\n",
    "devices/system/cpu/smt/control": "notsupported\n",
    "devices/system/cpu/offline": "\n",
    "devices/system/cpu/isolated": "\n",
    "devices/system/cpu/nohz_full": "  (null)\n",
    "devices/system/cpu/kernel_max": "8191\n",
    "devices/system/cpu/modalias": "cpu:type:x86\n",
    "devices/virtual/dmi/id/product_name": "asyncsentry\n",
    "devices/virtual/dmi/id/sys_vendor": "asyncsentry\n",
    "power/state": "\n",
}

WRITABLE = frozenset({f"{HUGE_PAGES}/enabled", f"{HUGE_PAGES}/defrag", f"{HUGE_PAGES}/shmem_enabled"})
"""Settings that may be written, without effect: pages are the host's."""


class _Builder:
    """Places inodes by path while a tree is made."""

    def __init__(self, sys: SysFileSystem, root: Directory) -> None:
        self._sys = sys
        self._root = root

    def directory(self, path: str) -> Directory:
        """Gives the directory at ``path``, with all above it."""
        directory = self._root
        for name in filter(None, path.split("/")):
            directory = directory.subdirectory(name)
            directory.mode = directory.mode & ~0o777 | 0o755
        return directory

    def render(self, path: str, render: Render, subject: Any, store: Store | None = None) -> None:
        """Places an attribute that is rendered."""
        folder, _, name = path.rpartition("/")
        mode = 0o644 if store else 0o444
        self.directory(folder).add(name, AttributeInode(self._sys, render, subject, mode, store))

    def text(self, path: str, text: str) -> None:
        """Places an attribute that never changes."""
        self.render(path, _same_text, text, ignore_store if path in WRITABLE else None)

    def link(self, path: str, target: str) -> None:
        """Places a symbolic link."""
        folder, _, name = path.rpartition("/")
        self.directory(folder).add(name, Symlink(self._sys, target))


def make_sys(device: int, kernel: SysKernel) -> SysFileSystem:
    """Makes a sysfs that shows ``kernel``'s processors and memory."""
    sys = SysFileSystem(device, kernel)
    root = Directory(sys, 0o555)
    sys.root = root
    builder = _Builder(sys, root)
    for path in EMPTY_DIRECTORIES:
        builder.directory(path)
    for path, text in FIXED.items():
        builder.text(path, text)
    _add_processors(builder, kernel.host_facts)
    _add_node(builder, sys)
    builder.link("class/dmi", "../devices/virtual/dmi")
    return sys


def _add_processors(builder: _Builder, facts: HostFacts) -> None:
    """Describes processors that share nothing but the package."""
    base, everything, mask = "devices/system/cpu", facts.cpu_list(), facts.cpu_mask()
    for name in ("online", "possible", "present"):
        builder.text(f"{base}/{name}", f"{everything}\n")
    for number in range(facts.cpu_count):
        cpu, own_mask = f"{base}/cpu{number}", format_mask(1 << number)
        topology = {
            "core_id": number, "physical_package_id": 0, "die_id": 0, "cluster_id": 65535, "core_cpus": own_mask,
            "core_cpus_list": number, "thread_siblings": own_mask, "thread_siblings_list": number,
            "core_siblings": mask, "core_siblings_list": everything, "package_cpus": mask,
            "package_cpus_list": everything, "die_cpus": mask, "die_cpus_list": everything,
        }  # fmt: skip
        for name, value in topology.items():
            builder.text(f"{cpu}/topology/{name}", f"{value}\n")
        builder.link(f"{cpu}/node0", "../../node/node0")
        if number:
            builder.text(f"{cpu}/online", "1\n")


def _add_node(builder: _Builder, sys: SysFileSystem) -> None:
    facts, node = sys.kernel.host_facts, "devices/system/node/node0"
    builder.text(f"{node}/cpulist", f"{facts.cpu_list()}\n")
    builder.text(f"{node}/cpumap", f"{facts.cpu_mask()}\n")
    builder.render(f"{node}/meminfo", render_node_memory, sys)
    builder.render(f"{node}/numastat", render_node_counters, sys)
    for number in range(facts.cpu_count):
        builder.link(f"{node}/cpu{number}", f"../../cpu/cpu{number}")
