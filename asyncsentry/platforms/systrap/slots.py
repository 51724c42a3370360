"""Slots: which piece of memory shared with guests is whose.

A chunk is one memfd with 64 slots. A guest process has a chunk of its own for every 64 threads; no process ever
maps another's. Chunks are reused once their process is gone for good.
"""

from __future__ import annotations

import os
from typing import Any

from asyncsentry import errnos
from asyncsentry.platforms._native import lib

CHUNKS_MAX = 2048
SLOTS_PER_CHUNK: int = lib.SLOTS_PER_CHUNK
SLOT_SIZE: int = lib.SLOT_SIZE
CHUNK_SIZE: int = lib.CHUNK_SIZE
SLOTS_BASE: int = lib.SLOTS_BASE
CHUNKS_PER_PROCESS = (lib.SLOTS_END - SLOTS_BASE) // CHUNK_SIZE


class Chunk:
    """64 slots: a memfd, mapped here and in one guest process."""

    __slots__ = ("fd", "first", "guest_base")

    def __init__(self, fd: int, first: int, guest_base: int) -> None:
        self.fd = fd
        self.first = first
        """Number of its first slot."""
        self.guest_base = guest_base


class ChunkPool:
    """All chunks of a sandbox."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._spare_fds: list[int] = []
        self._free_numbers = list(range(CHUNKS_MAX - 1, -1, -1))
        self._in_use: set[Chunk] = set()

    def acquire(self, index: int) -> Chunk:
        """Gives a chunk to be the ``index``-th of a process; EAGAIN when there are too many."""
        if not self._free_numbers or index >= CHUNKS_PER_PROCESS:
            raise errnos.EAGAIN("too many guest threads")
        if self._spare_fds:
            fd = self._spare_fds.pop()
        else:
            try:
                fd = os.memfd_create("asyncsentry-slots", os.MFD_CLOEXEC)
            except OSError as refusal:
                raise errnos.EAGAIN(f"no descriptor for more guest threads: {refusal.strerror}") from refusal
            os.ftruncate(fd, CHUNK_SIZE)
        chunk = Chunk(fd, self._free_numbers.pop() * SLOTS_PER_CHUNK, SLOTS_BASE + index * CHUNK_SIZE)
        error = lib.hub_attach_chunk(self._hub, fd, chunk.first, chunk.guest_base)
        if error:
            self._free_numbers.append(chunk.first // SLOTS_PER_CHUNK)
            os.close(fd)
            raise errnos.EAGAIN(f"cannot map a chunk of slots: error {-error}")
        self._in_use.add(chunk)
        return chunk

    def release(self, chunk: Chunk) -> None:
        """Takes a chunk back. Its process must be gone: whoever maps it can write it."""
        lib.hub_detach_chunk(self._hub, chunk.first)
        self._in_use.discard(chunk)
        self._free_numbers.append(chunk.first // SLOTS_PER_CHUNK)
        if len(self._spare_fds) < 8:
            self._spare_fds.append(chunk.fd)
        else:
            os.close(chunk.fd)

    def close(self) -> None:
        """Gives every descriptor and mapping back."""
        for chunk in list(self._in_use):
            self.release(chunk)
        for fd in self._spare_fds:
            os.close(fd)
        self._spare_fds.clear()
