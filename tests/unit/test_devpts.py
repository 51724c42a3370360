"""Pseudo-terminals: both ends, job control, hang-ups, and a terminal of the host joined to one."""

from __future__ import annotations

import asyncio
import os
import pty as host_pty
import struct
import termios as host_termios
from types import SimpleNamespace
from typing import Any

import pytest

from asyncsentry import errnos
from asyncsentry.abi import ioctls_h as io
from asyncsentry.abi import termbits_h as abi
from asyncsentry.clock import VirtualClock
from asyncsentry.fs.dentry import Location
from asyncsentry.fs.fdtable import FdTable
from asyncsentry.fs.file import File
from asyncsentry.fs.mount import Mount
from asyncsentry.fs.tty.devpts import DevptsFileSystem
from asyncsentry.fs.tty.host_tty import HostTty
from asyncsentry.fs.tty.output import OUTPUT_MAX
from asyncsentry.fs.tty.pty import PtyMaster
from asyncsentry.fs.tty.terminals import Terminals
from asyncsentry.fs.tty.tty import TtyFile
from asyncsentry.sysctl import Sysctls
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.process import ProcessGroup, Session
from asyncsentry.waiter import POLLERR, POLLHUP, POLLPRI, READABLE, WRITABLE, Waiter

O_RDWR, O_NONBLOCK, O_NOCTTY = 2, 0o4000, 0o400
SIGHUP, SIGINT, SIGCONT, SIGTTIN, SIGTTOU, SIGWINCH = 1, 2, 18, 21, 22, 28


class Jobs:
    """Job control that remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        self.groups: dict[int, Any] = {}
        self.ignored: set[int] = set()
        self.orphans: set[int] = set()

    def signal_group(self, group: Any, signo: int) -> None:
        self.sent.append((group.pgid, signo))

    def signal_leader(self, session: Any, signo: int) -> None:
        self.sent.append((session.sid, signo))

    def is_orphaned(self, group: Any) -> bool:
        return group.pgid in self.orphans

    def is_ignoring(self, thread: Any, signo: int) -> bool:
        return signo in self.ignored

    def find_group(self, pgid: int) -> Any | None:
        return self.groups.get(pgid)


class Memory:
    def __init__(self) -> None:
        self.bytes = bytearray(4096)

    def read(self, address: int, count: int) -> bytes:
        return bytes(self.bytes[address : address + count])

    def write(self, address: int, data: bytes) -> None:
        self.bytes[address : address + len(data)] = data


class World:
    def __init__(self) -> None:
        self.clock, self.sysctls, self.job_control = VirtualClock(), Sysctls(), Jobs()
        self.terminals = Terminals(self)
        self.devpts = DevptsFileSystem(9, self.terminals, mode=0o620, ptmx_mode=0o666, gid=5)
        self.mount = Mount(1, self.devpts, self.devpts.root_dentry)

    def thread(self, pid: int, session: Session | None = None) -> Any:
        group = ProcessGroup(pid, session or Session(pid))
        self.job_control.groups[pid] = group
        process = SimpleNamespace(pid=pid, group=group, session=group.session)
        return SimpleNamespace(process=process, credentials=Credentials(), memory=Memory(), kernel=self, fds=FdTable())

    async def open_master(self, thread: Any) -> PtyMaster:
        inode = self.devpts.directory.children["ptmx"]
        file = await inode.open(O_RDWR, Location(self.mount, self.devpts.root_dentry), thread)
        assert isinstance(file, PtyMaster)
        file.pty.is_locked = False
        return file

    async def open_slave(self, thread: Any, index: int = 0, flags: int = O_RDWR) -> TtyFile:
        location = self.devpts.slave_location(index, self.mount)
        assert location.dentry.inode is not None
        file = await location.dentry.inode.open(flags, location, thread)
        assert isinstance(file, TtyFile)
        return file


@pytest.fixture
def world() -> World:
    return World()


def ioctl(file: File, thread: Any, request: int, argument: int | bytes | None = None) -> bytes:
    address = 0
    if isinstance(argument, bytes):
        thread.memory.write(0, argument)
    elif isinstance(argument, int):
        address = argument
    file.ioctl(thread, request, address)
    return thread.memory.read(0, 64)


def number(raw: bytes) -> int:
    return int.from_bytes(raw[:4], "little", signed=True)


async def test_what_is_typed_is_read_and_what_is_printed_is_shown(world: World) -> None:
    thread = world.thread(1)
    master, slave = await world.open_master(thread), await world.open_slave(thread, flags=O_RDWR | O_NOCTTY)
    assert master.try_write(b"ls\r") == 3
    assert slave.try_read(100) == b"ls\n"
    slave.try_write(b"file\n")
    assert master.try_read(100) == b"ls\r\nfile\r\n"
    with pytest.raises(errnos.WouldBlock):
        master.try_read(100)


async def test_a_new_terminal_is_locked_and_belongs_to_its_opener(world: World) -> None:
    thread = world.thread(1)
    master = await world.open_master(thread)
    ioctl(master, thread, io.TIOCSPTLCK, struct.pack("i", 1))
    assert number(ioctl(master, thread, io.TIOCGPTLCK)) == 1
    with pytest.raises(errnos.EIO):
        await world.open_slave(thread)
    ioctl(master, thread, io.TIOCSPTLCK, struct.pack("i", 0))
    await world.open_slave(thread)
    stat = world.devpts.directory.children["0"].stat()
    assert (stat.mode & 0o777, stat.gid, stat.rdev) == (0o620, 5, os.makedev(136, 0))


async def test_numbers_are_used_again(world: World) -> None:
    thread = world.thread(1)
    first, second = await world.open_master(thread), await world.open_master(thread)
    assert number(ioctl(second, thread, io.TIOCGPTN)) == 1
    await first.release()
    assert [entry.name for entry in await world.devpts.root.entries()] == ["ptmx", "1"]
    assert (await world.open_master(thread)).pty.index == 0


async def test_the_master_reads_the_rest_and_then_an_error_when_the_slave_is_closed(world: World) -> None:
    thread = world.thread(1)
    master, slave = await world.open_master(thread), await world.open_slave(thread)
    slave.write_now(b"bye")
    await slave.release()
    assert master.poll() & (POLLHUP | READABLE) == POLLHUP | READABLE
    assert master.try_read(10) == b"bye"
    with pytest.raises(errnos.EIO):
        master.try_read(10)
    await world.open_slave(thread)
    with pytest.raises(errnos.WouldBlock):
        master.try_read(10)


async def test_closing_the_master_hangs_the_session_up(world: World) -> None:
    shell = world.thread(10)
    master, slave = await world.open_master(world.thread(1)), await world.open_slave(shell)
    assert shell.process.session.terminal is slave.tty
    await master.release()
    assert world.job_control.sent == [(10, SIGHUP), (10, SIGCONT)]
    assert shell.process.session.terminal is None
    assert slave.try_read(10) == b""
    with pytest.raises(errnos.EIO):
        slave.try_write(b"x")
    with pytest.raises(errnos.EIO):
        ioctl(slave, shell, io.TCGETS)
    assert slave.poll() & (POLLHUP | POLLERR) == POLLHUP | POLLERR


async def test_the_end_of_the_session_leader_is_told_to_the_foreground_and_hangs_nothing_up(world: World) -> None:
    shell = world.thread(10)
    master, slave = await world.open_master(world.thread(1)), await world.open_slave(shell)
    session = shell.process.session
    session.terminal = None
    slave.tty.session_leader_exited(session)
    assert world.job_control.sent == [(10, SIGHUP)]
    assert slave.tty.session is None
    assert not slave.is_hung_up
    assert master.try_write(b"still there\n") == 12
    assert slave.try_read(100) == b"still there\n"


async def test_the_master_types_ahead_while_the_slave_is_closed(world: World) -> None:
    thread = world.thread(1)
    master, slave = await world.open_master(thread), await world.open_slave(thread)
    await slave.release()
    assert master.try_write(b"early\n") == 6
    assert (await world.open_slave(thread)).read_now(100) == b"early\n"


async def test_the_interrupt_key_signals_the_foreground_group(world: World) -> None:
    shell = world.thread(10)
    master, slave = await world.open_master(world.thread(1)), await world.open_slave(shell)
    job = world.thread(11, shell.process.session)
    ioctl(slave, shell, io.TIOCSPGRP, struct.pack("i", 11))
    assert number(ioctl(slave, shell, io.TIOCGPGRP)) == 11
    assert number(ioctl(master, job, io.TIOCGSID)) == 10
    master.try_write(b"\x03")
    assert world.job_control.sent == [(11, SIGINT)]


async def test_a_background_reader_is_stopped(world: World) -> None:
    shell = world.thread(10)
    master, slave = await world.open_master(world.thread(1)), await world.open_slave(shell)
    job = world.thread(11, shell.process.session)
    master.try_write(b"x\n")
    with pytest.raises(errnos.WouldBlock):
        slave.try_read(10)
    with pytest.raises(errnos.Interrupted):
        slave.seen_by(job).try_read(10)
    assert world.job_control.sent == [(11, SIGTTIN)]
    world.job_control.ignored.add(SIGTTIN)
    with pytest.raises(errnos.EIO):
        slave.seen_by(job).try_read(10)
    assert slave.seen_by(shell).try_read(10) == b"x\n"


async def test_a_background_writer_is_stopped_only_with_tostop(world: World) -> None:
    shell = world.thread(10)
    master, slave = await world.open_master(world.thread(1)), await world.open_slave(shell)
    job = world.thread(11, shell.process.session)
    assert slave.try_write(b"x") == 1
    settings = slave.tty.ldisc.termios
    settings.lflag |= abi.TOSTOP
    with pytest.raises(errnos.WouldBlock):
        slave.try_write(b"x")
    with pytest.raises(errnos.Interrupted):
        slave.seen_by(job).try_write(b"x")
    world.job_control.orphans.add(11)
    with pytest.raises(errnos.EIO):
        slave.seen_by(job).try_write(b"x")
    world.job_control.ignored.add(SIGTTOU)
    assert slave.seen_by(job).try_write(b"x") == 1
    assert master.try_read(10) == b"xx"


async def test_locked_settings_stay_as_they_are(world: World) -> None:
    thread = world.thread(1)
    _, slave = await world.open_master(thread), await world.open_slave(thread)
    before = slave.tty.ldisc.termios
    assert not any(ioctl(slave, thread, io.TIOCGLCKTRMIOS))
    locks = abi.TERMIOS.pack(0, 0, 0, abi.ECHO, 0, b"\xff" + bytes(18))
    ioctl(slave, thread, io.TIOCSLCKTRMIOS, locks)
    ioctl(slave, thread, io.TCSETS, abi.TERMIOS.pack(0, 0, before.cflag, 0, 0, bytes(19)))
    after = slave.tty.ldisc.termios
    assert (after.iflag, after.lflag) == (0, abi.ECHO)
    assert after.characters == before.characters[:1] + bytes(18)


async def test_background_processes_do_not_change_settings(world: World) -> None:
    shell = world.thread(10)
    _, slave = await world.open_master(world.thread(1)), await world.open_slave(shell)
    job = world.thread(11, shell.process.session)
    settings = ioctl(slave, job, io.TCGETS)
    with pytest.raises(errnos.Interrupted):
        ioctl(slave, job, io.TCSETS, settings[:36])
    assert world.job_control.sent == [(11, SIGTTOU)]


async def test_settings_travel_in_all_three_layouts(world: World) -> None:
    thread = world.thread(1)
    master, slave = await world.open_master(thread), await world.open_slave(thread, flags=O_RDWR | O_NOCTTY)
    fields = list(abi.TERMIOS.unpack(ioctl(slave, thread, io.TCGETS)[:36]))
    fields[3] &= ~abi.ECHO
    ioctl(slave, thread, io.TCSETSW, abi.TERMIOS.pack(*fields))
    assert not slave.tty.ldisc.termios.lflag & abi.ECHO
    assert abi.TERMIOS2.unpack(ioctl(master, thread, io.TCGETS2)[:44])[-1] == 38400
    old = list(abi.TERMIO.unpack(ioctl(slave, thread, io.TCGETA)[:18]))
    old[3] |= abi.ECHO
    ioctl(slave, thread, io.TCSETA, abi.TERMIO.pack(*old))
    assert slave.tty.ldisc.termios.lflag & abi.ECHO


async def test_a_new_size_is_signalled_once(world: World) -> None:
    shell = world.thread(10)
    master, slave = await world.open_master(world.thread(1)), await world.open_slave(shell)
    for _ in range(2):
        ioctl(master, shell, io.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    assert world.job_control.sent == [(10, SIGWINCH)]
    assert ioctl(slave, shell, io.TIOCGWINSZ)[:8] == struct.pack("4H", 24, 80, 0, 0)


async def test_taking_a_terminal_needs_a_leader_without_one(world: World) -> None:
    shell = world.thread(10)
    await world.open_master(world.thread(1))
    slave = await world.open_slave(shell, flags=O_RDWR | O_NOCTTY)
    job = world.thread(11, shell.process.session)
    with pytest.raises(errnos.EPERM):
        ioctl(slave, job, io.TIOCSCTTY)
    ioctl(slave, shell, io.TIOCSCTTY)
    assert slave.tty.foreground is shell.process.group
    other = world.thread(20)
    with pytest.raises(errnos.EPERM):
        ioctl(slave, other, io.TIOCSCTTY)
    ioctl(slave, other, io.TIOCSCTTY, 1)
    assert shell.process.session.terminal is None
    assert slave.tty.session is other.process.session


async def test_giving_a_terminal_up_hangs_the_foreground_up(world: World) -> None:
    shell = world.thread(10)
    await world.open_master(world.thread(1))
    slave = await world.open_slave(shell)
    ioctl(slave, shell, io.TIOCNOTTY)
    assert world.job_control.sent == [(10, SIGHUP), (10, SIGCONT)]
    with pytest.raises(errnos.ENOTTY):
        ioctl(slave, shell, io.TIOCGPGRP)


async def test_dev_tty_is_the_callers_own_terminal(world: World) -> None:
    shell = world.thread(10)
    await world.open_master(world.thread(1))
    inode = world.devpts.directory.children["ptmx"]
    location = Location(world.mount, world.devpts.root_dentry)
    with pytest.raises(errnos.ENXIO):
        await world.terminals.open_own(inode, O_RDWR, location, shell)
    slave = await world.open_slave(shell)
    own = await world.terminals.open_own(inode, O_RDWR, location, shell)
    assert isinstance(own, TtyFile)
    assert own.tty is slave.tty


async def test_the_peer_is_opened_without_a_path(world: World) -> None:
    thread = world.thread(10)
    master = await world.open_master(thread)
    answer = master.ioctl(thread, io.TIOCGPTPEER, O_RDWR | O_NOCTTY)
    assert not isinstance(answer, int)
    fd = await answer
    assert isinstance(thread.fds.get(fd), TtyFile)


async def test_a_peer_that_gets_no_descriptor_is_never_opened(world: World) -> None:
    thread = world.thread(10)
    master = await world.open_master(thread)
    thread.fds.limit = 0
    answer = master.ioctl(thread, io.TIOCGPTPEER, O_RDWR | O_NOCTTY)
    assert not isinstance(answer, int)
    with pytest.raises(errnos.EMFILE):
        await answer
    assert not master.poll() & POLLHUP


async def test_flow_keys_sent_by_request_do_not_pile_up(world: World) -> None:
    thread = world.thread(1)
    await world.open_master(thread)
    slave = await world.open_slave(thread, flags=O_RDWR | O_NOCTTY)
    for _ in range(OUTPUT_MAX + 1):
        ioctl(slave, thread, io.TCXONC, abi.TCIOFF)
    assert len(slave.tty.ldisc.screen.output) == OUTPUT_MAX


async def test_packet_mode_tells_of_flushes_and_stops(world: World) -> None:
    thread = world.thread(1)
    master, slave = await world.open_master(thread), await world.open_slave(thread, flags=O_RDWR | O_NOCTTY)
    ioctl(master, thread, io.TIOCPKT, struct.pack("i", 1))
    slave.try_write(b"hi")
    assert master.try_read(100) == b"\0hi"
    ioctl(slave, thread, io.TCXONC, abi.TCOOFF)
    assert master.poll() & POLLPRI
    assert master.try_read(100) == bytes([abi.TIOCPKT_STOP])
    ioctl(slave, thread, io.TCXONC, abi.TCOON)
    ioctl(slave, thread, io.TCFLSH, abi.TCIOFLUSH)
    assert master.try_read(100)[0] == abi.TIOCPKT_START | abi.TIOCPKT_FLUSHREAD | abi.TIOCPKT_FLUSHWRITE


async def test_typing_for_others_is_refused(world: World) -> None:
    thread = world.thread(10)
    await world.open_master(thread)
    slave = await world.open_slave(thread)
    with pytest.raises(errnos.EIO):
        ioctl(slave, thread, io.TIOCSTI, b"x")


async def raw_slave(world: World, thread: Any, minimum: int, deciseconds: int) -> tuple[PtyMaster, TtyFile]:
    master, slave = await world.open_master(thread), await world.open_slave(thread, flags=O_RDWR | O_NOCTTY)
    settings = slave.tty.ldisc.termios.raw()
    characters = bytearray(settings.characters)
    characters[abi.VMIN], characters[abi.VTIME] = minimum, deciseconds
    settings.characters = bytes(characters)
    slave.tty.ldisc.change(settings)
    return master, slave


async def test_vmin_waits_for_enough_bytes(world: World) -> None:
    master, slave = await raw_slave(world, world.thread(1), 3, 0)
    master.try_write(b"ab")
    assert not slave.poll() & READABLE
    with pytest.raises(errnos.WouldBlock):
        slave.try_read(10)
    assert slave.try_read(2) == b"ab"
    master.try_write(b"cdef")
    assert slave.try_read(10) == b"cdef"


async def test_vmin_zero_and_vtime_zero_never_waits(world: World) -> None:
    _, slave = await raw_slave(world, world.thread(1), 0, 0)
    assert slave.try_read(10) == b""


async def test_vtime_ends_a_read_that_gets_nothing(world: World) -> None:
    _, slave = await raw_slave(world, world.thread(1), 0, 5)
    woken: list[int] = []
    waiter = Waiter(woken.append, READABLE)
    slave.queue.add(waiter)
    with pytest.raises(errnos.WouldBlock):
        slave.try_read(10)
    world.clock.advance(500_000_000)
    assert woken
    assert slave.try_read(10) == b""
    slave.queue.remove(waiter)


async def test_vtime_after_the_first_byte_gives_what_came(world: World) -> None:
    master, slave = await raw_slave(world, world.thread(1), 10, 5)
    waiter = Waiter(lambda mask: None, READABLE)
    slave.queue.add(waiter)
    with pytest.raises(errnos.WouldBlock):
        slave.try_read(10)
    world.clock.advance(10**10)
    master.try_write(b"ab")
    with pytest.raises(errnos.WouldBlock):
        slave.try_read(10)
    world.clock.advance(500_000_000)
    assert slave.try_read(10) == b"ab"
    slave.queue.remove(waiter)


async def test_a_full_terminal_wakes_its_typist_when_somebody_reads(world: World) -> None:
    master, slave = await raw_slave(world, world.thread(1), 1, 0)
    assert master.try_write(b"x" * 5000) == 4096
    assert not master.poll() & WRITABLE
    woken: list[int] = []
    waiter = Waiter(woken.append, WRITABLE)
    master.queue.add(waiter)
    slave.try_read(100)
    assert woken
    master.queue.remove(waiter)


async def test_an_exclusive_terminal_is_busy_to_others(world: World) -> None:
    shell = world.thread(10)
    await world.open_master(shell)
    slave = await world.open_slave(shell)
    ioctl(slave, shell, io.TIOCEXCL)
    other = world.thread(20)
    other.credentials = Credentials.for_user(1000, 1000)
    with pytest.raises(errnos.EBUSY):
        await world.open_slave(other)


async def test_a_terminal_of_the_host_is_joined(world: World) -> None:
    host_master, host_slave = host_pty.openpty()
    before = host_termios.tcgetattr(host_slave)
    host_termios.tcsetwinsize(host_slave, (33, 99))
    joined = HostTty(world.devpts, world.mount, host_slave)
    slave = joined.open()
    assert isinstance(slave, TtyFile)
    joined.start(follow_window=False)
    assert joined.pty.window[:2] == (33, 99)
    os.write(host_master, b"hi\r")
    typed = asyncio.Event()
    waiter = Waiter(lambda mask: typed.set(), READABLE)
    slave.queue.add(waiter)
    await asyncio.wait_for(typed.wait(), 5)
    slave.queue.remove(waiter)
    assert slave.try_read(100) == b"hi\n"
    slave.try_write(b"there\n")
    await joined.close()
    assert os.read(host_master, 100) == b"hi\r\nthere\r\n"
    assert host_termios.tcgetattr(host_slave)[:4] == before[:4]
    os.close(host_master)
    os.close(host_slave)
