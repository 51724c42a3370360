"""How a process tells of itself in numbers: stat, statm, status, limits, schedstat, io. See proc_pid_stat(5)."""

from __future__ import annotations

from typing import Any

from asyncsentry.fs.hostfacts import format_list, format_mask
from asyncsentry.fs.procfs.base import NS_PER_TICK, CpuTimes, SignalSets, Subject, kib
from asyncsentry.fs.procfs.memory import MemoryFacts

STATE_NAMES = {
    "R": "running", "S": "sleeping", "D": "disk sleep", "T": "stopped", "t": "tracing stop", "Z": "zombie",
    "X": "dead",
}  # fmt: skip
PF_FORKNOEXEC = 0x40
PF_RANDOMIZE = 0x00400000
ULONG_MAX = (1 << 64) - 1
NICE_TO_PRIORITY = 20
RLIM_INFINITY = ULONG_MAX


def state_of(subject: Subject) -> str:
    """Gives the state letter."""
    thread = subject.thread
    return "Z" if thread is None else subject.kernel.task_facts.state(thread)


def escape_name(name: str) -> str:
    """Gives a command name with line ends and backslashes escaped, as status shows it."""
    return name.replace("\\", "\\\\").replace("\n", "\\n")


def command_name(subject: Subject) -> str:
    """Gives the command name; a zombie keeps its last one."""
    thread = subject.thread
    return str(thread.name if thread is not None else subject.process.last_name)


def terminal_numbers(process: Any) -> tuple[int, int]:
    """Gives tty_nr and tpgid of stat: device and foreground group of the controlling terminal."""
    terminal = process.session.terminal
    if terminal is None:
        return 0, -1
    foreground = terminal.foreground
    return terminal.device, foreground.pgid if foreground is not None else -1


def cpu_of(subject: Subject) -> CpuTimes:
    """Gives the processor time of the process, or of the one thread."""
    facts = subject.kernel.task_facts
    return facts.thread_cpu(subject.thread) if subject.of_thread else facts.process_cpu(subject.process)


def render_stat(subject: Subject) -> str:
    """Renders /proc/PID/stat."""
    process, thread = subject.process, subject.thread
    if thread is None and not subject.exists:
        subject.live()
    cpu, children = cpu_of(subject), subject.kernel.task_facts.children_cpu(process)
    tty, foreground = terminal_numbers(process)
    memory = MemoryFacts(subject.memory)
    signals = _signals(subject)
    scheduling = getattr(thread, "scheduling", None)
    nice, policy, rt_priority = (
        (scheduling.nice, scheduling.policy, scheduling.priority) if scheduling is not None else (0, 0, 0)
    )
    priority = -1 - rt_priority if policy in (1, 2) else NICE_TO_PRIORITY + nice
    started = thread if subject.of_thread and thread is not None else process
    start_ticks = max(0, started.start_time_ns - subject.kernel.boot_time_ns) // NS_PER_TICK
    mm = subject.memory
    fields = (
        state_of(subject), process.parent.pid if process.parent else 0, process.group.pgid, process.session.sid, tty,
        foreground, PF_RANDOMIZE if process.has_execed else PF_RANDOMIZE | PF_FORKNOEXEC, 0, 0, 0, 0,
        cpu.user_ns // NS_PER_TICK, cpu.system_ns // NS_PER_TICK, children.user_ns // NS_PER_TICK,
        children.system_ns // NS_PER_TICK, priority, nice, max(1, len(process.threads)) if thread else 1, 0,
        start_ticks, memory.total, memory.resident // 4096, RLIM_INFINITY, *_addresses(mm, "start_code", "end_code"),
        *_addresses(mm, "start_stack"), 0, 0, signals.pending & 0x7FFFFFFF, signals.blocked & 0x7FFFFFFF,
        signals.ignored & 0x7FFFFFFF, signals.caught & 0x7FFFFFFF, 0 if state_of(subject) == "R" else 1, 0, 0,
        process.exit_signal, 0, rt_priority, policy, 0, 0, 0,
        *_addresses(mm, "start_data", "end_data", "start_brk", "arg_start", "arg_end", "env_start", "env_end"),
        process.exit_status or 0,
    )  # fmt: skip
    pid = subject.tid if subject.of_thread else process.pid
    return f"{pid} ({command_name(subject)}) {' '.join(map(str, fields))}\n"


def _addresses(memory: Any, *names: str) -> list[int]:
    return [getattr(memory, name, 0) if memory is not None else 0 for name in names]


def _signals(subject: Subject) -> SignalSets:
    thread = subject.thread
    return SignalSets() if thread is None else subject.kernel.task_facts.signals(thread)


def render_statm(subject: Subject) -> str:
    """Renders /proc/PID/statm, in pages."""
    memory = MemoryFacts(subject.memory)
    pages = [size // 4096 for size in (memory.total, memory.resident, memory.shared, memory.text)]
    return f"{' '.join(map(str, pages))} 0 {(memory.data + memory.stack) // 4096} 0\n"


def render_status(subject: Subject) -> str:
    """Renders /proc/PID/status."""
    thread = subject.thread
    if thread is None and not subject.exists:
        subject.live()
    lines = _identity_lines(subject, thread)
    if thread is not None:
        lines += _memory_lines(MemoryFacts(thread.memory))
    lines += [("CoreDumping", "0"), ("THP_enabled", "1"), ("Threads", str(max(1, len(subject.process.threads))))]
    lines += _signal_lines(subject)
    if thread is not None:
        lines += _privilege_lines(thread)
    lines += _placement_lines(subject, thread)
    return "".join(f"{name}:\t{value}\n" for name, value in lines)


def _identity_lines(subject: Subject, thread: Any | None) -> list[tuple[str, str]]:
    process = subject.process
    pid = subject.tid if subject.of_thread else process.pid
    letter = state_of(subject)
    lines = [("Name", escape_name(command_name(subject)))]
    if thread is not None:
        lines.append(("Umask", f"{thread.fs.umask:04o}"))
    tracer = getattr(thread, "tracer", None)
    lines += [
        ("State", f"{letter} ({STATE_NAMES[letter]})"), ("Tgid", str(process.pid)), ("Ngid", "0"), ("Pid", str(pid)),
        ("PPid", str(process.parent.pid if process.parent else 0)),
        ("TracerPid", str(tracer.tid if tracer is not None else 0)),
    ]  # fmt: skip
    c = subject.credentials
    if c is not None:
        lines += [
            ("Uid", f"{c.ruid}\t{c.euid}\t{c.suid}\t{c.fsuid}"), ("Gid", f"{c.rgid}\t{c.egid}\t{c.sgid}\t{c.fsgid}"),
        ]  # fmt: skip
    groups = "".join(f"{gid} " for gid in c.groups) if c is not None else ""
    lines += [
        ("FDSize", str(_table_size(thread) if thread is not None else 0)), ("Groups", groups or " "),
        ("NStgid", str(process.pid)), ("NSpid", str(pid)), ("NSpgid", str(process.group.pgid)),
        ("NSsid", str(process.session.sid)), ("Kthread", "0"),
    ]  # fmt: skip
    return lines


def _table_size(thread: Any) -> int:
    highest = max(thread.fds.files, default=0)
    size = 64
    while size <= highest:
        size *= 2
    return size


def _memory_lines(memory: MemoryFacts) -> list[tuple[str, str]]:
    sizes = (
        ("VmPeak", memory.peak_total), ("VmSize", memory.total), ("VmLck", memory.locked), ("VmPin", 0),
        ("VmHWM", memory.peak_resident), ("VmRSS", memory.resident), ("RssAnon", memory.resident - memory.shared),
        ("RssFile", memory.shared), ("RssShmem", 0), ("VmData", memory.data), ("VmStk", memory.stack),
        ("VmExe", memory.text), ("VmLib", memory.library), ("VmPTE", 4096 * (8 + memory.resident // (2 << 20))),
        ("VmSwap", 0), ("HugetlbPages", 0),
    )  # fmt: skip
    return [(name, f"{kib(max(0, size)):8d} kB") for name, size in sizes]


def _signal_lines(subject: Subject) -> list[tuple[str, str]]:
    signals = _signals(subject)
    masks = (
        ("SigPnd", signals.pending), ("ShdPnd", signals.shared_pending), ("SigBlk", signals.blocked),
        ("SigIgn", signals.ignored), ("SigCgt", signals.caught),
    )  # fmt: skip
    limit = limit_rows(subject)[11][0]
    return [("SigQ", f"{signals.queued}/{limit}"), *((name, f"{mask:016x}") for name, mask in masks)]


def _privilege_lines(thread: Any) -> list[tuple[str, str]]:
    c = thread.credentials
    seccomp = getattr(thread, "seccomp", None)
    filters = len(getattr(seccomp, "filters", ())) if seccomp is not None else 0
    return [
        ("CapInh", f"{c.inheritable:016x}"), ("CapPrm", f"{c.permitted:016x}"), ("CapEff", f"{c.effective:016x}"),
        ("CapBnd", f"{c.bounding:016x}"), ("CapAmb", f"{c.ambient:016x}"), ("NoNewPrivs", str(int(c.no_new_privs))),
        ("Seccomp", "2" if seccomp else "0"), ("Seccomp_filters", str(filters)),
        ("Speculation_Store_Bypass", "vulnerable"), ("SpeculationIndirectBranch", "always enabled"),
    ]  # fmt: skip


def allowed_cpus(subject: Subject, thread: Any | None) -> list[int]:
    """Gives the processors a thread may run on."""
    everywhere = list(range(subject.kernel.host_facts.cpu_count))
    scheduling = getattr(thread, "scheduling", None)
    affinity = scheduling.affinity if scheduling is not None else None
    return everywhere if affinity is None else sorted(affinity)


def _placement_lines(subject: Subject, thread: Any | None) -> list[tuple[str, str]]:
    cpus = allowed_cpus(subject, thread)
    return [
        ("Cpus_allowed", format_mask(sum(1 << cpu for cpu in cpus))), ("Cpus_allowed_list", format_list(cpus)),
        ("Mems_allowed", "00000000,00000001"), ("Mems_allowed_list", "0"),
        ("voluntary_ctxt_switches", str(getattr(thread, "voluntary_switches", 0))),
        ("nonvoluntary_ctxt_switches", str(getattr(thread, "involuntary_switches", 0))),
    ]  # fmt: skip


_LIMIT_NAMES = (
    ("Max cpu time", "seconds"), ("Max file size", "bytes"), ("Max data size", "bytes"), ("Max stack size", "bytes"),
    ("Max core file size", "bytes"), ("Max resident set", "bytes"), ("Max processes", "processes"),
    ("Max open files", "files"), ("Max locked memory", "bytes"), ("Max address space", "bytes"),
    ("Max file locks", "locks"), ("Max pending signals", "signals"), ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""), ("Max realtime priority", ""), ("Max realtime timeout", "us"),
)  # fmt: skip


def limit_rows(subject: Subject) -> list[tuple[int, int]]:
    """Gives soft and hard limits by RLIMIT number."""
    limits = getattr(subject.process, "limits", None)
    if limits is None:
        return [(RLIM_INFINITY, RLIM_INFINITY)] * len(_LIMIT_NAMES)
    return [limits.get(number) for number in range(len(_LIMIT_NAMES))]


def render_limits(subject: Subject) -> str:
    """Renders /proc/PID/limits."""
    lines = [f"{'Limit':<25} {'Soft Limit':<20} {'Hard Limit':<20} {'Units':<10}\n"]
    for (name, unit), values in zip(_LIMIT_NAMES, limit_rows(subject), strict=True):
        soft, hard = ("unlimited" if value >= RLIM_INFINITY else str(value) for value in values)
        lines.append(f"{name:<25} {soft:<20} {hard:<20} {unit and f'{unit:<10}'}\n")
    return "".join(lines)


def render_schedstat(subject: Subject) -> str:
    """Renders /proc/PID/schedstat: time run, time waited, slices."""
    cpu = cpu_of(subject)
    return f"{cpu.user_ns + cpu.system_ns} 0 {getattr(subject.thread, 'voluntary_switches', 0)}\n"


def render_sched(subject: Subject) -> str:
    """Renders /proc/PID/sched, the lines tools look for."""
    cpu = cpu_of(subject)
    pid = subject.tid if subject.of_thread else subject.process.pid
    head = f"{command_name(subject)} ({pid}, #threads: {max(1, len(subject.process.threads))})\n"
    scheduling = getattr(subject.thread, "scheduling", None)
    policy = scheduling.policy if scheduling is not None else 0
    nice = scheduling.nice if scheduling is not None else 0
    rows: list[tuple[str, object]] = [
        ("se.sum_exec_runtime", f"{(cpu.user_ns + cpu.system_ns) / 1e6:.6f}"), ("se.nr_migrations", 0),
        ("nr_switches", 0), ("nr_voluntary_switches", 0), ("nr_involuntary_switches", 0),
        ("se.load.weight", 1048576), ("policy", policy), ("prio", 120 + nice),
    ]  # fmt: skip
    return head + "-" * 67 + "\n" + "".join(f"{name:<45}:{value:>21}\n" for name, value in rows)


def render_io(subject: Subject) -> str:
    """Renders /proc/PID/io from the counts the process keeps, if it does."""
    counts = getattr(subject.process, "io_counts", None)
    names = ("rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes")
    return "".join(f"{name}: {getattr(counts, name, 0)}\n" for name in names)
