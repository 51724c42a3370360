"""The host's end of guest pipes, in asyncio's own shapes: a StreamReader and a writer with ``drain``.

The other end is an ordinary pipe of the sandbox's kernel, so no host descriptor is involved and bytes move
only when a reader or writer of either side is there.
"""

from __future__ import annotations

import asyncio

from asyncsentry.errnos import EPIPE, LinuxError, WouldBlock
from asyncsentry.fs.fdtable import drop
from asyncsentry.fs.file import File
from asyncsentry.waiter import ALWAYS, READABLE, WRITABLE, Waiter

_CHUNK = 1 << 16


class _PipeSource(asyncio.ReadTransport):
    """Pulls a guest pipe's bytes into a StreamReader, and stops while that has enough."""

    def __init__(self, file: File, reader: asyncio.StreamReader) -> None:
        super().__init__()
        self._file = file
        self._reader = reader
        self._paused = False
        self._closed = False
        self._waiter = Waiter(self._on_ready, READABLE | ALWAYS)
        self._release: asyncio.Task[None] | None = None
        file.references += 1
        file.queue.add(self._waiter)
        reader.set_transport(self)

    def pause_reading(self) -> None:
        """Called by the StreamReader when its buffer is full."""
        self._paused = True

    def resume_reading(self) -> None:
        """Called by the StreamReader when it has room again."""
        self._paused = False
        self._on_ready(READABLE)

    def is_closing(self) -> bool:
        """Whether nothing more will come."""
        return self._closed

    def close(self) -> None:
        """Lets go of the guest's pipe: its writers get EPIPE."""
        if not self._closed:
            self._closed = True
            self._file.queue.remove(self._waiter)
            self._release = asyncio.get_running_loop().create_task(drop(self._file))
            self._reader.feed_eof()

    def _on_ready(self, mask: int) -> None:
        # Not at once: the queue is notified from inside the writing guest's step.
        asyncio.get_running_loop().call_soon(self._pull)

    def _pull(self) -> None:
        while not self._paused and not self._closed:
            try:
                data = self._file.try_read(_CHUNK)
            except WouldBlock:
                return
            if not data:
                self.close()
                return
            self._reader.feed_data(data)


def pipe_reader(file: File) -> asyncio.StreamReader:
    """Gives a StreamReader of everything written to the other end of a guest pipe."""
    reader = asyncio.StreamReader()
    source = _PipeSource(file, reader)
    source.resume_reading()
    return reader


class PipeWriter:
    """Writes to a guest pipe; what does not fit yet waits here."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._buffer = bytearray()
        self._closing = False
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drained: asyncio.Future[None] | None = None
        self._broken = False
        self._waiter = Waiter(self._on_ready, WRITABLE | ALWAYS)
        self._release: asyncio.Task[None] | None = None
        file.references += 1
        file.queue.add(self._waiter)

    def write(self, data: bytes) -> None:
        """Queues bytes for the guest; BrokenPipeError once it has closed its end."""
        if self._broken or self._closing:
            raise BrokenPipeError("the guest's end is closed")
        self._buffer += data
        self._push()

    async def drain(self) -> None:
        """Waits until the guest's pipe has taken everything."""
        if self._buffer and not self._broken:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        if self._broken:
            raise BrokenPipeError("the guest's end is closed")

    def close(self) -> None:
        """Ends the stream once everything is written."""
        self._closing = True
        self._push()

    def is_closing(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closing

    async def wait_closed(self) -> None:
        """Waits until the end of the stream has reached the guest."""
        await asyncio.shield(self._closed)

    def _on_ready(self, mask: int) -> None:
        asyncio.get_running_loop().call_soon(self._push)

    def _push(self) -> None:
        try:
            while self._buffer and not self._broken:
                done = self._file.try_write(bytes(self._buffer[:_CHUNK]))
                del self._buffer[:done]
        except WouldBlock:
            return
        except EPIPE:
            self._broken = True
        except LinuxError:
            self._broken = True
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if (self._closing or self._broken) and not self._closed.done():
            self._file.queue.remove(self._waiter)
            self._release = asyncio.get_running_loop().create_task(drop(self._file))
            self._closed.set_result(None)
