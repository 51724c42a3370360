"""The proc tree on a made-up kernel: no event loop is needed to read it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from asyncsentry import errnos
from asyncsentry.clock import RandomSource, VirtualClock
from asyncsentry.fs.anon import PIPE_FS, AnonInode
from asyncsentry.fs.dentry import Dentry, Location
from asyncsentry.fs.fdtable import FdTable
from asyncsentry.fs.file import File
from asyncsentry.fs.hostfacts import HostFacts
from asyncsentry.fs.inode import Inode
from asyncsentry.fs.mount import Mount, MountNamespace
from asyncsentry.fs.path import resolve
from asyncsentry.fs.procfs.base import CpuTimes, ProcFileSystem, SignalSets
from asyncsentry.fs.procfs.root import make_proc
from asyncsentry.fs.synthetic import TextFile
from asyncsentry.memory.account import MemoryAccount
from asyncsentry.platforms.base import Registers
from asyncsentry.sysctl import Sysctls
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.fscontext import FsContext
from asyncsentry.tasks.limits import Limits
from asyncsentry.tasks.process import ProcessGroup, Session
from asyncsentry.tasks.scheduling import Scheduling


class FakeMemory:
    def __init__(self) -> None:
        self.content = bytearray(4096)
        self.content[0:12] = b"sh\0-c\0true\0\0"
        self.content[16:24] = b"A=1\0B=2\0"
        self.arg_start, self.arg_end, self.env_start, self.env_end = 0x1000, 0x100B, 0x1010, 0x1018
        self.start_code = self.end_code = self.start_data = self.end_data = 0
        self.start_brk = self.brk = self.start_stack = 0
        self.auxv = b"\0" * 16
        area: dict[str, Any] = {"prot": 3, "flags": 2, "file": None, "offset": 0, "name": "[heap]"}
        self.vmas = [SimpleNamespace(start=0x1000, end=0x2000, **area)]

    resident_bytes = 4096
    space = SimpleNamespace(host_pid=0)

    def read_some(self, address: int, count: int) -> bytes:
        return bytes(self.content[address - 0x1000 : address - 0x1000 + count]) if address >= 0x1000 else b""

    def write_some(self, address: int, data: bytes) -> int:
        self.content[address - 0x1000 : address - 0x1000 + len(data)] = data
        return len(data)


class FakeFacts:
    def process_cpu(self, process: Any) -> CpuTimes:
        return CpuTimes(1_500_000_000, 20_000_000)

    thread_cpu = children_cpu = process_cpu

    def state(self, thread: Any) -> str:
        return "S" if thread.is_blocked else "R"

    def signals(self, thread: Any) -> SignalSets:
        return SignalSets(blocked=0x1)


class World:
    """A kernel with a proc as its root file system and no processes yet."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.random = RandomSource()
        self.hostname, self.domainname, self.network = "box", "(none)", "none"
        self.memory_limit: int | None = 64 << 20
        self.memory: MemoryAccount | None = None
        self.boot_time_ns = self.clock.now_ns()
        self.sysctls = Sysctls()
        self.host_facts = HostFacts(2, 1 << 30, ("model name\t: Fast\n", "model name\t: Fast\n"))
        self.task_facts = FakeFacts()
        self.shared_memory = self.semaphores = self.messages = ()
        self.processes: dict[int, Any] = {}
        self.threads: dict[int, Any] = {}
        self.proc: ProcFileSystem = make_proc(5, self)
        self.mounts = MountNamespace(self.proc, source="proc")

    def start(self, pid: int, uid: int = 0, name: str = "sh") -> Any:
        group = ProcessGroup(pid, Session(pid))
        process = SimpleNamespace(
            pid=pid, parent=None, children=[], threads={}, group=group, session=group.session, dumpable=1,
            start_time_ns=self.clock.now_ns(), exit_status=None, exit_signal=17, executable=None, has_execed=True,
            limits=Limits(), last_credentials=None, last_name="", parent_tid=0,
        )  # fmt: skip
        thread = SimpleNamespace(
            process=process, tid=pid, kernel=self, name=name, memory=FakeMemory(), fds=FdTable(),
            fs=FsContext(self.mounts.root, self.mounts.root), credentials=Credentials.for_user(uid, uid),
            context=SimpleNamespace(number=0, arguments=(0,) * 6, get_registers=lambda: Registers()),
            is_blocked=True, start_time_ns=self.clock.now_ns(), scheduling=Scheduling(), signal_mask=0,
        )  # fmt: skip
        process.threads[pid] = thread
        self.processes[pid] = process
        self.threads[pid] = thread
        return thread

    async def read(self, thread: Any, path: str) -> str:
        file = await self.open(thread, path)
        return file.try_read(1 << 20).decode()

    async def open(self, thread: Any, path: str, flags: int = 0) -> File:
        location = await resolve(thread, -100, path)
        assert location.dentry.inode is not None
        return await location.dentry.inode.open(flags, location, thread)


@pytest.fixture
def world() -> World:
    return World()


async def test_self_is_the_process_that_asks(world: World) -> None:
    first, second = world.start(7), world.start(8)
    assert (await world.read(first, "/self/stat")).startswith("7 (sh) S ")
    assert (await world.read(second, "/self/stat")).startswith("8 (sh) S ")
    assert (await world.read(second, "/thread-self/comm")) == "sh\n"


async def test_stat_has_52_fields_and_times_in_ticks(world: World) -> None:
    thread = world.start(7, name="a) b")
    text = await world.read(thread, "/7/stat")
    fields = text[text.rindex(")") + 2 :].split()
    assert len(fields) == 50
    assert fields[11:13] == ["150", "2"]


async def test_arguments_and_environment_come_from_guest_memory(world: World) -> None:
    thread = world.start(7)
    assert await world.read(thread, "/self/cmdline") == "sh\0-c\0true\0"
    assert await world.read(thread, "/self/environ") == "A=1\0B=2\0"


async def test_setproctitle_may_run_into_the_environment(world: World) -> None:
    thread = world.start(7)
    thread.memory.content[:64] = b"x" * 20 + bytes(44)
    thread.memory.env_start = thread.memory.arg_end
    thread.memory.env_end = 0x1040
    assert await world.read(thread, "/self/cmdline") == "x" * 20


async def test_memory_is_read_and_written_through_mem(world: World) -> None:
    thread = world.start(7)
    file = await world.open(thread, "/self/mem", 2)
    assert file.try_read(2, 0x1000) == b"sh"
    assert file.try_write(b"zz", 0x1000) == 2
    assert thread.memory.content[:2] == b"zz"
    with pytest.raises(errnos.EIO):
        file.try_read(1, 0)


async def test_anothers_environment_is_closed_but_status_is_open(world: World) -> None:
    world.start(7)
    other = world.start(8, uid=1000)
    assert "Uid:\t0\t0\t0\t0" in await world.read(other, "/7/status")
    with pytest.raises(errnos.EACCES):
        await world.open(other, "/7/environ")
    with pytest.raises(errnos.EACCES):
        await world.open(other, "/7/fd/0")


async def test_files_belong_to_the_effective_user_as_it_changes(world: World) -> None:
    thread = world.start(7)
    thread.credentials = Credentials.for_user(1000, 1000)
    location = await resolve(thread, -100, "/7/environ")
    assert location.dentry.inode is not None
    assert location.dentry.inode.stat().uid == 1000


async def test_descriptor_links_lead_to_the_open_file(world: World) -> None:
    thread = world.start(7)
    inode = AnonInode(PIPE_FS, 77, 0o010600)

    class Pipe(File):
        def describe(self) -> str:
            return "pipe:[77]"

    thread.fds.install(Pipe(inode, 0))
    link = await resolve(thread, -100, "/self/fd/0", follow=False)
    assert link.dentry.inode is not None
    assert await link.dentry.inode.readlink_by(thread) == "pipe:[77]"
    assert link.dentry.inode.stat().mode & 0o777 == 0o500
    target = await resolve(thread, -100, "/self/fd/0")
    assert target.dentry.inode is inode
    assert "flags:\t00\n" in await world.read(thread, "/self/fdinfo/0")


async def test_cwd_leads_to_the_directory_itself(world: World) -> None:
    thread = world.start(7)
    thread.fs.cwd = await resolve(thread, -100, "/sys/kernel")
    link = await resolve(thread, -100, "/self/cwd", follow=False)
    assert link.dentry.inode is not None
    assert await link.dentry.inode.readlink_by(thread) == "/sys/kernel"
    assert (await resolve(thread, -100, "/self/cwd/pid_max")).dentry.name == "pid_max"


async def test_a_reaped_process_disappears(world: World) -> None:
    thread = world.start(7)
    world.start(8)
    directory = await resolve(thread, -100, "/8")
    comm = await world.open(thread, "/8/comm")
    del world.processes[8], world.threads[8]
    with pytest.raises(errnos.ENOENT):
        await resolve(thread, -100, "/8/comm")
    assert directory.dentry.inode is not None
    with pytest.raises(errnos.ENOENT):
        await directory.dentry.inode.lookup("comm")
    with pytest.raises(errnos.ESRCH):
        comm.try_read(10)


async def test_listing_shows_processes_but_not_threads(world: World) -> None:
    thread = world.start(7)
    extra = SimpleNamespace(**{**thread.__dict__, "tid": 9, "name": "worker"})
    thread.process.threads[9] = world.threads[9] = extra
    names = [entry.name for entry in await world.proc.root.entries()]
    assert "7" in names
    assert "9" not in names
    assert await world.read(thread, "/self/task/9/comm") == "worker\n"
    task = (await resolve(thread, -100, "/self/task")).dentry.inode
    assert task is not None
    assert [entry.name for entry in await task.entries()] == ["7", "9"]


async def test_parameters_take_effect_and_are_checked(world: World) -> None:
    thread = world.start(7)
    file = await world.open(thread, "/sys/net/core/somaxconn", 2)
    assert file.try_write(b"128\n") == 4
    assert world.sysctls.integer("net.core.somaxconn") == 128
    assert await world.read(thread, "/sys/net/core/somaxconn") == "128\n"
    with pytest.raises(errnos.EINVAL):
        file.try_write(b"lots\n")
    hostname = await world.open(thread, "/sys/kernel/hostname", 1)
    hostname.try_write(b"new\n")
    assert world.hostname == "new"
    assert await world.read(thread, "/sys/net/ipv4/tcp_rmem") == "4096\t131072\t6291456\n"


async def test_memory_shown_is_the_sandboxes_limit(world: World) -> None:
    thread = world.start(7)
    assert f"MemTotal: {64 << 10:14d} kB" in await world.read(thread, "/meminfo")


async def test_mounts_show_what_the_process_can_reach(world: World) -> None:
    thread = world.start(7)
    inner = make_proc(6, world)
    where = await resolve(thread, -100, "/sys/fs/binfmt_misc")
    world.mounts.mount(where, inner, source="a b")
    assert await world.read(thread, "/mounts") == (
        "proc / proc rw 0 0\na\\040b /sys/fs/binfmt_misc proc rw 0 0\n"
    )
    info = (await world.read(thread, "/self/mountinfo")).splitlines()
    assert info[1].split()[2:6] == ["0:6", "/", "/sys/fs/binfmt_misc", "rw"]


async def test_uuid_is_new_each_time_and_boot_id_is_not(world: World) -> None:
    thread = world.start(7)
    first, second = [await world.read(thread, "/sys/kernel/random/uuid") for _ in range(2)]
    assert first != second
    ids = [await world.read(thread, "/sys/kernel/random/boot_id") for _ in range(2)]
    assert ids[0] == ids[1]


async def test_a_zombie_keeps_its_name_and_owner(world: World) -> None:
    thread = world.start(7)
    dead = world.start(8, uid=1000, name="gone")
    dead.process.threads.clear()
    dead.process.last_name, dead.process.last_credentials = dead.name, dead.credentials
    assert (await world.read(thread, "/8/stat")).startswith("8 (gone) Z ")
    status = await world.read(thread, "/8/status")
    assert "State:\tZ (zombie)" in status
    assert "Uid:\t1000\t" in status
    assert "VmSize" not in status
    assert await world.read(thread, "/8/cmdline") == ""


async def test_what_is_kept_of_dead_processes_stays_bounded(world: World) -> None:
    thread = world.start(7)
    for pid in range(100, 600):
        world.start(pid)
        await resolve(thread, -100, f"/{pid}/stat")
        del world.processes[pid], world.threads[pid]
    assert len(world.proc.root_dentry.children) < 200


async def test_a_subset_shows_processes_only(world: World) -> None:
    world.start(7)
    proc = make_proc(6, world, {"subset": "pid"})
    assert [entry.name for entry in await proc.root.entries()] == ["self", "thread-self", "7"]
    assert proc.mount_options() == "subset=pid"
    with pytest.raises(errnos.EINVAL):
        make_proc(6, world, {"hidepid": "2"})


def leaves(inode: Inode, path: str = "") -> list[str]:
    list(getattr(inode, "items", list)())  # listing makes what exists only once it is asked for
    children = getattr(inode, "children", {})
    return [leaf for name, child in children.items() for leaf in leaves(child, f"{path}/{name}")] or [path]


async def test_every_file_can_be_read(world: World) -> None:
    thread = world.start(7)
    pinned = (await resolve(thread, -100, "/7")).dentry.inode
    assert pinned is not None
    paths = leaves(world.proc.root) + [f"/7{leaf}" for leaf in leaves(pinned)]
    read = 0
    for path in paths:
        if path.endswith(("/attr/current", "/exe")) or "/attr/" in path:
            continue
        location = await resolve(thread, -100, path, follow=False)
        inode = location.dentry.inode
        assert inode is not None
        if inode.is_directory or inode.is_symlink or not inode.mode & 0o400 or path.endswith("/mem"):
            continue
        file = await inode.open(0, location, thread)
        assert isinstance(file, TextFile)
        file.try_read(1 << 20)
        read += 1
    assert read > 300


def test_reading_in_pieces_sees_one_text(world: World) -> None:
    inode = world.proc.root.children["uptime"]  # type: ignore[attr-defined]
    dentry = Dentry("uptime", None, inode)
    file = TextFile(inode, 0, Location(Mount(0, world.proc, dentry), dentry), None)
    first = file.try_read(1)
    world.clock.advance(10**12)
    assert first + file.try_read(100) == b"0.00 0.00\n"
