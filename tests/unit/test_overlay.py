"""An in-memory layer over a read-only file system, tried over a real gofer."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from asyncsentry import errnos
from asyncsentry.clock import VirtualClock
from asyncsentry.fs.dentry import Location
from asyncsentry.fs.file import O_RDONLY, O_RDWR, File
from asyncsentry.fs.gofer.client import GoferFileSystem
from asyncsentry.fs.gofer.connection import Gofer, HostMount
from asyncsentry.fs.inode import AttributeChange, Inode, Owner
from asyncsentry.fs.mount import Mount
from asyncsentry.fs.overlay import OVERLAYFS_MAGIC, OverlayDirectory, OverlayFileSystem, OverlayRegular
from asyncsentry.fs.tmpfs import TmpFileSystem

ROOT = Owner(0, 0)
LARGE = 3 << 20


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "usr/lib/deep").mkdir(parents=True)
    (tmp_path / "usr/lib/deep/file").write_bytes(b"content")
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "hello").write_bytes(b"hello world")
    os.link(tmp_path / "hello", tmp_path / "again")
    with open(tmp_path / "large", "wb") as file:
        file.write(b"start")
        file.seek(LARGE - 3)
        file.write(b"end")
    return tmp_path


@pytest_asyncio.fixture
async def overlay(tree: Path) -> AsyncIterator[OverlayFileSystem]:
    gofer = Gofer.start([HostMount(str(tree), read_only=True)])
    lower = await GoferFileSystem.attach(gofer, 0, device=7, exclusive=True)
    filesystem = OverlayFileSystem(8, lower, TmpFileSystem(9, VirtualClock()))
    yield filesystem
    await filesystem.release()
    await gofer.close()


async def walk(filesystem: OverlayFileSystem, path: str) -> Inode:
    inode: Inode = filesystem.root
    for name in path.split("/"):
        inode = await inode.lookup(name)
    return inode


async def directory(filesystem: OverlayFileSystem, path: str = "") -> OverlayDirectory:
    inode = await walk(filesystem, path) if path else filesystem.root
    assert isinstance(inode, OverlayDirectory)
    return inode


async def open_file(inode: Inode, flags: int = O_RDONLY) -> File:
    mount = Mount(1, inode.filesystem, inode.filesystem.root_dentry)
    return await inode.open(flags, Location(mount, mount.root), None)


async def read(inode: Inode) -> bytes:
    file = await open_file(inode)
    data = file.try_read(1 << 24)
    await file.release()
    return data


async def write(inode: Inode, data: bytes) -> None:
    file = await open_file(inode, O_RDWR)
    file.try_write(data)
    await file.release()


async def names(inode: Inode) -> list[str]:
    return sorted(entry.name for entry in await inode.entries())


async def test_unchanged_files_are_the_lower_ones(overlay: OverlayFileSystem, tree: Path) -> None:
    inode, host = await walk(overlay, "hello"), os.stat(tree / "hello")
    found = inode.stat()
    assert (found.dev, found.ino, found.size, found.nlink, found.mtime_ns) == (8, host.st_ino, 11, 2, host.st_mtime_ns)
    assert await read(inode) == b"hello world"
    assert await names(overlay.root) == ["again", "hello", "large", "lib", "usr"]
    assert await (await walk(overlay, "lib")).readlink() == "usr/lib"
    assert not overlay.changed
    assert overlay.statfs().magic == OVERLAYFS_MAGIC
    assert overlay.statfs().blocks_available > 0


async def test_writing_copies_up_and_leaves_the_lower_file_alone(overlay: OverlayFileSystem, tree: Path) -> None:
    inode = await walk(overlay, "usr/lib/deep/file")
    before = inode.stat()
    await write(inode, b"CON")
    assert await read(inode) == b"CONtent"
    assert (inode.stat().ino, inode.stat().dev) == (before.ino, before.dev)
    assert (tree / "usr/lib/deep/file").read_bytes() == b"content"
    assert await walk(overlay, "usr/lib/deep/file") is inode


async def test_a_large_file_keeps_content_and_holes(overlay: OverlayFileSystem) -> None:
    inode = await walk(overlay, "large")
    await write(inode, b"START")
    data = await read(inode)
    assert (len(data), data[:6], data[-4:]) == (LARGE, b"START\0", b"\0end")
    assert inode.stat().blocks * 512 < LARGE // 2
    assert overlay.upper.budget.used == inode.stat().blocks // 8


async def test_a_full_upper_layer_refuses_a_large_copy(tree: Path) -> None:
    (tree / "full").write_bytes(bytes(range(256)) * (LARGE // 256))
    gofer = Gofer.start([HostMount(str(tree), read_only=True)])
    lower = await GoferFileSystem.attach(gofer, 0, device=7, exclusive=True)
    small = OverlayFileSystem(8, lower, TmpFileSystem(9, VirtualClock(), size=1 << 20))
    with pytest.raises(errnos.ENOSPC):
        await write(await walk(small, "full"), b"x")
    assert small.upper.budget.used == 0
    await small.release()
    await gofer.close()


async def test_a_file_opened_before_the_copy_sees_later_writes(overlay: OverlayFileSystem) -> None:
    inode = await walk(overlay, "hello")
    file = await open_file(inode)
    assert file.try_read(5) == b"hello"
    await write(inode, b"HELLO WORLD!")
    assert file.try_read(100) == b" WORLD!"
    assert file.seek(0, 2) == 12
    assert file.inode is inode
    await file.release()


async def test_truncation_copies_no_more_than_is_left(overlay: OverlayFileSystem) -> None:
    inode = await walk(overlay, "hello")
    await inode.set_attributes(AttributeChange(size=5))
    assert (await read(inode), inode.stat().size) == (b"hello", 5)


async def test_chmod_of_a_lower_file_is_remembered_without_a_copy(overlay: OverlayFileSystem, tree: Path) -> None:
    inode = await walk(overlay, "hello")
    await inode.set_attributes(AttributeChange(mode=0o600, uid=1000))
    del inode
    found = await walk(overlay, "hello")
    assert isinstance(found, OverlayRegular)
    assert (stat.S_IMODE(found.mode), found.uid, found.content) == (0o600, 1000, None)
    assert os.stat(tree / "hello").st_uid == os.getuid()


async def test_hard_links_of_a_lower_file_stay_one_file(overlay: OverlayFileSystem) -> None:
    await write(await walk(overlay, "hello"), b"HELLO")
    assert await read(await walk(overlay, "again")) == b"HELLO world"
    await overlay.root.link("third", await walk(overlay, "again"))
    assert (await walk(overlay, "hello")).stat().nlink == 3


async def test_an_unlinked_lower_name_stays_away(overlay: OverlayFileSystem, tree: Path) -> None:
    inode = await walk(overlay, "hello")
    file = await open_file(inode)
    await overlay.root.unlink("hello", inode)
    with pytest.raises(errnos.ENOENT):
        await walk(overlay, "hello")
    assert "hello" not in await names(overlay.root)
    assert (file.try_read(100), inode.stat().nlink) == (b"hello world", 1)
    assert (tree / "hello").exists()
    await file.release()


async def test_a_name_made_over_a_whiteout_is_new(overlay: OverlayFileSystem) -> None:
    root = overlay.root
    old = await walk(overlay, "hello")
    await root.unlink("hello", old)
    new = await root.create("hello", 0o644, ROOT)
    assert (await read(new), new.ino != old.ino) == (b"", True)
    await root.unlink("hello", new)
    with pytest.raises(errnos.ENOENT):
        await walk(overlay, "hello")


async def test_an_existing_lower_name_cannot_be_made_again(overlay: OverlayFileSystem) -> None:
    with pytest.raises(errnos.EEXIST):
        await overlay.root.mkdir("usr", 0o755, ROOT)
    with pytest.raises(errnos.EEXIST):
        await overlay.root.create("hello", 0o644, ROOT)


async def test_a_removed_and_remade_directory_is_empty(overlay: OverlayFileSystem) -> None:
    lib, deep = await directory(overlay, "usr/lib"), await directory(overlay, "usr/lib/deep")
    with pytest.raises(errnos.ENOTEMPTY):
        await lib.rmdir("deep", deep)
    await deep.unlink("file", await walk(overlay, "usr/lib/deep/file"))
    await lib.rmdir("deep", deep)
    await lib.mkdir("deep", 0o755, ROOT)
    assert await names(await walk(overlay, "usr/lib/deep")) == []


async def test_a_lower_directory_is_renamed_with_all_below(overlay: OverlayFileSystem) -> None:
    usr, root = await directory(overlay, "usr"), overlay.root
    lib = await walk(overlay, "usr/lib")
    await usr.rename("lib", lib, root, "moved", None, exchange=False)
    assert await read(await walk(overlay, "moved/deep/file")) == b"content"
    assert await names(usr) == []
    with pytest.raises(errnos.ENOENT):
        await usr.lookup("lib")


async def test_rename_replaces_a_lower_file_and_leaves_a_whiteout(overlay: OverlayFileSystem) -> None:
    root = overlay.root
    fresh = await root.create("fresh", 0o644, ROOT)
    await write(fresh, b"new")
    hello = await walk(overlay, "hello")
    await root.rename("fresh", fresh, root, "hello", hello, exchange=False)
    assert await read(await walk(overlay, "hello")) == b"new"
    assert hello.stat().nlink == 1
    assert await names(root) == ["again", "hello", "large", "lib", "usr"]


async def test_names_change_places(overlay: OverlayFileSystem) -> None:
    root = overlay.root
    hello, usr = await walk(overlay, "hello"), await walk(overlay, "usr")
    await root.rename("hello", hello, root, "usr", usr, exchange=True)
    assert await read(await walk(overlay, "usr")) == b"hello world"
    assert await names(await walk(overlay, "hello")) == ["lib"]


async def test_a_chain_of_names_minds_both_layers(overlay: OverlayFileSystem) -> None:
    lib = await directory(overlay, "usr/lib")
    made = await lib.mkdir("made", 0o755, ROOT)
    inner = await made.create("inner", 0o644, ROOT)
    assert (await overlay.root.lookup_path(["usr", "lib", "made", "inner"]))[-1] is inner
    assert await overlay.root.lookup_path(["usr", "lib", "made", "none", "x"]) == [
        await walk(overlay, "usr"), lib, made, None]  # fmt: skip
    await lib.unlink("gone", await lib.create("gone", 0o644, ROOT))
    assert (await overlay.root.lookup_path(["usr", "lib", "gone"]))[-1] is None
    assert (await overlay.root.lookup_path(["usr", "lib", "deep", "file"]))[-1] is await walk(
        overlay, "usr/lib/deep/file")  # fmt: skip


async def test_every_kind_of_file_can_be_made(overlay: OverlayFileSystem) -> None:
    root = overlay.root
    link = await root.symlink("link", "somewhere", ROOT)
    fifo = await root.mknod("fifo", stat.S_IFIFO | 0o600, 0, ROOT)
    device = await root.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3), ROOT)
    unnamed = await root.create_unnamed(0o600, ROOT)
    assert (await link.readlink(), link.stat().size) == ("somewhere", 9)
    assert stat.S_ISFIFO(fifo.mode)
    assert device.stat().rdev == os.makedev(1, 3)
    assert unnamed.nlink == 0
    await root.link("named", unnamed)
    assert await walk(overlay, "named") is unnamed


async def test_a_large_copy_lets_other_tasks_go_on(overlay: OverlayFileSystem) -> None:
    inode = await walk(overlay, "large")
    assert isinstance(inode, OverlayRegular)
    steps = 0

    async def count() -> None:
        nonlocal steps
        while inode.content is None:
            steps += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    await asyncio.gather(inode.copy_up(), inode.copy_up())
    await counting
    assert steps > 1
    assert inode.content is not None
    assert overlay.upper.budget.used == inode.content.blocks // 8


async def test_extended_attributes_start_as_the_lower_ones(overlay: OverlayFileSystem, tree: Path) -> None:
    try:
        os.setxattr(tree / "hello", "user.origin", b"below")
    except OSError:
        pytest.skip("the host's file system has no extended attributes")
    inode = await walk(overlay, "hello")
    assert (await inode.list_xattrs(), await inode.get_xattr("user.origin")) == (["user.origin"], b"below")
    await inode.set_xattr("user.more", b"above", 0)
    await inode.remove_xattr("user.origin")
    assert await inode.list_xattrs() == ["user.more"]
    assert os.getxattr(tree / "hello", "user.origin") == b"below"


async def test_dropped_files_give_their_room_back(overlay: OverlayFileSystem) -> None:
    root = overlay.root
    made = await root.create("made", 0o644, ROOT)
    await write(made, bytes(LARGE))
    assert overlay.upper.budget.used >= LARGE // 4096
    await root.unlink("made", made)
    del made
    assert (overlay.upper.budget.used, overlay.changed) == (0, {root})


async def test_a_directorys_times_and_links_follow_its_names(overlay: OverlayFileSystem) -> None:
    root = overlay.root
    before = root.stat()
    await root.mkdir("sub", 0o755, ROOT)
    after = root.stat()
    assert after.nlink == before.nlink + 1
    assert after.mtime_ns == after.ctime_ns == overlay.now_ns()
