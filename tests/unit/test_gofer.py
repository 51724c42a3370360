"""A gofer process serves directories of the host, and the file system made of its answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio
import uvloop

from asyncsentry import errnos
from asyncsentry.errnos import SentryBug
from asyncsentry.fs.file import O_RDONLY, O_RDWR
from asyncsentry.fs.gofer import protocol
from asyncsentry.fs.gofer.client import GoferFileSystem, GoferInode
from asyncsentry.fs.gofer.connection import Gofer, HostMount
from asyncsentry.fs.gofer.files import HostFile
from asyncsentry.fs.gofer.nodes import Mount
from asyncsentry.fs.gofer.operations import Operations
from asyncsentry.fs.inode import AttributeChange, Owner
from asyncsentry.tasks.credentials import Credentials

HERE = Owner(os.getuid(), os.getgid())


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


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


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


async def test_opening_what_was_just_found_takes_no_trip(gofer: Gofer, lower: GoferFileSystem) -> None:
    inode = await walk(lower, "usr/lib/deep/file")
    before = gofer.trips
    assert await read(inode) == b"content"
    assert gofer.trips == before


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


async def test_a_directory_searched_in_vain_is_listed_once(gofer: Gofer, lower: GoferFileSystem) -> None:
    before = gofer.trips
    for number in range(20):
        with pytest.raises(errnos.ENOENT):
            await lower.root.lookup(f"lib{number}.so")
    assert gofer.trips - before == 4
    assert await lower.root.lookup_path(["usr", "none", "more"]) == [await walk(lower, "usr"), None]


async def test_a_chain_stops_at_a_link(lower: GoferFileSystem) -> None:
    found = await lower.root.lookup_path(["lib", "deep"])  # type: ignore[attr-defined]
    assert len(found) == 1
    assert found[0].is_symlink


async def test_a_missing_name_ends_a_chain(lower: GoferFileSystem) -> None:
    found = await lower.root.lookup_path(["usr", "nothing", "more"])  # type: ignore[attr-defined]
    assert [inode is None for inode in found] == [False, True]


# Shared, writable mounts -------------------------------------------------------------------------


@pytest_asyncio.fixture
async def shared(gofer: Gofer) -> AsyncIterator[GoferFileSystem]:
    filesystem = await GoferFileSystem.attach(gofer, 0, device=8, exclusive=False)
    yield filesystem
    await filesystem.release()


async def test_a_new_file_reaches_the_host(shared: GoferFileSystem, tree: Path) -> None:
    inode = await shared.root.create("new", 0o640, HERE)
    file = await inode.open(O_RDWR, None, None)
    assert file.try_write(b"abc") == 3
    assert file.try_write(b"d", 10) == 1
    assert (file.position, inode.stat().size) == (3, 11)
    await file.release()
    assert (tree / "new").read_bytes() == b"abc\0\0\0\0\0\0\0d"
    assert stat.S_IMODE(os.stat(tree / "new").st_mode) == 0o640


async def test_appends_go_to_the_hosts_end(shared: GoferFileSystem, tree: Path) -> None:
    file = await (await walk(shared, "hello")).open(O_RDWR | os.O_APPEND, None, None)
    append(tree / "hello", b"!!")
    file.try_write(b"end")
    await file.sync()
    assert ((tree / "hello").read_bytes(), file.position) == (b"hello world!!end", 16)
    await file.release()


async def test_changes_of_the_host_show_at_once(shared: GoferFileSystem, tree: Path) -> None:
    inode = await walk(shared, "hello")
    await inode.refresh()  # one system call walks and asks for attributes: that is one trip
    (tree / "hello").write_bytes(b"longer than it was")
    await inode.refresh()
    assert inode.stat().size == 18
    (tree / "late").write_bytes(b"")
    await walk(shared, "late")
    (tree / "late").unlink()
    with pytest.raises(errnos.ENOENT):
        await walk(shared, "late")
    assert "late" not in {entry.name for entry in await shared.root.entries()}


async def test_a_file_is_the_same_inode_each_time(shared: GoferFileSystem, tree: Path) -> None:
    inode = await walk(shared, "hello")
    (tree / "hello").rename(tree / "usr/renamed")
    assert await walk(shared, "usr/renamed") is inode
    os.link(tree / "usr/renamed", tree / "second")
    assert await walk(shared, "second") is inode


async def test_a_replaced_file_is_another_inode(shared: GoferFileSystem, tree: Path) -> None:
    inode = await walk(shared, "hello")
    (tree / "hello").unlink()
    (tree / "hello").write_bytes(b"new")
    other = await walk(shared, "hello")
    assert other is not inode
    assert (await read(inode), await read(other)) == (b"hello world", b"new")


async def test_names_are_made_moved_and_removed(shared: GoferFileSystem, tree: Path) -> None:
    root = shared.root
    made = await root.mkdir("made", 0o755, HERE)
    link = await made.symlink("link", "../hello", HERE)
    assert await link.readlink() == os.readlink(tree / "made/link") == "../hello"
    hello = await walk(shared, "hello")
    await made.link("twin", hello)
    assert (os.stat(tree / "made/twin").st_nlink, hello.stat().nlink) == (2, 2)
    await made.rename("twin", hello, root, "usr2", None, exchange=False)
    assert (tree / "usr2").exists()
    with pytest.raises(errnos.ENOTEMPTY):
        await root.rmdir("made", made)
    await made.unlink("link", link)
    await root.rmdir("made", made)
    assert not (tree / "made").exists()
    assert made.nlink == 0


async def test_names_change_places(shared: GoferFileSystem, tree: Path) -> None:
    root = shared.root
    hello, usr = await walk(shared, "hello"), await walk(shared, "usr")
    await root.rename("hello", hello, root, "usr", usr, exchange=True)
    assert (tree / "hello/lib").is_dir()
    assert (tree / "usr").is_file()


async def test_attributes_are_set_on_the_host(shared: GoferFileSystem, tree: Path) -> None:
    inode = await walk(shared, "hello")
    await inode.set_attributes(AttributeChange(mode=0o4711, size=4, mtime_ns=5_000_000_007))
    host = os.stat(tree / "hello")
    assert (stat.S_IMODE(host.st_mode), host.st_size, host.st_mtime_ns) == (0o4711, 4, 5_000_000_007)
    assert (inode.stat().mode, inode.stat().mtime_ns) == (host.st_mode, host.st_mtime_ns)


async def test_times_far_away_are_the_last_ones_told(shared: GoferFileSystem, tree: Path) -> None:
    os.utime(tree / "hello", (1 << 33, -(1 << 31)))  # 2242, and 1901: as far as most hosts go
    hello = await walk(shared, "hello")
    await hello.set_attributes(AttributeChange(atime_ns=(1 << 62) * 10**9, mtime_ns=-(1 << 62) * 10**9))
    assert (tree / "hello").stat().st_atime >= 1 << 33
    os.utime(tree / "hello", (15_032_385_535, 0))  # 2446, ext4's end of time
    await hello.refresh()
    assert hello.stat().atime_ns == min((tree / "hello").stat().st_atime_ns, protocol.TIME_MAX_NS)


async def test_host_file_systems_beyond_number_share_inode_numbers(shared: GoferFileSystem) -> None:
    numbers = [shared.inode_number(device, 1) for device in range(1000)]
    assert len(set(numbers)) == 256
    assert max(numbers) < 1 << 64


async def test_a_fifo_is_made_but_no_device(shared: GoferFileSystem, tree: Path) -> None:
    await shared.root.mknod("pipe", stat.S_IFIFO | 0o600, 0, HERE)
    assert stat.S_ISFIFO(os.stat(tree / "pipe").st_mode)
    with pytest.raises(errnos.EPERM):
        await shared.root.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3), HERE)


async def test_unnamed_files_can_be_given_a_name(shared: GoferFileSystem, tree: Path) -> None:
    try:
        inode = await shared.root.create_unnamed(0o600, HERE)
    except errnos.EOPNOTSUPP:
        pytest.skip("the host's file system has no unnamed files")
    await shared.root.link("named", inode)
    assert (tree / "named").stat().st_nlink == 1


async def test_a_removed_open_file_still_reads(shared: GoferFileSystem) -> None:
    inode = await walk(shared, "hello")
    file = await inode.open(O_RDONLY, None, None)
    await shared.root.unlink("hello", inode)
    await inode.refresh()
    assert (file.try_read(100), inode.stat().nlink) == (b"hello world", 0)
    await file.release()


async def test_user_attributes_pass_and_others_do_not(shared: GoferFileSystem, tree: Path) -> None:
    inode = await walk(shared, "hello")
    try:
        await inode.set_xattr("user.kind", b"text", 0)
    except errnos.EOPNOTSUPP:
        pytest.skip("the host's file system has no extended attributes")
    assert os.getxattr(tree / "hello", "user.kind") == await inode.get_xattr("user.kind") == b"text"
    assert await inode.list_xattrs() == ["user.kind"]
    with pytest.raises(errnos.EEXIST):
        await inode.set_xattr("user.kind", b"", os.XATTR_CREATE)
    with pytest.raises(errnos.EPERM):
        await inode.set_xattr("security.capability", b"\0" * 20, 0)
    await inode.remove_xattr("user.kind")
    with pytest.raises(errnos.ENODATA):
        await inode.get_xattr("user.kind")


async def test_forgotten_inodes_are_closed_in_the_gofer(gofer: Gofer, shared: GoferFileSystem, tree: Path) -> None:
    for number in range(50):
        (tree / f"file{number}").write_bytes(b"")
    inodes = [await walk(shared, f"file{number}") for number in range(50)]
    held = len(os.listdir(f"/proc/{gofer.pid}/fd")) if os.getuid() == 0 else None
    del inodes
    await shared.root.refresh()
    await shared.root.refresh()
    if held is not None:
        assert len(os.listdir(f"/proc/{gofer.pid}/fd")) <= held - 49


async def test_sizes_of_the_file_system_are_the_hosts(shared: GoferFileSystem, tree: Path) -> None:
    await shared.refresh()
    await shared.sync()
    assert (shared.statfs().blocks, shared.statfs().block_size) == (os.statvfs(tree).f_blocks, os.statvfs(tree).f_bsize)


async def test_writing_drops_set_id_bits_of_the_host_file(shared: GoferFileSystem, tree: Path) -> None:
    (tree / "hello").chmod(0o4755)
    inode = await walk(shared, "hello")
    file = await inode.open(O_RDWR, None, SimpleNamespace(credentials=Credentials.for_user(1000, 1000)))
    file.try_write(b"x")
    assert stat.S_IMODE(os.stat(tree / "hello").st_mode) == stat.S_IMODE(inode.stat().mode) == 0o755
    await file.release()


async def test_running_out_of_descriptors_is_an_error_of_that_call_alone(shared: GoferFileSystem) -> None:
    inode = await walk(shared, "hello")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        with pytest.raises(errnos.ENFILE):
            await inode.open(O_RDONLY, None, None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    assert await read(inode) == b"hello world"


async def test_an_exclusive_writable_mount_keeps_its_caches_right(gofer: Gofer, tree: Path) -> None:
    own = await GoferFileSystem.attach(gofer, 0, device=9, exclusive=True)
    root = own.root
    assert {entry.name for entry in await root.entries()} == {"usr", "lib", "hello", "fifo"}
    made = await root.create("made", 0o600, HERE)
    file = await made.open(O_RDWR, None, None)
    file.try_write(b"four")
    await file.release()
    assert made.stat().size == 4
    hello = await root.lookup("hello")
    await root.rename("made", made, root, "hello", hello, exchange=False)
    before = gofer.trips
    assert await root.lookup("hello") is made
    assert gofer.trips == before
    assert {entry.name for entry in await root.entries()} == {"usr", "lib", "hello", "fifo"}
    await root.unlink("hello", made)
    with pytest.raises(errnos.ENOENT):
        await root.lookup("hello")
    assert not (tree / "hello").exists()
    await own.release()


async def test_a_scan_of_an_exclusive_writable_mount_finds_the_files_themselves(gofer: Gofer, tree: Path) -> None:
    own = await GoferFileSystem.attach(gofer, 0, device=9, exclusive=True)
    for entry in await own.root.entries():
        found = await own.root.lookup(entry.name)
        await found.set_attributes(AttributeChange(mtime_ns=entry.ino))
    assert all(os.lstat(path).st_mtime_ns == os.lstat(path).st_ino for path in tree.iterdir())
    await own.release()


async def test_many_tasks_share_the_connection(shared: GoferFileSystem, tree: Path) -> None:
    for number in range(100):
        (tree / f"file{number}").write_bytes(str(number).encode() * 100)

    async def check(number: int) -> None:
        name = f"file{number % 100}"
        assert await read(await walk(shared, name)) == str(number % 100).encode() * 100
        assert len(await shared.root.entries()) >= 100

    await asyncio.gather(*(check(number) for number in range(300)))


def test_it_works_on_uvloop_too(tree: Path) -> None:
    async def check() -> None:
        gofer = Gofer.start([HostMount(str(tree))])
        filesystem = await GoferFileSystem.attach(gofer, 0, 9, exclusive=False)
        assert await read(await walk(filesystem, "hello")) == b"hello world"
        await filesystem.release()
        await gofer.close()

    uvloop.run(check())


# Read-only mounts, single files, many names ------------------------------------------------------


async def test_a_read_only_mount_refuses_every_change(lower: GoferFileSystem, tree: Path) -> None:
    root, hello, usr = lower.root, await walk(lower, "hello"), await walk(lower, "usr")
    attempts = [
        root.create("x", 0o600, HERE), root.create_unnamed(0o600, HERE), root.mkdir("x", 0o700, HERE),
        root.symlink("x", "y", HERE), root.mknod("x", stat.S_IFIFO | 0o600, 0, HERE), root.link("x", hello),
        root.unlink("hello", hello), root.rmdir("usr", usr), hello.set_attributes(AttributeChange(mode=0o777)),
        root.rename("hello", hello, root, "x", None, exchange=False), hello.set_xattr("user.x", b"", 0),
        hello.remove_xattr("user.x"), hello.open(O_RDWR, None, None),
    ]  # fmt: skip
    for attempt in attempts:
        with pytest.raises(errnos.EROFS):
            await attempt
    assert sorted(os.listdir(tree)) == ["fifo", "hello", "lib", "usr"]


async def test_a_single_file_can_be_a_mount(gofer: Gofer) -> None:
    filesystem = await GoferFileSystem.attach(gofer, 2, device=9, exclusive=False)
    assert isinstance(filesystem.root, GoferInode)
    assert await read(filesystem.root) == b"hello world"
    with pytest.raises(errnos.ENOTDIR):
        await filesystem.root.lookup("x")
    await filesystem.release()


@pytest.mark.slow
async def test_a_large_directory_is_listed_whole(gofer: Gofer, lower: GoferFileSystem, tree: Path) -> None:
    expected = {f"{number:04}-{'x' * 100}" for number in range(3000)}
    (tree / "many").mkdir()
    for name in expected:
        (tree / "many" / name).touch()
    many = await walk(lower, "many")
    assert {entry.name for entry in await many.entries()} == expected
    before = gofer.trips
    for name in expected:
        await many.lookup(name)
    assert gofer.trips - before <= 3


async def test_caches_of_names_stay_small(
    gofer: Gofer, lower: GoferFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncsentry.fs.gofer.client._CACHED_NAMES", 5)
    usr = await walk(lower, "usr")
    file = await walk(lower, "usr/lib/deep/file")
    await lower.root.entries()
    before = gofer.trips
    assert await walk(lower, "usr/lib/deep/file") is file
    assert await walk(lower, "usr") is usr
    assert gofer.trips > before


async def test_names_that_are_not_utf8_survive(lower: GoferFileSystem, tree: Path) -> None:
    (tree / os.fsdecode(b"\xff\xfe")).write_bytes(b"odd")
    assert await read(await walk(lower, os.fsdecode(b"\xff\xfe"))) == b"odd"


async def test_a_host_socket_is_connected_only_where_allowed(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "sock"))
        listener.listen()
        gofer = Gofer.start([HostMount(str(tree)), HostMount(str(tree), host_sockets=True)])
        closed, opened = [await GoferFileSystem.attach(gofer, index, 9, exclusive=False) for index in (0, 1)]
        with pytest.raises(errnos.ECONNREFUSED):
            await (await walk(closed, "sock")).connect_host_socket(socket.SOCK_STREAM)
        fd = await (await walk(opened, "sock")).connect_host_socket(socket.SOCK_STREAM)
        peer, _ = listener.accept()
        with socket.socket(fileno=fd) as ours, peer:
            ours.send(b"hi")
            assert peer.recv(10) == b"hi"
        await gofer.close()


# The process -------------------------------------------------------------------------------------


async def test_a_gofer_that_dies_fails_requests_with_a_clear_word(gofer: Gofer, lower: GoferFileSystem) -> None:
    assert gofer.pid is not None
    os.kill(gofer.pid, signal.SIGKILL)
    with pytest.raises(SentryBug, match="the gofer has gone"):
        await lower.root.lookup("hello")
    with pytest.raises(SentryBug, match="the gofer has gone"):
        await lower.root.lookup("usr")


async def test_a_gofer_that_does_not_answer_is_given_up(gofer: Gofer, lower: GoferFileSystem) -> None:
    assert gofer.pid is not None
    os.kill(gofer.pid, signal.SIGSTOP)
    try:
        gofer.answer_timeout_s = 0
        lookup = asyncio.ensure_future(lower.root.lookup("hello"))
        await asyncio.sleep(0)
        gofer.check_deadlines()
        with pytest.raises(SentryBug, match="has not answered"):
            await lookup
    finally:
        os.kill(gofer.pid, signal.SIGCONT)


async def test_a_mount_that_is_not_there_fails_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gofer = Gofer.start([HostMount(str(tmp_path / "nothing"))])
    with pytest.raises(SentryBug, match="the gofer has gone"):
        await GoferFileSystem.attach(gofer, 0, 9, exclusive=True)
    await gofer.close()
    assert "nothing" in capfd.readouterr().err


def test_the_gofer_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import asyncio, os\n"
        "from asyncsentry.fs.gofer.connection import Gofer, HostMount\n"
        "async def main():\n"
        f"    gofer = Gofer.start([HostMount({str(tmp_path)!r})])\n"
        "    await gofer.call(1, bytes(4))\n"
        "    print(gofer.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    pidfd = None
    try:
        pidfd = os.pidfd_open(int(run.stdout))
        assert select.select([pidfd], [], [], 5)[0]
    except ProcessLookupError:
        pass  # gone already
    finally:
        if pidfd is not None:
            os.close(pidfd)


async def test_requests_of_one_message_are_answered_in_one_trip(gofer: Gofer) -> None:
    requests = [(protocol.GETATTR, protocol.pack_target(1, name)) for name in (b"hello", b"nothing", b"usr/lib")]
    before = gofer.trips
    answers = await gofer.call_all(requests)
    assert gofer.trips == before + 1
    assert [isinstance(answer, errnos.ENOENT) for answer in answers] == [False, True, False]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_an_ordinary_users_gofer_respects_modes(tree: Path) -> None:
    (tree / "hello").chmod(0o600)
    (tree / "own").mkdir()
    (tree / "own").chmod(0o777)
    tree.chmod(0o755)
    mount = Mount(os.open(tree, os.O_PATH), read_only=False, host_sockets=False)
    pid = os.fork()
    if not pid:
        try:
            os._exit(_exercise_as_nobody(mount))
        finally:
            os._exit(3)  # an exception must not let the child go on as a second test run
    os.close(mount.fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert os.stat(tree / "own/made").st_uid == 65534


def _exercise_as_nobody(mount: Mount) -> int:
    """Runs in a child of its own; gives 0 if all went as it should."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    os.chdir("/proc/self/fd")
    operations = Operations([mount], 100, can_chown=False)
    try:
        list(operations.perform(protocol.OPEN, memoryview(protocol.pack_target(1, b"hello") + bytes(4))))
        return 1
    except PermissionError:
        pass
    make = protocol.pack_target(1, b"own") + protocol.pack_text(b"made") + struct.pack("<IIII", 0o600, 0, 0, 0)
    (answer,) = operations.perform(protocol.CREATE, memoryview(make))
    return 0 if answer.descriptor is not None else 2
