"""The tables of mounts: /proc/PID/mounts, mountinfo and mountstats. See proc_pid_mountinfo(5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from asyncsentry.abi.mount_h import MS_RDONLY
from asyncsentry.fs.dentry import Location
from asyncsentry.fs.path import is_reachable, path_of
from asyncsentry.fs.procfs.base import Subject

if TYPE_CHECKING:
    from asyncsentry.fs.mount import Mount

_ESCAPES = str.maketrans({" ": "\\040", "\t": "\\011", "\n": "\\012", "\\": "\\134", "#": "\\043"})


def visible_mounts(subject: Subject) -> Iterator[tuple[Mount, str]]:
    """Gives the mounts below the root of the process, with their mount points as it sees them."""
    thread: Any = subject.live()
    root: Location = thread.fs.root
    namespace = root.mount.namespace or subject.kernel.mounts
    for mount in namespace:
        # A mount is where its root can be reached; the root of a chroot may lie within a mount.
        if mount is root.mount and root.dentry is not mount.root:
            yield mount, "/"
        elif is_reachable(Location(mount, mount.root), root):
            yield mount, path_of(Location(mount, mount.root), root)


def _escape(text: str) -> str:
    return text.translate(_ESCAPES)


def _super_options(mount: Mount) -> str:
    own = mount.filesystem.mount_options()
    return ("ro" if mount.filesystem.read_only else "rw") + (f",{own}" if own else "")


def _all_options(mount: Mount) -> str:
    mode, _, rest = mount.option_names().partition(",")
    if mount.filesystem.read_only or mount.flags & MS_RDONLY:
        mode = "ro"
    return ",".join(filter(None, (mode, rest, mount.filesystem.mount_options())))


def render_mounts(subject: Subject) -> str:
    """Renders /proc/PID/mounts."""
    return "".join(
        f"{_escape(mount.source)} {_escape(point)} {mount.filesystem.name} {_all_options(mount)} 0 0\n"
        for mount, point in visible_mounts(subject)
    )


def render_mountinfo(subject: Subject) -> str:
    """Renders /proc/PID/mountinfo."""
    lines = []
    for mount, point in visible_mounts(subject):
        device = mount.filesystem.device
        parent = mount.parent.mount_id if mount.parent is not None else mount.mount_id
        lines.append(
            f"{mount.mount_id} {parent} {device >> 8 & 0xFFF}:{device & 0xFF | device >> 12 & 0xFFF00} "
            f"{_escape(mount.root_path())} {_escape(point)} {mount.option_names()} - {mount.filesystem.name} "
            f"{_escape(mount.source)} {_super_options(mount)}\n"
        )
    return "".join(lines)


def render_mountstats(subject: Subject) -> str:
    """Renders /proc/PID/mountstats."""
    return "".join(
        f"device {_escape(mount.source)} mounted on {_escape(point)} with fstype {mount.filesystem.name}\n"
        for mount, point in visible_mounts(subject)
    )
