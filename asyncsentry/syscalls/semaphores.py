"""System V semaphores: semget(2), semop(2), semtimedop(2), semctl(2)."""

from __future__ import annotations

from asyncsentry import errnos
from asyncsentry.abi import ipc_h as abi
from asyncsentry.abi.socket_h import TIMEVAL
from asyncsentry.clock import NS_PER_SECOND
from asyncsentry.errnos import Interrupted, TimedOut
from asyncsentry.syscalls.args import Flags, Int, Pointer, Size
from asyncsentry.syscalls.registry import Restart, syscall
from asyncsentry.tasks.semaphores import Operation, Pending, SemaphoreSet
from asyncsentry.tasks.thread import Thread
from asyncsentry.waiter import POLLIN

_READ, _ALTER = 4, 2
_STAT = (abi.IPC_STAT, abi.SEM_STAT, abi.SEM_STAT_ANY)
_GET = (abi.GETPID, abi.GETVAL, abi.GETNCNT, abi.GETZCNT)


@syscall(64, errnos="EACCES EEXIST EINVAL ENOENT ENOSPC")
def semget(thread: Thread, key: Int, count: Int, flags: Flags) -> int:
    """semget(2): finds or makes a set."""
    return thread.kernel.semaphores.open(key, count, flags, thread.credentials).id


@syscall(65, errnos="E2BIG EACCES EAGAIN EFAULT EFBIG EIDRM EINTR EINVAL ERANGE", restart=Restart.EINTR)
async def semop(thread: Thread, ident: Int, operations: Pointer, count: Size) -> int:
    """semop(2): never restarted after a signal."""
    return await _operate(thread, ident, operations, count, None)


@syscall(220, errnos="E2BIG EACCES EAGAIN EFAULT EFBIG EIDRM EINTR EINVAL ERANGE", restart=Restart.EINTR)
async def semtimedop(thread: Thread, ident: Int, operations: Pointer, count: Size, limit: Pointer) -> int:
    """semtimedop(2): the time limit is relative."""
    deadline_ns = None
    if limit:
        seconds, nanoseconds = thread.memory.read_struct(limit, TIMEVAL)
        if seconds < 0 or not 0 <= nanoseconds < NS_PER_SECOND:
            raise errnos.EINVAL("not a timespec")
        deadline_ns = thread.kernel.clock.now_ns() + seconds * NS_PER_SECOND + nanoseconds
    return await _operate(thread, ident, operations, count, deadline_ns)


async def _operate(thread: Thread, ident: int, address: int, count: int, deadline_ns: int | None) -> int:
    if not count or ident < 0:
        raise errnos.EINVAL("no operations, or no such set")
    if count > thread.kernel.sysctls.integer("kernel.sem", 2):
        raise errnos.E2BIG(f"{count} operations")
    content = thread.memory.read(address, count * abi.SEMBUF.size)
    operations = [Operation(*fields) for fields in abi.SEMBUF.iter_unpack(content)]
    table = thread.kernel.semaphores
    semaphores = table.get(ident)
    if max(operation.number for operation in operations) >= len(semaphores.values):
        raise errnos.EFBIG(f"the set has {len(semaphores.values)} semaphores")
    alters = any(operation.change for operation in operations)
    semaphores.check_access(thread.credentials, _ALTER if alters else _READ)
    pending = semaphores.operate(operations, table.undo_of(thread.process.pid), thread.process.pid)
    if pending is not None:
        await _wait(thread, semaphores, pending, deadline_ns)
    return 0


async def _wait(thread: Thread, semaphores: SemaphoreSet, pending: Pending, deadline_ns: int | None) -> None:
    """Waits until somebody completes the call; what was completed before a signal came counts."""
    try:
        while not pending.is_done:
            await thread.block(pending.queue, POLLIN, deadline_ns)
    except (Interrupted, TimedOut) as ending:
        if not pending.is_done:
            if isinstance(ending, TimedOut):
                raise errnos.EAGAIN("not in time") from None
            raise
    finally:
        semaphores.cancel(pending)
    if pending.error is not None:
        raise pending.error


@syscall(66, errnos="EACCES EFAULT EIDRM EINVAL EPERM ERANGE")
def semctl(thread: Thread, ident: Int, number: Int, command: Int, argument: Size) -> int:
    """semctl(2): reads and sets values, tells of sets, changes their owners, removes them."""
    if ident < 0:
        raise errnos.EINVAL(f"no set {ident}")
    table = thread.kernel.semaphores
    if command in (abi.IPC_INFO, abi.SEM_INFO):
        return _write_info(thread, command, argument)
    if command in _STAT:
        return _write_status(thread, ident, command, argument)
    if command in (abi.IPC_RMID, abi.IPC_SET):
        fields = thread.memory.read_struct(argument, abi.IPC_PERM) if command == abi.IPC_SET else ()
        semaphores = table.get(ident)
        semaphores.check_owner(thread.credentials)
        if command == abi.IPC_RMID:
            table.destroy(semaphores)
        else:
            semaphores.set_owner(fields[1], fields[2], fields[5])
            semaphores.change_time = table.now()
        return 0
    if command in (abi.SETVAL, abi.SETALL):
        return _set(thread, table.get(ident), number, command, argument)
    if command == abi.GETALL:
        semaphores = table.get(ident)
        semaphores.check_access(thread.credentials, _READ)
        thread.memory.write(argument, b"".join(value.to_bytes(2, "little") for value in semaphores.values))
        return 0
    if command in _GET:
        return _get(thread, table.get(ident), number, command)
    raise errnos.EINVAL(f"no command {command}")


def _get(thread: Thread, semaphores: SemaphoreSet, number: int, command: int) -> int:
    semaphores.check_access(thread.credentials, _READ)
    if not 0 <= number < len(semaphores.values):
        raise errnos.EINVAL(f"no semaphore {number}")
    if command == abi.GETVAL:
        return semaphores.values[number]
    if command == abi.GETPID:
        return semaphores.last_pids[number]
    return semaphores.count_waiting(number, for_zero=command == abi.GETZCNT)


def _set(thread: Thread, semaphores: SemaphoreSet, number: int, command: int, argument: int) -> int:
    """Sets one value, or all; the permission is asked before the values are looked at."""
    semaphores.check_access(thread.credentials, _ALTER)
    if command == abi.SETVAL:
        value = ((argument & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
        values = {number: value}
    else:
        content = thread.memory.read(argument, 2 * len(semaphores.values))
        values = {index: int.from_bytes(content[2 * index : 2 * index + 2], "little")
                  for index in range(len(semaphores.values))}  # fmt: skip
    semaphores.set_values(values, thread.process.pid)
    return 0


def _write_status(thread: Thread, ident: int, command: int, address: int) -> int:
    table = thread.kernel.semaphores
    semaphores = table.get(ident) if command == abi.IPC_STAT else table.by_index(ident)
    if command != abi.SEM_STAT_ANY:
        semaphores.check_access(thread.credentials, _READ)
    thread.memory.write(address, semaphores.pack())
    return 0 if command == abi.IPC_STAT else semaphores.id


def _write_info(thread: Thread, command: int, address: int) -> int:
    table = thread.kernel.semaphores
    used = (len(table), table.semaphore_count) if command == abi.SEM_INFO else (20, abi.SEMAEM)
    per_set, total, per_call, sets = (table.sysctls.integer("kernel.sem", field) for field in range(4))
    thread.memory.write_struct(address, abi.SEMINFO, total, sets, total, total, per_set, per_call, per_call, used[0],
                               abi.SEMVMX, used[1])
    return table.highest_index
