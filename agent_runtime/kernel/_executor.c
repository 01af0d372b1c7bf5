/* Run a start program in a fresh clone: the executor in C. What a program is, kernel/program.py says; the same in pure
 * Python, kernel/executor.py.
 *
 * A child that is to live in namespaces of its own shares our memory until it has reached execve (CLONE_VM), so that
 * no page is copied for it. It runs on a stack of its own, allocates nothing, calls nothing of the C library, whose
 * errno it would share with us, and has no signal handlers (CLONE_CLEAR_SIGHAND). It is cloned with CLONE_VFORK as
 * well: the kernel then never chooses it as a victim when its cgroup runs out of memory, which would take us along.
 * Since that suspends whoever clones until execve, and we must write down the child's pid before it may go on, a short
 * thread does it.
 *
 * A child that joins a running container, whose processes may be hostile, or that waits for long before execve, gets a
 * copy of our memory instead. It gives all of it back at once but what it runs on, some 50 kB: pages that we change
 * meanwhile would otherwise be kept twice for every child that waits. Whoever makes many of them spares the kernel most
 * of the copy: `keep_from_children`.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <inttypes.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAGIC 0x53575047u
#define VERSION 2u
#define NO_SLOT 0xFFFFu
#define REPORT_SLOT 255u
#define GATE_SLOT 254u
#define PAGE 4096u
#define KEPT_AROUND_THREAD 8192u
#define KEPT 3
#define CHILD_STACK_BYTES 16384u
#define THREAD_STACK_BYTES 65536u
#define MOST_SLOTS 65536u

enum { KIND_NUMBER, KIND_DATA, KIND_SLOT };
enum { CLONING, CLONED, FAILED };

struct header {
    uint32_t magic, version, operations, pointers, data_bytes, slots, clone_flags;
} __attribute__((packed));

struct operation {
    int32_t number;
    uint16_t save, skip;
    uint8_t kind[6];
    uint16_t least;   /* a result below it counts as EPIPE: an end where a word was awaited */
    int64_t argument[6];
    struct { uint16_t error, skip; } expected[3];
} __attribute__((packed));

struct pointer {
    uint32_t place, target;
} __attribute__((packed));

struct range {
    uintptr_t start, end;
};

/* All a child needs, in one mapping with its stack. */
struct job {
    size_t mapping_bytes;
    uint32_t users;    /* the caller and the cloning thread: the last one unmaps */
    uint32_t state;    /* a futex: CLONING, then CLONED or FAILED */
    int error;
    pid_t pid;         /* as our pid namespace sees it; the kernel writes it before the child runs */
    int gate, gate_write;
    int shares_memory;
    uint32_t others_from; /* the first descriptor that is none of the child's business; 0 if all may be copied */
    uint32_t descriptors; /* how many slots were given */
    uint32_t operations;
    struct clone_args clone;
    struct operation *operation;
    int64_t *slot;
    struct range kept[KEPT]; /* of a copied memory, in order; none if it is shared */
};

/* --- system calls without the C library: the result is -errno when they fail */

#if defined(__x86_64__)

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* Clone; the child calls `run(job)` on its own stack and never comes back. */
static long clone_and_run(struct job *job, void (*run)(struct job *))
{
    long result;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "mov %[job], %%rdi\n\t"
                     "call *%[run]\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(result)
                     : "a"((long)SYS_clone3), "D"(&job->clone), "S"(sizeof job->clone), [job] "r"(job), [run] "r"(run)
                     : "rcx", "r11", "memory");
    return result;
}

#elif defined(__aarch64__)

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}

static long clone_and_run(struct job *job, void (*run)(struct job *))
{
    register long x8 __asm__("x8") = SYS_clone3;
    register long x0 __asm__("x0") = (long)&job->clone;
    register long x1 __asm__("x1") = sizeof job->clone;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x0, %[job]\n\t"
                     "blr %[run]\n\t"
                     "brk #0\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), [job] "r"(job), [run] "r"(run)
                     : "memory", "x30");
    return x0;
}

#else
#error "no system call stubs for this architecture: the executor in Python takes over"
#endif

static void announce(struct job *job, uint32_t state)
{
    __atomic_store_n(&job->state, state, __ATOMIC_RELEASE);
    call(SYS_futex, (long)&job->state, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}

/* --- in the child */

/* Make the calls; return the index of the first that failed, with its errno in `error`. */
static uint32_t run_operations(const struct job *job, uint32_t *error)
{
    uint32_t at = 0;
    while (at < job->operations) {
        const struct operation *op = &job->operation[at];
        long argument[6];
        for (int place = 0; place < 6; place++)
            argument[place] = op->kind[place] == KIND_SLOT ? job->slot[op->argument[place]] : op->argument[place];
        long result = call(op->number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
        if (result >= 0 && result < op->least)
            result = -EPIPE;
        if (result >= 0 || result < -4095) {
            if (op->save != NO_SLOT)
                job->slot[op->save] = result;
            at += 1u + op->skip;
            continue;
        }
        int known = 0;
        while (known < 3 && op->expected[known].error != -result)
            known++;
        if (known == 3) {
            *error = (uint32_t)-result;
            return at;
        }
        at += 1u + op->expected[known].skip;
    }
    *error = 0;
    return job->operations;
}

/* Unmap everything but what is kept. That a kernel refuses some of it costs memory, nothing else. */
static void give_back(const struct job *job)
{
    uintptr_t at = 0;
    for (int number = 0; number < KEPT; number++) {
        if (job->kept[number].start > at)
            call(SYS_munmap, (long)at, (long)(job->kept[number].start - at), 0, 0, 0, 0);
        if (job->kept[number].end > at)
            at = job->kept[number].end;
    }
    for (int bits = 48; bits >= 39; bits--) {
        uintptr_t top = ((uintptr_t)1 << bits) - PAGE;
        if (top > at && call(SYS_munmap, (long)at, (long)(top - at), 0, 0, 0, 0) == 0)
            return;
    }
}

static void child(struct job *job)
{
    struct { uint32_t index, error; } failure;
    char byte;
    announce(job, CLONED);
    if (job->kept[0].end)
        give_back(job);
    call(SYS_close, job->gate_write, 0, 0, 0, 0, 0);
    /* The gate opens when our parent has written down who we are. EOF: it died, nobody knows of us. */
    if (call(SYS_read, job->gate, (long)&byte, 1, 0, 0, 0) != 1)
        call(SYS_exit_group, 125, 0, 0, 0, 0, 0);
    failure.index = run_operations(job, &failure.error);
    call(SYS_write, job->slot[REPORT_SLOT], (long)&failure, sizeof failure, 0, 0, 0);
    call(SYS_exit_group, 127, 0, 0, 0, 0, 0);
}

/* --- in the parent */

static void let_go(struct job *job)
{
    if (__atomic_sub_fetch(&job->users, 1, __ATOMIC_ACQ_REL) == 0)
        munmap((char *)job - CHILD_STACK_BYTES, job->mapping_bytes);
}

extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));

static struct range pages(uintptr_t start, uintptr_t end)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    return (struct range){start & ~(page - 1), (end + page - 1) & ~(page - 1)};
}

/* What a child needs of a copy of our memory besides its job: this file, and around the thread's pointer what the
 * compiler and the kernel (rseq) look at. */
static struct range own_file(void)
{
    return pages((uintptr_t)__ehdr_start, (uintptr_t)_end);
}

static struct range around_thread(void)
{
    uintptr_t thread = (uintptr_t)__builtin_thread_pointer();
    return pages(thread - KEPT_AROUND_THREAD, thread + KEPT_AROUND_THREAD);
}

static void sort(struct range *range, int count)
{
    for (int last = count - 1; last > 0; last--)
        for (int at = 0; at < last; at++)
            if (range[at].start > range[at + 1].start) {
                struct range earlier = range[at + 1];
                range[at + 1] = range[at];
                range[at] = earlier;
            }
}

static void note_kept(struct job *job)
{
    uintptr_t base = (uintptr_t)job - CHILD_STACK_BYTES;
    job->kept[0] = own_file();
    job->kept[1] = pages(base, base + job->mapping_bytes);
    job->kept[2] = around_thread();
    sort(job->kept, KEPT);
}

/* Leave the table of descriptors that we share with the rest of the process for one without those of others: a child
 * would get a copy of each, and to close a thousand of them takes it a millisecond. A kernel that has no such call lets
 * the child do that. */
static void leave_others(const struct job *job)
{
    for (uint32_t at = 0; at < job->descriptors; at++)
        if (job->slot[at] >= (int64_t)job->others_from)
            return; /* it needs one of them */
    int64_t cgroup = job->clone.flags & CLONE_INTO_CGROUP ? (int64_t)job->clone.cgroup : -1;
    int64_t last = cgroup > job->gate ? cgroup : job->gate;
    if (job->slot[REPORT_SLOT] > last)
        last = job->slot[REPORT_SLOT];
    if (last < (int64_t)job->others_from)
        call(SYS_close_range, job->others_from, UINT32_MAX, CLOSE_RANGE_UNSHARE, 0, 0, 0);
}

/* A thread that only clones. If the child shares our memory, the kernel suspends it until the child has reached execve
 * or ended. */
static void *clone_in_thread(void *given)
{
    struct job *job = given;
    if (job->others_from)
        leave_others(job);
    if (!job->shares_memory)
        note_kept(job);
    long pid = clone_and_run(job, child);
    if (pid < 0) {
        job->error = (int)-pid;
        announce(job, FAILED);
    } else {
        announce(job, CLONED); /* a child that was killed at once had no time to say so */
    }
    let_go(job);
    return NULL;
}

/* Let a thread clone. Return 0 or an errno. */
static int clone_by_thread(struct job *job)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int error = pthread_attr_init(&attributes);
    if (error)
        return error;
    pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    job->users = 2;
    error = pthread_create(&thread, &attributes, clone_in_thread, job);
    pthread_attr_destroy(&attributes);
    if (error) {
        job->users = 1;
        return error;
    }
    while (__atomic_load_n(&job->state, __ATOMIC_ACQUIRE) == CLONING)
        call(SYS_futex, (long)&job->state, FUTEX_WAIT_PRIVATE, CLONING, 0, 0, 0);
    return __atomic_load_n(&job->state, __ATOMIC_ACQUIRE) == FAILED ? job->error : 0;
}

/* Clone with a copy of our memory. No thread could be made while our children are to be born in another pid namespace.
 * Return 0 or an errno. */
static int clone_by_ourselves(struct job *job)
{
    note_kept(job);
    long pid = clone_and_run(job, child);
    if (pid < 0)
        return (int)-pid;
    job->pid = (pid_t)pid;
    return 0;
}

/* Check every number of the program that is used as an index, and make places in its data addresses. */
static int relocate(struct job *job, const struct header *head, const struct pointer *pointer, char *data)
{
    for (uint32_t at = 0; at < head->pointers; at++) {
        if (pointer[at].place + 8ull > head->data_bytes || pointer[at].target > head->data_bytes)
            return 0;
        char *address = data + pointer[at].target;
        memcpy(data + pointer[at].place, &address, sizeof address);
    }
    for (uint32_t at = 0; at < head->operations; at++) {
        struct operation *op = &job->operation[at];
        if (op->save != NO_SLOT && op->save >= head->slots)
            return 0;
        for (int place = 0; place < 6; place++) {
            uint64_t value = (uint64_t)op->argument[place];
            if (op->kind[place] == KIND_SLOT && value >= head->slots)
                return 0;
            if (op->kind[place] == KIND_DATA) {
                if (value > head->data_bytes)
                    return 0;
                op->argument[place] = (int64_t)(data + value);
            }
        }
    }
    return 1;
}

/* Lay a job out in a mapping of its own: stack, job, slots, data, operations. NULL with an exception set. */
static struct job *load(const char *encoded, size_t length, size_t descriptors)
{
    struct header head;
    if (length < sizeof head) {
        PyErr_SetString(PyExc_ValueError, "a start program without a header");
        return NULL;
    }
    memcpy(&head, encoded, sizeof head);
    if (head.magic != MAGIC || head.version != VERSION) {
        PyErr_Format(PyExc_ValueError, "start program of version %u, this spawner runs %u", head.version, VERSION);
        return NULL;
    }
    size_t table = (size_t)head.operations * sizeof(struct operation);
    size_t relocations = (size_t)head.pointers * sizeof(struct pointer);
    if (sizeof head + table + relocations + head.data_bytes != length || head.slots > MOST_SLOTS) {
        PyErr_SetString(PyExc_ValueError, "a start program of the wrong length");
        return NULL;
    }
    if (head.slots <= REPORT_SLOT)
        head.slots = REPORT_SLOT + 1;
    if (descriptors >= GATE_SLOT) {
        PyErr_SetString(PyExc_ValueError, "more descriptors than slots");
        return NULL;
    }
    size_t job_bytes = (sizeof(struct job) + 15) & ~(size_t)15;
    size_t data_bytes = ((size_t)head.data_bytes + 15) & ~(size_t)15;
    size_t mapping_bytes = CHILD_STACK_BYTES + job_bytes + head.slots * sizeof(int64_t) + 16 + data_bytes + table;
    char *base = mmap(NULL, mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        return NULL;
    }
    struct job *job = (struct job *)(base + CHILD_STACK_BYTES);
    job->slot = (int64_t *)((char *)job + job_bytes);
    char *data = (char *)(((uintptr_t)(job->slot + head.slots) + 15) & ~(uintptr_t)15);
    job->operation = (struct operation *)(data + data_bytes);
    job->mapping_bytes = mapping_bytes;
    job->users = 1;
    job->operations = head.operations;
    job->clone.flags = head.clone_flags;
    job->clone.stack = (uintptr_t)base;
    job->clone.stack_size = CHILD_STACK_BYTES;
    memset(job->slot, 0xFF, head.slots * sizeof(int64_t));
    memcpy(job->operation, encoded + sizeof head, table);
    memcpy(data, encoded + sizeof head + table + relocations, head.data_bytes);
    if (!relocate(job, &head, (const struct pointer *)(encoded + sizeof head + table), data)) {
        munmap(base, mapping_bytes);
        PyErr_SetString(PyExc_ValueError, "a start program that points out of itself");
        return NULL;
    }
    return job;
}

PyDoc_STRVAR(clone_doc,
"clone(program, descriptors, into_cgroup, gate, gate_write, report, shares_memory, others_from) -> pid\n\n"
"Clone a child that runs an encoded program once a byte comes through `gate`. `into_cgroup` is -1 or a descriptor.\n"
"A child with a copy of our memory gets no copy of descriptors from `others_from` on, if that is not 0, unless it is\n"
"given one of them; it must not be one that is to end with the thread that cloned it, nor be born elsewhere.\n"
"Raises OSError, or ValueError for a program that is none.");

static PyObject *executor_clone(PyObject *module, PyObject *arguments)
{
    (void)module;
    const char *encoded;
    Py_ssize_t length;
    PyObject *descriptors;
    int into_cgroup, gate, gate_write, report, shares;
    unsigned int others_from;
    if (!PyArg_ParseTuple(arguments, "y#O!iiiipI", &encoded, &length, &PyList_Type, &descriptors, &into_cgroup, &gate,
                          &gate_write, &report, &shares, &others_from))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(descriptors);
    struct job *job = load(encoded, (size_t)length, (size_t)count);
    if (job == NULL)
        return NULL;
    for (Py_ssize_t at = 0; at < count; at++)
        job->slot[at] = PyLong_AsLong(PyList_GET_ITEM(descriptors, at));
    if (PyErr_Occurred()) {
        let_go(job);
        return NULL;
    }
    job->slot[REPORT_SLOT] = report;
    job->slot[GATE_SLOT] = gate;
    job->gate = gate;
    job->gate_write = gate_write;
    job->shares_memory = shares;
    job->others_from = shares ? 0 : others_from;
    job->descriptors = (uint32_t)count;
    job->clone.exit_signal = SIGCHLD;
    job->clone.flags |= CLONE_CLEAR_SIGHAND | CLONE_PARENT_SETTID;
    job->clone.parent_tid = (uintptr_t)&job->pid;
    if (into_cgroup >= 0) {
        job->clone.flags |= CLONE_INTO_CGROUP;
        job->clone.cgroup = (uint64_t)into_cgroup;
    }
    if (shares)
        job->clone.flags |= CLONE_VM | CLONE_VFORK;

    /* The thread and the child start with every signal blocked: none of our handlers may run there. */
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    int error = shares || others_from ? clone_by_thread(job) : clone_by_ourselves(job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pid_t pid = job->pid;
    let_go(job);
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(pid);
}

PyDoc_STRVAR(keep_from_children_doc,
"keep_from_children()\n\n"
"Let no child that gets a copy of our memory have what is mapped now, but what `clone` needs of it. To copy page tables\n"
"and to take them apart again is most of what such a child costs. It is for good: who calls this cannot fork any more.\n"
"Raises OSError.");

static PyObject *executor_keep_from_children(PyObject *module, PyObject *nothing)
{
    (void)module;
    (void)nothing;
    struct range kept[] = {own_file(), around_thread()};
    sort(kept, 2);
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL)
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, "/proc/self/maps");
    char line[512];
    uintptr_t start, end;
    while (fgets(line, sizeof line, maps) != NULL) {
        /* A longer line goes on with a path, which does not begin with two numbers. */
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) != 2)
            continue;
        for (int number = 0; number < 2; number++) {
            uintptr_t before = kept[number].start < end ? kept[number].start : end;
            /* Refused for what the kernel itself maps, which costs little. */
            if (before > start)
                madvise((void *)start, before - start, MADV_DONTFORK);
            if (kept[number].end > start)
                start = kept[number].end;
        }
        if (end > start)
            madvise((void *)start, end - start, MADV_DONTFORK);
    }
    fclose(maps);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"clone", executor_clone, METH_VARARGS, clone_doc},
    {"keep_from_children", executor_keep_from_children, METH_NOARGS, keep_from_children_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_executor", "Run start programs in fresh clones.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__executor(void)
{
    return PyModule_Create(&module);
}
