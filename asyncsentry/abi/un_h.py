"""Addresses of AF_UNIX sockets: linux/un.h."""

from __future__ import annotations

UNIX_PATH_MAX = 108
SUN_PATH_OFFSET = 2
SOCKADDR_UN_SIZE = SUN_PATH_OFFSET + UNIX_PATH_MAX

SS_UNCONNECTED = 1
SS_CONNECTING = 2
SS_CONNECTED = 3
SO_ACCEPTCON = 1 << 16
"""The flag a listening socket shows in /proc/net/unix."""
