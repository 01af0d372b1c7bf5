/* pid 1 of a container that is asked for one (`init: true`): starts the program, hands signals on to it, reaps every
 * process that is left to it, and ends as the program ends. Called as: pyswarm-init -- PROGRAM [ARGUMENT...]
 *
 * The program gets a process group of its own, and the terminal if there is one, so that what a terminal sends goes to
 * it alone. A program that cannot be executed ends it as a shell would: 127 if there is none, 126 otherwise.
 *
 * Linked without a C library: a few kB of memory for each container, and it runs in any image.
 */

#include <asm/ioctls.h>
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/wait.h>
#include <stddef.h>

#define EVERY_SIGNAL (~0ul)
#define LONGEST_PATH 4096

#if defined(__x86_64__)

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall run\n\thlt\n");

static long call(long number, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

#elif defined(__aarch64__)

__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x30, #0\n\tmov x0, sp\n\tb run\n");

static long call(long number, long a, long b, long c, long d)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = 0; /* clone's fifth argument */
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}

#else
#error "no system call stubs for this architecture: containers cannot be given an init"
#endif

static size_t length(const char *text)
{
    size_t bytes = 0;
    while (text[bytes])
        bytes++;
    return bytes;
}

static void say(const char *text)
{
    call(__NR_write, 2, (long)text, (long)length(text), 0);
}

static const char *reason(long error)
{
    switch (-error) {
    case ENOENT:
        return "no such file in the image, or its interpreter is missing";
    case EACCES:
        return "permission denied";
    case ENOEXEC:
        return "exec format error";
    case ENOTDIR:
        return "not a directory";
    default:
        return "the kernel refuses";
    }
}

/* --- in the child */

/* Return PATH's value, or where Docker looks without one. */
static const char *search_path(char **environment)
{
    for (; *environment; environment++) {
        const char *line = *environment;
        if (line[0] == 'P' && line[1] == 'A' && line[2] == 'T' && line[3] == 'H' && line[4] == '=')
            return line + 5;
    }
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

/* Write `folder` (`folder_bytes` of it; none means the working directory), a slash and `name`; 0 if it is too long. */
static int join(char *path, const char *folder, size_t folder_bytes, const char *name)
{
    size_t at = 0, name_bytes = length(name);
    if (folder_bytes + name_bytes + 3 > LONGEST_PATH)
        return 0;
    if (folder_bytes == 0)
        path[at++] = '.';
    for (size_t from = 0; from < folder_bytes; from++)
        path[at++] = folder[from];
    path[at++] = '/';
    for (size_t from = 0; from <= name_bytes; from++)
        path[at++] = name[from];
    return 1;
}

static int has_slash(const char *text)
{
    while (*text && *text != '/')
        text++;
    return *text == '/';
}

/* Execute the program as a shell would find it. Returns the errno, negative. */
static long execute(char **words, char **environment)
{
    if (has_slash(words[0]))
        return call(__NR_execve, (long)words[0], (long)words, (long)environment, 0);
    long error = -ENOENT;
    char path[LONGEST_PATH];
    for (const char *folder = search_path(environment);;) {
        size_t bytes = 0;
        while (folder[bytes] && folder[bytes] != ':')
            bytes++;
        if (join(path, folder, bytes, words[0])) {
            long result = call(__NR_execve, (long)path, (long)words, (long)environment, 0);
            if (result != -ENOENT && result != -ENOTDIR)
                error = result;
            if (error != -ENOENT && error != -EACCES)
                return error;
        }
        if (!folder[bytes])
            return error;
        folder += bytes + 1;
    }
}

static void become_program(char **words, char **environment)
{
    unsigned long none = 0;
    int group = (int)call(__NR_getpid, 0, 0, 0, 0);
    call(__NR_setpgid, 0, 0, 0, 0);
    /* Without a terminal this fails, and there is nothing to hand over. SIGTTOU is blocked yet: it does not stop us. */
    call(__NR_ioctl, 0, TIOCSPGRP, (long)&group, 0);
    call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, sizeof none);
    long error = execute(words, environment);
    say("pyswarm-init: cannot execute \"");
    say(words[0]);
    say("\": ");
    say(reason(error));
    say("\n");
    call(__NR_exit_group, error == -ENOENT || error == -ENOTDIR ? 127 : 126, 0, 0, 0);
}

/* --- in pid 1 */

/* Collect every process that has ended; end with the program. */
static void reap(long program)
{
    int status;
    for (;;) {
        long ended = call(__NR_wait4, -1, (long)&status, WNOHANG, 0);
        if (ended <= 0)
            return;
        if (ended == program) {
            int signal = status & 0x7F;
            call(__NR_exit_group, signal ? 128 + signal : status >> 8 & 0xFF, 0, 0, 0);
        }
    }
}

__attribute__((used, noreturn)) static void run(long *stack)
{
    char **words = (char **)(stack + 1), **environment = words + stack[0] + 1;
    unsigned long every = EVERY_SIGNAL;
    if (stack[0] < 3 || words[1][0] != '-' || words[1][1] != '-' || words[1][2]) {
        say("usage: pyswarm-init -- PROGRAM [ARGUMENT...]\n");
        call(__NR_exit_group, 2, 0, 0, 0);
    }
    /* Blocked, signals wait until they are asked for, also those that the kernel would keep from a pid 1. So they are
     * already where the runtime executed us: none may come in between. */
    call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&every, 0, sizeof every);
    long program = call(__NR_clone, SIGCHLD, 0, 0, 0);
    if (program == 0)
        become_program(words + 2, environment);
    if (program < 0) {
        say("pyswarm-init: cannot fork\n");
        call(__NR_exit_group, 126, 0, 0, 0);
    }
    for (;;) {
        long signal = call(__NR_rt_sigtimedwait, (long)&every, 0, 0, sizeof every);
        if (signal == SIGCHLD)
            reap(program);
        else if (signal > 0 && signal != SIGTTIN && signal != SIGTTOU)
            call(__NR_kill, program, signal, 0, 0);
    }
}
