"""Open directories, the same for every file system: getdents64(2) over what ``Inode.entries`` lists.

The list is taken when reading starts at the beginning and kept while it goes on, so names removed or added
meanwhile neither repeat nor hide others; lseek(2) to 0 takes it anew. POSIX leaves open whether changes show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.fs.file import SEEK_CUR, SEEK_SET, File, check_position

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.inode import DirectoryEntry, Inode

_DT_DIR = 4
_ROWS_MAX = 2048


class DirectoryFile(File):
    """An open directory. Positions are row numbers; rows 0 and 1 are ``.`` and ``..``."""

    seekable = True
    pollable = False

    def __init__(self, inode: Inode, flags: int, location: Location) -> None:
        super().__init__(inode, flags, location)
        self._listing: list[DirectoryEntry] | None = None

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Refuses: directories are read with getdents64(2)."""
        raise errnos.EISDIR("a directory")

    def seek(self, offset: int, whence: int) -> int:
        """Moves to a position getdents64(2) gave, or to the start."""
        if whence == SEEK_CUR:
            offset += self.position
        elif whence != SEEK_SET:
            raise errnos.EINVAL("directories have no end to seek from")
        self.position = check_position(offset)
        return offset

    async def entries_from(self, position: int) -> list[tuple[int, str, int, int]]:
        """Gives rows from ``position`` on: none at the end, and not more at once than one call can use."""
        inode = self.inode
        assert inode is not None
        if self.location is not None and self.location.dentry.unlinked:
            raise errnos.ENOENT("the directory was removed")
        if position == 0 or self._listing is None:
            self._listing = await inode.entries()
        rows = [(1, ".", inode.ino, _DT_DIR), (2, "..", self._parent_ino(), _DT_DIR)][position:]
        start = max(0, position - 2)
        rows += [
            (number, entry.name, entry.ino, entry.kind)
            for number, entry in enumerate(self._listing[start : start + _ROWS_MAX], start + 3)
        ]  # fmt: skip
        return rows

    async def sync(self, data_only: bool = False) -> None:
        """Has nothing to write: names are changed at once."""

    def _parent_ino(self) -> int:
        assert self.inode is not None
        parent = self.location.dentry.parent if self.location is not None else None
        return parent.inode.ino if parent is not None and parent.inode is not None else self.inode.ino
