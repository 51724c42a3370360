"""Making, naming and connecting sockets, and their options. Sending and receiving: ``socket_messages.py``."""

from __future__ import annotations

from asyncsentry import errnos
from asyncsentry.abi import socket_h as s
from asyncsentry.errnos import LinuxError, TimedOut, WouldBlock
from asyncsentry.fs.fdtable import drop
from asyncsentry.net.families import install_families
from asyncsentry.net.sockets import Socket, SocketFamily
from asyncsentry.syscalls.args import Buffer, Fd, Flags, Int, Pointer
from asyncsentry.syscalls.registry import syscall
from asyncsentry.syscalls.socket_addresses import get_socket, read_address, wait_queue, write_address
from asyncsentry.syscalls.transfer import READ_EVENTS, retry, timeout_deadline
from asyncsentry.tasks.thread import Thread

_OPTION_SIZE_MAX = 1 << 16


def _family(thread: Thread, domain: int, kind: int) -> SocketFamily:
    families = thread.kernel.socket_families
    if not families:
        install_families(thread.kernel)
    if not 0 <= domain < s.AF_MAX or domain not in families:
        raise errnos.EAFNOSUPPORT(f"no address family {domain}")
    if not 0 <= kind < s.SOCK_MAX:
        raise errnos.EINVAL(f"no socket type {kind}")
    return families[domain]


def _split_type(kind: int) -> tuple[int, int]:
    flags = kind & ~s.SOCK_TYPE_MASK
    if flags & ~(s.SOCK_NONBLOCK | s.SOCK_CLOEXEC):
        raise errnos.EINVAL(f"type flags {flags:#x}")
    return kind & s.SOCK_TYPE_MASK, flags


@syscall(41, errnos="EACCES EAFNOSUPPORT EINVAL EMFILE ENFILE ENOBUFS EPROTONOSUPPORT ESOCKTNOSUPPORT EPERM")
async def socket(thread: Thread, domain: Int, kind: Int, protocol: Int) -> int:
    """socket(2)."""
    bare, flags = _split_type(kind)
    made = _family(thread, domain, bare).create(thread.kernel, thread, bare, protocol, flags & s.SOCK_NONBLOCK)
    return await _install(thread, made, flags)


async def _install(thread: Thread, made: Socket, flags: int) -> int:
    """Gives a new socket a descriptor, or closes it if there is none left."""
    try:
        return thread.fds.install(made, bool(flags & s.SOCK_CLOEXEC))
    except LinuxError:
        await made.release()
        raise


@syscall(53, errnos="EAFNOSUPPORT EFAULT EINVAL EMFILE ENFILE EOPNOTSUPP EPROTONOSUPPORT ESOCKTNOSUPPORT")
async def socketpair(thread: Thread, domain: Int, kind: Int, protocol: Int, fds: Pointer) -> int:
    """socketpair(2): numbers are given out and written before anything else is done, so EFAULT leaves nothing."""
    bare, flags = _split_type(kind)
    pair = _family(thread, domain, bare).pair(thread.kernel, thread, bare, protocol, flags & s.SOCK_NONBLOCK)
    numbers: list[int] = []
    try:
        for end in pair:
            numbers.append(thread.fds.install(end, bool(flags & s.SOCK_CLOEXEC)))
        thread.memory.write(fds, b"".join(number.to_bytes(4, "little") for number in numbers))
    except LinuxError:
        for number in numbers:
            await thread.fds.close(number)
        for end in pair[len(numbers) :]:
            await end.release()
        raise
    return 0


@syscall(49, errnos="EACCES EADDRINUSE EADDRNOTAVAIL EBADF EFAULT EINVAL ELOOP ENAMETOOLONG ENOENT ENOTDIR "
                    "ENOTSOCK EROFS")
async def bind(thread: Thread, fd: Fd, address: Pointer, length: Int) -> int:
    """bind(2)."""
    sock = get_socket(thread, fd)
    await sock.bind(thread, read_address(thread, address, length))
    return 0


@syscall(50, errnos="EADDRINUSE EBADF EINVAL ENOTSOCK EOPNOTSUPP")
def listen(thread: Thread, fd: Fd, backlog: Int) -> int:
    """listen(2)."""
    get_socket(thread, fd).listen(backlog, thread)
    return 0


@syscall(43, errnos="EAGAIN EBADF ECONNABORTED EFAULT EINTR EINVAL EMFILE ENFILE ENOTSOCK EOPNOTSUPP EPERM")
async def accept(thread: Thread, fd: Fd, address: Pointer, length: Pointer) -> int:
    """accept(2)."""
    return await _accept(thread, fd, address, length, 0)


@syscall(288, errnos="EAGAIN EBADF ECONNABORTED EFAULT EINTR EINVAL EMFILE ENFILE ENOTSOCK EOPNOTSUPP EPERM")
async def accept4(thread: Thread, fd: Fd, address: Pointer, length: Pointer, flags: Flags) -> int:
    """accept4(2): SOCK_NONBLOCK, SOCK_CLOEXEC."""
    return await _accept(thread, fd, address, length, flags)


async def _accept(thread: Thread, fd: int, address: int, length: int, flags: int) -> int:
    if flags & ~(s.SOCK_NONBLOCK | s.SOCK_CLOEXEC):
        raise errnos.EINVAL(f"flags {flags:#x}")
    sock = get_socket(thread, fd)
    thread.fds.lowest_free()  # EMFILE comes before the wait, as Linux reserves the number first
    status = flags & s.SOCK_NONBLOCK
    accepted = await retry(thread, sock, lambda: sock.try_accept(status), READ_EVENTS,
                           nonblocking=sock.is_nonblocking(0), timeout_ns=sock.read_timeout_ns)
    try:
        if address:
            write_address(thread, accepted.peer_name(), address, length)
    except errnos.ENOTCONN:
        await accepted.release()
        raise errnos.ECONNABORTED("the peer has gone already") from None
    except LinuxError:
        await accepted.release()
        raise
    return await _install(thread, accepted, flags)


@syscall(42, errnos="EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF ECONNREFUSED EFAULT "
                    "EINPROGRESS EINTR EINVAL EISCONN ENETUNREACH ENOENT ENOTSOCK EPERM EPROTOTYPE ETIMEDOUT")
async def connect(thread: Thread, fd: Fd, address: Pointer, length: Int) -> int:
    """connect(2): with SO_SNDTIMEO it gives up in time, leaving an Internet connection in progress."""
    sock = get_socket(thread, fd)
    name = read_address(thread, address, length)
    if len(name) >= s.SA_FAMILY.size and s.SA_FAMILY.unpack_from(name)[0] == s.AF_UNSPEC:
        sock.disconnect()
        return 0
    sock.references += 1
    try:
        await _connect(thread, sock, await sock.find_target(thread, name))
    finally:
        await drop(sock)
    return 0


async def _connect(thread: Thread, sock: Socket, target: object) -> None:
    deadline_ns = timeout_deadline(thread, sock.write_timeout_ns)
    while True:
        try:
            return sock.try_connect(target, thread)
        except WouldBlock:
            if sock.is_nonblocking(0):
                raise sock.connect_unfinished() from None
        queue, mask = sock.connect_wait(target)
        try:
            await wait_queue(thread, queue, mask, deadline_ns)
        except TimedOut:
            raise sock.connect_unfinished() from None


@syscall(51, errnos="EBADF EFAULT EINVAL ENOBUFS ENOTSOCK")
def getsockname(thread: Thread, fd: Fd, address: Pointer, length: Pointer) -> int:
    """getsockname(2)."""
    write_address(thread, get_socket(thread, fd).local_name(), address, length)
    return 0


@syscall(52, errnos="EBADF EFAULT EINVAL ENOBUFS ENOTCONN ENOTSOCK")
def getpeername(thread: Thread, fd: Fd, address: Pointer, length: Pointer) -> int:
    """getpeername(2)."""
    write_address(thread, get_socket(thread, fd).peer_name(), address, length)
    return 0


@syscall(48, errnos="EBADF EINVAL ENOTCONN ENOTSOCK")
def shutdown(thread: Thread, fd: Fd, how: Int) -> int:
    """shutdown(2)."""
    sock = get_socket(thread, fd)
    if how not in (s.SHUT_RD, s.SHUT_WR, s.SHUT_RDWR):
        raise errnos.EINVAL(f"no direction {how}")
    sock.shutdown(how)
    return 0


@syscall(54, errnos="EBADF EDOM EFAULT EINVAL ENOPROTOOPT ENOTSOCK EOPNOTSUPP EPERM")
def setsockopt(thread: Thread, fd: Fd, level: Int, name: Int, value: Buffer, length: Int) -> int:
    """setsockopt(2)."""
    if length < 0:
        raise errnos.EINVAL("negative length")
    sock = get_socket(thread, fd)
    sock.set_option(thread, level, name, thread.memory.read(value, min(length, _OPTION_SIZE_MAX)))
    return 0


@syscall(55, errnos="EBADF EFAULT EINVAL ENODATA ENOPROTOOPT ENOTSOCK EOPNOTSUPP ERANGE")
def getsockopt(thread: Thread, fd: Fd, level: Int, name: Int, value: Pointer, length: Pointer) -> int:
    """getsockopt(2): a value longer than the buffer is cut, silently."""
    sock = get_socket(thread, fd)
    room = thread.memory.read_i32(length)
    if room < 0:
        raise errnos.EINVAL("negative length")
    content = sock.get_option(level, name, room)
    if level == s.SOL_SOCKET and name == s.SO_PEERGROUPS and len(content) > room:
        thread.memory.write_u32(length, len(content))
        raise errnos.ERANGE(f"{len(content)} bytes of groups")
    content = content[:room]
    thread.memory.write(value, content)
    thread.memory.write_u32(length, len(content))
    return 0


