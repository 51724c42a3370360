"""What the gofer does for each request: one method per operation of the protocol.

The rules that keep it inside its mounts: every path is plain names, resolved with openat2(2) beneath
a directory it already holds; no link is ever followed; only regular files are opened for the sentry
(a directory's descriptor would let it walk upwards); a read-only mount refuses all that changes it.
``nodes.py`` finds the files.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat

from asyncsentry.fs.gofer import protocol
from asyncsentry.fs.gofer.hostcalls import open_beneath, packed_attributes, rename, sync_filesystem
from asyncsentry.fs.gofer.nodes import Answer, Mount, NodeTable, Place
from asyncsentry.fs.gofer.protocol import U32, Malformed, Reader, pack_row

TYPE_CHECKING = False  # importing typing takes 4 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OPEN_FLAGS = os.O_ACCMODE | os.O_APPEND
_OPEN_ALWAYS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_PERMISSIONS = 0o7777
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_REPLY_CHUNK = protocol.MAX_MESSAGE // 2


class Operations:
    """The operations on the nodes of one connection."""

    def __init__(self, mounts: list[Mount], node_limit: int, can_chown: bool) -> None:
        self._nodes = NodeTable(mounts, node_limit)
        self._can_chown = can_chown
        self._table: dict[int, Callable[[Reader], Answer | Iterator[Answer]]] = {
            protocol.ATTACH: self._attach, protocol.WALK: self._walk, protocol.OPEN: self._open,
            protocol.READDIR: self._readdir, protocol.READLINK: self._readlink, protocol.GETATTR: self._getattr,
            protocol.SETATTR: self._setattr, protocol.CREATE: self._create, protocol.MKDIR: self._mkdir,
            protocol.SYMLINK: self._symlink, protocol.LINK: self._link, protocol.MKNOD: self._mknod,
            protocol.UNLINK: self._unlink, protocol.RENAME: self._rename, protocol.STATFS: self._statfs,
            protocol.GETXATTR: self._getxattr, protocol.SETXATTR: self._setxattr,
            protocol.REMOVEXATTR: self._removexattr, protocol.LISTXATTR: self._listxattr,
            protocol.FSYNC: self._fsync, protocol.SYNCFS: self._syncfs, protocol.CLOSE: self._close,
            protocol.CONNECT: self._connect,
        }  # fmt: skip

    def perform(self, operation: int, payload: memoryview) -> Iterator[Answer]:
        """Performs one request; raises OSError or Malformed, or yields the answer in one or more parts."""
        handler = self._table.get(operation)
        if handler is None:
            raise Malformed(f"no operation {operation}")
        answer = handler(Reader(payload))
        if isinstance(answer, Answer):
            yield answer
        else:
            yield from answer

    # Finding files -------------------------------------------------------------------------------

    def _attach(self, reader: Reader) -> Answer:
        index = reader.number(U32)
        reader.finish()
        if index >= len(self._nodes.mounts):
            raise OSError(errno.ENOENT, "no such mount")
        return Answer(U32.pack(index + 1) + packed_attributes(self._nodes.mounts[index].fd))

    def _walk(self, reader: Reader) -> Answer:
        """Walks as far as it can: the errno that ended it, a count, and a row of each file found."""
        with self._nodes.find_to_look(reader) as place:
            flags = reader.number(U32)
            names = reader.path().split(b"/")
            reader.finish()
            if names == [b""]:
                raise Malformed("walk of no names")
            found: list[bytes] = []
            error = 0
            current, mount = place.fd, place.mount
            opened = -1
            descriptor = None
            try:
                for name in names:
                    following = open_beneath(current, name)
                    if opened >= 0:
                        os.close(opened)
                    current = opened = following
                    found.append(self._describe(current, mount, flags))
                if flags & protocol.OPEN_LAST:
                    descriptor = _open_to_read(current)
            except OSError as failure:
                error = failure.errno or errno.EIO
            finally:
                if opened >= 0:
                    os.close(opened)
        return Answer(U32.pack(error) + U32.pack(len(found)) + b"".join(found), descriptor)

    def _describe(self, fd: int, mount: Mount, flags: int) -> bytes:
        mount.is_closed(fd)
        attributes = packed_attributes(fd)
        target = os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(U32.unpack_from(attributes)[0]) else b""
        handle = self._nodes.keep(os.dup(fd), mount) if flags & protocol.KEEP else 0
        return pack_row(handle, 0, 0, b"", attributes, target, _xattr_names(str(fd), attributes))

    # Reading -------------------------------------------------------------------------------------

    def _open(self, reader: Reader) -> Answer:
        with self._nodes.find(reader) as place:
            flags = reader.number(U32)
            reader.finish()
            attributes = packed_attributes(place.fd)
            if flags & ~_OPEN_FLAGS or flags & os.O_ACCMODE == os.O_ACCMODE:
                raise OSError(errno.EINVAL, "open flags")
            if not stat.S_ISREG(U32.unpack_from(attributes)[0]):
                raise OSError(errno.ENXIO, "not a regular file")
            if flags & os.O_ACCMODE != os.O_RDONLY:
                place.check_writable()
            return Answer(attributes, os.open(place.by_number, flags | _OPEN_ALWAYS))

    def _readdir(self, reader: Reader) -> Iterator[Answer]:
        """Lists a directory; with attributes if it has at most ``plus_limit`` names."""
        with self._nodes.find_to_look(reader) as place:
            plus_limit = reader.number(U32)
            reader.finish()
            if place.is_closed:
                yield Answer(b"")
                return
            fd = os.open(place.by_number, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with os.scandir(fd) as scan:
                    entries = list(scan)
                chunk = bytearray()
                for entry in entries:
                    chunk += _pack_entry(fd, entry, len(entries) <= plus_limit)
                    if len(chunk) >= _REPLY_CHUNK:
                        yield Answer(bytes(chunk), has_more=True)
                        chunk.clear()
                yield Answer(bytes(chunk))
            finally:
                os.close(fd)

    def _readlink(self, reader: Reader) -> Answer:
        with self._nodes.find(reader) as place:
            reader.finish()
            return Answer(os.readlink(b"", dir_fd=place.fd))

    def _getattr(self, reader: Reader) -> Answer:
        with self._nodes.find_to_look(reader) as place:
            reader.finish()
            return Answer(packed_attributes(place.fd))

    def _statfs(self, reader: Reader) -> Answer:
        with self._nodes.find_to_look(reader) as place:
            reader.finish()
            found = os.statvfs(place.fd)
            return Answer(protocol.STATFS_REPLY.pack(
                0, found.f_bsize, found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree,
                found.f_namemax))  # fmt: skip

    def _getxattr(self, reader: Reader) -> Answer:
        with self._nodes.find(reader) as place:
            name = reader.text(protocol.MAX_NAME)
            reader.finish()
            return Answer(os.getxattr(place.by_number, _xattr_name(name)))

    def _listxattr(self, reader: Reader) -> Answer:
        with self._nodes.find(reader) as place:
            reader.finish()
            return Answer(b"\0".join(map(os.fsencode, os.listxattr(place.by_number))))

    # Changing ------------------------------------------------------------------------------------

    def _setattr(self, reader: Reader) -> Answer:
        with self._nodes.find(reader) as place:
            mask, mode, uid, gid, size, atime_ns, mtime_ns = reader.fields(protocol.CHANGE)
            reader.finish()
            place.check_writable()
            path = place.by_number
            if mask & protocol.CHANGE_SIZE:
                if size < 0:
                    raise OSError(errno.EINVAL, "negative size")
                os.truncate(path, size)
            if mask & (protocol.CHANGE_UID | protocol.CHANGE_GID):
                os.chown(path, uid if mask & protocol.CHANGE_UID else -1, gid if mask & protocol.CHANGE_GID else -1)
            if mask & protocol.CHANGE_MODE:
                os.chmod(path, mode & _PERMISSIONS)
            if mask & (protocol.CHANGE_ATIME | protocol.CHANGE_MTIME):
                now = os.stat(path)
                os.utime(path, ns=(atime_ns if mask & protocol.CHANGE_ATIME else now.st_atime_ns,
                                   mtime_ns if mask & protocol.CHANGE_MTIME else now.st_mtime_ns))
            return Answer(packed_attributes(place.fd))

    def _create(self, reader: Reader) -> Answer:
        """Makes a regular file and donates it opened for reading and writing; an empty name makes it unnamed."""
        with self._nodes.find(reader) as place:
            name = reader.text(protocol.MAX_NAME)
            mode, keep = reader.number(U32), reader.number(U32)
            uid, gid = reader.fields(protocol.OWNER)
            reader.finish()
            place.check_writable()
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
            if name:
                protocol.check_name(name)
                fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, mode & _PERMISSIONS, dir_fd=place.fd)
            else:
                fd = os.open(place.by_number, os.O_RDWR | os.O_CLOEXEC | os.O_TMPFILE, mode & _PERMISSIONS)
            try:
                self._give_to(str(fd), uid, gid, mode)
                handle = 0
                if keep:
                    handle = self._nodes.keep(os.open(str(fd), os.O_PATH | os.O_CLOEXEC), place.mount)
                return Answer(U32.pack(handle) + packed_attributes(fd), fd)
            except BaseException:
                os.close(fd)
                raise

    def _mkdir(self, reader: Reader) -> Answer:
        return self._make(reader, lambda fd, name, mode, _: os.mkdir(name, mode, dir_fd=fd))

    def _symlink(self, reader: Reader) -> Answer:
        return self._make(reader, lambda fd, name, _, target: os.symlink(target, name, dir_fd=fd))

    def _mknod(self, reader: Reader) -> Answer:
        """Makes a FIFO or a socket's name; device nodes belong to the sentry alone."""

        def make(fd: int, name: bytes, mode: int, _: bytes) -> None:
            if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
                raise OSError(errno.EPERM, "only FIFOs and sockets")
            os.mknod(name, mode, dir_fd=fd)

        return self._make(reader, make)

    def _make(self, reader: Reader, make: Callable[[int, bytes, int, bytes], None]) -> Answer:
        """Makes a name with ``make(directory, name, mode, link target)`` and gives handle and attributes."""
        with self._nodes.find(reader) as place:
            name = reader.name()
            mode, keep = reader.number(U32), reader.number(U32)
            uid, gid = reader.fields(protocol.OWNER)
            target = reader.text(protocol.MAX_PATH)
            reader.finish()
            if b"\0" in target:
                raise Malformed("NUL in a link target")
            place.check_writable()
            make(place.fd, name, mode & (_PERMISSIONS | stat.S_IFMT(mode)), target)
            fd = open_beneath(place.fd, name)
            try:
                self._check_is_ours(fd)
                self._give_to(str(fd), uid, gid, mode if not target else 0)
                handle = self._nodes.keep(os.dup(fd), place.mount) if keep else 0
                return Answer(U32.pack(handle) + packed_attributes(fd))
            finally:
                os.close(fd)

    def _check_is_ours(self, fd: int) -> None:
        """Raises unless this is what we have just made: somebody else on the host may have put another there."""
        made = os.stat(fd)
        if made.st_uid != os.geteuid() or (made.st_nlink != 1 and not stat.S_ISDIR(made.st_mode)):
            raise OSError(errno.ESTALE, "replaced meanwhile")

    def _give_to(self, path: str, uid: int, gid: int, mode: int) -> None:
        """Sets the owner of a new file; an ordinary user's gofer cannot, so its files stay its user's."""
        if self._can_chown:
            os.chown(path, uid, gid)
            if mode & (stat.S_ISUID | stat.S_ISGID):  # chown(2) has cleared them
                os.chmod(path, mode & _PERMISSIONS)

    def _link(self, reader: Reader) -> Answer:
        with self._nodes.find(reader) as source, self._nodes.find(reader) as directory:
            name = reader.name()
            reader.finish()
            directory.check_writable()
            _check_same_mount(source, directory)
            os.link(source.by_number, name, dst_dir_fd=directory.fd, follow_symlinks=True)
            return Answer(packed_attributes(source.fd))

    def _unlink(self, reader: Reader) -> Answer:
        with self._nodes.find(reader) as place:
            name = reader.name()
            is_directory = reader.number(U32)
            reader.finish()
            place.check_writable()
            (os.rmdir if is_directory else os.unlink)(name, dir_fd=place.fd)
            return Answer(b"")

    def _rename(self, reader: Reader) -> Answer:
        with self._nodes.find(reader) as old, self._nodes.find(reader) as new:
            old_name, new_name = reader.name(), reader.name()
            flags = reader.number(U32)
            reader.finish()
            old.check_writable()
            _check_same_mount(old, new)
            if flags & ~(_RENAME_NOREPLACE | _RENAME_EXCHANGE):
                raise OSError(errno.EINVAL, "rename flags")
            rename(old.fd, old_name, new.fd, new_name, flags)
            return Answer(b"")

    def _setxattr(self, reader: Reader) -> Answer:
        with self._nodes.find(reader) as place:
            name, value = reader.text(protocol.MAX_NAME), reader.text(protocol.MAX_XATTR)
            flags = reader.number(U32)
            reader.finish()
            place.check_writable()
            if flags not in (0, os.XATTR_CREATE, os.XATTR_REPLACE):
                raise OSError(errno.EINVAL, "xattr flags")
            _check_xattr_settable(name)
            os.setxattr(place.by_number, _xattr_name(name), value, flags)
            return Answer(b"")

    def _removexattr(self, reader: Reader) -> Answer:
        with self._nodes.find(reader) as place:
            name = reader.text(protocol.MAX_NAME)
            reader.finish()
            place.check_writable()
            _check_xattr_settable(name)
            os.removexattr(place.by_number, _xattr_name(name))
            return Answer(b"")

    # The rest ------------------------------------------------------------------------------------

    def _fsync(self, reader: Reader) -> Answer:
        return self._sync(reader, os.fsync)

    def _syncfs(self, reader: Reader) -> Answer:
        return self._sync(reader, sync_filesystem)

    def _sync(self, reader: Reader, sync: Callable[[int], None]) -> Answer:
        with self._nodes.find(reader) as place:
            reader.finish()
            if place.mount.read_only:
                return Answer(b"")
            mode = os.stat(place.fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise OSError(errno.EINVAL, "not a file to sync")
            fd = os.open(place.by_number, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                sync(fd)
            finally:
                os.close(fd)
            return Answer(b"")

    def _close(self, reader: Reader) -> Answer:
        while not reader.is_at_end:
            self._nodes.close(reader.number(U32))
        return Answer(b"")

    def _connect(self, reader: Reader) -> Answer:
        with self._nodes.find(reader) as place:
            kind = reader.number(U32)
            reader.finish()
            if not place.mount.host_sockets:
                raise OSError(errno.ECONNREFUSED, "host sockets are not allowed")
            if not stat.S_ISSOCK(os.stat(place.fd).st_mode):
                raise OSError(errno.ECONNREFUSED, "not a socket")
            if kind not in (_socket.SOCK_STREAM, _socket.SOCK_DGRAM, _socket.SOCK_SEQPACKET):
                raise OSError(errno.EINVAL, "socket type")
            connection = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_NONBLOCK)
            try:
                connection.connect(place.by_number)
                return Answer(b"", connection.detach())
            finally:
                connection.close()


def _open_to_read(fd: int) -> int | None:
    """Opens a regular file found by O_PATH; gives nothing if it is none or not readable."""
    if not stat.S_ISREG(os.stat(fd).st_mode):
        return None
    try:
        return os.open(str(fd), os.O_RDONLY | _OPEN_ALWAYS)
    except OSError:
        return None


def _pack_entry(directory_fd: int, entry: os.DirEntry[str], plus: bool) -> bytes:
    name = os.fsencode(entry.name)
    if plus:
        try:
            attributes = packed_attributes(directory_fd, name)
            mode = U32.unpack_from(attributes)[0]
            target = os.readlink(name, dir_fd=directory_fd) if stat.S_ISLNK(mode) else b""
            xattrs = _xattr_names(f"{directory_fd}/{entry.name}", attributes)
            return pack_row(0, entry.inode(), mode >> 12, name, attributes, target, xattrs)
        except OSError:  # removed meanwhile: list it as it was, like getdents64(2) would
            pass
    return pack_row(0, entry.inode(), _kind(directory_fd, entry), name)


def _kind(directory_fd: int, entry: os.DirEntry[str]) -> int:
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG >> 12
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR >> 12
    if entry.is_symlink():
        return stat.S_IFLNK >> 12
    try:
        return os.stat(entry.name, dir_fd=directory_fd, follow_symlinks=False).st_mode >> 12
    except OSError:
        return 0


def _xattr_names(path: str, attributes: bytes) -> bytes:
    """Gives the names of a file's attributes, almost always none: so the sentry need not ask later."""
    mode = U32.unpack_from(attributes)[0]
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return b""
    try:
        names = os.listxattr(path, follow_symlinks=path.isdigit())  # a number is a magic link to the file itself
    except OSError:
        return b""
    return b"\0".join(map(os.fsencode, names)) if names else b""


def _xattr_name(name: bytes) -> bytes:
    if not name or b"\0" in name:
        raise OSError(errno.EINVAL, "attribute name")
    return name


def _check_xattr_settable(name: bytes) -> None:
    """Lets only attributes through that mean nothing to the host: no file capabilities, no security labels."""
    if not name.startswith(b"user."):
        raise OSError(errno.EPERM, "only user attributes reach the host")


def _check_same_mount(first: Place, second: Place) -> None:
    if first.mount is not second.mount:
        raise OSError(errno.EXDEV, "different mounts")
