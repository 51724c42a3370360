"""Where a process stands in the tree of files: root, working directory, umask. See fs_struct, CLONE_FS."""

from __future__ import annotations

from asyncsentry.fs.dentry import Location


class FsContext:
    """Root, working directory and umask; shared with CLONE_FS, copied otherwise."""

    __slots__ = ("cwd", "root", "umask")

    def __init__(self, root: Location, cwd: Location, umask: int = 0o022) -> None:
        self.root = root
        self.cwd = cwd
        self.umask = umask

    def copy(self) -> FsContext:
        """Gives an independent copy, fork(2)."""
        return FsContext(self.root, self.cwd, self.umask)
