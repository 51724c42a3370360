"""What /proc tells of guest tasks and file systems cannot work out: see ``fs/procfs/base.py`` ``TaskFacts``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.fs.procfs.base import CpuTimes, SignalSets
from asyncsentry.tasks.usage import Usage, process_usage, thread_usage

if TYPE_CHECKING:
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread


class GuestFacts:
    """Satisfies ``TaskFacts``; without state, one per kernel."""

    def process_cpu(self, process: Process) -> CpuTimes:
        """Time of all threads of a process, those that are gone included."""
        return _times(process_usage(process))

    def thread_cpu(self, thread: Thread) -> CpuTimes:
        """Time of one thread."""
        return _times(thread_usage(thread))

    def children_cpu(self, process: Process) -> CpuTimes:
        """Time of children it has reaped."""
        return _times(process.children_usage)

    def state(self, thread: Thread) -> str:
        """The state letter of /proc/PID/stat for a live thread."""
        if thread.is_stopped:
            return "T"
        return "S" if thread.is_blocked else "R"

    def timers_text(self, process: Process) -> str:
        """What /proc/PID/timers shows: the newest timer first."""
        return "".join(timer.describe() for timer in reversed(process.timers.posix.values()))

    def signals(self, thread: Thread) -> SignalSets:
        """Pending signals and dispositions."""
        state = thread.process.signals
        ignored, caught = state.actions.masks()
        queued = state.counts.by_uid.get(thread.credentials.ruid, 0)
        return SignalSets(thread.pending.mask, state.pending.mask, thread.signal_mask, ignored, caught, queued)


def _times(usage: Usage) -> CpuTimes:
    return CpuTimes(usage.user_ns, usage.system_ns)
