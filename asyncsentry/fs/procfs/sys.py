"""/proc/sys: kernel parameters. See proc_sys(5).

Stored parameters come from :mod:`asyncsentry.sysctl`; those that are part of the kernel's state (names,
counters, random numbers) are rendered from it here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from asyncsentry import errnos
from asyncsentry.abi import utsname_h as uts
from asyncsentry.abi.capability_h import CAP_SYS_ADMIN
from asyncsentry.fs.procfs.base import ProcFileSystem, format_uuid
from asyncsentry.fs.synthetic import Directory, Render, Store, TextInode
from asyncsentry.sysctl import TABLE

NAME_MAX = 64


def render_parameter(about: tuple[ProcFileSystem, str]) -> str:
    """Renders a stored parameter."""
    proc, name = about
    return f"{proc.kernel.sysctls.get(name)}\n"


def store_parameter(about: tuple[ProcFileSystem, str], data: bytes, writer: Any) -> None:
    """Changes a stored parameter."""
    proc, name = about
    proc.kernel.sysctls.set(name, data.decode("utf-8", "replace"))


def render_hostname(proc: ProcFileSystem) -> str:
    """Renders the host name."""
    return f"{proc.kernel.hostname}\n"


def render_domainname(proc: ProcFileSystem) -> str:
    """Renders the NIS domain name."""
    return f"{proc.kernel.domainname}\n"


def _written_name(data: bytes, writer: Any) -> str:
    if writer is not None and not writer.credentials.has(CAP_SYS_ADMIN):
        raise errnos.EPERM("setting a name needs CAP_SYS_ADMIN")
    return data.split(b"\n", 1)[0].split(b"\0", 1)[0][:NAME_MAX].decode("utf-8", "surrogateescape")


def store_hostname(proc: ProcFileSystem, data: bytes, writer: Any) -> None:
    """Changes the host name."""
    proc.kernel.hostname = _written_name(data, writer)


def store_domainname(proc: ProcFileSystem, data: bytes, writer: Any) -> None:
    """Changes the NIS domain name."""
    proc.kernel.domainname = _written_name(data, writer)


def render_os_type(proc: ProcFileSystem) -> str:
    """Renders the name of the system."""
    return f"{uts.SYSNAME}\n"


def render_os_release(proc: ProcFileSystem) -> str:
    """Renders the release, as uname(2)."""
    return f"{uts.RELEASE}\n"


def render_os_version(proc: ProcFileSystem) -> str:
    """Renders the version, as uname(2)."""
    return f"{uts.VERSION}\n"


def render_boot_id(proc: ProcFileSystem) -> str:
    """Renders the identity of this boot."""
    return f"{proc.boot_id}\n"


def render_uuid(proc: ProcFileSystem) -> str:
    """Renders a new random UUID at each reading."""
    return f"{format_uuid(proc.kernel.random.bytes(16))}\n"


def render_last_pid(proc: ProcFileSystem) -> str:
    """Renders the highest number in use, which is the last given out until numbers go round."""
    return f"{max((*proc.kernel.processes, *proc.kernel.threads), default=0)}\n"


def _open_files(proc: ProcFileSystem) -> int:
    tables = {id(thread.fds): thread.fds for thread in proc.kernel.threads.values()}
    return sum(len(table.files) for table in tables.values())


def render_file_count(proc: ProcFileSystem) -> str:
    """Renders open files, 0, and the most there may be."""
    return f"{_open_files(proc)}\t0\t{proc.kernel.sysctls.get('fs.file-max')}\n"


def render_zeros(proc: ProcFileSystem) -> str:
    """Renders two counters of a cache that is not limited."""
    return "0\t0\n"


def render_dentry_state(proc: ProcFileSystem) -> str:
    """Renders six counters of the dentry cache."""
    return "0\t0\t45\t0\t0\t0\n"


def render_pty_count(proc: ProcFileSystem) -> str:
    """Renders how many pseudo-terminals there are."""
    terminals = getattr(proc.kernel, "terminals", None)
    return f"{terminals.pty_count() if terminals is not None else 0}\n"


class Row(NamedTuple):
    """A rendered parameter."""

    render: Render
    store: Store | None = None


LIVE: dict[str, Row] = {
    "fs.dentry-state": Row(render_dentry_state),
    "fs.file-nr": Row(render_file_count),
    "fs.inode-nr": Row(render_zeros),
    "kernel.domainname": Row(render_domainname, store_domainname),
    "kernel.hostname": Row(render_hostname, store_hostname),
    "kernel.ns_last_pid": Row(render_last_pid),
    "kernel.osrelease": Row(render_os_release),
    "kernel.ostype": Row(render_os_type),
    "kernel.pty.nr": Row(render_pty_count),
    "kernel.random.boot_id": Row(render_boot_id),
    "kernel.random.uuid": Row(render_uuid),
    "kernel.version": Row(render_os_version),
}


def add_parameters(proc: ProcFileSystem, root: Directory) -> None:
    """Builds the tree of /proc/sys below ``root``."""
    for name, entry in TABLE.items():
        store = store_parameter if entry.mode & 0o200 else None
        _place(root, name, TextInode(proc, render_parameter, (proc, name), entry.mode, store))
    for name, row in LIVE.items():
        _place(root, name, TextInode(proc, row.render, proc, 0o644 if row.store else 0o444, row.store))
    for path in ("debug", "dev", "user"):
        root.subdirectory(path)
    root.subdirectory("fs").subdirectory("binfmt_misc")


def _place(root: Directory, name: str, inode: TextInode) -> None:
    *folders, last = name.split(".")
    directory = root
    for folder in folders:
        directory = directory.subdirectory(folder)
    directory.add(last, inode)
