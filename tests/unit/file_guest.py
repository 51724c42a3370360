"""A guest thread whose root is a tmpfs, and calls on it that take and give Python values."""

from __future__ import annotations

from typing import Any, ClassVar

from guest_thread import A, Guest, make_guest

from asyncsentry.abi.fcntl_h import AT_FDCWD, O_CREAT, O_RDWR
from asyncsentry.abi.stat_h import STAT
from asyncsentry.fs import names, vfs
from asyncsentry.fs.devices import DeviceRegistry
from asyncsentry.fs.mount import MountNamespace
from asyncsentry.fs.path import resolve
from asyncsentry.fs.tmpfs import TmpFileSystem
from asyncsentry.syscalls import attributes, descriptors, filelocks, files, mounts, opening, paths, status, xattrs
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.fscontext import FsContext

PATH, SECOND, BUFFER = A, A + 0x1000, A + 0x2000


class FileGuest(Guest):
    """Calls by path put the path in guest memory and run the real handler."""

    handlers: ClassVar[dict[str, Any]] = {
        name: getattr(module, name)
        for module in (attributes, descriptors, filelocks, files, mounts, opening, paths, status, xattrs)
        for name in vars(module)
    }

    def at(self, path: str, where: int = PATH) -> int:
        """Puts a string in guest memory."""
        self.memory.write(where, path.encode() + b"\0")
        return where

    async def call(self, name: str, *arguments: Any) -> int:
        """Calls a handler; strings go to guest memory first (two at most)."""
        places = [PATH, SECOND, A + 0x8000]
        registers = [self.at(a, places.pop(0)) if isinstance(a, str) else a for a in arguments]
        result = self.handlers[name](self.thread, *registers)
        answer: int = result if isinstance(result, int) else await result
        return answer

    async def open(self, path: str, flags: int = O_CREAT | O_RDWR, mode: int = 0o644) -> int:
        """Opens a path and gives the descriptor."""
        return await self.call("openat", AT_FDCWD, path, flags, mode)

    async def write_file(self, path: str, data: bytes = b"") -> None:
        """Makes a file with content."""
        fd = await self.open(path)
        self.thread.fds.get(fd).try_write(data)
        await self.call("close", fd)

    async def read_file(self, path: str) -> bytes:
        """Gives a file's content."""
        file = await vfs.open_path(self.thread, AT_FDCWD, path, 0)
        return file.try_read(1 << 20)

    async def stat(self, path: str, follow: bool = True) -> Any:
        """Gives the kernel's own view of a file."""
        return (await resolve(self.thread, AT_FDCWD, path, follow)).dentry.inode.stat()  # type: ignore[union-attr]

    async def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Makes a directory."""
        await names.mkdir(self.thread, AT_FDCWD, path, mode)

    async def symlink(self, target: str, path: str) -> None:
        """Makes a link."""
        await names.symlink(self.thread, target, AT_FDCWD, path)

    def become(self, uid: int, gid: int = 0, groups: tuple[int, ...] = ()) -> None:
        """Changes who the guest is, losing all capabilities unless root."""
        self.thread.credentials = Credentials.for_user(uid, gid or uid, groups)

    def read_stat(self) -> tuple[int, ...]:
        """Unpacks what a stat call left in the buffer."""
        return tuple(STAT.unpack(self.memory.read(BUFFER, STAT.size)))

    async def listing(self, path: str) -> list[str]:
        """Lists a directory through getdents64, in small pieces."""
        fd = await self.open(path, 0o200000)
        found: list[str] = []
        while count := await self.call("getdents64", fd, BUFFER, 64):
            data = self.memory.read(BUFFER, count)
            while data:
                length = int.from_bytes(data[16:18], "little")
                found.append(data[19:length].split(b"\0")[0].decode())
                data = data[length:]
        await self.call("close", fd)
        return sorted(found)


async def make_file_guest(size: int | None = None) -> FileGuest:
    """Makes a guest in an empty tmpfs."""
    guest = await make_guest()
    filesystem = TmpFileSystem(5, guest.kernel.clock, size=size, mode=0o755)
    guest.kernel.mounts = MountNamespace(filesystem)
    guest.kernel.devices = DeviceRegistry()
    root = guest.kernel.mounts.root
    guest.thread.fs = FsContext(root, root)
    guest.kernel.threads[guest.thread.tid] = guest.thread
    guest.kernel.processes[guest.thread.process.pid] = guest.thread.process
    return FileGuest(guest.thread, guest.clock)
