"""eventfd.h: flags of eventfd(2)."""

EFD_SEMAPHORE = 1
EFD_NONBLOCK = 0o4000
EFD_CLOEXEC = 0o2000000
EFD_MAX = (1 << 64) - 2
"""Largest value the counter may have."""
