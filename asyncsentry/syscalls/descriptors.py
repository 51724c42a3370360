"""What is done to a descriptor, whatever it stands for: fcntl(2) and ioctl(2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asyncsentry.abi import fcntl_h as abi
from asyncsentry.abi.capability_h import CAP_SYS_RESOURCE
from asyncsentry.abi.ioctls_h import FIGETBSZ, FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, FIONREAD, FIOQSIZE
from asyncsentry.abi.stat_h import S_IFDIR, S_IFLNK, S_IFREG
from asyncsentry.errnos import EBADF, EINVAL, ENOTTY, EPERM, ESRCH
from asyncsentry.fs.access import is_owner
from asyncsentry.fs.file import File
from asyncsentry.fs.path import location_of
from asyncsentry.fs.pipe import PipeFile
from asyncsentry.fs.vfs import inode_at
from asyncsentry.syscalls import filelocks
from asyncsentry.syscalls.args import Fd, Size, UInt
from asyncsentry.syscalls.attributes import open_file
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.sigio import owner_of
from asyncsentry.tasks.thread import Thread

_WITH_O_PATH = (abi.F_DUPFD, abi.F_DUPFD_CLOEXEC, abi.F_GETFD, abi.F_SETFD, abi.F_GETFL, abi.F_DUPFD_QUERY)
_SIGNALS_MAX = 64


# fcntl(2) ----------------------------------------------------------------------------------------


@syscall(72, errnos="EACCES EAGAIN EBADF EBUSY EDEADLK EFAULT EINTR EINVAL EMFILE ENOLCK EOVERFLOW EPERM ESRCH",
         missing="leases and F_NOTIFY: EINVAL; read/write hints are kept, but change nothing")
async def fcntl(thread: Thread, fd: Fd, command: UInt, argument: Size) -> int:
    """fcntl(2): EBADF first, for O_PATH descriptors too unless the command works for them."""
    file = thread.fds.get(fd)
    if file.flags & abi.O_PATH and command not in _WITH_O_PATH:
        raise EBADF(f"fd {fd} is only a place")
    handler = _COMMANDS.get(command)
    if handler is None:
        raise EINVAL(f"no fcntl command {command}")
    result: int | Awaitable[int] = handler(thread, fd, file, argument)
    return result if isinstance(result, int) else await result


def _duplicate(thread: Thread, fd: int, file: File, argument: int) -> int:
    return _duplicate_from(thread, file, argument, close_on_exec=False)


def _duplicate_close_on_exec(thread: Thread, fd: int, file: File, argument: int) -> int:
    return _duplicate_from(thread, file, argument, close_on_exec=True)


def _duplicate_from(thread: Thread, file: File, argument: int, close_on_exec: bool) -> int:
    at_least = argument & 0xFFFFFFFF
    if at_least >= thread.fds.limit:
        raise EINVAL("beyond RLIMIT_NOFILE")
    return thread.fds.install(file, close_on_exec, at_least)


def _is_same(thread: Thread, fd: int, file: File, argument: int) -> int:
    return int(thread.fds.files.get(argument & 0xFFFFFFFF) is file)


def _get_close_on_exec(thread: Thread, fd: int, file: File, argument: int) -> int:
    return abi.FD_CLOEXEC if fd in thread.fds.close_on_exec else 0


def _set_close_on_exec(thread: Thread, fd: int, file: File, argument: int) -> int:
    if argument & abi.FD_CLOEXEC:
        thread.fds.close_on_exec.add(fd)
    else:
        thread.fds.close_on_exec.discard(fd)
    return 0


def _get_flags(thread: Thread, fd: int, file: File, argument: int) -> int:
    return file.flags


def _set_flags(thread: Thread, fd: int, file: File, argument: int) -> int:
    wanted = argument & abi.O_SETTABLE
    if wanted & ~file.flags & abi.O_NOATIME and file.inode is not None and not is_owner(
            thread.credentials, file.inode):
        raise EPERM("O_NOATIME is for the owner")
    _set_async(thread, fd, file, bool(wanted & abi.O_ASYNC))
    file.flags = file.flags & ~abi.O_SETTABLE | wanted
    return 0


def _set_async(thread: Thread, fd: int, file: File, on: bool) -> None:
    if on != bool(file.flags & abi.O_ASYNC):
        owner_of(thread.kernel, file, fd).listen(on)
        file.flags = file.flags & ~abi.O_ASYNC | (abi.O_ASYNC if on else 0)


# ... owners and signals


def _set_owner(thread: Thread, fd: int, file: File, argument: int) -> int:
    target = ((argument & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    if target == -0x80000000:
        raise EINVAL("no such group")
    kind = abi.F_OWNER_PGRP if target < 0 else abi.F_OWNER_PID
    return _store_owner(thread, fd, file, kind, abs(target))


def _get_owner(thread: Thread, fd: int, file: File, argument: int) -> int:
    owner = owner_of(thread.kernel, file, fd)
    return -owner.target if owner.kind == abi.F_OWNER_PGRP else owner.target


def _set_owner_ex(thread: Thread, fd: int, file: File, argument: int) -> int:
    kind, target = thread.memory.read_struct(argument, abi.OWNER_EX)
    if kind not in (abi.F_OWNER_TID, abi.F_OWNER_PID, abi.F_OWNER_PGRP):
        raise EINVAL("no such kind of owner")
    return _store_owner(thread, fd, file, kind, target)


def _store_owner(thread: Thread, fd: int, file: File, kind: int, target: int) -> int:
    kernel = thread.kernel
    exists = {
        abi.F_OWNER_TID: target in kernel.threads,
        abi.F_OWNER_PID: target in kernel.processes,
        abi.F_OWNER_PGRP: any(process.group.pgid == target for process in kernel.processes.values()),
    }[kind]
    if target and not exists:
        raise ESRCH("nobody has that number")
    owner_of(kernel, file, fd).set_target(kind, target, thread.credentials)
    return 0


def _get_owner_ex(thread: Thread, fd: int, file: File, argument: int) -> int:
    owner = owner_of(thread.kernel, file, fd)
    thread.memory.write_struct(argument, abi.OWNER_EX, owner.kind, owner.target)
    return 0


def _get_owner_uids(thread: Thread, fd: int, file: File, argument: int) -> int:
    owner = owner_of(thread.kernel, file, fd)
    thread.memory.write_u32(argument, owner.uid)
    thread.memory.write_u32(argument + 4, owner.euid)
    return 0


def _set_signal(thread: Thread, fd: int, file: File, argument: int) -> int:
    if argument > _SIGNALS_MAX:
        raise EINVAL("no such signal")
    owner_of(thread.kernel, file, fd).signo = argument
    return 0


def _get_signal(thread: Thread, fd: int, file: File, argument: int) -> int:
    return owner_of(thread.kernel, file, fd).signo


# ... pipes and seals


def _get_pipe_size(thread: Thread, fd: int, file: File, argument: int) -> int:
    if not isinstance(file, PipeFile):
        raise EBADF(f"fd {fd} is no pipe")
    return file.pipe.capacity


def _set_pipe_size(thread: Thread, fd: int, file: File, argument: int) -> int:
    if not isinstance(file, PipeFile):
        raise EBADF(f"fd {fd} is no pipe")
    limit = thread.kernel.sysctls.integer("fs.pipe-max-size")
    return file.pipe.resize(argument & 0xFFFFFFFF, thread.credentials.has(CAP_SYS_RESOURCE), limit)


def _add_seals(thread: Thread, fd: int, file: File, argument: int) -> int:
    file.add_seals(argument & 0xFFFFFFFF)
    return 0


def _get_seals(thread: Thread, fd: int, file: File, argument: int) -> int:
    return file.get_seals()


def _get_write_hint(thread: Thread, fd: int, file: File, argument: int) -> int:
    thread.memory.write_u64(argument, 0 if file.inode is None else file.inode.write_hint)
    return 0


def _set_write_hint(thread: Thread, fd: int, file: File, argument: int) -> int:
    if file.inode is None or not is_owner(thread.credentials, file.inode):
        raise EPERM("only the owner says how long data will live")
    hint = thread.memory.read_u64(argument)
    if hint > abi.RWH_WRITE_LIFE_EXTREME:
        raise EINVAL(f"no hint {hint}")
    file.inode.write_hint = hint
    return 0


def _get_lease(thread: Thread, fd: int, file: File, argument: int) -> int:
    return abi.F_UNLCK  # nobody can have one


_COMMANDS: dict[int, Callable[[Thread, int, File, int], int | Awaitable[int]]] = {
    abi.F_DUPFD: _duplicate, abi.F_DUPFD_CLOEXEC: _duplicate_close_on_exec, abi.F_DUPFD_QUERY: _is_same,
    abi.F_GETFD: _get_close_on_exec, abi.F_SETFD: _set_close_on_exec, abi.F_GETFL: _get_flags,
    abi.F_SETFL: _set_flags, abi.F_GETLK: filelocks.get_lock, abi.F_SETLK: filelocks.set_lock,
    abi.F_SETLKW: filelocks.set_lock_wait, abi.F_OFD_GETLK: filelocks.get_ofd_lock,
    abi.F_OFD_SETLK: filelocks.set_ofd_lock, abi.F_OFD_SETLKW: filelocks.set_ofd_lock_wait,
    abi.F_SETOWN: _set_owner, abi.F_GETOWN: _get_owner, abi.F_SETOWN_EX: _set_owner_ex,
    abi.F_GETOWN_EX: _get_owner_ex, abi.F_GETOWNER_UIDS: _get_owner_uids, abi.F_SETSIG: _set_signal,
    abi.F_GETSIG: _get_signal, abi.F_GETPIPE_SZ: _get_pipe_size, abi.F_SETPIPE_SZ: _set_pipe_size,
    abi.F_ADD_SEALS: _add_seals, abi.F_GET_SEALS: _get_seals, abi.F_GETLEASE: _get_lease,
    abi.F_GET_RW_HINT: _get_write_hint, abi.F_SET_RW_HINT: _set_write_hint,
}  # fmt: skip


# ioctl(2) ----------------------------------------------------------------------------------------


@syscall(16, errnos="EBADF EFAULT EINVAL ENOTTY")
async def ioctl(thread: Thread, fd: Fd, request: UInt, argument: Size) -> int:
    """ioctl(2): what every descriptor knows is answered here, the rest by the file."""
    file = open_file(thread, fd)
    generic = _REQUESTS.get(request)
    if generic is not None:
        result = generic(thread, fd, file, argument)
        if result is not None:
            return result
    answer = file.ioctl(thread, request, argument)
    return answer if isinstance(answer, int) else await answer


def _close_on_exec(thread: Thread, fd: int, file: File, argument: int) -> int:
    return _set_close_on_exec(thread, fd, file, abi.FD_CLOEXEC)


def _keep_on_exec(thread: Thread, fd: int, file: File, argument: int) -> int:
    return _set_close_on_exec(thread, fd, file, 0)


def _set_nonblocking(thread: Thread, fd: int, file: File, argument: int) -> int:
    on = thread.memory.read_i32(argument)
    file.flags = file.flags & ~abi.O_NONBLOCK | (abi.O_NONBLOCK if on else 0)
    return 0


def _set_async_io(thread: Thread, fd: int, file: File, argument: int) -> int:
    _set_async(thread, fd, file, bool(thread.memory.read_i32(argument)))
    return 0


def _bytes_left(thread: Thread, fd: int, file: File, argument: int) -> int | None:
    if file.inode is None or file.inode.kind != S_IFREG:
        return None
    left = max(0, file.inode.stat().size - file.position)
    thread.memory.write_i32(argument, min(left, 0x7FFFFFFF))
    return 0


def _space_used(thread: Thread, fd: int, file: File, argument: int) -> int:
    if file.inode is None or file.inode.kind not in (S_IFREG, S_IFDIR, S_IFLNK):
        raise ENOTTY("takes no space")
    thread.memory.write_u64(argument, file.inode.stat().blocks * 512)
    return 0


def _block_size(thread: Thread, fd: int, file: File, argument: int) -> int:
    thread.memory.write_i32(argument, inode_at(location_of(file)).filesystem.statfs().block_size)
    return 0


_REQUESTS: dict[int, Callable[[Thread, int, File, int], int | None]] = {
    FIOCLEX: _close_on_exec, FIONCLEX: _keep_on_exec, FIONBIO: _set_nonblocking, FIOASYNC: _set_async_io,
    FIONREAD: _bytes_left, FIOQSIZE: _space_used, FIGETBSZ: _block_size,
}  # fmt: skip
