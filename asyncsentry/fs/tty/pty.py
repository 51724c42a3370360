"""Pseudo-terminals: the slave is a terminal, the master the file of whoever plays the screen. See pty(7)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast

from asyncsentry import errnos
from asyncsentry.abi import ioctls_h as io
from asyncsentry.abi import termbits_h as abi
from asyncsentry.fs.file import O_ACCMODE, O_NONBLOCK, File
from asyncsentry.fs.tty import ioctls
from asyncsentry.fs.tty.jobcontrol import Caller
from asyncsentry.fs.tty.tty import Tty, TtyFile
from asyncsentry.waiter import POLLHUP, POLLPRI, READABLE, WRITABLE, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.inode import Inode
    from asyncsentry.fs.tty.devpts import DevptsFileSystem
    from asyncsentry.fs.tty.terminals import Terminals

O_NOCTTY, O_CLOEXEC = 0o400, 0o2000000
SLAVE_MAJOR = 136
TYPED_AT_ONCE = 4096
"""Bytes a line discipline, which looks at each, takes before others get a turn."""
_UNDO = {
    abi.TIOCPKT_STOP: abi.TIOCPKT_START, abi.TIOCPKT_START: abi.TIOCPKT_STOP,
    abi.TIOCPKT_DOSTOP: abi.TIOCPKT_NOSTOP, abi.TIOCPKT_NOSTOP: abi.TIOCPKT_DOSTOP,
}  # fmt: skip


class Pty(Tty):
    """A pseudo-terminal: as a terminal it is the slave; :attr:`master` is its other end."""

    def __init__(self, terminals: Terminals, filesystem: DevptsFileSystem, index: int) -> None:
        device = SLAVE_MAJOR << 8 | index & 0xFF | (index & ~0xFF) << 12
        super().__init__(terminals, device, f"/dev/pts/{index}")
        self.filesystem = filesystem
        self.index = index
        self.is_locked = True
        """Whether the slave cannot be opened yet, unlockpt(3)."""
        self.packet_mode = False
        self.packet_status = 0
        self.master_open = True
        self.was_opened = False
        """Whether the slave has been opened and is closed again now."""
        self.master_queue = WaitQueue()

    def open(self, inode: Inode, flags: int, location: Location | None) -> TtyFile:
        """Opens the slave; EIO while it is locked or when the master is gone."""
        if not self.master_open or self.is_locked:
            raise errnos.EIO("the slave is locked, or its master gone")
        self.was_opened = False
        return super().open(inode, flags, location)

    def input_room_changed(self) -> None:
        """Lets the master send more."""
        if self.ldisc.input_room() > 0:
            self.master_queue.notify(WRITABLE)

    def output_ready(self) -> None:
        """Lets the master read."""
        if self.ldisc.screen.output and not self.ldisc.screen.stopped:
            self.master_queue.notify(READABLE)

    def last_closed(self) -> None:
        """Tells the master that nobody has the slave open."""
        self.was_opened = True
        self.master_queue.notify(READABLE | WRITABLE | POLLHUP)

    def report(self, status: int) -> None:
        """Keeps what a master in packet mode is told at its next read."""
        if self.packet_mode:
            self.packet_status = self.packet_status & ~_UNDO.get(status, 0) | status
            self.master_queue.notify(POLLPRI | READABLE)

    def master_closed(self) -> None:
        """Hangs the slave up; its name is gone."""
        self.master_open = False
        self.filesystem.remove(self.index)
        self.hang_up()


class PtyMaster(File):
    """The master side."""

    def __init__(self, pty: Pty, inode: Inode, flags: int, location: Location | None) -> None:
        super().__init__(inode, flags, location)
        self.pty = pty
        self.queue = pty.master_queue

    def describe(self) -> str:
        """Gives the path masters are opened by."""
        return "/dev/ptmx"

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Reads what programs printed; EIO once all have closed the slave and everything is read."""
        pty = self.pty
        if pty.packet_mode:
            return self._read_packet(count)
        data = pty.ldisc.take_output(count)
        if data or not count:
            return data
        if pty.was_opened:
            raise errnos.EIO("the slave is closed")
        raise errnos.WouldBlock

    def _read_packet(self, count: int) -> bytes:
        pty = self.pty
        if pty.packet_status and count:
            status, pty.packet_status = pty.packet_status, 0
            return bytes((status,))
        data = pty.ldisc.take_output(max(0, count - 1))
        if data:
            return bytes((abi.TIOCPKT_DATA,)) + data
        if pty.was_opened:
            raise errnos.EIO("the slave is closed")
        raise errnos.WouldBlock

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Types, even if nobody has the slave open just now; what does not fit waits for a reader."""
        accepted = self.pty.ldisc.receive(data[:TYPED_AT_ONCE])
        if not accepted and data:
            raise errnos.WouldBlock
        return accepted

    def poll(self) -> int:
        """Gives what holds: output to read, room to type, a closed slave."""
        pty = self.pty
        mask = READABLE if pty.ldisc.screen.output and not pty.ldisc.screen.stopped else 0
        mask |= WRITABLE if pty.ldisc.input_room() > 0 else 0
        mask |= POLLPRI | READABLE if pty.packet_mode and pty.packet_status else 0
        return mask | (POLLHUP if pty.was_opened else 0)

    def ioctl(self, thread: object, request: int, argument: int) -> int | Awaitable[int]:
        """Answers the master's own control calls; the rest are about the slave."""
        call = ioctls.Call(self.pty, self, cast(Caller, thread), argument, True)
        if request & 0xFFFFFFFF == io.TIOCGPTPEER:
            return self._open_peer(call)
        handler = _MASTER_HANDLERS.get(request & 0xFFFFFFFF)
        return handler(call) if handler is not None else ioctls.answer(call, request)

    async def _open_peer(self, call: ioctls.Call) -> int:
        """Opens the slave without walking a path, and numbers it."""
        if call.number & ~(O_ACCMODE | O_NOCTTY | O_CLOEXEC | O_NONBLOCK):
            raise errnos.EINVAL("flags TIOCGPTPEER does not take")
        thread = cast(Any, call.caller)
        mount = self.location.mount if self.location is not None else None
        location = self.pty.filesystem.slave_location(self.pty.index, mount)
        inode = location.dentry.inode
        assert inode is not None
        thread.fds.lowest_free()  # EMFILE comes first: a slave opened and closed again would hang up the master
        file = await inode.open(call.number & ~O_CLOEXEC, location, thread)
        fd: int = thread.fds.install(file, close_on_exec=bool(call.number & O_CLOEXEC))
        return fd

    async def release(self) -> None:
        """Hangs the slave up."""
        self.pty.master_closed()


def _get_index(call: ioctls.Call) -> int:
    return call.store_int(cast(Pty, call.tty).index)


def _set_lock(call: ioctls.Call) -> int:
    cast(Pty, call.tty).is_locked = bool(call.fetch_int())
    return 0


def _get_lock(call: ioctls.Call) -> int:
    return call.store_int(int(cast(Pty, call.tty).is_locked))


def _set_packet_mode(call: ioctls.Call) -> int:
    pty = cast(Pty, call.tty)
    pty.packet_mode = bool(call.fetch_int())
    pty.packet_status = 0
    return 0


def _get_packet_mode(call: ioctls.Call) -> int:
    return call.store_int(int(cast(Pty, call.tty).packet_mode))


def _count_output(call: ioctls.Call) -> int:
    return call.store_int(len(call.tty.ldisc.screen.output))


def _count_input(call: ioctls.Call) -> int:
    return call.store_int(0)


def _send_signal(call: ioctls.Call) -> int:
    if call.number not in (2, 3, 20):
        raise errnos.EINVAL("only SIGINT, SIGQUIT and SIGTSTP can be sent")
    call.tty.send_signal(call.number)
    return 0


_MASTER_HANDLERS = {
    io.TIOCGPTN: _get_index, io.TIOCSPTLCK: _set_lock, io.TIOCGPTLCK: _get_lock, io.TIOCPKT: _set_packet_mode,
    io.TIOCGPKT: _get_packet_mode, io.FIONREAD: _count_output, io.TIOCOUTQ: _count_input, io.TIOCSIG: _send_signal,
}  # fmt: skip
