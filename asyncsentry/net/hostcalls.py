"""Host socket calls with raw addresses and control messages, which Python's own module hides behind tuples.

A guest's ``sockaddr`` goes to the host kernel as it is, so that every odd case (a v4 address for a v6 socket,
AF_UNSPEC, a short length) is judged by Linux itself. See recvmsg(2), connect(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import NamedTuple

from asyncsentry import errnos
from asyncsentry.abi.socket_h import MSG_CTRUNC, MSG_NOSIGNAL, SOCKADDR_STORAGE_SIZE

DATA_SIZE = 1 << 18
"""The most bytes one receive gives; more than any datagram."""
CONTROL_SIZE = 1024
_AGAIN = frozenset((errno.EAGAIN, errno.EINPROGRESS, errno.EALREADY))


class _SendVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _SendHeader(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p), ("name_length", ctypes.c_uint), ("vector", ctypes.POINTER(_SendVector)),
        ("count", ctypes.c_size_t), ("control", ctypes.c_char_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )  # fmt: skip


class _ReceiveVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _ReceiveHeader(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("vector", ctypes.POINTER(_ReceiveVector)),
        ("count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )  # fmt: skip


class RawMessage(NamedTuple):
    """What recvmsg(2) gave."""

    data: bytes
    name: bytes
    control: bytes
    flags: int
    length: int


class HostCalls:
    """The C library's socket calls, with buffers that are used again and again."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._data = bytearray(DATA_SIZE)
        self._name = bytearray(SOCKADDR_STORAGE_SIZE)
        self._control = bytearray(CONTROL_SIZE)
        self._room = _ReceiveVector(_address_of(self._data))
        self._receive = _ReceiveHeader(_address_of(self._name), 0, ctypes.pointer(self._room), 1,
                                       _address_of(self._control))
        self._length = ctypes.c_uint()

    def connect(self, fd: int, name: bytes) -> None:
        """Connects; WouldBlock while that is in progress."""
        _check(self._libc.connect(fd, name, len(name)))

    def bind(self, fd: int, name: bytes) -> None:
        """Binds."""
        _check(self._libc.bind(fd, name, len(name)))

    def local_name(self, fd: int) -> bytes:
        """Gives getsockname(2)."""
        return self._get_name(self._libc.getsockname, fd)

    def peer_name(self, fd: int) -> bytes:
        """Gives getpeername(2)."""
        return self._get_name(self._libc.getpeername, fd)

    def _get_name(self, call: ctypes._NamedFuncPointer, fd: int) -> bytes:
        self._length.value = len(self._name)
        _check(call(fd, ctypes.c_void_p(self._receive.name), ctypes.byref(self._length)))
        return bytes(self._name[: self._length.value])

    def sendmsg(self, fd: int, data: bytes, name: bytes, control: bytes, flags: int) -> int:
        """Sends; never raises SIGPIPE here."""
        vector = _SendVector(data, len(data))
        header = _SendHeader(name or None, len(name), ctypes.pointer(vector), 1, control or None, len(control))
        return _check(self._libc.sendmsg(fd, ctypes.byref(header), flags | MSG_NOSIGNAL))

    def recvmsg(self, fd: int, count: int, flags: int) -> RawMessage:
        """Receives up to ``count`` bytes; only what the host has written comes out of the buffers."""
        header = self._receive
        self._room.length = min(count, DATA_SIZE)
        header.name_length, header.control_length = len(self._name), CONTROL_SIZE
        length = _check(self._libc.recvmsg(fd, ctypes.byref(header), flags))
        return RawMessage(bytes(self._data[: min(length, self._room.length)]),
                          bytes(self._name[: min(header.name_length, len(self._name))]),
                          bytes(self._control[: header.control_length]), header.flags & ~MSG_CTRUNC, length)


def _address_of(buffer: bytearray) -> int:
    """Gives the address of a buffer, which stays where it is as it never changes its size."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def _check(result: int) -> int:
    """Translates a failure: this is the border where host errors become the guest's."""
    if result >= 0:
        return result
    number = ctypes.get_errno()
    if number in _AGAIN:
        raise errnos.WouldBlock
    raise errnos.from_host(OSError(number, os.strerror(number)))
