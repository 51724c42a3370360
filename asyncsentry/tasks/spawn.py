"""Starting a program from outside the sandbox: a new process in a session of its own, with no guest parent."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from asyncsentry.abi.fcntl_h import AT_FDCWD
from asyncsentry.abi.resource_h import RLIMIT_NOFILE, RLIMIT_STACK
from asyncsentry.errnos import EACCES, ENOENT, LinuxError
from asyncsentry.fs.fdtable import FdTable
from asyncsentry.fs.path import resolve
from asyncsentry.fs.vfs import open_executable
from asyncsentry.tasks.fscontext import FsContext
from asyncsentry.tasks.limits import Limits
from asyncsentry.tasks.loader import Start, load_program
from asyncsentry.tasks.process import Process, ProcessGroup, Session
from asyncsentry.tasks.run import start
from asyncsentry.tasks.thread import Thread
from asyncsentry.tasks.usage import open_account

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.file import File
    from asyncsentry.fs.tty.tty import Tty
    from asyncsentry.kernel import Kernel
    from asyncsentry.tasks.credentials import Credentials

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Terminal(Protocol):
    """What starting a session asks of its terminal (``fs/tty/tty.py`` ``Tty``)."""

    def attach(self, session: Session, group: ProcessGroup) -> None:
        """Becomes the controlling terminal."""


@dataclass(slots=True)
class Spawn:
    """What to start, as whom, and with which descriptors."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    credentials: Credentials
    cwd: str = "/"
    umask: int = 0o022
    files: Mapping[int, File] = field(default_factory=dict)
    """Descriptors the program starts with."""
    limits: Limits = field(default_factory=Limits)
    terminal: Tty | None = None
    """The terminal that becomes the session's controlling one."""


class _Outsider:
    """The path context of somebody outside: the sandbox's root, and the credentials of the program to be."""

    def __init__(self, kernel: Kernel, credentials: Credentials, umask: int) -> None:
        root = kernel.mounts.root
        self.kernel = kernel
        self.fs = FsContext(root, root, umask)
        self.credentials = credentials
        self.fds = FdTable()


async def spawn(kernel: Kernel, what: Spawn) -> Process:
    """Starts a program; raises what execve(2) would, or NoDirectory."""
    outsider = _Outsider(kernel, what.credentials, what.umask)
    outsider.fs.cwd = await _directory(outsider, what.cwd)
    path = await _find_program(outsider, what.argv[0], what.environment.get("PATH", DEFAULT_PATH))
    file = await open_executable(outsider, AT_FDCWD, path)
    argv = [os.fsencode(argument) for argument in what.argv]
    envp = [os.fsencode(f"{name}={value}") for name, value in what.environment.items()]
    begin = Start(file, os.fsencode(path), argv, envp, what.credentials, what.limits.soft(RLIMIT_STACK))
    loaded = await load_program(kernel, outsider, begin)
    pid = kernel.allocate_pid()
    session = Session(pid)
    process = Process(kernel, pid, None, ProcessGroup(pid, session))
    process.limits = what.limits.copy()
    outsider.fds.limit = what.limits.soft(RLIMIT_NOFILE)
    process.executable = loaded.executable.location
    process.has_execed = True
    name = path.rpartition("/")[2][:15]
    for fd, open_file in what.files.items():
        outsider.fds.put(fd, open_file)
    thread = Thread(kernel, process, pid, loaded.context, loaded.memory, outsider.fds, outsider.fs, what.credentials,
                    name)
    process.threads[pid] = kernel.threads[pid] = thread
    kernel.processes[pid] = process
    open_account(process, loaded.context.space)
    if what.terminal is not None:
        what.terminal.attach(session, process.group)
    start(thread)
    return process


class NoDirectory(Exception):
    """The working directory asked for is none."""


async def _directory(outsider: _Outsider, path: str) -> Location:
    try:
        location = await resolve(outsider, AT_FDCWD, path)
    except LinuxError as error:
        raise NoDirectory(f"{path}: {error}") from error
    if location.dentry.inode is None or not location.dentry.inode.is_directory:
        raise NoDirectory(f"{path} is no directory")
    return location


async def _find_program(outsider: _Outsider, name: str, search_path: str) -> str:
    """Finds a program as a shell does: a name with a slash is a path, any other is looked up in PATH."""
    if "/" in name:
        return name
    failure: LinuxError = ENOENT(f"{name}: not found")
    for folder in search_path.split(":"):
        path = f"{folder or '.'}/{name}"
        try:
            file = await open_executable(outsider, AT_FDCWD, path)
        except EACCES as error:
            failure = error
        except LinuxError:
            continue
        else:
            await file.finish()
            return path
    raise failure
