"""Signal-driven I/O: F_SETOWN, F_SETSIG and O_ASYNC, fcntl(2). After Linux's fs/fcntl.c, ``send_sigio``.

A file that somebody owns keeps a :class:`FileOwner` in ``File.owner``. While O_ASYNC is set it waits in the
file's queue like any other waiter and turns each event into a signal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi.fcntl_h import F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID
from asyncsentry.abi.signal_h import SIGIO
from asyncsentry.errnos import EAGAIN
from asyncsentry.tasks.signals.send import send_to_process, send_to_thread
from asyncsentry.tasks.signals.siginfo import SigInfo
from asyncsentry.waiter import POLLERR, POLLHUP, POLLIN, POLLPRI, READABLE, WRITABLE, Waiter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncsentry.fs.file import File
    from asyncsentry.kernel import Kernel
    from asyncsentry.tasks.credentials import Credentials
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread

_EVENTS = READABLE | WRITABLE | POLLPRI | POLLERR | POLLHUP
POLL_IN, POLL_OUT, _POLL_MSG, POLL_ERR, POLL_PRI, POLL_HUP = range(1, 7)
_CODES = ((POLLIN, POLL_IN), (POLLHUP, POLL_HUP), (POLLERR, POLL_ERR), (POLLPRI, POLL_PRI))


class FileOwner:
    """Who is told of a file's events, with which signal, and by whose leave."""

    def __init__(self, kernel: Kernel, file: File, fd: int) -> None:
        self._kernel = kernel
        self._file = file
        self._waiter: Waiter | None = None
        self.fd = fd
        """The descriptor shown in ``si_fd``."""
        self.kind = F_OWNER_PID
        self.target = 0
        """Thread, process or group number; 0 for nobody."""
        self.signo = 0
        """What F_SETSIG chose; 0 for a plain SIGIO."""
        self.uid = self.euid = 0
        """Who set the owner: decides whom the signal may reach."""

    def set_target(self, kind: int, target: int, credentials: Credentials) -> None:
        """Sets whom to tell, F_SETOWN_EX."""
        self.kind, self.target = kind, target
        self.uid, self.euid = credentials.ruid, credentials.euid

    def listen(self, on: bool) -> None:
        """Follows O_ASYNC."""
        if on and self._waiter is None:
            self._waiter = Waiter(self._on_event, _EVENTS)
            self._file.queue.add(self._waiter)
        elif not on and self._waiter is not None:
            self._file.queue.remove(self._waiter)
            self._waiter = None

    def file_released(self) -> None:
        """Stops listening when the file goes."""
        self.listen(False)

    def _on_event(self, mask: int) -> None:
        code = next((code for bit, code in _CODES if mask & bit), POLL_OUT)
        signo = self.signo or SIGIO
        for thread in self._threads():
            if not self._may_signal(thread):
                continue
            info = SigInfo(signo, code, band=mask, fd=self.fd)
            try:
                if self.kind == F_OWNER_TID:
                    send_to_thread(thread, info)
                else:
                    send_to_process(thread.process, info)
            except EAGAIN:  # a full queue of real-time signals becomes a plain SIGIO, fcntl(2)
                send_to_process(thread.process, SigInfo(SIGIO, code, band=mask, fd=self.fd))

    def _threads(self) -> Iterator[Thread]:
        if self.kind == F_OWNER_TID:
            thread = self._kernel.threads.get(self.target)
            if thread is not None:
                yield thread
            return
        for process in self._processes():
            if process.threads:
                yield process.leader

    def _processes(self) -> list[Process]:
        if self.kind == F_OWNER_PGRP:
            return [process for process in self._kernel.processes.values() if process.group.pgid == self.target]
        process = self._kernel.processes.get(self.target)
        return [] if process is None else [process]

    def _may_signal(self, thread: Thread) -> bool:
        their = thread.credentials
        return self.euid == 0 or bool({self.euid, self.uid} & {their.suid, their.ruid})


def owner_of(kernel: Kernel, file: File, fd: int) -> FileOwner:
    """Gives a file's owner record, making an empty one at first use."""
    if not isinstance(file.owner, FileOwner):
        file.owner = owner = FileOwner(kernel, file, fd)
        if file.registrations is None:
            file.registrations = []
        file.registrations.append(owner)
    return file.owner
