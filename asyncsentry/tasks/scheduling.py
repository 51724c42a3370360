"""What a guest asked of the scheduler. The host schedules; these values are kept and told back. See sched(7)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from asyncsentry.abi.sched_h import SCHED_NORMAL

DEFAULT_TIMER_SLACK_NS = 50_000


@dataclass(slots=True)
class Scheduling:
    """Scheduling attributes of one thread, inherited by clone(2)."""

    policy: int = SCHED_NORMAL
    priority: int = 0
    nice: int = 0
    reset_on_fork: bool = False
    runtime_ns: int = 0
    deadline_ns: int = 0
    period_ns: int = 0
    affinity: frozenset[int] | None = None
    """CPUs of sched_setaffinity(2); ``None`` for all there are."""
    io_priority: int = 0
    memory_policy: tuple[int, int] = (0, 0)
    """Mode and nodes of set_mempolicy(2)."""
    timer_slack_ns: int = DEFAULT_TIMER_SLACK_NS
    default_timer_slack_ns: int = DEFAULT_TIMER_SLACK_NS

    def inherit(self) -> Scheduling:
        """Gives what a new thread starts with."""
        child = replace(self, default_timer_slack_ns=self.timer_slack_ns)
        if self.reset_on_fork:
            child.policy, child.priority, child.nice, child.reset_on_fork = SCHED_NORMAL, 0, max(0, self.nice), False
        return child
