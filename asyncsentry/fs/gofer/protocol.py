"""The gofer's wire format: length-checked binary frames over a SOCK_SEQPACKET Unix socket.

A message is a batch of whole frames. A request frame is a header (id, operation, length) and a
payload; a reply frame is a header (id, errno, flags, length) and a payload, and may carry one
descriptor (``SCM_RIGHTS``, in the order of the frames). A reply longer than a message comes in
several frames of one id, all but the last flagged ``MORE``. A parser raises :class:`Malformed` or
nothing. Imports nothing but struct: both ends share it, and the server must start fast.
(Without typing and socket, and what they import, the server is up after 12 ms instead of 24.)
"""

from __future__ import annotations

from struct import Struct

MAX_MESSAGE = 128 * 1024
"""Bytes in one message; the default send buffer of a Unix socket holds more."""
MAX_DESCRIPTORS = 32
"""Descriptors in one message (the kernel's limit is 253)."""
MAX_PATH = 4096
MAX_NAME = 255
MAX_XATTR = 65536
"""Bytes of an attribute's value, or of all names of a file's attributes."""

REQUEST = Struct("<IHI")
"""Id, operation, payload length."""
REPLY = Struct("<IiBI")
"""Id, errno (0 for success), flags, payload length."""
HAS_DESCRIPTOR = 1
MORE = 2

(ATTACH, WALK, OPEN, READDIR, READLINK, GETATTR, SETATTR, CREATE, MKDIR, SYMLINK, LINK, MKNOD, UNLINK, RENAME, STATFS,
 GETXATTR, SETXATTR, REMOVEXATTR, LISTXATTR, FSYNC, CLOSE, CONNECT, SYNCFS) = range(1, 24)  # fmt: skip

U16 = Struct("<H")
U32 = Struct("<I")
U64 = Struct("<Q")
ATTRIBUTES = Struct("<IIIIQQQQQIqqqq")
"""mode, nlink, uid, gid, dev, ino, rdev, size, blocks, blksize, then atime, mtime, ctime, btime in ns."""
DEVICE_AND_INO = Struct("<QQ")
DEVICE_OFFSET = 16
"""Where those two stand in packed attributes."""
TIME_MIN_NS, TIME_MAX_NS = -(1 << 63), (1 << 63) - 1
"""The years 1677 to 2262: file systems know times beyond, which are sent as the last ones that fit."""
OWNER = Struct("<II")
CHANGE = Struct("<BIIIqqq")
"""Mask of ``CHANGE_*``, mode, uid, gid, size, atime_ns, mtime_ns."""
CHANGE_MODE, CHANGE_UID, CHANGE_GID, CHANGE_SIZE, CHANGE_ATIME, CHANGE_MTIME = (1 << bit for bit in range(6))
ROW = Struct("<IQBBHHI")
"""A file in the answer to WALK or READDIR: handle, inode number, DT_*, whether attributes follow, and the lengths
of name, link target and names of extended attributes; then name, attributes if any, target, names."""
STATFS_REPLY = Struct("<QQQQQQQQ")
"""f_type, f_bsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_namelen."""

KEEP = 1
"""Flag of WALK and of what makes names: open nodes, and give their handles."""
OPEN_LAST = 2
"""Flag of WALK: donate the last file opened for reading, if it is a regular one that can be."""


class Malformed(Exception):
    """Bytes that are no message of this protocol."""


class Reader:
    """Takes fields off a payload, checking every length."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data
        self._position = 0

    def fields(self, layout: Struct) -> tuple[int, ...]:
        """Takes the fields of a fixed layout."""
        start = self._position
        if len(self._data) - start < layout.size:
            raise Malformed("payload is too short")
        self._position = start + layout.size
        return layout.unpack_from(self._data, start)

    def number(self, layout: Struct) -> int:
        """Takes a layout's only field."""
        return self.fields(layout)[0]

    def text(self, limit: int) -> bytes:
        """Takes a counted byte string of at most ``limit`` bytes."""
        count = self.number(U32)
        if count > limit:
            raise Malformed(f"string of {count} bytes where {limit} are the limit")
        start = self._position
        if len(self._data) - start < count:
            raise Malformed("string runs past the payload")
        self._position = start + count
        return bytes(self._data[start : start + count])

    def path(self) -> bytes:
        """Takes a relative path of plain names; empty means the node itself."""
        path = self.text(MAX_PATH)
        if path:
            for name in path.split(b"/"):
                check_name(name)
        return path

    def name(self) -> bytes:
        """Takes one plain name."""
        name = self.text(MAX_NAME)
        check_name(name)
        return name

    def row(self) -> tuple[int, int, int, bytes, bytes, bytes, bytes]:
        """Takes a row: handle, inode number, DT_*, name, packed attributes (perhaps none), link target, xattr names."""
        handle, ino, kind, has_attributes, name_size, target_size, xattrs_size = self.fields(ROW)
        name_end = self._position + name_size
        attributes_end = name_end + (ATTRIBUTES.size if has_attributes else 0)
        target_end = attributes_end + target_size
        end = target_end + xattrs_size
        data = self._data
        if end > len(data):
            raise Malformed("row runs past the payload")
        start, self._position = self._position, end
        return (handle, ino, kind, bytes(data[start:name_end]), bytes(data[name_end:attributes_end]),
                bytes(data[attributes_end:target_end]), bytes(data[target_end:end]))

    @property
    def is_at_end(self) -> bool:
        """Whether everything has been taken."""
        return self._position == len(self._data)

    def finish(self) -> None:
        """Checks that nothing is left over."""
        if not self.is_at_end:
            raise Malformed("payload is too long")


def check_name(name: bytes) -> None:
    """Lets only plain names of one component through: never ``.``, ``..``, a slash or a NUL."""
    if not 0 < len(name) <= MAX_NAME or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise Malformed("not a plain name")


def clamp_time(time_ns: int) -> int:
    """Gives the nearest time that the format holds."""
    return time_ns if TIME_MIN_NS <= time_ns <= TIME_MAX_NS else TIME_MAX_NS if time_ns > 0 else TIME_MIN_NS


def pack_text(data: bytes) -> bytes:
    """Packs a counted byte string."""
    return U32.pack(len(data)) + data


def pack_target(handle: int, path: bytes) -> bytes:
    """Packs what a request is about: a node, and a path of plain names below it."""
    return U32.pack(handle) + U32.pack(len(path)) + path


def pack_row(handle: int, ino: int, kind: int, name: bytes, attributes: bytes = b"", target: bytes = b"",
             xattrs: bytes = b"") -> bytes:
    """Packs a file for the answer to WALK or READDIR."""
    head = ROW.pack(handle, ino, kind, bool(attributes), len(name), len(target), len(xattrs))
    return head + name + attributes + target + xattrs


def pack_request(request_id: int, operation: int, payload: bytes) -> bytes:
    """Packs a request frame."""
    return REQUEST.pack(request_id, operation, len(payload)) + payload


def split_requests(message: bytes) -> list[tuple[int, int, memoryview]]:
    """Cuts a message into (id, operation, payload); all of it must be whole frames."""
    requests = []
    position, view = 0, memoryview(message)
    while position < len(message):
        if len(message) - position < REQUEST.size:
            raise Malformed("cut off in a header")
        request_id, operation, count = REQUEST.unpack_from(message, position)
        position += REQUEST.size
        if len(message) - position < count:
            raise Malformed("frame runs past the message")
        requests.append((request_id, operation, view[position : position + count]))
        position += count
    return requests


def split_replies(message: bytes) -> list[tuple[int, int, int, bytes]]:
    """Cuts a message into (id, errno, flags, payload)."""
    replies = []
    position = 0
    while position < len(message):
        if len(message) - position < REPLY.size:
            raise Malformed("cut off in a header")
        request_id, error, flags, count = REPLY.unpack_from(message, position)
        position += REPLY.size
        if len(message) - position < count:
            raise Malformed("frame runs past the message")
        replies.append((request_id, error, flags, message[position : position + count]))
        position += count
    return replies
