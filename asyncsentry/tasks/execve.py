"""execve(2): a process leaves its program for another one.

The new program is loaded into an address space of its own first, so every error up to there is simply
returned. Then the other threads end, and what does not survive goes: memory, close-on-exec descriptors,
signal handlers, futex registrations. Set-user-ID bits are ignored, as with no_new_privs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncsentry.abi.resource_h import RLIMIT_STACK
from asyncsentry.abi.signal_h import SIGCHLD
from asyncsentry.tasks import futex_pi
from asyncsentry.tasks.exit import exit_other_threads, leave_memory, release_futexes
from asyncsentry.tasks.ids import SECBIT_KEEP_CAPS, SECBIT_NOROOT
from asyncsentry.tasks.loader import Loaded, Start, load_program
from asyncsentry.tasks.signals.state import AltStack
from asyncsentry.tasks.usage import close_account, open_account

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.tasks.credentials import Credentials
    from asyncsentry.tasks.thread import Thread

_NAME_MAX = 15


async def execve(thread: Thread, file: File, path: str, argv: list[bytes], envp: list[bytes],
                 path_inaccessible: bool = False) -> None:
    """Runs another program in the thread's process; ``file`` comes from ``open_executable`` and is consumed.

    When it returns, ``thread.context`` is the new program's, trapped before its first instruction.
    """
    credentials = credentials_after_exec(thread.credentials)
    start = Start(
        file, os.fsencode(path), argv, envp, credentials, thread.process.limits.soft(RLIMIT_STACK),
        thread.personality, path_inaccessible,
    )  # fmt: skip
    loaded = await load_program(thread.kernel, thread, start)
    try:
        await exit_other_threads(thread)
    except BaseException:
        await loaded.context.destroy()
        await loaded.memory.release()
        raise
    await _leave_program(thread)
    await _enter_program(thread, loaded, path, credentials)


def credentials_after_exec(old: Credentials) -> Credentials:
    """Works out capabilities and saved IDs, capabilities(7) "Transformation of capabilities during execve()"."""
    permitted = effective = old.ambient
    if not old.securebits & SECBIT_NOROOT and 0 in (old.ruid, old.euid):
        permitted = old.inheritable | old.bounding
        effective = permitted if old.euid == 0 else old.ambient
    return old.change(
        suid=old.euid, fsuid=old.euid, sgid=old.egid, fsgid=old.egid, permitted=permitted, effective=effective,
        securebits=old.securebits & ~SECBIT_KEEP_CAPS,
    )  # fmt: skip


async def _leave_program(thread: Thread) -> None:
    """Lets go of the old program's memory and of all that pointed into it."""
    memory, process = thread.memory, thread.process
    await release_futexes(thread)
    await futex_pi.release_owned(thread)
    close_account(process)
    await thread.context.destroy()
    await leave_memory(memory)
    process.vfork_done()


async def _enter_program(thread: Thread, loaded: Loaded, path: str, credentials: Credentials) -> None:
    process = thread.process
    thread.context, thread.memory = loaded.context, loaded.memory
    open_account(process, loaded.context.space)
    thread.credentials = credentials
    thread.name = os.fsdecode(os.fsencode(path.rpartition("/")[2])[:_NAME_MAX])
    thread.alt_stack = AltStack()
    thread.restart = None
    process.signals.reset_on_exec()
    process.timers.reset_on_exec()
    process.executable = loaded.executable.location
    process.dumpable = 1
    process.has_execed = True
    process.exit_signal = SIGCHLD
    if thread.fds.users > 1:
        thread.fds.users -= 1
        thread.fds = thread.fds.copy()
    await thread.fds.close_all(only_on_exec=True)
