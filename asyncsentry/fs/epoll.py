"""epoll(7): a set of files to wait for. See Linux's fs/eventpoll.c.

Every item has a waiter in its file's queue. When that is called the item joins the *ready* list, and whoever
waits for the epoll instance is woken; nothing else happens per event. What is really ready is found out
when somebody asks (:meth:`EpollFile.find_ready`): level-triggered items stay listed as long as their file
polls ready, edge-triggered ones leave after one report. An item lasts as long as its open file
description, not its descriptor, epoll(7) Q6.
"""

from __future__ import annotations

from collections.abc import Callable

from asyncsentry import errnos
from asyncsentry.abi.epoll_h import (
    EP_MAX_NESTS,
    EPOLL_EXCLUSIVE_OK_BITS,
    EPOLL_PRIVATE_BITS,
    EPOLLET,
    EPOLLEXCLUSIVE,
    EPOLLONESHOT,
)
from asyncsentry.abi.stat_h import S_IFDIR, S_IFREG
from asyncsentry.fs.anon import AnonFile
from asyncsentry.fs.file import O_RDWR, File
from asyncsentry.fs.inode import Inode
from asyncsentry.waiter import ALWAYS, READABLE, Waiter


class EpollItem:
    """One file in the set, under the descriptor it was added by."""

    __slots__ = ("data", "epoll", "events", "fd", "file", "view", "waiter")

    def __init__(self, epoll: EpollFile, fd: int, file: File, view: File, events: int, data: int) -> None:
        self.epoll = epoll
        self.fd = fd
        self.file = file
        self.view = view
        """The file as the thread that added it sees it."""
        self.events = events | ALWAYS
        self.data = data
        """What the guest wants to be told with each event."""
        self.waiter = Waiter(self._on_event, self.wanted, bool(events & EPOLLEXCLUSIVE))

    @property
    def wanted(self) -> int:
        """The poll bits to report; 0 while switched off (EPOLLONESHOT)."""
        return self.events & ~EPOLL_PRIVATE_BITS

    def set_events(self, events: int) -> None:
        """Changes what is wanted and how."""
        self.events = events | ALWAYS
        self.waiter.mask = self.wanted

    def switch_off(self) -> None:
        """Reports nothing more, not even errors, until it is modified."""
        self.events &= EPOLL_PRIVATE_BITS
        self.waiter.mask = 0

    def ready_events(self) -> int:
        """Gives the wanted events that hold now."""
        return self.view.poll() & self.wanted

    def _on_event(self, mask: int) -> bool:
        has_sleepers = bool(self.epoll.queue)
        self.epoll.mark_ready(self)
        return has_sleepers

    def attach(self) -> None:
        """Begins to watch the file."""
        if self.file.registrations is None:
            self.file.registrations = []
        self.file.registrations.append(self)
        self.view.queue.add(self.waiter)

    def detach(self) -> None:
        """Stops watching."""
        self.view.queue.remove(self.waiter)
        if self.file.registrations is not None and self in self.file.registrations:
            self.file.registrations.remove(self)

    def file_released(self) -> None:
        """Leaves the set together with the file."""
        self.epoll.forget(self)


_WAYS_MAX = (1000, 500, 100, 50, 10)
"""By how many epoll instances in a row; the first number means nothing, path_limits in Linux's fs/eventpoll.c."""


class EpollFile(AnonFile):
    """An epoll instance."""

    def __init__(self, inode: Inode) -> None:
        super().__init__(inode, O_RDWR)
        self.items: dict[tuple[int, File], EpollItem] = {}
        self._ready: dict[EpollItem, None] = {}
        """Items that may have something to report, oldest first."""

    def describe(self) -> str:
        """Gives ``anon_inode:[eventpoll]``."""
        return "anon_inode:[eventpoll]"

    def fdinfo(self) -> str:
        """Adds the set to ``/proc/self/fdinfo``."""
        rows: list[str] = []
        for item in self.items.values():
            inode = item.file.inode
            ino, dev = (inode.ino, inode.filesystem.device) if inode is not None else (0, 0)
            rows.append(f"tfd: {item.fd:8} events: {item.events:8x} data: {item.data:16x}  pos:{item.file.position} "
                        f"ino:{ino:x} sdev:{dev:x}\n")  # fmt: skip
        return "".join(rows)

    # The set -------------------------------------------------------------------------------------

    def add(self, fd: int, file: File, thread: object, events: int, data: int) -> None:
        """Adds a file: EEXIST, ELOOP, EPERM and EINVAL as epoll_ctl(2) says."""
        if events & EPOLLEXCLUSIVE and (isinstance(file, EpollFile) or events & ~EPOLL_EXCLUSIVE_OK_BITS):
            raise errnos.EINVAL("EPOLLEXCLUSIVE with what it does not go with")
        if (fd, file) in self.items:
            raise errnos.EEXIST(f"fd {fd} is in the set")
        if isinstance(file, EpollFile):
            self._check_nesting(file)
        item = EpollItem(self, fd, file, file.seen_by(thread), events, data)
        self.items[fd, file] = item
        item.attach()
        try:
            self._check_paths(file)
        except errnos.EINVAL:
            self.forget(item)
            raise
        if item.ready_events():
            self.mark_ready(item)

    def modify(self, fd: int, file: File, events: int, data: int) -> None:
        """Changes what is wanted of a file, switching it on again; ENOENT if it is not in the set."""
        item = self._find(fd, file)
        if (item.events | events) & EPOLLEXCLUSIVE:
            raise errnos.EINVAL("EPOLLEXCLUSIVE cannot be modified")
        item.data = data
        item.set_events(events)
        if item.ready_events():
            self.mark_ready(item)

    def remove(self, fd: int, file: File) -> None:
        """Takes a file out; ENOENT if it is not in."""
        self.forget(self._find(fd, file))

    def _find(self, fd: int, file: File) -> EpollItem:
        item = self.items.get((fd, file))
        if item is None:
            raise errnos.ENOENT(f"fd {fd} is not in the set")
        return item

    def forget(self, item: EpollItem) -> None:
        """Drops an item."""
        item.detach()
        self.items.pop((item.fd, item.file), None)
        self._ready.pop(item, None)

    def _check_nesting(self, inner: EpollFile) -> None:
        """ELOOP if ``inner`` leads back here, or if sets would be nested too deep."""
        below, above = _levels(inner, _inside), _levels(self, _outside)
        if any(self in level for level in below) or len(below) + len(above) - 1 > EP_MAX_NESTS:
            raise errnos.ELOOP("epoll instances nested in a circle or too deep")

    def _check_paths(self, file: File) -> None:
        """EINVAL if an event would have to be told in too many ways: they multiply with every level, Linux's limits."""
        if isinstance(file, EpollFile):
            leaves = {leaf for level in _levels(file, _inside) for epoll in level for leaf in _files(epoll)}
        elif self.registrations:
            leaves = {file}
        else:
            return  # the usual case: one way more that ends here, and there may be any number of those
        for leaf in leaves:
            ways: dict[File, int] = {leaf: 1}
            for depth in range(EP_MAX_NESTS + 1):
                ways, ended = _next_ways(ways)
                if depth and ended > _WAYS_MAX[depth]:
                    raise errnos.EINVAL("too many ways from a file to an epoll instance")

    # Readiness -----------------------------------------------------------------------------------

    def mark_ready(self, item: EpollItem) -> None:
        """Lists an item as perhaps ready and wakes whoever waits."""
        self._ready[item] = None
        self.queue.notify(READABLE)

    def find_ready(self, limit: int) -> list[tuple[EpollItem, int]]:
        """Gives up to ``limit`` items with the events that hold; tell :meth:`reported` of those that arrived."""
        found: list[tuple[EpollItem, int]] = []
        for item in tuple(self._ready):
            events = item.ready_events()
            if not events:
                del self._ready[item]
                continue
            found.append((item, events))
            if len(found) == limit:
                break
        return found

    def reported(self, found: list[tuple[EpollItem, int]]) -> None:
        """Notes that these reached the guest: level-triggered items go to the end of the line, others leave it."""
        for item, _ in found:
            del self._ready[item]
            if item.events & EPOLLONESHOT:
                item.switch_off()
            elif not item.events & EPOLLET:
                self._ready[item] = None

    def wake_next(self) -> None:
        """Lets one more waiter look, if there is perhaps more to report than the last one took."""
        if self._ready:
            self.queue.notify(READABLE)

    def poll(self) -> int:
        """Is readable while an item has something to report."""
        return READABLE if self.find_ready(1) else 0

    async def release(self) -> None:
        """Lets all files go."""
        for item in tuple(self.items.values()):
            self.forget(item)


def _inside(file: File) -> list[File]:
    return [inner for inner in _members(file) if isinstance(inner, EpollFile)]


def _outside(file: File) -> list[File]:
    return [item.epoll for item in file.registrations or () if isinstance(item, EpollItem)]


def _members(file: File) -> list[File]:
    return [item.file for item in file.items.values()] if isinstance(file, EpollFile) else []


def _files(file: File) -> list[File]:
    return [member for member in _members(file) if not isinstance(member, EpollFile)]


def _levels(start: File, step: Callable[[File], list[File]]) -> list[set[File]]:
    """Gives what is ``start``, one step away, two steps away and so on, as far as anybody may nest and one more."""
    levels = [{start}]
    while len(levels) <= EP_MAX_NESTS + 1:
        following = {found for file in levels[-1] for found in step(file)}
        if not following:
            break
        levels.append(following)
    return levels


def _next_ways(ways: dict[File, int]) -> tuple[dict[File, int], int]:
    """Goes one level up: in how many ways each instance is reached, and how many of them end there."""
    following: dict[File, int] = {}
    for file, count in ways.items():
        for epoll in _outside(file):
            following[epoll] = following.get(epoll, 0) + count
    return following, sum(count for epoll, count in following.items() if not epoll.registrations)


def check_pollable(file: File) -> None:
    """EPERM for files that epoll does not take: those that are always ready."""
    if not file.pollable or (file.inode is not None and file.inode.kind in (S_IFREG, S_IFDIR)):
        raise errnos.EPERM("the file cannot be polled")
