"""The loop every guest thread is in: wait for a trap, answer it, deliver signals, resume.

A guest thread is one :class:`asyncio.Task` running :func:`run`. It ends when the thread is marked as leaving
(``exit.py``), and with it everything the thread held. Anything nobody foresaw ends the whole sandbox, with
the thread, call and arguments named; cancellation means that the sandbox is going away, and passes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asyncsentry.abi.signal_h import SIGKILL
from asyncsentry.platforms.base import TrapKind
from asyncsentry.tasks.exit import begin_group_exit, finish_thread
from asyncsentry.tasks.signals.delivery import RESTARTS, deliver
from asyncsentry.tasks.signals.force import force_fault

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread

log = logging.getLogger("asyncsentry")


def start(thread: Thread) -> None:
    """Lets a thread, whose context is trapped and ready, run as a task of its own."""
    thread.task = asyncio.get_running_loop().create_task(_run_guarded(thread))


async def _run_guarded(thread: Thread) -> None:
    try:
        await run(thread)
    except Exception as error:
        log.error("a guest thread met a bug", exc_info=error)
        thread.kernel.fail(thread.kernel.dispatch.describe_failure(thread, error))


async def run(thread: Thread) -> None:
    """Runs a guest thread until it has left. The context is trapped at the start: it is resumed first."""
    if thread.interrupt_pending:
        await deliver(thread, None, False)
    if thread.exit_status is None:
        thread.context.resume()
    dispatch = thread.kernel.dispatch
    while thread.exit_status is None:
        context = thread.context
        while (kind := context.trap()) is None:
            await context.gate
        result: int | None = None
        if kind is TrapKind.SYSCALL:
            answer = dispatch.call(thread)
            result = answer if answer.__class__ is int or answer is None else await dispatch.finish(thread, answer)
            context = thread.context  # execve(2) has put another in its place
        elif kind is not TrapKind.INTERRUPT:
            result = await _answer_trap(thread, kind)
        if thread.interrupt_pending or thread.saved_signal_mask is not None or result in RESTARTS:
            await deliver(thread, result, result is not None)
        elif result is not None and thread.exit_status is None:
            context.resume_with(result)
            await context.gate  # traps are taken outside of tasks, so it cannot have trapped again yet
            continue
        if thread.exit_status is None:
            context.resume()
    await finish_thread(thread, thread.exit_status)


async def _answer_trap(thread: Thread, kind: TrapKind) -> int | None:
    """Answers what is not a system call; gives a result only for a call whose host half failed."""
    if kind is TrapKind.FAULT:
        fault = thread.context.fault
        if not await thread.memory.handle_fault(thread.context, fault.address, thread.process.limits):
            force_fault(thread, fault)
        return None
    if kind is TrapKind.HOST_CALL_FAILED:
        return thread.memory.host_call_failed(thread.context)
    begin_group_exit(thread.process, SIGKILL)  # the host process is gone, and all its threads with it
    return None
