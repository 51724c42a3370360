"""inotify(7): queues of what happened to watched files. See Linux's fs/notify/inotify.

The virtual file system reports events through ``notify.py``, which finds :class:`InodeWatches` on the
inodes concerned. Only changes made through this sandbox are seen.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from asyncsentry import errnos
from asyncsentry.abi.inotify_h import (
    IN_ALL_EVENTS,
    IN_DELETE_SELF,
    IN_EXCL_UNLINK,
    IN_IGNORED,
    IN_ISDIR,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_NONBLOCK,
    IN_ONESHOT,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
    INOTIFY_EVENT,
    MAX_QUEUED_EVENTS,
    MAX_USER_INSTANCES,
    MAX_USER_WATCHES,
)
from asyncsentry.abi.ioctls_h import FIONREAD
from asyncsentry.fs.anon import AnonFile, store_int
from asyncsentry.fs.file import O_RDONLY
from asyncsentry.fs.inode import Inode
from asyncsentry.waiter import READABLE


class InotifyState:
    """How much a sandbox watches. One per kernel."""

    __slots__ = ("instances", "watches")

    def __init__(self) -> None:
        self.watches = 0
        """Watches of all instances: reads and writes look here before they report anything."""
        self.instances: Counter[int] = Counter()
        """Instances by the user that made them."""


class Event(NamedTuple):
    """One row of what a read gives."""

    wd: int
    mask: int
    cookie: int
    name: bytes

    def pack(self) -> bytes:
        """Lays it out; the name is padded with NULs to a multiple of the head's size."""
        length = -(-(len(self.name) + 1) // INOTIFY_EVENT.size) * INOTIFY_EVENT.size if self.name else 0
        head = INOTIFY_EVENT.pack(self.wd, self.mask, self.cookie, length)
        return head + self.name.ljust(length, b"\0")


class Watch:
    """One instance's interest in one inode."""

    __slots__ = ("file", "inode", "mask", "wd")

    def __init__(self, file: InotifyFile, wd: int, inode: Inode, mask: int) -> None:
        self.file = file
        self.wd = wd
        self.inode = inode
        self.mask = mask

    def report(self, mask: int, name: str, cookie: int, is_unlinked: bool) -> None:
        """Queues an event if it is wanted, and ends the watch if it was the last."""
        wanted = mask & self.mask & IN_ALL_EVENTS or mask & IN_UNMOUNT
        if wanted and not (is_unlinked and self.mask & IN_EXCL_UNLINK):
            self.file.queue_event(Event(self.wd, mask, cookie, name.encode("utf-8", "surrogateescape")))
            if self.mask & IN_ONESHOT:
                self.file.end_watch(self)
                return
        if mask & (IN_DELETE_SELF | IN_UNMOUNT):
            self.file.end_watch(self)


class InodeWatches:
    """All watches on one inode."""

    __slots__ = ("watches",)

    def __init__(self) -> None:
        self.watches: list[Watch] = []

    def notify(self, mask: int, name: str, cookie: int, is_unlinked: bool = False) -> None:
        """Tells every watch."""
        for watch in tuple(self.watches):
            watch.report(mask, name, cookie, is_unlinked)


class InotifyFile(AnonFile):
    """An inotify instance."""

    def __init__(self, inode: Inode, flags: int, state: InotifyState, uid: int) -> None:
        if state.instances[uid] >= MAX_USER_INSTANCES:
            raise errnos.EMFILE(f"user {uid} has {MAX_USER_INSTANCES} inotify instances")
        super().__init__(inode, O_RDONLY | flags & IN_NONBLOCK)
        state.instances[uid] += 1
        self._state = state
        self._uid = uid
        self._watches: dict[int, Watch] = {}
        self._events: deque[Event] = deque()
        self._last_wd = 0

    def describe(self) -> str:
        """Gives ``anon_inode:inotify``, as Linux spells it."""
        return "anon_inode:inotify"

    def fdinfo(self) -> str:
        """Adds the watches to ``/proc/self/fdinfo``."""
        return "".join(
            f"inotify wd:{watch.wd:x} ino:{watch.inode.ino:x} sdev:{watch.inode.filesystem.device:x} "
            f"mask:{watch.mask:x} ignored_mask:0\n"
            for watch in self._watches.values()
        )

    # Watches -------------------------------------------------------------------------------------

    def add_watch(self, inode: Inode, mask: int) -> int:
        """Watches an inode, or changes what is wanted of one that is watched already; gives the watch's number."""
        kept = mask & (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK)
        for watch in self._watches.values():
            if watch.inode is inode:
                if mask & IN_MASK_CREATE:
                    raise errnos.EEXIST("the file is watched")
                watch.mask = watch.mask | kept if mask & IN_MASK_ADD else kept
                return watch.wd
        if self._state.watches >= MAX_USER_WATCHES:
            raise errnos.ENOSPC(f"{MAX_USER_WATCHES} inotify watches")
        self._last_wd += 1
        watch = Watch(self, self._last_wd, inode, kept)
        self._watches[watch.wd] = watch
        self._state.watches += 1
        if not isinstance(inode.watches, InodeWatches):
            inode.watches = InodeWatches()
        inode.watches.watches.append(watch)
        return watch.wd

    def remove_watch(self, wd: int) -> None:
        """Ends a watch; EINVAL if there is none of that number."""
        watch = self._watches.get(wd)
        if watch is None:
            raise errnos.EINVAL(f"no watch {wd}")
        self.end_watch(watch)

    def end_watch(self, watch: Watch) -> None:
        """Ends a watch and says so with IN_IGNORED."""
        if self._detach(watch):
            self.queue_event(Event(watch.wd, IN_IGNORED, 0, b""))

    def _detach(self, watch: Watch) -> bool:
        if self._watches.pop(watch.wd, None) is None:
            return False
        self._state.watches -= 1
        on_inode = watch.inode.watches
        assert isinstance(on_inode, InodeWatches)
        on_inode.watches.remove(watch)
        if not on_inode.watches:
            watch.inode.watches = None
        return True

    # Events --------------------------------------------------------------------------------------

    def queue_event(self, event: Event) -> None:
        """Queues an event unless it repeats the last; past the limit the queue ends with IN_Q_OVERFLOW."""
        if self._events and self._events[-1] == event:
            return
        if len(self._events) >= MAX_QUEUED_EVENTS:
            if self._events[-1].mask == IN_Q_OVERFLOW:
                return
            event = Event(-1, IN_Q_OVERFLOW, 0, b"")
        self._events.append(event)
        self.queue.notify(READABLE)

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Takes as many whole events as fit; EINVAL if not even one does."""
        if not self._events:
            raise errnos.WouldBlock
        rows: list[bytes] = []
        while self._events:
            row = self._events[0].pack()
            if len(row) > count:
                break
            count -= len(row)
            rows.append(row)
            self._events.popleft()
        if not rows:
            raise errnos.EINVAL("no room for one event")
        return b"".join(rows)

    def unread(self, data: bytes) -> None:
        """Loses them, as Linux does."""

    def poll(self) -> int:
        """Is readable while there are events."""
        return READABLE if self._events else 0

    def ioctl(self, thread: object, request: int, argument: int) -> int:
        """Knows FIONREAD."""
        if request == FIONREAD:
            return store_int(thread, argument, sum(len(event.pack()) for event in self._events))
        raise errnos.ENOTTY(f"no ioctl {request:#x} on an inotify instance")

    async def release(self) -> None:
        """Ends all watches."""
        for watch in tuple(self._watches.values()):
            self._detach(watch)
        self._state.instances[self._uid] -= 1


def is_valid_mask(mask: int) -> bool:
    """Whether inotify_add_watch(2) takes these flags together."""
    return bool(mask & (IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED | IN_ISDIR | IN_ONESHOT)) and not (
        mask & IN_MASK_ADD and mask & IN_MASK_CREATE
    )
