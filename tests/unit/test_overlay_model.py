"""An overlay and a real directory are changed alike, at random from a printed seed, and must stay alike."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import AT_FDCWD, O_APPEND, O_CREAT, O_RDONLY, O_TRUNC, O_WRONLY
from asyncsentry.clock import HostClock
from asyncsentry.fs import attributes, names, rename
from asyncsentry.fs.fdtable import FdTable
from asyncsentry.fs.gofer.client import GoferFileSystem
from asyncsentry.fs.gofer.connection import Gofer, HostMount
from asyncsentry.fs.inode import FileSystem
from asyncsentry.fs.mount import MountNamespace
from asyncsentry.fs.overlay import OverlayFileSystem
from asyncsentry.fs.path import PathContext, resolve
from asyncsentry.fs.tmpfs import TmpFileSystem
from asyncsentry.fs.vfs import open_path
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.fscontext import FsContext

STEPS = 250
NAMES = ["a", "b", "c", "d"]


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


class Ours:
    """The operations on a file system of ours, through the virtual file system."""

    def __init__(self, filesystem: FileSystem) -> None:
        root = MountNamespace(filesystem).root
        self.context: PathContext = SimpleNamespace(  # type: ignore[assignment]  # has what a walk asks for
            fs=FsContext(root, root, 0o022), credentials=Credentials(), fds=FdTable())

    async def write(self, path: str, data: bytes, flags: int) -> None:
        file = await open_path(self.context, AT_FDCWD, path, O_WRONLY | O_CREAT | flags, 0o644)
        file.try_write(data)
        await file.release()

    async def read(self, path: str) -> bytes:
        file = await open_path(self.context, AT_FDCWD, path, O_RDONLY)
        data = file.try_read(1 << 20)
        await file.release()
        return data

    async def mkdir(self, path: str) -> None:
        await names.mkdir(self.context, AT_FDCWD, path, 0o755)

    async def symlink(self, path: str) -> None:
        await names.symlink(self.context, "a", AT_FDCWD, path)

    async def unlink(self, path: str) -> None:
        await names.unlink(self.context, AT_FDCWD, path)

    async def rmdir(self, path: str) -> None:
        await names.rmdir(self.context, AT_FDCWD, path)

    async def rename(self, path: str, other: str) -> None:
        await rename.rename(self.context, AT_FDCWD, path, AT_FDCWD, other)

    async def link(self, path: str, other: str) -> None:
        old = await resolve(self.context, AT_FDCWD, path, follow=False)
        await names.link(self.context, old, AT_FDCWD, other)

    async def chmod(self, path: str, mode: int) -> None:
        await attributes.chmod(self.context, await resolve(self.context, AT_FDCWD, path), mode)

    async def truncate(self, path: str, size: int) -> None:
        await attributes.truncate(self.context, await resolve(self.context, AT_FDCWD, path), size)

    async def tree(self, path: str = "/") -> dict[str, object]:
        location = await resolve(self.context, AT_FDCWD, path, follow=False)
        inode = location.dentry.inode
        assert inode is not None
        await inode.refresh()
        if inode.is_symlink:
            return {path: await inode.readlink()}
        if not inode.is_directory:
            return {path: (inode.stat().mode, inode.stat().nlink, inode.stat().size, await self.read(path))}
        found: dict[str, object] = {path: inode.stat().mode}
        for entry in await inode.entries():
            child = f"{path.rstrip('/')}/{entry.name}"
            found |= await self.tree(child)
            at = (await resolve(self.context, AT_FDCWD, child, follow=False)).dentry.inode
            assert at is not None
            assert (entry.ino, entry.kind) == (at.ino, at.mode >> 12)
        return found


class Native:
    """The same on the host, below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def write(self, path: str, data: bytes, flags: int) -> None:
        fd = os.open(self.at(path), os.O_WRONLY | os.O_CREAT | flags, 0o644)
        os.write(fd, data)
        os.close(fd)

    async def mkdir(self, path: str) -> None:
        os.mkdir(self.at(path), 0o755)

    async def symlink(self, path: str) -> None:
        os.symlink("a", self.at(path))

    async def unlink(self, path: str) -> None:
        os.unlink(self.at(path))

    async def rmdir(self, path: str) -> None:
        os.rmdir(self.at(path))

    async def rename(self, path: str, other: str) -> None:
        os.rename(self.at(path), self.at(other))

    async def link(self, path: str, other: str) -> None:
        os.link(self.at(path), self.at(other), follow_symlinks=False)

    async def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.at(path), mode)

    async def truncate(self, path: str, size: int) -> None:
        os.truncate(self.at(path), size)

    def at(self, path: str) -> str:
        return f"{self.root}{path}"

    def tree(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for path in [self.root, *self.root.rglob("*")]:
            name = "/" + str(path.relative_to(self.root)).lstrip(".")
            attributes = os.lstat(path)
            if path.is_symlink():
                found[name] = os.readlink(path)
            elif path.is_dir():
                found[name] = attributes.st_mode
            else:
                found[name] = (attributes.st_mode, attributes.st_nlink, attributes.st_size, path.read_bytes())
        return found


def make_tree(root: Path) -> None:
    for directory in ("a/b/c", "a/d", "b/a", "c"):
        (root / directory).mkdir(parents=True)
    for number, name in enumerate(["a/a", "a/b/a", "a/b/c/d", "b/b", "b/a/c", "d"]):
        (root / name).write_bytes(name.encode() * (number + 1))
    os.link(root / "d", root / "c/d")
    (root / "c/a").symlink_to("d")  # a link through ".." could leave the native root, not ours
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


def random_step(dice: random.Random) -> tuple[str, tuple[object, ...]]:
    def path() -> str:
        return "/" + "/".join(dice.choice(NAMES) for _ in range(dice.randint(1, 3)))

    data = bytes([dice.randrange(97, 123)]) * dice.randint(1, 20)
    return dice.choice([
        ("write", (path(), data, dice.choice([0, O_TRUNC, O_APPEND]))), ("mkdir", (path(),)), ("symlink", (path(),)),
        ("unlink", (path(),)), ("rmdir", (path(),)), ("rename", (path(), path())), ("rename", (path(), path())),
        ("link", (path(), path())), ("chmod", (path(), dice.choice([0o600, 0o644, 0o755]))),
        ("truncate", (path(), dice.randint(0, 30))),
    ])  # fmt: skip


async def outcome(step: Callable[..., Awaitable[None]], arguments: tuple[object, ...]) -> int:
    try:
        await step(*arguments)
    except errnos.LinuxError as error:
        return error.errno
    except OSError as error:
        return error.errno or -1
    return 0


async def run_alike(ours: Ours, native: Native, seed: int) -> None:
    dice = random.Random(seed)
    for number in range(STEPS):
        name, arguments = random_step(dice)
        told = await outcome(getattr(ours, name), arguments)
        expected = await outcome(getattr(native, name), arguments)
        assert told == expected, f"seed {seed}, step {number}: {name}{arguments}"
        if number % 10 == 9:
            assert await ours.tree() == native.tree(), f"seed {seed}, step {number}: after {name}{arguments}"


@pytest.mark.skipif(os.getuid() != 0, reason="modes stop an ordinary user on the host but not root in the sandbox")
@pytest.mark.parametrize("seed", range(6))
async def test_an_overlay_behaves_like_a_directory_of_the_host(tmp_path: Path, seed: int) -> None:
    make_tree(tmp_path / "lower")
    shutil.copytree(tmp_path / "lower", tmp_path / "native", symlinks=True)
    (tmp_path / "native/c/d").unlink()
    os.link(tmp_path / "native/d", tmp_path / "native/c/d")
    below = Native(tmp_path / "lower").tree()
    gofer = Gofer.start([HostMount(str(tmp_path / "lower"), read_only=True)])
    lower = await GoferFileSystem.attach(gofer, 0, 7, exclusive=True)
    overlay = OverlayFileSystem(8, lower, TmpFileSystem(9, HostClock()))
    await run_alike(Ours(overlay), Native(tmp_path / "native"), seed)
    await overlay.release()
    await gofer.close()
    assert Native(tmp_path / "lower").tree() == below


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="modes stop an ordinary user on the host but not root in the sandbox")
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("seed", range(3))
async def test_a_host_mount_behaves_like_a_directory_of_the_host(tmp_path: Path, seed: int, exclusive: bool) -> None:
    for name in ("served", "native"):
        make_tree(tmp_path / name)
    gofer = Gofer.start([HostMount(str(tmp_path / "served"))])
    served = await GoferFileSystem.attach(gofer, 0, 7, exclusive=exclusive)
    await run_alike(Ours(served), Native(tmp_path / "native"), 100 + seed)
    assert Native(tmp_path / "served").tree() == Native(tmp_path / "native").tree()
    await served.release()
    await gofer.close()
