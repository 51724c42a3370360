"""asm-generic/ioctls.h and linux/fs.h: request numbers of ioctl(2)."""

FIONREAD = 0x541B
FIONBIO = 0x5421
FIONCLEX = 0x5450
FIOCLEX = 0x5451
FIOASYNC = 0x5452
FIOQSIZE = 0x5460
FIGETBSZ = 2
FS_IOC_GETFLAGS = 0x80086601
