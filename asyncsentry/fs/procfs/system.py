"""The files of /proc about the machine as a whole: memory, processors, time, versions. See proc(5)."""

from __future__ import annotations

from typing import Any

from asyncsentry.abi import utsname_h as uts
from asyncsentry.clock import CLOCK_REALTIME, NS_PER_SECOND
from asyncsentry.fs.procfs.base import NS_PER_TICK, ProcFileSystem, kib
from asyncsentry.fs.procfs.memory import resident_bytes


def render_version(proc: ProcFileSystem) -> str:
    """Renders /proc/version."""
    return f"Linux version {uts.RELEASE} (asyncsentry@sandbox) (python) {uts.VERSION}\n"


def render_uptime(proc: ProcFileSystem) -> str:
    """Renders seconds since boot, and idle seconds of all processors."""
    uptime_ns = uptime(proc)
    idle_ns = max(0, uptime_ns * proc.kernel.host_facts.cpu_count - busy(proc))
    return f"{uptime_ns / NS_PER_SECOND:.2f} {idle_ns / NS_PER_SECOND:.2f}\n"


def uptime(proc: ProcFileSystem) -> int:
    """Gives nanoseconds since boot."""
    return max(0, proc.kernel.clock.now_ns() - proc.kernel.boot_time_ns)


def busy(proc: ProcFileSystem) -> int:
    """Gives the processor time of all processes in nanoseconds."""
    facts = proc.kernel.task_facts
    return sum(sum(facts.process_cpu(process)) for process in list(proc.kernel.processes.values()))


def running_threads(proc: ProcFileSystem) -> int:
    """Gives how many threads are running guest code or waiting for a processor."""
    return sum(1 for thread in proc.kernel.threads.values() if not thread.is_blocked)


def render_loadavg(proc: ProcFileSystem) -> str:
    """Renders the load averages, threads running and existing, and the last pid given out."""
    kernel = proc.kernel
    running = running_threads(proc)
    proc.load.update(kernel.clock.now_ns(), running)
    averages = " ".join(f"{value:.2f}" for value in proc.load.values)
    newest = max(kernel.threads, default=1)
    return f"{averages} {running}/{len(kernel.threads)} {newest}\n"


def memory_sizes(proc: ProcFileSystem) -> tuple[int, int, int]:
    """Gives total, free and used memory in bytes; the limit of the sandbox counts as its memory."""
    kernel = proc.kernel
    facts = kernel.host_facts
    if kernel.memory is not None:
        used = kernel.memory.used
    else:
        seen: dict[int, Any] = {id(thread.memory): thread.memory for thread in kernel.threads.values()}
        used = sum(resident_bytes(memory) for memory in seen.values())
    total = facts.memory_bytes
    free = facts.memory_free_bytes()
    if kernel.memory_limit is not None and kernel.memory_limit < total:
        total = kernel.memory_limit
        free = min(free, total)
    return total, max(0, min(free, total - used)), used


def render_meminfo(proc: ProcFileSystem) -> str:
    """Renders /proc/meminfo."""
    total, free, used = memory_sizes(proc)
    overcommit = proc.kernel.sysctls.integer("vm.overcommit_ratio")
    values: dict[str, int] = dict.fromkeys(_MEMINFO_NAMES, 0)
    values |= {
        "MemTotal": total, "MemFree": free, "MemAvailable": free, "Active": used, "Active(anon)": used,
        "AnonPages": used, "Cached": max(0, total - free - used), "CommitLimit": total * overcommit // 100,
        "Committed_AS": used, "VmallocTotal": 34359738367 * 1024, "DirectMap4k": total,
    }  # fmt: skip
    values["Inactive"] = values["Inactive(file)"] = values["Cached"]
    text = "".join(f"{name + ':':<15} {kib(value):8d} kB\n" for name, value in values.items())
    pools = "".join(f"HugePages_{name + ':':<8}{0:5d}\n" for name in ("Total", "Free", "Rsvd", "Surp"))
    return text + pools + "Hugepagesize:       2048 kB\nHugetlb:               0 kB\n"


_MEMINFO_NAMES = (
    "MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapCached", "Active", "Inactive", "Active(anon)",
    "Inactive(anon)", "Active(file)", "Inactive(file)", "Unevictable", "Mlocked", "SwapTotal", "SwapFree", "Dirty",
    "Writeback", "AnonPages", "Mapped", "Shmem", "KReclaimable", "Slab", "SReclaimable", "SUnreclaim", "KernelStack",
    "PageTables", "NFS_Unstable", "Bounce", "WritebackTmp", "CommitLimit", "Committed_AS", "VmallocTotal",
    "VmallocUsed", "VmallocChunk", "Percpu", "AnonHugePages", "ShmemHugePages", "ShmemPmdMapped", "FileHugePages",
    "FilePmdMapped", "DirectMap4k",
)  # fmt: skip


def render_cpuinfo(proc: ProcFileSystem) -> str:
    """Renders the host's processors, numbered from 0."""
    facts = proc.kernel.host_facts
    paragraphs = facts.cpuinfo or ("vendor_id\t: unknown\nflags\t\t:\n",) * facts.cpu_count
    return "".join(f"processor\t: {number}\n{text.rstrip()}\n\n" for number, text in enumerate(paragraphs))


def render_stat(proc: ProcFileSystem) -> str:
    """Renders /proc/stat; time not spent by guests counts as idle."""
    kernel = proc.kernel
    count = kernel.host_facts.cpu_count
    times = [kernel.task_facts.process_cpu(process) for process in list(kernel.processes.values())]
    user, system = sum(time.user_ns for time in times), sum(time.system_ns for time in times)
    idle = max(0, uptime(proc) * count - user - system)
    lines = [_cpu_line("cpu ", user, system, idle)]
    lines += [_cpu_line(f"cpu{number}", user // count, system // count, idle // count) for number in range(count)]
    boot_s = (kernel.clock.now_ns(CLOCK_REALTIME) - uptime(proc)) // NS_PER_SECOND
    started = max((*kernel.processes, *kernel.threads), default=0)
    lines += [
        "intr 0", "ctxt 0", f"btime {boot_s}", f"processes {started}", f"procs_running {running_threads(proc)}",
        "procs_blocked 0", "softirq 0 0 0 0 0 0 0 0 0 0 0",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _cpu_line(name: str, user_ns: int, system_ns: int, idle_ns: int) -> str:
    ticks = [user_ns, 0, system_ns, idle_ns]
    return f"{name} {' '.join(str(value // NS_PER_TICK) for value in ticks)} 0 0 0 0 0 0"


def render_vmstat(proc: ProcFileSystem) -> str:
    """Renders the counters vmstat(8) and monitoring agents read."""
    _, free, used = memory_sizes(proc)
    values = dict.fromkeys(_VMSTAT_NAMES, 0)
    values |= {"nr_free_pages": free // 4096, "nr_anon_pages": used // 4096, "nr_active_anon": used // 4096}
    return "".join(f"{name} {value}\n" for name, value in values.items())


_VMSTAT_NAMES = (
    "nr_free_pages", "nr_inactive_anon", "nr_active_anon", "nr_inactive_file", "nr_active_file", "nr_unevictable",
    "nr_anon_pages", "nr_mapped", "nr_file_pages", "nr_dirty", "nr_writeback", "nr_shmem", "nr_slab_reclaimable",
    "nr_slab_unreclaimable", "nr_page_table_pages", "nr_kernel_stack", "pgpgin", "pgpgout", "pswpin", "pswpout",
    "pgalloc_normal", "pgfree", "pgfault", "pgmajfault", "pgsteal_kswapd", "pgscan_kswapd", "pgscan_direct",
    "allocstall_normal", "oom_kill", "thp_fault_alloc", "compact_stall",
)  # fmt: skip


def render_cmdline(proc: ProcFileSystem) -> str:
    """Renders the boot command line."""
    return "\n"


def render_interrupts(proc: ProcFileSystem) -> str:
    """Renders the header and the two counters every x86 has."""
    count = proc.kernel.host_facts.cpu_count
    head = " " * 11 + "".join(f"{f'CPU{number}':<11}" for number in range(count))
    zeros = "".join(f"{0:>10} " for _ in range(count))
    return f"{head}\nERR: {0:>10}\nMIS: {0:>10}\nLOC: {zeros}  Local timer interrupts\n"


def render_softirqs(proc: ProcFileSystem) -> str:
    """Renders the soft interrupts, none of which happened."""
    count = proc.kernel.host_facts.cpu_count
    head = " " * 20 + "".join(f"{f'CPU{number}':<11}" for number in range(count))
    names = ("HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU")
    zeros = "".join(f"{0:>10} " for _ in range(count))
    return head + "\n" + "".join(f"{name:>12}: {zeros}\n" for name in names)


def render_schedstat(proc: ProcFileSystem) -> str:
    """Renders the version line of /proc/schedstat and an empty line per processor."""
    count = proc.kernel.host_facts.cpu_count
    head = f"version 17\ntimestamp {proc.kernel.clock.now_ns() // 10_000_000}\n"
    return head + "".join(f"cpu{number} 0 0 0 0 0 0 0 0 0\n" for number in range(count))


def render_buddyinfo(proc: ProcFileSystem) -> str:
    """Renders free memory as if it were all in the largest blocks."""
    _, free, _ = memory_sizes(proc)
    return "Node 0, zone   Normal" + "".join(f"{0:7d}" for _ in range(10)) + f"{free >> 22:7d} \n"


def render_zoneinfo(proc: ProcFileSystem) -> str:
    """Renders the one zone there is."""
    total, free, _ = memory_sizes(proc)
    return (
        f"Node 0, zone   Normal\n  pages free     {free // 4096}\n        min      0\n        low      0\n"
        f"        high     0\n        spanned  {total // 4096}\n        present  {total // 4096}\n"
        f"        managed  {total // 4096}\n"
    )


def render_pressure(proc: ProcFileSystem) -> str:
    """Renders pressure stall information: nothing stalls as far as the sandbox knows."""
    rows = (f"{kind} avg10=0.00 avg60=0.00 avg300=0.00 total=0\n" for kind in ("some", "full"))
    return "".join(rows)


def render_filesystems(proc: ProcFileSystem) -> str:
    """Renders the kinds of file systems a guest meets; none of them needs a device."""
    names = (
        "sysfs", "tmpfs", "proc", "cgroup2", "devtmpfs", "sockfs", "pipefs", "anon_inodefs", "ramfs", "devpts",
        "overlay",
    )  # fmt: skip
    return "".join(f"nodev\t{name}\n" for name in names)


DEVICES = """Character devices:
  1 mem
  4 tty
  5 /dev/tty
  5 /dev/console
  5 /dev/ptmx
 10 misc
128 ptm
136 pts

Block devices:
"""

TTY_DRIVERS = """/dev/tty             /dev/tty        5       0 system:/dev/tty
/dev/console         /dev/console    5       1 system:console
/dev/ptmx            /dev/ptmx       5       2 system
pty_slave            /dev/pts      136 0-1048575 pty:slave
pty_master           /dev/ptm      128 0-1048575 pty:master
"""

CGROUPS = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n" + "".join(
    f"{name}\t0\t1\t1\n" for name in ("cpuset", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer", "pids")
)
SLABINFO = (
    "slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> "
    ": tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n"
)
KEY_USERS = "    0:     1 1/1 1/1000000 25/25000000\n"
