"""The library: a sandbox as an asynchronous context manager, and programs in it as in ``asyncio.subprocess``.

Several sandboxes may live in one Python process and one event loop. Leaving the block ends every guest
process and gives back every descriptor, host process and task.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from asyncsentry import errnos
from asyncsentry.abi.signal_h import SI_USER
from asyncsentry.boot import Configuration, Machine, Mounter, Volume, boot
from asyncsentry.clock import Clock, RandomSource
from asyncsentry.fs.fdtable import drop
from asyncsentry.fs.file import O_RDWR, File
from asyncsentry.fs.hoststream import HostStreamFile
from asyncsentry.fs.pipe import make_pipe
from asyncsentry.fs.tty.devpts import DevptsFileSystem
from asyncsentry.fs.tty.host_tty import HostTty
from asyncsentry.fs.vfs import open_location
from asyncsentry.streams import PipeWriter, pipe_reader
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.process import Process as GuestProcess
from asyncsentry.tasks.signals.send import send_to_group, send_to_process
from asyncsentry.tasks.signals.siginfo import SigInfo
from asyncsentry.tasks.spawn import DEFAULT_PATH, NoDirectory, Spawn, spawn
from asyncsentry.waiter import POLLIN, Waiter

if TYPE_CHECKING:
    from asyncsentry.fs.tty.tty import Tty
    from asyncsentry.kernel import Kernel

PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
DEVNULL = subprocess.DEVNULL
Stream = int | File | None
"""Where a standard stream goes: PIPE, DEVNULL, STDOUT, a host descriptor, a file of the sandbox, ``None``: ours."""

T = TypeVar("T")

DEFAULT_ENVIRONMENT = {"PATH": DEFAULT_PATH, "HOME": "/root", "LANG": "C.UTF-8"}


class SandboxError(Exception):
    """The sandbox has stopped because of a fault of its own."""


class Result(NamedTuple):
    """What a finished program left."""

    exit_code: int
    """Its exit status, or 128 + n if signal n ended it."""
    stdout: bytes
    stderr: bytes


class Process:
    """A program in a sandbox; shaped like :class:`asyncio.subprocess.Process`."""

    def __init__(self, sandbox: Sandbox, guest: GuestProcess, streams: _Streams) -> None:
        self._sandbox = sandbox
        self.guest = guest
        """The kernel's own object for it."""
        self.stdin = streams.stdin
        self.stdout = streams.stdout
        self.stderr = streams.stderr
        self._exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        guest.exit_queue.add(Waiter(self._on_exit, POLLIN))

    def _on_exit(self, mask: int) -> None:
        if not self._exited.done():
            self._exited.set_result(None)

    @property
    def pid(self) -> int:
        """Its number inside the sandbox."""
        return self.guest.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, ``-n`` if signal n ended it, ``None`` while it runs."""
        status = self.guest.exit_status
        if status is None or not self._exited.done():
            return None
        return -(status & 0x7F) if status & 0x7F else status >> 8

    @property
    def exit_code(self) -> int | None:
        """As a shell says it: 128 + n after signal n."""
        code = self.returncode
        return code if code is None or code >= 0 else 128 - code

    async def wait(self) -> int:
        """Waits for its end and gives :attr:`returncode`; SandboxError if the sandbox fails first."""
        await self._sandbox.unless_failed(self._exited)
        code = self.returncode
        assert code is not None
        return code

    async def communicate(self, input: bytes | None = None) -> tuple[bytes | None, bytes | None]:
        """Feeds ``input``, reads both outputs to their end, and waits."""
        outputs = asyncio.gather(self._feed(input), _read_all(self.stdout), _read_all(self.stderr))
        try:
            _, out, err = await self._sandbox.unless_failed(outputs)
        finally:
            outputs.cancel()  # a no-op once they have ended
        await self.wait()
        return out, err

    async def _feed(self, data: bytes | None) -> None:
        if self.stdin is None:
            return
        try:
            if data:
                self.stdin.write(data)
                await self.stdin.drain()
        except BrokenPipeError:
            pass
        self.stdin.close()

    def send_signal(self, signo: int) -> None:
        """Sends it a signal; ProcessLookupError once it has ended."""
        if self.guest.exit_status is not None:
            raise ProcessLookupError(f"process {self.pid} has ended")
        send_to_process(self.guest, _outside(signo))

    def signal_group(self, signo: int) -> None:
        """Sends a signal to its whole process group."""
        send_to_group(self.guest.group, _outside(signo))

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _outside(signo: int) -> SigInfo:
    return SigInfo(signo, SI_USER)


async def _read_all(reader: asyncio.StreamReader | None) -> bytes | None:
    return None if reader is None else await reader.read()


class _Streams:
    """The three standard streams of a program to be: the guest's files, and our ends of its pipes."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.files: dict[int, File] = {}
        self.stdin: PipeWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None

    async def connect(self, stdin: Stream, stdout: Stream, stderr: Stream) -> None:
        """Makes what the arguments ask for."""
        if stdin == PIPE:
            self.files[0], ours = make_pipe(self._kernel.allocate_inode())
            self.stdin = PipeWriter(ours)
        else:
            self.files[0] = await self._file(0, stdin)
        self.stdout = await self._output(1, stdout)
        self.stderr = await self._output(2, stderr)
        for file in self.files.values():
            file.references += 1

    async def _output(self, fd: int, stream: Stream) -> asyncio.StreamReader | None:
        if stream == PIPE:
            ours, self.files[fd] = make_pipe(self._kernel.allocate_inode())
            return pipe_reader(ours)
        self.files[fd] = self.files[1] if stream == STDOUT and fd == 2 else await self._file(fd, stream)
        return None

    async def _file(self, fd: int, stream: Stream) -> File:
        if isinstance(stream, File):
            return stream
        if stream == DEVNULL:
            return await open_location(Mounter(self._kernel), self._kernel.null_device, O_RDWR)
        return HostStreamFile(fd if stream is None else stream)

    async def let_go(self) -> None:
        """Drops our references to the guest's ends: the program has its own."""
        for file in self.files.values():
            await drop(file)


class Sandbox:
    """One application kernel and everything that runs in it."""

    def __init__(self, root: str = "/", network: str = "none", *, volumes: Iterable[Volume | str] = (),
                 hostname: str = "asyncsentry", platform: str = "systrap", overlay: str = "memory",
                 memory: int | None = None, clock: Clock | None = None, random: RandomSource | None = None) -> None:
        parsed = [Volume.parse(volume) if isinstance(volume, str) else volume for volume in volumes]
        self._configuration = Configuration(root, parsed, network, hostname, platform, overlay, memory, clock, random)
        self._machine: Machine | None = None

    @property
    def kernel(self) -> Kernel:
        """The live kernel, for tests and tools that look inside."""
        if self._machine is None:
            raise RuntimeError("the sandbox is not running: use it in an `async with` block")
        return self._machine.kernel

    async def __aenter__(self) -> Sandbox:
        self._machine = await boot(self._configuration)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        traceback: TracebackType | None) -> None:
        machine, self._machine = self._machine, None
        if machine is not None:
            await machine.shut_down()
            failure = machine.kernel.failure
            if failure.done() and error is None:
                raise SandboxError(str(failure.exception()))

    def host_terminal(self, descriptor: int) -> HostTty:
        """Makes a terminal of the sandbox that is joined to one of the host's, not started yet."""
        root = self.kernel.mounts.root_mount
        mount = next(mount for mount in root.subtree() if isinstance(mount.filesystem, DevptsFileSystem))
        assert isinstance(mount.filesystem, DevptsFileSystem)
        return HostTty(mount.filesystem, mount, descriptor)

    async def spawn(self, argv: Sequence[str], *, stdin: Stream = None, stdout: Stream = None, stderr: Stream = None,
                    env: Mapping[str, str] | None = None, cwd: str = "/", user: tuple[int, int] = (0, 0),
                    groups: Sequence[int] = (), terminal: Tty | None = None) -> Process:
        """Starts a program. FileNotFoundError and PermissionError say what a shell's 127 and 126 mean;
        NotADirectoryError that ``cwd`` is none.

        ``env`` replaces :data:`DEFAULT_ENVIRONMENT`; ``user`` is (uid, gid); ``terminal`` becomes the controlling
        terminal.
        """
        streams = _Streams(self.kernel)
        await streams.connect(stdin, stdout, stderr)
        credentials = Credentials.for_user(*user, tuple(groups))
        environment = DEFAULT_ENVIRONMENT if env is None else env
        try:
            guest = await spawn(self.kernel, Spawn(argv, environment, credentials, cwd, files=streams.files,
                                                   terminal=terminal))
        except NoDirectory as error:
            raise NotADirectoryError(errnos.ENOTDIR.errno, "no such working directory", cwd) from error
        except errnos.LinuxError as error:
            raise OSError(error.errno, os.strerror(error.errno), argv[0]) from error
        finally:
            await streams.let_go()
        return Process(self, guest, streams)

    async def run(self, argv: Sequence[str], *, input: bytes | None = None, env: Mapping[str, str] | None = None,
                  cwd: str = "/", user: tuple[int, int] = (0, 0), timeout: float | None = None) -> Result:  # noqa: ASYNC109 - subprocess.run's name
        """Runs a program to its end and gives what it left; TimeoutError (and its death) after ``timeout`` seconds."""
        process = await self.spawn(argv, stdin=DEVNULL if input is None else PIPE, stdout=PIPE, stderr=PIPE, env=env,
                                   cwd=cwd, user=user)
        try:
            async with asyncio.timeout(timeout):
                out, err = await process.communicate(input)
        except TimeoutError:
            with suppress(ProcessLookupError):  # it has ended, but something of it still holds its outputs
                process.kill()
            raise
        return Result(process.exit_code or 0, out or b"", err or b"")

    async def unless_failed(self, awaited: asyncio.Future[T]) -> T:
        """Awaits something, or raises SandboxError as soon as the kernel has failed."""
        failure = self.kernel.failure
        waiting: list[asyncio.Future[Any]] = [awaited, failure]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            awaited.cancel()
            await asyncio.gather(awaited, return_exceptions=True)
            raise SandboxError(str(failure.exception()))
        return await awaited
