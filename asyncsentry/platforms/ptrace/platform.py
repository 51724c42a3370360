"""The ptrace platform: learns of stops, and makes traced processes and threads.

Who has stopped is told by a helper thread that only looks (waitid(2) with WNOWAIT); taking the stop, and every
ptrace request, is done by the loop's thread, which is the tracer. All tracees share a process group of
their own, so other children of this program are never waited for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ptrace.binding import func

from asyncsentry import errnos
from asyncsentry.gate import RunQueue
from asyncsentry.platforms._native import ffi, lib
from asyncsentry.platforms.base import PAGE_SIZE
from asyncsentry.platforms.hostmemory import copy_buffer
from asyncsentry.platforms.ptrace.context import SCRATCH, PtraceContext, PtraceSpace
from asyncsentry.platforms.ptrace.tracee import MASK64, OPTIONS, WAIT_ALL, Gone, Tracee

if TYPE_CHECKING:
    from asyncsentry.platforms.base import Context

SYS_MMAP, SYS_MUNMAP, SYS_CAPSET, SYS_PRCTL, SYS_CLOSE = 9, 11, 126, 157, 3
CLONE_PARENT, CLONE_THREAD_FLAGS = 0x8000, 0x00000100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000
PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522


class PtracePlatform:
    """Traced processes of one sandbox."""

    name = "ptrace"

    def __init__(self) -> None:
        self.run_queue: RunQueue | None = None
        self.on_failure: Callable[[BaseException], None] = _raise
        self.socket, self._guest_socket = socket.socketpair()
        self._buffer = copy_buffer()
        self._loop = asyncio.get_running_loop()
        self._contexts: dict[int, PtraceContext] = {}
        """By host tid."""
        self._vdso = (0, 0)
        self._zygote: PtraceContext
        self._watcher: threading.Thread | None = None
        self._looked = threading.Event()
        self._closed = False
        self._group = 0
        """The process group of all guest processes."""

    async def start(self) -> None:
        """Starts the stub, stopped before its first instruction, and clears its address space."""
        stub_fd = os.memfd_create("asyncsentry-stub", os.MFD_CLOEXEC)
        try:
            os.write(stub_fd, ffi.buffer(lib.stub_image, lib.stub_image_size)[:])
            pid = lib.spawn_stub(stub_fd, self._guest_socket.fileno(), self._guest_socket.fileno(), 1)
        finally:
            os.close(stub_fd)
        if pid < 0:
            raise OSError(-pid, "cannot start a traced process")
        tracee = Tracee(pid)
        try:
            tracee.wait()
            tracee.request(func.PTRACE_SETOPTIONS, 0, OPTIONS)
        except Gone as error:
            raise errnos.SentryBug(f"the traced process did not come up: {error}") from error
        tracee.fetch()
        self._vdso = _clear(tracee)
        space = PtraceSpace(self._buffer, self._vdso, pid)
        self._zygote = PtraceContext(self, space, pid)
        self._zygote.tracee.fetch()
        _drop_privileges(self._zygote)
        self._group = os.getpgid(pid)
        self._watcher = threading.Thread(target=self._watch, args=(self._group,), daemon=True)
        self._watcher.start()

    # Stops -----------------------------------------------------------------------------------------

    def _watch(self, group: int) -> None:
        """The helper thread: says that somebody has stopped, and waits until that was looked at."""
        while True:
            try:
                info = os.waitid(os.P_PGID, group, os.WEXITED | os.WSTOPPED | os.WNOWAIT | WAIT_ALL)
                if info is None:
                    continue
                self._looked.clear()
                self._loop.call_soon_threadsafe(self._on_change, info.si_pid)
            except (ChildProcessError, RuntimeError):  # nobody left, or the loop is closed
                return
            self._looked.wait()

    def _on_change(self, tid: int) -> None:
        try:
            self._take_change(tid)
        except Exception as error:
            self.on_failure(error)

    def _take_change(self, tid: int) -> None:
        try:
            found, status = os.waitpid(tid, os.WNOHANG | WAIT_ALL)
        except ChildProcessError:
            found, status = 0, 0
        self._looked.set()
        context = self._contexts.get(tid)
        if not found or context is None:
            return
        if os.WIFSTOPPED(status):
            context.stopped(status)
        elif tid == context.space.host_pid or os.WIFSIGNALED(status):
            self.lost(context.space)
            del self._contexts[tid]

    def lost(self, space: PtraceSpace) -> None:
        """Notes that a guest process is dead."""
        space.is_dead = True
        space.memory_tid = 0  # the host may give the number to a stranger
        for context in list(self._contexts.values()):
            if context.space is space:
                self._loop.call_soon(context.gate.fire)

    # Births and deaths -----------------------------------------------------------------------------

    async def new_address_space(self) -> PtraceContext:
        """Forks the cleared process."""
        return self._bear(self._zygote, None)

    async def fork(self, context: Context) -> PtraceContext:
        """Copies a trapped context's process by the host's fork."""
        assert isinstance(context, PtraceContext)
        return self._bear(context, None)

    async def clone(self, context: Context) -> PtraceContext:
        """Makes a second thread in a trapped context's process."""
        assert isinstance(context, PtraceContext)
        return self._bear(context, context.space)

    def _bear(self, parent: PtraceContext, space: PtraceSpace | None) -> PtraceContext:
        try:
            if space is None:
                tid = parent.tracee.bear(CLONE_PARENT | signal.SIGCHLD, 0)
                space = PtraceSpace(self._buffer, self._vdso, tid)
            else:
                tid = parent.tracee.bear(CLONE_THREAD_FLAGS, 0)
        except Gone as error:
            self.lost(parent.space)
            raise errnos.EAGAIN(f"no guest thread: {error}") from error
        child = PtraceContext(self, space, tid)
        child.tracee.fetch()
        ours, theirs = child.tracee.registers, parent.tracee.registers
        for name, _ in type(theirs)._fields_:
            setattr(ours, name, getattr(theirs, name))
        child.tracee.changed()
        child._kind = parent._kind
        child.number = parent.number
        self._contexts[tid] = child
        return child

    def retire(self, context: PtraceContext) -> None:
        """Ends a stopped thread that nobody needs any more, and with the last one its process."""
        space = context.space
        if space.is_dead:
            self._contexts.pop(context.host_tid, None)
            return
        if not space.contexts:
            os.kill(space.host_pid, signal.SIGKILL)
            self._contexts[space.host_pid] = context  # until its end is seen
            return
        if space.memory_tid == context.host_tid:
            space.memory_tid = next(iter(space.contexts)).host_tid
        try:
            context.tracee.leave()
        except Gone:
            pass
        if context.host_tid != space.host_pid:
            self._contexts.pop(context.host_tid, None)

    async def close(self) -> None:
        """Kills all guest processes and waits until they are gone."""
        if self._closed:
            return
        self._closed = True
        pids = {context.space.host_pid for context in self._contexts.values() if not context.space.is_dead}
        if hasattr(self, "_zygote"):
            pids.add(self._zygote.host_tid)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if self._group:
            _reap_all(self._group)
        self._looked.set()
        if self._watcher is not None:
            await asyncio.to_thread(self._watcher.join)
        self.socket.close()
        self._guest_socket.close()

    def vdso(self) -> tuple[int, int]:
        """Gives where the host's vDSO lies in every guest process."""
        return self._vdso


def _reap_all(group: int) -> None:
    """Waits until nobody of a killed process group is left; a leader's end is told after those of its threads."""
    while True:
        try:
            os.waitpid(-group, WAIT_ALL)
        except ChildProcessError:
            return


def _clear(tracee: Tracee) -> tuple[int, int]:
    """Unmaps what execve(2) gave the stub but its vDSO, maps the scratch page; gives the vDSO's place."""
    vdso = (0, 0)
    with open(f"/proc/{tracee.tid}/maps") as maps:
        lines = maps.read().splitlines()
    for line in lines:
        start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
        if line.endswith("[vdso]"):
            vdso = start, end - start
        elif line.endswith(("[stack]", "[heap]")):
            tracee.call(SYS_MUNMAP, start, end - start)
    mapped = tracee.call(SYS_MMAP, SCRATCH, PAGE_SIZE, 3, 0x32, MASK64, 0)
    if mapped != SCRATCH:
        raise errnos.SentryBug("the traced process has no room for our page")
    return vdso


def _drop_privileges(zygote: PtraceContext) -> None:
    """Takes every capability away, for good: guests inherit none."""
    header = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
    zygote.space.poke(SCRATCH, header + bytes(24))
    zygote.tracee.call(SYS_CLOSE, lib.READY_FD)
    zygote.tracee.call(SYS_PRCTL, PR_SET_NO_NEW_PRIVS, 1)
    if zygote.tracee.call(SYS_CAPSET, SCRATCH, SCRATCH + 8):
        raise errnos.SentryBug("the traced process kept its capabilities")


def _raise(error: BaseException) -> None:
    raise error
