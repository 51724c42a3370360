"""What a program sees of files in memory: content, holes, limits, times, seals, names."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest
from file_guest import FileGuest, make_file_guest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsentry import errnos
from asyncsentry.abi import fcntl_h as abi
from asyncsentry.clock import VirtualClock
from asyncsentry.fs.content import SMALL_MAX, Content, PageBudget
from asyncsentry.fs.file import SEEK_DATA, SEEK_HOLE
from asyncsentry.fs.hostfile import fallocate
from asyncsentry.fs.tmpfs import MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL, TmpFileSystem, memfd_file

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 200_000), st.binary(min_size=1, max_size=9000)),
        st.tuples(st.just("truncate"), st.integers(0, 200_000)),
        st.tuples(st.just("read"), st.integers(0, 210_000), st.integers(0, 70_000)),
        st.tuples(st.just("punch"), st.integers(0, 200_000), st.integers(1, 50_000)),
        st.tuples(st.just("map")),
    ),
    max_size=12,
)


def at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs what does not wait."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_content_behaves_like_a_hosts_file_in_either_form(steps: list[tuple[Any, ...]]) -> None:
    budget = PageBudget()
    content = Content(budget)
    oracle = os.memfd_create("oracle")
    try:
        for step, *arguments in steps:
            if step == "write":
                assert content.write(*arguments) == os.pwrite(oracle, arguments[1], arguments[0])
            elif step == "truncate":
                content.truncate(*arguments)
                os.ftruncate(oracle, *arguments)
            elif step == "read":
                assert content.read(*arguments) == os.pread(oracle, arguments[1], arguments[0])
            elif step == "punch":
                at_once(content.allocate(3, *arguments))
                at_once(fallocate(oracle, 3, *arguments))
            else:
                content.host_descriptor(False)
            assert content.size == os.fstat(oracle).st_size
        assert content.read(0, 1 << 20) == os.pread(oracle, 1 << 20, 0)
        assert budget.used * 8 == content.blocks
    finally:
        os.close(oracle)
    del content
    assert budget.used == 0


async def test_others_go_on_while_much_space_is_reserved() -> None:
    content = Content(PageBudget())
    reserving = asyncio.ensure_future(content.allocate(0, 0, 32 << 20))
    await asyncio.sleep(0)
    content.truncate(8192)
    await reserving
    assert content.size == os.fstat(content.host_descriptor(False)).st_size


def test_small_content_needs_no_descriptor_and_knows_its_holes() -> None:
    content = Content(PageBudget())
    content.write(8192, b"data")
    assert content.host_fd is None
    assert content.seek_hole_or_data(0, SEEK_DATA) == 8192
    assert content.seek_hole_or_data(0, SEEK_HOLE) == 0
    assert content.seek_hole_or_data(8193, SEEK_HOLE) == 8196
    with pytest.raises(errnos.ENXIO):
        content.seek_hole_or_data(8196, SEEK_DATA)
    content.write(SMALL_MAX, b"more")
    assert content.host_fd is not None
    assert content.seek_hole_or_data(0, SEEK_DATA) == 8192


async def test_a_full_file_system_takes_what_fits_and_then_says_enospc() -> None:
    guest = await make_file_guest(size=40 * 4096)
    fd = await guest.open("/file")
    file = guest.thread.fds.get(fd)
    assert file.try_write(bytes(200_000)) == 40 * 4096
    with pytest.raises(errnos.ENOSPC):
        file.try_write(b"x")
    assert file.try_write(b"x", 0) == 1
    await guest.call("ftruncate", fd, 0)
    await guest.call("ftruncate", fd, 1 << 40)
    assert file.try_write(b"x" * 4096, 1 << 30) == 4096
    await guest.call("unlink", "/file")
    await guest.call("close", fd)
    del file
    assert guest.thread.fs.root.mount.filesystem.statfs().blocks_free == 40


async def test_an_unlinked_file_lives_as_long_as_it_is_open() -> None:
    guest = await make_file_guest()
    fd = await guest.open("/file")
    guest.thread.fds.get(fd).try_write(b"still here")
    await guest.call("unlink", "/file")
    assert guest.thread.fds.get(fd).try_read(100, 0) == b"still here"
    assert guest.thread.fds.get(fd).inode.stat().nlink == 0  # type: ignore[union-attr]
    await guest.write_file("/file", b"another")


async def test_an_unnamed_file_can_be_given_a_name_unless_exclusive() -> None:
    guest = await make_file_guest()
    fd = await guest.open("/", abi.O_TMPFILE | abi.O_RDWR)
    guest.thread.fds.get(fd).try_write(b"x")
    await guest.call("linkat", fd, "", abi.AT_FDCWD, "/named", abi.AT_EMPTY_PATH)
    assert await guest.read_file("/named") == b"x"
    assert (await guest.stat("/named")).nlink == 1
    fd = await guest.open("/", abi.O_TMPFILE | abi.O_RDWR | abi.O_EXCL)
    with pytest.raises(errnos.ENOENT):
        await guest.call("linkat", fd, "", abi.AT_FDCWD, "/other", abi.AT_EMPTY_PATH)


async def test_times_follow_what_is_done() -> None:
    guest = await make_file_guest()
    await guest.write_file("/file", b"x")
    born = await guest.stat("/file")
    guest.clock.advance(10**9)
    await guest.read_file("/file")
    read = await guest.stat("/file")
    assert read.atime_ns == born.atime_ns + 10**9
    guest.clock.advance(10**9)
    await guest.read_file("/file")
    assert (await guest.stat("/file")).atime_ns == read.atime_ns  # relatime
    await guest.call("chmod", "/file", 0o600)
    changed = await guest.stat("/file")
    assert (changed.mtime_ns, changed.ctime_ns) == (born.mtime_ns, born.ctime_ns + 2 * 10**9)
    root = await guest.stat("/")
    guest.clock.advance(10**9)
    await guest.call("unlink", "/file")
    assert (await guest.stat("/")).mtime_ns > root.mtime_ns


async def test_a_listing_survives_removals_under_way() -> None:
    guest = await make_file_guest()
    names = {f"f{number}" for number in range(50)}
    for name in names:
        await guest.write_file(f"/{name}")
    fd = await guest.open("/", abi.O_DIRECTORY)
    seen: set[str] = set()
    while count := await guest.call("getdents64", fd, 0x102000, 200):
        rows = guest.memory.read(0x102000, count)
        while rows:
            length = int.from_bytes(rows[16:18], "little")
            name = rows[19:length].split(b"\0")[0].decode()
            rows = rows[length:]
            if name not in (".", ".."):
                seen.add(name)
                await guest.call("unlink", f"/{name}")
    assert seen == names
    assert await guest.listing("/") == [".", ".."]


async def test_links_share_content_and_count() -> None:
    guest = await make_file_guest()
    await guest.write_file("/a", b"x")
    await guest.call("link", "/a", "/b")
    assert (await guest.stat("/b")).nlink == 2
    await guest.call("unlink", "/a")
    assert await guest.read_file("/b") == b"x"
    assert (await guest.stat("/b")).nlink == 1
    with pytest.raises(errnos.EPERM):
        await guest.call("link", "/", "/c")


async def test_directories_count_their_children_as_links() -> None:
    guest = await make_file_guest()
    await guest.mkdir("/a")
    await guest.mkdir("/a/b")
    await guest.mkdir("/c")
    assert (await guest.stat("/a")).nlink == 3
    await guest.call("rename", "/a/b", "/c/b")
    assert [(await guest.stat(path)).nlink for path in ("/a", "/c", "/")] == [2, 3, 4]


def memfd(flags: int) -> Any:
    return memfd_file(TmpFileSystem(1, VirtualClock()), "test", flags)


def test_seals_hold() -> None:
    file = memfd(MFD_ALLOW_SEALING)
    file.try_write(b"content")
    file.add_seals(abi.F_SEAL_SHRINK)
    with pytest.raises(errnos.EPERM):
        file.inode.set_size(1)
    file.add_seals(abi.F_SEAL_GROW)
    with pytest.raises(errnos.EPERM):
        file.try_write(b"x", 7)
    assert file.try_write(b"C", 0) == 1
    file.add_seals(abi.F_SEAL_WRITE | abi.F_SEAL_SEAL)
    with pytest.raises(errnos.EPERM):
        file.try_write(b"x", 0)
    with pytest.raises(errnos.EPERM):
        file.host_descriptor(True)
    with pytest.raises(errnos.EPERM):
        file.add_seals(abi.F_SEAL_GROW)
    assert file.get_seals() == 15
    assert file.try_read(10, 0) == b"Content"


def test_a_memfd_that_may_not_be_sealed_says_so() -> None:
    file = memfd(0)
    assert file.get_seals() == abi.F_SEAL_SEAL
    with pytest.raises(errnos.EPERM):
        file.add_seals(abi.F_SEAL_WRITE)
    assert memfd(MFD_NOEXEC_SEAL).inode.mode == 0o100666


async def new(guest: FileGuest, path: str, mode: int) -> None:
    await guest.write_file(path)
    await guest.call("chmod", path, mode)


async def test_set_id_bits_go_when_another_writes() -> None:
    guest = await make_file_guest()
    await new(guest, "/file", 0o6777)
    fd = await guest.open("/file", abi.O_RDWR)
    guest.thread.fds.get(fd).try_write(b"root may")
    assert (await guest.stat("/file")).mode & 0o7777 == 0o6777
    guest.become(1000)
    fd = await guest.open("/file", abi.O_RDWR)
    guest.thread.fds.get(fd).try_write(b"others not")
    assert (await guest.stat("/file")).mode & 0o7777 == 0o777


async def test_a_fifo_and_a_device_are_opened_by_those_who_know_them() -> None:
    guest = await make_file_guest()
    await guest.call("mknod", "/fifo", 0o10644, 0)
    fd = await guest.open("/fifo", abi.O_RDWR)
    assert guest.thread.fds.get(fd).try_write(b"x") == 1
    await guest.call("mknod", "/null", 0o20666, 0x103)
    assert (await guest.stat("/null")).rdev == os.makedev(1, 3)
    await guest.call("mknod", "/sock", 0o140777, 0)
    with pytest.raises(errnos.ENXIO):
        await guest.open("/sock", abi.O_RDWR)
