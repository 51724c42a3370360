"""Socket calls on a guest of the fake platform, with arguments as Python values."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from guest_thread import A, Guest, make_guest

from asyncsentry.abi import socket_h as s
from asyncsentry.fs.fdtable import FdTable
from asyncsentry.fs.mount import MountNamespace
from asyncsentry.fs.tmpfs import TmpFileSystem
from asyncsentry.net.sockets import Socket
from asyncsentry.syscalls import readwrite, socket_receive, socket_send, sockets
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.fscontext import FsContext
from asyncsentry.tasks.process import Process
from asyncsentry.tasks.thread import Thread

NAME, LENGTH, HEADER, VECTOR, CONTROL, DATA = A, A + 0x100, A + 0x200, A + 0x300, A + 0x400, A + 0x2000
INT = struct.Struct("<i")
UNIX = s.SA_FAMILY.pack(s.AF_UNIX)


class Message(NamedTuple):
    data: bytes
    name: bytes
    control: list[tuple[int, int, bytes]]
    flags: int


def unix(name: str | bytes) -> bytes:
    """Gives the address of a path, or of an abstract name that begins with ``@``."""
    raw = name.encode() if isinstance(name, str) else name
    return UNIX + (b"\0" + raw[1:] if raw[:1] == b"@" else raw + b"\0")


class SocketGuest:
    """A guest thread and its socket calls."""

    def __init__(self, guest: Guest, memory_offset: int = 0) -> None:
        self.guest = guest
        self.thread = guest.thread
        self.memory = guest.memory
        self.offset = memory_offset

    def second_thread(self) -> SocketGuest:
        return SocketGuest(self.guest.add_thread(), self.offset + 0x8000)

    def second_process(self, credentials: Credentials | None = None) -> SocketGuest:
        """Gives a process with descriptors of its own; memory is shared, to keep the test simple."""
        first = self.thread
        kernel = first.kernel
        process = Process(kernel, kernel.allocate_pid(), first.process, first.process.group)
        kernel.processes[process.pid] = process
        thread = Thread(kernel, process, process.pid, first.context, first.memory, FdTable(1024), first.fs,
                        credentials or first.credentials, "other")
        process.threads[thread.tid] = thread
        return SocketGuest(Guest(thread, self.guest.clock), self.offset + 0x8000)

    def at(self, place: int) -> int:
        return place + self.offset

    def file(self, fd: int) -> Socket:
        file = self.thread.fds.get(fd)
        assert isinstance(file, Socket)
        return file

    def poll(self, fd: int) -> int:
        return self.file(fd).poll()

    async def socket(self, kind: int = s.SOCK_STREAM, domain: int = s.AF_UNIX, protocol: int = 0) -> int:
        return await sockets.socket(self.thread, domain, kind, protocol)

    async def pair(self, kind: int = s.SOCK_STREAM) -> tuple[int, int]:
        await sockets.socketpair(self.thread, s.AF_UNIX, kind, 0, self.at(NAME))
        return struct.unpack("<ii", self.memory.read(self.at(NAME), 8))

    async def close(self, *fds: int) -> None:
        for fd in fds:
            await self.thread.fds.close(fd)

    def put(self, place: int, data: bytes) -> int:
        self.memory.write(self.at(place), data)
        return self.at(place)

    async def bind(self, fd: int, name: bytes) -> None:
        await sockets.bind(self.thread, fd, self.put(NAME, name), len(name))

    async def connect(self, fd: int, name: bytes) -> int:
        return await sockets.connect(self.thread, fd, self.put(NAME, name), len(name))

    def listen(self, fd: int, backlog: int = 5) -> None:
        sockets.listen(self.thread, fd, backlog)

    async def listener(self, name: bytes, kind: int = s.SOCK_STREAM, backlog: int = 5) -> int:
        fd = await self.socket(kind)
        await self.bind(fd, name)
        self.listen(fd, backlog)
        return fd

    async def accept(self, fd: int, flags: int = 0) -> tuple[int, bytes]:
        self.put(LENGTH, INT.pack(128))
        accepted = await sockets.accept4(self.thread, fd, self.at(NAME), self.at(LENGTH), flags)
        return accepted, self._name()

    def _name(self) -> bytes:
        return self.memory.read(self.at(NAME), self.memory.read_i32(self.at(LENGTH)))

    def local_name(self, fd: int) -> bytes:
        self.put(LENGTH, INT.pack(128))
        sockets.getsockname(self.thread, fd, self.at(NAME), self.at(LENGTH))
        return self._name()

    def peer_name(self, fd: int) -> bytes:
        self.put(LENGTH, INT.pack(128))
        sockets.getpeername(self.thread, fd, self.at(NAME), self.at(LENGTH))
        return self._name()

    def set(self, fd: int, name: int, value: int | bytes, level: int = s.SOL_SOCKET) -> None:
        content = INT.pack(value) if isinstance(value, int) else value
        sockets.setsockopt(self.thread, fd, level, name, self.put(VECTOR, content), len(content))

    def get(self, fd: int, name: int, level: int = s.SOL_SOCKET, room: int = 4) -> bytes:
        self.put(LENGTH, INT.pack(room))
        sockets.getsockopt(self.thread, fd, level, name, self.at(VECTOR), self.at(LENGTH))
        return self.memory.read(self.at(VECTOR), self.memory.read_i32(self.at(LENGTH)))

    def get_int(self, fd: int, name: int, level: int = s.SOL_SOCKET) -> int:
        return INT.unpack(self.get(fd, name, level))[0]

    async def send(self, fd: int, data: bytes, flags: int = 0, to: bytes = b"") -> int:
        place = self.put(NAME, to) if to else 0
        return await finish(socket_send.sendto(self.thread, fd, self.put(DATA, data), len(data), flags, place, len(to)))

    async def recv(self, fd: int, count: int = 0x1000, flags: int = 0) -> bytes:
        length = await finish(socket_receive.recvfrom(self.thread, fd, self.at(DATA), count, flags, 0, 0))
        return self.memory.read(self.at(DATA), min(length, count))

    async def recvfrom(self, fd: int, count: int = 0x1000, flags: int = 0) -> tuple[bytes, bytes]:
        self.put(LENGTH, INT.pack(128))
        length = await finish(socket_receive.recvfrom(self.thread, fd, self.at(DATA), count, flags, self.at(NAME),
                                                      self.at(LENGTH)))
        return self.memory.read(self.at(DATA), min(length, count)), self._name()

    async def sendmsg(self, fd: int, data: bytes, control: Sequence[tuple[int, int, bytes]] = (), flags: int = 0,
                      to: bytes = b"") -> int:
        packed = b"".join(pack_control(*message) for message in control)
        self.put(DATA, data)
        self.put(VECTOR, struct.pack("<QQ", self.at(DATA), len(data)))
        self.put(HEADER, s.MSGHDR.pack(self.put(NAME, to) if to else 0, len(to), self.at(VECTOR), 1,
                                       self.put(CONTROL, packed), len(packed), 0))
        return await socket_send.sendmsg(self.thread, fd, self.at(HEADER), flags)

    async def recvmsg(self, fd: int, count: int = 0x1000, control: int = 0x200, flags: int = 0) -> Message:
        self.put(VECTOR, struct.pack("<QQ", self.at(DATA), count))
        self.put(HEADER, s.MSGHDR.pack(self.at(NAME), 128, self.at(VECTOR), 1, self.at(CONTROL), control, 0))
        length = await socket_receive.recvmsg(self.thread, fd, self.at(HEADER), flags)
        header = s.MSGHDR.unpack(self.memory.read(self.at(HEADER), s.MSGHDR.size))
        return Message(self.memory.read(self.at(DATA), min(length, count)), self.memory.read(self.at(NAME), header[1]),
                       unpack_control(self.memory.read(self.at(CONTROL), header[5])), header[6])

    async def read(self, fd: int, count: int = 0x1000) -> bytes:
        length = await finish(readwrite.read(self.thread, fd, self.at(DATA), count))
        return self.memory.read(self.at(DATA), length)

    async def write(self, fd: int, data: bytes) -> int:
        return await finish(readwrite.write(self.thread, fd, self.put(DATA, data), len(data)))


async def finish(result: int | Awaitable[int]) -> int:
    """Gives what a call that may or may not have to wait comes to."""
    return result if isinstance(result, int) else await result


def pack_control(level: int, kind: int, data: bytes) -> bytes:
    packed = s.CMSGHDR.pack(s.CMSGHDR.size + len(data), level, kind) + data
    return packed + bytes(-len(packed) % 8)


def unpack_control(content: bytes) -> list[tuple[int, int, bytes]]:
    messages = []
    while len(content) >= s.CMSGHDR.size:
        size, level, kind = s.CMSGHDR.unpack_from(content)
        messages.append((level, kind, content[s.CMSGHDR.size : size]))
        content = content[(size + 7) & -8 :]
    return messages


def rights(*fds: int) -> tuple[int, int, bytes]:
    return s.SOL_SOCKET, s.SCM_RIGHTS, b"".join(INT.pack(fd) for fd in fds)


def fds_in(message: Message) -> list[int]:
    return [fd for level, kind, data in message.control if (level, kind) == (s.SOL_SOCKET, s.SCM_RIGHTS)
            for (fd,) in INT.iter_unpack(data)]


async def make_socket_guest() -> SocketGuest:
    """Makes a guest whose root is an empty tmpfs."""
    guest = await make_guest()
    filesystem = TmpFileSystem(guest.kernel.allocate_device(), guest.kernel.clock)
    guest.kernel.mounts = MountNamespace(filesystem)
    root = guest.kernel.mounts.root
    guest.thread.fs = FsContext(root, root)
    guest.kernel.processes[guest.thread.process.pid] = guest.thread.process
    return SocketGuest(guest)
