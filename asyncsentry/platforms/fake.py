"""A platform without a processor: guest programs are Python coroutines. For tests of kernel semantics.

A program is ``async def program(guest)``; it issues calls with ``await guest.syscall(nr, *args)``, which
gives what Linux would leave in ``rax``, as a signed number. Its memory is a table of pages that honours
mmap, munmap, mprotect and mremap host calls, so the memory manager works on it unchanged. Signal handlers
are Python coroutines too, found by the address ``rip`` was set to: ``guest.handlers[address] = handler``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from asyncsentry import errnos
from asyncsentry.gate import Gate, RunQueue
from asyncsentry.platforms.base import PAGE_SIZE, Fault, HostCall, Registers, TrapKind

MASK64 = (1 << 64) - 1
SYS_MMAP, SYS_MPROTECT, SYS_MUNMAP, SYS_MREMAP = 9, 10, 11, 25
SYS_RT_SIGRETURN = 15
PROT_READ, PROT_WRITE = 1, 2
MAP_SHARED, MAP_ANONYMOUS = 0x01, 0x20
ARENA = 0x10_0000
"""Where a new address space has 64 KiB of memory for test programs to use."""
ARENA_SIZE = 0x1_0000

_USER_CS, _USER_DS = 0x33, 0x2B
_AFTER_SYSCALL = 0x1002
"""Where ``rip`` is during a call: a restart sets it back by the two bytes of the instruction."""

Program = Callable[["FakeContext"], Awaitable[None]]


class _Page:
    __slots__ = ("content", "prot", "shared")

    def __init__(self, content: bytearray, prot: int, shared: bool) -> None:
        self.content = content
        self.prot = prot
        self.shared = shared


class FakeAddressSpace:
    """Guest memory as a dictionary of pages."""

    def __init__(self) -> None:
        self.host_pid = 0
        self.pages: dict[int, _Page] = {}

    def _chunks(self, address: int, count: int, prot: int) -> list[tuple[bytearray, int, int]]:
        chunks = []
        while count:
            page = self.pages.get(address // PAGE_SIZE)
            if page is None or not page.prot & prot:
                break
            offset = address % PAGE_SIZE
            length = min(count, PAGE_SIZE - offset)
            chunks.append((page.content, offset, length))
            address += length
            count -= length
        return chunks

    def read_some(self, address: int, count: int) -> bytes:
        """Copies out what is readable from ``address`` on."""
        chunks = self._chunks(address, count, PROT_READ)
        return b"".join(bytes(content[offset : offset + length]) for content, offset, length in chunks)

    def read(self, address: int, count: int) -> bytes:
        """Copies out; EFAULT unless all is readable."""
        data = self.read_some(address, count)
        if len(data) < count:
            raise errnos.EFAULT(f"cannot read {count} bytes at {address:#x}")
        return data

    def write_some(self, address: int, data: bytes) -> int:
        """Copies in what is writable from ``address`` on."""
        done = 0
        for content, offset, length in self._chunks(address, len(data), PROT_WRITE):
            content[offset : offset + length] = data[done : done + length]
            done += length
        return done

    def write_from_file(self, address: int, count: int, descriptor: int, offset: int) -> int:
        """Reads a host file into memory."""
        data = os.pread(descriptor, count, offset)
        done = self.write_some(address, data)
        if data and not done:
            raise errnos.EFAULT(f"cannot write at {address:#x}")
        return done

    def write(self, address: int, data: bytes) -> None:
        """Copies in; EFAULT unless all is writable."""
        if self.write_some(address, data) < len(data):
            raise errnos.EFAULT(f"cannot write {len(data)} bytes at {address:#x}")

    def copy(self) -> FakeAddressSpace:
        """Copies private pages and shares shared ones, as fork(2) does."""
        other = FakeAddressSpace()
        for number, page in self.pages.items():
            other.pages[number] = page if page.shared else _Page(bytearray(page.content), page.prot, False)
        return other

    def carry_out(self, call: HostCall) -> int:
        """Does one host call on the table of pages; gives its result."""
        address, length, *rest = call.arguments
        first, last = address // PAGE_SIZE, (address + length + PAGE_SIZE - 1) // PAGE_SIZE
        if call.number == SYS_MUNMAP:
            for number in range(first, last):
                self.pages.pop(number, None)
            return 0
        if call.number == SYS_MPROTECT:
            for number in range(first, last):
                if number not in self.pages:
                    return -errnos.ENOMEM.errno
                self.pages[number].prot = rest[0]
            return 0
        if call.number == SYS_MMAP:
            self._map(first, last, rest[0], rest[1], call.descriptor, rest[3] if len(rest) > 3 else 0)
            return address
        if call.number == SYS_MREMAP:
            return self._move(address, length, rest[0], rest[2] if len(rest) > 2 else address)
        return 0

    def _map(self, first: int, last: int, prot: int, flags: int, descriptor: int | None, offset: int) -> None:
        for index, number in enumerate(range(first, last)):
            content = bytearray(PAGE_SIZE)
            if descriptor is not None:
                data = os.pread(descriptor, PAGE_SIZE, offset + index * PAGE_SIZE)
                content[: len(data)] = data
            self.pages[number] = _Page(content, prot, bool(flags & MAP_SHARED))

    def _move(self, address: int, old_length: int, new_length: int, target: int) -> int:
        first = address // PAGE_SIZE
        moved = [self.pages.pop(first + i, None) for i in range((old_length + PAGE_SIZE - 1) // PAGE_SIZE)]
        for index in range((new_length + PAGE_SIZE - 1) // PAGE_SIZE):
            page = moved[index] if index < len(moved) else None
            prot = moved[0].prot if moved and moved[0] else PROT_READ | PROT_WRITE
            self.pages[target // PAGE_SIZE + index] = page or _Page(bytearray(PAGE_SIZE), prot, False)
        return target


class FakeContext:
    """A guest thread of execution whose code is a coroutine."""

    def __init__(self, space: FakeAddressSpace) -> None:
        self.space = space
        self.number = 0
        self.arguments: tuple[int, int, int, int, int, int] = (0,) * 6
        self.fault = Fault(0, 0, 0, 0, 0)
        self.host_error = 0
        self.host_tid = 0
        self.program: Program | None = None
        """What runs at the first resume."""
        self.child_program: Program | None = None
        """What the next fork's or clone's child runs."""
        self.handlers: dict[int, Program] = {}
        self.registers = Registers()
        self.registers.cs, self.registers.ss = _USER_CS, _USER_DS
        self.fpstate = b""
        self.gate = Gate(asyncio.get_running_loop())
        self._resumed: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._calls: list[HostCall] = []
        self._kind = TrapKind.SYSCALL
        self._trapped = True
        self._interrupted = False

    # The guest's side ----------------------------------------------------------------------------

    @property
    def memory(self) -> FakeAddressSpace:
        """The program's memory; :data:`ARENA` is free to use."""
        return self.space

    async def syscall(self, number: int, *arguments: int) -> int:
        """Traps; gives the signed result once resumed, after any signal handler has run."""
        registers = self.registers
        registers.rip = _AFTER_SYSCALL
        await self._call(number, arguments)
        while True:
            registers = self.registers
            if handler := self.handlers.get(registers.rip):
                frame = registers.rsp
                await handler(self)
                self.registers.rsp = frame + 8  # its return has popped the restorer's address
                await self._call(SYS_RT_SIGRETURN, ())
            elif registers.rip == _AFTER_SYSCALL - 2:
                registers.rip = _AFTER_SYSCALL
                await self._call(registers.rax, arguments)
            else:
                break
        result = registers.rax
        return result - (1 << 64) if result >> 63 else result

    async def _call(self, number: int, arguments: tuple[int, ...]) -> None:
        self.number = number & MASK64
        padded = [argument & MASK64 for argument in arguments] + [0] * (6 - len(arguments))
        self.arguments = (padded[0], padded[1], padded[2], padded[3], padded[4], padded[5])
        await self._trap(TrapKind.SYSCALL)

    async def _trap(self, kind: TrapKind) -> None:
        self._kind = kind
        self._trapped = True
        self._resumed = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(self.gate.fire)
        await self._resumed

    # The platform's side -------------------------------------------------------------------------

    async def wait_trap(self) -> TrapKind:
        """Waits for the program's next call; its end is an exit_group(2) of its own."""
        while (kind := self.trap()) is None:
            await self.gate
        return kind

    def trap(self) -> TrapKind | None:
        """Says whether the program has made a call."""
        return self._kind if self._trapped and self._gate_ready() else None

    def _gate_ready(self) -> bool:
        return self._resumed is not None and not self._resumed.done()

    def set_result(self, value: int) -> None:
        """Sets ``rax``."""
        self.registers.rax = value & MASK64

    def resume(self) -> None:
        """Carries out queued calls and lets the program go on."""
        for call in self._calls:
            self.space.carry_out(call)
        self._calls.clear()
        self._trapped = False
        if self._task is None and self.program is not None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    async def _run(self) -> None:
        assert self.program is not None
        await self.program(self)
        await self.syscall(231, 0)

    def resume_with(self, value: int) -> None:
        """Sets ``rax`` and resumes."""
        self.set_result(value)
        self.resume()

    def queue_host_call(self, call: HostCall) -> None:
        """Queues a change of the address space."""
        self._calls.append(call)

    async def flush(self) -> list[int]:
        """Carries the queued calls out now."""
        results = [self.space.carry_out(call) for call in self._calls]
        self._calls.clear()
        return results

    async def compare_exchange(self, address: int, expected: int, new: int) -> int:
        """Compares and exchanges a 32-bit word."""
        old = int.from_bytes(self.space.read(address, 4), "little")
        if old == expected:
            self.space.write(address, new.to_bytes(4, "little"))
        return old

    def interrupt(self) -> None:
        """A coroutine runs only between its traps, so there is nothing to interrupt."""

    def get_registers(self) -> Registers:
        """Copies the registers."""
        return self.registers.copy()

    def set_registers(self, registers: Registers) -> None:
        """Installs registers, with the selectors of 64-bit user code."""
        self.registers = registers.copy()
        self.registers.cs, self.registers.ss = _USER_CS, _USER_DS

    def get_fpstate(self) -> bytes:
        """Gives what :meth:`set_fpstate` took."""
        return self.fpstate

    def set_fpstate(self, image: bytes) -> None:
        """Keeps an image."""
        self.fpstate = image

    def set_fs_base(self, address: int) -> None:
        """Keeps the thread pointer."""
        self.registers.fs_base = address

    def set_gs_base(self, address: int) -> None:
        """Keeps the other one."""
        self.registers.gs_base = address

    async def destroy(self) -> None:
        """Ends the program where it stands."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class FakePlatform:
    """Makes fake address spaces."""

    name = "fake"

    def __init__(self) -> None:
        self.contexts: list[FakeContext] = []
        self.run_queue: RunQueue | None = None
        self.on_failure: Callable[[BaseException], None] = _raise

    async def start(self) -> None:
        """Needs nothing."""

    async def close(self) -> None:
        """Ends every program."""
        for context in self.contexts:
            await context.destroy()

    async def new_address_space(self) -> FakeContext:
        """Gives a context with an arena of memory and no program yet."""
        space = FakeAddressSpace()
        arena = HostCall(SYS_MMAP, (ARENA, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS))
        space.carry_out(arena)
        return self._context(space, None)

    async def fork(self, context: FakeContext) -> FakeContext:
        """Copies memory; the child runs ``context.child_program``."""
        return self._context(context.space.copy(), context)

    async def clone(self, context: FakeContext) -> FakeContext:
        """Shares memory; the child runs ``context.child_program``."""
        return self._context(context.space, context)

    def _context(self, space: FakeAddressSpace, parent: FakeContext | None) -> FakeContext:
        context = FakeContext(space)
        if parent is not None:
            context.program = parent.child_program
            context.registers = parent.registers.copy()
            context.handlers = parent.handlers
        self.contexts.append(context)
        return context

    def vdso(self) -> tuple[int, int]:
        """There is none."""
        return 0, 0


def _raise(error: BaseException) -> None:
    raise error
