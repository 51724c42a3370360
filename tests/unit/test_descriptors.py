"""Descriptors: dup, close_range, fcntl, ioctl, signal-driven I/O, statx, xattrs, fallocate."""

from __future__ import annotations

import os

import pytest
from file_guest import BUFFER, FileGuest, make_file_guest

from asyncsentry import errnos
from asyncsentry.abi import fcntl_h as abi
from asyncsentry.abi.ioctls_h import FIONBIO, FIONREAD
from asyncsentry.abi.stat_h import STATX
from asyncsentry.fs.pipe import make_pipe


async def opened(content: bytes = b"content") -> tuple[FileGuest, int]:
    guest = await make_file_guest()
    await guest.write_file("/file", content)
    return guest, await guest.open("/file", abi.O_RDWR)


async def test_dup_takes_the_lowest_number_and_shares_the_position() -> None:
    guest, fd = await opened()
    await guest.call("close", await guest.open("/file"))
    copy = await guest.call("dup", fd)
    assert copy == fd + 1
    await guest.call("lseek", copy, 3, 0)
    assert await guest.call("lseek", fd, 0, 1) == 3
    assert await guest.call("dup2", fd, 40) == 40
    assert await guest.call("fcntl", fd, abi.F_DUPFD_CLOEXEC, 40) == 41
    assert await guest.call("fcntl", 41, abi.F_GETFD, 0) == abi.FD_CLOEXEC


@pytest.mark.parametrize(
    ("call", "arguments", "error"),
    [
        ("dup", (99,), "EBADF"), ("dup2", (99, 99), "EBADF"), ("dup2", (0, 5000), "EBADF"), ("dup2", (0, -1), "EBADF"),
        ("dup3", (0, 0, 0), "EINVAL"), ("dup3", (0, 1, 1), "EINVAL"), ("fcntl", (0, abi.F_DUPFD, 5000), "EINVAL"),
        ("fcntl", (0, 999, 0), "EINVAL"), ("fcntl", (0, abi.F_GETPIPE_SZ, 0), "EBADF"), ("ioctl", (0, 1, 0), "ENOTTY"),
        ("close_range", (5, 3, 0), "EINVAL"), ("close_range", (3, 5, 1), "EINVAL"), ("lseek", (0, -1, 0), "EINVAL"),
        ("lseek", (0, 0, 9), "EINVAL"), ("fallocate", (0, 0, 0, 0), "EINVAL"),
        ("fallocate", (0, 2, 0, 1), "EOPNOTSUPP"),
        ("fallocate", (0, 0x40000000, 0, 1), "EOPNOTSUPP"), ("getdents64", (0, BUFFER, 100), "ENOTDIR"),
        ("ftruncate", (0, -1), "EINVAL"), ("fcntl", (0, abi.F_SETOWN, 4000), "ESRCH"), ("flock", (0, 3), "EINVAL"),
        ("fcntl", (0, abi.F_SETSIG, 65), "EINVAL"), ("fadvise64", (0, 0, 0, 9), "EINVAL"), ("fchdir", (0,), "ENOTDIR"),
    ],
)  # fmt: skip
async def test_calls_on_descriptors_say_what_is_wrong(call: str, arguments: tuple[int, ...], error: str) -> None:
    guest, fd = await opened()
    assert fd == 0
    with pytest.raises(getattr(errnos, error)):
        await guest.call(call, *arguments)


async def test_close_range_closes_or_marks() -> None:
    guest, fd = await opened()
    for number in (5, 6, 7):
        await guest.call("dup2", fd, number)
    await guest.call("close_range", 6, 0xFFFFFFFF, 4)
    assert guest.thread.fds.close_on_exec == {6, 7}
    await guest.call("close_range", 5, 6, 0)
    assert sorted(guest.thread.fds.files) == [fd, 7]


async def test_status_flags_are_set_and_shown() -> None:
    guest, fd = await opened()
    assert await guest.call("fcntl", fd, abi.F_GETFL, 0) == abi.O_RDWR | abi.O_LARGEFILE
    await guest.call("fcntl", fd, abi.F_SETFL, abi.O_APPEND | abi.O_NONBLOCK | abi.O_CREAT | abi.O_WRONLY)
    assert await guest.call("fcntl", fd, abi.F_GETFL, 0) == (
        abi.O_RDWR | abi.O_LARGEFILE | abi.O_APPEND | abi.O_NONBLOCK)
    guest.memory.write(BUFFER, bytes(4))
    await guest.call("ioctl", fd, FIONBIO, BUFFER)
    assert not await guest.call("fcntl", fd, abi.F_GETFL, 0) & abi.O_NONBLOCK


async def test_append_writes_at_the_end_wherever_the_position_is() -> None:
    guest, _ = await opened()
    other = await guest.open("/file", abi.O_WRONLY | abi.O_APPEND)
    guest.thread.fds.get(other).try_write(b"!")
    guest.thread.fds.get(other).try_write(b"?", 0)
    assert await guest.read_file("/file") == b"content!?"


async def test_fionread_tells_what_is_left() -> None:
    guest, fd = await opened()
    await guest.call("lseek", fd, 3, 0)
    await guest.call("ioctl", fd, FIONREAD, BUFFER)
    assert guest.memory.read_i32(BUFFER) == 4


async def test_an_owner_gets_sigio_when_a_pipe_has_data() -> None:
    guest, _ = await opened()
    reader, writer = make_pipe(9)
    fd = guest.thread.fds.install(reader)
    await guest.call("fcntl", fd, abi.F_SETOWN, guest.thread.process.pid)
    assert await guest.call("fcntl", fd, abi.F_GETOWN, 0) == guest.thread.process.pid
    await guest.call("fcntl", fd, abi.F_SETSIG, 40)
    await guest.call("fcntl", fd, abi.F_SETFL, abi.O_ASYNC)
    guest.thread.signal_mask = (1 << 64) - 1
    writer.try_write(b"x")
    assert guest.thread.process.signals.pending.mask & 1 << 39
    await guest.call("close", fd)
    assert not reader.queue


async def test_statx_tells_of_the_mount() -> None:
    guest, _ = await opened()
    await guest.call("statx", abi.AT_FDCWD, "/file", 0, 0xFFF, BUFFER)
    fields = STATX.unpack(guest.memory.read(BUFFER, STATX.size))
    assert (fields[6], fields[9], fields[-1]) == (0o100644, 7, guest.kernel.mounts.root_mount.mount_id)
    for flags, mask in ((0x6000, 0), (0, 1 << 31), (0x10000, 0)):
        with pytest.raises(errnos.EINVAL):
            await guest.call("statx", abi.AT_FDCWD, "/file", flags, mask, BUFFER)


async def test_attributes_are_kept_listed_and_guarded() -> None:
    guest, fd = await opened()
    guest.memory.write(BUFFER, b"value")
    await guest.call("setxattr", "/file", "user.a", BUFFER, 5, 0)
    await guest.call("fsetxattr", fd, guest.at("trusted.b"), BUFFER, 5, 0)
    assert await guest.call("getxattr", "/file", "user.a", BUFFER, 0) == 5
    assert await guest.call("listxattr", "/file", BUFFER, 100) == len("user.a trusted.b ")
    for arguments, error in (
        (("/file", "user.a", BUFFER, 5, 1), "EEXIST"), (("/file", "user.n", BUFFER, 5, 2), "ENODATA"),
        (("/file", "user.n", BUFFER, 5, 4), "EINVAL"), (("/file", "user.n", BUFFER, 70000, 0), "E2BIG"),
        (("/file", "nothing", BUFFER, 5, 0), "EOPNOTSUPP"), (("/file", "", BUFFER, 5, 0), "ERANGE"),
        (("/file", "user.", BUFFER, 5, 0), "EINVAL"),
    ):  # fmt: skip
        with pytest.raises(getattr(errnos, error)):
            await guest.call("setxattr", *arguments)
    with pytest.raises(errnos.ERANGE):
        await guest.call("getxattr", "/file", "user.a", BUFFER, 4)
    guest.become(1000)
    assert await guest.call("listxattr", "/file", BUFFER, 100) == len("user.a ")
    with pytest.raises(errnos.EACCES):
        await guest.call("removexattr", "/file", "user.a")
    with pytest.raises(errnos.EPERM):
        await guest.call("removexattr", "/file", "trusted.b")


async def test_space_is_reserved_and_given_back() -> None:
    guest, fd = await opened()
    await guest.call("fallocate", fd, 0, 0, 100_000)
    assert (await guest.stat("/file")).size == 100_000
    assert (await guest.stat("/file")).blocks == 25 * 8
    guest.thread.fds.get(fd).try_write(bytes(100_000), 0)
    await guest.call("fallocate", fd, 3, 0, 40_960)
    assert (await guest.stat("/file")).blocks == 15 * 8
    assert await guest.call("lseek", fd, 0, os.SEEK_DATA) == 40_960


async def test_openat2_refuses_flags_it_does_not_know() -> None:
    guest, _ = await opened()
    for fields, size, error in (
        ((1 << 40, 0, 0), 24, "EINVAL"), ((0, 0o644, 0), 24, "EINVAL"), ((0, 0, 1 << 9), 24, "EINVAL"),
        ((0, 0, 0), 20, "EINVAL"), ((0, 0, 0x18), 24, "EINVAL"), ((0, 0, 0), 5000, "E2BIG"),
    ):  # fmt: skip
        guest.memory.write(BUFFER, abi.OPEN_HOW.pack(*fields))
        with pytest.raises(getattr(errnos, error)):
            await guest.call("openat2", abi.AT_FDCWD, "/file", BUFFER, size)
    guest.memory.write(BUFFER, abi.OPEN_HOW.pack(0, 0, 0) + b"\1")
    with pytest.raises(errnos.E2BIG):
        await guest.call("openat2", abi.AT_FDCWD, "/file", BUFFER, 32)
