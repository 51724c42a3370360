"""devpts: the file system whose names are the slaves of pseudo-terminals, and whose ptmx makes new ones.

Each mounted instance numbers its terminals on its own. See devpts in filesystems(5), pts(4).
"""

from __future__ import annotations

import heapq
import os
import stat as stat_bits
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

from asyncsentry import errnos
from asyncsentry.clock import CLOCK_REALTIME
from asyncsentry.fs.dentry import Dentry, Location
from asyncsentry.fs.file import O_PATH, File
from asyncsentry.fs.inode import AttributeChange, Inode
from asyncsentry.fs.mount import Mount
from asyncsentry.fs.options import parse_id, parse_number
from asyncsentry.fs.synthetic import Directory, SyntheticFileSystem, SyntheticInode
from asyncsentry.fs.tty.jobcontrol import Caller
from asyncsentry.fs.tty.pty import SLAVE_MAJOR, Pty, PtyMaster

if TYPE_CHECKING:
    from asyncsentry.fs.tty.terminals import Terminals

DEVPTS_SUPER_MAGIC = 0x1CD1
PTMX_DEVICE = os.makedev(5, 2)


class DevptsFileSystem(SyntheticFileSystem):
    """One instance. ``gid`` and ``mode`` are what new slaves get; without a ``gid`` they get the opener's."""

    name = "devpts"
    magic = DEVPTS_SUPER_MAGIC

    def __init__(self, device: int, terminals: Terminals, mode: int = 0o600, ptmx_mode: int = 0o000,
                 gid: int | None = None, uid: int | None = None, maximum: int | None = None) -> None:
        super().__init__(device, terminals.clock)
        self.terminals = terminals
        self.slave_mode = mode
        self.ptmx_mode = ptmx_mode
        self.slave_gid = gid
        self.slave_uid = uid
        self.maximum = maximum
        self.ptys: dict[int, Pty] = {}
        self._free: list[int] = []
        self._next = 0
        self.directory = PtsDirectory(self)
        self.root = self.directory
        self.directory.add("ptmx", PtmxInode(self, ptmx_mode))
        terminals.instances.append(self)

    async def release(self) -> None:
        """Lets the kernel forget the instance."""
        if self in self.terminals.instances:
            self.terminals.instances.remove(self)

    def mount_options(self) -> str:
        """Gives owner and modes as /proc/mounts shows them."""
        options = [f"gid={self.slave_gid}"] if self.slave_gid is not None else []
        return ",".join([*options, f"mode={self.slave_mode:03o}", f"ptmxmode={self.ptmx_mode:03o}"])

    def open_master(self, inode: Inode, flags: int, location: Location | None, caller: Caller) -> PtyMaster:
        """Makes a new pseudo-terminal for a guest thread and opens its master."""
        return PtyMaster(self.make_pty(caller.credentials.fsuid, caller.credentials.fsgid), inode, flags, location)

    def make_pty(self, uid: int, gid: int) -> Pty:
        """Makes a new pseudo-terminal for a user; ENOSPC when there are too many."""
        if self.terminals.pty_count() >= self.terminals.pty_limit() or len(self.ptys) >= (self.maximum or 1 << 20):
            raise errnos.ENOSPC("no pseudo-terminals left")
        index = heapq.heappop(self._free) if self._free else self._next
        self._next = max(self._next, index + 1)
        pty = Pty(self.terminals, self, index)
        uid = self.slave_uid if self.slave_uid is not None else uid
        gid = self.slave_gid if self.slave_gid is not None else gid
        self.ptys[index] = pty
        self.directory.children[str(index)] = SlaveInode(self, pty, self.slave_mode, uid, gid)
        return pty

    def remove(self, index: int) -> None:
        """Frees a number when its master is closed."""
        if self.ptys.pop(index, None) is not None:
            self.directory.children.pop(str(index), None)
            heapq.heappush(self._free, index)

    def slave_location(self, index: int, mount: Mount | None) -> Location:
        """Gives where a slave is, through the mount its master was opened by."""
        inode = self.directory.children[str(index)]
        if mount is None or mount.filesystem is not self:
            dentry = Dentry(f"/dev/pts/{index}", None, inode)
            return Location(Mount(0, self, dentry), dentry)
        cached = self.root_dentry.children.get(str(index))
        if cached is None or cached.inode is not inode:
            cached = self.root_dentry.children[str(index)] = Dentry(str(index), self.root_dentry, inode)
        return Location(mount, cached)


class PtsDirectory(Directory):
    """The root: ptmx and the slaves."""

    def __init__(self, filesystem: DevptsFileSystem) -> None:
        super().__init__(filesystem, 0o755)

    def items(self) -> Iterable[tuple[str, Inode]]:
        """Lists what is there now, unshaken by terminals that come and go meanwhile."""
        return list(self.children.items())


class _NodeInode(SyntheticInode):
    """A device node whose owner and mode can be changed."""

    async def set_attributes(self, change: AttributeChange) -> None:
        """Keeps owner, permission bits and times."""
        if change.mode is not None:
            self.mode = stat_bits.S_IFMT(self.mode) | change.mode
        if change.uid is not None:
            self.uid = change.uid
        if change.gid is not None:
            self.gid = change.gid
        if change.mtime_ns is not None:
            self.time_ns = change.mtime_ns


class PtmxInode(_NodeInode):
    """ptmx: each opening makes a new pseudo-terminal."""

    filesystem: DevptsFileSystem

    def __init__(self, filesystem: DevptsFileSystem, mode: int) -> None:
        super().__init__(filesystem, stat_bits.S_IFCHR | mode)
        self.rdev = PTMX_DEVICE

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Makes a pseudo-terminal and opens its master."""
        return self.filesystem.open_master(self, flags, location, cast(Caller, context))


class SlaveInode(_NodeInode):
    """The name of a slave."""

    def __init__(self, filesystem: DevptsFileSystem, pty: Pty, mode: int, uid: int, gid: int) -> None:
        super().__init__(filesystem, stat_bits.S_IFCHR | mode, uid, gid)
        self.pty = pty
        self.rdev = os.makedev(SLAVE_MAJOR, pty.index)
        self.time_ns = filesystem.clock.now_ns(CLOCK_REALTIME)

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens the slave, which may become the opener's controlling terminal."""
        assert not flags & O_PATH
        return self.pty.terminals.open(self.pty, self, flags, location, cast(Caller, context))


def make_devpts(device: int, terminals: Terminals, options: Mapping[str, str]) -> DevptsFileSystem:
    """Makes an instance with mount(2)'s options: gid, uid, mode, ptmxmode, max, newinstance. EINVAL for others."""
    values: dict[str, int] = {}
    for name, text in options.items():
        if name == "newinstance":
            continue
        if name not in ("gid", "uid", "mode", "ptmxmode", "max"):
            raise errnos.EINVAL(f"no devpts option {name!r}")
        values[name] = parse_number(text, 8) if name.endswith("mode") else parse_id(text)
    return DevptsFileSystem(
        device, terminals, values.get("mode", 0o600) & 0o777, values.get("ptmxmode", 0) & 0o777, values.get("gid"),
        values.get("uid"), values.get("max"),
    )  # fmt: skip
