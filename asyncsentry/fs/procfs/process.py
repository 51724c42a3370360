"""/proc/PID and /proc/PID/task/TID: which files a process shows, to whom. See proc_pid(5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncsentry import errnos
from asyncsentry.fs.file import O_ACCMODE, O_RDONLY
from asyncsentry.fs.procfs import maps, memory, misc, mounts, status
from asyncsentry.fs.procfs.base import ProcFileSystem, Subject
from asyncsentry.fs.procfs.fd import FdDirectory, FdInfoDirectory
from asyncsentry.fs.procfs.links import NAMESPACES, CwdLink, ExeLink, MagicLink, NamespaceLink, RootLink
from asyncsentry.fs.procfs.net import NETWORK_FILES, render_network_file
from asyncsentry.fs.synthetic import Directory, Render, Store, TextInode

if TYPE_CHECKING:
    from asyncsentry.fs.inode import Inode


class Row(NamedTuple):
    """One file of /proc/PID."""

    render: Render | None
    mode: int = 0o444
    store: Store | None = None
    private: bool = False
    """Whether only those may open it who may inspect the process."""


COMMON_FILES: dict[str, Row] = {
    "arch_status": Row(misc.render_arch_status),
    "auxv": Row(memory.render_auxv, 0o400, private=True),
    "cgroup": Row(misc.render_cgroup),
    "clear_refs": Row(None, 0o200, misc.store_clear_refs),
    "cmdline": Row(memory.render_cmdline),
    "comm": Row(misc.render_comm, 0o644, misc.store_comm),
    "cpuset": Row(misc.render_cpuset),
    "environ": Row(memory.render_environ, 0o400, private=True),
    "gid_map": Row(misc.render_id_map, 0o644, misc.store_id_map),
    "io": Row(status.render_io, 0o400, private=True),
    "limits": Row(status.render_limits),
    "loginuid": Row(misc.render_loginuid, 0o644, misc.store_loginuid),
    "maps": Row(maps.render_maps, private=True),
    "mountinfo": Row(mounts.render_mountinfo),
    "mounts": Row(mounts.render_mounts),
    "numa_maps": Row(maps.render_numa_maps, private=True),
    "oom_adj": Row(misc.render_oom_adj, 0o644, misc.store_oom_adj),
    "oom_score": Row(misc.render_oom_score),
    "oom_score_adj": Row(misc.render_oom_score_adj, 0o644, misc.store_oom_score_adj),
    "personality": Row(misc.render_personality, 0o400, private=True),
    "projid_map": Row(misc.render_id_map, 0o644, misc.store_id_map),
    "sched": Row(status.render_sched, 0o644),
    "schedstat": Row(status.render_schedstat),
    "sessionid": Row(misc.render_sessionid),
    "setgroups": Row(misc.render_setgroups, 0o644, misc.store_id_map),
    "smaps": Row(maps.render_smaps, private=True),
    "smaps_rollup": Row(maps.render_smaps_rollup, private=True),
    "stack": Row(misc.render_empty, 0o400, private=True),
    "stat": Row(status.render_stat),
    "statm": Row(status.render_statm),
    "status": Row(status.render_status),
    "syscall": Row(misc.render_syscall, 0o400, private=True),
    "uid_map": Row(misc.render_id_map, 0o644, misc.store_id_map),
    "wchan": Row(misc.render_wchan),
}

PROCESS_FILES: dict[str, Row] = {
    **COMMON_FILES,
    "autogroup": Row(misc.render_autogroup, 0o644),
    "coredump_filter": Row(misc.render_coredump_filter, 0o644, misc.store_coredump_filter),
    "mountstats": Row(mounts.render_mountstats, 0o400),
    "timens_offsets": Row(misc.render_timens_offsets, 0o644),
    "timers": Row(misc.render_timers),
    "timerslack_ns": Row(misc.render_timer_slack, 0o666, misc.store_timer_slack),
}

THREAD_FILES: dict[str, Row] = {**COMMON_FILES, "children": Row(misc.render_children)}

ATTRIBUTES = ("current", "exec", "fscreate", "keycreate", "prev", "sockcreate")


class TaskFile(TextInode):
    """A file of /proc/PID; gone with its process."""

    def __init__(self, subject: Subject, row: Row, uid: int, gid: int) -> None:
        super().__init__(subject.filesystem, row.render, subject, row.mode, row.store, uid, gid)
        self.private = row.private

    def check_access(self, context: object, flags: int) -> None:
        """Raises ESRCH when the process is gone, EACCES to those who may not see."""
        self.check_present()
        if self.private:
            self.subject.check_inspection(context)
        if self.render is None and flags & O_ACCMODE == O_RDONLY:
            raise errnos.EINVAL("not readable")

    def check_present(self) -> None:
        """Raises ESRCH once the process has been reaped."""
        if not self.subject.exists:
            raise errnos.ESRCH(f"process {self.subject.process.pid} is gone")


class TaskDirectory(Directory):
    """/proc/PID, or /proc/PID/task/TID. Its files follow the owner of the process."""

    filesystem: ProcFileSystem

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject.filesystem, 0o555, *subject.owner())
        self.subject = subject
        self.nlink = 8

    @property
    def files(self) -> dict[str, Row]:
        """The text files shown here."""
        return THREAD_FILES if self.subject.of_thread else PROCESS_FILES

    def _names(self) -> Iterable[str]:
        yield from self.files
        yield from _LINKS
        yield from _SPECIAL
        if not self.subject.of_thread:
            yield "task"

    def _make(self, name: str) -> Inode | None:
        """Makes what a name stands for; most are never asked for."""
        subject, uid, gid = self.subject, self.uid, self.gid
        row = self.files.get(name)
        if row is not None:
            return TaskFile(subject, row, uid, gid)
        link = _LINKS.get(name)
        if link is not None:
            return link(subject, uid, gid)
        special = _SPECIAL.get(name)
        if special is not None:
            return special(subject, uid, gid)
        return ThreadsDirectory(subject, uid, gid) if name == "task" and not subject.of_thread else None

    def update_owner(self) -> None:
        """Follows a change of the process' credentials."""
        owner = self.subject.owner()
        if owner != (self.uid, self.gid):
            _give_to(self, *owner)

    def find(self, name: str) -> Inode | None:
        """Finds a file, while the process exists."""
        if not self.subject.exists:
            return None
        self.update_owner()
        found = self.children.get(name)
        if found is None:
            found = self._make(name)
            if found is not None:
                self.children[name] = found
        return found

    def items(self) -> Iterable[tuple[str, Inode]]:
        """Lists the files, while the process exists."""
        for name in self._names():
            found = self.find(name)
            if found is not None:
                yield name, found


def _give_to(directory: Directory, uid: int, gid: int) -> None:
    directory.uid, directory.gid = uid, gid
    for child in directory.children.values():
        child.uid, child.gid = uid, gid
        if isinstance(child, Directory):
            _give_to(child, uid, gid)


class ThreadsDirectory(Directory):
    """/proc/PID/task."""

    filesystem: ProcFileSystem

    def __init__(self, subject: Subject, uid: int, gid: int) -> None:
        super().__init__(subject.filesystem, 0o555, uid, gid)
        self.subject = subject

    def _thread_directory(self, tid: int) -> TaskDirectory:
        found = self.children.get(str(tid))
        if not isinstance(found, TaskDirectory):
            found = TaskDirectory(Subject(self.filesystem, self.subject.process, tid, True))
            self.children[str(tid)] = found
        found.update_owner()
        return found

    def find(self, name: str) -> Inode | None:
        """Finds a thread by tid."""
        threads: dict[int, Any] = self.subject.process.threads
        if parse_number(name) not in threads:
            self.children.pop(name, None)
            return None
        return self._thread_directory(int(name))

    def items(self) -> Iterable[tuple[str, Inode]]:
        """Lists the live threads."""
        threads: dict[int, Any] = self.subject.process.threads
        self.children = {name: child for name, child in self.children.items() if int(name) in threads}
        return [(str(tid), self._thread_directory(tid)) for tid in sorted(threads)]


def _directory(subject: Subject, mode: int, uid: int, gid: int, children: Iterable[tuple[str, Inode]]) -> Directory:
    directory = Directory(subject.filesystem, mode, uid, gid)
    for name, child in children:
        directory.add(name, child)
    return directory


def _make_namespaces(subject: Subject, uid: int, gid: int) -> Inode:
    links = ((name, NamespaceLink(subject, kind, number, uid, gid)) for name, kind, number in NAMESPACES)
    return _directory(subject, 0o511, uid, gid, links)


def _make_network(subject: Subject, uid: int, gid: int) -> Inode:
    proc = subject.filesystem
    files = ((name, TextInode(proc, render_network_file, (subject, name))) for name in NETWORK_FILES)
    return _directory(subject, 0o555, uid, gid, files)


def _make_attributes(subject: Subject, uid: int, gid: int) -> Inode:
    row = Row(misc.render_attr, 0o666, misc.store_attr)
    return _directory(subject, 0o555, uid, gid, ((name, TaskFile(subject, row, uid, gid)) for name in ATTRIBUTES))


_LINKS: dict[str, type[MagicLink]] = {"cwd": CwdLink, "exe": ExeLink, "root": RootLink}
_SPECIAL: dict[str, Callable[[Subject, int, int], Inode]] = {
    "attr": _make_attributes, "fd": FdDirectory, "fdinfo": FdInfoDirectory, "mem": memory.MemInode,
    "net": _make_network, "ns": _make_namespaces,
}  # fmt: skip


def parse_number(name: str) -> int:
    """Gives the number a directory name stands for, -1 if it is none (leading zeros are not allowed)."""
    if name.isascii() and name.isdigit() and len(name) <= 10 and (name[0] != "0" or name == "0"):
        return int(name)
    return -1
