"""Asynchronous input and output, what libaio calls: io_setup(2), io_submit(2), io_getevents(2) and kin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from asyncsentry.abi import aio_abi_h as abi
from asyncsentry.abi import mman_h as mman
from asyncsentry.abi.fcntl_h import O_PATH
from asyncsentry.abi.time_h import TIMESPEC
from asyncsentry.abi.uio_h import MAX_RW_COUNT, RWF_DSYNC, RWF_HIPRI, RWF_NOWAIT, RWF_SYNC
from asyncsentry.clock import NS_PER_SECOND
from asyncsentry.errnos import EBADF, EFAULT, EINTR, EINVAL, EOPNOTSUPP, Interrupted, LinuxError, TimedOut
from asyncsentry.fs.eventfd import EventFile
from asyncsentry.fs.fdtable import drop
from asyncsentry.memory.mapping import Mapping, mmap
from asyncsentry.platforms.base import PAGE_SIZE
from asyncsentry.syscalls.args import Long, Pointer, UInt
from asyncsentry.syscalls.polling import deadline_after, read_signal_mask
from asyncsentry.syscalls.registry import Restart, syscall
from asyncsentry.syscalls.transfer import NOT_READABLE, buffer_count, read_into, write_from
from asyncsentry.tasks.aio import AioContext, Completion, find_context, make_context
from asyncsentry.tasks.thread import Thread
from asyncsentry.waiter import READABLE

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.syscalls.transfer import Segments

_RW_FLAGS = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT
_PAGE_ALONE = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
_AT_ONCE = 256
"""Events written to the guest at a time."""


@syscall(206, errnos="EAGAIN EFAULT EINVAL ENOMEM")
async def io_setup(thread: Thread, size: UInt, ident: Pointer) -> int:
    """io_setup(2): the place for the answer must hold 0."""
    memory = thread.memory
    if memory.read_u64(ident) or not size:
        raise EINVAL("no operations, or the context's place does not hold 0")
    context = make_context(thread.kernel, size)
    page = Mapping(0, PAGE_SIZE, mman.PROT_READ | mman.PROT_WRITE, _PAGE_ALONE)
    address = await mmap(memory, thread.context, page, thread.process.limits)
    memory.aio_contexts[address] = context
    try:
        memory.write_u64(ident, address)
    except EFAULT:
        await _destroy(thread, address, context)
        raise
    return 0


@syscall(207, errnos="EINVAL")
async def io_destroy(thread: Thread, ident: Pointer) -> int:
    """io_destroy(2): who waits for its events is let go."""
    await _destroy(thread, ident, find_context(thread.memory, ident))
    return 0


async def _destroy(thread: Thread, ident: int, context: AioContext) -> None:
    del thread.memory.aio_contexts[ident]
    context.destroy()
    await thread.memory.munmap(thread.context, ident, PAGE_SIZE)


# io_submit(2) ------------------------------------------------------------------------------------


class _Operation(NamedTuple):
    """A control block, copied and checked."""

    address: int
    data: int
    file: File
    buffer: int
    size: int
    offset: int
    rw_flags: int
    event: EventFile | None


@syscall(209, errnos="EAGAIN EBADF EFAULT EINVAL EOPNOTSUPP",
         missing="no IOCB_CMD_POLL, RWF_APPEND and RWF_NOAPPEND; each operation is done before the call returns")
async def io_submit(thread: Thread, ident: Pointer, count: Long, blocks: Pointer) -> int:
    """io_submit(2): gives how many operations began; the error of the first only if none did."""
    if count < 0:
        raise EINVAL("a negative count")
    context = find_context(thread.memory, ident)
    submitted = 0
    try:
        while submitted < min(count, context.slots):
            address = thread.memory.read_u64(blocks + 8 * submitted)
            await _submit(thread, context, address)
            submitted += 1
    except LinuxError:
        if not submitted:
            raise
    return submitted


async def _submit(thread: Thread, context: AioContext, address: int) -> None:
    data, _, rw_flags, opcode, _, fd, buffer, count, offset, reserved, flags, event_fd = thread.memory.read_struct(
        address, abi.IOCB)
    if reserved or count < 0 or flags & ~(abi.IOCB_FLAG_RESFD | abi.IOCB_FLAG_IOPRIO):
        raise EINVAL("a control block that makes no sense")
    context.begin()
    held: list[File] = []
    try:
        file = _hold(held, thread.fds.get(fd))
        event = _event_file(held, thread, event_fd) if flags & abi.IOCB_FLAG_RESFD else None
        thread.memory.write_u32(address + abi.IOCB_KEY_OFFSET, abi.KIOCB_KEY)
        operation = _Operation(address, data, file, buffer, count, offset, rw_flags, event)
        work = _begin(thread, opcode, operation)
        context.complete(Completion(data, address, await _result_of(work)))
        if event is not None:
            event.signal()
    except LinuxError:
        context.abandon()
        raise
    finally:
        for file in held:
            await drop(file)


def _event_file(held: list[File], thread: Thread, fd: int) -> EventFile:
    file = _hold(held, thread.fds.get(fd))
    if not isinstance(file, EventFile):
        raise EINVAL(f"fd {fd} is no eventfd")
    return file


def _hold(held: list[File], file: File) -> File:
    if file.flags & O_PATH:
        raise EBADF("only a place")
    file.references += 1
    held.append(file)
    return file


async def _result_of(work: Awaitable[int]) -> int:
    """Gives what an operation gave: once it has begun, its errors are its result."""
    try:
        return await work
    except LinuxError as error:
        return -error.errno
    except Interrupted:
        return -EINTR.errno


def _begin(thread: Thread, opcode: int, operation: _Operation) -> Awaitable[int]:
    """Checks what Linux checks before it takes an operation, and gives the rest of it to await."""
    if opcode in (abi.IOCB_CMD_FSYNC, abi.IOCB_CMD_FDSYNC):
        if operation.buffer or operation.offset or operation.size or operation.rw_flags:
            raise EINVAL("fsync takes no range")
        return _sync(operation.file, opcode == abi.IOCB_CMD_FDSYNC)
    kind = _TRANSFERS.get(opcode)
    if kind is None:
        raise EINVAL(f"no operation {opcode}")
    transfer, is_write, is_vector = kind
    if operation.rw_flags & ~_RW_FLAGS:
        raise EOPNOTSUPP(f"flags {operation.rw_flags:#x}")
    file = operation.file
    if not file.writable if is_write else file.flags & NOT_READABLE:
        raise EBADF("not open for that")
    if operation.offset < 0 and file.seekable:
        raise EINVAL(f"offset {operation.offset}")
    if is_vector:
        segments: Segments = thread.memory.read_iovec(operation.buffer, operation.size)
        total = min(sum(length for _, length in segments), MAX_RW_COUNT)
    else:
        total = buffer_count(operation.buffer, operation.size)
        segments = ((operation.buffer, total),)
    return transfer(thread, operation, segments, total)


async def _read(thread: Thread, operation: _Operation, segments: Segments, total: int) -> int:
    offset = operation.offset if operation.file.seekable else None
    return await read_into(thread, operation.file, segments, total, offset, _is_nonblocking(operation))


async def _write(thread: Thread, operation: _Operation, segments: Segments, total: int) -> int:
    file = operation.file
    offset = operation.offset if file.seekable else None
    written = await write_from(thread, file, segments, total, offset, _is_nonblocking(operation))
    if written and operation.rw_flags & (RWF_DSYNC | RWF_SYNC) and file.seekable:
        await file.sync(data_only=not operation.rw_flags & RWF_SYNC)
    return written


def _is_nonblocking(operation: _Operation) -> bool | None:
    return True if operation.rw_flags & RWF_NOWAIT else None


async def _sync(file: File, data_only: bool) -> int:
    await file.sync(data_only)
    return 0


_Transfer = Callable[[Thread, _Operation, "Segments", int], Awaitable[int]]
_TRANSFERS: dict[int, tuple[_Transfer, bool, bool]] = {
    abi.IOCB_CMD_PREAD: (_read, False, False), abi.IOCB_CMD_PWRITE: (_write, True, False),
    abi.IOCB_CMD_PREADV: (_read, False, True), abi.IOCB_CMD_PWRITEV: (_write, True, True),
}  # fmt: skip
"""What an opcode does, whether it writes, and whether its buffer is a vector."""


# io_getevents(2) ---------------------------------------------------------------------------------


@syscall(208, errnos="EFAULT EINTR EINVAL", restart=Restart.EINTR)
async def io_getevents(thread: Thread, ident: Pointer, least: Long, most: Long, events: Pointer,
                       timespec: Pointer) -> int:
    """io_getevents(2): fewer than ``least`` at the timeout, or after a signal if there are any."""
    return await _get_events(thread, ident, least, most, events, timespec)


@syscall(333, errnos="EFAULT EINTR EINVAL", restart=Restart.NOHAND)
async def io_pgetevents(thread: Thread, ident: Pointer, least: Long, most: Long, events: Pointer, timespec: Pointer,
                        signals: Pointer) -> int:
    """io_pgetevents(2): with a signal mask for the time of the call."""
    mask = None
    if signals:
        address, size = thread.memory.read_u64(signals), thread.memory.read_u64(signals + 8)
        mask = read_signal_mask(thread, address, size)
    with thread.temporary_signal_mask(mask):
        return await _get_events(thread, ident, least, most, events, timespec)


async def _get_events(thread: Thread, ident: int, least: int, most: int, events: int, timespec: int) -> int:
    timeout_ns = None
    if timespec:
        seconds, nanoseconds = thread.memory.read_struct(timespec, TIMESPEC)
        timeout_ns = max(0, seconds * NS_PER_SECOND + nanoseconds)
    context = find_context(thread.memory, ident)
    if not 0 <= least <= most:
        raise EINVAL(f"at least {least} and at most {most} events")
    deadline_ns = deadline_after(thread, timeout_ns)
    taken = 0
    while True:
        taken += _take(thread, context, most - taken, events + taken * abi.IO_EVENT.size, bool(taken))
        if taken >= least or deadline_ns == 0 or context.is_destroyed:
            return taken
        try:
            await thread.block(context.queue, READABLE, deadline_ns)
        except TimedOut:
            return taken
        except Interrupted:
            if taken:
                return taken
            raise


def _take(thread: Thread, context: AioContext, most: int, address: int, has_some: bool) -> int:
    """Hands over up to ``most`` events; bad memory is only an error for the first."""
    taken = 0
    completions = context.completions
    while completions and taken < most:
        batch = [completions.popleft() for _ in range(min(len(completions), most - taken, _AT_ONCE))]
        image = b"".join(abi.IO_EVENT.pack(done.data, done.control_block, done.result, 0) for done in batch)
        fitting = thread.memory.write_some(address + taken * abi.IO_EVENT.size, image) // abi.IO_EVENT.size
        taken += fitting
        if fitting < len(batch):
            completions.extendleft(reversed(batch[fitting:]))
            if not taken and not has_some:
                raise EFAULT("no room for events")
            break
    return taken


@syscall(210, errnos="EFAULT EINVAL", missing="nothing is under way that could be cancelled: EINVAL")
def io_cancel(thread: Thread, ident: Pointer, block: Pointer, result: Pointer) -> int:
    """io_cancel(2)."""
    if thread.memory.read_u32(block + abi.IOCB_KEY_OFFSET) != abi.KIOCB_KEY:
        raise EINVAL("not a control block that was submitted")
    find_context(thread.memory, ident)
    raise EINVAL("not under way")
