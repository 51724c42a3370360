"""The systrap platform: pumps traps from slots and the doorbell, and makes guest processes and threads.

Hot, a trap is seen by spinning on the slots that were answered last; cold, by a notification on the seccomp
listener, an ordinary reader of the loop. Which of the two is decided in ``spinning.py``.

Births (fork, clone) are one at a time, so a thread nobody knows can only be the one being born.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.gate import OpenGate, RunQueue
from asyncsentry.platforms._native import ffi, lib
from asyncsentry.platforms.base import HostCall
from asyncsentry.platforms.hostmemory import copy_buffer
from asyncsentry.platforms.systrap import filter as seccomp_filter
from asyncsentry.platforms.systrap.birth import WAIT_ALL, Birth, is_in_session, kill_strays
from asyncsentry.platforms.systrap.context import SystrapContext, as_lent, lend
from asyncsentry.platforms.systrap.slots import SLOT_SIZE, ChunkPool
from asyncsentry.platforms.systrap.space import SystrapSpace
from asyncsentry.platforms.systrap.spinning import SpinPolicy
from asyncsentry.platforms.systrap.watchdog import Watchdog

if TYPE_CHECKING:
    from asyncsentry.platforms.base import Context

SYS_MMAP, SYS_CLOSE, SYS_CLONE, SYS_EXIT = 9, 3, 56, 60
CLONE_PARENT, CLONE_THREAD_FLAGS = 0x8000, 0x00000100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000
NOTHING, FOR_PYTHON, DEAD = -1, -2, -3

TRAPS_PER_TURN = 64
"""After so many traps in a row the event loop gets a turn."""
SENTRY_SPIN_US = 20
STUB_SPIN_US = 20
WAKE_SPIN_US = 100
"""A guest woken on another CPU needs some 40 µs to get there (an idle vCPU has to be kicked)."""
SPARE_PROCESSES = 2
RESERVED_DESCRIPTORS = 5
BIRTH_LIMIT_S = 20
"""A parent that has not borne by then, or a child that has not arrived, holds up all others on purpose."""


class SystrapPlatform:
    """Traps and processes of one sandbox."""

    name = "systrap"

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.hub = lib.hub_new()
        if self.hub == ffi.NULL:
            raise MemoryError("no memory for the slots' records")
        self.run_queue: RunQueue | None = None
        """Guest threads to step between traps; set by the kernel."""
        self.on_failure: Callable[[BaseException], None] = _raise
        self.stub_spin_us = 0
        self._policy = SpinPolicy(len(os.sched_getaffinity(0)))
        self._spin_cycles = SENTRY_SPIN_US * lib.hub_cycles_per_us(self.hub)
        self._wake_cycles = WAKE_SPIN_US * lib.hub_cycles_per_us(self.hub)
        self._pump_scheduled = False
        self._buffer = copy_buffer()
        self._event = ffi.new("struct hub_event *")
        self._chunks = ChunkPool(self.hub)
        self._contexts: dict[int, SystrapContext] = {}
        """By slot."""
        self._spaces: dict[int, SystrapSpace] = {}
        """By pidfd."""
        self._birth_lock = asyncio.Lock()
        self._birth: Birth | None = None
        self._reserve: list[int] = []
        """Descriptors that a birth holds for what must not fail later."""
        self._leaving: set[int] = set()
        """Tids of threads that were told to exit."""
        self._watchdog = Watchdog(self)
        self._spare: list[SystrapContext] = []
        self._refill: asyncio.Task[None] | None = None
        self._zygote: SystrapContext
        self._zygote_pid = 0
        """The zygote's process, by which the host names the session all guest processes are in."""
        self._listener = -1
        self._vdso = (0, 0)
        self._deaths = select.epoll()
        self._closed = False

    # Start and end ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts the zygote and takes its listener."""
        chunk = self._chunks.acquire(0)
        program = seccomp_filter.build(lib.STUB_BASE, lib.STUB_TEXT_SIZE, lib.SLOTS_BASE, lib.DOORBELL_NR)
        header = (len(program) // 8).to_bytes(16, "little")
        os.pwrite(chunk.fd, header + program, SLOT_SIZE)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        stub_fd = os.memfd_create("asyncsentry-stub", os.MFD_CLOEXEC)
        try:
            os.write(stub_fd, ffi.buffer(lib.stub_image, lib.stub_image_size)[:])
            pid = lib.spawn_stub(stub_fd, chunk.fd, theirs.fileno(), 0)
            if pid < 0:
                raise OSError(-pid, "cannot start the zygote")
            theirs.close()
            space = SystrapSpace(self._buffer, chunk, (0, 0))
            self._zygote_pid = pid
            self._watch(space, pid)
            self._zygote = self._register(SystrapContext(self, space, chunk.first), pid)
            await self.loop.sock_recv(ours, 1)  # end of file: it is ready, or dead
        finally:
            ours.close()
            theirs.close()
            os.close(stub_fd)
        self._deaths_watch()
        self._take_listener(space)
        self._vdso = _find_vdso(pid)
        await self._zygote.wait_trap()
        if space.is_dead or lib.hub_take_template(self.hub, self._zygote.slot):
            raise errnos.SentryBug("the zygote did not come up")
        self._zygote.queue_host_call(HostCall(SYS_CLOSE, (lib.LISTENER_FD,)))
        await self._zygote.flush()
        self._start_refill()

    def _take_listener(self, space: SystrapSpace) -> None:
        self._listener = lib.pidfd_getfd_(space.pidfd, lib.LISTENER_FD)
        if self._listener < 0:
            raise errnos.SentryBug(f"cannot take the seccomp listener: {os.strerror(-self._listener)}")
        lib.hub_listen(self.hub, self._listener)
        lib.hub_hand_over(self.hub, 1)  # older hosts cannot: slower, no less right
        self.loop.add_reader(self._listener, self._guarded, self._on_bell)

    async def close(self) -> None:
        """Ends every host process and gives back every descriptor."""
        if self._closed:
            return
        self._closed = True
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.gather(self._refill, return_exceptions=True)
        if self._listener >= 0:
            self.loop.remove_reader(self._listener)
        self.loop.remove_reader(self._deaths.fileno())
        for space in list(self._spaces.values()):
            self.kill(space)
        self._watchdog.close()
        session = self._zygote_pid
        for space in list(self._spaces.values()):
            os.waitpid(space.host_pid, WAIT_ALL)  # noqa: ASYNC222 - just killed: it takes microseconds
            self._buried(space)
        if session:
            kill_strays(session, ())
        if self._listener >= 0:
            os.close(self._listener)
        self._deaths.close()
        self._chunks.close()
        lib.hub_free(self.hub)

    # The pump --------------------------------------------------------------------------------------

    def _guarded(self, step: Callable[[], None]) -> None:
        """Runs a step of the platform's own, outside any guest thread's task: a bug there stops the sandbox."""
        try:
            step()
        except Exception as error:
            self._abandon()
            self.on_failure(error)

    def _abandon(self) -> None:
        """Ends all guests and whoever waits for one: nobody will step them any more."""
        for descriptor in (self._listener, self._deaths.fileno()):
            self.loop.remove_reader(descriptor)
        for space in self._spaces.values():
            self.kill(space)
            space.is_dead = True
        for context in self._contexts.values():
            self.loop.call_soon(context.gate.fire)

    def _pump(self) -> None:
        """Steps guest threads as long as they trap at once."""
        self._pump_scheduled = False
        if self._closed:
            return
        hub, queue, contexts, wake_cycles = self.hub, self.run_queue, self._contexts, self._wake_cycles
        hits = misses = 0
        steps = TRAPS_PER_TURN
        while steps > 0:
            steps -= 1
            if queue is not None and queue.ready:
                steps -= queue.run(steps)
                cycles = 0
            else:
                cycles = self._spin_cycles
            slot = lib.hub_spin(hub, cycles, wake_cycles)
            if slot >= 0:
                hits += 1
                context = contexts.get(slot)
                if context is not None:
                    context.taken()
                else:
                    self._step(slot)
            elif cycles:
                misses = 1
                break
        self._settle(hits, misses)
        if not misses:
            self._schedule_pump()
            return
        slot = lib.hub_sleep(self.hub)
        if slot >= 0:
            self._step(slot)
            self._schedule_pump()

    def _settle(self, hits: int, misses: int) -> None:
        policy = self._policy
        policy.settle(hits, lib.hub_take_wakes(self.hub), misses)
        if not policy.is_hot:
            self._cool()

    def _cool(self) -> None:
        """Goes back to the doorbell, where a bell and its answer hand the processor over."""
        if self.stub_spin_us:
            self._policy.is_hot = False
            self.stub_spin_us = 0
            lib.hub_hand_over(self.hub, 1)

    def _step(self, slot: int) -> None:
        context = self._contexts.get(slot)
        if context is not None:
            context.taken()
            if context.is_trapped:
                lib.hub_park(self.hub, slot)
            return
        for space in tuple(self._spaces.values()):  # a thread that was told to exit and did not
            if any(slot == leaving for leaving, _ in space.leaving):
                self.kill(space)

    def _schedule_pump(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self.loop.call_soon(self._guarded, self._pump)

    def _on_bell(self) -> None:
        """Reads the doorbell until it is silent."""
        bells = 0
        for _ in range(TRAPS_PER_TURN):
            found = lib.hub_doorbell(self.hub, self._event)
            if found >= 0:
                bells += 1
                self._step(found)
            elif found == FOR_PYTHON:
                self._on_event()
            elif found == NOTHING:
                break
            else:
                self.loop.remove_reader(self._listener)
                break
        if self.stub_spin_us:
            self._schedule_pump()
        elif self._policy.rang(bells):
            self.stub_spin_us = STUB_SPIN_US
            lib.hub_hand_over(self.hub, 0)
            lib.hub_take_wakes(self.hub)

    def _on_event(self) -> None:
        """Judges a host call that the filter put to us; whoever asks, the answer is no unless we expect it."""
        event = self._event
        context = self._contexts.get(event.slot)
        if event.number == SYS_EXIT:
            allowed = event.tid in self._leaving
            self._leaving.discard(event.tid)  # the host may give the number to another thread, which may not exit
            lib.hub_reply(self.hub, event.id, 0 if allowed else errnos.EPERM.errno, allowed)
        elif context is None and not self._is_newborn(event.tid):
            lib.hub_reply(self.hub, event.id, errnos.ENOSYS.errno, 0)
        elif event.number == lib.DOORBELL_NR and context is None:
            self._arrived(event.tid, event.id)
        elif event.number == SYS_CLONE and (birth := self._birth) is not None and birth.parent is context:
            allowed = event.arguments[0] == birth.flags and not birth.is_allowed
            birth.is_allowed = birth.is_allowed or allowed
            lib.hub_reply(self.hub, event.id, 0 if allowed else errnos.EPERM.errno, allowed)
        elif event.number == SYS_MMAP and (lender := context or (self._birth and self._birth.child)):
            self._lend(lender, event.id, tuple(ffi.unpack(event.arguments, 6)))
        else:
            lib.hub_reply(self.hub, event.id, errnos.EPERM.errno, 0)

    def _lend(self, context: SystrapContext, notification: int, arguments: tuple[int, ...]) -> None:
        for _ in range(len(context.lent)):
            call, descriptor = context.lent.popleft()
            if as_lent(call.arguments) == arguments:
                error = lib.hub_lend(self.hub, notification, descriptor, arguments[4])
                os.close(descriptor)
                lib.hub_reply(self.hub, notification, -error, not error)
                return
            os.close(descriptor)
        lib.hub_reply(self.hub, notification, errnos.EPERM.errno, 0)

    # Births ----------------------------------------------------------------------------------------

    async def new_address_space(self) -> SystrapContext:
        """Gives a trapped context in a process that holds nothing but the stub."""
        while self._spare:
            context = self._spare.pop()
            self._start_refill()
            if not context.space.is_dead:
                return context
            await context.destroy()
        context = await self._fork_from(self._zygote)
        lib.slot_build_frame(self.hub, context.slot)
        return context

    def _start_refill(self) -> None:
        if self._refill is None or self._refill.done():
            self._refill = self.loop.create_task(self._fill_pool())

    async def _fill_pool(self) -> None:
        while len(self._spare) < SPARE_PROCESSES:
            context = await self._fork_from(self._zygote)
            lib.slot_build_frame(self.hub, context.slot)
            self._spare.append(context)

    async def fork(self, context: Context) -> SystrapContext:
        """Copies a trapped context's process by the host's fork."""
        assert isinstance(context, SystrapContext)
        child = await self._fork_from(context)
        lib.slot_copy_frame(self.hub, context.slot, child.slot)
        child.fs_base, child.gs_base = context.fs_base, context.gs_base
        return child

    async def _fork_from(self, parent: SystrapContext) -> SystrapContext:
        async with self._birth_lock:
            try:
                self._reserve.extend(lend(self._listener) for _ in range(RESERVED_DESCRIPTORS))
                chunk = self._chunks.acquire(0)
                space = SystrapSpace(self._buffer, chunk, self._vdso)
                child = SystrapContext(self, space, chunk.first)
                mapping = HostCall(SYS_MMAP, (lib.SLOTS_BASE, lib.CHUNK_SIZE, 3, 0x11, 0, 0))
                os.close(self._reserve.pop())  # so that this cannot fail
                child.lent.append((mapping, lend(chunk.fd)))
                return await self._bear(parent, child, lib.CALL_FORK, CLONE_PARENT, 0)
            except errnos.ENFILE as error:
                raise errnos.EAGAIN(str(error)) from error
            finally:
                self._free_reserve()

    def _free_reserve(self) -> None:
        """Gives back the descriptors kept free, so that a process once born can be watched or found and killed."""
        while self._reserve:
            os.close(self._reserve.pop())

    async def clone(self, context: Context) -> SystrapContext:
        """Makes a second thread in a trapped context's process."""
        assert isinstance(context, SystrapContext)
        async with self._birth_lock:
            slot = await self._free_slot(context)
            child = SystrapContext(self, context.space, slot)
            stack = _guest_address(context.space, slot) + lib.NEWBORN_STACK_OFFSET
            await self._bear(context, child, lib.CALL_CLONE, CLONE_THREAD_FLAGS, stack)
        lib.slot_copy_frame(self.hub, context.slot, child.slot)
        child.fs_base, child.gs_base = context.fs_base, context.gs_base
        return child

    async def _free_slot(self, context: SystrapContext) -> int:
        space = context.space
        for entry in list(space.leaving):
            if lib.thread_kill(space.host_pid, entry[1], 0):
                space.leaving.remove(entry)
                self._leaving.discard(entry[1])
                lib.hub_unbind(self.hub, entry[0])
                space.free_slots.append(entry[0])
        if not space.free_slots:
            chunk = self._chunks.acquire(len(space.chunks))
            space.chunks.append(chunk)
            mapping = HostCall(SYS_MMAP, (chunk.guest_base, lib.CHUNK_SIZE, 3, 0x11, 0, 0), chunk.fd)
            context.queue_host_call(mapping)
            if (await context.flush())[-1] < 0:
                raise errnos.EAGAIN("no room for more thread slots")
            space.free_slots.extend(range(chunk.first + lib.SLOTS_PER_CHUNK - 1, chunk.first - 1, -1))
        return space.free_slots.pop()

    async def _bear(self, parent: SystrapContext, child: SystrapContext, call: int, flags: int, stack: int
                    ) -> SystrapContext:
        lib.slot_reset(self.hub, child.slot)
        self._birth = birth = Birth(parent, child, flags)
        timer = self.loop.call_later(BIRTH_LIMIT_S, self._is_late, birth)
        self._cool()
        lib.hub_tie(self.hub, parent.slot, 1)
        try:
            host_id = await self._make(birth, call, stack)
            await child.wait_newborn()
            if call == lib.CALL_FORK and child.host_tid != host_id:
                raise errnos.ESRCH("a guest named another child than it has borne")
        except BaseException:
            self._stillborn(birth)
            raise
        finally:
            timer.cancel()
            self._birth = None
            lib.hub_tie(self.hub, parent.slot, 0)
        lib.hub_tie(self.hub, child.slot, 0)
        return child

    async def _make(self, birth: Birth, call: int, stack: int) -> int:
        """Has the parent make the host thread or process; gives its number. EAGAIN if the host refuses.

        Once asked for, it is seen through even if we are cancelled: a process nobody has noted nobody would reap.
        """
        parent = birth.parent
        parent._add_call(call, [birth.flags, stack])
        try:
            host_id = (await parent.flush())[-1]
        except asyncio.CancelledError:
            self._note(birth, call, (await parent.results())[-1])
            raise
        self._note(birth, call, host_id)
        return host_id

    def _note(self, birth: Birth, call: int, host_id: int) -> None:
        """Takes note of what a parent says it has made: a process only if the host kernel agrees."""
        if host_id < 0:
            raise errnos.EAGAIN(f"the host made no guest thread: {os.strerror(-host_id)}")
        if call != lib.CALL_FORK:
            return
        self._free_reserve()
        if host_id in self._host_pids() or not is_in_session(host_id, self._zygote_pid):
            self.kill(birth.parent.space)
            raise errnos.ESRCH("a guest named a child that is not its own")
        self._watch(birth.child.space, host_id)

    def _is_late(self, birth: Birth) -> None:
        """Ends a birth that takes too long by killing whoever it waits for."""
        if birth.child.space.pidfd >= 0:
            self.kill(birth.child.space)
        elif birth.parent is not self._zygote:
            self.kill(birth.parent.space)

    def _host_pids(self) -> set[int]:
        return {space.host_pid for space in self._spaces.values()}

    def _is_newborn(self, tid: int) -> bool:
        """Whether a thread nobody knows is the one being born, not one that should have exited long ago."""
        birth = self._birth
        if birth is None or birth.child.host_tid:
            return False
        if birth.flags != CLONE_PARENT:
            return not lib.thread_kill(birth.parent.space.host_pid, tid, 0)
        is_leader = not lib.thread_kill(tid, tid, 0)
        return is_leader and all(
            space.host_pid != tid or space is birth.child.space for space in self._spaces.values())

    def _arrived(self, tid: int, notification: int) -> None:
        """The thread being born rings for the first time."""
        assert self._birth is not None
        child = self._birth.child
        self._register(child, tid, notification)
        child.taken()

    def _register(self, context: SystrapContext, tid: int, notification: int = 0) -> SystrapContext:
        context.host_tid = tid
        self._contexts[context.slot] = context
        if notification:
            lib.hub_adopt(self.hub, context.slot, tid, notification)
        else:
            lib.hub_bind(self.hub, context.slot, tid)
        return context

    # Deaths ----------------------------------------------------------------------------------------

    def _watch(self, space: SystrapSpace, pid: int) -> None:
        space.host_pid = space.memory_tid = pid
        space.pidfd = lib.pidfd_open_(pid)
        if space.pidfd < 0:
            raise errnos.EAGAIN(f"no pidfd for a guest process: {os.strerror(-space.pidfd)}")
        self._spaces[space.pidfd] = space
        self._deaths.register(space.pidfd, select.EPOLLIN)

    def _deaths_watch(self) -> None:
        self.loop.add_reader(self._deaths.fileno(), self._guarded, self._on_death)

    def _on_death(self) -> None:
        for pidfd, _ in self._deaths.poll(0):
            space = self._spaces[pidfd]
            os.waitpid(space.host_pid, os.WNOHANG | WAIT_ALL)
            self._buried(space)
            if space.host_pid == self._zygote_pid:
                raise errnos.SentryBug("the zygote has died: no guest process can be made any more")

    def _buried(self, space: SystrapSpace) -> None:
        space.is_dead = True
        space.memory_tid = 0  # the host may give the number to a stranger
        self._deaths.unregister(space.pidfd)
        os.close(space.pidfd)
        del self._spaces[space.pidfd]
        for slot in [s for s, context in self._contexts.items() if context.space is space]:
            context = self._contexts.pop(slot, None)
            if context is None:  # one that was woken here has ended another
                continue
            lib.hub_unbind(self.hub, slot)
            gate, context.gate = context.gate, OpenGate(self.loop)  # it may only be about to wait
            if not self._closed:
                gate.fire()
        for slot, tid in space.leaving:
            self._leaving.discard(tid)
            lib.hub_unbind(self.hub, slot)
        self.release_slots(space)
        if not space.died.done():
            space.died.set_result(None)

    def release_slots(self, space: SystrapSpace) -> None:
        """Gives the slots of a dead process back once no context looks into them any more."""
        if space.is_dead and not space.contexts:
            while space.chunks:
                self._chunks.release(space.chunks.pop())

    def _stillborn(self, birth: Birth) -> None:
        """Takes a birth back: a process it has made, known or not, must go before the next birth."""
        child = birth.child
        child._drop_lent()
        child.space.contexts.discard(child)
        if child.space is birth.parent.space:
            if not child.host_tid:
                child.space.free_slots.append(child.slot)
            return
        self._free_reserve()
        if birth.is_allowed:
            kill_strays(self._zygote_pid, self._host_pids())
        if child.space.pidfd >= 0:
            self.kill(child.space)
        else:
            if child.host_tid:  # it has come, though its parent denies it
                del self._contexts[child.slot]
                lib.hub_unbind(self.hub, child.slot)
            self._chunks.release(child.space.chunks[0])

    def expect_trap(self, context: SystrapContext) -> None:
        """Makes sure that a thread which was interrupted traps, or dies."""
        self._watchdog.expect(context)

    def kill(self, space: SystrapSpace) -> None:
        """Kills a guest process; its death is noticed later."""
        if not space.is_dead:
            signal.pidfd_send_signal(space.pidfd, signal.SIGKILL)

    def retire(self, context: SystrapContext) -> None:
        """Forgets a thread that is about to exit; its slot is free once the host thread is gone."""
        self._contexts.pop(context.slot, None)  # its tid stays bound: it may be on its way to the bell
        context.space.leaving.append((context.slot, context.host_tid))
        self._leaving.add(context.host_tid)

    def vdso(self) -> tuple[int, int]:
        """Gives where the host's vDSO lies in every guest process."""
        return self._vdso


def _raise(error: BaseException) -> None:
    raise error


def _guest_address(space: SystrapSpace, slot: int) -> int:
    for chunk in space.chunks:
        if chunk.first <= slot < chunk.first + lib.SLOTS_PER_CHUNK:
            return chunk.guest_base + (slot - chunk.first) * SLOT_SIZE
    raise errnos.SentryBug(f"slot {slot} is in no chunk of its process")


def _find_vdso(pid: int) -> tuple[int, int]:
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            if line.endswith("[vdso]\n"):
                start, end = line.split()[0].split("-")
                return int(start, 16), int(end, 16) - int(start, 16)
    return 0, 0
