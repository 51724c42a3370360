"""The operations of prctl(2), each a function of the calling thread and four arguments (unsigned, 64 bits)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncsentry.abi import prctl_h as abi
from asyncsentry.abi import seccomp_h
from asyncsentry.abi.signal_h import NSIG
from asyncsentry.errnos import EFAULT, EINVAL, ENODEV, EPERM
from asyncsentry.tasks import capabilities, seccomp
from asyncsentry.tasks.ids import SECBIT_KEEP_CAPS, commit
from asyncsentry.tasks.prctl_memory import name_area, set_layout

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread

Operation = Callable[["Thread", int, int, int, int], int]
COMM_LENGTH = 15
"""Bytes of a command name, TASK_COMM_LEN less the NUL."""


def prctl(thread: Thread, operation: int, a: int, b: int, c: int, d: int) -> int:
    """Does one operation; EINVAL for one there is not."""
    function = OPERATIONS.get(operation)
    if function is None:
        raise EINVAL(f"no prctl operation {operation}")
    return function(thread, a, b, c, d)


def _must_be_zero(*arguments: int) -> None:
    if any(arguments):
        raise EINVAL("unused arguments must be 0")


def _set_parent_death_signal(thread: Thread, signo: int, b: int, c: int, d: int) -> int:
    if signo > NSIG:
        raise EINVAL(f"no signal {signo}")
    thread.parent_death_signal = signo
    return 0


def _get_parent_death_signal(thread: Thread, address: int, b: int, c: int, d: int) -> int:
    thread.memory.write_i32(address, thread.parent_death_signal)
    return 0


def _get_dumpable(thread: Thread, a: int, b: int, c: int, d: int) -> int:
    return thread.process.dumpable


def _set_dumpable(thread: Thread, value: int, b: int, c: int, d: int) -> int:
    if value not in (0, 1):
        raise EINVAL("dumpable or not")
    thread.process.dumpable = value
    return 0


def _get_keep_capabilities(thread: Thread, a: int, b: int, c: int, d: int) -> int:
    return int(bool(thread.credentials.securebits & SECBIT_KEEP_CAPS))


def _set_keep_capabilities(thread: Thread, value: int, b: int, c: int, d: int) -> int:
    if value not in (0, 1):
        raise EINVAL("keep or not")
    commit(thread, capabilities.set_keep_capabilities(thread.credentials, bool(value)))
    return 0


def _get_timing(thread: Thread, a: int, b: int, c: int, d: int) -> int:
    return 0  # PR_TIMING_STATISTICAL, the only kind there is


def _set_timing(thread: Thread, value: int, b: int, c: int, d: int) -> int:
    _must_be_zero(value)
    return 0


def _set_name(thread: Thread, address: int, b: int, c: int, d: int) -> int:
    data = thread.memory.read_some(address, COMM_LENGTH)
    if len(data) < COMM_LENGTH and b"\0" not in data:
        raise EFAULT("the name is cut off")
    thread.name = os.fsdecode(data.split(b"\0", 1)[0])
    return 0


def _get_name(thread: Thread, address: int, b: int, c: int, d: int) -> int:
    thread.memory.write(address, os.fsencode(thread.name)[:COMM_LENGTH].ljust(COMM_LENGTH + 1, b"\0"))
    return 0


def _read_bounding(thread: Thread, capability: int, b: int, c: int, d: int) -> int:
    return int(bool(thread.credentials.bounding & capabilities.capability_bit(capability)))


def _drop_bounding(thread: Thread, capability: int, b: int, c: int, d: int) -> int:
    commit(thread, capabilities.drop_bounding(thread.credentials, capability))
    return 0


def _get_tsc(thread: Thread, address: int, b: int, c: int, d: int) -> int:
    thread.memory.write_u32(address, abi.PR_TSC_ENABLE)
    return 0


def _set_tsc(thread: Thread, mode: int, b: int, c: int, d: int) -> int:
    if mode != abi.PR_TSC_ENABLE:
        raise EINVAL("the time stamp counter cannot be taken away")
    return 0


def _get_securebits(thread: Thread, a: int, b: int, c: int, d: int) -> int:
    return thread.credentials.securebits


def _set_securebits(thread: Thread, bits: int, b: int, c: int, d: int) -> int:
    commit(thread, capabilities.set_securebits(thread.credentials, bits))
    return 0


def _set_timer_slack(thread: Thread, slack_ns: int, b: int, c: int, d: int) -> int:
    scheduling = thread.scheduling
    is_positive = 0 < slack_ns < 1 << 63
    scheduling.timer_slack_ns = slack_ns if is_positive else scheduling.default_timer_slack_ns
    return 0


def _get_timer_slack(thread: Thread, a: int, b: int, c: int, d: int) -> int:
    return thread.scheduling.timer_slack_ns


def _accept(thread: Thread, a: int, b: int, c: int, d: int) -> int:
    return 0  # nothing to switch: there are no performance events


def _set_machine_check_policy(thread: Thread, mode: int, policy: int, c: int, d: int) -> int:
    _must_be_zero(c, d)
    if mode > 1 or policy > abi.PR_MCE_KILL_DEFAULT or (mode == 0 and policy):
        raise EINVAL("no such policy")
    return 0


def _get_machine_check_policy(thread: Thread, a: int, b: int, c: int, d: int) -> int:
    _must_be_zero(a, b, c, d)
    return abi.PR_MCE_KILL_DEFAULT


def _set_subreaper(thread: Thread, value: int, b: int, c: int, d: int) -> int:
    thread.process.is_subreaper = bool(value)
    return 0


def _get_subreaper(thread: Thread, address: int, b: int, c: int, d: int) -> int:
    thread.memory.write_i32(address, int(thread.process.is_subreaper))
    return 0


def _set_no_new_privs(thread: Thread, value: int, b: int, c: int, d: int) -> int:
    if value != 1:
        raise EINVAL("it can only be set")
    _must_be_zero(b, c, d)
    thread.credentials = thread.credentials.change(no_new_privs=True)
    return 0


def _get_no_new_privs(thread: Thread, a: int, b: int, c: int, d: int) -> int:
    _must_be_zero(a, b, c, d)
    return int(thread.credentials.no_new_privs)


def _get_tid_address(thread: Thread, address: int, b: int, c: int, d: int) -> int:
    thread.memory.write_u64(address, thread.clear_child_tid)
    return 0


def _set_thp_disable(thread: Thread, value: int, b: int, c: int, d: int) -> int:
    _must_be_zero(b, c, d)
    thread.process.thp_disabled = bool(value)
    return 0


def _get_thp_disable(thread: Thread, a: int, b: int, c: int, d: int) -> int:
    _must_be_zero(a, b, c, d)
    return int(thread.process.thp_disabled)


def _ambient(thread: Thread, action: int, capability: int, c: int, d: int) -> int:
    credentials = thread.credentials
    if action == abi.PR_CAP_AMBIENT_CLEAR_ALL:
        _must_be_zero(capability, c, d)
        thread.credentials = credentials.change(ambient=0)
        return 0
    _must_be_zero(c, d)
    bit = capabilities.capability_bit(capability)
    if action == abi.PR_CAP_AMBIENT_IS_SET:
        return int(bool(credentials.ambient & bit))
    if action == abi.PR_CAP_AMBIENT_RAISE:
        thread.credentials = capabilities.raise_ambient(credentials, capability)
    elif action == abi.PR_CAP_AMBIENT_LOWER:
        thread.credentials = credentials.change(ambient=credentials.ambient & ~bit)
    else:
        raise EINVAL(f"no action {action} on ambient capabilities")
    return 0


def _get_speculation(thread: Thread, which: int, b: int, c: int, d: int) -> int:
    _must_be_zero(b, c, d)
    if which > 2:
        raise ENODEV("no such misfeature")
    return abi.PR_SPEC_NOT_AFFECTED


def _set_speculation(thread: Thread, which: int, value: int, c: int, d: int) -> int:
    _must_be_zero(c, d)
    raise (ENODEV if which > 2 else EPERM)("speculation is the host's affair")


def _get_mdwe(thread: Thread, a: int, b: int, c: int, d: int) -> int:
    _must_be_zero(a, b, c, d)
    return 0


def _get_auxv(thread: Thread, address: int, length: int, c: int, d: int) -> int:
    _must_be_zero(c, d)
    auxv = thread.memory.auxv.ljust(abi.AUXV_SIZE_MAX, b"\0")
    thread.memory.write(address, auxv[:length])
    return len(auxv)


def _set_ptracer(thread: Thread, pid: int, b: int, c: int, d: int) -> int:
    if pid not in (0, (1 << 64) - 1) and pid not in thread.kernel.processes:
        raise EINVAL(f"no process {pid}")
    return 0


def read_filter(thread: Thread, address: int) -> bytes:
    """Reads the instructions a ``struct sock_fprog`` points to; EINVAL for too few or too many."""
    count, instructions = thread.memory.read_struct(address, seccomp_h.SOCK_FPROG)
    if not 0 < count <= seccomp_h.BPF_MAXINSNS:
        raise EINVAL("no program, or too long")
    return thread.memory.read(instructions, count * seccomp_h.SOCK_FILTER.size)


def _get_seccomp(thread: Thread, a: int, b: int, c: int, d: int) -> int:
    return thread.seccomp.mode if thread.seccomp is not None else seccomp_h.SECCOMP_MODE_DISABLED


def _set_seccomp(thread: Thread, mode: int, address: int, c: int, d: int) -> int:
    if mode == seccomp_h.SECCOMP_MODE_STRICT:
        seccomp.set_strict(thread)
        return 0
    if mode == seccomp_h.SECCOMP_MODE_FILTER:
        return seccomp.add_filter(thread, read_filter(thread, address))
    raise EINVAL(f"no mode {mode}")


def _set_layout(thread: Thread, field: int, value: int, size: int, d: int) -> int:
    _must_be_zero(d)
    return set_layout(thread, field, value, size)


OPERATIONS: dict[int, Operation] = {
    abi.PR_SET_PDEATHSIG: _set_parent_death_signal, abi.PR_GET_PDEATHSIG: _get_parent_death_signal,
    abi.PR_GET_DUMPABLE: _get_dumpable, abi.PR_SET_DUMPABLE: _set_dumpable,
    abi.PR_GET_KEEPCAPS: _get_keep_capabilities, abi.PR_SET_KEEPCAPS: _set_keep_capabilities,
    abi.PR_GET_TIMING: _get_timing, abi.PR_SET_TIMING: _set_timing,
    abi.PR_SET_NAME: _set_name, abi.PR_GET_NAME: _get_name,
    abi.PR_GET_SECCOMP: _get_seccomp, abi.PR_SET_SECCOMP: _set_seccomp,
    abi.PR_CAPBSET_READ: _read_bounding, abi.PR_CAPBSET_DROP: _drop_bounding,
    abi.PR_GET_TSC: _get_tsc, abi.PR_SET_TSC: _set_tsc,
    abi.PR_GET_SECUREBITS: _get_securebits, abi.PR_SET_SECUREBITS: _set_securebits,
    abi.PR_SET_TIMERSLACK: _set_timer_slack, abi.PR_GET_TIMERSLACK: _get_timer_slack,
    abi.PR_TASK_PERF_EVENTS_DISABLE: _accept, abi.PR_TASK_PERF_EVENTS_ENABLE: _accept,
    abi.PR_MCE_KILL: _set_machine_check_policy, abi.PR_MCE_KILL_GET: _get_machine_check_policy,
    abi.PR_SET_CHILD_SUBREAPER: _set_subreaper, abi.PR_GET_CHILD_SUBREAPER: _get_subreaper,
    abi.PR_SET_NO_NEW_PRIVS: _set_no_new_privs, abi.PR_GET_NO_NEW_PRIVS: _get_no_new_privs,
    abi.PR_GET_TID_ADDRESS: _get_tid_address,
    abi.PR_SET_THP_DISABLE: _set_thp_disable, abi.PR_GET_THP_DISABLE: _get_thp_disable,
    abi.PR_CAP_AMBIENT: _ambient,
    abi.PR_GET_SPECULATION_CTRL: _get_speculation, abi.PR_SET_SPECULATION_CTRL: _set_speculation,
    abi.PR_GET_MDWE: _get_mdwe, abi.PR_GET_AUXV: _get_auxv, abi.PR_SET_PTRACER: _set_ptracer,
    abi.PR_SET_MM: _set_layout, abi.PR_SET_VMA: name_area,
}  # fmt: skip
