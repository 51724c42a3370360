"""System V IPC: linux/ipc.h, linux/shm.h, sysvipc(7)."""

import struct

IPC_PRIVATE = 0
IPC_CREAT = 0o1000
IPC_EXCL = 0o2000
IPC_NOWAIT = 0o4000

IPC_RMID = 0
IPC_SET = 1
IPC_STAT = 2
IPC_INFO = 3

SHM_HUGETLB = 0o4000
SHM_NORESERVE = 0o10000

SHM_RDONLY = 0o10000
SHM_RND = 0o20000
SHM_REMAP = 0o40000
SHM_EXEC = 0o100000

SHM_LOCK = 11
SHM_UNLOCK = 12
SHM_STAT = 13
SHM_INFO = 14
SHM_STAT_ANY = 15

SHM_DEST = 0o1000
SHM_LOCKED = 0o2000
"""Bits of ``shm_perm.mode``."""

SHMMNI = 4096
SHMMAX = (1 << 64) - 1 - (1 << 24)
SHMALL = SHMMAX

IPC_PERM = struct.Struct("<iIIIIIHxxxxxxQQ")
"""struct ipc64_perm: key, uid, gid, cuid, cgid, mode, seq, two unused words."""
SHMID_DS = struct.Struct("<QqqqiiQQQ")
"""The rest of struct shmid64_ds: segsz, atime, dtime, ctime, cpid, lpid, nattch, two unused words."""
SHMINFO = struct.Struct("<9Q")
"""struct shminfo64: shmmax, shmmin, shmmni, shmseg, shmall, four unused words."""
SHM_INFO_STRUCT = struct.Struct("<i4x5Q")
"""struct shm_info: used_ids, shm_tot, shm_rss, shm_swp, swap_attempts, swap_successes."""

# linux/sem.h -----------------------------------------------------------------------------------------

SEM_UNDO = 0x1000
GETPID, GETVAL, GETALL, GETNCNT, GETZCNT, SETVAL, SETALL, SEM_STAT, SEM_INFO, SEM_STAT_ANY = range(11, 21)
SEMMNI = 32000
SEMMSL = 32000
SEMMNS = SEMMNI * SEMMSL
SEMOPM = 500
SEMVMX = 32767
SEMAEM = SEMVMX
SEMBUF = struct.Struct("<Hhh")
"""struct sembuf: number, operation, flags."""
SEMID_DS = struct.Struct("<qQqQQQQ")
"""The rest of struct semid64_ds: otime, unused, ctime, unused, nsems, two unused words."""
SEMINFO = struct.Struct("<10i")
"""struct seminfo: semmap, semmni, semmns, semmnu, semmsl, semopm, semume, semusz, semvmx, semaem."""

# linux/msg.h -----------------------------------------------------------------------------------------

MSG_NOERROR = 0o10000
MSG_EXCEPT = 0o20000
MSG_COPY = 0o40000
MSG_STAT, MSG_INFO, MSG_STAT_ANY = range(11, 14)
MSGMNI = 32000
MSGMAX = 8192
MSGMNB = 16384
MSQID_DS = struct.Struct("<qqqQQQiiQQ")
"""The rest of struct msqid64_ds: stime, rtime, ctime, cbytes, qnum, qbytes, lspid, lrpid, two unused words."""
MSGINFO = struct.Struct("<7iH2x")
"""struct msginfo: msgpool, msgmap, msgmax, msgmnb, msgmni, msgssz, msgtql, msgseg."""
