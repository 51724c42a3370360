"""What a program sees of sendfile(2), splice(2), tee(2), vmsplice(2) and copy_file_range(2)."""

from __future__ import annotations

import stat
import struct
from types import SimpleNamespace

import pytest
from guest_thread import A, Guest, awaited, make_guest

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import O_APPEND, O_NONBLOCK, O_RDWR
from asyncsentry.abi.uio_h import RWF_APPEND, RWF_NOWAIT, SPLICE_F_NONBLOCK
from asyncsentry.fs.anon import PIPE_FS, AnonInode
from asyncsentry.fs.file import File
from asyncsentry.fs.inode import Inode
from asyncsentry.fs.pipe import PipeFile, make_pipe
from asyncsentry.syscalls import readwrite
from asyncsentry.syscalls.readwrite import preadv2, pwritev2
from asyncsentry.syscalls.splice import copy_file_range, sendfile, splice, tee, vmsplice

pread64 = awaited(readwrite.pread64)
pwrite64 = awaited(readwrite.pwrite64)
read = awaited(readwrite.read)
write = awaited(readwrite.write)


class MemoryFile(File):
    """A regular file of bytes."""

    seekable = True

    def __init__(self, content: bytes, flags: int = O_RDWR, inode: Inode | None = None) -> None:
        super().__init__(inode or AnonInode(PIPE_FS, 5, stat.S_IFREG), flags)
        self.content = bytearray(content)
        size = len(content)
        self.inode.stat = lambda: SimpleNamespace(size=size)

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        start = self.position if offset is None else offset
        data = bytes(self.content[start : start + count])
        if offset is None:
            self.position += len(data)
        return data

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        start = self.position if offset is None else offset
        if self.flags & O_APPEND:
            start = len(self.content)
        self.content[start : start + len(data)] = data
        if offset is None:
            self.position = start + len(data)
        return len(data)


@pytest.fixture
async def guest() -> Guest:
    return await make_guest()


def install(guest: Guest, *files: File) -> list[int]:
    return [guest.thread.fds.install(file) for file in files]


def pipe(guest: Guest, flags: int = 0) -> tuple[int, int, PipeFile, PipeFile]:
    r, w = make_pipe(1, flags)
    return *install(guest, r, w), r, w


def set_offset(guest: Guest, value: int, address: int = A) -> int:
    guest.memory.write_i64(address, value)
    return address


async def test_sendfile_moves_the_position_or_the_offset(guest):
    source = MemoryFile(b"0123456789")
    fd, = install(guest, source)
    _, w, reader, _ = pipe(guest)
    assert await sendfile(guest.thread, w, fd, 0, 4) == 4
    assert source.position == 4
    assert await sendfile(guest.thread, w, fd, set_offset(guest, 8), 100) == 2
    assert guest.memory.read_i64(A) == 10
    assert source.position == 4
    assert reader.try_read(100) == b"012389"
    assert await sendfile(guest.thread, w, fd, A, 100) == 0


async def test_sendfile_of_more_than_the_pipe_holds_waits_or_gives_a_part(guest):
    source = MemoryFile(bytes(100_000))
    fd, = install(guest, source)
    r, w, _, _ = pipe(guest)
    sending = await guest.start(sendfile(guest.thread, w, fd, 0, 100_000))
    other = guest.add_thread()
    for _ in range(2):
        await read(other.thread, r, A, 60_000)
    assert await sending == 100_000
    source.position = 0
    _, w, _, _ = pipe(guest, O_NONBLOCK)
    assert await sendfile(guest.thread, w, fd, 0, 100_000) == 65536
    assert source.position == 65536
    with pytest.raises(errnos.EAGAIN):
        await sendfile(guest.thread, w, fd, 0, 1)


async def test_sendfile_errors(guest):
    fd, appending = install(guest, MemoryFile(b"x"), MemoryFile(b"", O_RDWR | O_APPEND))
    r, w, _, _ = pipe(guest)
    with pytest.raises(errnos.EINVAL):
        await sendfile(guest.thread, w, r, 0, 1)
    with pytest.raises(errnos.ESPIPE):
        await sendfile(guest.thread, w, r, set_offset(guest, 0), 1)
    with pytest.raises(errnos.EINVAL):
        await sendfile(guest.thread, appending, fd, 0, 1)
    with pytest.raises(errnos.EBADF):
        await sendfile(guest.thread, r, fd, 0, 1)
    with pytest.raises(errnos.EINVAL):
        await sendfile(guest.thread, w, fd, set_offset(guest, -1), 1)
    await guest.thread.fds.close(r)
    with pytest.raises(errnos.EPIPE):
        await sendfile(guest.thread, w, fd, 0, 1)


async def test_splice_from_file_to_pipe_to_file(guest):
    source, target = MemoryFile(b"hello splice"), MemoryFile(b"")
    a, b = install(guest, source, target)
    r, w, _, _ = pipe(guest)
    assert await splice(guest.thread, a, set_offset(guest, 6), w, 0, 100, 0) == 6
    assert guest.memory.read_i64(A) == 12
    assert await splice(guest.thread, r, 0, b, 0, 3, 0) == 3
    assert await splice(guest.thread, r, 0, b, set_offset(guest, 5), 100, 0) == 3
    assert bytes(target.content[:3]) == b"spl"
    assert bytes(target.content[-3:]) == b"ice"
    with pytest.raises(errnos.EAGAIN):
        await splice(guest.thread, r, 0, b, 0, 1, SPLICE_F_NONBLOCK)
    await guest.thread.fds.close(w)
    assert await splice(guest.thread, r, 0, b, 0, 1, 0) == 0


async def test_splice_between_pipes_and_what_the_target_refuses_stays(guest):
    r1, w1, reader1, writer1 = pipe(guest)
    _, w2, reader2, _ = pipe(guest)
    writer1.try_write(b"abcdef")
    assert await splice(guest.thread, r1, 0, w2, 0, 4, 0) == 4
    assert reader2.try_read(10) == b"abcd"
    with pytest.raises(errnos.EINVAL):
        await splice(guest.thread, r1, 0, w1, 0, 4, 0)

    class Full(File):
        def try_write(self, data: bytes, offset: int | None = None) -> int:
            raise errnos.WouldBlock

    full, = install(guest, Full(None, O_RDWR | O_NONBLOCK))
    with pytest.raises(errnos.EAGAIN):
        await splice(guest.thread, r1, 0, full, 0, 4, 0)
    assert reader1.try_read(10) == b"ef"


async def test_splice_errors(guest):
    a, b = install(guest, MemoryFile(b"x"), MemoryFile(b""))
    r, w, _, _ = pipe(guest)
    set_offset(guest, 0)
    for arguments, error in (
        ((a, 0, b, 0, 1, 0), errnos.EINVAL), ((r, A, b, 0, 1, 0), errnos.ESPIPE), ((a, 0, w, A, 1, 0), errnos.ESPIPE),
        ((a, 0, w, 0, 1, 64), errnos.EINVAL), ((w, 0, b, 0, 1, 0), errnos.EBADF), ((99, 0, b, 0, 1, 0), errnos.EBADF),
    ):  # fmt: skip
        with pytest.raises(error):
            await splice(guest.thread, *arguments)


async def test_tee_copies_and_leaves(guest):
    r1, _, reader1, writer1 = pipe(guest)
    _, w2, reader2, _ = pipe(guest)
    writer1.try_write(b"abc")
    writer1.try_write(b"def")
    assert await tee(guest.thread, r1, w2, 5, 0) == 5
    assert reader2.try_read(10) == b"abcde"
    assert reader1.try_read(10) == b"abcdef"
    with pytest.raises(errnos.EAGAIN):
        await tee(guest.thread, r1, w2, 5, SPLICE_F_NONBLOCK)


async def test_vmsplice_goes_both_ways(guest):
    r, w, _, _ = pipe(guest)
    guest.memory.write(A, struct.pack("<QQQQ", A + 100, 3, A + 200, 3) + bytes(68) + b"one" + bytes(97) + b"two")
    assert await vmsplice(guest.thread, w, A, 2, 0) == 6
    guest.memory.write(A, struct.pack("<QQ", A + 300, 6))
    assert await vmsplice(guest.thread, r, A, 1, 0) == 6
    assert guest.memory.read(A + 300, 6) == b"onetwo"
    with pytest.raises(errnos.EBADF):
        await vmsplice(guest.thread, *install(guest, MemoryFile(b"")), A, 1, 0)


async def test_copy_file_range(guest):
    source, target = MemoryFile(b"0123456789"), MemoryFile(b"abcdef")
    a, b = install(guest, source, target)
    assert await copy_file_range(guest.thread, a, 0, b, set_offset(guest, 3), 3, 0) == 3
    assert bytes(target.content) == b"abc012"
    assert (source.position, guest.memory.read_i64(A), target.position) == (3, 6, 0)
    with pytest.raises(errnos.EINVAL):
        await copy_file_range(guest.thread, a, 0, a, A, 5, 0)
    with pytest.raises(errnos.EINVAL):
        await copy_file_range(guest.thread, a, 0, b, 0, 3, 1)
    r, _, _, _ = pipe(guest)
    with pytest.raises(errnos.EINVAL):
        await copy_file_range(guest.thread, r, 0, b, 0, 3, 0)


async def test_positioned_reads_and_writes_leave_the_position(guest):
    file = MemoryFile(b"0123456789")
    fd, = install(guest, file)
    guest.memory.write(A, b"XY")
    assert await pwrite64(guest.thread, fd, A, 2, 4) == 2
    assert await pread64(guest.thread, fd, A, 100, 3) == 7
    assert guest.memory.read(A, 7) == b"3XY6789"
    with pytest.raises(errnos.EFAULT):
        await pread64(guest.thread, fd, 0x10, 1, 3)
    assert file.position == 0
    with pytest.raises(errnos.EINVAL):
        await pread64(guest.thread, fd, A, 1, -1)
    r, w, _, _ = pipe(guest)
    with pytest.raises(errnos.ESPIPE):
        await pread64(guest.thread, r, A, 1, 0)
    with pytest.raises(errnos.ESPIPE):
        await pwrite64(guest.thread, w, A, 1, 0)
    with pytest.raises(errnos.EFAULT):
        await read(guest.thread, fd, A, 1 << 63)


async def test_flags_of_one_call(guest):
    file = MemoryFile(b"0123")
    fd, = install(guest, file)
    guest.memory.write(A, struct.pack("<QQ", A + 16, 2) + b"zz")
    assert await pwritev2(guest.thread, fd, A, 1, -1, 0, RWF_APPEND) == 2
    assert bytes(file.content) == b"0123zz"
    assert not file.flags & O_APPEND
    with pytest.raises(errnos.EOPNOTSUPP):
        await preadv2(guest.thread, fd, A, 1, -1, 0, 0x8000)
    r, _, _, _ = pipe(guest)
    with pytest.raises(errnos.EAGAIN):
        await preadv2(guest.thread, r, A, 1, -1, 0, RWF_NOWAIT)


async def test_large_transfers_go_in_chunks(guest):
    file = MemoryFile(bytes(3_000_000))
    fd, = install(guest, file)
    with pytest.raises(errnos.EFAULT):
        await read(guest.thread, fd, 0x10, 3_000_000)
    assert file.position == 0
    assert await read(guest.thread, fd, A, 3_000_000) == 65536
    assert file.position == 65536
    assert await write(guest.thread, fd, A, 3_000_000) == 65536


async def test_a_file_size_limit_cuts_short_then_kills(guest):
    file = MemoryFile(b"")
    fd, = install(guest, file)
    guest.thread.process.limits.set(1, 100, 100)
    assert await write(guest.thread, fd, A, 150) == 100
    with pytest.raises(errnos.EFBIG):
        await write(guest.thread, fd, A, 1)
    assert guest.thread.pending.mask == 1 << 24
