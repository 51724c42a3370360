"""A terminal of the host joined to a pseudo-terminal of the sandbox.

Guests see an ordinary /dev/pts/N with our line discipline; the host's terminal is in raw mode meanwhile, so
that every key reaches the sandbox. Bytes are pumped from the event loop, never from inside a guest's call.
The host's open description is shared with the user's shell: its flags are left alone (``hoststream.py``), and its
settings are restored at the end.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import signal
import struct
import termios
import time
import tty
from typing import TYPE_CHECKING, Any

from asyncsentry import errnos
from asyncsentry.fs.file import O_RDWR
from asyncsentry.fs.hoststream import HostStreamFile
from asyncsentry.waiter import POLLERR, POLLHUP, READABLE, WRITABLE, Waiter

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.fs.mount import Mount
    from asyncsentry.fs.tty.devpts import DevptsFileSystem

_CHUNK = 4096
_DRAIN_TIMEOUT_S = 1.0
_WINSIZE = struct.Struct("HHHH")


class HostTty:
    """Pumps between the host's terminal and a pseudo-terminal made for it."""

    def __init__(self, filesystem: DevptsFileSystem, mount: Mount | None, input_fd: int, output_fd: int | None = None,
                 uid: int = 0, gid: int = 0) -> None:
        self.pty = filesystem.make_pty(uid, gid)
        self.pty.is_locked = False
        self.mount = mount
        self.input = HostStreamFile(input_fd)
        self.output = HostStreamFile(input_fd if output_fd is None else output_fd)
        self._typed = b""
        self._shown = b""
        self._saved: list[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_scheduled = False
        self._follows_window = False
        self._waiters = (
            (self.input.queue, Waiter(self._wake, READABLE | POLLHUP | POLLERR)),
            (self.output.queue, Waiter(self._wake, WRITABLE)),
            (self.pty.master_queue, Waiter(self._wake, READABLE | WRITABLE)),
        )

    def start(self, follow_window: bool = True) -> None:
        """Puts the host's terminal in raw mode and begins to pump.

        ``follow_window`` takes SIGWINCH of this process to pass the terminal's size on.
        """
        descriptor = self.input.descriptor
        self._saved = termios.tcgetattr(descriptor)
        tty.setraw(descriptor)
        self._loop = asyncio.get_running_loop()
        self.resize()
        if follow_window:
            self._follows_window = True
            self._loop.add_signal_handler(signal.SIGWINCH, self.resize)
        for queue, waiter in self._waiters:
            queue.add(waiter)
        self._wake(0)

    def resize(self) -> None:
        """Takes over the size of the host's terminal."""
        try:
            raw = fcntl.ioctl(self.input.descriptor, termios.TIOCGWINSZ, bytes(_WINSIZE.size))
        except OSError:
            return
        rows, columns, width, height = _WINSIZE.unpack(raw)
        self.pty.set_window((rows, columns, width, height))

    def open(self, flags: int = O_RDWR) -> File:
        """Opens the slave, for the standard streams of a program."""
        location = self.pty.filesystem.slave_location(self.pty.index, self.mount)
        inode = location.dentry.inode
        assert inode is not None
        return self.pty.open(inode, flags, location)

    async def close(self) -> None:
        """Shows what is still to be shown, hangs the pseudo-terminal up and restores the host's terminal."""
        await self._drain()
        self._finish()

    def close_blocking(self) -> None:
        """Does the same without the event loop's help, for programs about to end; waits a second at most."""
        deadline = time.monotonic() + _DRAIN_TIMEOUT_S
        poller = select.poll()
        poller.register(self.output.descriptor, select.POLLOUT)
        self._pump_output()
        while (left := deadline - time.monotonic()) > 0 and self._has_output and poller.poll(left * 1000):
            self._pump_output()
        self._finish()

    @property
    def _has_output(self) -> bool:
        screen = self.pty.ldisc.screen
        return bool(self._shown or screen.output) and not screen.stopped

    def _finish(self) -> None:
        for queue, waiter in self._waiters:
            queue.remove(waiter)
        if self._loop is not None and self._follows_window:
            self._loop.remove_signal_handler(signal.SIGWINCH)
        if self.pty.master_open:
            self.pty.master_closed()
        self.restore()
        self.input.close()
        self.output.close()

    def restore(self) -> None:
        """Gives the host's terminal its settings back; harmless when done twice."""
        saved, self._saved = self._saved, None
        if saved is not None:
            try:
                termios.tcsetattr(self.input.descriptor, termios.TCSADRAIN, saved)
            except termios.error:  # the terminal is gone
                pass

    async def _drain(self) -> None:
        if self._loop is None:
            return
        deadline = self._loop.time() + _DRAIN_TIMEOUT_S
        self._pump_output()
        while self._has_output and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
            self._pump_output()

    # Pumping --------------------------------------------------------------------------------------

    def _wake(self, mask: int) -> None:
        if not self._is_scheduled and self._loop is not None:
            self._is_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._is_scheduled = False
        if not self.pty.master_open:
            return
        self._pump_input()
        self._pump_output()

    def _pump_input(self) -> None:
        ldisc = self.pty.ldisc
        while True:
            if self._typed:
                accepted = ldisc.receive(self._typed)
                self._typed = self._typed[accepted:]
                if self._typed:
                    return  # a reader makes room and wakes us
            try:
                self._typed = self.input.try_read(_CHUNK)
            except errnos.WouldBlock:
                return
            except errnos.LinuxError:
                self._typed = b""
            if not self._typed:
                self._host_hung_up()
                return

    def _host_hung_up(self) -> None:
        for queue, waiter in self._waiters:
            queue.remove(waiter)
        self.pty.master_closed()

    def _pump_output(self) -> None:
        while True:
            if not self._shown:
                self._shown = self.pty.ldisc.take_output(_CHUNK)
            if not self._shown:
                return
            try:
                written = self.output.try_write(self._shown)
            except errnos.WouldBlock:
                return
            except errnos.LinuxError:
                self._shown = b""
                return
            self._shown = self._shown[written:]
