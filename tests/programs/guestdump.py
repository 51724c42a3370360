"""Where every guest thread stands: for tests that took too long."""

from __future__ import annotations

import io

from asyncsentry.kernel import Kernel
from asyncsentry.syscalls.registry import ROWS
from asyncsentry.tasks.thread import Thread


def describe(kernel: Kernel) -> str:
    """Lists the processes and threads of a kernel with their calls and coroutines."""
    lines = ["guest threads:"]
    for thread in kernel.threads.values():
        lines += _describe_thread(thread)
    zombies = [str(process.pid) for process in kernel.processes.values() if process.exit_status is not None]
    return "\n".join([*lines, f"zombies: {' '.join(zombies) or 'none'}"])


def _describe_thread(thread: Thread) -> list[str]:
    number = getattr(thread.context, "number", -1)
    name = ROWS[number].name if number in ROWS else str(number)
    arguments = ", ".join(f"{value:#x}" for value in getattr(thread.context, "arguments", ()))
    state = "blocked" if thread.is_blocked else "not blocked"
    lines = [f"  {thread.tid} of {thread.process.pid} ({thread.name}): {state}, last call {name}({arguments})"]
    if thread.task is not None:
        text = io.StringIO()
        thread.task.print_stack(file=text)
        lines += ["      " + line for line in text.getvalue().splitlines()]
    return lines
