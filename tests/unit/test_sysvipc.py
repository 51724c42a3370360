"""System V semaphores and message queues as programs see them, sysvipc(7)."""

from __future__ import annotations

import struct

import pytest
from guest_sockets import DATA, HEADER, SocketGuest, make_socket_guest
from guest_thread import A, settle

from asyncsentry import errnos
from asyncsentry.abi import ipc_h as abi
from asyncsentry.errnos import Interrupted
from asyncsentry.syscalls import messages, semaphores
from asyncsentry.tasks.credentials import Credentials

BAD = A - 0x1000
CREATE = abi.IPC_CREAT | 0o600


@pytest.fixture
async def g() -> SocketGuest:
    return await make_socket_guest()


def make_set(g: SocketGuest, count: int = 2, key: int = abi.IPC_PRIVATE) -> int:
    return semaphores.semget(g.thread, key, count, CREATE)


async def operate(g: SocketGuest, ident: int, *operations: tuple[int, int, int], timeout_ns: int | None = None) -> int:
    place = g.put(DATA, b"".join(abi.SEMBUF.pack(*operation) for operation in operations))
    if timeout_ns is None:
        return await semaphores.semop(g.thread, ident, place, len(operations))
    limit = g.put(HEADER, struct.pack("<qq", *divmod(timeout_ns, 1_000_000_000)))
    return await semaphores.semtimedop(g.thread, ident, place, len(operations), limit)


def control(g: SocketGuest, ident: int, number: int, command: int, argument: int = 0) -> int:
    return semaphores.semctl(g.thread, ident, number, command, argument)


def values(g: SocketGuest, ident: int) -> list[int]:
    return [control(g, ident, number, abi.GETVAL) for number in range(2)]


# Semaphores --------------------------------------------------------------------------------------


async def test_operations_happen_all_or_none(g):
    ident = make_set(g)
    await operate(g, ident, (0, 3, 0), (1, 1, 0))
    with pytest.raises(errnos.EAGAIN):
        await operate(g, ident, (0, -1, 0), (1, -2, abi.IPC_NOWAIT))
    assert values(g, ident) == [3, 1]
    await operate(g, ident, (0, -1, 0), (0, -2, 0), (0, 0, 0), (1, 5, 0))
    assert values(g, ident) == [0, 6]
    assert control(g, ident, 0, abi.GETPID) == g.thread.process.pid


async def test_who_waits_is_served_before_the_waker_can_take_again(g):
    ident = make_set(g)
    other = g.second_thread()
    waiting = await g.guest.start(operate(other, ident, (0, -1, 0)))
    assert not waiting.done()
    assert (control(g, ident, 0, abi.GETNCNT), control(g, ident, 0, abi.GETZCNT)) == (1, 0)
    await operate(g, ident, (0, 1, 0))
    with pytest.raises(errnos.EAGAIN):
        await operate(g, ident, (0, -1, abi.IPC_NOWAIT))
    await settle()
    assert await waiting == 0
    assert control(g, ident, 0, abi.GETNCNT) == 0


async def test_waiting_for_zero(g):
    ident = make_set(g)
    control(g, ident, 1, abi.SETVAL, 2)
    waiting = await g.guest.start(operate(g.second_thread(), ident, (1, 0, 0)))
    assert control(g, ident, 1, abi.GETZCNT) == 1
    control(g, ident, 1, abi.SETVAL, 0)
    await settle()
    assert await waiting == 0


async def test_one_release_lets_a_chain_of_waiters_go(g):
    ident = make_set(g)
    first = await g.guest.start(operate(g.second_thread(), ident, (0, -1, 0), (1, 1, 0)))
    second = await g.guest.start(operate(g.second_thread(), ident, (1, -1, 0)))
    await operate(g, ident, (0, 1, 0))
    await settle()
    assert (await first, await second) == (0, 0)
    assert values(g, ident) == [0, 0]


async def test_a_wait_ends_in_time_by_signal_or_by_removal(g):
    ident = make_set(g)
    waiting = await g.guest.start(operate(g, ident, (0, -1, 0), timeout_ns=1000))
    g.guest.clock.advance(1000)
    await settle()
    with pytest.raises(errnos.EAGAIN):
        await waiting
    waiting = await g.guest.start(operate(g, ident, (0, -1, 0)))
    g.thread.interrupt()
    await settle()
    with pytest.raises(Interrupted):
        await waiting
    assert control(g, ident, 0, abi.GETNCNT) == 0
    waiting = await g.guest.start(operate(g, ident, (0, -1, 0)))
    control(g, ident, 0, abi.IPC_RMID)
    await settle()
    with pytest.raises(errnos.EIDRM):
        await waiting
    with pytest.raises(errnos.EINVAL):
        control(g, ident, 0, abi.GETVAL)


async def test_what_a_process_did_is_undone_when_it_ends(g):
    ident = make_set(g)
    await operate(g, ident, (0, 4, abi.SEM_UNDO), (1, 2, 0))
    await operate(g, ident, (0, -1, abi.SEM_UNDO), (1, -1, abi.SEM_UNDO))
    assert values(g, ident) == [3, 1]
    g.thread.kernel.semaphores.process_ends(g.thread.process.pid)
    assert values(g, ident) == [0, 2]
    g.thread.kernel.semaphores.process_ends(g.thread.process.pid)
    assert values(g, ident) == [0, 2]


async def test_setting_a_value_forgets_what_was_to_be_undone(g):
    ident = make_set(g)
    await operate(g, ident, (0, 4, abi.SEM_UNDO))
    control(g, ident, 0, abi.SETVAL, 7)
    g.thread.kernel.semaphores.process_ends(g.thread.process.pid)
    assert values(g, ident)[0] == 7


@pytest.mark.parametrize(("operations", "error"), [
    ([(2, 1, 0)], errnos.EFBIG), ([(0, 32767, 0), (0, 1, 0)], errnos.ERANGE), ([(0, 1, 0)] * 501, errnos.E2BIG),
    ([], errnos.EINVAL),
])  # fmt: skip
async def test_operations_that_cannot_be(g, operations, error):
    with pytest.raises(error):
        await operate(g, make_set(g), *operations)


async def test_keys_permissions_and_information(g):
    ident = make_set(g, 2, 0x1234)
    assert semaphores.semget(g.thread, 0x1234, 0, 0) == ident
    for count, flags, error in ((3, 0, errnos.EINVAL), (1, abi.IPC_CREAT | abi.IPC_EXCL, errnos.EEXIST)):
        with pytest.raises(error):
            semaphores.semget(g.thread, 0x1234, count, flags)
    user = g.second_process(Credentials.for_user(1000, 1000))
    for call in (lambda: semaphores.semget(user.thread, 0x1234, 0, 0o600), lambda: values(user, ident)):
        with pytest.raises(errnos.EACCES):
            call()
    with pytest.raises(errnos.EPERM):
        control(user, ident, 0, abi.IPC_RMID)
    place = g.put(DATA, bytes(200))
    control(g, ident, 0, abi.IPC_STAT, place)
    assert abi.SEMID_DS.unpack(g.memory.read(place + abi.IPC_PERM.size, abi.SEMID_DS.size))[4] == 2
    g.put(DATA, struct.pack("<HH", 5, 6))
    control(g, ident, 0, abi.SETALL, place)
    g.put(DATA, bytes(4))
    control(g, ident, 0, abi.GETALL, place)
    assert g.memory.read(place, 4) == struct.pack("<HH", 5, 6)
    assert control(g, 0, 0, abi.SEM_INFO, place) == control(g, 0, 0, abi.IPC_INFO, place)


# Messages ----------------------------------------------------------------------------------------


def make_queue(g: SocketGuest) -> int:
    return messages.msgget(g.thread, abi.IPC_PRIVATE, CREATE)


async def send(g: SocketGuest, ident: int, kind: int, text: bytes, flags: int = 0) -> int:
    return await messages.msgsnd(g.thread, ident, g.put(DATA, struct.pack("<q", kind) + text), len(text), flags)


async def receive(g: SocketGuest, ident: int, kind: int = 0, size: int = 100, flags: int = 0) -> tuple[int, bytes]:
    length = await messages.msgrcv(g.thread, ident, g.at(DATA), size, kind, flags)
    (got,) = struct.unpack("<q", g.memory.read(g.at(DATA), 8))
    return got, g.memory.read(g.at(DATA) + 8, length)


async def test_messages_are_chosen_by_type(g):
    ident = make_queue(g)
    for kind, text in ((3, b"three"), (1, b"one"), (2, b"two"), (1, b"uno"), (3, b"tre")):
        await send(g, ident, kind, text)
    assert await receive(g, ident, 2) == (2, b"two")
    assert await receive(g, ident, -2) == (1, b"one")
    assert await receive(g, ident, 3, flags=abi.MSG_EXCEPT) == (1, b"uno")
    assert await receive(g, ident) == (3, b"three")
    with pytest.raises(errnos.ENOMSG):
        await receive(g, ident, 9, flags=abi.IPC_NOWAIT)


async def test_a_message_too_long_stays_or_is_cut(g):
    ident = make_queue(g)
    await send(g, ident, 1, b"abcdef")
    with pytest.raises(errnos.E2BIG):
        await receive(g, ident, size=3)
    assert await receive(g, ident, 0, 100, abi.MSG_COPY | abi.IPC_NOWAIT) == (1, b"abcdef")
    assert await receive(g, ident, size=3, flags=abi.MSG_NOERROR) == (1, b"abc")


async def test_senders_and_receivers_wait_for_each_other(g):
    ident = make_queue(g)
    other = g.second_thread()
    receiving = await g.guest.start(receive(g, ident))
    await send(other, ident, 5, b"x")
    await settle()
    assert await receiving == (5, b"x")
    for _ in range(2):
        await send(g, ident, 1, bytes(8000))
    with pytest.raises(errnos.EAGAIN):
        await send(g, ident, 1, bytes(8000), abi.IPC_NOWAIT)
    sending = await g.guest.start(send(g, ident, 2, bytes(8000)))
    await receive(other, ident, size=8000)
    await settle()
    assert await sending == 0


async def test_a_queue_that_is_removed(g):
    ident = make_queue(g)
    receiving = await g.guest.start(receive(g, ident))
    messages.msgctl(g.thread, ident, abi.IPC_RMID, 0)
    await settle()
    with pytest.raises(errnos.EIDRM):
        await receiving


@pytest.mark.parametrize(("kind", "size"), [(0, 1), (-1, 1), (1, abi.MSGMAX + 1), (1, -1)])
async def test_messages_that_cannot_be(g, kind, size):
    ident = make_queue(g)
    with pytest.raises(errnos.EINVAL):
        await messages.msgsnd(g.thread, ident, g.put(DATA, struct.pack("<q", kind)), size, 0)
    with pytest.raises(errnos.EFAULT):
        await messages.msgsnd(g.thread, ident, BAD, 1, 0)


async def test_changing_a_queue(g):
    ident = make_queue(g)
    place = g.put(DATA, bytes(200))
    messages.msgctl(g.thread, ident, abi.IPC_STAT, place)
    content = bytearray(g.memory.read(place, 120))
    struct.pack_into("<Q", content, abi.IPC_PERM.size + 40, 5)
    g.put(DATA, bytes(content))
    messages.msgctl(g.thread, ident, abi.IPC_SET, place)
    with pytest.raises(errnos.EAGAIN):
        await send(g, ident, 1, b"123456", abi.IPC_NOWAIT)
    struct.pack_into("<Q", content, abi.IPC_PERM.size + 40, 1 << 20)
    user = g.second_process(Credentials.for_user(1000, 1000))
    with pytest.raises(errnos.EPERM):
        messages.msgctl(user.thread, ident, abi.IPC_SET, g.put(DATA, bytes(content)))
