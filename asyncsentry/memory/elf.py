"""Reading ELF executables: headers from hostile bytes into checked values. Raises ENOEXEC or nothing.

See elf(5), Linux's fs/binfmt_elf.c.
"""

from __future__ import annotations

from typing import NamedTuple

from asyncsentry.abi import elf_h as abi
from asyncsentry.abi.mman_h import PROT_EXEC, PROT_READ, PROT_WRITE
from asyncsentry.errnos import ENOEXEC
from asyncsentry.memory.layout import page_up
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX, PAGE_SIZE

_PHDRS_SIZE_MAX = 65536
_PATH_MAX = 4096
_OFFSET_MAX = 1 << 62


class ElfHeader(NamedTuple):
    """What matters of an ELF header."""

    is_dynamic: bool
    """Whether it may be loaded anywhere (ET_DYN)."""
    entry: int
    phdrs_offset: int
    phdrs_count: int

    @property
    def phdrs_size(self) -> int:
        """Bytes the program headers take."""
        return self.phdrs_count * abi.PHDR.size


class Segment(NamedTuple):
    """One PT_LOAD: where its bytes are in the file and where they go."""

    prot: int
    offset: int
    address: int
    file_size: int
    memory_size: int

    @property
    def page_start(self) -> int:
        """Its first page."""
        return self.address & -PAGE_SIZE

    @property
    def page_end(self) -> int:
        """The end of its last page."""
        return page_up(self.address + self.memory_size)


class Program(NamedTuple):
    """What the program headers say."""

    segments: tuple[Segment, ...]
    interpreter: tuple[int, int] | None
    """Offset and size of the interpreter's path in the file."""
    stack_prot: int
    phdrs_address: int
    """Where the program headers are in memory; 0 if they are not loaded."""
    alignment: int

    @property
    def start(self) -> int:
        """Its lowest page."""
        return self.segments[0].page_start

    @property
    def end(self) -> int:
        """The end of its highest page."""
        return max(segment.page_end for segment in self.segments)


def parse_header(data: bytes) -> ElfHeader:
    """Reads an ELF header from the beginning of a file."""
    if len(data) < abi.EHDR.size or data[:4] != abi.ELFMAG:
        raise ENOEXEC("no elf file")
    _, kind, machine, _, entry, phoff, _, _, _, phentsize, phnum, _, _, _ = abi.EHDR.unpack_from(data)
    if machine != abi.EM_X86_64:  # Linux looks at nothing else, the class included
        raise ENOEXEC("not for this machine")
    if kind not in (abi.ET_EXEC, abi.ET_DYN):
        raise ENOEXEC("not an executable")
    if phentsize != abi.PHDR.size or not 0 < phnum * phentsize <= _PHDRS_SIZE_MAX or phoff > _OFFSET_MAX:
        raise ENOEXEC("program headers of a strange size")
    return ElfHeader(kind == abi.ET_DYN, entry, phoff, phnum)


def parse_program(header: ElfHeader, data: bytes) -> Program:
    """Reads the program headers, ``data`` being what the file holds at ``header.phdrs_offset``."""
    if len(data) < header.phdrs_size:
        raise ENOEXEC("program headers are cut off")
    segments: list[Segment] = []
    interpreter = None
    stack_prot = PROT_READ | PROT_WRITE  # also where there is no PT_GNU_STACK, elf_read_implies_exec()
    alignment, phdrs_address = PAGE_SIZE, 0
    for index in range(header.phdrs_count):
        kind, flags, offset, address, _, file_size, memory_size, align = abi.PHDR.unpack_from(
            data, index * abi.PHDR.size)
        if kind == abi.PT_INTERP and interpreter is None:
            if not 2 <= file_size <= _PATH_MAX or offset > _OFFSET_MAX:
                raise ENOEXEC("interpreter's path of a strange size")
            interpreter = (offset, file_size)
        elif kind == abi.PT_GNU_STACK:
            stack_prot = PROT_READ | PROT_WRITE | (PROT_EXEC if flags & abi.PF_X else 0)
        elif kind == abi.PT_LOAD and memory_size:
            segment = _check_segment(Segment(_prot(flags), offset, address, file_size, memory_size))
            if segments and segment.page_start < segments[-1].page_start:
                raise ENOEXEC("segments out of order")
            segments.append(segment)
            if align & (align - 1) == 0 and PAGE_SIZE < align <= GUEST_ADDRESS_MAX:
                alignment = max(alignment, align)
            if offset <= header.phdrs_offset < offset + file_size and not phdrs_address:
                phdrs_address = address + header.phdrs_offset - offset
    if not segments:
        raise ENOEXEC("nothing to load")
    return Program(tuple(segments), interpreter, stack_prot, phdrs_address, alignment)


def _check_segment(segment: Segment) -> Segment:
    if segment.file_size > segment.memory_size or segment.memory_size > GUEST_ADDRESS_MAX:
        raise ENOEXEC("segment larger in the file than in memory")
    if segment.address + segment.memory_size > GUEST_ADDRESS_MAX or segment.offset > _OFFSET_MAX:
        raise ENOEXEC("segment out of reach")
    if (segment.address - segment.offset) % PAGE_SIZE:
        raise ENOEXEC("segment out of step with its pages")
    return segment


def _prot(flags: int) -> int:
    return (
        (PROT_READ if flags & abi.PF_R else 0)
        | (PROT_WRITE if flags & abi.PF_W else 0)
        | (PROT_EXEC if flags & abi.PF_X else 0)
    )


class Script(NamedTuple):
    """A ``#!`` line: the interpreter and its one optional argument."""

    interpreter: bytes
    argument: bytes | None


def parse_script(data: bytes) -> Script:
    """Reads the first line of a script, ``data`` being the beginning of a file; Linux's load_script."""
    head = data[: abi.BINPRM_BUF_SIZE].ljust(abi.BINPRM_BUF_SIZE, b"\0")
    if head[:2] != b"#!":
        raise ENOEXEC("no script")
    line, newline, _ = head[2:].partition(b"\n")
    if not newline:
        # The path may be cut off: only something behind it proves that it is whole.
        line = line[:-1]
        words = line.lstrip(b" \t")
        if not words or not any(stop in words for stop in (b" ", b"\t", b"\0")):
            raise ENOEXEC("interpreter's path is cut off")
    line = line.strip(b" \t")
    end = min((i for i in (line.find(stop) for stop in (b" ", b"\t", b"\0")) if i >= 0), default=len(line))
    interpreter, rest = line[:end], line[end:]
    if not interpreter:
        raise ENOEXEC("no interpreter named")
    argument = None
    if rest and rest[:1] != b"\0":
        argument = rest.lstrip(b" \t").split(b"\0")[0]
    return Script(interpreter, argument or None)
