"""SOL_SOCKET options that every family has, socket(7); net/core/sock.c is the reference for odd values."""

from __future__ import annotations

from typing import Protocol

from asyncsentry import errnos
from asyncsentry.abi import socket_h as s
from asyncsentry.abi.capability_h import CAP_NET_ADMIN, CAP_NET_RAW
from asyncsentry.clock import NS_PER_SECOND
from asyncsentry.net.ancillary import Caller

BOOLEANS = frozenset((
    s.SO_DEBUG, s.SO_REUSEADDR, s.SO_DONTROUTE, s.SO_BROADCAST, s.SO_KEEPALIVE, s.SO_OOBINLINE, s.SO_NO_CHECK,
    s.SO_REUSEPORT, s.SO_PASSCRED, s.SO_PASSSEC, s.SO_TIMESTAMP, s.SO_TIMESTAMPNS, s.SO_RXQ_OVFL,
))  # fmt: skip
"""Options that keep whether they were set to anything but zero."""
_TIMEOUTS = {s.SO_RCVTIMEO: "receive", s.SO_RCVTIMEO_NEW: "receive", s.SO_SNDTIMEO: "send", s.SO_SNDTIMEO_NEW: "send"}
_FIXED = {
    s.SO_SNDLOWAT: 1, s.SO_BUSY_POLL: 0, s.SO_BPF_EXTENSIONS: 64, s.SO_INCOMING_CPU: -1, s.SO_ZEROCOPY: 0,
    s.SO_LOCK_FILTER: 0,
}  # fmt: skip
"""Options that can be asked for but never change here."""
_INT_MAX = 0x7FFFFFFF
_PRIORITY_MAX_UNPRIVILEGED = 6


class Limits(Protocol):
    """Where the limits of a sandbox are kept: its sysctls."""

    def integer(self, name: str, /) -> int:
        """Gives a parameter, e.g. ``net.core.wmem_max``."""


class SocketOptions:
    """The options of one socket."""

    __slots__ = ("flags", "limits", "linger_seconds", "mark", "peek_offset", "priority", "receive_buffer",
                 "receive_low_water", "receive_timeout_ns", "send_buffer", "send_timeout_ns")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.flags: set[int] = set()
        """The boolean options that are on."""
        self.send_buffer = limits.integer("net.core.wmem_default")
        self.receive_buffer = limits.integer("net.core.rmem_default")
        self.receive_low_water = 1
        self.receive_timeout_ns: int | None = None
        """How long a receive may block; ``None`` for ever."""
        self.send_timeout_ns: int | None = None
        self.linger_seconds: int | None = None
        """``None`` while SO_LINGER is off."""
        self.priority = 0
        self.mark = 0
        self.peek_offset = -1
        """Where the next MSG_PEEK begins, SO_PEEK_OFF; negative for always at the beginning."""

    def copy(self) -> SocketOptions:
        """Gives what a connection inherits from its listener."""
        other = SocketOptions(self.limits)
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(other, name, set(value) if isinstance(value, set) else value)
        return other

    def set(self, caller: Caller, name: int, value: bytes) -> None:
        """Sets an option; EINVAL for a short value, ENOPROTOOPT for an unknown name."""
        if len(value) < 4:
            raise errnos.EINVAL(f"{len(value)} bytes are no option value")
        number = int.from_bytes(value[:4], "little", signed=True)
        if name in BOOLEANS:
            (self.flags.add if number else self.flags.discard)(name)
        elif name in (s.SO_SNDBUF, s.SO_SNDBUFFORCE):
            largest = self.limits.integer("net.core.wmem_max")
            self.send_buffer = _buffer_size(caller, name == s.SO_SNDBUFFORCE, number, largest, s.SOCK_MIN_SNDBUF)
        elif name in (s.SO_RCVBUF, s.SO_RCVBUFFORCE):
            largest = self.limits.integer("net.core.rmem_max")
            self.receive_buffer = _buffer_size(caller, name == s.SO_RCVBUFFORCE, number, largest, s.SOCK_MIN_RCVBUF)
        elif name in _TIMEOUTS:
            self._set_timeout(_TIMEOUTS[name], value)
        elif name == s.SO_LINGER:
            self._set_linger(value)
        elif name == s.SO_RCVLOWAT:
            self.receive_low_water = (_INT_MAX if number < 0 else number) or 1
        elif name == s.SO_PRIORITY:
            if not (0 <= number <= _PRIORITY_MAX_UNPRIVILEGED or _may_administer(caller)):
                raise errnos.EPERM(f"priority {number} needs CAP_NET_ADMIN")
            self.priority = number
        elif name == s.SO_MARK:
            if not _may_administer(caller):
                raise errnos.EPERM("marking needs CAP_NET_ADMIN")
            self.mark = number
        elif name == s.SO_DETACH_FILTER:
            raise errnos.ENOENT("no filter is attached")
        else:
            raise errnos.ENOPROTOOPT(f"no socket option {name}")

    def get(self, name: int) -> bytes:
        """Gives the whole value of an option kept here; ENOPROTOOPT for any other."""
        if name in BOOLEANS:
            return _int(name in self.flags)
        if name in _TIMEOUTS:
            timeout_ns = self.receive_timeout_ns if _TIMEOUTS[name] == "receive" else self.send_timeout_ns
            return s.TIMEVAL.pack(*divmod((timeout_ns or 0) // 1000, 1_000_000))
        if name == s.SO_LINGER:
            return s.LINGER.pack(self.linger_seconds is not None, self.linger_seconds or 0)
        if name == s.SO_MAX_PACING_RATE:
            return b"\xff" * 8
        if name == s.SO_TIMESTAMPING:
            return bytes(8)
        if name == s.SO_ATTACH_FILTER:  # here SO_GET_FILTER
            return b""
        numbers = {s.SO_SNDBUF: self.send_buffer, s.SO_RCVBUF: self.receive_buffer, s.SO_PRIORITY: self.priority,
                   s.SO_RCVLOWAT: self.receive_low_water, s.SO_MARK: self.mark, s.SO_PEEK_OFF: self.peek_offset}
        numbers.update(_FIXED)
        if name in numbers:
            return _int(numbers[name])
        raise errnos.ENOPROTOOPT(f"no socket option {name}")

    def _set_timeout(self, direction: str, value: bytes) -> None:
        if len(value) < s.TIMEVAL.size:
            raise errnos.EINVAL("not a timeval")
        seconds, microseconds = s.TIMEVAL.unpack_from(value)
        if not 0 <= microseconds < 1_000_000:
            raise errnos.EDOM(f"{microseconds} microseconds")
        timeout_ns: int | None = max(0, seconds) * NS_PER_SECOND + microseconds * 1000 if seconds >= 0 else 0
        if seconds == 0 and microseconds == 0:
            timeout_ns = None
        if direction == "receive":
            self.receive_timeout_ns = timeout_ns
        else:
            self.send_timeout_ns = timeout_ns

    def _set_linger(self, value: bytes) -> None:
        if len(value) < s.LINGER.size:
            raise errnos.EINVAL("not a linger")
        is_on, seconds = s.LINGER.unpack_from(value)
        self.linger_seconds = seconds if is_on else None


def _int(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


def _may_administer(caller: Caller) -> bool:
    return caller.credentials.has(CAP_NET_ADMIN) or caller.credentials.has(CAP_NET_RAW)


def _buffer_size(caller: Caller, force: bool, size: int, largest: int, least: int) -> int:
    """Doubles what was asked for, since Linux counts its own overhead too, socket(7)."""
    if force:
        if not caller.credentials.has(CAP_NET_ADMIN):
            raise errnos.EPERM("forcing a buffer size needs CAP_NET_ADMIN")
        size = max(size, 0)
    else:
        size = min(size & 0xFFFFFFFF, largest)
    return max(min(size, _INT_MAX // 2) * 2, least)
