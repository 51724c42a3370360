"""Who writes a file and who runs it, which exclude each other: ETXTBSY, Linux's ``i_writecount``.

The counts are the inode's (:attr:`Inode.writers`, :attr:`Inode.denials`), and each open file knows its own share
in them (:attr:`File.write_share`), which :func:`put_access` gives back when the file goes. What was made open
(memfd_create(2)) counts for nothing, as in Linux. An executable is denied to writers as long as something of it
is mapped; the interpreters that led to it only until it is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi.stat_h import S_IFREG
from asyncsentry.errnos import ETXTBSY

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.fs.inode import Inode


def begin_write(inode: Inode) -> bool:
    """Counts a writer of a regular file, and says whether it did; ETXTBSY if the file is being executed."""
    if inode.kind != S_IFREG:
        return False
    check_not_executed(inode)
    inode.writers += 1
    return True


def check_not_executed(inode: Inode) -> None:
    """ETXTBSY if the file is being executed."""
    if inode.denials:
        raise ETXTBSY("the file is being executed")


def deny_write(file: File) -> None:
    """Keeps writers off while ``file`` is open; ETXTBSY if there are any."""
    inode = file.inode
    assert inode is not None
    if inode.writers:
        raise ETXTBSY("the file is open for writing")
    inode.denials += 1
    file.write_share = -1


def put_access(file: File) -> None:
    """Gives back what a file counts for."""
    share, file.write_share = file.write_share, 0
    if share and file.inode is not None:
        if share > 0:
            file.inode.writers -= 1
        else:
            file.inode.denials -= 1
