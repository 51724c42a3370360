"""What the gofer tells of one file, as values."""

from __future__ import annotations

from typing import NamedTuple

from asyncsentry.fs.gofer import protocol
from asyncsentry.fs.gofer.protocol import Reader


class Attributes(NamedTuple):
    """What the host's statx(2) tells of a file: the fields of the protocol's ATTRIBUTES."""

    mode: int
    nlink: int
    uid: int
    gid: int
    dev: int
    ino: int
    rdev: int
    size: int
    blocks: int
    blksize: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int

    @classmethod
    def take(cls, reader: Reader) -> Attributes:
        """Takes them off an answer."""
        return cls._make(reader.fields(protocol.ATTRIBUTES))

    @classmethod
    def unpack(cls, packed: bytes) -> Attributes:
        """Unpacks them."""
        return cls._make(protocol.ATTRIBUTES.unpack(packed))


class Found(NamedTuple):
    """One file in an answer."""

    handle: int
    """0 if the gofer keeps none for it."""
    attributes: Attributes
    target: bytes = b""
    """Of a symbolic link."""
    xattr_names: bytes | None = None
    """Joined with NULs; ``None`` if not told."""
