"""Loading programs: from an executable file to a trapped context that is about to run its first instruction.

:func:`load_program` is all there is for callers: execve(2) uses it, and whoever starts a sandbox's first
process. A failure leaves nothing behind and raises what execve(2) returns. Linux kills the process when
mapping fails late; here the caller gets the error, since the old program is still there.
See execve(2), elf(5), Linux's fs/exec.c, fs/binfmt_elf.c and fs/binfmt_script.c.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from asyncsentry.abi import auxvec_h as aux
from asyncsentry.abi.elf_h import ARG_MAX, EHDR, MAX_ARG_STRLEN
from asyncsentry.abi.fcntl_h import AT_FDCWD
from asyncsentry.abi.mman_h import MAP_PRIVATE, PROT_EXEC, PROT_WRITE
from asyncsentry.errnos import E2BIG, EACCES, EFAULT, EIO, ELIBBAD, ELOOP, ENOENT, ENOEXEC, EPERM, LinuxError
from asyncsentry.fs.fdtable import drop
from asyncsentry.fs.vfs import open_executable
from asyncsentry.fs.writecount import put_access
from asyncsentry.memory.auxv import build_stack
from asyncsentry.memory.elf import ElfHeader, Program, Segment, parse_header, parse_program, parse_script
from asyncsentry.memory.layout import STACK_EXTENT_MAX, STACK_EXTENT_MIN, Layout, choose_layout, page_up
from asyncsentry.memory.manager import MemoryManager
from asyncsentry.memory.vma import Vma
from asyncsentry.platforms.base import GUEST_ADDRESS_MIN, PAGE_SIZE, Registers

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.fs.path import PathContext
    from asyncsentry.kernel import Kernel
    from asyncsentry.platforms.base import Context
    from asyncsentry.tasks.credentials import Credentials

ADDR_NO_RANDOMIZE = 0x0040000
"""Of personality(2)."""
_REWRITES_MAX = 5
_HEAD_SIZE = PAGE_SIZE
_FLUSH_AFTER = 20
_ARGUMENTS_MAX = (8 << 20) // 4 * 3
_CLOCK_TICKS = 100
_USER_CS, _USER_SS, _EFLAGS = 0x33, 0x2B, 0x202


class Loaded(NamedTuple):
    """A program ready to run."""

    context: Context
    memory: MemoryManager
    executable: File
    """The ELF file that runs (for a script its interpreter); the memory keeps it alive."""


@dataclass(slots=True)
class _Image:
    """An ELF file with its headers read."""

    file: File
    header: ElfHeader
    program: Program
    bias: int = 0


@dataclass(slots=True)
class Start:
    """Everything that decides how a program starts."""

    file: File
    """What was asked to run, opened with :func:`~asyncsentry.fs.vfs.open_executable`; consumed."""
    path: bytes
    """Its path as the program is told (AT_EXECFN)."""
    argv: list[bytes]
    envp: list[bytes]
    credentials: Credentials
    stack_limit: int
    """RLIMIT_STACK."""
    personality: int = 0
    path_inaccessible: bool = False
    """Whether the path will lead nowhere once close-on-exec descriptors are closed."""
    opened: list[File] = field(default_factory=list)
    """Files opened on the way, to be dropped at the end."""

    def check_arguments(self) -> None:
        """E2BIG if arguments and environment take too much room, execve(2)."""
        strings = [*self.argv, *self.envp]
        if any(len(string) >= MAX_ARG_STRLEN for string in strings):
            raise E2BIG("an argument is too long")
        size = sum(map(len, strings)) + len(strings) * 9 + len(self.path)
        if size > max(min(self.stack_limit // 4, _ARGUMENTS_MAX), ARG_MAX):
            raise E2BIG("arguments take too much room")


async def load_program(kernel: Kernel, context: PathContext, start: Start) -> Loaded:
    """Loads a program, or the interpreter of a script, into a new address space.

    ``context`` is who opens interpreters: a guest thread, or a stand-in for the first process.
    """
    _keep(start, start.file)
    executable = None
    try:
        start.argv = start.argv or [b""]  # as Linux since 5.18
        start.check_arguments()
        image = await _find_image(context, start)
        interpreter = await _find_interpreter(context, start, image)
        loaded = await _build(kernel, start, image, interpreter)
        executable = loaded.executable
        return loaded
    finally:
        for file in start.opened:
            if file is not executable:
                put_access(file)
            await drop(file)


def _keep(start: Start, file: File) -> None:
    file.references += 1
    start.opened.append(file)


# Finding what to load ----------------------------------------------------------------------------


async def _find_image(context: PathContext, start: Start) -> _Image:
    """Follows ``#!`` lines until there is an ELF file."""
    file, path = start.file, start.path
    for _ in range(_REWRITES_MAX + 1):
        head = read_file(file, 0, _HEAD_SIZE)
        if head[:2] != b"#!":
            return _read_image(file, head)
        script = parse_script(head)
        if start.path_inaccessible:
            raise ENOENT("the interpreter could not open the script")
        extra = [script.interpreter] if script.argument is None else [script.interpreter, script.argument]
        start.argv = [*extra, path, *start.argv[1:]]
        start.check_arguments()
        path = script.interpreter
        file = await open_executable(context, AT_FDCWD, os.fsdecode(path))
        _keep(start, file)
    raise ELOOP("scripts interpret each other too deeply")


async def _find_interpreter(context: PathContext, start: Start, image: _Image) -> _Image | None:
    """Opens and reads the dynamic linker a program names."""
    if image.program.interpreter is None:
        return None
    offset, size = image.program.interpreter
    path = read_file(image.file, offset, size)
    if len(path) < size or path[-1:] != b"\0":
        raise ENOEXEC("interpreter's path does not end")
    file = await open_executable(context, AT_FDCWD, os.fsdecode(path.split(b"\0")[0]))
    _keep(start, file)
    head = read_file(file, 0, _HEAD_SIZE)
    if len(head) < EHDR.size:
        raise EIO("the interpreter is shorter than its header")
    try:
        return _read_image(file, head)
    except ENOEXEC as error:
        raise ELIBBAD("the interpreter is no elf file for this machine") from error


def _read_image(file: File, head: bytes) -> _Image:
    header = parse_header(head[: EHDR.size])
    end = header.phdrs_offset + header.phdrs_size
    data = head[header.phdrs_offset : end]
    if end > len(head):
        data = read_file(file, header.phdrs_offset, header.phdrs_size)
    return _Image(file, header, parse_program(header, data))


def read_file(file: File, offset: int, count: int) -> bytes:
    """Reads up to ``count`` bytes at an offset of a regular file, fewer only at its end."""
    parts = []
    while count:
        data = file.try_read(count, offset)
        if not data:
            break
        parts.append(data)
        offset += len(data)
        count -= len(data)
    return b"".join(parts)


# Building the address space ----------------------------------------------------------------------


async def _build(kernel: Kernel, start: Start, image: _Image, interpreter: _Image | None) -> Loaded:
    layout = choose_layout(kernel.random, start.stack_limit, not start.personality & ADDR_NO_RANDOMIZE)
    context = await kernel.platform.new_address_space()
    memory = MemoryManager(context.space, layout.mmap_base, kernel.platform.vdso())
    memory.account = kernel.memory
    try:
        await _Builder(kernel, start, layout, context, memory).build(image, interpreter)
    except BaseException as error:
        await context.destroy()
        await memory.release()
        if isinstance(error, EPERM):
            raise EACCES("the host lets no code of this file run") from error
        if isinstance(error, EFAULT):
            raise ENOEXEC("segments reach beyond the file") from error
        raise
    return Loaded(context, memory, image.file)


def _file_end(area: Vma) -> int:
    return area.offset + area.size


class _Builder:
    """Fills one new address space."""

    def __init__(self, kernel: Kernel, start: Start, layout: Layout, context: Context, memory: MemoryManager) -> None:
        self._kernel = kernel
        self._start = start
        self._layout = layout
        self._context = context
        self._memory = memory
        self._queued = 0
        self._zeroes: list[tuple[int, int]] = []

    async def build(self, image: _Image, interpreter: _Image | None) -> None:
        """Maps program, interpreter and stack, and sets the registers."""
        if image.header.is_dynamic:
            self._place(image, None if interpreter is None else self._layout.program_base)
        elif not self._fits(image.program.start, image.program.end):
            raise ENOEXEC("the program's addresses are not to be had")
        await self._map_image(image)
        self._note_layout(image, interpreter is not None)
        if interpreter is not None:
            if interpreter.header.is_dynamic:
                self._place(interpreter, None)
            elif not self._fits(interpreter.program.start, interpreter.program.end):
                raise ELIBBAD("the interpreter's addresses are not to be had")
            await self._map_image(interpreter)
        self._map_stack(image.program.stack_prot)
        await self._flush()
        for address, size in self._zeroes:
            self._memory.write(address, bytes(size))
        pointer = self._write_stack(image, interpreter)
        self._set_registers(interpreter or image, pointer)

    def _fits(self, low: int, high: int) -> bool:
        return low >= GUEST_ADDRESS_MIN and self._memory.vmas.is_free(low, high)

    def _place(self, image: _Image, wanted: int | None) -> None:
        """Decides where a position-independent image goes: at ``wanted``, or among the mappings."""
        program = image.program
        size = program.end - program.start
        if wanted is not None:
            base = wanted & -program.alignment
            if self._fits(base, base + size):
                image.bias = base - program.start
                return
        found = self._memory.find_free(size + program.alignment - PAGE_SIZE)
        if found is None:
            raise ENOEXEC("too large for the address space")
        image.bias = (found + program.alignment - 1 & -program.alignment) - program.start

    async def _map_image(self, image: _Image) -> None:
        descriptor = self._descriptor_of(image.file)
        run: list[Vma] = []
        for segment in image.program.segments:
            area = self._file_area(image, segment)
            if run and (area is None or area.start != run[-1].end or area.offset != _file_end(run[-1])):
                await self._map_run(run, descriptor)
                run = []
            if area is not None:
                run.append(area)
            if (bss := self._bss_area(image, segment)) is not None:
                await self._map_run(run, descriptor)
                run = []
                self._memory.map_area(self._context, bss)
                self._queued += 1
        await self._map_run(run, descriptor)

    async def _map_run(self, run: list[Vma], descriptor: int) -> None:
        """Maps areas that lie side by side, in memory as in the file, with one mapping.

        Lending the host a descriptor costs a round trip, changing the protection of a part next to nothing.
        """
        if not run:
            return
        first = run[0]
        whole = Vma(first.start, run[-1].end, first.prot, MAP_PRIVATE, first.file, first.offset)
        self._memory.map_area(self._context, whole, descriptor=descriptor)
        for area in run[1:]:
            self._memory.protect_area(self._context, area.start, area.end, area.prot)
        self._queued += len(run)
        if self._queued >= _FLUSH_AFTER:
            await self._flush()

    def _descriptor_of(self, file: File) -> int:
        try:
            return file.host_descriptor(False)
        except LinuxError as error:
            raise ENOEXEC("the file cannot be mapped") from error

    def _file_area(self, image: _Image, segment: Segment) -> Vma | None:
        """Gives the area of a segment that comes from the file; notes what of its last page is to be cleared."""
        if not segment.file_size:
            return None
        start, data_end = image.bias + segment.page_start, image.bias + segment.address + segment.file_size
        if segment.memory_size > segment.file_size and data_end % PAGE_SIZE and segment.prot & PROT_WRITE:
            self._zeroes.append((data_end, -data_end % PAGE_SIZE))
        offset = segment.offset - (segment.address - segment.page_start)
        return Vma(start, page_up(data_end), segment.prot, MAP_PRIVATE, image.file, offset)

    def _bss_area(self, image: _Image, segment: Segment) -> Vma | None:
        """Gives the area of a segment behind what comes from the file."""
        end = image.bias + segment.page_end
        start = image.bias + (page_up(segment.address + segment.file_size) if segment.file_size else segment.page_start)
        return Vma(start, end, segment.prot, MAP_PRIVATE) if end > start else None

    async def _flush(self) -> None:
        await self._memory.flush(self._context)
        self._queued = 0

    def _note_layout(self, image: _Image, has_interpreter: bool) -> None:
        """Notes where code, data and heap are, as /proc/PID/stat tells."""
        memory, bias = self._memory, image.bias
        for segment in image.program.segments:
            begin, end = bias + segment.address, bias + segment.address + segment.file_size
            if segment.prot & PROT_EXEC:
                memory.start_code = memory.start_code or begin
                memory.end_code = max(memory.end_code, end)
            memory.start_data = max(memory.start_data, begin)
            memory.end_data = max(memory.end_data, end)
        heap = bias + image.program.end
        if image.header.is_dynamic and not has_interpreter:
            heap = self._layout.program_base  # among the mappings there is no room to grow
        memory.start_brk = memory.brk = heap + self._layout.brk_offset

    # The stack -----------------------------------------------------------------------------------

    def _map_stack(self, prot: int) -> None:
        size = max(STACK_EXTENT_MIN, min(self._start.stack_limit, STACK_EXTENT_MAX))
        self._memory.map_stack(self._context, self._layout.stack_top, size, prot)
        self._queued += 1

    def _write_stack(self, image: _Image, interpreter: _Image | None) -> int:
        start, memory = self._start, self._memory
        stack = build_stack(
            self._layout.stack_top, self._layout.stack_slack, start.argv, start.envp, start.path,
            self._kernel.random.bytes(16), self._auxiliary_entries(image, interpreter),
        )  # fmt: skip
        memory.write(stack.pointer, stack.content)
        memory.start_stack = stack.pointer
        memory.arg_start, memory.arg_end = stack.arg_start, stack.arg_end
        memory.env_start, memory.env_end = stack.arg_end, stack.env_end
        memory.auxv = stack.auxv
        return stack.pointer

    def _auxiliary_entries(self, image: _Image, interpreter: _Image | None) -> list[tuple[int, int]]:
        credentials, hardware = self._start.credentials, self._kernel.hardware
        phdrs = image.program.phdrs_address
        is_secure = credentials.ruid != credentials.euid or credentials.rgid != credentials.egid
        vdso, vdso_size = self._kernel.platform.vdso()
        entries = [(aux.AT_SYSINFO_EHDR, vdso)] if vdso_size else []
        return [
            *entries,
            (aux.AT_MINSIGSTKSZ, hardware.minsigstksz),
            (aux.AT_HWCAP, hardware.hwcap),
            (aux.AT_PAGESZ, PAGE_SIZE),
            (aux.AT_CLKTCK, _CLOCK_TICKS),
            (aux.AT_PHDR, image.bias + phdrs if phdrs else 0),
            (aux.AT_PHENT, 56),
            (aux.AT_PHNUM, image.header.phdrs_count),
            (aux.AT_BASE, interpreter.bias if interpreter is not None else 0),
            (aux.AT_FLAGS, 0),
            (aux.AT_ENTRY, image.bias + image.header.entry & (1 << 64) - 1),
            (aux.AT_UID, credentials.ruid),
            (aux.AT_EUID, credentials.euid),
            (aux.AT_GID, credentials.rgid),
            (aux.AT_EGID, credentials.egid),
            (aux.AT_SECURE, int(is_secure)),
            (aux.AT_HWCAP2, hardware.hwcap2),
        ]

    def _set_registers(self, first: _Image, pointer: int) -> None:
        registers = Registers()
        registers.rip = first.bias + first.header.entry & (1 << 64) - 1
        registers.rsp = pointer
        registers.eflags, registers.cs, registers.ss = _EFLAGS, _USER_CS, _USER_SS
        self._context.set_registers(registers)
        self._context.set_fs_base(0)
        self._context.set_gs_base(0)
        self._context.set_fpstate(b"")
