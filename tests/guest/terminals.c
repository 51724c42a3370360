/* Terminals and /proc as a real program sees them. One case per run: `terminals CASE`; silence and 0 mean success. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

static int failures;
#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            printf("%s:%d: %s (errno %d)\n", __func__, __LINE__, #condition, errno); \
            failures++; \
        } \
    } while (0)

static volatile int signalled;
static void note(int signo) { signalled = signo; }

static void catch(int signo) {
    struct sigaction action = {.sa_handler = note};
    sigaction(signo, &action, 0);
}

/* Reads until `wanted` shows up in what came, or nothing comes for two seconds. */
static int expect(int fd, const char *wanted) {
    char text[4096] = "";
    size_t have = 0;
    struct pollfd poller = {fd, POLLIN, 0};
    while (!strstr(text, wanted)) {
        if (poll(&poller, 1, 2000) <= 0) return 0;
        ssize_t count = read(fd, text + have, sizeof text - 1 - have);
        if (count <= 0) return 0;
        have += count;
        text[have] = 0;
    }
    return 1;
}

static void lines_and_echo(void) {
    int master, slave;
    char line[64];
    CHECK(openpty(&master, &slave, 0, 0, 0) == 0);
    CHECK(isatty(slave) && isatty(master));
    CHECK(write(master, "abx\177c\r", 6) == 6);
    CHECK(read(slave, line, sizeof line) == 4 && !memcmp(line, "abc\n", 4));
    CHECK(write(master, "\004", 1) == 1 && read(slave, line, sizeof line) == 0);
    CHECK(write(slave, "out\n", 4) == 4 && expect(master, "out\r\n"));
    int waiting = -1;
    CHECK(write(master, "one\ntwo\n", 8) == 8);
    while (ioctl(slave, FIONREAD, &waiting) == 0 && waiting < 8) usleep(1000); /* Linux hands it over a little later */
    CHECK(ioctl(slave, FIONREAD, &waiting) == 0 && waiting == 8);
    CHECK(read(slave, line, sizeof line) == 4);
    CHECK(tcflush(slave, TCIFLUSH) == 0 && ioctl(slave, FIONREAD, &waiting) == 0 && waiting == 0);
}

static void raw_reads(void) {
    int master, slave;
    struct termios settings;
    char bytes[16];
    CHECK(openpty(&master, &slave, 0, 0, 0) == 0 && tcgetattr(slave, &settings) == 0);
    cfmakeraw(&settings);
    settings.c_cc[VMIN] = 0;
    settings.c_cc[VTIME] = 1;
    CHECK(tcsetattr(slave, TCSANOW, &settings) == 0);
    CHECK(read(slave, bytes, sizeof bytes) == 0);
    CHECK(write(master, "\003\r", 2) == 2 && read(slave, bytes, sizeof bytes) == 2 && bytes[1] == '\r');
    settings.c_cc[VMIN] = 5;
    settings.c_cc[VTIME] = 1;
    CHECK(tcsetattr(slave, TCSANOW, &settings) == 0);
    CHECK(write(master, "ab", 2) == 2 && read(slave, bytes, sizeof bytes) == 2);
    int fd = dup(slave);
    fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
    CHECK(read(fd, bytes, sizeof bytes) == -1 && errno == EAGAIN);
}

static void names_and_owners(void) {
    int master = posix_openpt(O_RDWR | O_NOCTTY), number = -1, slave;
    struct stat by_path, by_fd;
    CHECK(master >= 0 && grantpt(master) == 0);
    CHECK(open(ptsname(master), O_RDWR | O_NOCTTY) == -1 && errno == EIO);
    CHECK(unlockpt(master) == 0 && ioctl(master, TIOCGPTN, &number) == 0);
    slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    CHECK(slave >= 0 && fstat(slave, &by_fd) == 0 && stat(ptsname(master), &by_path) == 0);
    CHECK(by_fd.st_rdev == by_path.st_rdev && by_fd.st_ino == by_path.st_ino && S_ISCHR(by_fd.st_mode));
    CHECK(by_fd.st_rdev == (dev_t)(136 << 8 | number));
    CHECK(!strcmp(ttyname(slave), ptsname(master)));
    int peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
    CHECK(peer >= 0 && isatty(peer));
    close(peer);
    close(slave);
    char byte;
    CHECK(read(master, &byte, 1) == -1 && errno == EIO);
    close(master);
}

/* Runs `child` as the leader of a session on a new terminal and gives the master. */
static pid_t session(int *master, void (*child)(void)) {
    pid_t pid = forkpty(master, 0, 0, 0);
    if (pid == 0) {
        child();
        fflush(stdout);
        _exit(failures != 0);
    }
    CHECK(pid > 0);
    return pid;
}

static void finish(pid_t pid) {
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void interrupted_child(void) {
    catch(SIGINT);
    write(1, "ready\n", 6);
    while (signalled != SIGINT) usleep(1000);
    write(1, "caught\n", 7);
}

static void the_interrupt_key(void) {
    int master;
    pid_t pid = session(&master, interrupted_child);
    CHECK(expect(master, "ready"));
    CHECK(write(master, "\003", 1) == 1 && expect(master, "caught"));
    finish(pid);
}

static void resized_child(void) {
    struct winsize size;
    catch(SIGWINCH);
    write(1, "ready\n", 6);
    while (signalled != SIGWINCH) usleep(1000);
    CHECK(ioctl(0, TIOCGWINSZ, &size) == 0 && size.ws_row == 33 && size.ws_col == 99);
}

static void the_size(void) {
    int master;
    struct winsize size = {33, 99, 0, 0};
    pid_t pid = session(&master, resized_child);
    CHECK(expect(master, "ready") && ioctl(master, TIOCSWINSZ, &size) == 0);
    finish(pid);
}

static void shell_child(void) {
    int status, tty = open("/dev/tty", O_RDWR);
    CHECK(tty >= 0 && tcgetpgrp(tty) == getpgrp() && tcgetsid(tty) == getpid());
    signal(SIGTTOU, SIG_IGN);
    pid_t job = fork();
    if (job == 0) {
        signal(SIGTTOU, SIG_DFL);
        setpgid(0, 0);
        char byte;
        _exit(read(0, &byte, 1) == 1 && byte == 'x' ? 7 : 8);
    }
    setpgid(job, job);
    CHECK(waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTIN);
    CHECK(tcsetpgrp(tty, job) == 0 && tcgetpgrp(tty) == job);
    write(tty, "now\n", 4);
    CHECK(kill(-job, SIGCONT) == 0);
    CHECK(waitpid(job, &status, WUNTRACED) == job && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    CHECK(tcsetpgrp(tty, getpgrp()) == 0);
    job = fork();
    if (job == 0) {
        struct termios settings;
        signal(SIGTTOU, SIG_DFL);
        setpgid(0, 0);
        tcgetattr(0, &settings);
        tcsetattr(0, TCSANOW, &settings);
        _exit(0);
    }
    CHECK(waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTOU);
    kill(job, SIGKILL);
    waitpid(job, &status, 0);
    struct termios settings;
    tcgetattr(tty, &settings);
    settings.c_lflag |= TOSTOP;
    CHECK(tcsetattr(tty, TCSANOW, &settings) == 0);
    job = fork();
    if (job == 0) {
        signal(SIGTTOU, SIG_DFL);
        setpgid(0, 0);
        _exit(write(1, "late\n", 5) == 5 ? 5 : 6);
    }
    CHECK(waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTOU);
    settings.c_lflag &= ~TOSTOP;
    CHECK(tcsetattr(tty, TCSANOW, &settings) == 0 && kill(job, SIGCONT) == 0);
    CHECK(waitpid(job, &status, WUNTRACED) == job && WIFEXITED(status) && WEXITSTATUS(status) == 5);
    write(tty, "done\n", 5);
}

static void background_jobs(void) {
    int master;
    pid_t pid = session(&master, shell_child);
    CHECK(expect(master, "now") && write(master, "x\n", 2) == 2);
    CHECK(expect(master, "done"));
    finish(pid);
}

static void hung_up_child(void) {
    catch(SIGHUP);
    write(1, "ready\n", 6);
    while (signalled != SIGHUP) usleep(1000);
    char byte;
    _exit(read(0, &byte, 1) == 0 && write(1, &byte, 1) == -1 && errno == EIO ? 0 : 1);
}

static void closing_the_master_hangs_up(void) {
    int master;
    pid_t pid = session(&master, hung_up_child);
    CHECK(expect(master, "ready"));
    close(master);
    finish(pid);
}

static int lifeline[2];

static void leaving_child(void) {
    if (fork() == 0) {
        catch(SIGHUP);
        write(1, "ready\n", 6);
        while (signalled != SIGHUP) usleep(1000);
        write(lifeline[1], "h", 1);
        _exit(0);
    }
    char byte;
    read(0, &byte, 1);
}

static void the_leaders_end_hangs_up(void) {
    int master;
    char byte = 0;
    CHECK(pipe(lifeline) == 0);
    pid_t pid = session(&master, leaving_child);
    CHECK(expect(master, "ready") && write(master, "\n", 1) == 1);
    finish(pid);
    CHECK(read(lifeline[0], &byte, 1) == 1 && byte == 'h');
    struct pollfd poller = {master, POLLIN, 0};
    for (int i = 0; i < 2000 && !(poller.revents & POLLHUP); i++) { /* the signal comes a little before the rest */
        poll(&poller, 1, 0);
        usleep(1000);
    }
    CHECK(poller.revents & POLLHUP);
}

static void *name_myself(void *text) {
    int fd = open("/proc/thread-self/comm", O_RDWR);
    CHECK(fd >= 0 && write(fd, "worker", 6) == 6);
    *(int *)text = pread(fd, (char *)text + sizeof(int), 32, 0);
    close(fd);
    return 0;
}

static void own_process(void) {
    char text[256] = "", path[64];
    int fd = open("/proc/self/mem", O_RDWR), pipes[2];
    volatile int value = 41;
    int copy = 0, other = 42;
    CHECK(pread(fd, &copy, sizeof copy, (off_t)(long)&value) == sizeof copy && copy == 41);
    CHECK(pwrite(fd, &other, sizeof other, (off_t)(long)&value) == sizeof other && value == 42);
    CHECK(pread(fd, &copy, 1, 0) == -1 && errno == EIO);
    close(fd);

    CHECK(pipe(pipes) == 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", pipes[1]);
    CHECK(readlink(path, text, sizeof text) > 6 && !strncmp(text, "pipe:[", 6));
    fd = open(path, O_WRONLY);
    CHECK(fd >= 0 && write(fd, "z", 1) == 1 && read(pipes[0], text, 1) == 1 && text[0] == 'z');

    struct {
        int length;
        char name[32];
    } named = {0};
    pthread_t thread;
    pthread_create(&thread, 0, name_myself, &named);
    pthread_join(thread, 0);
    CHECK(named.length == 7 && !memcmp(named.name, "worker\n", 7));

    int threads = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(tasks));) threads += entry->d_name[0] != '.';
    CHECK(threads == 1);
    closedir(tasks);
    CHECK(readlink("/proc/self/exe", text, sizeof text) > 0 && access("/proc/self/exe", X_OK) == 0);
    CHECK(readlink("/proc/self", text, sizeof text) > 0 && atoi(text) == getpid());
}

static void maps(void) {
    char line[512];
    unsigned long here = (unsigned long)maps, low, high;
    int text = 0, stack = 0, mine = 0;
    char *area = mmap(0, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FILE *file = fopen("/proc/self/maps", "r");
    char permissions[5];
    while (fgets(line, sizeof line, file)) {
        CHECK(sscanf(line, "%lx-%lx %4s", &low, &high, permissions) == 3 && low < high);
        if (here >= low && here < high) text = !strcmp(permissions, "r-xp") && strchr(line, '/');
        if ((unsigned long)&low >= low && (unsigned long)&low < high) stack = strstr(line, "[stack]") != 0;
        if ((unsigned long)area >= low && (unsigned long)area < high) mine = !strcmp(permissions, "r--p");
    }
    fclose(file);
    CHECK(text && stack && mine);
}

static void others_are_closed(void) {
    char path[64], text[64];
    pid_t pid = fork();
    if (pid) {
        finish(pid);
        return;
    }
    snprintf(path, sizeof path, "/proc/%d/environ", getppid());
    CHECK(geteuid() != 0 || setresuid(1000, 1000, 1000) == 0);
    CHECK(open(path, O_RDONLY) == -1 && errno == EACCES);
    snprintf(path, sizeof path, "/proc/%d/cwd", getppid());
    CHECK(readlink(path, text, sizeof text) == -1 && errno == EACCES);
    snprintf(path, sizeof path, "/proc/%d/stat", getppid());
    CHECK(access(path, R_OK) == 0);
    CHECK(open("/proc/sys/kernel/pid_max", O_WRONLY) == -1 && errno == EACCES);
    fflush(stdout);
    _exit(failures != 0);
}

static void zombies(void) {
    char path[64], text[128] = "";
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    siginfo_t info;
    CHECK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT) == 0);
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY), empty;
    CHECK(read(fd, text, sizeof text - 1) > 0 && strstr(text, "(terminals) Z "));
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    empty = open(path, O_RDONLY);
    CHECK(read(empty, text, 1) == 0);
    waitpid(pid, 0, 0);
    CHECK(access(path, F_OK) == -1 && errno == ENOENT);
    CHECK(pread(fd, text, 1, 0) == -1 && errno == ESRCH);
}

static void devices(void) {
    char bytes[8] = "xxxxxxx";
    int zero = open("/dev/zero", O_RDWR), null = open("/dev/null", O_RDWR), full = open("/dev/full", O_RDWR);
    CHECK(read(zero, bytes, 8) == 8 && bytes[7] == 0 && read(null, bytes, 8) == 0 && write(null, bytes, 8) == 8);
    CHECK(write(full, "x", 1) == -1 && errno == ENOSPC && read(full, bytes, 8) == 8);
    char *area = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
    CHECK(area != MAP_FAILED && area[100] == 0);
    area[100] = 1;
    CHECK(lseek(null, 100, SEEK_SET) == 0 && mmap(0, 4096, PROT_READ, MAP_PRIVATE, null, 0) == MAP_FAILED);
    int first = open("/dev/urandom", O_RDONLY);
    char a[16], b[16];
    CHECK(read(first, a, 16) == 16 && read(first, b, 16) == 16 && memcmp(a, b, 16));
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {
        {"lines_and_echo", lines_and_echo},
        {"raw_reads", raw_reads},
        {"names_and_owners", names_and_owners},
        {"the_interrupt_key", the_interrupt_key},
        {"the_size", the_size},
        {"background_jobs", background_jobs},
        {"closing_the_master_hangs_up", closing_the_master_hangs_up},
        {"the_leaders_end_hangs_up", the_leaders_end_hangs_up},
        {"own_process", own_process},
        {"maps", maps},
        {"others_are_closed", others_are_closed},
        {"zombies", zombies},
        {"devices", devices},
    };
    for (unsigned i = 0; argc == 2 && i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(cases[i].name, argv[1])) {
            cases[i].run();
            return failures != 0;
        }
    return 2;
}
