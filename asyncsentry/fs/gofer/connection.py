"""The sentry's end of a gofer: starts the process, sends requests and matches the answers.

A request is awaited by the guest thread that needs it; answers are found by id, so any number may be
under way. A gofer that dies or does not answer in time fails every request with a SentryBug: guests
never hang on it. Works on any asyncio event loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from asyncsentry import errnos
from asyncsentry.errnos import SentryBug
from asyncsentry.fs.gofer import protocol

_ANSWER_TIMEOUT_S = 60.0
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
# An empty package stands in for ours, whose __init__ is there for users of the library: up in 10 ms, not in 18.
_ENTRY = (
    "import sys; package = sys.modules['asyncsentry'] = type(sys)('asyncsentry'); "
    "package.__path__ = [sys.argv.pop(1)]; from asyncsentry.fs.gofer.server import main; main()"
)


class HostMount(NamedTuple):
    """A host path the gofer serves."""

    source: str
    read_only: bool = False
    host_sockets: bool = False
    """Whether guests may connect to host Unix sockets below it."""

    @property
    def argument(self) -> str:
        """The form the gofer's command line takes."""
        return f"{'ro' if self.read_only else 'rw'}{',uds' if self.host_sockets else ''}:{self.source}"


class Reply(NamedTuple):
    """A successful answer; the receiver owns the descriptor."""

    payload: bytes
    descriptor: int | None


class _Pending:
    """A request under way."""

    __slots__ = ("deadline", "descriptor", "future", "parts")

    def __init__(self, future: asyncio.Future[Reply], deadline: float) -> None:
        self.future = future
        self.deadline = deadline
        self.parts: list[bytes] = []
        self.descriptor: int | None = None


class Gofer:
    """A connection to a gofer. Make it inside a running event loop."""

    def __init__(self, connection: socket.socket, mounts: Sequence[HostMount],
                 process: subprocess.Popen[bytes] | None = None) -> None:
        self.mounts = tuple(mounts)
        """What it serves, by attach index."""
        self.answer_timeout_s = _ANSWER_TIMEOUT_S
        """How long a request may take before the gofer is given up."""
        self.trips = 0
        """Messages sent so far."""
        self._process = process
        self._connection = connection
        self._connection.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, _Pending] = {}
        self._next_id = 1
        self._unsent: deque[bytes] = deque()
        self._closing_handles: list[int] = []
        self._failure: str | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._connection.fileno(), self._on_readable)

    @classmethod
    def start(cls, mounts: Sequence[HostMount]) -> Gofer:
        """Starts a gofer process that serves ``mounts`` and dies with this one."""
        connection, process = spawn(mounts)
        return cls(connection, mounts, process)

    def time(self) -> float:
        """Gives the loop's time, in seconds."""
        return self._loop.time()

    @property
    def pid(self) -> int | None:
        """The host process, if this end started it."""
        return self._process.pid if self._process else None

    # Requests ------------------------------------------------------------------------------------

    async def call(self, operation: int, payload: bytes) -> Reply:
        """Performs one request; raises the errno the gofer answers."""
        return await self._register(((operation, payload),))[0]

    async def call_all(self, requests: Sequence[tuple[int, bytes]]) -> list[Reply | errnos.LinuxError]:
        """Performs several requests in one trip, in order; each gives its answer or its error."""
        answers = await asyncio.gather(*self._register(requests), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, errnos.LinuxError):
                raise answer
        return answers  # type: ignore[return-value]  # anything else has just been raised

    def close_later(self, handle: int) -> None:
        """Lets the gofer forget a node, with the next request that goes there. Safe in finalizers."""
        self._closing_handles.append(handle)

    def _register(self, requests: Sequence[tuple[int, bytes]]) -> list[asyncio.Future[Reply]]:
        if self._failure is not None:
            raise SentryBug(self._failure)
        wanted = len(requests)
        if self._closing_handles:
            handles, self._closing_handles = self._closing_handles[:4096], self._closing_handles[4096:]
            requests = [*requests, (protocol.CLOSE, b"".join(map(protocol.U32.pack, handles)))]
        deadline = self._loop.time() + self.answer_timeout_s
        futures, message = [], bytearray()
        for operation, payload in requests:
            request_id, self._next_id = self._next_id, self._next_id % 0xFFFF_FFFF + 1
            future: asyncio.Future[Reply] = self._loop.create_future()
            self._pending[request_id] = _Pending(future, deadline)
            futures.append(future)
            frame = protocol.pack_request(request_id, operation, payload)
            if message and len(message) + len(frame) > protocol.MAX_MESSAGE:
                self._send(bytes(message))
                message.clear()
            message += frame
        self._send(bytes(message))
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self.answer_timeout_s / 4, self._check_in_time)
        return futures[:wanted]

    def _send(self, message: bytes) -> None:
        self.trips += 1
        if self._unsent:
            self._unsent.append(message)
            return
        try:
            self._connection.send(message)
        except BlockingIOError:
            self._unsent.append(message)
            self._loop.add_writer(self._connection.fileno(), self._on_writable)
        except OSError as error:
            self._fail(_reason(error))

    def _on_writable(self) -> None:
        try:
            while self._unsent:
                self._connection.send(self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(_reason(error))
            return
        self._loop.remove_writer(self._connection.fileno())

    # Answers -------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        while self._failure is None:
            try:
                message, fds, flags, _ = socket.recv_fds(self._connection, protocol.MAX_MESSAGE,
                                                         protocol.MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(_reason(error))
                return
            if not message or flags & socket.MSG_TRUNC:
                _close_all(fds)
                self._fail("the gofer has gone" if not message else "the gofer's answer was cut off")
                return
            self._take_answers(message, deque(fds))

    def _take_answers(self, message: bytes, fds: deque[int]) -> None:
        try:
            for request_id, error, flags, payload in protocol.split_replies(message):
                descriptor = fds.popleft() if flags & protocol.HAS_DESCRIPTOR and fds else None
                if flags & protocol.HAS_DESCRIPTOR and descriptor is None:
                    error = errnos.ENFILE.errno  # we have none left, so the host kept it
                pending = self._pending.get(request_id)
                if pending is None:
                    _close_all([descriptor] if descriptor is not None else [])
                    continue
                pending.parts.append(payload)
                if descriptor is not None:
                    pending.descriptor = descriptor
                if not flags & protocol.MORE:
                    del self._pending[request_id]
                    _settle(pending, error)
        except protocol.Malformed as error:
            self._fail(f"the gofer's answer makes no sense: {error}")
        finally:
            _close_all(fds)

    def check_deadlines(self) -> None:
        """Fails all requests if one is overdue."""
        now = self._loop.time()
        if any(pending.deadline <= now for pending in self._pending.values()):
            self._fail(f"the gofer has not answered for {self.answer_timeout_s:g} s")

    def _check_in_time(self) -> None:
        self._watchdog = None
        self.check_deadlines()
        if self._pending:
            self._watchdog = self._loop.call_later(self.answer_timeout_s / 4, self._check_in_time)

    def _fail(self, reason: str) -> None:
        self._disconnect(reason)
        pending, self._pending = self._pending, {}
        for each in pending.values():
            if not each.future.done():
                each.future.set_exception(SentryBug(reason))
                each.future.exception()  # a batch may have been given up already: nobody asking is no error

    def _disconnect(self, reason: str) -> None:
        if self._failure is None:
            self._failure = reason
            self._loop.remove_reader(self._connection.fileno())
            self._loop.remove_writer(self._connection.fileno())
            self._connection.close()
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    async def close(self) -> None:
        """Hangs up, which ends the gofer, and waits until it has gone."""
        self._fail("the gofer is closed")
        process, self._process = self._process, None
        if process is not None:
            await _wait_exit(process)


def spawn(mounts: Sequence[HostMount]) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Starts a gofer process; gives our end of its socket. It has no terminal's signals and no environment."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * protocol.MAX_MESSAGE)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ENTRY, _PACKAGE_ROOT, str(theirs.fileno()), str(os.getpid()),
             *(mount.argument for mount in mounts)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0, cwd="/",
            env={},
        )  # fmt: skip
    return ours, process


def _reason(error: OSError) -> str:
    return "the gofer has gone" if isinstance(error, ConnectionError) else f"the gofer cannot be reached: {error}"


def _settle(pending: _Pending, error: int) -> None:
    future, descriptor = pending.future, pending.descriptor
    if future.done():  # the waiting task was cancelled: the sandbox is being torn down
        _close_all([descriptor] if descriptor is not None else [])
    elif error:
        _close_all([descriptor] if descriptor is not None else [])
        future.set_exception(errnos.BY_NUMBER.get(error, errnos.EIO)("the host says no"))
    else:
        payload = pending.parts[0] if len(pending.parts) == 1 else b"".join(pending.parts)
        future.set_result(Reply(payload, descriptor))


def _close_all(fds: Sequence[int] | deque[int]) -> None:
    for fd in fds:
        os.close(fd)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _wait_exit(process: subprocess.Popen[bytes]) -> None:
    """Waits for a child without a thread and without touching SIGCHLD, which the loop may own."""
    if process.poll() is not None:
        return
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    pidfd = os.pidfd_open(process.pid)
    try:
        loop.add_reader(pidfd, _finish, gone)
        try:
            await asyncio.wait_for(asyncio.shield(gone), 5)
        except TimeoutError:
            process.kill()
            await gone
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    process.wait()
