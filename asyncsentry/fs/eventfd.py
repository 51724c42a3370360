"""eventfd(2): a 64-bit counter to wait on. See Linux's fs/eventfd.c."""

from __future__ import annotations

from asyncsentry import errnos
from asyncsentry.abi.eventfd_h import EFD_MAX, EFD_NONBLOCK
from asyncsentry.fs.anon import AnonFile
from asyncsentry.fs.file import O_RDWR
from asyncsentry.fs.inode import Inode
from asyncsentry.waiter import POLLERR, READABLE, WRITABLE


class EventFile(AnonFile):
    """A counter: writes add to it, a read takes all of it, or 1 in semaphore mode."""

    takes_one_write = True

    def __init__(self, inode: Inode, value: int, flags: int, is_semaphore: bool) -> None:
        super().__init__(inode, O_RDWR | flags & EFD_NONBLOCK)
        self.value = value
        self.is_semaphore = is_semaphore

    def describe(self) -> str:
        """Gives ``anon_inode:[eventfd]``."""
        return "anon_inode:[eventfd]"

    def fdinfo(self) -> str:
        """Adds the counter to ``/proc/self/fdinfo``."""
        ino = self.inode.ino if self.inode else 0
        return f"eventfd-count: {self.value:16x}\neventfd-id: {ino}\neventfd-semaphore: {int(self.is_semaphore)}\n"

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Takes the counter, 8 bytes; EINVAL for a smaller buffer."""
        if count < 8:
            raise errnos.EINVAL("less than 8 bytes")
        if not self.value:
            raise errnos.WouldBlock
        taken = 1 if self.is_semaphore else self.value
        self.value -= taken
        self.queue.notify(WRITABLE)
        return taken.to_bytes(8, "little")

    def unread(self, data: bytes) -> None:
        """Loses it, as Linux does: the counter was taken before the copy."""

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Adds 8 bytes' worth; EINVAL for less, or for the value that means an error."""
        if len(data) < 8:
            raise errnos.EINVAL("less than 8 bytes")
        added = int.from_bytes(data[:8], "little")
        if added > EFD_MAX:
            raise errnos.EINVAL("value too large")
        if self.value + added > EFD_MAX:
            raise errnos.WouldBlock
        self.signal(added)
        return 8

    def signal(self, added: int = 1) -> None:
        """Adds to the counter on the kernel's own behalf, stopping at its overflow value (aio(7), eventfd_signal())."""
        self.value = min(self.value + added, EFD_MAX + 1)
        self.queue.notify(READABLE)

    def poll(self) -> int:
        """Is readable above zero and writable while 1 can be added."""
        events = READABLE if self.value else 0
        if self.value < EFD_MAX:
            events |= WRITABLE
        return events | POLLERR if self.value > EFD_MAX else events
