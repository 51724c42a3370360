"""System V message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2)."""

from __future__ import annotations

from asyncsentry import errnos
from asyncsentry.abi import ipc_h as abi
from asyncsentry.abi.capability_h import CAP_SYS_RESOURCE
from asyncsentry.errnos import WouldBlock
from asyncsentry.syscalls.args import Flags, Int, Long, Pointer
from asyncsentry.syscalls.registry import Restart, syscall
from asyncsentry.tasks.messages import Message, MessageQueue
from asyncsentry.tasks.thread import Thread
from asyncsentry.waiter import READABLE, WRITABLE

_READ, _WRITE = 4, 2
_TYPE_SIZE = 8


@syscall(68, errnos="EACCES EEXIST ENOENT ENOSPC")
def msgget(thread: Thread, key: Int, flags: Flags) -> int:
    """msgget(2): finds or makes a queue."""
    return thread.kernel.messages.open(key, flags, thread.credentials).id


@syscall(69, errnos="EACCES EAGAIN EFAULT EIDRM EINTR EINVAL", restart=Restart.EINTR)
async def msgsnd(thread: Thread, ident: Int, message: Pointer, size: Long, flags: Flags) -> int:
    """msgsnd(2): never restarted after a signal."""
    kind = thread.memory.read_i64(message)
    if not 0 <= size <= thread.kernel.sysctls.integer("kernel.msgmax") or ident < 0 or kind < 1:
        raise errnos.EINVAL(f"message of type {kind}, {size} bytes")
    text = thread.memory.read(message + _TYPE_SIZE, size)
    queue = thread.kernel.messages.get(ident)
    queue.check_access(thread.credentials, _WRITE)
    while True:
        try:
            queue.try_send(Message(kind, text), thread.process.pid)
        except WouldBlock:
            if flags & abi.IPC_NOWAIT:
                raise errnos.EAGAIN("the queue is full") from None
            await thread.block(queue.queue, WRITABLE)
        else:
            return 0


@syscall(70, errnos="E2BIG EACCES EFAULT EIDRM EINTR EINVAL ENOMSG", restart=Restart.EINTR)
async def msgrcv(thread: Thread, ident: Int, buffer: Pointer, size: Long, kind: Long, flags: Flags) -> int:
    """msgrcv(2): never restarted after a signal."""
    if ident < 0 or size < 0:
        raise errnos.EINVAL(f"queue {ident}, {size} bytes")
    if flags & abi.MSG_COPY and (flags & abi.MSG_EXCEPT or not flags & abi.IPC_NOWAIT):
        raise errnos.EINVAL("MSG_COPY goes with IPC_NOWAIT and without MSG_EXCEPT")
    queue = thread.kernel.messages.get(ident)
    queue.check_access(thread.credentials, _READ)
    if flags & abi.MSG_COPY:
        message = queue.copy(kind, size, flags)
    else:
        message = await _take(thread, queue, kind, size, flags)
    text = message.text[:size]
    thread.memory.write(buffer, message.type.to_bytes(_TYPE_SIZE, "little") + text)
    return len(text)


async def _take(thread: Thread, queue: MessageQueue, kind: int, size: int, flags: int) -> Message:
    while True:
        try:
            return queue.try_receive(kind, size, flags, thread.process.pid)
        except WouldBlock:
            if flags & abi.IPC_NOWAIT:
                raise errnos.ENOMSG("no such message") from None
        await thread.block(queue.queue, READABLE)


@syscall(71, errnos="EACCES EFAULT EIDRM EINVAL EPERM")
def msgctl(thread: Thread, ident: Int, command: Int, buffer: Pointer) -> int:
    """msgctl(2): tells of queues, changes their owners and sizes, removes them."""
    if ident < 0 or command < 0:
        raise errnos.EINVAL("no such queue or command")
    table = thread.kernel.messages
    if command in (abi.IPC_INFO, abi.MSG_INFO):
        return _write_info(thread, command, buffer)
    if command in (abi.IPC_STAT, abi.MSG_STAT, abi.MSG_STAT_ANY):
        queue = table.get(ident) if command == abi.IPC_STAT else table.by_index(ident)
        if command != abi.MSG_STAT_ANY:
            queue.check_access(thread.credentials, _READ)
        thread.memory.write(buffer, queue.pack())
        return 0 if command == abi.IPC_STAT else queue.id
    if command == abi.IPC_SET:
        _change(thread, ident, thread.memory.read(buffer, abi.IPC_PERM.size + abi.MSQID_DS.size))
    elif command == abi.IPC_RMID:
        queue = table.get(ident)
        queue.check_owner(thread.credentials)
        table.destroy(queue)
    else:
        raise errnos.EINVAL(f"no command {command}")
    return 0


def _change(thread: Thread, ident: int, content: bytes) -> None:
    """Changes owner, mode and size, IPC_SET; who waited for room looks again."""
    permissions = abi.IPC_PERM.unpack_from(content)
    bytes_max = abi.MSQID_DS.unpack_from(content, abi.IPC_PERM.size)[5]
    queue = thread.kernel.messages.get(ident)
    queue.check_owner(thread.credentials)
    if bytes_max > queue.table.sysctls.integer("kernel.msgmnb") and not thread.credentials.has(CAP_SYS_RESOURCE):
        raise errnos.EPERM(f"{bytes_max} bytes need CAP_SYS_RESOURCE")
    queue.set_owner(permissions[1], permissions[2], permissions[5])
    queue.bytes_max = bytes_max
    queue.change_time = queue.table.now()
    queue.queue.notify(READABLE | WRITABLE)


def _write_info(thread: Thread, command: int, address: int) -> int:
    table = thread.kernel.messages
    size_max, bytes_max, count_max = (table.sysctls.integer(f"kernel.msg{name}") for name in ("max", "mnb", "mni"))
    pool, map_entries, headers = count_max * bytes_max // 1024, bytes_max, bytes_max
    if command == abi.MSG_INFO:
        pool, map_entries = len(table), sum(len(queue.messages) for queue in table)
        headers = sum(queue.byte_count for queue in table)
    thread.memory.write_struct(address, abi.MSGINFO, pool, map_entries, size_max, bytes_max, count_max, 16,
                               headers, 0xFFFF)
    return table.highest_index
