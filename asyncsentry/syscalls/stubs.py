"""Every system call of Linux x86-64 that is not answered, and why.

A row is number, name, the errno a guest gets, the reason, and perhaps a capability without which Linux
says EPERM before anything else. :func:`declare_absent` makes the registry know them, so that strace names them and
the coverage page lists them. A call that gets a handler loses its row here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn

from asyncsentry.errnos import ENOSYS, EOPNOTSUPP, EPERM, LinuxError
from asyncsentry.syscalls.registry import ROWS, Restart, Row, Support
from asyncsentry.tasks.credentials import (
    CAP_SYS_ADMIN,
    CAP_SYS_BOOT,
    CAP_SYS_MODULE,
    CAP_SYS_PACCT,
    CAP_SYS_RAWIO,
)

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread


class Stub(NamedTuple):
    """A call that is not there."""

    number: int
    name: str
    reason: str
    error: type[LinuxError] = ENOSYS
    capability: int | None = None


_GONE = "Linux has removed it"
_NEVER = "a reserved number that Linux never used"
_32BIT = "only for 32-bit programs"
_MODULES = "there are no modules"
_KEYS = "there are no keyrings, as in a Linux without CONFIG_KEYS"
_URING = "no io_uring; programs fall back to epoll"
_MOUNT_API = "file systems are mounted with mount(2)"
_PTRACE = "no tracing of guests by guests"
_QUOTA = "no file system has quotas"
_LANDLOCK = "no Landlock"
_LSM = "no security modules"
_FANOTIFY = "no fanotify; inotify(7) is there"

STUBS = (
    Stub(101, "ptrace", _PTRACE),
    Stub(134, "uselib", _GONE),
    Stub(136, "ustat", "superseded by statfs(2)"),
    Stub(139, "sysfs", "obsolete: /proc/filesystems tells the same"),
    Stub(154, "modify_ldt", "no segments of the guest's own, as without CONFIG_MODIFY_LDT_SYSCALL"),
    Stub(156, "_sysctl", _GONE),
    Stub(163, "acct", "no process accounting", ENOSYS, CAP_SYS_PACCT),
    Stub(167, "swapon", "guests have no swap", ENOSYS, CAP_SYS_ADMIN),
    Stub(168, "swapoff", "guests have no swap", ENOSYS, CAP_SYS_ADMIN),
    Stub(172, "iopl", "no input and output ports", ENOSYS, CAP_SYS_RAWIO),
    Stub(173, "ioperm", "no input and output ports", ENOSYS, CAP_SYS_RAWIO),
    Stub(174, "create_module", _GONE),
    Stub(175, "init_module", _MODULES, ENOSYS, CAP_SYS_MODULE),
    Stub(176, "delete_module", _MODULES, ENOSYS, CAP_SYS_MODULE),
    Stub(177, "get_kernel_syms", _GONE),
    Stub(178, "query_module", _GONE),
    Stub(179, "quotactl", _QUOTA),
    Stub(180, "nfsservctl", _GONE),
    Stub(181, "getpmsg", _NEVER),
    Stub(182, "putpmsg", _NEVER),
    Stub(183, "afs_syscall", _NEVER),
    Stub(184, "tuxcall", _NEVER),
    Stub(185, "security", _NEVER),
    Stub(205, "set_thread_area", _32BIT),
    Stub(211, "get_thread_area", _32BIT),
    Stub(212, "lookup_dcookie", _GONE),
    Stub(214, "epoll_ctl_old", _NEVER),
    Stub(215, "epoll_wait_old", _NEVER),
    Stub(216, "remap_file_pages", "deprecated; mmap(2) does the same"),
    Stub(236, "vserver", _NEVER),
    Stub(246, "kexec_load", "guests boot no kernels", ENOSYS, CAP_SYS_BOOT),
    Stub(248, "add_key", _KEYS),
    Stub(249, "request_key", _KEYS),
    Stub(250, "keyctl", _KEYS),
    Stub(298, "perf_event_open", "no performance counters"),
    Stub(300, "fanotify_init", _FANOTIFY),
    Stub(301, "fanotify_mark", _FANOTIFY),
    Stub(303, "name_to_handle_at", "no file system has handles", EOPNOTSUPP),
    Stub(304, "open_by_handle_at", "no file system has handles", EOPNOTSUPP),
    Stub(313, "finit_module", _MODULES, ENOSYS, CAP_SYS_MODULE),
    Stub(320, "kexec_file_load", "guests boot no kernels", ENOSYS, CAP_SYS_BOOT),
    Stub(321, "bpf", "no BPF programs"),
    Stub(323, "userfaultfd", "no page faults in user space"),
    Stub(334, "rseq", "guests cannot know when they move to another processor; libc does without"),
    Stub(425, "io_uring_setup", _URING),
    Stub(426, "io_uring_enter", _URING),
    Stub(427, "io_uring_register", _URING),
    Stub(428, "open_tree", _MOUNT_API),
    Stub(429, "move_mount", _MOUNT_API),
    Stub(430, "fsopen", _MOUNT_API),
    Stub(431, "fsconfig", _MOUNT_API),
    Stub(432, "fsmount", _MOUNT_API),
    Stub(433, "fspick", _MOUNT_API),
    Stub(442, "mount_setattr", _MOUNT_API),
    Stub(443, "quotactl_fd", _QUOTA),
    Stub(444, "landlock_create_ruleset", _LANDLOCK),
    Stub(445, "landlock_add_rule", _LANDLOCK),
    Stub(446, "landlock_restrict_self", _LANDLOCK),
    Stub(447, "memfd_secret", "guest memory cannot be hidden from its own kernel"),
    Stub(451, "cachestat", "the page cache is the host's"),
    Stub(453, "map_shadow_stack", "no shadow stacks"),
    Stub(457, "statmount", "/proc/self/mountinfo tells the same"),
    Stub(458, "listmount", "/proc/self/mountinfo tells the same"),
    Stub(459, "lsm_get_self_attr", _LSM),
    Stub(460, "lsm_set_self_attr", _LSM),
    Stub(461, "lsm_list_modules", _LSM),
    Stub(462, "mseal", "no sealed mappings"),
    Stub(467, "open_tree_attr", _MOUNT_API),
    Stub(468, "file_getattr", "no file attributes beyond statx(2)"),
    Stub(469, "file_setattr", "no file attributes beyond statx(2)"),
)


class _Refusal:
    """Answers an absent call, and counts it."""

    __slots__ = ("_stub",)

    def __init__(self, stub: Stub) -> None:
        self._stub = stub

    def __call__(self, thread: Thread) -> NoReturn:
        stub, counts = self._stub, thread.kernel.dispatch.unimplemented
        counts[stub.number] = counts.get(stub.number, 0) + 1
        if stub.capability is not None and not thread.credentials.has(stub.capability):
            raise EPERM(f"{stub.name} needs a capability")
        raise stub.error(f"{stub.name} is not there: {stub.reason}")


def declare_absent() -> None:
    """Makes the registry know each call that no family has declared; call when all families are imported."""
    for stub in STUBS:
        if stub.number not in ROWS:
            refusal = _Refusal(stub)
            errnos = (stub.error.__name__,) if stub.capability is None else ("EPERM", stub.error.__name__)
            ROWS[stub.number] = Row(
                number=stub.number, name=stub.name, support=Support.NONE, missing=stub.reason, errnos=errnos,
                restart=Restart.SYS, parameters=(), is_async=False, handler=refusal, invoke=refusal)  # fmt: skip
