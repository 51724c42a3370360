"""linux/aio_abi.h: control blocks and events of io_submit(2)."""

from struct import Struct

IOCB = Struct("<QIiHhIQqqQII")
"""``struct iocb``: data, key, rw_flags, opcode, reqprio, fd, buf, nbytes, offset, reserved2, flags, resfd."""
IOCB_KEY_OFFSET = 8
IO_EVENT = Struct("<QQqq")
"""``struct io_event``: data, obj, res, res2."""

IOCB_CMD_PREAD = 0
IOCB_CMD_PWRITE = 1
IOCB_CMD_FSYNC = 2
IOCB_CMD_FDSYNC = 3
IOCB_CMD_POLL = 5
IOCB_CMD_NOOP = 6
IOCB_CMD_PREADV = 7
IOCB_CMD_PWRITEV = 8

IOCB_FLAG_RESFD = 1
IOCB_FLAG_IOPRIO = 2
KIOCB_KEY = 0
