"""A gofer process serves directories of the host, and the file system made of its answers."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from asyncsentry import errnos
from asyncsentry.fs.file import O_RDONLY
from asyncsentry.fs.gofer.client import GoferFileSystem, GoferInode
from asyncsentry.fs.gofer.connection import Gofer, HostMount
from asyncsentry.fs.gofer.files import HostFile


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "usr/lib/deep").mkdir(parents=True)
    (tmp_path / "usr/lib/deep/file").write_bytes(b"content")
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "hello").write_bytes(b"hello world")
    (tmp_path / "hello").chmod(0o640)
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest_asyncio.fixture
async def gofer(tree: Path) -> AsyncIterator[Gofer]:
    shared, read_only, one_file = HostMount(str(tree)), HostMount(str(tree), True), HostMount(str(tree / "hello"))
    gofer = Gofer.start([shared, read_only, one_file])
    yield gofer
    await gofer.close()


@pytest_asyncio.fixture
async def lower(gofer: Gofer) -> AsyncIterator[GoferFileSystem]:
    filesystem = await GoferFileSystem.attach(gofer, 1, device=7, exclusive=True)
    yield filesystem
    await filesystem.release()


async def walk(filesystem: GoferFileSystem, path: str) -> GoferInode:
    inode = filesystem.root
    for name in path.split("/"):
        inode = await inode.lookup(name)
    assert isinstance(inode, GoferInode)
    return inode


async def read(inode: GoferInode) -> bytes:
    file = await inode.open(O_RDONLY, None, None)
    data = file.try_read(1 << 20)
    await file.release()
    return data


async def test_a_file_has_the_hosts_attributes(lower: GoferFileSystem, tree: Path) -> None:
    found, host = (await walk(lower, "hello")).stat(), os.stat(tree / "hello")
    assert (found.mode, found.size, found.nlink, found.mtime_ns) == (host.st_mode, 11, 1, host.st_mtime_ns)
    assert (found.dev, found.ino, found.uid) == (7, host.st_ino, host.st_uid)


async def test_content_is_read_from_the_donated_descriptor(lower: GoferFileSystem) -> None:
    file = await (await walk(lower, "usr/lib/deep/file")).open(O_RDONLY, None, None)
    assert isinstance(file, HostFile)
    assert [file.try_read(4), file.try_read(100), file.try_read(100)] == [b"cont", b"ent", b""]
    assert file.try_read(3, 1) == b"ont"
    await file.release()


async def test_a_chain_of_names_takes_one_trip_and_then_none(gofer: Gofer, lower: GoferFileSystem) -> None:
    before = gofer.trips
    found = await lower.root.lookup_path(["usr", "lib", "deep", "file"])  # type: ignore[attr-defined]
    assert [stat.S_ISDIR(inode.mode) for inode in found] == [True, True, True, False]
    assert await walk(lower, "usr/lib/deep/file") is found[-1]
    assert gofer.trips == before + 1


async def test_a_second_open_takes_no_trip(gofer: Gofer, lower: GoferFileSystem) -> None:
    inode = await walk(lower, "hello")
    assert await read(inode) == b"hello world"
    before = gofer.trips
    assert await read(inode) == b"hello world"
    assert gofer.trips == before


async def test_a_listed_directory_answers_lookups_without_trips(gofer: Gofer, lower: GoferFileSystem) -> None:
    names = {entry.name: entry.kind for entry in await lower.root.entries()}
    assert names == {"usr": 4, "lib": 10, "hello": 8, "fifo": 1}
    before = gofer.trips
    assert (await walk(lower, "lib")).is_symlink
    assert await (await walk(lower, "lib")).readlink() == "usr/lib"
    with pytest.raises(errnos.ENOENT):
        await lower.root.lookup("nothing")
    assert gofer.trips == before


async def test_a_chain_stops_at_a_link(lower: GoferFileSystem) -> None:
    found = await lower.root.lookup_path(["lib", "deep"])  # type: ignore[attr-defined]
    assert len(found) == 1
    assert found[0].is_symlink


async def test_a_missing_name_ends_a_chain(lower: GoferFileSystem) -> None:
    found = await lower.root.lookup_path(["usr", "nothing", "more"])  # type: ignore[attr-defined]
    assert [inode is None for inode in found] == [False, True]
