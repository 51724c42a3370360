"""execve(2) and execveat(2): arguments out of guest memory, then ``tasks/execve``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi.elf_h import ARG_MAX, MAX_ARG_STRLEN
from asyncsentry.abi.fcntl_h import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from asyncsentry.abi.resource_h import RLIMIT_STACK
from asyncsentry.errnos import E2BIG, EINVAL, ENAMETOOLONG, ENOENT
from asyncsentry.fs.fdtable import drop
from asyncsentry.fs.file import File
from asyncsentry.fs.vfs import open_executable
from asyncsentry.syscalls.args import Fd, Flags, PathPointer, Pointer
from asyncsentry.syscalls.registry import NO_RESULT, syscall
from asyncsentry.tasks import execve as program
from asyncsentry.tasks.thread import Thread

if TYPE_CHECKING:
    from asyncsentry.memory.manager import MemoryManager

_ERRNOS = "E2BIG EACCES EFAULT EINVAL ELIBBAD ELOOP ENAMETOOLONG ENOENT ENOEXEC ENOMEM ENOTDIR EPERM ETXTBSY"
_ARGUMENTS_MAX = (8 << 20) // 4 * 3
_STRINGS_AT_ONCE = 8192


@syscall(59, errnos=_ERRNOS)
async def execve(thread: Thread, path: PathPointer, argv: Pointer, envp: Pointer) -> None:
    """execve(2): replaces the program; the file is looked at before the arguments are."""
    name = thread.memory.read_path(path)
    file = await open_executable(thread, AT_FDCWD, name)
    return await _run(thread, file, name, argv, envp)


@syscall(322, errnos=_ERRNOS + " EBADF")
async def execveat(thread: Thread, dirfd: Fd, path: PathPointer, argv: Pointer, envp: Pointer, flags: Flags) -> None:
    """execveat(2): as execve(2), relative to a directory, or of an open file; the path is read before flags count."""
    name = thread.memory.read_path(path)
    if not name and not flags & AT_EMPTY_PATH:
        raise ENOENT("an empty path")
    if flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW):
        raise EINVAL("unknown flags")
    file = await open_executable(
        thread, dirfd, name, not flags & AT_SYMLINK_NOFOLLOW, bool(flags & AT_EMPTY_PATH))
    inaccessible = False
    if dirfd != AT_FDCWD and not name.startswith("/"):
        inaccessible = dirfd in thread.fds.close_on_exec
        name = f"/dev/fd/{dirfd}/{name}" if name else f"/dev/fd/{dirfd}"
    return await _run(thread, file, name, argv, envp, inaccessible)


async def _run(thread: Thread, file: File, name: str, argv: int, envp: int, inaccessible: bool = False) -> None:
    try:
        limit = max(min(thread.process.limits.soft(RLIMIT_STACK) // 4, _ARGUMENTS_MAX), ARG_MAX)
        arguments = read_strings(thread, argv, limit)
        environment = read_strings(thread, envp, limit)
    except BaseException:
        file.references += 1
        await drop(file)
        raise
    await program.execve(thread, file, name, arguments, environment, inaccessible)
    return NO_RESULT


def read_strings(thread: Thread, address: int, limit: int) -> list[bytes]:
    """Copies an argument vector in; E2BIG once it takes more than ``limit`` bytes. Null means empty."""
    if not address:
        return []
    memory = thread.memory
    pointers = memory.read_pointer_array(address, limit // 8)
    if len(pointers) > limit // 8:
        raise E2BIG("too many arguments")
    strings: list[bytes] = []
    start, chunk = 0, b""  # strings mostly lie side by side: one copy brings many of them
    for pointer in pointers:
        end = chunk.find(0, pointer - start) if start <= pointer < start + len(chunk) else -1
        if end < 0:
            start, chunk = pointer, memory.read_some(pointer, _STRINGS_AT_ONCE)
            end = chunk.find(0)
        string = chunk[pointer - start : end] if end >= 0 else _read_long_string(memory, pointer)
        limit -= len(string) + 9
        if limit < 0:
            raise E2BIG("arguments take too much room")
        strings.append(string)
    return strings


def _read_long_string(memory: MemoryManager, address: int) -> bytes:
    try:
        return memory.read_string(address, MAX_ARG_STRLEN)
    except ENAMETOOLONG as error:
        raise E2BIG("an argument is too long") from error
