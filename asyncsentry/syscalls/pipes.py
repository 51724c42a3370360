"""pipe(2) and pipe2(2)."""

from __future__ import annotations

import struct

from asyncsentry.abi.fcntl_h import O_CLOEXEC, O_DIRECT, O_NONBLOCK
from asyncsentry.clock import CLOCK_REALTIME
from asyncsentry.errnos import EINVAL, LinuxError
from asyncsentry.fs.inode import Owner
from asyncsentry.fs.pipe import make_pipe
from asyncsentry.syscalls.args import Flags, Pointer
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.thread import Thread

_TWO_INTS = struct.Struct("<ii")


@syscall(22, errnos="EFAULT EMFILE ENFILE")
async def pipe(thread: Thread, fds: Pointer) -> int:
    """pipe(2)."""
    return await _make(thread, fds, 0)


@syscall(293, errnos="EFAULT EINVAL EMFILE ENFILE")
async def pipe2(thread: Thread, fds: Pointer, flags: Flags) -> int:
    """pipe2(2): O_NONBLOCK, O_CLOEXEC, O_DIRECT."""
    if flags & ~(O_NONBLOCK | O_CLOEXEC | O_DIRECT):
        raise EINVAL(f"flags {flags:#o}")
    return await _make(thread, fds, flags)


async def _make(thread: Thread, address: int, flags: int) -> int:
    """Makes a pipe; on EFAULT and EMFILE no descriptor stays behind."""
    owner = Owner(thread.credentials.fsuid, thread.credentials.fsgid)
    kernel = thread.kernel
    ends = make_pipe(kernel.allocate_inode(), flags, owner, kernel.clock.now_ns(CLOCK_REALTIME))
    numbers: list[int] = []
    try:
        for end in ends:
            numbers.append(thread.fds.install(end, bool(flags & O_CLOEXEC)))
        thread.memory.write(address, _TWO_INTS.pack(*numbers))
    except LinuxError:
        for number in numbers:
            await thread.fds.close(number)
        raise
    return 0
