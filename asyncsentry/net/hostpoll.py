"""Readiness of host sockets: one edge-triggered host epoll, itself an ordinary reader of the event loop.

Edges are what a guest's epoll in EPOLLET mode must see, and level-triggered readers (``loop.add_reader`` on each
socket) would spin while a guest leaves data unread. A socket is watched from the first time someone waits
for it until it is closed; adding it reports at once what is ready by then, so no wake-up is lost, nor does an
edge-triggered waiter that looks for itself after joining hear of the same thing again later.
"""

from __future__ import annotations

import asyncio
import select
from typing import Protocol

from asyncsentry import errnos

_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLET
_BATCH = 256


class Watched(Protocol):
    """Something with a host descriptor that wants to hear of events on it."""

    def host_event(self, mask: int) -> None:
        """Tells of ``POLL*`` bits that came up."""


class HostPoller:
    """Watches host descriptors."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._users = 0
        self._watched: dict[int, Watched] = {}

    def join(self) -> None:
        """Counts a socket that may be watched. The first makes the host epoll: a wait could not say EMFILE."""
        if self._epoll is None:
            try:
                self._epoll = select.epoll()
            except OSError as error:
                raise errnos.from_host(error) from None
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._events_ready)
        self._users += 1

    def leave(self, fd: int) -> None:
        """Ends watching a descriptor, before it is closed, and counts its socket no more; the last ends the epoll."""
        assert self._epoll is not None
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        self._users -= 1
        if not self._users:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def watch(self, fd: int, watched: Watched) -> None:
        """Begins to watch a descriptor; a no-op if it is watched."""
        if fd in self._watched:
            return
        assert self._epoll is not None
        self._watched[fd] = watched
        self._epoll.register(fd, _EVENTS)
        self._events_ready()

    def _events_ready(self) -> None:
        if self._epoll is None:
            return
        for fd, mask in self._epoll.poll(0, _BATCH):
            watched = self._watched.get(fd)
            if watched is not None:
                watched.host_event(mask)
