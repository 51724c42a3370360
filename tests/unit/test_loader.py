"""Loading programs from a tmpfs into the fake platform's memory, where they are looked at but not run."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from asyncsentry import errnos
from asyncsentry.abi import elf_h as abi
from asyncsentry.clock import VirtualClock
from asyncsentry.fs.fdtable import FdTable
from asyncsentry.fs.inode import Owner
from asyncsentry.fs.mount import MountNamespace
from asyncsentry.fs.tmpfs import TmpFileSystem
from asyncsentry.fs.vfs import open_executable, open_path
from asyncsentry.kernel import Kernel
from asyncsentry.platforms.fake import FakePlatform
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.execve import credentials_after_exec
from asyncsentry.tasks.fscontext import FsContext
from asyncsentry.tasks.loader import Loaded, Start, load_program

AT_FDCWD = -100
PAGE = 4096
CODE = b"\x90" * 100


def elf(kind: int = abi.ET_EXEC, address: int = 0x400000, interpreter: bytes = b"", data_address: int = 0x402000,
        memory_size: int = 0x3000) -> bytes:
    """A program with a text segment of one page and a data segment with bss."""
    rows = [
        abi.PHDR.pack(abi.PT_LOAD, 5, 0, address, address, PAGE, PAGE, PAGE),
        abi.PHDR.pack(abi.PT_LOAD, 6, PAGE, data_address, data_address, 0x100, memory_size, PAGE),
    ]
    if interpreter:
        size = len(interpreter)
        rows.insert(0, abi.PHDR.pack(abi.PT_INTERP, 4, 0x800, address + 0x800, 0, size, size, 1))
    header = abi.EHDR.pack(b"\x7fELF\2\1\1".ljust(16, b"\0"), kind, abi.EM_X86_64, 1, address + 0x400, 64, 0, 0, 64,
                           56, len(rows), 0, 0, 0)
    text = (header + b"".join(rows)).ljust(0x400, b"\0") + CODE
    text = text.ljust(0x800, b"\0") + interpreter
    return text.ljust(PAGE, b"\0") + b"D" * PAGE


class Caller:
    """Who opens files and loads programs."""

    def __init__(self, kernel: Kernel, mounts: MountNamespace) -> None:
        self.kernel = kernel
        self.fs = FsContext(mounts.root, mounts.root)
        self.credentials = Credentials()
        self.fds = FdTable()
        self.loaded: list[Loaded] = []

    async def write(self, path: str, content: bytes, mode: int = 0o755) -> None:
        file = await open_path(self, AT_FDCWD, path, 0o102, mode)
        file.try_write(content)
        await file.finish()

    async def load(self, path: str, *arguments: bytes, environment: tuple[bytes, ...] = (),
                   stack_limit: int = 8 << 20) -> Loaded:
        file = await open_executable(self, AT_FDCWD, path)
        start = Start(file, path.encode(), list(arguments), list(environment), self.credentials, stack_limit)
        loaded = await load_program(self.kernel, self, start)
        self.loaded.append(loaded)
        return loaded


@pytest_asyncio.fixture
async def caller() -> AsyncIterator[Caller]:
    clock = VirtualClock()
    kernel = Kernel(FakePlatform(), clock)  # type: ignore[arg-type]
    filesystem = TmpFileSystem(7, clock)
    caller = Caller(kernel, MountNamespace(filesystem))
    yield caller
    for loaded in caller.loaded:
        await loaded.memory.release()
    await filesystem.release()


def stack_of(loaded: Loaded) -> tuple[list[bytes], list[bytes], dict[int, int]]:
    memory = loaded.memory
    pointer = loaded.context.get_registers().rsp
    argv = memory.read_pointer_array(pointer + 8, 1000)
    assert memory.read_u64(pointer) == len(argv)
    environment = memory.read_pointer_array(pointer + 16 + 8 * len(argv), 1000)
    auxv = dict(struct.iter_unpack("<QQ", memory.auxv))
    return [memory.read_string(a, 1 << 20) for a in argv], [memory.read_string(a) for a in environment], auxv


async def test_a_static_program_is_mapped_where_it_wants_to_be(caller: Caller):
    await caller.write("/program", elf())
    loaded = await caller.load("/program", b"program", b"argument", environment=(b"A=1",))
    assert loaded.memory.read(0x400400, len(CODE)) == CODE
    assert loaded.memory.read(0x402000, 0x101) == b"D" * 0x100 + b"\0"
    assert loaded.memory.read(0x404FFF, 1) == b"\0"
    with pytest.raises(errnos.EFAULT):
        loaded.memory.write(0x400400, b"x")
    argv, environment, auxv = stack_of(loaded)
    assert (argv, environment) == ([b"program", b"argument"], [b"A=1"])
    assert (auxv[3], auxv[5], auxv[7], auxv[9]) == (0x400040, 2, 0, 0x400400)
    assert loaded.memory.read_string(auxv[31]) == b"/program"
    registers = loaded.context.get_registers()
    assert (registers.rip, registers.rsp % 16, registers.rdx) == (0x400400, 0, 0)
    assert loaded.memory.brk >= 0x405000


async def test_a_dynamic_program_starts_in_its_interpreter(caller: Caller):
    await caller.write("/linker", elf(abi.ET_DYN, 0, data_address=0x2000))
    await caller.write("/program", elf(abi.ET_DYN, 0, b"/linker\0", data_address=0x2000))
    loaded = await caller.load("/program", b"program")
    _, _, auxv = stack_of(loaded)
    assert loaded.context.get_registers().rip == auxv[7] + 0x400
    assert auxv[9] != auxv[7] + 0x400
    assert loaded.memory.read(auxv[9], 4) == CODE[:4]
    assert loaded.executable.location.dentry.name == "program"


async def test_a_script_runs_its_interpreter(caller: Caller):
    await caller.write("/program", elf())
    await caller.write("/script", b"#!/program -x y\n")
    await caller.write("/outer", b"#!/script")
    loaded = await caller.load("/outer", b"name", b"a")
    argv, _, auxv = stack_of(loaded)
    assert argv == [b"/program", b"-x y", b"/script", b"/outer", b"a"]
    assert loaded.memory.read_string(auxv[31]) == b"/outer"


async def test_scripts_may_not_interpret_each_other_for_ever(caller: Caller):
    await caller.write("/program", elf())
    for number in range(7):
        await caller.write(f"/s{number}", b"#!/program" if number == 0 else b"#!/s%d" % (number - 1))
    await caller.load("/s4", b"")
    with pytest.raises(errnos.ELOOP):
        await caller.load("/s5", b"")
    await caller.write("/self", b"#!/self")
    with pytest.raises(errnos.ELOOP):
        await caller.load("/self", b"")


@pytest.mark.parametrize(("content", "error"), [
    (b"", errnos.ENOEXEC),
    (b"echo hello", errnos.ENOEXEC),
    (b"#!/missing", errnos.ENOENT),
    (b"#!/plain", errnos.EACCES),
    (b"#!/", errnos.EACCES),
    (elf()[:100], errnos.ENOEXEC),
    (elf(address=0), errnos.ENOEXEC),
    (elf(memory_size=0x50), errnos.ENOEXEC),
    (elf(interpreter=b"/missing\0"), errnos.ENOENT),
    (elf(interpreter=b"/endless"), errnos.ENOEXEC),
    (elf(interpreter=b"/text\0"), errnos.ELIBBAD),
    (elf(interpreter=b"/short\0"), errnos.EIO),
])  # fmt: skip
async def test_what_cannot_be_run(caller: Caller, content: bytes, error: type[Exception]):
    await caller.write("/plain", elf(), 0o644)
    await caller.write("/short", b"text")
    await caller.write("/text", b"text" * 100)
    await caller.write("/program", content)
    with pytest.raises(error):
        await caller.load("/program", b"program")


async def test_files_that_are_no_programs(caller: Caller):
    await caller.write("/plain", elf(), 0o644)
    await caller.fs.root.dentry.inode.mkdir("directory", 0o755, Owner(0, 0))
    for path, error in (("/plain", errnos.EACCES), ("/directory", errnos.EACCES), ("/missing", errnos.ENOENT)):
        with pytest.raises(error):
            await caller.load(path, b"")


async def test_arguments_have_limits(caller: Caller):
    await caller.write("/program", elf())
    argv, _, _ = stack_of(await caller.load("/program"))
    assert argv == [b""]
    argv, _, _ = stack_of(await caller.load("/program", *[b"x" * 100_000] * 10))
    assert len(argv) == 10
    with pytest.raises(errnos.E2BIG):
        await caller.load("/program", b"x" * 131072)
    with pytest.raises(errnos.E2BIG):
        await caller.load("/program", *[b"x" * 100_000] * 30)
    with pytest.raises(errnos.E2BIG):
        await caller.load("/program", *[b"x" * 100_000] * 10, stack_limit=1 << 20)


async def test_nothing_is_left_open_after_a_failure(caller: Caller):
    await caller.write("/program", elf(address=0))
    file = await open_executable(caller, AT_FDCWD, "/program")
    with pytest.raises(errnos.ENOEXEC):
        await load_program(caller.kernel, caller, Start(file, b"/program", [], [], caller.credentials, 8 << 20))
    assert file.references == 0


def test_capabilities_after_exec():
    root = Credentials.for_user(0, 0).change(bounding=0xFF, permitted=1, effective=1, inheritable=0)
    assert credentials_after_exec(root).effective == 0xFF
    user = Credentials.for_user(1000, 1000).change(permitted=6, effective=6, ambient=2, inheritable=2)
    assert (credentials_after_exec(user).permitted, credentials_after_exec(user).effective) == (2, 2)
    dropped = Credentials.for_user(0, 0).change(euid=1000, suid=0)
    assert credentials_after_exec(dropped).effective == 0
    assert credentials_after_exec(dropped).suid == 1000
