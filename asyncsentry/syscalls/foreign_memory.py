"""What is done to other processes' memory: process_vm_readv(2), process_vm_writev(2), process_madvise(2) and kin."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncsentry.abi import mman_h as mman
from asyncsentry.abi.signal_h import SIGKILL
from asyncsentry.errnos import EFAULT, EINVAL, ENOMEM, EPERM, ESRCH, LinuxError
from asyncsentry.memory.advice import madvise
from asyncsentry.syscalls.args import Fd, Int, Pointer, Size, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.credentials import CAP_SYS_NICE
from asyncsentry.tasks.groups import find_process
from asyncsentry.tasks.ids import check_may_attach
from asyncsentry.tasks.pidfd import get_pidfd

if TYPE_CHECKING:
    from asyncsentry.memory.manager import MemoryManager
    from asyncsentry.tasks.thread import Thread

_CHUNK = 1 << 20
Vectors = list[tuple[int, int]]


@syscall(310, errnos="EFAULT EINVAL ENOMEM EPERM ESRCH")
def process_vm_readv(thread: Thread, pid: Int, local: Pointer, local_count: Size, remote: Pointer,
                     remote_count: Size, flags: Size) -> int:
    """process_vm_readv(2): copies from another process; what was copied before a bad address counts."""
    other, mine, theirs = _arguments(thread, pid, local, local_count, remote, remote_count, flags)
    return _copy(other.read_some, theirs, thread.memory.write_some, mine)


@syscall(311, errnos="EFAULT EINVAL ENOMEM EPERM ESRCH")
def process_vm_writev(thread: Thread, pid: Int, local: Pointer, local_count: Size, remote: Pointer,
                      remote_count: Size, flags: Size) -> int:
    """process_vm_writev(2): copies to another process."""
    other, mine, theirs = _arguments(thread, pid, local, local_count, remote, remote_count, flags)
    return _copy(thread.memory.read_some, mine, other.write_some, theirs)


@syscall(440, errnos="EBADF EFAULT EINVAL EPERM ESRCH",
         missing="advice on another process's memory is checked, but changes nothing")
async def process_madvise(thread: Thread, pidfd: Fd, vector: Pointer, count: Size, advice: Int, flags: UInt) -> int:
    """process_madvise(2): advice about speed alone; flags, vector, pidfd, advice, then permission."""
    if flags:
        raise EINVAL("there are no flags")
    ranges = thread.memory.read_iovec(vector, count)
    process = get_pidfd(thread, pidfd).process
    if not process.threads:
        raise ESRCH("it has no memory any more")
    if advice not in (mman.MADV_WILLNEED, mman.MADV_COLD, mman.MADV_PAGEOUT, mman.MADV_COLLAPSE):
        raise EINVAL(f"no advice {advice} for others")
    if process is not thread.process:
        check_may_attach(thread, process)
        if not thread.credentials.has(CAP_SYS_NICE):
            raise EPERM("only CAP_SYS_NICE slows others down")
    done = 0
    for address, length in ranges:
        try:
            if process is thread.process:
                await madvise(thread.memory, thread.context, address, length, advice)
            elif not process.leader.memory.vmas.covers(address, address + length):
                raise ENOMEM("there is a hole in the range")
        except LinuxError:
            if not done:
                raise
            break
        done += length
    return done


@syscall(448, errnos="EBADF EINVAL ESRCH")
def process_mrelease(thread: Thread, pidfd: Fd, flags: UInt) -> int:
    """process_mrelease(2): a process that is being killed gives its memory back by itself, and at once."""
    if flags:
        raise EINVAL("there are no flags")
    process = get_pidfd(thread, pidfd).process
    if not process.threads:
        raise ESRCH("it has no memory any more")
    if process.group_exit_status is None and not process.signals.pending.mask & 1 << SIGKILL - 1:
        raise EINVAL("it is not being killed")
    return 0


def _arguments(thread: Thread, pid: int, local: int, local_count: int, remote: int, remote_count: int,
               flags: int) -> tuple[MemoryManager, Vectors, Vectors]:
    """Checks in Linux's order: flags, local vectors, remote vectors, process, permission."""
    if flags:
        raise EINVAL("there are no flags")
    mine = thread.memory.read_iovec(local, local_count)
    theirs = thread.memory.read_iovec(remote, remote_count)
    if pid == 0:
        raise ESRCH("no process 0")
    process = find_process(thread, pid)
    if not process.threads:
        raise ESRCH("a zombie has no memory")
    check_may_attach(thread, process)
    return process.leader.memory, mine, theirs


def _copy(read: Callable[[int, int], bytes], sources: Vectors, write: Callable[[int, bytes], int],
          targets: Vectors) -> int:
    """Copies between two lists of ranges until one ends or an address is bad."""
    done = 0
    source_index = target_index = source_done = target_done = 0
    while source_index < len(sources) and target_index < len(targets):
        (source, source_size), (target, target_size) = sources[source_index], targets[target_index]
        count = min(source_size - source_done, target_size - target_done, _CHUNK)
        if count:
            written = _copy_range(read, source + source_done, write, target + target_done, count)
            done += written
            if written < count:
                break
        source_done += count
        target_done += count
        if source_done == source_size:
            source_index, source_done = source_index + 1, 0
        if target_done == target_size:
            target_index, target_done = target_index + 1, 0
    else:
        return done
    if not done:
        raise EFAULT("not all of the memory is there")
    return done


def _copy_range(read: Callable[[int, int], bytes], source: int, write: Callable[[int, bytes], int], target: int,
                count: int) -> int:
    try:
        data = read(source, count)
        return write(target, data) if data else 0
    except LinuxError:
        return 0
