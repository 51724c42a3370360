import asyncio
import os
import struct

import pytest

from asyncsentry import errnos
from asyncsentry.abi import mman_h as abi
from asyncsentry.abi.resource_h import RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK
from asyncsentry.fs.file import File
from asyncsentry.memory import advice
from asyncsentry.memory.auxv import build_stack
from asyncsentry.memory.forced import read_forced, write_forced
from asyncsentry.memory.layout import choose_layout
from asyncsentry.memory.manager import MemoryManager
from asyncsentry.memory.mapping import Mapping, mmap
from asyncsentry.memory.remap import Remap, mremap
from asyncsentry.memory.vma import VM_LOCKED, Vma
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX, HostCall
from asyncsentry.platforms.fake import FakeAddressSpace, FakeContext
from asyncsentry.tasks.limits import Limits

PAGE = 4096
RW = abi.PROT_READ | abi.PROT_WRITE
ANON = abi.MAP_PRIVATE | abi.MAP_ANONYMOUS


class Guest:
    """A memory manager and a trapped context, with calls as short as a test wants them."""

    def __init__(self) -> None:
        self.context = FakeContext(FakeAddressSpace())
        self.memory = MemoryManager(self.context.space, mmap_base=1 << 40)
        self.limits = Limits()

    async def mmap(self, address: int = 0, length: int = PAGE, prot: int = RW, flags: int = ANON,
                   file: File | None = None, offset: int = 0, **options: bool) -> int:
        request = Mapping(address, length, prot, flags, file, offset, **options)
        start = await mmap(self.memory, self.context, request, self.limits)
        await self.memory.flush(self.context)
        return start

    async def mremap(self, old: int, old_length: int, new_length: int, flags: int = 0, new: int = 0) -> int:
        result = await mremap(
            self.memory, self.context, Remap(old, old_length, new_length, flags, new), self.limits, False)
        await self.memory.flush(self.context)
        return result

    async def brk(self, address: int) -> int:
        result = await self.memory.set_brk(self.context, address, self.limits)
        await self.memory.flush(self.context)
        return result

    def areas(self) -> list[tuple[int, int, int]]:
        return [(vma.start, vma.end - vma.start, vma.prot) for vma in self.memory.vmas]

    def queued(self) -> list[HostCall]:
        return self.context._calls


class HostFile(File):
    """A file whose content is a host memfd."""

    def __init__(self, flags: int, content: bytes = b"") -> None:
        super().__init__(None, flags)
        self.fd = os.memfd_create("test")
        os.pwrite(self.fd, content, 0)
        self.is_released = False

    def host_descriptor(self, writable: bool) -> int:
        return self.fd

    async def release(self) -> None:
        os.close(self.fd)
        self.is_released = True


@pytest.fixture
async def guest():
    guest = Guest()
    yield guest
    await guest.memory.release()


async def test_mappings_grow_down_from_the_base_and_merge(guest: Guest):
    first = await guest.mmap()
    second = await guest.mmap(length=3 * PAGE - 5)
    assert first == (1 << 40) - PAGE
    assert second == first - 3 * PAGE
    assert guest.areas() == [(second, 4 * PAGE, RW)]


async def test_a_hint_is_followed_where_there_is_room(guest: Guest):
    assert await guest.mmap(0x5000_0123) == 0x5000_0000
    assert await guest.mmap(0x5000_0123) != 0x5000_0000
    assert await guest.mmap(1) == 0x10000


async def test_fixed_replaces_and_noreplace_refuses(guest: Guest):
    start = await guest.mmap(length=3 * PAGE)
    await guest.mmap(start + PAGE, PAGE, abi.PROT_READ, ANON | abi.MAP_FIXED)
    assert [prot for _, _, prot in guest.areas()] == [RW, abi.PROT_READ, RW]
    with pytest.raises(errnos.EEXIST):
        await guest.mmap(start, PAGE, RW, ANON | abi.MAP_FIXED_NOREPLACE)


async def test_32bit_mappings_stay_low(guest: Guest):
    assert await guest.mmap(flags=ANON | abi.MAP_32BIT) < 1 << 31


@pytest.mark.parametrize(("arguments", "error"), [
    ({"length": 0}, errnos.EINVAL),
    ({"length": 1 << 48}, errnos.ENOMEM),
    ({"length": (1 << 64) - 1}, errnos.ENOMEM),
    ({"flags": abi.MAP_ANONYMOUS}, errnos.EINVAL),
    ({"flags": ANON | abi.MAP_FIXED, "address": 0x1001}, errnos.EINVAL),
    ({"flags": ANON | abi.MAP_FIXED, "address": PAGE}, errnos.EPERM),
    ({"flags": ANON | abi.MAP_FIXED, "address": GUEST_ADDRESS_MAX}, errnos.ENOMEM),
    ({"flags": abi.MAP_SHARED | abi.MAP_ANONYMOUS | abi.MAP_GROWSDOWN}, errnos.EINVAL),
])  # fmt: skip
async def test_what_mmap_refuses(guest: Guest, arguments: dict, error: type[Exception]):
    with pytest.raises(error):
        await guest.mmap(**arguments)
    assert not guest.areas()
    assert not guest.queued()


async def test_files_are_mapped_as_they_were_opened(guest: Guest):
    read_only, write_only = HostFile(os.O_RDONLY, b"content"), HostFile(os.O_WRONLY)
    start = await guest.mmap(prot=abi.PROT_READ, flags=abi.MAP_SHARED, file=read_only)
    assert guest.memory.read(start, 7) == b"content"
    with pytest.raises(errnos.EACCES):
        await guest.mmap(flags=abi.MAP_SHARED, file=read_only)
    with pytest.raises(errnos.EACCES):
        await guest.mmap(prot=abi.PROT_READ, flags=abi.MAP_PRIVATE, file=write_only)
    with pytest.raises(errnos.EACCES):
        await guest.memory.mprotect(guest.context, start, PAGE, RW)
    with pytest.raises(errnos.EPERM):
        await guest.mmap(prot=abi.PROT_EXEC, flags=abi.MAP_PRIVATE, file=read_only, no_exec=True)
    with pytest.raises(errnos.ENODEV):
        await guest.mmap(flags=abi.MAP_PRIVATE, file=File(None, os.O_RDONLY))
    await write_only.release()


async def test_a_mapped_file_is_released_with_its_last_page(guest: Guest):
    file = HostFile(os.O_RDWR, b"x" * 3 * PAGE)
    start = await guest.mmap(length=3 * PAGE, flags=abi.MAP_SHARED, file=file)
    await guest.memory.munmap(guest.context, start + PAGE, PAGE)
    assert not file.is_released
    await guest.memory.munmap(guest.context, start, 3 * PAGE)
    assert file.is_released


async def test_mprotect_changes_what_precedes_a_hole(guest: Guest):
    start = await guest.mmap(length=4 * PAGE)
    await guest.memory.munmap(guest.context, start + 2 * PAGE, PAGE)
    with pytest.raises(errnos.ENOMEM):
        await guest.memory.mprotect(guest.context, start, 4 * PAGE, abi.PROT_READ)
    assert [prot for _, _, prot in guest.areas()] == [abi.PROT_READ, RW]


async def test_the_heap_grows_and_shrinks_and_meets_mappings(guest: Guest):
    guest.memory.start_brk = guest.memory.brk = 0x100_0000
    assert await guest.brk(0x100_2345) == 0x100_2345
    assert guest.areas() == [(0x100_0000, 3 * PAGE, RW)]
    assert await guest.brk(0x100_0001) == 0x100_0001
    await guest.mmap(0x110_0000, PAGE, RW, ANON | abi.MAP_FIXED)
    assert await guest.brk(0x110_0001) == 0x100_0001
    assert await guest.brk(0xFF_0000) == 0x100_0001


async def test_limits_bind(guest: Guest):
    guest.limits.set(RLIMIT_AS, 10 * PAGE, 10 * PAGE)
    start = await guest.mmap(length=10 * PAGE)
    with pytest.raises(errnos.ENOMEM):
        await guest.mmap()
    await guest.mmap(start, PAGE, RW, ANON | abi.MAP_FIXED)
    guest.limits.set(RLIMIT_AS, 1 << 40, 1 << 40)
    guest.limits.set(RLIMIT_DATA, 10 * PAGE, 10 * PAGE)
    with pytest.raises(errnos.ENOMEM):
        await guest.mmap()
    await guest.mmap(prot=abi.PROT_READ)
    guest.limits.set(RLIMIT_MEMLOCK, PAGE, PAGE)
    with pytest.raises(errnos.EAGAIN):
        await guest.mmap(length=2 * PAGE, prot=abi.PROT_READ, flags=ANON | abi.MAP_LOCKED, may_lock=False)


async def test_a_refused_host_call_takes_the_change_back(guest: Guest):
    await guest.mmap(0x100_0000, PAGE, RW, ANON | abi.MAP_FIXED)
    await mmap(
        guest.memory, guest.context, Mapping(0x100_0000, 2 * PAGE, 0, ANON | abi.MAP_FIXED), guest.limits)
    guest.context.host_error = errnos.ENOMEM.errno
    assert guest.memory.host_call_failed(guest.context) == -errnos.ENOMEM.errno
    assert guest.areas() == [(0x100_0000, PAGE, RW)]


async def test_a_heap_the_host_refuses_stays_where_it_was(guest: Guest):
    guest.memory.start_brk = guest.memory.brk = 0x100_0000
    await guest.memory.set_brk(guest.context, 0x100_1000, guest.limits)
    guest.context.host_error = errnos.ENOMEM.errno
    assert guest.memory.host_call_failed(guest.context) == 0x100_0000
    assert guest.memory.brk == 0x100_0000


async def test_a_change_the_host_refuses_before_a_handler_runs_is_taken_back_too(
        guest: Guest, monkeypatch: pytest.MonkeyPatch):
    async def refuse() -> list[int]:
        return [-errnos.EAGAIN.errno]

    start = await mmap(guest.memory, guest.context, Mapping(0, PAGE, RW, ANON), guest.limits)
    assert await guest.memory.settle(guest.context, start) == start
    await mmap(guest.memory, guest.context, Mapping(0, PAGE, RW, ANON), guest.limits)
    monkeypatch.setattr(guest.context, "flush", refuse)
    assert await guest.memory.settle(guest.context, 1) == -errnos.EAGAIN.errno
    assert guest.areas() == [(start, PAGE, RW)]


async def test_a_change_of_shared_memory_is_done_before_the_call_returns(guest: Guest):
    guest.memory.users = 2
    await mmap(guest.memory, guest.context, Mapping(0, PAGE, RW, ANON), guest.limits)
    assert not guest.queued()


async def test_a_mapping_grows_in_place_where_it_can_and_else_moves(guest: Guest):
    start = await guest.mmap(0x100_0000, PAGE)
    guest.memory.write(start, b"kept")
    assert await guest.mremap(start, PAGE, 2 * PAGE) == start
    await guest.mmap(start + 2 * PAGE, PAGE, abi.PROT_READ, ANON | abi.MAP_FIXED)
    with pytest.raises(errnos.ENOMEM):
        await guest.mremap(start, 2 * PAGE, 3 * PAGE)
    moved = await guest.mremap(start, 2 * PAGE, 3 * PAGE, abi.MREMAP_MAYMOVE)
    assert moved != start
    assert guest.memory.read(moved, 4) == b"kept"
    assert guest.memory.vmas.find(start) is None


async def test_a_mapping_moves_to_a_fixed_place_and_may_leave_pages_behind(guest: Guest):
    start = await guest.mmap(0x100_0000, 2 * PAGE)
    target = 0x200_0000
    assert await guest.mremap(start, 2 * PAGE, PAGE, abi.MREMAP_MAYMOVE | abi.MREMAP_FIXED, target) == target
    assert guest.areas() == [(target, PAGE, RW)]
    other = await guest.mremap(target, PAGE, PAGE, abi.MREMAP_MAYMOVE | abi.MREMAP_DONTUNMAP)
    assert [start for start, _, _ in guest.areas()] == [target, other]


@pytest.mark.parametrize(("arguments", "error"), [
    ((0x100_0001, PAGE, PAGE), errnos.EINVAL),
    ((0x100_0000, PAGE, 0), errnos.EINVAL),
    ((0x100_0000, PAGE, PAGE, 8), errnos.EINVAL),
    ((0x100_0000, PAGE, PAGE, abi.MREMAP_FIXED), errnos.EINVAL),
    ((0x100_0000, 2 * PAGE, 2 * PAGE, 3, 0x100_1000), errnos.EINVAL),
    ((0x900_0000, PAGE, 2 * PAGE, 1), errnos.EFAULT),
    ((0x100_0000, 3 * PAGE, 4 * PAGE, 1), errnos.EFAULT),
    ((0x100_0000, 0, PAGE, 1), errnos.EINVAL),
])  # fmt: skip
async def test_what_mremap_refuses(guest: Guest, arguments: tuple[int, ...], error: type[Exception]):
    await guest.mmap(0x100_0000, 2 * PAGE, RW, ANON | abi.MAP_FIXED)
    with pytest.raises(error):
        await guest.mremap(*arguments)


async def test_a_stack_grows_to_its_limit_and_no_further(guest: Guest):
    top = 0x2000_0000
    guest.limits.set(RLIMIT_STACK, 1 << 20, 1 << 20)
    guest.memory.map_stack(guest.context, top, 128 << 10, RW)
    assert await guest.memory.handle_fault(guest.context, top - (256 << 10), guest.limits)
    assert not await guest.memory.handle_fault(guest.context, top - (2 << 20), guest.limits)
    assert not await guest.memory.handle_fault(guest.context, top - PAGE, guest.limits)
    assert not await guest.memory.handle_fault(guest.context, 0x5000, guest.limits)
    assert guest.memory.vmas.find(top - (256 << 10)) is guest.memory.vmas.find(top - 1)


async def test_threads_that_fault_in_one_stack_at_once_let_it_grow_once(guest: Guest, monkeypatch):
    carried_out: list[HostCall] = []
    carry_out = FakeAddressSpace.carry_out
    monkeypatch.setattr(FakeAddressSpace, "carry_out",
                        lambda space, call: (carried_out.append(call), carry_out(space, call))[1])
    top = 1 << 39
    await guest.mmap(top - PAGE, PAGE, RW, ANON | abi.MAP_FIXED | abi.MAP_GROWSDOWN)
    guest.memory.users = 3
    faults = [guest.memory.handle_fault(guest.context, top - count * PAGE, guest.limits) for count in (2, 3, 2)]
    async with guest.memory.changing(guest.context):
        waiting = [asyncio.ensure_future(fault) for fault in faults]
        await asyncio.sleep(0)
    assert await asyncio.gather(*waiting) == [True, True, True]
    assert len(carried_out) == 2  # mapping it, and letting it grow: again would wipe what is on it by now
    assert not await guest.memory.handle_fault(guest.context, top - 2 * PAGE, guest.limits)


async def test_a_protection_is_judged_by_what_is_mapped_when_its_turn_comes(guest: Guest):
    start = await guest.mmap(length=PAGE)
    guest.memory.users = 2
    async with guest.memory.changing(guest.context):
        protecting = asyncio.ensure_future(guest.memory.mprotect(guest.context, start, PAGE, RW))
        await asyncio.sleep(0)
        guest.memory.map_area(guest.context, Vma(start, start + PAGE, abi.PROT_READ, ANON, may=abi.PROT_READ))
    with pytest.raises(errnos.EACCES):
        await protecting


async def test_a_heap_moved_by_two_threads_ends_where_the_last_one_says(guest: Guest):
    guest.memory.start_brk = guest.memory.brk = 0x500000
    guest.memory.users = 2
    async with guest.memory.changing(guest.context):
        moving = [asyncio.ensure_future(guest.brk(0x500000 + count * PAGE)) for count in (4, 8)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*moving) == [0x504000, 0x508000]
    assert guest.areas() == [(0x500000, 8 * PAGE, RW)]


async def test_a_child_gets_the_same_areas_but_no_locks(guest: Guest):
    start = await guest.mmap(length=2 * PAGE, flags=ANON | abi.MAP_LOCKED)
    await advice.madvise(guest.memory, guest.context, start, PAGE, abi.MADV_DONTFORK)
    file = HostFile(os.O_RDONLY)
    await guest.mmap(prot=abi.PROT_READ, flags=abi.MAP_PRIVATE, file=file)
    child = guest.memory.fork(guest.context)
    assert child.total_vm == 2 * PAGE
    assert not any(vma.flags & VM_LOCKED for vma in child.vmas)
    assert file.references == 2
    await child.release()
    assert file.references == 1


async def test_words_of_shared_memory_have_a_name_across_processes(guest: Guest):
    shared = await guest.mmap(length=2 * PAGE, flags=abi.MAP_SHARED | abi.MAP_ANONYMOUS)
    private = await guest.mmap()
    child = guest.memory.fork(guest.context)
    assert guest.memory.shared_key(private) is None
    assert guest.memory.shared_key(shared + PAGE + 8) == child.shared_key(shared + PAGE + 8) is not None
    await child.release()


async def test_locking_is_accounted_for(guest: Guest):
    guest.limits.set(RLIMIT_MEMLOCK, 2 * PAGE, 2 * PAGE)
    start = await guest.mmap(length=4 * PAGE)
    memory, context, limits = guest.memory, guest.context, guest.limits
    await advice.mlock(memory, context, start + 1, PAGE, False, limits, False)
    assert memory.locked_bytes == 2 * PAGE
    with pytest.raises(errnos.ENOMEM):
        await advice.mlock(memory, context, start, 4 * PAGE, False, limits, False)
    await advice.munlock(memory, context, start, PAGE)
    assert memory.locked_bytes == PAGE
    await advice.munlockall(memory, context)
    assert memory.locked_bytes == 0


async def test_advice_is_checked_against_what_is_mapped(guest: Guest):
    start = await guest.mmap(length=2 * PAGE)
    memory, context = guest.memory, guest.context
    for wrong, error in ((12345, errnos.EINVAL), (abi.MADV_HWPOISON, errnos.EPERM), (abi.MADV_REMOVE, errnos.EINVAL)):
        with pytest.raises(error):
            await advice.madvise(memory, context, start, PAGE, wrong)
    with pytest.raises(errnos.ENOMEM):
        await advice.madvise(memory, context, start - PAGE, 2 * PAGE, abi.MADV_DONTNEED)
    assert [call.arguments for call in guest.queued()] == [(start, PAGE, abi.MADV_DONTNEED)]


async def test_strings_and_vectors_are_read_up_to_their_ends(guest: Guest):
    memory = guest.memory
    start = await guest.mmap(0x100_0000, 2 * PAGE)
    memory.write(start + 2 * PAGE - 6, b"hello\0")
    assert memory.read_string(start + 2 * PAGE - 6) == b"hello"
    memory.write(start + 2 * PAGE - 1, b"!")
    with pytest.raises(errnos.EFAULT):
        memory.read_string(start + 2 * PAGE - 6)
    memory.write(start, b"a" * 5000)
    with pytest.raises(errnos.ENAMETOOLONG):
        memory.read_path(start)
    assert memory.read_string(start, 6000) == b"a" * 5000
    memory.write(start, struct.pack("<4Q", 1, 2, 3, 0))
    assert memory.read_pointer_array(start, 10) == [1, 2, 3]
    assert len(memory.read_pointer_array(start, 1)) > 1
    assert memory.read_iovec(start, 1) == [(1, 2)]
    with pytest.raises(errnos.EINVAL):
        memory.read_iovec(start, 1025)
    memory.write_i32(start, -2)
    assert memory.read_u32(start) == 0xFFFFFFFE
    assert memory.read_i32(start) == -2


def test_layouts_are_within_guest_addresses_and_differ():
    class Repeatable:
        def __init__(self, value: int) -> None:
            self.value = value

        def below(self, limit: int) -> int:
            return self.value % limit

        def bytes(self, count: int) -> bytes:
            return bytes(count)

    for value in (0, 12345, (1 << 64) - 1):
        layout = choose_layout(Repeatable(value), 8 << 20)  # type: ignore[arg-type]
        assert 0 < layout.program_base + layout.brk_offset < layout.mmap_base < layout.stack_top < GUEST_ADDRESS_MAX
    fixed = choose_layout(Repeatable(5), 8 << 20, randomize=False)  # type: ignore[arg-type]
    assert fixed == choose_layout(Repeatable(9), 8 << 20, randomize=False)  # type: ignore[arg-type]


def test_a_stack_holds_arguments_environment_and_auxiliary_vector():
    top = 0x7000_0000
    stack = build_stack(top, 48, [b"a", b"bc"], [b"X=1"], b"/bin/a", b"R" * 16, [(6, PAGE)])
    assert stack.pointer % 16 == 0
    assert stack.pointer + len(stack.content) == top

    def string(address: int) -> bytes:
        return stack.content[address - stack.pointer :].split(b"\0")[0]

    argc, arg0, arg1, end, env0, env_end = struct.unpack_from("<6Q", stack.content)
    assert (argc, string(arg0), string(arg1), end, string(env0), env_end) == (2, b"a", b"bc", 0, b"X=1", 0)
    auxv = dict(struct.iter_unpack("<QQ", stack.auxv))
    assert stack.content[48 : 48 + len(stack.auxv)] == stack.auxv
    assert string(auxv[31]) == b"/bin/a"
    assert string(auxv[15]) == b"x86_64"
    assert stack.content[auxv[25] - stack.pointer :][:16] == b"R" * 16


async def test_a_debugger_reaches_protected_memory(guest: Guest):
    start = await guest.mmap(length=2 * PAGE, prot=abi.PROT_READ)
    await guest.mmap(start + PAGE, PAGE, abi.PROT_NONE, ANON | abi.MAP_FIXED)
    memory, context = guest.memory, guest.context
    await write_forced(memory, context, start + PAGE - 2, b"data")
    assert await read_forced(memory, context, start + PAGE - 2, 4) == b"data"
    for address in (start, start + PAGE):
        with pytest.raises(errnos.EFAULT):
            memory.write(address, b"x")
    with pytest.raises(errnos.EFAULT):
        memory.read(start + PAGE, 1)
    with pytest.raises(errnos.EIO):
        await read_forced(memory, context, start + PAGE, 2 * PAGE)
    shared = await guest.mmap(prot=abi.PROT_READ, flags=abi.MAP_SHARED | abi.MAP_ANONYMOUS)
    with pytest.raises(errnos.EIO):
        await write_forced(memory, context, shared, b"x")
