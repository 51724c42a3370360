"""System V shared memory, memfds and other processes' memory, on the fake platform."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from guest_thread import A, Guest, make_guest

from asyncsentry import errnos
from asyncsentry.abi import ipc_h as abi
from asyncsentry.abi import mman_h as mman
from asyncsentry.abi.ipc_h import IPC_CREAT, IPC_EXCL, IPC_RMID, IPC_STAT
from asyncsentry.syscalls import barriers, foreign_memory, numa, shared_memory
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.ipc import IpcObject, IpcTable

PAGE = 4096
KEY = 0x1234


@pytest_asyncio.fixture
async def guest() -> AsyncIterator[Guest]:
    guest = await make_guest()
    yield guest
    await guest.memory.release()
    guest.kernel.shared_memory.close()
    await guest.thread.fds.close_all()


def make(guest: Guest, key: int = 0, size: int = 2 * PAGE, flags: int = IPC_CREAT | 0o600) -> int:
    return shared_memory.shmget(guest.thread, key, size, flags)


async def attach(guest: Guest, ident: int, address: int = 0, flags: int = 0) -> int:
    start = await shared_memory.shmat(guest.thread, ident, address, flags)
    await guest.memory.flush(guest.thread.context)
    return start


def state(guest: Guest, ident: int) -> tuple[int, int, int]:
    """Mode, size and number of attachments."""
    shared_memory.shmctl(guest.thread, ident, IPC_STAT, A)
    size, *_, attached, _, _ = guest.memory.read_struct(A + abi.IPC_PERM.size, abi.SHMID_DS)
    return guest.memory.read_struct(A, abi.IPC_PERM)[5], size, attached


async def test_a_segment_lives_until_it_is_removed_and_detached(guest: Guest):
    ident = make(guest)
    start = await attach(guest, ident)
    assert state(guest, ident) == (0o600, 2 * PAGE, 1)
    shared_memory.shmctl(guest.thread, ident, IPC_RMID, 0)
    assert state(guest, ident) == (0o600 | abi.SHM_DEST, 2 * PAGE, 1)
    await shared_memory.shmdt(guest.thread, start)
    with pytest.raises(errnos.EINVAL):
        state(guest, ident)


async def test_a_split_attachment_is_detached_whole(guest: Guest):
    ident = make(guest, size=4 * PAGE)
    start = await attach(guest, ident)
    await guest.memory.munmap(guest.thread.context, start + PAGE, PAGE)
    assert state(guest, ident)[2] == 2
    with pytest.raises(errnos.EINVAL):
        await shared_memory.shmdt(guest.thread, start + 2 * PAGE)
    await shared_memory.shmdt(guest.thread, start)
    assert state(guest, ident)[2] == 0
    assert guest.memory.vmas.is_free(start, start + 4 * PAGE)


def test_keys_name_segments(guest: Guest):
    with pytest.raises(errnos.ENOENT):
        make(guest, KEY, flags=0)
    ident = make(guest, KEY)
    assert make(guest, KEY, 0, 0o600) == ident
    with pytest.raises(errnos.EEXIST):
        make(guest, KEY, flags=IPC_CREAT | IPC_EXCL)
    with pytest.raises(errnos.EINVAL):
        make(guest, KEY, 3 * PAGE, 0)
    guest.thread.credentials = Credentials.for_user(1000, 1000)
    with pytest.raises(errnos.EACCES):
        make(guest, KEY, 0, 0o400)
    with pytest.raises(errnos.EPERM):
        shared_memory.shmctl(guest.thread, ident, IPC_RMID, 0)


async def test_addresses_to_attach_at(guest: Guest):
    ident = make(guest)
    start = await attach(guest, ident, 0x100_0123, abi.SHM_RND)
    assert start == 0x100_0000
    for address, flags in ((0x100_0001, 0), (start, 0), (0, abi.SHM_REMAP)):
        with pytest.raises(errnos.EINVAL):
            await attach(guest, ident, address, flags)
    assert await attach(guest, ident, start, abi.SHM_REMAP) == start
    read_only = await attach(guest, ident, 0, abi.SHM_RDONLY)
    with pytest.raises(errnos.EACCES):
        await guest.memory.mprotect(guest.thread.context, read_only, PAGE, mman.PROT_READ | mman.PROT_WRITE)


def test_numbers_go_round_and_old_ones_are_told_apart():
    table: IpcTable[IpcObject] = IpcTable(100)
    numbers = []
    for _ in range(65):
        item = IpcObject(0, 0o600, Credentials())
        numbers.append(table.add(item))
        table.remove(item)
    assert numbers == [*range(64), 1 << 15]
    again = IpcObject(0, 0, Credentials())
    assert table.add(again) == (1 << 15) + 1
    with pytest.raises(errnos.EIDRM):
        table.get(1)
    assert table.get((1 << 15) + 1) is again


def test_memory_of_a_process_is_copied_in_pieces(guest: Guest):
    memory, pid = guest.memory, guest.thread.process.pid
    guest.kernel.processes[pid] = guest.thread.process
    memory.write(A + 0x1000, b"hello world")
    memory.write(A, struct.pack("<8Q", A + 0x2000, 3, A + 0x2100, 20, A + 0x1000, 5, A + 0x1006, 5))
    assert foreign_memory.process_vm_readv(guest.thread, pid, A, 2, A + 32, 2, 0) == 10
    assert memory.read(A + 0x2000, 3) + memory.read(A + 0x2100, 7) == b"helloworld"
    memory.write(A + 32, struct.pack("<4Q", A + 0x1000, 3, 8, 5))
    assert foreign_memory.process_vm_readv(guest.thread, pid, A, 2, A + 32, 2, 0) == 3
    memory.write(A + 32, struct.pack("<2Q", 8, 5))
    with pytest.raises(errnos.EFAULT):
        foreign_memory.process_vm_writev(guest.thread, pid, A, 2, A + 32, 1, 0)
    with pytest.raises(errnos.ESRCH):
        foreign_memory.process_vm_readv(guest.thread, 4242, A, 1, A, 1, 0)


def test_a_memfd_is_a_file_without_a_place(guest: Guest):
    guest.memory.write(A, b"name\0")
    fd = shared_memory.memfd_create(guest.thread, A, mman.MFD_CLOEXEC)
    assert guest.thread.fds.get(fd).try_write(b"data") == 4
    assert fd in guest.thread.fds.close_on_exec
    guest.memory.write(A, b"x" * 250 + b"\0")
    with pytest.raises(errnos.EINVAL):
        shared_memory.memfd_create(guest.thread, A, 0)


async def test_barriers_must_be_registered_for(guest: Guest):
    thread = guest.thread
    assert await barriers.membarrier(thread, mman.MEMBARRIER_CMD_QUERY, 0, 0) & mman.MEMBARRIER_CMD_PRIVATE_EXPEDITED
    with pytest.raises(errnos.EPERM):
        await barriers.membarrier(thread, mman.MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)
    await barriers.membarrier(thread, mman.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0)
    assert await barriers.membarrier(thread, mman.MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0
    for command, flags in ((3, 0), (1 << 20, 0), (1, 1), (-1, 0)):
        with pytest.raises(errnos.EINVAL):
            await barriers.membarrier(thread, command, flags, 0)


def test_there_is_one_memory_node(guest: Guest):
    thread, memory = guest.thread, guest.memory
    memory.write_u64(A, 1)
    assert numa.set_mempolicy(thread, 2, A, 64) == 0
    assert numa.get_mempolicy(thread, A + 8, A + 16, 64, 0, 0) == 0
    assert (memory.read_u32(A + 8), memory.read_u64(A + 16)) == (2, 1)
    memory.write_u64(A, 2)
    with pytest.raises(errnos.EINVAL):
        numa.set_mempolicy(thread, 2, A, 64)
