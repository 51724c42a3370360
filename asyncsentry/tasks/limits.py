"""Resource limits: one table per process, inherited by fork(2). See getrlimit(2).

Whoever uses a resource asks :meth:`Limits.soft`; NOFILE is also kept in step in the descriptor table,
which cannot see processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi import resource_h as abi
from asyncsentry.errnos import EAGAIN, EINVAL, EPERM
from asyncsentry.tasks.credentials import CAP_SYS_ADMIN, CAP_SYS_RESOURCE

if TYPE_CHECKING:
    from asyncsentry.tasks.credentials import Credentials
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread

NR_OPEN = 1 << 20
"""The hard ceiling of NOFILE, /proc/sys/fs/nr_open."""
THREADS_MAX = 32768
"""Guest threads in one sandbox, root's included, if the host has numbers for that many (``HostFacts.threads_max``)."""
PROCESSES_MAX = 2048
"""Guest processes in one sandbox, zombies included. Each costs a host process with page tables of its own, far more
than a thread: a fork bomb inside must not starve the host."""
SIGNALS_MAX = 32768
"""Signals one user may have queued, RLIMIT_SIGPENDING."""

_DEFAULTS = {
    abi.RLIMIT_STACK: (8 << 20, abi.RLIM_INFINITY),
    abi.RLIMIT_CORE: (0, abi.RLIM_INFINITY),
    abi.RLIMIT_NOFILE: (1024, NR_OPEN),  # a low soft limit, as systemd's: programs visit every number below it
    abi.RLIMIT_MEMLOCK: (8 << 20, 8 << 20),
    abi.RLIMIT_NPROC: (THREADS_MAX, THREADS_MAX),
    abi.RLIMIT_SIGPENDING: (SIGNALS_MAX, SIGNALS_MAX),
    abi.RLIMIT_MSGQUEUE: (819200, 819200),
    abi.RLIMIT_NICE: (0, 0),
    abi.RLIMIT_RTPRIO: (0, 0),
}


class Limits:
    """Soft and hard limits of one process."""

    __slots__ = ("_values",)

    def __init__(self, values: list[tuple[int, int]] | None = None) -> None:
        infinite = (abi.RLIM_INFINITY, abi.RLIM_INFINITY)
        self._values = values or [_DEFAULTS.get(resource, infinite) for resource in range(abi.RLIM_NLIMITS)]

    def copy(self) -> Limits:
        """Gives an independent copy, fork(2)."""
        return Limits(list(self._values))

    def soft(self, resource: int) -> int:
        """Gives the limit in force; ``RLIM_INFINITY`` for none."""
        return self._values[resource][0]

    def hard(self, resource: int) -> int:
        """Gives the ceiling of the soft limit."""
        return self._values[resource][1]

    def get(self, resource: int) -> tuple[int, int]:
        """Gives (soft, hard); EINVAL for a resource there is not."""
        if not 0 <= resource < abi.RLIM_NLIMITS:
            raise EINVAL(f"no resource {resource}")
        return self._values[resource]

    def set(self, resource: int, soft: int, hard: int) -> None:
        """Sets a limit with no questions asked (OCI configuration, and after the checks)."""
        self._values[resource] = (soft, hard)


def set_limit(process: Process, resource: int, soft: int, hard: int, credentials: Credentials) -> None:
    """Changes a limit on behalf of a guest: EINVAL and EPERM as setrlimit(2) says."""
    _, old_hard = process.limits.get(resource)
    if soft > hard:
        raise EINVAL("the soft limit is above the hard one")
    if resource == abi.RLIMIT_NOFILE and hard > process.kernel.sysctls.integer("fs.nr_open"):
        raise EPERM("more descriptors than nr_open")
    if hard > old_hard and not credentials.has(CAP_SYS_RESOURCE):
        raise EPERM("only CAP_SYS_RESOURCE raises a hard limit")
    process.limits.set(resource, soft, hard)
    if resource == abi.RLIMIT_CPU:
        process.timers.cpu_limit.update()
    if resource == abi.RLIMIT_NOFILE:
        for thread in process.threads.values():
            thread.fds.limit = soft


def check_process_count(thread: Thread, is_process: bool) -> None:
    """EAGAIN if one more thread or process would exceed RLIMIT_NPROC or what the sandbox can hold, fork(2)."""
    kernel, threads = thread.kernel, thread.kernel.threads
    most = min(THREADS_MAX, kernel.host_facts.threads_max, kernel.sysctls.integer("kernel.threads-max"))
    if len(threads) >= most:
        raise EAGAIN("too many threads in the sandbox")
    if is_process and len(kernel.processes) >= PROCESSES_MAX:
        raise EAGAIN("too many processes in the sandbox")
    credentials, limit = thread.credentials, thread.process.limits.soft(abi.RLIMIT_NPROC)
    if len(threads) < limit or credentials.ruid == 0:
        return
    if credentials.has(CAP_SYS_RESOURCE) or credentials.has(CAP_SYS_ADMIN):
        return
    if sum(other.credentials.ruid == credentials.ruid for other in threads.values()) >= limit:
        raise EAGAIN(f"user {credentials.ruid} has {limit} threads")
