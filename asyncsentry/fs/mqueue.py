"""POSIX message queues and the mqueue file system that shows them. See mq_overview(7).

A queue is an inode; messages leave it by priority, then by age. There is one file system per sandbox, reached
by the ``mq_*`` calls whether it is mounted or not. After ipc/mqueue.c.
"""

from __future__ import annotations

import heapq
import stat as stat_bits
from typing import TYPE_CHECKING, Protocol

from asyncsentry import errnos
from asyncsentry.abi import mqueue_h as abi
from asyncsentry.abi.capability_h import CAP_SYS_RESOURCE
from asyncsentry.clock import CLOCK_REALTIME
from asyncsentry.fs.directory import DirectoryFile
from asyncsentry.fs.file import File
from asyncsentry.fs.inode import AttributeChange, DirectoryEntry, FileSystem, Inode, Owner, Stat, StatFs
from asyncsentry.waiter import READABLE, WRITABLE, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.clock import Clock
    from asyncsentry.fs.dentry import Location

MQUEUE_MAGIC = 0x19800202
_STATUS_SIZE = 80


class Limits(Protocol):
    """Where the limits of a sandbox are kept: its sysctls."""

    def integer(self, name: str, /) -> int:
        """Gives a parameter, e.g. ``fs.mqueue.msg_max``."""


class Creator(Protocol):
    """The part of a thread's credentials asked for here."""

    def has(self, capability: int, /) -> bool:
        """Whether a capability is effective."""


class Subscriber(Protocol):
    """Who asked to be told of the next message, mq_notify(3)."""

    pid: int
    signo: int
    kind: int

    def tell(self, sender_pid: int, sender_uid: int) -> None:
        """Tells it."""


class QueueFileSystem(FileSystem):
    """All queues of a sandbox."""

    name = "mqueue"
    exclusive = False  # queues come and go through calls that do not walk paths

    def __init__(self, device: int, clock: Clock, limits: Limits) -> None:
        super().__init__(device)
        self.clock = clock
        self.limits = limits
        self.charged: dict[int, int] = {}
        """Bytes of queues by the user who made them, for RLIMIT_MSGQUEUE."""
        self._last_ino = 1
        self.directory = QueueDirectory(self)
        self.root = self.directory

    def statfs(self) -> StatFs:
        """Gives the magic number; there are no blocks to count."""
        return StatFs(MQUEUE_MAGIC)

    def new_ino(self) -> int:
        """Gives an inode number."""
        self._last_ino += 1
        return self._last_ino

    def now_ns(self) -> int:
        """Gives the time queues are stamped with."""
        return self.clock.now_ns(CLOCK_REALTIME)


class _QueueSystemInode(Inode):
    """What the directory and its queues share."""

    filesystem: QueueFileSystem

    def __init__(self, filesystem: QueueFileSystem, ino: int, mode: int, owner: Owner) -> None:
        super().__init__(filesystem, ino, mode, owner.uid, owner.gid)
        self._changed_ns = filesystem.now_ns()

    @property
    def size(self) -> int:
        """What st_size says."""
        return 0

    def stat(self) -> Stat:
        """Gives the attributes."""
        changed = self._changed_ns
        return Stat(self.filesystem.device, self.ino, self.mode, self.nlink, self.uid, self.gid, 0, self.size, 0, 4096,
                    changed, changed, changed, changed)

    async def set_attributes(self, change: AttributeChange) -> None:
        """Changes owner and permissions; sizes and times have no meaning."""
        if change.mode is not None:
            self.mode = stat_bits.S_IFMT(self.mode) | change.mode
        self.uid = self.uid if change.uid is None else change.uid
        self.gid = self.gid if change.gid is None else change.gid
        self._changed_ns = self.filesystem.now_ns()


class QueueDirectory(_QueueSystemInode):
    """The only directory: names of queues."""

    def __init__(self, filesystem: QueueFileSystem) -> None:
        super().__init__(filesystem, 1, stat_bits.S_IFDIR | 0o1777, Owner(0, 0))
        self.queues: dict[str, Queue] = {}

    async def lookup(self, name: str) -> Inode:
        """Finds a queue."""
        queue = self.queues.get(name)
        if queue is None:
            raise errnos.ENOENT(f"no queue {name!r}")
        return queue

    async def entries(self) -> list[DirectoryEntry]:
        """Lists the queues."""
        return [DirectoryEntry(name, queue.ino, stat_bits.S_IFREG >> 12) for name, queue in self.queues.items()]

    async def create(self, name: str, mode: int, owner: Owner) -> Inode:
        """Makes a queue of default size."""
        limits = self.filesystem.limits
        count = min(limits.integer("fs.mqueue.msg_default"), limits.integer("fs.mqueue.msg_max"))
        size = min(limits.integer("fs.mqueue.msgsize_default"), limits.integer("fs.mqueue.msgsize_max"))
        return self.add(name, mode, owner, count, size)

    def add(self, name: str, mode: int, owner: Owner, count_max: int, size_max: int) -> Queue:
        """Makes a queue of any size."""
        if name in self.queues:
            raise errnos.EEXIST(f"queue {name!r} exists")
        queue = self.queues[name] = Queue(self.filesystem, mode, owner, count_max, size_max)
        return queue

    async def unlink(self, name: str, victim: Inode) -> None:
        """Removes a name; the queue lives on while it is open."""
        queue = self.queues.pop(name, None)
        if queue is None:
            raise errnos.ENOENT(f"no queue {name!r}")
        queue.nlink = 0
        queue.settle_account()

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens the directory for listing."""
        return DirectoryFile(self, flags, location)


class Queue(_QueueSystemInode):
    """One queue."""

    def __init__(self, filesystem: QueueFileSystem, mode: int, owner: Owner, count_max: int, size_max: int) -> None:
        super().__init__(filesystem, filesystem.new_ino(), stat_bits.S_IFREG | mode & 0o777, owner)
        self.count_max = count_max
        self.size_max = size_max
        self.messages: list[tuple[int, int, bytes]] = []
        """A heap of (negated priority, number, text)."""
        self.byte_count = 0
        self.queue = WaitQueue()
        self.receivers = 0
        """Threads that wait for a message; while there are some, nobody is notified."""
        self.subscriber: Subscriber | None = None
        self.open_count = 0
        self._number = 0
        self._charged_uid = owner.uid
        self._charge = account_of(count_max, size_max)
        filesystem.charged[owner.uid] = filesystem.charged.get(owner.uid, 0) + self._charge

    @property
    def size(self) -> int:
        """Linux shows a constant."""
        return _STATUS_SIZE

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens the queue."""
        return QueueFile(self, flags, location)

    def settle_account(self) -> None:
        """Gives back what it counts for its user once nobody can reach it."""
        if self.nlink == 0 and self.open_count == 0:
            self.filesystem.charged[self._charged_uid] -= self._charge
            self._charge = 0

    def try_send(self, text: bytes, priority: int, sender_pid: int, sender_uid: int) -> None:
        """Puts a message in; WouldBlock while it is full. The first in an empty queue tells the subscriber."""
        if len(text) > self.size_max:
            raise errnos.EMSGSIZE(f"messages here have up to {self.size_max} bytes")
        if len(self.messages) >= self.count_max:
            raise errnos.WouldBlock
        self._number += 1
        heapq.heappush(self.messages, (-priority, self._number, text))
        self.byte_count += len(text)
        self.queue.notify(READABLE)
        if len(self.messages) == 1 and not self.receivers and self.subscriber is not None:
            subscriber, self.subscriber = self.subscriber, None
            subscriber.tell(sender_pid, sender_uid)

    def try_receive(self, room: int) -> tuple[bytes, int]:
        """Takes the oldest message of the highest priority; WouldBlock while there is none."""
        if room < self.size_max:
            raise errnos.EMSGSIZE(f"messages here have up to {self.size_max} bytes")
        if not self.messages:
            raise errnos.WouldBlock
        negated, _, text = heapq.heappop(self.messages)
        self.byte_count -= len(text)
        self.queue.notify(WRITABLE)
        return text, -negated


class QueueFile(File):
    """An open queue. Reading it tells its state; messages pass through the ``mq_*`` calls."""

    def __init__(self, queue: Queue, flags: int, location: Location | None = None) -> None:
        super().__init__(queue, flags, location)
        self.messages = queue
        self.queue = queue.queue
        queue.open_count += 1

    def poll(self) -> int:
        """Readable while there are messages, writable while there is room."""
        queue = self.messages
        return (READABLE if queue.messages else 0) | (WRITABLE if len(queue.messages) < queue.count_max else 0)

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Gives the line Linux shows."""
        queue, subscriber = self.messages, self.messages.subscriber
        kind, signo, pid = (subscriber.kind, subscriber.signo, subscriber.pid) if subscriber else (0, 0, 0)
        text = f"QSIZE:{queue.byte_count:<10d} NOTIFY:{kind:<5d} SIGNO:{signo:<5d} NOTIFY_PID:{pid:<6d}\n".encode()
        start = self.position if offset is None else offset
        piece = text[start : start + count]
        if offset is None:
            self.position += len(piece)
        return piece

    async def release(self) -> None:
        """Lets go of the queue."""
        self.messages.open_count -= 1
        self.messages.settle_account()


def account_of(count_max: int, size_max: int) -> int:
    """Gives the bytes RLIMIT_MSGQUEUE counts for a queue."""
    return count_max * (abi.MESSAGE_OVERHEAD + size_max)


def check_size(limits: Limits, creator: Creator, count_max: int, size_max: int) -> None:
    """EINVAL unless the creator may make a queue of that size."""
    if creator.has(CAP_SYS_RESOURCE):
        count_limit, size_limit = abi.HARD_MSGMAX, abi.HARD_MSGSIZEMAX
    else:
        count_limit, size_limit = limits.integer("fs.mqueue.msg_max"), limits.integer("fs.mqueue.msgsize_max")
    if not (1 <= count_max <= count_limit and 1 <= size_max <= size_limit):
        raise errnos.EINVAL(f"a queue of {count_max} messages of {size_max} bytes")
