// Files as a program sees them, in a directory of a tmpfs. Each case prints what every call gave; the test compares
// the transcript of the native run with that of the sandbox. Run as root, in /dev/shm.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define BAD ((void *)8)
#define SHOW(call)                                                                                       \
    do {                                                                                                 \
        errno = 0;                                                                                       \
        long result = (long)(call);                                                                      \
        printf("%s = %ld%s%s\n", #call, result, result < 0 ? " " : "", result < 0 ? strerrorname_np(errno) : ""); \
    } while (0)
#define TELL(format, ...) printf("    " format "\n", __VA_ARGS__)

static char buf[1 << 20], longname[5000];
static struct stat st;
static struct statx sx;

static void tell_stat(const char *path)
{
    if (lstat(path, &st))
        TELL("%s: %s", path, strerrorname_np(errno));
    else
        TELL("%s: mode %o links %ld size %ld blocks %ld", path, st.st_mode, (long)st.st_nlink,
             S_ISDIR(st.st_mode) ? 0 : (long)st.st_size, (long)st.st_blocks);
}

static void opening(void)
{
    struct open_how how = {.flags = O_CREAT | O_RDWR, .mode = 0640, .resolve = RESOLVE_BENEATH};
    SHOW(open("a", O_RDONLY));
    SHOW(open("a", O_CREAT | O_EXCL | O_RDWR, 0666));
    SHOW(open("a", O_CREAT | O_EXCL | O_RDWR, 0666));
    SHOW(open("a/", O_RDONLY));
    SHOW(open("a/b", O_CREAT));
    SHOW(open(".", O_WRONLY));
    SHOW(open(".", O_CREAT, 0600));
    SHOW(open("new", O_CREAT | O_DIRECTORY, 0600));
    SHOW(open("a", O_DIRECTORY));
    SHOW(open("a", O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    SHOW(fcntl(4, F_GETFD));
    SHOW(fcntl(4, F_GETFL));
    SHOW(open(".", O_TMPFILE | O_RDWR, 0600));
    SHOW(linkat(AT_FDCWD, "/proc/self/fd/5", AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    tell_stat("named");
    SHOW(open(".", O_TMPFILE | O_RDONLY, 0600));
    SHOW(open(".", O_PATH));
    SHOW(openat(6, "a", O_RDWR));
    SHOW(read(6, buf, 1));
    SHOW(fchmod(6, 0700));
    SHOW(fstat(6, &st));
    SHOW(openat(6, "", O_RDONLY));
    SHOW(openat(99, "a", O_RDONLY));
    SHOW(openat(3, "a", O_RDONLY));
    SHOW(syscall(SYS_openat2, AT_FDCWD, "b", &how, sizeof how));
    SHOW(syscall(SYS_openat2, AT_FDCWD, "../b", &how, sizeof how));
    SHOW(syscall(SYS_openat2, AT_FDCWD, "/b", &how, sizeof how));
    SHOW(syscall(SYS_openat2, AT_FDCWD, "b", &how, 8));
    how.flags = 1ull << 40;
    SHOW(syscall(SYS_openat2, AT_FDCWD, "b", &how, sizeof how));
    SHOW(open(BAD, O_RDONLY));
    SHOW(open("", O_RDONLY));
    memset(longname, 'n', 256);
    SHOW(open(longname, O_CREAT, 0600));
    memset(longname, 'n', 4990);
    SHOW(open(longname, O_CREAT, 0600));
    SHOW(creat("c", 07777));
    tell_stat("c");
    SHOW(open("/proc/self/fd/3", O_RDWR));
    SHOW(open("/proc/self/fd/99", O_RDWR));
}

static void descriptors(void)
{
    SHOW(open("a", O_CREAT | O_RDWR, 0600));
    SHOW(dup(3));
    SHOW(dup2(3, 3));
    SHOW(dup2(3, 20));
    SHOW(dup3(3, 3, 0));
    SHOW(dup3(3, 21, O_CLOEXEC));
    SHOW(dup2(99, 5));
    SHOW(dup2(3, -1));
    SHOW(fcntl(3, F_DUPFD, 10));
    SHOW(fcntl(3, F_DUPFD_CLOEXEC, -1));
    SHOW(fcntl(3, F_SETFL, O_APPEND | O_NONBLOCK | O_CREAT));
    SHOW(fcntl(4, F_GETFL));
    SHOW(fcntl(3, F_GETOWN));
    SHOW(fcntl(3, F_SETOWN, 999999));
    SHOW(fcntl(3, F_SETSIG, 99));
    SHOW(fcntl(3, F_GETPIPE_SZ));
    SHOW(fcntl(3, F_GET_SEALS));
    SHOW(fcntl(3, 12345));
    SHOW(lseek(3, 10, SEEK_SET));
    SHOW(lseek(4, 0, SEEK_CUR));
    SHOW(lseek(4, -11, SEEK_CUR));
    SHOW(lseek(4, 0, 77));
    SHOW(close_range(10, ~0u, 0));
    SHOW(close_range(5, 4, 0));
    SHOW(fcntl(20, F_GETFD));
    SHOW(close(20));
    SHOW(flock(3, LOCK_EX));
    SHOW(flock(4, LOCK_SH | LOCK_NB));
    SHOW(flock(3, 0));
    SHOW(memfd_create("m", MFD_ALLOW_SEALING));
    SHOW(write(5, "abcdef", 6));
    SHOW(fcntl(5, F_ADD_SEALS, F_SEAL_SHRINK));
    SHOW(ftruncate(5, 3));
    SHOW(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, 5, 0) == MAP_FAILED);
    SHOW(fcntl(5, F_ADD_SEALS, F_SEAL_WRITE));
    SHOW(fcntl(5, F_GET_SEALS));
}

static void names(void)
{
    SHOW(mkdir("d", 0777));
    SHOW(mkdir("d/", 0777));
    SHOW(mkdir("d/e/", 0777));
    SHOW(mkdir("x/y", 0777));
    SHOW(mkdir(".", 0777));
    SHOW(symlink("d", "l"));
    SHOW(symlink("", "m"));
    SHOW(readlink("l", buf, 100));
    SHOW(readlink("l", buf, 0));
    SHOW(readlink("d", buf, 100));
    SHOW(close(creat("f", 0644)));
    SHOW(link("f", "d/g"));
    SHOW(link("d", "h"));
    SHOW(link("f", "l/e"));
    SHOW(linkat(AT_FDCWD, "l", AT_FDCWD, "ll", 0));
    tell_stat("ll");
    SHOW(rename("f", "d"));
    SHOW(rename("d", "f"));
    SHOW(rename("d", "d/e/z"));
    SHOW(rename("d/e", "d"));
    SHOW(rename("f", "d/g"));
    tell_stat("f");
    SHOW(rename("d/e", "e"));
    SHOW(rename("f", "e/"));
    SHOW(rename("e", "."));
    SHOW(renameat2(AT_FDCWD, "e", AT_FDCWD, "f", RENAME_EXCHANGE));
    tell_stat("e");
    tell_stat("f");
    SHOW(renameat2(AT_FDCWD, "e", AT_FDCWD, "f", RENAME_NOREPLACE));
    SHOW(renameat2(AT_FDCWD, "e", AT_FDCWD, "q", RENAME_NOREPLACE | RENAME_EXCHANGE));
    SHOW(unlink("d"));
    SHOW(unlink("l/"));
    SHOW(unlink("e/"));
    SHOW(rmdir("l"));
    SHOW(rmdir("d/."));
    SHOW(rmdir("d/.."));
    SHOW(rmdir("d"));
    SHOW(unlinkat(AT_FDCWD, "f", 0));
    SHOW(unlinkat(AT_FDCWD, "f", AT_REMOVEDIR));
    SHOW(unlinkat(AT_FDCWD, "f", 1));
    SHOW(mknod("p", S_IFIFO | 0600, 0));
    SHOW(mknod("r", 0600, 0));
    SHOW(mknod("bad", S_IFDIR | 0600, 0));
    SHOW(mknod("bad", 0170000 | 0600, 0));
    tell_stat("p");
    SHOW(chdir("d"));
    SHOW(rmdir("../d"));
    SHOW(unlink("g"));
    SHOW(rmdir("../d"));
    SHOW(getcwd(buf, 100) != NULL);
    SHOW(open("n", O_CREAT, 0600));
    SHOW(mkdir("n", 0700));
    SHOW(open(".", O_RDONLY));
    SHOW(syscall(SYS_getdents64, 3, buf, 100));
    SHOW(chdir(".."));
}

static void attributes(void)
{
    struct timespec times[2] = {{5, 6}, {7, UTIME_OMIT}}, bad[2] = {{0, 1000000000}, {0, 0}};
    umask(027);
    SHOW(close(creat("f", 0666)));
    SHOW(mkdir("s", 02777));
    tell_stat("f");
    SHOW(chmod("s", 02775));
    SHOW(chown("s", -1, 50));
    SHOW(mkdir("s/t", 0777));
    SHOW(close(creat("s/f", 0666)));
    tell_stat("s/t");
    lstat("s/f", &st);
    TELL("gid %d", st.st_gid);
    SHOW(chmod("f", 06777));
    SHOW(chown("f", -1, -1));
    tell_stat("f");
    SHOW(utimensat(AT_FDCWD, "f", times, 0));
    stat("f", &st);
    TELL("atime %ld.%09ld", (long)st.st_atim.tv_sec, st.st_atim.tv_nsec);
    SHOW(utimensat(AT_FDCWD, "f", bad, 0));
    SHOW(utimensat(AT_FDCWD, "f", times, 1));
    SHOW(truncate("f", 100000));
    SHOW(truncate("f", -1));
    SHOW(truncate("s", 1));
    tell_stat("f");
    SHOW(setxattr("f", "user.a", "value", 5, 0));
    SHOW(setxattr("f", "user.a", "value", 5, XATTR_CREATE));
    SHOW(setxattr("f", "user.b", "value", 5, XATTR_REPLACE));
    SHOW(setxattr("f", "user.", "value", 5, 0));
    SHOW(setxattr("f", "none.a", "value", 5, 0));
    SHOW(getxattr("f", "user.a", buf, 3));
    SHOW(getxattr("f", "user.a", NULL, 0));
    SHOW(getxattr("f", "user.z", buf, 10));
    SHOW(removexattr("f", "user.a"));
    SHOW(removexattr("f", "user.a"));
    SHOW(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS | STATX_BTIME, &sx));
    TELL("mode %o size %llu btime %d", sx.stx_mode, sx.stx_size, sx.stx_btime.tv_sec > 0);
    SHOW(statx(AT_FDCWD, "f", 0x10000, 0, &sx));
    SHOW(statx(AT_FDCWD, "f", 0, 0x80000000, &sx));
    SHOW(fstatat(AT_FDCWD, "", &st, 0));
    SHOW(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
    SHOW(fstatat(AT_FDCWD, "f", &st, 0x10000));
    SHOW(stat("f", BAD));
    SHOW(faccessat(AT_FDCWD, "f", 8, 0));
    SHOW(setresuid(1000, 1000, 1000));
    SHOW(chmod("f", 0777));
    SHOW(chown("f", 1000, -1));
    SHOW(truncate("f", 0));
    SHOW(access("s", X_OK));
    SHOW(open("s/new", O_CREAT, 0600));
}

static void space(void)
{
    struct statfs fs;
    SHOW(open("f", O_CREAT | O_RDWR, 0600));
    SHOW(pwrite(3, "x", 1, 1 << 20));
    SHOW(lseek(3, 0, SEEK_DATA));
    SHOW(lseek(3, 0, SEEK_HOLE));
    SHOW(lseek(3, 1 << 20, SEEK_HOLE));
    SHOW(lseek(3, 1 << 21, SEEK_DATA));
    tell_stat("f");
    SHOW(fallocate(3, 0, 0, 1 << 16));
    tell_stat("f");
    SHOW(fallocate(3, FALLOC_FL_KEEP_SIZE, 1 << 20, 1 << 20));
    tell_stat("f");
    SHOW(fallocate(3, FALLOC_FL_PUNCH_HOLE, 0, 4096));
    SHOW(fallocate(3, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 15));
    tell_stat("f");
    SHOW(fallocate(3, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
    SHOW(fallocate(3, FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    SHOW(fallocate(3, FALLOC_FL_ZERO_RANGE, 0, 4096));
    SHOW(fallocate(3, 0, -1, 1));
    SHOW(fallocate(3, 0, 0, 0));
    SHOW(fallocate(3, 0x1000, 0, 1));
    SHOW(open("f", O_RDONLY));
    SHOW(fallocate(4, 0, 0, 1));
    SHOW(ftruncate(4, 0));
    SHOW(fsync(4));
    SHOW(posix_fadvise(3, 0, 0, 99));
    SHOW(sync_file_range(3, 0, 0, 99));
    SHOW(statfs(".", &fs));
    TELL("magic %lx namelen %ld bsize %ld", (long)fs.f_type, (long)fs.f_namelen, (long)fs.f_bsize);
    SHOW(open(".", O_RDONLY | O_DIRECTORY));
    SHOW(fallocate(5, 0, 0, 1));
    SHOW(read(5, buf, 1));
    SHOW(syscall(SYS_getdents64, 5, buf, 10));
    SHOW(syscall(SYS_getdents64, 3, buf, 100));
    SHOW(syscall(SYS_getdents64, 5, buf, 1000));
    SHOW(syscall(SYS_getdents64, 5, buf, 1000));
}

static long range(int fd, int command, short type, long start, long length)
{
    struct flock lock = {.l_type = type, .l_start = start, .l_len = length};
    long result = fcntl(fd, command, &lock);
    if (result == 0 && (command == F_GETLK || command == F_OFD_GETLK))
        TELL("type %d start %ld len %ld %s", lock.l_type, (long)lock.l_start, (long)lock.l_len,
             lock.l_pid == getppid() ? "parent" : lock.l_pid < 0 ? "ofd" : "-");
    return result;
}

static void seeks_to_the_end_of_numbers(int fd)
{
    SHOW(lseek(fd, LONG_MAX, SEEK_SET));
    SHOW(lseek(fd, 1, SEEK_CUR));
    SHOW(lseek(fd, LONG_MAX, SEEK_CUR));
    SHOW(lseek(fd, 0, SEEK_CUR));
    SHOW(lseek(fd, LONG_MIN, SEEK_CUR));
    SHOW(lseek(fd, LONG_MIN, SEEK_SET));
    close(fd);
}

static void offsets(void)
{
    int fd = open("o", O_CREAT | O_RDWR, 0600);
    SHOW(write(fd, "x", 1));
    SHOW(lseek(fd, LONG_MAX, SEEK_END));
    seeks_to_the_end_of_numbers(fd);
    seeks_to_the_end_of_numbers(open("/proc/self/status", O_RDONLY));
    SHOW(unlink("o"));
}

static void locks(void)
{
    SHOW(open("f", O_CREAT | O_RDWR, 0600));
    SHOW(open("f", O_RDONLY));
    SHOW(range(3, F_SETLK, F_WRLCK, 10, 10));
    SHOW(range(4, F_SETLK, F_WRLCK, 10, 10));
    SHOW(range(4, F_SETLK, F_RDLCK, 12, 2));
    SHOW(range(3, F_SETLK, F_RDLCK, 10, -20));
    SHOW(range(3, F_SETLK, 9, 10, 10));
    SHOW(range(3, F_OFD_SETLK, F_WRLCK, 11, 5));
    SHOW(range(3, F_OFD_SETLK, F_WRLCK, 100, 5));
    fflush(stdout);
    if (fork() == 0) {
        SHOW(range(3, F_GETLK, F_WRLCK, 0, 0));
        SHOW(range(3, F_GETLK, F_RDLCK, 12, 1));
        SHOW(range(3, F_GETLK, F_RDLCK, 15, 1));
        SHOW(range(4, F_OFD_GETLK, F_RDLCK, 101, 0));
        SHOW(range(3, F_SETLK, F_RDLCK, 12, 2));
        SHOW(range(3, F_SETLK, F_WRLCK, 50, 1));
        SHOW(flock(3, LOCK_EX));
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
    SHOW(flock(4, LOCK_SH | LOCK_NB));
    SHOW(flock(3, LOCK_UN));
    SHOW(flock(4, LOCK_SH | LOCK_NB));
    SHOW(close(4));
    fflush(stdout);
    if (fork() == 0) {
        SHOW(range(3, F_GETLK, F_WRLCK, 0, 50));
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"opening", opening}, {"descriptors", descriptors}, {"names", names},
    {"attributes", attributes}, {"space", space}, {"locks", locks}, {"offsets", offsets},
};

int main(int argc, char **argv)
{
    char directory[] = "/dev/shm/filesXXXXXX";
    if (argc != 2 || !mkdtemp(directory) || chdir(directory) || chmod(".", 0755))
        return 2;
    umask(022);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(argv[1], cases[i].name)) {
            cases[i].run();
            return 0;
        }
    return 2;
}
