"""File locks as programs see them."""

from __future__ import annotations

import pytest
from file_guest import BUFFER, FileGuest, make_file_guest
from guest_thread import settle

from asyncsentry import errnos
from asyncsentry.abi import fcntl_h as abi
from asyncsentry.fs.fdtable import FdTable
from asyncsentry.fs.locks import InodeLocks
from asyncsentry.tasks.process import Process


async def lock(guest: FileGuest, fd: int, command: int, kind: int, start: int = 0, length: int = 0,
               pid: int = 0) -> int:
    guest.memory.write(BUFFER, abi.FLOCK.pack(kind, 0, start, length, pid))
    return await guest.call("fcntl", fd, command, BUFFER)


def answer(guest: FileGuest) -> tuple[int, ...]:
    return tuple(abi.FLOCK.unpack(guest.memory.read(BUFFER, abi.FLOCK.size)))


async def two_processes() -> tuple[FileGuest, FileGuest, int]:
    """Gives two processes that have the same file open under the same number."""
    first = await make_file_guest()
    fd = await first.open("/file")
    thread = first.add_thread().thread
    thread.process = Process(first.kernel, 200, None, first.thread.process.group)
    thread.fds = FdTable(1024)
    second = FileGuest(thread, first.clock)
    assert await second.open("/file", abi.O_RDWR) == fd
    return first, second, fd


async def test_a_write_lock_keeps_others_out_of_its_range() -> None:
    first, second, fd = await two_processes()
    await lock(first, fd, abi.F_SETLK, abi.F_WRLCK, 10, 10)
    with pytest.raises(errnos.EAGAIN):
        await lock(second, fd, abi.F_SETLK, abi.F_RDLCK, 19, 1)
    await lock(second, fd, abi.F_SETLK, abi.F_WRLCK, 20, 5)
    await lock(second, fd, abi.F_GETLK, abi.F_WRLCK)
    assert answer(second) == (abi.F_WRLCK, 0, 10, 10, 100)
    await lock(first, fd, abi.F_GETLK, abi.F_WRLCK, 30, 1)
    assert answer(first)[0] == abi.F_UNLCK


async def test_closing_any_descriptor_of_the_file_drops_the_locks() -> None:
    first, second, fd = await two_processes()
    await lock(first, fd, abi.F_SETLK, abi.F_WRLCK)
    other = await first.call("dup", fd)
    await first.call("close", other)
    await lock(second, fd, abi.F_SETLK, abi.F_WRLCK)


async def test_a_waiting_lock_is_granted_when_the_holder_unlocks() -> None:
    first, second, fd = await two_processes()
    await lock(first, fd, abi.F_SETLK, abi.F_WRLCK)
    waiting = await second.start(lock(second, fd, abi.F_SETLKW, abi.F_WRLCK))
    assert not waiting.done()
    await lock(first, fd, abi.F_SETLK, abi.F_UNLCK)
    await settle()
    assert await waiting == 0
    with pytest.raises(errnos.EAGAIN):
        await lock(first, fd, abi.F_SETLK, abi.F_RDLCK)


async def test_two_that_would_wait_for_each_other_get_edeadlk() -> None:
    first, second, fd = await two_processes()
    await lock(first, fd, abi.F_SETLK, abi.F_WRLCK, 0, 1)
    await lock(second, fd, abi.F_SETLK, abi.F_WRLCK, 1, 1)
    waiting = await first.start(lock(first, fd, abi.F_SETLKW, abi.F_WRLCK, 1, 1))
    with pytest.raises(errnos.EDEADLK):
        await lock(second, fd, abi.F_SETLKW, abi.F_WRLCK, 0, 1)
    await lock(second, fd, abi.F_SETLK, abi.F_UNLCK)
    await waiting


async def test_ofd_locks_belong_to_the_open_file() -> None:
    guest = await make_file_guest()
    one, two = await guest.open("/file"), await guest.open("/file")
    await lock(guest, one, abi.F_OFD_SETLK, abi.F_WRLCK)
    with pytest.raises(errnos.EAGAIN):
        await lock(guest, two, abi.F_OFD_SETLK, abi.F_RDLCK)
    await lock(guest, two, abi.F_OFD_GETLK, abi.F_RDLCK)
    assert answer(guest) == (abi.F_WRLCK, 0, 0, 0, -1)
    with pytest.raises(errnos.EINVAL):
        await lock(guest, two, abi.F_OFD_SETLK, abi.F_RDLCK, pid=1)
    again = await guest.call("dup", one)
    await guest.call("close", one)
    with pytest.raises(errnos.EAGAIN):
        await lock(guest, two, abi.F_OFD_SETLK, abi.F_RDLCK)
    await guest.call("close", again)
    await lock(guest, two, abi.F_OFD_SETLK, abi.F_RDLCK)


async def test_a_lock_asks_for_a_descriptor_open_for_it() -> None:
    guest = await make_file_guest()
    await guest.write_file("/file")
    fd = await guest.open("/file", abi.O_RDONLY)
    with pytest.raises(errnos.EBADF):
        await lock(guest, fd, abi.F_SETLK, abi.F_WRLCK)
    with pytest.raises(errnos.EINVAL):
        await lock(guest, fd, abi.F_SETLK, 7)
    with pytest.raises(errnos.EINVAL):
        await lock(guest, fd, abi.F_SETLK, abi.F_RDLCK, -5)
    with pytest.raises(errnos.EOVERFLOW):
        await lock(guest, fd, abi.F_SETLK, abi.F_RDLCK, (1 << 63) - 1, 2)


async def test_ranges_split_and_merge() -> None:
    locks, owner = InodeLocks(), FdTable()

    def held() -> list[tuple[int, int, int]]:
        return sorted((each.start, each.end, each.kind) for each in locks.ranges)

    locks.set_range(owner, 1, abi.F_WRLCK, 0, 99)
    locks.set_range(owner, 1, abi.F_UNLCK, 10, 19)
    assert held() == [(0, 9, 1), (20, 99, 1)]
    locks.set_range(owner, 1, abi.F_RDLCK, 5, 30)
    assert held() == [(0, 4, 1), (5, 30, 0), (31, 99, 1)]
    locks.set_range(owner, 1, abi.F_WRLCK, 5, 30)
    assert held() == [(0, 99, 1)]
    locks.release_owner(owner)
    assert held() == []


async def test_flock_is_shared_by_dup_and_not_by_open() -> None:
    guest = await make_file_guest()
    one, two = await guest.open("/file"), await guest.open("/file")
    await guest.call("flock", one, abi.LOCK_EX)
    await guest.call("flock", await guest.call("dup", one), abi.LOCK_EX | abi.LOCK_NB)
    with pytest.raises(errnos.EAGAIN):
        await guest.call("flock", two, abi.LOCK_SH | abi.LOCK_NB)
    waiting = await guest.start(guest.call("flock", two, abi.LOCK_SH))
    assert not waiting.done()
    await guest.call("flock", one, abi.LOCK_SH)
    await settle()
    assert await waiting == 0
    with pytest.raises(errnos.EINVAL):
        await guest.call("flock", one, 0)
