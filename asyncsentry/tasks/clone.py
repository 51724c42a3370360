"""Making threads and processes: clone(2), clone3(2), fork(2), vfork(2).

What is shared is pointed to by both threads, what is not is copied here; the host's half (a copy of the
address space, or one more host thread in it) is the platform's. Order as in Linux's copy_process():
all checks come first, so that a refused clone leaves nothing behind.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncsentry.abi import sched_h as abi
from asyncsentry.abi.signal_h import NSIG
from asyncsentry.errnos import EAGAIN, EINVAL, EPERM, LinuxError
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX
from asyncsentry.tasks.exit import leave_memory
from asyncsentry.tasks.limits import check_process_count
from asyncsentry.tasks.pidfd import PidFd
from asyncsentry.tasks.process import Process
from asyncsentry.tasks.run import start
from asyncsentry.tasks.thread import Thread
from asyncsentry.tasks.usage import open_account
from asyncsentry.waiter import POLLIN

if TYPE_CHECKING:
    from asyncsentry.fs.fdtable import FdTable
    from asyncsentry.memory.manager import MemoryManager
    from asyncsentry.platforms.base import Context


@dataclass(slots=True)
class CloneArgs:
    """What the new thread or process is to be, with the stack as its first stack pointer."""

    flags: int
    exit_signal: int = 0
    stack: int = 0
    """0 to go on with the parent's."""
    tls: int = 0
    parent_tid: int = 0
    child_tid: int = 0
    pidfd: int = 0
    set_tid: int = 0
    """The pid asked for, clone3(2); 0 for any."""


def check_flags(args: CloneArgs) -> None:
    """EINVAL for combinations that make no sense; EPERM for namespaces, which guests cannot make."""
    flags = args.flags
    if flags & abi.CLONE_THREAD and not flags & abi.CLONE_SIGHAND:
        raise EINVAL("CLONE_THREAD needs CLONE_SIGHAND")
    if flags & abi.CLONE_SIGHAND and not flags & abi.CLONE_VM:
        raise EINVAL("CLONE_SIGHAND needs CLONE_VM")
    if flags & abi.CLONE_SIGHAND and flags & abi.CLONE_CLEAR_SIGHAND:
        raise EINVAL("actions cannot be both shared and cleared")
    if flags & abi.CLONE_FS and flags & (abi.CLONE_NEWNS | abi.CLONE_NEWUSER):
        raise EINVAL("a new namespace needs its own root and working directory")
    if flags & abi.CLONE_THREAD and flags & (abi.CLONE_NEWUSER | abi.CLONE_NEWPID):
        raise EINVAL("a thread stays in the namespaces of its process")
    if args.exit_signal > NSIG:
        raise EINVAL(f"no signal {args.exit_signal}")
    if flags & abi.CLONE_NAMESPACES:
        raise EPERM("namespaces cannot be made")


async def clone(parent: Thread, args: CloneArgs) -> int:
    """Makes a thread or process and sets it going; gives its number. CLONE_VFORK waits for it."""
    check_flags(args)
    kernel = parent.kernel
    if args.flags & abi.CLONE_PARENT and parent.process.pid == 1:
        raise EINVAL("init has no parent to share")
    is_process = not args.flags & abi.CLONE_THREAD
    check_process_count(parent, is_process)
    if args.flags & abi.CLONE_SETTLS and args.tls >= GUEST_ADDRESS_MAX:
        raise EPERM("the thread pointer lies outside guest addresses")
    if args.set_tid:
        kernel.check_pid_free(args.set_tid)
    if args.flags & abi.CLONE_PIDFD:
        parent.fds.lowest_free()
        parent.memory.write_i32(args.pidfd, -1)
    context, memory = await _copy_memory(parent, args.flags)
    try:
        if args.set_tid:
            kernel.check_pid_free(args.set_tid)  # again: others ran meanwhile
        check_process_count(parent, is_process)
    except LinuxError:
        await leave_memory(memory)
        await context.destroy()
        raise
    child = _make_thread(parent, args, args.set_tid or kernel.allocate_pid(), context, memory)
    _tell_numbers(parent, child, args)
    _prepare_registers(context, args)
    return await _launch(parent, child, args.flags)


async def _copy_memory(parent: Thread, flags: int) -> tuple[Context, MemoryManager]:
    async with parent.kernel.birth_lock:
        if parent.is_dying:  # while others bore: a fork bomb must not go on after its end
            raise EAGAIN("killed before it could fork")
        return await _copy_memory_now(parent, flags)


async def _copy_memory_now(parent: Thread, flags: int) -> tuple[Context, MemoryManager]:
    platform = parent.kernel.platform
    if flags & abi.CLONE_VM:
        context = await platform.clone(parent.context)
        parent.memory.users += 1
        return context, parent.memory
    context = await platform.fork(parent.context)
    return context, parent.memory.fork(context)


def _make_thread(parent: Thread, args: CloneArgs, pid: int, context: Context, memory: MemoryManager) -> Thread:
    flags = args.flags
    process = parent.process if flags & abi.CLONE_THREAD else _make_process(parent, args, pid)
    thread = Thread(parent.kernel, process, pid, context, memory, _descriptors(parent, flags),
                    parent.fs if flags & abi.CLONE_FS else parent.fs.copy(), parent.credentials, parent.name)
    thread.inherit_signals(parent, bool(flags & abi.CLONE_VM and not flags & abi.CLONE_VFORK))
    thread.scheduling = parent.scheduling.inherit()
    thread.personality, thread.seccomp = parent.personality, parent.seccomp
    process.threads[pid] = parent.kernel.threads[pid] = thread
    if process is not parent.process:
        open_account(process, context.space)
    return thread


def _descriptors(parent: Thread, flags: int) -> FdTable:
    if flags & abi.CLONE_FILES:
        parent.fds.users += 1
        return parent.fds
    return parent.fds.copy()


def _make_process(parent: Thread, args: CloneArgs, pid: int) -> Process:
    creator = parent.process
    kinship = creator.parent if args.flags & abi.CLONE_PARENT else creator
    process = Process(parent.kernel, pid, kinship, creator.group)
    process.limits = creator.limits.copy()
    process.parent_tid = creator.parent_tid if args.flags & abi.CLONE_PARENT else parent.tid
    process.exit_signal = creator.exit_signal if args.flags & abi.CLONE_PARENT else args.exit_signal
    process.executable = creator.executable
    process.dumpable = creator.dumpable
    process.signals = creator.signals.copy(bool(args.flags & abi.CLONE_SIGHAND))
    if args.flags & abi.CLONE_CLEAR_SIGHAND:
        process.signals.reset_on_exec()
    parent.kernel.processes[pid] = process
    if kinship is not None:
        kinship.children.append(process)
    return process


def _tell_numbers(parent: Thread, child: Thread, args: CloneArgs) -> None:
    """Writes the new number, and a descriptor for it, where the flags say. Linux ignores bad addresses here."""
    flags = args.flags
    if flags & abi.CLONE_CHILD_CLEARTID:
        child.clear_child_tid = args.child_tid
    with suppress(LinuxError):
        if flags & abi.CLONE_PARENT_SETTID:
            parent.memory.write_i32(args.parent_tid, child.tid)
    with suppress(LinuxError):
        if flags & abi.CLONE_CHILD_SETTID:
            child.memory.write_i32(args.child_tid, child.tid)
    with suppress(LinuxError):
        if flags & abi.CLONE_PIDFD:
            fd = parent.fds.install(PidFd(child.process), close_on_exec=True)
            parent.memory.write_i32(args.pidfd, fd)


def _prepare_registers(context: Context, args: CloneArgs) -> None:
    """Lets the child return 0 from the call, on its own stack if it has one."""
    if args.stack:
        registers = context.get_registers()
        registers.rax, registers.rsp = 0, args.stack
        context.set_registers(registers)
    else:
        context.set_result(0)
    if args.flags & abi.CLONE_SETTLS:
        context.set_fs_base(args.tls)


async def _launch(parent: Thread, child: Thread, flags: int) -> int:
    tid, process = child.tid, child.process
    if parent.kill_pending and process is parent.process:  # by exit_group(2), or another thread's execve(2)
        child.exit_status, child.kill_pending = parent.exit_status, True
        child.interrupt_pending = True
    waits = bool(flags & abi.CLONE_VFORK and not flags & abi.CLONE_THREAD)
    process.is_vforked = waits
    start(child)
    while waits and process.is_vforked and not parent.kill_pending:
        await parent.block_uninterruptible(process.vfork_queue, POLLIN)
    return tid
