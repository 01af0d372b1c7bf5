/* Preloaded into user-mode Linux: let its kernel restore floating point registers on processors with large ones.
 *
 * The kernel of Debian 12's user-mode-linux keeps 2,696 bytes of them a process. The host takes back only as much as it has,
 * 11,008 bytes with AMX, and answers EFAULT to less: user-mode Linux then kills init. What it does not keep is filled
 * in here from the process itself; nothing it runs uses that part.
 */

#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PEEKTEXT = 1, PEEKUSER = 3, GETREGSET = 0x4204, SETREGSET = 0x4205 };

static long set_registers(long pid, long kind, const struct iovec *given)
{
    static char whole[65536];
    struct iovec all = { whole, sizeof whole };
    long result = syscall(SYS_ptrace, GETREGSET, pid, kind, &all);
    if (result < 0)
        return result;
    memcpy(whole, given->iov_base, given->iov_len < all.iov_len ? given->iov_len : all.iov_len);
    return syscall(SYS_ptrace, SETREGSET, pid, kind, &all);
}

long ptrace(int request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    long pid = va_arg(arguments, long), address = va_arg(arguments, long), data = va_arg(arguments, long);
    va_end(arguments);
    if (request == SETREGSET && address == NT_X86_XSTATE)
        return set_registers(pid, address, (const struct iovec *)data);
    if (request >= PEEKTEXT && request <= PEEKUSER) { /* the C library returns the word, the kernel stores it */
        long word = 0, result = syscall(SYS_ptrace, request, pid, address, &word);
        return result < 0 ? result : word;
    }
    return syscall(SYS_ptrace, request, pid, address, data);
}
