/* What the hostile programs share: raw calls that return -errno, a seeded generator, and memory of every kind. */
#ifndef HOSTILE_H
#define HOSTILE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "layout.h" /* the platform's own, as an attacker would read it */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>






static inline long raw(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* xorshift64*: the same calls for the same seed, whatever the C library. */
static inline uint64_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 2685821657736338717UL;
}
static inline uint64_t below(uint64_t *state, uint64_t limit) { return (next_random(state) >> 16) % limit; }
static inline uint64_t seeded(uint64_t seed) { return seed * 0x9e3779b97f4a7c15UL | 1; }

/* Runs body in a child and gives its wait status. */
static inline int in_child(void (*body)(void)) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        body();
        _exit(0);
    }
    if (child < 0) return -1;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return status;
}
#endif
