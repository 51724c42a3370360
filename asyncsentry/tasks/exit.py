"""How threads and processes end, and who hears of it. See exit_group(2), _exit(2), wait(2), pid_namespaces(7).

An end has two halves. Marking (:func:`exit_thread`, :func:`begin_group_exit`) only sets
``Thread.exit_status`` and calls the thread to its run loop; the loop then runs :func:`finish_thread`, which
gives everything back. The last thread of a process makes it a zombie; what that means for its relatives is
in ``family.py``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from asyncsentry.abi.signal_h import SIGKILL
from asyncsentry.errnos import EAGAIN, LinuxError
from asyncsentry.tasks import futex, futex_pi
from asyncsentry.tasks.cputime import book_thread
from asyncsentry.tasks.family import leave_family, thread_leaves_children
from asyncsentry.tasks.robust import release_robust_list
from asyncsentry.tasks.signals.send import thread_leaving
from asyncsentry.tasks.signals.stop import finish_stop
from asyncsentry.tasks.usage import close_account
from asyncsentry.waiter import POLLIN

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel
    from asyncsentry.memory.manager import MemoryManager
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread


def exit_thread(thread: Thread, code: int) -> None:
    """Marks the calling thread as leaving, _exit(2)."""
    if thread.exit_status is None:
        thread.exit_status = (code & 0xFF) << 8


def begin_group_exit(process: Process, status: int) -> None:
    """Marks all threads of a process as leaving with a wait status, unless something else has done so before."""
    if process.group_exit_status is not None:
        return
    process.group_exit_status = status
    for thread in tuple(process.threads.values()):
        _kill(thread, status)


def _kill(thread: Thread, status: int) -> None:
    if thread.exit_status is None:
        thread.exit_status = status
    thread.kill_pending = True
    thread.kick()


async def finish_thread(thread: Thread, status: int) -> None:
    """Ends a thread for good; its run loop does nothing after this. The context is trapped or gone."""
    process = thread.process
    if thread.exit_status is None:
        thread.exit_status = status
    process.leaving_count += 1  # several may be at this at once, and only the last to begin finds that all are
    is_last = process.leaving_count == len(process.threads)
    thread_leaving(thread)
    book_thread(thread)
    finish_stop(process, leaving=thread)
    if is_last:
        _release_process(process)
    await _leave_memory(thread)
    if is_last:
        process.vfork_done()
    await _leave_files(thread)
    if is_last and process.pid == 1:
        await _end_sandbox_processes(thread)
    await thread.context.destroy()
    await futex_pi.release_owned(thread)
    _leave_process(thread)


def _release_process(process: Process) -> None:
    """Gives back what belongs to the process as a whole, while its last thread is still there."""
    close_account(process)
    process.timers.release()
    process.kernel.semaphores.process_ends(process.pid)


async def leave_memory(memory: MemoryManager) -> None:
    """Takes note that a thread has left an address space; the last one gives up what was mapped."""
    memory.users -= 1
    if memory.users == 0:
        await memory.release()


async def release_futexes(thread: Thread) -> None:
    """Releases what a thread holds by its memory, and tells its joiners, before it leaves that memory."""
    await release_robust_list(thread)
    if thread.clear_child_tid and thread.memory.users > 1:
        with suppress(LinuxError):  # Linux ignores a bad address here, too
            thread.memory.write_u32(thread.clear_child_tid, 0)
            futex.wake(thread, thread.clear_child_tid, 1, shared=True)
    thread.clear_child_tid = 0


async def _leave_memory(thread: Thread) -> None:
    """Releases futexes, tells joiners, and lets go of the address space."""
    await release_futexes(thread)
    await leave_memory(thread.memory)


async def _leave_files(thread: Thread) -> None:
    thread.fds.users -= 1
    if thread.fds.users == 0:
        await thread.fds.close_all()


def _leave_process(thread: Thread) -> None:
    """Takes the thread out of all tables; the last one turns its process into a zombie."""
    process, kernel = thread.process, thread.kernel
    process.last_credentials, process.last_name = thread.credentials, thread.name
    process.leaving_count -= 1
    process.threads.pop(thread.tid, None)
    kernel.threads.pop(thread.tid, None)
    process.thread_queue.notify(POLLIN)
    if process.threads:
        thread_leaves_children(process, thread.tid)
        return
    status = process.group_exit_status
    process.exit_status = thread.exit_status if status is None else status
    leave_family(process)


async def _end_sandbox_processes(thread: Thread) -> None:
    """Kills all others when init ends, and waits until they are gone, pid_namespaces(7)."""
    kernel = thread.kernel
    while (others := _living_others(kernel)):
        for other in others:
            begin_group_exit(other, SIGKILL)
        await thread.block_uninterruptible(others[0].exit_queue, POLLIN)


def _living_others(kernel: Kernel) -> list[Process]:
    return [process for process in kernel.processes.values() if process.pid != 1 and process.threads]


async def exit_other_threads(thread: Thread) -> None:
    """Ends all threads of the process but the calling one, which takes over the leader's tid, execve(2).

    EAGAIN if the thread was itself told to leave, perhaps by one that does the same.
    """
    process, kernel = thread.process, thread.kernel
    if thread.kill_pending:
        raise EAGAIN("killed while loading the new program")
    for other in tuple(process.threads.values()):
        if other is not thread:
            _kill(other, 0)
    while len(process.threads) > 1:
        if thread.kill_pending:
            raise EAGAIN("killed while leaving the old program")
        await thread.block_uninterruptible(process.thread_queue, POLLIN)
    if thread.tid != process.pid:
        for child in process.children:
            child.parent_tid = process.pid
        del process.threads[thread.tid], kernel.threads[thread.tid]
        thread.tid = process.pid
        process.threads[thread.tid] = kernel.threads[thread.tid] = thread
