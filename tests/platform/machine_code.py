"""Guests as machine code, and the platforms to run them on."""

from __future__ import annotations

import asyncio
from typing import Any

from asyncsentry.platforms.base import HostCall, TrapKind

CODE = 0x400000
DATA = 0x500000
MAP_PRIVATE_ANONYMOUS_FIXED = 0x32
MASK64 = (1 << 64) - 1

MOV_EAX = b"\xb8"
SYSCALL = b"\x0f\x05"
UD2, INT3, SPIN = b"\x0f\x0b", b"\xcc", b"\xeb\xfe"


def call(number: int) -> bytes:
    """Machine code of one system call."""
    return MOV_EAX + number.to_bytes(4, "little") + SYSCALL


async def guest(platform: Any, code: bytes) -> Any:
    """A context about to run ``code``, with a page of data."""
    context = await platform.new_address_space()
    for address, prot in ((CODE, 7), (DATA, 3)):
        context.queue_host_call(HostCall(9, (address, 4096, prot, MAP_PRIVATE_ANONYMOUS_FIXED, MASK64, 0)))
    assert await context.flush() == [CODE, DATA]
    context.space.write(CODE, code)
    registers = context.get_registers()
    registers.rip, registers.rsp = CODE, DATA + 4096
    context.set_registers(registers)
    return context


async def next_trap(context: Any) -> TrapKind:
    kind: TrapKind = await asyncio.wait_for(context.wait_trap(), 20)
    return kind
