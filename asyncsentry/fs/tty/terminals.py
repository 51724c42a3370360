"""The terminals of one kernel: what /dev/tty, /dev/console and /dev/ptmx lead to, and how terminals are opened."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, cast

from asyncsentry import errnos
from asyncsentry.abi.capability_h import CAP_SYS_ADMIN
from asyncsentry.clock import Clock
from asyncsentry.fs.tty.devpts import DevptsFileSystem
from asyncsentry.fs.tty.jobcontrol import Caller, JobControl, take_on_open
from asyncsentry.fs.tty.pty import O_NOCTTY, SLAVE_MAJOR
from asyncsentry.fs.tty.tty import Tty, TtyFile

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Dentry, Location
    from asyncsentry.fs.devices import DeviceRegistry
    from asyncsentry.fs.file import File
    from asyncsentry.fs.inode import Inode
    from asyncsentry.fs.mount import Mount
    from asyncsentry.sysctl import Sysctls

TTYAUX_MAJOR = 5
TTY, CONSOLE, PTMX = 0, 1, 2


class TerminalKernel(Protocol):
    """What terminals ask of the kernel object."""

    clock: Clock
    sysctls: Sysctls
    job_control: JobControl


class Terminals:
    """Hangs from the kernel as ``terminals``."""

    def __init__(self, kernel: TerminalKernel) -> None:
        self.kernel = kernel
        self.console: Tty | None = None
        """What /dev/console is, if the sandbox has a terminal."""
        self.instances: list[DevptsFileSystem] = []
        """Every devpts made so far; the first answers for nodes outside any devpts."""

    @property
    def clock(self) -> Clock:
        """The kernel's clock."""
        return self.kernel.clock

    @property
    def job_control(self) -> JobControl:
        """The kernel's job control."""
        return self.kernel.job_control

    def pty_count(self) -> int:
        """Gives how many pseudo-terminals there are."""
        return sum(len(instance.ptys) for instance in self.instances)

    def pty_limit(self) -> int:
        """Gives how many there may be, kernel.pty.max."""
        return self.kernel.sysctls.integer("kernel.pty.max")

    def register(self, devices: DeviceRegistry) -> None:
        """Answers for the device numbers of terminals."""
        devices.register(TTYAUX_MAJOR, TTY, self.open_own)
        devices.register(TTYAUX_MAJOR, CONSOLE, self.open_console)
        devices.register(TTYAUX_MAJOR, PTMX, self.open_ptmx)
        devices.register(SLAVE_MAJOR, None, self.open_slave)

    def open(self, tty: Tty, inode: Inode, flags: int, location: Location | None, caller: Caller) -> TtyFile:
        """Opens a terminal for a guest thread, whose controlling terminal it may become."""
        if tty.exclusive and not caller.credentials.has(CAP_SYS_ADMIN):
            raise errnos.EBUSY("somebody has the terminal for himself")
        file = tty.open(inode, flags, location)
        if not flags & O_NOCTTY and file.readable:
            take_on_open(tty, caller)
        return file

    async def open_own(self, inode: Inode, flags: int, location: Location, context: object) -> File:
        """Opens /dev/tty: the caller's controlling terminal, ENXIO without one."""
        caller = cast(Caller, context)
        tty = caller.process.session.terminal
        if tty is None:
            raise errnos.ENXIO("no controlling terminal")
        return self.open(tty, inode, flags | O_NOCTTY, location, caller)

    async def open_console(self, inode: Inode, flags: int, location: Location, context: object) -> File:
        """Opens /dev/console; ENXIO if the sandbox has no terminal. It never becomes a controlling terminal."""
        if self.console is None:
            raise errnos.ENXIO("there is no console")
        return self.open(self.console, inode, flags | O_NOCTTY, location, cast(Caller, context))

    async def open_ptmx(self, inode: Inode, flags: int, location: Location, context: object) -> File:
        """Opens a /dev/ptmx outside devpts: it makes terminals in the devpts mounted on ``pts`` beside it."""
        instance = _instance_beside(location) or next(iter(self.instances), None)
        if instance is None:
            raise errnos.ENODEV("no devpts is mounted")
        return instance.open_master(inode, flags, location, cast(Caller, context))

    async def open_slave(self, inode: Inode, flags: int, location: Location, context: object) -> File:
        """Opens a slave by a node outside devpts."""
        index = os.minor(inode.rdev)
        pty = next((instance.ptys[index] for instance in self.instances if index in instance.ptys), None)
        if pty is None:
            raise errnos.EIO(f"no pseudo-terminal {index}")
        return self.open(pty, inode, flags, location, cast(Caller, context))


def _instance_beside(location: Location) -> DevptsFileSystem | None:
    parent: Dentry | None = location.dentry.parent
    beside = parent.children.get("pts") if parent is not None else None
    mounted: Mount | None = location.mount.children.get(beside) if beside is not None else None
    found = mounted.filesystem if mounted is not None else None
    return found if isinstance(found, DevptsFileSystem) else None
