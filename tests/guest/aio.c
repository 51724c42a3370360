/* Asynchronous input and output as libaio's callers see it, by the bare calls. Each case returns 0, or the line it
 * failed at. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #what, errno); return 1; } } while (0)
#define FAILS(what, error) CHECK((errno = 0, (long)(what) == -1) && errno == (error))
#define BAD ((void *)8)

static long setup(unsigned count, aio_context_t *context) { return syscall(SYS_io_setup, count, context); }
static long destroy(aio_context_t context) { return syscall(SYS_io_destroy, context); }
static long submit(aio_context_t context, long count, struct iocb **blocks) { return syscall(SYS_io_submit, context, count, blocks); }
static long get(aio_context_t context, long least, long most, struct io_event *events, struct timespec *timeout)
{
    return syscall(SYS_io_getevents, context, least, most, events, timeout);
}

static aio_context_t context;
static struct io_event events[16];
static char buffer[8192];

static struct iocb block_of(int opcode, int fd, void *data, size_t size, long offset)
{
    struct iocb block = {.aio_lio_opcode = opcode, .aio_fildes = fd, .aio_buf = (uintptr_t)data, .aio_nbytes = size,
                         .aio_offset = offset, .aio_data = 1000 + opcode};
    return block;
}

static int open_file(void)
{
    return open("/dev/shm", O_TMPFILE | O_RDWR, 0600);
}

static int contexts_are_made_and_destroyed(void)
{
    aio_context_t other = 0, filled = 1;
    FAILS(setup(1, BAD), EFAULT);
    FAILS(setup(1, &filled), EINVAL);
    FAILS(setup(0, &other), EINVAL);
    FAILS(setup(0x10000001, &other), EINVAL);
    FAILS(setup(0x400001, &other), EINVAL);
    FAILS(setup(0x400000, &other), EAGAIN);
    CHECK(!setup(4, &context) && context);
    CHECK(!setup(4, &other) && other != context);
    CHECK(*(volatile char *)other == *(volatile char *)other);
    CHECK(!destroy(other));
    FAILS(destroy(other), EINVAL);
    FAILS(destroy(0), EINVAL);
    FAILS(get(other, 0, 1, events, NULL), EINVAL);
    if (fork() == 0)
        _exit(destroy(context) == -1 && errno == EINVAL ? 0 : 1);
    int status;
    CHECK(wait(&status) > 0 && status == 0);
    CHECK(!destroy(context));
    return 0;
}

static int files_are_written_and_read(void)
{
    int fd = open_file(), event = eventfd(0, EFD_NONBLOCK);
    char first[5] = "", second[8] = "";
    struct iovec out[] = {{.iov_base = "hel", .iov_len = 3}, {.iov_base = "lo world", .iov_len = 8}}, in[] = {{first, 4}, {second, 7}};
    struct iocb write_vector = block_of(IOCB_CMD_PWRITEV, fd, out, 2, 10);
    struct iocb write_plain = block_of(IOCB_CMD_PWRITE, fd, "0123456789", 10, 0);
    struct iocb sync = block_of(IOCB_CMD_FSYNC, fd, NULL, 0, 0), data_sync = block_of(IOCB_CMD_FDSYNC, fd, NULL, 0, 0);
    struct iocb read_vector = block_of(IOCB_CMD_PREADV, fd, in, 2, 10);
    struct iocb read_plain = block_of(IOCB_CMD_PREAD, fd, buffer, sizeof buffer, 0);
    struct iocb *blocks[] = {&write_vector, &write_plain, &sync, &data_sync};
    uint64_t counter;
    write_plain.aio_flags = IOCB_FLAG_RESFD;
    write_plain.aio_resfd = event;
    CHECK(!setup(8, &context));
    CHECK(submit(context, 4, blocks) == 4);
    CHECK(get(context, 4, 16, events, NULL) == 4);
    for (int i = 0; i < 4; i++) {
        struct iocb *block = (struct iocb *)(uintptr_t)events[i].obj;
        CHECK(events[i].data == block->aio_data && events[i].res2 == 0);
        CHECK(events[i].res == (block == &write_vector ? 11 : block == &write_plain ? 10 : 0));
    }
    CHECK(read(event, &counter, 8) == 8 && counter == 1);
    blocks[0] = &read_vector, blocks[1] = &read_plain;
    CHECK(submit(context, 2, blocks) == 2);
    CHECK(get(context, 2, 16, events, NULL) == 2);
    CHECK(events[0].res == 11 && events[1].res == 21);
    CHECK(!memcmp(buffer, "0123456789hello world", 21) && !strcmp(first, "hell") && !memcmp(second, "o world", 7));
    CHECK(lseek(fd, 0, SEEK_CUR) == 0);
    return 0;
}

static int errors_come_from_the_call_or_with_the_event(void)
{
    int fd = open_file(), read_only = open("/proc/self/exe", O_RDONLY);
    struct iocb good = block_of(IOCB_CMD_PREAD, fd, buffer, 1, 0), bad = block_of(IOCB_CMD_PREAD, 99, buffer, 1, 0);
    struct iocb *blocks[] = {&bad, &good};
    CHECK(!setup(2, &context));
    FAILS(submit(context, -1, blocks), EINVAL);
    FAILS(submit(0, 1, blocks), EINVAL);
    CHECK(submit(context, 0, BAD) == 0);
    FAILS(submit(context, 1, BAD), EFAULT);
    FAILS(submit(context, 2, blocks), EBADF);
    blocks[0] = BAD;
    FAILS(submit(context, 1, blocks), EFAULT);
    blocks[0] = &good, blocks[1] = &bad;
    CHECK(submit(context, 2, blocks) == 1);
    blocks[0] = &bad;
    bad = block_of(6, fd, buffer, 1, 0);
    FAILS(submit(context, 1, blocks), EINVAL);
    bad = block_of(IOCB_CMD_PWRITE, read_only, buffer, 1, 0);
    FAILS(submit(context, 1, blocks), EBADF);
    bad = block_of(IOCB_CMD_PREAD, fd, buffer, -1, 0);
    FAILS(submit(context, 1, blocks), EINVAL);
    bad = block_of(IOCB_CMD_PREADV, fd, BAD, 1, 0);
    FAILS(submit(context, 1, blocks), EFAULT);
    bad = block_of(IOCB_CMD_PREAD, fd, buffer, 1, 0);
    bad.aio_reserved2 = 1;
    FAILS(submit(context, 1, blocks), EINVAL);
    bad = block_of(IOCB_CMD_FSYNC, fd, NULL, 1, 0);
    FAILS(submit(context, 1, blocks), EINVAL);
    bad = block_of(IOCB_CMD_PREAD, fd, buffer, 1, 0);
    bad.aio_flags = IOCB_FLAG_RESFD, bad.aio_resfd = fd;
    FAILS(submit(context, 1, blocks), EINVAL);
    bad = block_of(IOCB_CMD_PREAD, fd, buffer, 1, 0);
    bad.aio_rw_flags = 1 << 30;
    FAILS(submit(context, 1, blocks), EOPNOTSUPP);
    CHECK(get(context, 1, 16, events, NULL) == 1 && events[0].res == 0);
    CHECK(write(fd, "x", 1) == 1);
    bad = block_of(IOCB_CMD_PREAD, fd, BAD, 1, 0);
    CHECK(submit(context, 1, blocks) == 1);
    CHECK(get(context, 1, 16, events, NULL) == 1 && events[0].res == -EFAULT);
    FAILS(syscall(SYS_io_cancel, context, &good, events), EINVAL);
    return 0;
}

static void *submit_later(void *block)
{
    usleep(20000);
    return (void *)submit(context, 1, (struct iocb **)&block);
}

static void ignore(int signo) { (void)signo; }

static int waiting_for_events(void)
{
    int fd = open_file();
    struct iocb block = block_of(IOCB_CMD_PWRITE, fd, "x", 1, 0);
    struct timespec none = {0, 0}, some = {0, 20000000};
    struct sigaction action = {.sa_handler = ignore, .sa_flags = SA_RESTART};
    struct itimerval timer = {{0, 0}, {0, 20000}};
    pthread_t thread;
    void *result;
    CHECK(!setup(2, &context));
    CHECK(get(context, 0, 16, events, NULL) == 0);
    CHECK(get(context, 1, 16, events, &none) == 0);
    CHECK(get(context, 1, 16, events, &some) == 0);
    FAILS(get(context, 2, 1, events, NULL), EINVAL);
    FAILS(get(context, -1, 1, events, NULL), EINVAL);
    FAILS(get(context, 1, 1, events, BAD), EFAULT);
    CHECK(!pthread_create(&thread, NULL, submit_later, &block));
    CHECK(get(context, 1, 16, events, NULL) == 1 && events[0].res == 1);
    CHECK(!pthread_join(thread, &result) && result == (void *)1);
    CHECK(!sigaction(SIGALRM, &action, NULL) && !setitimer(ITIMER_REAL, &timer, NULL));
    FAILS(get(context, 1, 16, events, NULL), EINTR);
    struct iocb *blocks[] = {&block};
    CHECK(submit(context, 1, blocks) == 1);
    FAILS(get(context, 1, 16, BAD, NULL), EFAULT);
    CHECK(get(context, 0, 16, events, NULL) == 1);
    return 0;
}

static int a_full_context_takes_no_more(void)
{
    int fd = open_file(), taken = 0;
    struct iocb block = block_of(IOCB_CMD_PREAD, fd, buffer, 1, 0), *blocks[] = {&block};
    CHECK(!setup(1, &context));
    while (submit(context, 1, blocks) == 1)
        CHECK(++taken < 100000);
    CHECK(errno == EAGAIN && taken >= 1);
    CHECK(get(context, 1, 1, events, NULL) == 1);
    while (get(context, 0, 16, events, NULL) > 0)
        taken--;
    CHECK(submit(context, 1, blocks) == 1);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
} cases[] = {
    {"contexts_are_made_and_destroyed", contexts_are_made_and_destroyed},
    {"files_are_written_and_read", files_are_written_and_read},
    {"errors_come_from_the_call_or_with_the_event", errors_come_from_the_call_or_with_the_event},
    {"waiting_for_events", waiting_for_events},
    {"a_full_context_takes_no_more", a_full_context_takes_no_more},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(argv[1], cases[i].name))
            return cases[i].run();
    return 2;
}
