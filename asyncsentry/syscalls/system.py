"""What the system says of itself: names, memory and load, random bytes, the kernel's log."""

from __future__ import annotations

import os
import struct

from asyncsentry.abi import prctl_h, utsname_h
from asyncsentry.abi.signal_h import SIGHUP, SIGINT
from asyncsentry.clock import NS_PER_SECOND
from asyncsentry.errnos import EINVAL, ENODEV, EPERM
from asyncsentry.syscalls.args import Buffer, Flags, Int, Pointer, Size, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks import prctl as process_control
from asyncsentry.tasks.credentials import CAP_SYS_ADMIN, CAP_SYS_BOOT, CAP_SYSLOG
from asyncsentry.tasks.exit import begin_group_exit
from asyncsentry.tasks.thread import Thread

_RANDOM_CHUNK = 1 << 20
REBOOT_MAGIC1, REBOOT_MAGIC2 = 0xFEE1DEAD, (672274793, 85072278, 369367448, 537993216)
REBOOT_RESTARTS = (0x01234567, 0xA1B2C3D4)
"""LINUX_REBOOT_CMD_RESTART, RESTART2."""
REBOOT_HALTS = (0xCDEF0123, 0x4321FEDC)
"""LINUX_REBOOT_CMD_HALT, POWER_OFF."""
PER_MASK, PER_LINUX32 = 0xFF, 0x08
PERSONALITY_QUERY = 0xFFFFFFFF
SYSINFO = struct.Struct("<q3Q6QHxxxxxx2QI4x")
"""struct sysinfo: uptime, three loads, total, free, shared, buffered, swap and free swap, processes, high memory
and free of it, unit."""
SYSLOG_CLOSE, SYSLOG_OPEN, SYSLOG_READ, SYSLOG_READ_ALL, SYSLOG_READ_CLEAR, SYSLOG_CLEAR = range(6)
SYSLOG_CONSOLE_OFF, SYSLOG_CONSOLE_ON, SYSLOG_CONSOLE_LEVEL, SYSLOG_SIZE_UNREAD, SYSLOG_SIZE_BUFFER = range(6, 11)
LOG_BUFFER_SIZE = 1 << 18
GRND_NONBLOCK, GRND_RANDOM, GRND_INSECURE = 1, 2, 4


@syscall(63, errnos="EFAULT")
def uname(thread: Thread, buffer: Pointer) -> int:
    """uname(2)."""
    kernel = thread.kernel
    machine = "i686" if thread.personality & PER_MASK == PER_LINUX32 else utsname_h.MACHINE
    fields = (utsname_h.SYSNAME, kernel.hostname, utsname_h.RELEASE, utsname_h.VERSION, machine, kernel.domainname)
    data = b"".join(os.fsencode(field)[: utsname_h.NAME_MAX].ljust(utsname_h.FIELD_SIZE, b"\0") for field in fields)
    thread.memory.write(buffer, data)
    return 0


@syscall(170, errnos="EFAULT EINVAL EPERM")
def sethostname(thread: Thread, name: Buffer, length: Size) -> int:
    """sethostname(2): EPERM, EINVAL, EFAULT."""
    thread.kernel.hostname = _read_name(thread, name, length)
    return 0


@syscall(171, errnos="EFAULT EINVAL EPERM")
def setdomainname(thread: Thread, name: Buffer, length: Size) -> int:
    """setdomainname(2): EPERM, EINVAL, EFAULT."""
    thread.kernel.domainname = _read_name(thread, name, length)
    return 0


def _read_name(thread: Thread, address: int, length: int) -> str:
    if not thread.credentials.has(CAP_SYS_ADMIN):
        raise EPERM("only CAP_SYS_ADMIN names the system")
    length = Int((length & 0xFFFFFFFF ^ 0x80000000) - 0x80000000)
    if not 0 <= length <= utsname_h.NAME_MAX:
        raise EINVAL("not the length of a name")
    return os.fsdecode(thread.memory.read(address, length).split(b"\0", 1)[0])


@syscall(169, errnos="EINVAL EPERM", missing="ends the container's init; kernels are not started")
def reboot(thread: Thread, magic1: UInt, magic2: UInt, command: UInt, argument: Pointer) -> int:
    """reboot(2): as in a pid namespace, init dies of SIGHUP for a restart and of SIGINT for a halt."""
    if not thread.credentials.has(CAP_SYS_BOOT):
        raise EPERM("only CAP_SYS_BOOT restarts the system")
    if magic1 != REBOOT_MAGIC1 or magic2 not in REBOOT_MAGIC2:
        raise EINVAL("not the magic numbers")
    signo = SIGHUP if command in REBOOT_RESTARTS else SIGINT if command in REBOOT_HALTS else None
    if signo is None:
        raise EINVAL(f"no command {command:#x}")
    if (init := thread.kernel.init) is None:
        raise EINVAL("there is no init")
    begin_group_exit(init, signo)
    return 0


@syscall(318, errnos="EFAULT EINVAL")
def getrandom(thread: Thread, buffer: Buffer, count: Size, flags: Flags) -> int:
    """getrandom(2): never blocks; what was written before a bad address counts."""
    if flags & ~(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE) or (flags & GRND_RANDOM and flags & GRND_INSECURE):
        raise EINVAL("unknown flags")
    wanted, done = min(count, 0x7FFFF000), 0
    while done < wanted:
        chunk = thread.kernel.random.bytes(min(wanted - done, _RANDOM_CHUNK))
        written = thread.memory.write_some(buffer + done, chunk)
        done += written
        if written < len(chunk):
            break
    if wanted and not done:
        thread.memory.write(buffer, b"\0")  # raises EFAULT
    return done


@syscall(99, errnos="EFAULT", missing="no load averages, shared, buffered or swap memory")
def sysinfo(thread: Thread, info: Pointer) -> int:
    """sysinfo(2)."""
    kernel = thread.kernel
    uptime_s = -(-(kernel.clock.now_ns() - kernel.boot_time_ns) // NS_PER_SECOND)
    total = min(kernel.host_facts.memory_bytes, kernel.memory_limit or kernel.host_facts.memory_bytes)
    free = min(total, kernel.host_facts.memory_free_bytes())
    if kernel.memory is not None:
        free = min(free, max(0, total - kernel.memory.used))
    count = min(len(kernel.threads), 0xFFFF)
    thread.memory.write_struct(info, SYSINFO, uptime_s, 0, 0, 0, total, free, 0, 0, 0, 0, count, 0, 0, 1)
    return 0


@syscall(135, missing="only ADDR_NO_RANDOMIZE and PER_LINUX32 have an effect")
def personality(thread: Thread, persona: UInt) -> int:
    """personality(2): gives the previous one."""
    previous = thread.personality
    if persona != PERSONALITY_QUERY:
        thread.personality = persona
    return previous


@syscall(157, errnos="EBADF EFAULT EINVAL ENODEV ENOMEM EPERM",
         missing="no PR_SET_MM_MAP, PR_SET_MDWE, PR_SCHED_CORE, PR_SET_SYSCALL_USER_DISPATCH, PR_SET_IO_FLUSHER")
def prctl(thread: Thread, operation: Int, a: Size, b: Size, c: Size, d: Size) -> int:
    """prctl(2)."""
    return process_control.prctl(thread, operation, a, b, c, d)


@syscall(158, errnos="EFAULT EINVAL ENODEV EPERM", missing="no shadow stacks, address masking or optional states")
def arch_prctl(thread: Thread, operation: Int, address: Size) -> int:
    """arch_prctl(2): the bases of fs and gs."""
    context = thread.context
    if operation in (prctl_h.ARCH_SET_FS, prctl_h.ARCH_SET_GS):
        if address >= 1 << 47:
            raise EPERM("not a guest address")
        (context.set_fs_base if operation == prctl_h.ARCH_SET_FS else context.set_gs_base)(address)
    elif operation in (prctl_h.ARCH_GET_FS, prctl_h.ARCH_GET_GS):
        registers = context.get_registers()
        base = registers.fs_base if operation == prctl_h.ARCH_GET_FS else registers.gs_base
        thread.memory.write_u64(address, base)
    elif operation == prctl_h.ARCH_GET_CPUID:
        return 1
    elif operation == prctl_h.ARCH_SET_CPUID:
        if not address:
            raise ENODEV("cpuid cannot be made to fault")
    else:
        raise EINVAL(f"no operation {operation:#x}")
    return 0


@syscall(103, errnos="EFAULT EINVAL EPERM", missing="invented boot messages; the console cannot be switched")
def syslog(thread: Thread, action: Int, buffer: Buffer, count: Int) -> int:
    """syslog(2): EPERM, then EINVAL."""
    log = thread.kernel.log
    may_read_all = not thread.kernel.sysctls.integer("kernel.dmesg_restrict")
    if not (may_read_all and action in (SYSLOG_READ_ALL, SYSLOG_SIZE_BUFFER)):
        credentials = thread.credentials
        if not (credentials.has(CAP_SYSLOG) or credentials.has(CAP_SYS_ADMIN)):
            raise EPERM("only CAP_SYSLOG reads the log")
    if action in (SYSLOG_READ, SYSLOG_READ_ALL, SYSLOG_READ_CLEAR):
        if not buffer or count < 0:
            raise EINVAL("no buffer")
        data = log.take_unread(count) if action == SYSLOG_READ else log.text()[-count:] if count else b""
        thread.memory.write(buffer, data)
        if action == SYSLOG_READ_CLEAR:
            log.cleared = len(log.lines)
        return len(data)
    if action == SYSLOG_CLEAR:
        log.cleared = len(log.lines)
    elif action == SYSLOG_CONSOLE_LEVEL and not 1 <= count <= 8:
        raise EINVAL(f"no level {count}")
    elif action == SYSLOG_SIZE_UNREAD:
        return log.unread_size()
    elif action == SYSLOG_SIZE_BUFFER:
        return LOG_BUFFER_SIZE
    elif not SYSLOG_CLOSE <= action <= SYSLOG_CONSOLE_LEVEL:
        raise EINVAL(f"no action {action}")
    return 0
