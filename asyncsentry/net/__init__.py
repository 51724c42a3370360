"""Sockets and, later, our own TCP/IP stack. Protocol code imports no asyncio and takes `now_ns`."""
