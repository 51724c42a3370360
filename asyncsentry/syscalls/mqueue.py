"""POSIX message queues: mq_open(2), mq_unlink(2), mq_timedsend(2), mq_timedreceive(2), mq_notify(2) and kin."""

from __future__ import annotations

import os
from contextlib import suppress

from asyncsentry import errnos
from asyncsentry.abi import fcntl_h, signal_h
from asyncsentry.abi import mqueue_h as abi
from asyncsentry.abi.capability_h import CAP_SYS_RESOURCE
from asyncsentry.abi.resource_h import RLIMIT_MSGQUEUE
from asyncsentry.abi.socket_h import TIMEVAL
from asyncsentry.clock import CLOCK_REALTIME, NS_PER_SECOND
from asyncsentry.errnos import LinuxError, TimedOut, WouldBlock
from asyncsentry.fs.access import MAY_READ, MAY_WRITE, check_access, check_delete
from asyncsentry.fs.fdtable import drop
from asyncsentry.fs.inode import Owner
from asyncsentry.fs.mqueue import Queue, QueueFile, account_of, check_size
from asyncsentry.syscalls.args import Fd, Flags, Mode, PathPointer, Pointer, Size, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.process import Process
from asyncsentry.tasks.signals.send import send_to_process
from asyncsentry.tasks.signals.siginfo import SigInfo
from asyncsentry.tasks.thread import Thread
from asyncsentry.waiter import READABLE, WRITABLE

_ACCESS = {fcntl_h.O_RDONLY: MAY_READ, fcntl_h.O_WRONLY: MAY_WRITE, fcntl_h.O_RDWR: MAY_READ | MAY_WRITE}
_KEPT_FLAGS = fcntl_h.O_ACCMODE | fcntl_h.O_NONBLOCK


@syscall(240, errnos="EACCES EEXIST EFAULT EINVAL EMFILE ENAMETOOLONG ENOENT ENOSPC")
async def mq_open(thread: Thread, name: PathPointer, flags: Flags, mode: Mode, attributes: Pointer) -> int:
    """mq_open(2): the name without its slash, which the C library takes off. Always close-on-exec."""
    size = None
    if attributes and flags & fcntl_h.O_CREAT:
        size = thread.memory.read_struct(attributes, abi.MQ_ATTR)[1:3]
    text = _read_name(thread, name)
    access_mode = flags & fcntl_h.O_ACCMODE
    queue = thread.kernel.mqueues.directory.queues.get(text)
    if queue is None:
        if not flags & fcntl_h.O_CREAT:
            raise errnos.ENOENT(f"no queue {text!r}")
        queue = _create(thread, text, mode, size)
    else:
        if flags & fcntl_h.O_CREAT and flags & fcntl_h.O_EXCL:
            raise errnos.EEXIST(f"queue {text!r} exists")
        if access_mode not in _ACCESS:
            raise errnos.EINVAL("no access mode")
        check_access(thread.credentials, queue, _ACCESS[access_mode])
    file = QueueFile(queue, flags & _KEPT_FLAGS)
    try:
        return thread.fds.install(file, close_on_exec=True)
    except LinuxError:
        await file.release()
        raise


def _read_name(thread: Thread, address: int) -> str:
    name = thread.memory.read_path(address)
    if not name:
        raise errnos.ENOENT("an empty name")
    if "/" in name or name in (".", ".."):
        raise errnos.EACCES("queues have no directories")
    if len(os.fsencode(name)) > 255:
        raise errnos.ENAMETOOLONG("name longer than 255 bytes")
    return name


def _create(thread: Thread, name: str, mode: int, size: tuple[int, int] | None) -> Queue:
    filesystem, credentials = thread.kernel.mqueues, thread.credentials
    limits = filesystem.limits
    directory = filesystem.directory
    if len(directory.queues) >= limits.integer("fs.mqueue.queues_max") and not credentials.has(CAP_SYS_RESOURCE):
        raise errnos.ENOSPC("too many queues")
    if size is None:
        size = (min(limits.integer("fs.mqueue.msg_default"), limits.integer("fs.mqueue.msg_max")),
                min(limits.integer("fs.mqueue.msgsize_default"), limits.integer("fs.mqueue.msgsize_max")))  # fmt: skip
    else:
        check_size(limits, credentials, *size)
    used = filesystem.charged.get(credentials.fsuid, 0)
    if used + account_of(*size) > thread.process.limits.soft(RLIMIT_MSGQUEUE):
        raise errnos.EMFILE("RLIMIT_MSGQUEUE is reached")
    owner = Owner(credentials.fsuid, credentials.fsgid)
    return directory.add(name, mode & ~thread.fs.umask, owner, *size)


@syscall(241, errnos="EACCES EFAULT ENAMETOOLONG ENOENT EPERM")
async def mq_unlink(thread: Thread, name: PathPointer) -> int:
    """mq_unlink(2): removes the name; the queue goes with its last descriptor."""
    text = _read_name(thread, name)
    directory = thread.kernel.mqueues.directory
    queue = await directory.lookup(text)
    check_delete(thread.credentials, directory, queue, as_directory=False)
    await directory.unlink(text, queue)
    return 0


def _get_queue(thread: Thread, fd: int) -> QueueFile:
    file = thread.fds.get(fd)
    if not isinstance(file, QueueFile):
        raise errnos.EBADF(f"fd {fd} is no message queue")
    return file


def _deadline(thread: Thread, address: int) -> int | None:
    """Reads an absolute CLOCK_REALTIME timeout and gives the moment on CLOCK_MONOTONIC."""
    if not address:
        return None
    seconds, nanoseconds = thread.memory.read_struct(address, TIMEVAL)
    if seconds < 0 or not 0 <= nanoseconds < NS_PER_SECOND:
        raise errnos.EINVAL("not a timespec")
    clock = thread.kernel.clock
    ahead_ns = int(seconds) * NS_PER_SECOND + int(nanoseconds) - clock.now_ns(CLOCK_REALTIME)
    return clock.now_ns() + max(0, ahead_ns)


async def _wait(thread: Thread, file: QueueFile, mask: int, deadline_ns: int | None) -> None:
    if file.flags & fcntl_h.O_NONBLOCK:
        raise errnos.EAGAIN("not ready")
    try:
        await thread.block(file.queue, mask, deadline_ns)
    except TimedOut:
        raise errnos.ETIMEDOUT("not in time") from None


@syscall(242, errnos="EAGAIN EBADF EFAULT EINTR EINVAL EMSGSIZE ETIMEDOUT")
async def mq_timedsend(thread: Thread, fd: Fd, message: Pointer, size: Size, priority: UInt,
                       timeout: Pointer) -> int:  # noqa: ASYNC109  # the name it has in Linux
    """mq_timedsend(2): waits for room."""
    deadline_ns = _deadline(thread, timeout)
    if priority >= abi.MQ_PRIO_MAX:
        raise errnos.EINVAL(f"priority {priority}")
    file = _get_queue(thread, fd)
    if not file.writable:
        raise errnos.EBADF(f"fd {fd} is not open for sending")
    if size > file.messages.size_max:
        raise errnos.EMSGSIZE(f"messages here have up to {file.messages.size_max} bytes")
    text = thread.memory.read(message, size)
    file.references += 1
    try:
        while True:
            try:
                file.messages.try_send(text, priority, thread.process.pid, thread.credentials.ruid)
            except WouldBlock:
                await _wait(thread, file, WRITABLE, deadline_ns)
            else:
                return 0
    finally:
        await drop(file)


@syscall(243, errnos="EAGAIN EBADF EFAULT EINTR EINVAL EMSGSIZE ETIMEDOUT")
async def mq_timedreceive(thread: Thread, fd: Fd, buffer: Pointer, size: Size, priority: Pointer,
                          timeout: Pointer) -> int:  # noqa: ASYNC109  # the name it has in Linux
    """mq_timedreceive(2): waits for a message."""
    deadline_ns = _deadline(thread, timeout)
    file = _get_queue(thread, fd)
    if not file.readable:
        raise errnos.EBADF(f"fd {fd} is not open for receiving")
    text, got = await _receive(thread, file, size, deadline_ns)
    thread.memory.write(buffer, text)
    if priority:
        thread.memory.write_u32(priority, got)
    return len(text)


async def _receive(thread: Thread, file: QueueFile, size: int, deadline_ns: int | None) -> tuple[bytes, int]:
    queue = file.messages
    file.references += 1
    try:
        while True:
            try:
                return queue.try_receive(size)
            except WouldBlock:
                queue.receivers += 1
            try:
                await _wait(thread, file, READABLE, deadline_ns)
            finally:
                queue.receivers -= 1
    finally:
        await drop(file)


class SignalSubscriber:
    """A process that wants a signal, or just to hold the place (SIGEV_NONE)."""

    def __init__(self, process: Process, kind: int, signo: int, value: int) -> None:
        self.process = process
        self.pid = process.pid
        self.kind = kind
        self.signo = signo
        self.value = value

    def tell(self, sender_pid: int, sender_uid: int) -> None:
        """Sends the signal; a process that has gone gets none."""
        if self.kind == signal_h.SIGEV_SIGNAL and self.process.threads:
            info = SigInfo(self.signo, signal_h.SI_MESGQ, sender_pid, sender_uid, self.value)
            with suppress(errnos.EAGAIN):  # the receiver's full queue is no error of the sender
                send_to_process(self.process, info)


@syscall(244, errnos="EBADF EBUSY EFAULT EINVAL", missing="no SIGEV_THREAD")
def mq_notify(thread: Thread, fd: Fd, event: Pointer) -> int:
    """mq_notify(2): one process per queue; without an event it gives its place up."""
    fields = thread.memory.read_struct(event, signal_h.SIGEVENT) if event else None
    if fields is not None:
        _, signo, kind, _ = fields
        if kind not in (signal_h.SIGEV_NONE, signal_h.SIGEV_SIGNAL):
            raise errnos.EINVAL(f"notification {kind}")
        if kind == signal_h.SIGEV_SIGNAL and not 1 <= signo <= signal_h.NSIG:
            raise errnos.EINVAL(f"no signal {signo}")
    queue = _get_queue(thread, fd).messages
    present = queue.subscriber
    if fields is None:
        if present is not None and present.pid == thread.process.pid:
            queue.subscriber = None
        return 0
    if present is not None and present.pid in thread.kernel.processes:
        raise errnos.EBUSY("another process is registered")
    queue.subscriber = SignalSubscriber(thread.process, fields[2], fields[1], fields[0])
    return 0


@syscall(245, errnos="EBADF EFAULT EINVAL")
def mq_getsetattr(thread: Thread, fd: Fd, new: Pointer, old: Pointer) -> int:
    """mq_getsetattr(2): of the attributes only O_NONBLOCK can be changed."""
    wanted = thread.memory.read_struct(new, abi.MQ_ATTR)[0] if new else None
    if wanted is not None and wanted & ~fcntl_h.O_NONBLOCK:
        raise errnos.EINVAL(f"flags {wanted:#o}")
    file = _get_queue(thread, fd)
    queue = file.messages
    present = (file.flags & fcntl_h.O_NONBLOCK, queue.count_max, queue.size_max, len(queue.messages))
    if wanted is not None:
        file.flags = file.flags & ~fcntl_h.O_NONBLOCK | wanted
    if old:
        thread.memory.write_struct(old, abi.MQ_ATTR, *present)
    return 0
