"""System V message queues: typed messages in order, msgget(2), msgop(2), msgctl(2). After ipc/msg.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asyncsentry.abi import ipc_h as abi
from asyncsentry.clock import CLOCK_REALTIME, NS_PER_SECOND, Clock
from asyncsentry.errnos import E2BIG, EIDRM, ENOMSG, WouldBlock
from asyncsentry.tasks.ipc import IpcObject, IpcTable
from asyncsentry.waiter import READABLE, WRITABLE, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.sysctl import Sysctls
    from asyncsentry.tasks.credentials import Credentials

_LONG_MAX = (1 << 63) - 1


class Message(NamedTuple):
    """One message."""

    type: int
    text: bytes


class MessageQueue(IpcObject):
    """One queue."""

    def __init__(self, table: MessageTable, key: int, mode: int, creator: Credentials) -> None:
        super().__init__(key, mode, creator)
        self.table = table
        self.messages: list[Message] = []
        self.byte_count = 0
        self.bytes_max = table.sysctls.integer("kernel.msgmnb")
        self.send_time = self.receive_time = 0
        self.change_time = table.now()
        self.last_sender = self.last_receiver = 0
        self.queue = WaitQueue()
        """Notified READABLE when a message came, WRITABLE when there is room, both when the queue is gone."""

    def try_send(self, message: Message, pid: int) -> None:
        """Appends a message; WouldBlock while it does not fit."""
        self._check_alive()
        size = len(message.text)
        if self.byte_count + size > self.bytes_max or len(self.messages) + 1 > self.bytes_max:
            raise WouldBlock
        self.messages.append(message)
        self.byte_count += size
        self.last_sender = pid
        self.send_time = self.table.now()
        self.queue.notify(READABLE)

    def try_receive(self, kind: int, size: int, flags: int, pid: int) -> Message:
        """Takes the first message that fits the type; WouldBlock while there is none."""
        self._check_alive()
        index = self._find(kind, flags)
        if index is None:
            raise WouldBlock
        message = self.messages[index]
        if len(message.text) > size and not flags & abi.MSG_NOERROR:
            raise E2BIG(f"message of {len(message.text)} bytes")
        del self.messages[index]
        self.byte_count -= len(message.text)
        self.last_receiver = pid
        self.receive_time = self.table.now()
        self.queue.notify(WRITABLE)
        return message

    def copy(self, index: int, size: int, flags: int) -> Message:
        """Gives the message at a place without taking it, MSG_COPY."""
        self._check_alive()
        if not 0 <= index < len(self.messages):
            raise ENOMSG(f"no message {index}")
        message = self.messages[index]
        if len(message.text) > size and not flags & abi.MSG_NOERROR:
            raise E2BIG(f"message of {len(message.text)} bytes")
        return message

    def _find(self, kind: int, flags: int) -> int | None:
        if kind < 0:
            highest = min(-kind, _LONG_MAX)
            fitting = [(message.type, index) for index, message in enumerate(self.messages) if message.type <= highest]
            return min(fitting)[1] if fitting else None
        for index, message in enumerate(self.messages):
            if kind == 0 or (message.type == kind) != bool(flags & abi.MSG_EXCEPT):
                return index
        return None

    def _check_alive(self) -> None:
        if self.is_removed:
            raise EIDRM("the queue was removed")

    def pack(self) -> bytes:
        """Lays out ``struct msqid64_ds``."""
        return self.pack_permissions() + abi.MSQID_DS.pack(
            self.send_time, self.receive_time, self.change_time, self.byte_count, len(self.messages), self.bytes_max,
            self.last_sender, self.last_receiver, 0, 0,
        )  # fmt: skip


class MessageTable(IpcTable[MessageQueue]):
    """All queues of a sandbox."""

    def __init__(self, clock: Clock, sysctls: Sysctls) -> None:
        super().__init__(abi.MSGMNI)
        self._clock = clock
        self.sysctls = sysctls

    @property
    def limit(self) -> int:
        """How many there may be, kernel.msgmni."""
        return self.sysctls.integer("kernel.msgmni")

    def now(self) -> int:
        """Gives the time in seconds, as queues keep it."""
        return self._clock.now_ns(CLOCK_REALTIME) // NS_PER_SECOND

    def open(self, key: int, flags: int, credentials: Credentials) -> MessageQueue:
        """Finds or makes a queue, msgget(2)."""
        found = self.find_key(key, flags)
        if found is not None:
            found.check_access(credentials, (flags >> 6 | flags >> 3 | flags) & 7)
            return found
        self.check_room()
        made = MessageQueue(self, key, flags, credentials)
        self.add(made)
        return made

    def destroy(self, queue: MessageQueue) -> None:
        """Removes a queue with its messages, IPC_RMID; who waits is told EIDRM."""
        self.remove(queue)
        queue.messages.clear()
        queue.byte_count = 0
        queue.queue.notify(READABLE | WRITABLE)
