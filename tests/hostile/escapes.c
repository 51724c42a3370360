/* Attempts to reach what lies outside the sandbox: escapes CASE OUTSIDE PID NAME.
 *
 * OUTSIDE is a directory of the host's that holds a file named secret; /mnt is a volume with symbolic links to it;
 * PID is a process of the host's, NAME the abstract socket it listens on. Exits with 0 unless something was reached. */
#include "hostile.h"
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>

static const char *outside, *name;
static long pid;

/* Whether a descriptor leads to the secret. */
static void must_not_be_secret(int fd, int code) {
    char text[64] = {0};
    if (fd < 0) return;
    if (read(fd, text, sizeof text - 1) > 0 && strstr(text, "TOP SECRET")) _exit(code);
    if (write(fd, "OWNED", 5) == 5) {} /* a file of our own making, or the test finds it outside */
    close(fd);
}
static void try_path(const char *path, int code) {
    must_not_be_secret(open(path, O_RDONLY), code);
    must_not_be_secret(open(path, O_RDWR), code);
    int fd = open(path, O_PATH);
    char again[64];
    if (fd >= 0) {
        snprintf(again, sizeof again, "/proc/self/fd/%d", fd);
        must_not_be_secret(open(again, O_RDONLY), code);
        close(fd);
    }
}

static void up_and_out(void) {
    static const char *const starts[] = {
        "", "/..", "/../../../..", "/mnt/..", "/mnt/../..", "/mnt/folder/../../..", "/proc/self/root", "/proc/self/root/..",
        "/proc/self/cwd/../..", "/proc/1/root", "/proc/1/cwd/..", "/proc/thread-self/root/../..", "/dev/../..", "/tmp/../../..",
    };
    char path[4096];
    int root = open("/", O_RDONLY | O_DIRECTORY), volume = open("/mnt", O_RDONLY | O_DIRECTORY);
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        snprintf(path, sizeof path, "%s%s/secret", starts[i], outside);
        try_path(path, 11);
        must_not_be_secret(openat(root, path + 1, O_RDONLY), 12);
        must_not_be_secret(openat(volume, path + 1, O_RDONLY), 13);
    }
    snprintf(path, sizeof path, "../../../../../../../../../..%s/secret", outside);
    must_not_be_secret(openat(volume, path, O_RDONLY), 14);
    chdir("/mnt");
    for (int i = 0; i < 50; i++) chdir("..");
    must_not_be_secret(open(path + 3, O_RDONLY), 15);
    for (long host = pid - 2; host <= pid + 2; host++) {
        snprintf(path, sizeof path, "/proc/%ld/root%s/secret", host, outside);
        try_path(path, 16);
        snprintf(path, sizeof path, "/proc/%ld/cwd/secret", host);
        try_path(path, 17);
        for (int fd = 0; fd < 10; fd++) {
            snprintf(path, sizeof path, "/proc/%ld/fd/%d", host, fd);
            try_path(path, 18);
        }
    }
}

static void links_in_the_volume(void) {
    static const char *const links[] = {"/mnt/absolute/secret", "/mnt/relative/secret", "/mnt/file", "/mnt/up/secret", "/mnt/proc/secret"};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        try_path(links[i], 21);
        must_not_be_secret(openat(AT_FDCWD, links[i], O_RDWR | O_CREAT | O_TRUNC, 0666), 22);
        if (!linkat(AT_FDCWD, links[i], AT_FDCWD, "/mnt/hard", AT_SYMLINK_FOLLOW)) { try_path("/mnt/hard", 23); unlink("/mnt/hard"); }
        truncate(links[i], 0);
        chmod(links[i], 0777);
        chown(links[i], 12, 34);
        unlink(links[i]);
        rename(links[i], "/mnt/stolen");
        try_path("/mnt/stolen", 24);
    }
    symlink(outside, "/mnt/made");
    try_path("/mnt/made/secret", 25);
    mkdir("/mnt/made/new", 0777);
    unlink("/mnt/made/secret");
    close(open("/mnt/made/planted", O_CREAT | O_RDWR, 0666));
    rename("/mnt/folder", "/mnt/made/folder");
    link("/mnt/folder/plain", "/mnt/made/plain");
    mknod("/mnt/made/node", S_IFIFO | 0666, 0);
}

static void *swapper(void *unused) {
    for (;;) {
        raw(SYS_renameat2, AT_FDCWD, (long)"/mnt/swap", AT_FDCWD, (long)"/mnt/swaplink", RENAME_EXCHANGE, 0);
    }
    return unused;
}
static void swapped_links(void) {
    pthread_t thread;
    mkdir("/mnt/swap", 0777);
    close(open("/mnt/swap/secret", O_CREAT | O_RDWR, 0666));
    symlink(outside, "/mnt/swaplink");
    pthread_create(&thread, NULL, swapper, NULL);
    for (int i = 0; i < 1500; i++) {
        must_not_be_secret(open("/mnt/swap/secret", O_RDONLY), 31);
        close(open("/mnt/swap/planted", O_CREAT | O_RDWR, 0666));
        unlink("/mnt/swap/planted");
        mkdir("/mnt/swap/planted", 0777);
        rmdir("/mnt/swap/planted");
    }
}

static void chroots(void) {
    char path[4096];
    mkdir("/tmp/jail", 0777);
    int before = open("/", O_RDONLY | O_DIRECTORY);
    chroot("/tmp/jail");
    fchdir(before);
    for (int i = 0; i < 100; i++) chdir("..");
    snprintf(path, sizeof path, ".%s/secret", outside);
    must_not_be_secret(open(path, O_RDONLY), 41);
    chroot(".");
    must_not_be_secret(open(path + 1, O_RDONLY), 42);
    syscall(SYS_pivot_root, ".", ".");
    umount2(".", MNT_DETACH);
    must_not_be_secret(open(path + 1, O_RDONLY), 43);
}

static void devices(void) {
    static const int numbers[][2] = {{1, 1}, {1, 2}, {1, 4}, {8, 0}, {254, 0}, {253, 0}, {259, 0}, {7, 0}, {10, 237}, {10, 200}, {10, 229}, {10, 232}, {4, 0}, {5, 1}};
    static const char *const folders[] = {"/tmp", "/mnt", "/dev"};
    char path[64], block[4096];
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        for (int j = 0; j < 6; j++) {
            snprintf(path, sizeof path, "%s/node%zu-%d", folders[j / 2], i, j);
            mknod(path, (j % 2 ? S_IFBLK : S_IFCHR) | 0666, makedev((unsigned)numbers[i][0], (unsigned)numbers[i][1]));
            int fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY);
            if (fd < 0) fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
            if (fd >= 0 && numbers[i][0] != 5 && read(fd, block, sizeof block) > 0) _exit(51);
            close(fd);
        }
    static const char *const files[] = {"/dev/mem", "/dev/kmem", "/dev/port", "/dev/sda", "/dev/vda", "/dev/kvm", "/dev/fuse", "/dev/loop-control", "/dev/net/tun", "/proc/kcore", "/proc/kmem"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        int fd = open(files[i], O_RDWR);
        if (fd < 0) fd = open(files[i], O_RDONLY);
        if (fd >= 0 && read(fd, block, sizeof block) > 0) _exit(52);
    }
}

static void mounts(void) {
    static const char *const kinds[] = {"ext4", "xfs", "overlay", "9p", "nfs", "fuse", "debugfs", "securityfs", "bpf", "devtmpfs", "tracefs", "cgroup", "autofs"};
    char path[4096];
    mkdir("/tmp/m", 0777);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        snprintf(path, sizeof path, "lowerdir=%s,trans=fd,rfdno=0,wfdno=1", outside);
        if (!mount("/dev/vda", "/tmp/m", kinds[i], 0, path)) {
            try_path("/tmp/m/secret", 61);
            snprintf(path, sizeof path, "/tmp/m%s/secret", outside);
            try_path(path, 62);
        }
    }
    static const char *const sources[] = {"/proc/1/root", "/proc/self/root/..", "/..", "/mnt/absolute", "/mnt/up", "/proc/self/ns/mnt"};
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        mount(sources[i], "/tmp/m", NULL, MS_BIND | MS_REC, NULL);
        try_path("/tmp/m/secret", 63);
        snprintf(path, sizeof path, "/tmp/m%s/secret", outside);
        try_path(path, 64);
    }
    mount(outside, "/tmp/m", NULL, MS_BIND, NULL);
    try_path("/tmp/m/secret", 65);
    /* a read-only volume stays read-only whatever is asked for */
    mount(NULL, "/media", NULL, MS_REMOUNT | MS_BIND, NULL);
    mount(NULL, "/media", NULL, MS_REMOUNT, NULL);
    mount("/media", "/tmp/m", NULL, MS_BIND, NULL);
    if (open("/media/planted", O_CREAT | O_RDWR, 0666) >= 0) _exit(66);
    if (open("/tmp/m/planted", O_CREAT | O_RDWR, 0666) >= 0) _exit(67);
    if (open("/media/plain", O_RDWR) >= 0 || open("/media/plain", O_RDONLY | O_TRUNC) >= 0) _exit(68);
    chmod("/media/plain", 0777);
    unlink("/media/plain");
    struct { struct file_handle handle; unsigned char bytes[128]; } forged;
    for (int type = 0; type < 256; type++)
        for (unsigned size = 0; size <= 128; size += 8) {
            forged.handle.handle_bytes = size;
            forged.handle.handle_type = type;
            memset(forged.bytes, type == 1 ? 2 : 0, sizeof forged.bytes);
            int root = open("/", O_RDONLY), fd = (int)syscall(SYS_open_by_handle_at, root, &forged, O_RDONLY);
            if (fd >= 0) { snprintf(path, sizeof path, ".%s/secret", outside); must_not_be_secret(openat(fd, path, O_RDONLY), 69); close(fd); }
            close(root);
        }
}

static void host_processes(void) {
    char data[64];
    struct iovec mine = {data, sizeof data}, theirs = {(void *)0x400000, sizeof data};
    struct rlimit limit = {1, 1};
    struct sched_param parameter = {0};
    unsigned long mask = 1;
    int status;
    if (!kill((pid_t)pid, SIGKILL) || !kill((pid_t)-pid, SIGKILL) || !kill((pid_t)pid, 0)) _exit(71);
    if (!syscall(SYS_tkill, pid, SIGKILL) || !syscall(SYS_tgkill, pid, pid, SIGKILL)) _exit(72);
    if (!ptrace(PTRACE_ATTACH, pid, 0, 0) || !ptrace(PTRACE_SEIZE, pid, 0, 0)) _exit(73);
    if (process_vm_readv((pid_t)pid, &mine, 1, &theirs, 1, 0) >= 0 || process_vm_writev((pid_t)pid, &mine, 1, &theirs, 1, 0) >= 0) _exit(74);
    if (syscall(SYS_pidfd_open, pid, 0) >= 0 || syscall(SYS_pidfd_open, pid, O_EXCL) >= 0) _exit(75);
    if (!prlimit((pid_t)pid, RLIMIT_NOFILE, &limit, NULL) || !setpriority(PRIO_PROCESS, (id_t)pid, 19)) _exit(76);
    if (!sched_setaffinity((pid_t)pid, sizeof mask, (void *)&mask) || !sched_setscheduler((pid_t)pid, 0, &parameter)) _exit(77);
    if (waitpid((pid_t)pid, &status, WNOHANG) >= 0 || getpgid((pid_t)pid) >= 0 || getsid((pid_t)pid) >= 0) _exit(78);
    union sigval value = {0};
    if (!sigqueue((pid_t)pid, SIGKILL, value)) _exit(79);
    int fd = open("/mnt/plain", O_RDWR), ends[2];
    pipe(ends);
    struct f_owner_ex owner = {F_OWNER_PID, (pid_t)pid};
    fcntl(ends[0], F_SETOWN_EX, &owner);
    fcntl(ends[0], F_SETSIG, SIGKILL);
    fcntl(ends[0], F_SETFL, O_ASYNC);
    write(ends[1], "x", 1);
    ioctl(fd, 0x5402, 0);
    signal(SIGTERM, SIG_IGN);
    kill(-1, SIGTERM);
}

static void sockets(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path + 1, name, sizeof address.sun_path - 2);
    socklen_t length = (socklen_t)(3 + strlen(name));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (!connect(fd, (struct sockaddr *)&address, length)) _exit(81);
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (sendto(fd, "x", 1, 0, (struct sockaddr *)&address, length) >= 0) _exit(82);
    strcpy(address.sun_path, "/mnt/socket");
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (!connect(fd, (struct sockaddr *)&address, sizeof address)) _exit(83);
    fd = open("/mnt/fifo", O_WRONLY | O_NONBLOCK);
    if (fd >= 0) write(fd, "OWNED", 5);
    if (socket(AF_INET, SOCK_STREAM, 0) >= 0 && (errno = 0)) _exit(84);
    socket(AF_PACKET, SOCK_RAW, 0);
    socket(AF_NETLINK, SOCK_RAW, 0);
    socket(40 /* AF_VSOCK */, SOCK_STREAM, 0);
}

/* The host's own settings: the test compares them before and after. */
static void settings(void) {
    static const char *const files[] = {
        "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/pid_max",
        "/proc/sys/kernel/threads-max", "/proc/sys/vm/overcommit_memory", "/proc/sys/vm/drop_caches", "/proc/sys/fs/file-max",
        "/proc/sys/net/core/somaxconn", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/proc/self/oom_score_adj",
        "/sys/power/state", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/fs/cgroup/cgroup.procs", "/proc/sys/kernel/sysrq",
        "/sys/fs/cgroup/memory.max", "/proc/sys/kernel/randomize_va_space", "/proc/1/oom_score_adj", "/proc/self/uid_map",
    };
    static const char *const values[] = {"owned", "1000", "|/bin/hello", "c", "0"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (int j = 0; j < 5; j++) {
            int fd = open(files[i], O_WRONLY);
            if (fd >= 0) write(fd, values[j], strlen(values[j]));
            close(fd);
        }
    struct timeval past = {1000000, 0};
    struct timespec then = {1000000, 0};
    struct timex step = {.modes = ADJ_SETOFFSET, .time = {-1000, 0}};
    sethostname("owned", 5);
    setdomainname("owned", 5);
    settimeofday(&past, NULL);
    clock_settime(CLOCK_REALTIME, &then);
    adjtimex(&step);
    struct rlimit limit = {1, 1};
    setrlimit(RLIMIT_NPROC, &limit);
    setpriority(PRIO_USER, 0, 19);
    syscall(SYS_kexec_load, 0, 0, 0, 0);
    syscall(SYS_init_module, &limit, 8, "");
    syscall(SYS_swapoff, "/dev/vda");
    syscall(SYS_iopl, 3);
    syscall(SYS_ioperm, 0x80, 1, 1);
    syscall(SYS_bpf, 5, &limit, sizeof limit);
    syscall(SYS_perf_event_open, &limit, -1, 0, -1, 0);
    reboot(RB_DISABLE_CAD);
    reboot(RB_AUTOBOOT);
}

static const struct { const char *name; void (*run)(void); } cases[] = {
    {"up_and_out", up_and_out}, {"links_in_the_volume", links_in_the_volume}, {"swapped_links", swapped_links},
    {"chroots", chroots}, {"devices", devices}, {"mounts", mounts}, {"host_processes", host_processes},
    {"sockets", sockets}, {"settings", settings},
};

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    outside = argv[2];
    pid = atol(argv[3]);
    name = argv[4];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(cases[i].name, argv[1])) {
            cases[i].run();
            return 0;
        }
    return 2;
}
