import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsentry.abi import elf_h as abi
from asyncsentry.errnos import ENOEXEC
from asyncsentry.memory.elf import Script, parse_header, parse_program, parse_script

PAGE = 4096


def header(phnum: int = 1, kind: int = abi.ET_DYN, **changes: int) -> bytes:
    values = {
        "kind": kind, "machine": abi.EM_X86_64, "version": 1, "entry": 0x1000, "phoff": 64, "shoff": 0, "flags": 0,
        "ehsize": 64, "phentsize": 56, "phnum": phnum, "shentsize": 0, "shnum": 0, "shstrndx": 0, **changes,
    }  # fmt: skip
    return abi.EHDR.pack(b"\x7fELF\2\1\1".ljust(16, b"\0"), *values.values())


def load(address: int = 0, size: int = 0x800, memory: int = 0x1800, offset: int = 0, flags: int = 6,
         align: int = PAGE) -> bytes:
    return abi.PHDR.pack(abi.PT_LOAD, flags, offset, address, address, size, memory, align)


def test_a_program_tells_where_its_segments_go():
    program = parse_program(parse_header(header(2)), load() + load(0x5123, offset=0x2123, flags=5, align=0x10000))
    assert [(s.page_start, s.page_end, s.prot) for s in program.segments] == [(0, 0x2000, 3), (0x5000, 0x7000, 5)]
    assert program.alignment == 0x10000
    assert program.phdrs_address == 64
    assert program.stack_prot == 3


@pytest.mark.parametrize("data", [
    b"", b"\x7fELF", header(phnum=0), header(phnum=2000), header(kind=1), header(kind=4), header(machine=3),
    header(phentsize=32), header(phoff=1 << 63),
])  # fmt: skip
def test_a_header_that_is_none_is_refused(data: bytes):
    with pytest.raises(ENOEXEC):
        parse_header(data)


@pytest.mark.parametrize("segment", [
    load(size=0x2000), load(address=(1 << 64) - PAGE), load(memory=1 << 62), load(address=0x10), load()[:-1],
    abi.PHDR.pack(abi.PT_INTERP, 4, 0, 0, 0, 5000, 5000, 1), abi.PHDR.pack(abi.PT_INTERP, 4, 0, 0, 0, 1, 1, 1), b"",
])  # fmt: skip
def test_a_segment_that_cannot_be_is_refused(segment: bytes):
    with pytest.raises(ENOEXEC):
        parse_program(parse_header(header()), segment)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data: bytes):
    for attempt in (parse_header, parse_script):
        try:
            attempt(data)
        except ENOEXEC:
            pass


words = st.sampled_from([0, 1, 3, 64, 4095, 4096, 1 << 31, (1 << 47) - 1, 1 << 47, (1 << 63) - 1, (1 << 64) - 1])


kinds = st.sampled_from([0, 1, 3, 6, abi.PT_GNU_STACK])


@given(st.lists(st.tuples(kinds, st.integers(0, 7), *[words] * 6), max_size=5),
       words)
def test_any_program_headers_parse_or_are_refused(rows: list[tuple[int, ...]], phoff: int):
    data = b"".join(struct.pack("<IIQQQQQQ", *row) for row in rows)
    try:
        program = parse_program(parse_header(header(len(rows), phoff=phoff)), data)
    except ENOEXEC:
        return
    assert 0 <= program.start < program.end <= 0x7FE000000000


@pytest.mark.parametrize(("line", "expected"), [
    (b"#!/bin/sh\necho", Script(b"/bin/sh", None)),
    (b"#! \t/bin/sh -e  x \t\n", Script(b"/bin/sh", b"-e  x")),
    (b"#!/bin/sh", Script(b"/bin/sh", None)),
    (b"#!/bin/sh\0junk\n", Script(b"/bin/sh", None)),
    (b"#!/usr/bin/env " + b"a" * 400, Script(b"/usr/bin/env", b"a" * 240)),
])  # fmt: skip
def test_a_script_names_its_interpreter(line: bytes, expected: Script):
    assert parse_script(line) == expected


@pytest.mark.parametrize("line", [b"#!", b"#!\n/bin/sh", b"#!  \t \n", b"#!/" + b"a" * 300, b"#!" + b" " * 300])
def test_a_script_that_names_no_whole_interpreter_is_refused(line: bytes):
    with pytest.raises(ENOEXEC):
        parse_script(line)
