"""Descriptors that name a process for as long as they are open: pidfd_open(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.errnos import EBADF
from asyncsentry.fs.file import O_RDWR, File
from asyncsentry.waiter import POLLHUP, READABLE

if TYPE_CHECKING:
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread


class PidFd(File):
    """A process as a file: readable once it has exited, hung up once it is reaped."""

    def __init__(self, process: Process, flags: int = 0) -> None:
        super().__init__(None, O_RDWR | flags)
        self.process = process
        self.queue = process.exit_queue

    def describe(self) -> str:
        """Gives the text of its link in /proc."""
        return "anon_inode:[pidfd]"

    def poll(self) -> int:
        """Gives POLLIN for a zombie, and POLLHUP too when it is gone."""
        if self.process.threads:
            return 0
        return READABLE if self.is_present else READABLE | POLLHUP

    @property
    def is_present(self) -> bool:
        """Whether the process still has its number: it lives or is a zombie."""
        return self.process.kernel.processes.get(self.process.pid) is self.process


def get_pidfd(thread: Thread, fd: int) -> PidFd:
    """Finds a pidfd among a thread's descriptors; EBADF if it is none."""
    file = thread.fds.get(fd)
    if not isinstance(file, PidFd):
        raise EBADF(f"fd {fd} is no pidfd")
    return file
