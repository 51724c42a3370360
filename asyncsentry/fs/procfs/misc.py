"""Small files of /proc/PID: comm, oom_score_adj, cgroup, uid_map, timers and kin. See proc(5)."""

from __future__ import annotations

from typing import Any

from asyncsentry import errnos
from asyncsentry.abi.capability_h import CAP_SYS_RESOURCE
from asyncsentry.fs.procfs.base import Subject
from asyncsentry.fs.procfs.status import command_name

OOM_SCORE_ADJ_MIN, OOM_SCORE_ADJ_MAX = -1000, 1000
OOM_DISABLE, OOM_ADJUST_MAX = -17, 15
NAME_MAX = 15
UINT_MAX = (1 << 32) - 1
DEFAULT_COREDUMP_FILTER = 0x33


def render_comm(subject: Subject) -> str:
    """Renders /proc/PID/comm."""
    return f"{command_name(subject)}\n"


def store_comm(subject: Subject, data: bytes, writer: Any) -> None:
    """Renames a thread; only threads of the same process may."""
    thread = subject.live()
    if writer is not None and writer.process is not subject.process:
        raise errnos.EINVAL("only threads of the process may rename it")
    text = data.split(b"\0", 1)[0].removesuffix(b"\n")[:NAME_MAX]
    thread.name = text.decode("utf-8", "surrogateescape")


def parse_integer(data: bytes) -> int:
    """Gives the integer that was written; EINVAL if it is none."""
    try:
        return int(data.strip(b" \t\n\0"), 0)
    except ValueError:
        raise errnos.EINVAL("not an integer") from None


def score_adjustment(subject: Subject) -> int:
    """Gives oom_score_adj."""
    return int(getattr(subject.process, "oom_score_adj", 0))


def render_oom_score_adj(subject: Subject) -> str:
    """Renders /proc/PID/oom_score_adj."""
    return f"{score_adjustment(subject)}\n"


def store_oom_score_adj(subject: Subject, data: bytes, writer: Any) -> None:
    """Sets the adjustment; lowering it below its lowest so far needs CAP_SYS_RESOURCE."""
    value = parse_integer(data)
    if not OOM_SCORE_ADJ_MIN <= value <= OOM_SCORE_ADJ_MAX:
        raise errnos.EINVAL(f"{value} is not in -1000..1000")
    lowest = int(getattr(subject.process, "oom_score_adj_min", 0))
    privileged = writer is None or writer.credentials.has(CAP_SYS_RESOURCE)
    if value < lowest and not privileged:
        raise errnos.EACCES("lowering oom_score_adj needs CAP_SYS_RESOURCE")
    subject.process.oom_score_adj = value
    if privileged:
        subject.process.oom_score_adj_min = value


def render_oom_adj(subject: Subject) -> str:
    """Renders the old scale, -17 to 15."""
    value = score_adjustment(subject)
    return f"{OOM_ADJUST_MAX if value == OOM_SCORE_ADJ_MAX else int(value * -OOM_DISABLE / OOM_SCORE_ADJ_MAX)}\n"


def store_oom_adj(subject: Subject, data: bytes, writer: Any) -> None:
    """Sets the adjustment on the old scale."""
    value = parse_integer(data)
    if not OOM_DISABLE <= value <= OOM_ADJUST_MAX:
        raise errnos.EINVAL(f"{value} is not in -17..15")
    scaled = OOM_SCORE_ADJ_MAX if value == OOM_ADJUST_MAX else int(value * OOM_SCORE_ADJ_MAX / -OOM_DISABLE)
    store_oom_score_adj(subject, str(scaled).encode(), writer)


def render_oom_score(subject: Subject) -> str:
    """Renders how likely the process is to be killed when memory is short."""
    return f"{max(0, 666 + score_adjustment(subject) * 2 // 3)}\n"


def render_cgroup(subject: Subject) -> str:
    """Renders the one hierarchy there is."""
    return f"0::{getattr(subject.process, 'cgroup_path', '/')}\n"


def render_cpuset(subject: Subject) -> str:
    """Renders the cpuset of the process: the only one there is."""
    return "/\n"


def render_arch_status(subject: Subject) -> str:
    """Renders when AVX-512 was last used: not told."""
    return "AVX512_elapsed_ms:\t-1\n"


def render_id_map(subject: Subject) -> str:
    """Renders the identity map of the initial user namespace."""
    return f"{0:10d} {0:10d} {UINT_MAX:10d}\n"


def store_id_map(subject: Subject, data: bytes, writer: Any) -> None:
    """Refuses: the initial namespace's map is set already."""
    raise errnos.EPERM("the map is set already")


def render_setgroups(subject: Subject) -> str:
    """Renders /proc/PID/setgroups."""
    return "allow\n"


def render_loginuid(subject: Subject) -> str:
    """Renders the audit login ID: unset."""
    return str(getattr(subject.process, "loginuid", UINT_MAX))


def store_loginuid(subject: Subject, data: bytes, writer: Any) -> None:
    """Sets the audit login ID of the writer's own process."""
    if writer is not None and writer.process is not subject.process:
        raise errnos.EPERM("only the process itself may set its loginuid")
    value = parse_integer(data)
    if not 0 <= value <= UINT_MAX:
        raise errnos.EINVAL(f"{value} is no uid")
    subject.process.loginuid = value


def render_sessionid(subject: Subject) -> str:
    """Renders the audit session: unset."""
    return str(UINT_MAX)


def render_personality(subject: Subject) -> str:
    """Renders the personality bits."""
    return f"{getattr(subject.live(), 'personality', 0):08x}\n"


def render_syscall(subject: Subject) -> str:
    """Renders the call a thread is blocked in, with its arguments."""
    thread = subject.live()
    if not thread.is_blocked:
        return "running\n"
    context = thread.context
    registers = context.get_registers()
    arguments = " ".join(f"{argument:#x}" for argument in context.arguments)
    return f"{context.number} {arguments} {registers.rsp:#x} {registers.rip:#x}\n"


def render_wchan(subject: Subject) -> str:
    """Renders where the kernel waits: not told."""
    return "0"


def render_empty(subject: Subject) -> str:
    """Renders nothing (stack, timers of a process without any)."""
    return ""


def render_timers(subject: Subject) -> str:
    """Renders the POSIX timers of the process."""
    return str(getattr(subject.kernel.task_facts, "timers_text", lambda _: "")(subject.process))


def render_timer_slack(subject: Subject) -> str:
    """Renders /proc/PID/timerslack_ns."""
    scheduling = getattr(subject.live(), "scheduling", None)
    return f"{scheduling.timer_slack_ns if scheduling is not None else 50000}\n"


def store_timer_slack(subject: Subject, data: bytes, writer: Any) -> None:
    """Sets the slack; 0 goes back to the default."""
    value = parse_integer(data)
    scheduling = subject.live().scheduling
    scheduling.timer_slack_ns = value if value > 0 else scheduling.default_timer_slack_ns


def render_coredump_filter(subject: Subject) -> str:
    """Renders which mappings a core dump would hold."""
    return f"{getattr(subject.process, 'coredump_filter', DEFAULT_COREDUMP_FILTER):08x}\n"


def store_coredump_filter(subject: Subject, data: bytes, writer: Any) -> None:
    """Sets the filter."""
    subject.process.coredump_filter = parse_integer(data) & 0x1FF


def store_clear_refs(subject: Subject, data: bytes, writer: Any) -> None:
    """Accepts requests to forget which pages were used; nothing is tracked."""
    if not 1 <= parse_integer(data) <= 5:
        raise errnos.EINVAL("clear_refs takes 1 to 5")


def render_children(subject: Subject) -> str:
    """Renders the pids of the children a thread has made (or got from one that ended)."""
    children = subject.process.children
    return "".join(f"{child.pid} " for child in children if child.parent_tid in (0, subject.tid))


def render_autogroup(subject: Subject) -> str:
    """Renders the scheduling group of the session."""
    return f"/autogroup-{subject.process.session.sid} nice 0\n"


def render_timens_offsets(subject: Subject) -> str:
    """Renders the clock offsets of the initial time namespace."""
    return "monotonic           0         0\nboottime            0         0\n"


def render_attr(subject: Subject) -> str:
    """Renders the security label: there is no security module."""
    raise errnos.EINVAL("no security module")


def store_attr(subject: Subject, data: bytes, writer: Any) -> None:
    """Refuses labels."""
    raise errnos.EINVAL("no security module")
