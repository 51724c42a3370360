"""linux/dirent.h: the heads of the rows getdents(2) and getdents64(2) give; the name and its NUL follow."""

from struct import Struct

DIRENT = Struct("<QqH")
"""``struct linux_dirent``: ino, off, reclen; the last byte of the row is the type."""
DIRENT64 = Struct("<QqHB")
"""``struct linux_dirent64``: ino, off, reclen, type."""

DT_UNKNOWN, DT_FIFO, DT_CHR, DT_DIR, DT_BLK, DT_REG, DT_LNK, DT_SOCK = 0, 1, 2, 4, 6, 8, 10, 12
