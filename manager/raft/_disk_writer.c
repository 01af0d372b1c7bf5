/* Write a piece of a file and sync it, in a thread that never needs the interpreter's lock. Who uses it, and the same
 * in Python: manager/raft/disk_thread.py.
 *
 * One write at a time: `post` hands it over, `take` brings back how it ended. In between, `wait` waits for the end
 * for a bounded time, and `arm` has the end announced by an eventfd. The thread has a copy of the bytes, and whoever
 * lets go of what is shared last frees it: a disk that never answers keeps nobody waiting, not even `close`.
 *
 * Behind a write it may be asked to fill a piece of the file with zeros, which nobody is told of: the next write may be
 * posted meanwhile and begins when that is done. Why that is worth it: wal.py.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define STACK_BYTES (128 * 1024)

static const char zeros[64 * 1024];

enum state { IDLE, POSTED, DONE };

/* What the interpreter's side and the thread share; `mutex` guards all of it, and nobody holds it while writing. */
struct shared {
    pthread_mutex_t mutex;
    pthread_cond_t posted, done;
    enum state state;
    int users;
    int is_closed;
    int is_armed; /* announce the end of this write */
    int event;
    int descriptor;
    off_t offset;
    size_t size;
    char *data;
    int error;
    off_t zeros_from, zeros_to; /* to be filled behind this write */
    int is_filling;
    int fill_error; /* told as the error of the next write; the thread's own */
};

static void let_go(struct shared *shared)
{
    pthread_mutex_lock(&shared->mutex);
    int users = --shared->users;
    pthread_mutex_unlock(&shared->mutex);
    if (users)
        return;
    close(shared->event);
    free(shared->data);
    pthread_cond_destroy(&shared->posted);
    pthread_cond_destroy(&shared->done);
    pthread_mutex_destroy(&shared->mutex);
    free(shared);
}

/* Return 0, or the errno that ended it. */
static int write_and_sync(int descriptor, const char *data, size_t size, off_t offset)
{
    while (size) {
        ssize_t written = pwrite(descriptor, data, size, offset);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        data += written;
        size -= (size_t)written;
        offset += written;
    }
    return fdatasync(descriptor) ? errno : 0;
}

/* Return 0, or the errno that ended it. */
static int fill_and_sync(int descriptor, off_t from, off_t to)
{
    while (from < to) {
        off_t size = to - from;
        ssize_t written = pwrite(descriptor, zeros, size < (off_t)sizeof zeros ? (size_t)size : sizeof zeros, from);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        from += written;
    }
    return fdatasync(descriptor) ? errno : 0;
}

/* With the mutex held, which is let go of meanwhile. */
static void fill_behind(struct shared *shared)
{
    int descriptor = shared->descriptor;
    off_t from = shared->zeros_from, to = shared->zeros_to;
    shared->is_filling = 1;
    pthread_mutex_unlock(&shared->mutex);
    int error = fill_and_sync(descriptor, from, to);
    pthread_mutex_lock(&shared->mutex);
    shared->fill_error = error;
    shared->is_filling = 0;
    pthread_cond_broadcast(&shared->done);
}

static void *work(void *argument)
{
    struct shared *shared = argument;
    pthread_mutex_lock(&shared->mutex);
    for (;;) {
        while (shared->state != POSTED && !shared->is_closed)
            pthread_cond_wait(&shared->posted, &shared->mutex);
        if (shared->state != POSTED)
            break;
        pthread_mutex_unlock(&shared->mutex);
        int error = shared->fill_error;
        if (!error)
            error = write_and_sync(shared->descriptor, shared->data, shared->size, shared->offset);
        pthread_mutex_lock(&shared->mutex);
        shared->error = error;
        shared->state = DONE;
        pthread_cond_broadcast(&shared->done);
        if (shared->is_armed) {
            uint64_t one = 1;
            shared->is_armed = 0;
            /* It cannot fail: the counter is far below its limit. */
            if (write(shared->event, &one, sizeof one) != sizeof one)
                abort();
        }
        if (!error && shared->zeros_from < shared->zeros_to)
            fill_behind(shared);
    }
    pthread_mutex_unlock(&shared->mutex);
    let_go(shared);
    return NULL;
}

static int start_thread(struct shared *shared)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    /* Signals are for the interpreter's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, &attributes, work, shared);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

static struct shared *new_shared(void)
{
    struct shared *shared = calloc(1, sizeof *shared);
    if (!shared)
        return NULL;
    shared->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (shared->event < 0) {
        free(shared);
        return NULL;
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&shared->mutex, NULL);
    pthread_cond_init(&shared->posted, NULL);
    pthread_cond_init(&shared->done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    shared->users = 1;
    return shared;
}

/* --- the Python type */

typedef struct {
    PyObject_HEAD
    struct shared *shared; /* NULL once closed */
} Writer;

static struct shared *opened(Writer *self)
{
    if (!self->shared)
        PyErr_SetString(PyExc_ValueError, "the writer is closed");
    return self->shared;
}

static PyObject *writer_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
    static char *none[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, names, ":Writer", none))
        return NULL;
    Writer *self = (Writer *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->shared = new_shared();
    if (!self->shared) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    self->shared->users = 2;
    int error = start_thread(self->shared);
    if (error) {
        self->shared->users = 1;
        Py_DECREF(self);
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return (PyObject *)self;
}

static void close_shared(Writer *self)
{
    struct shared *shared = self->shared;
    if (!shared)
        return;
    self->shared = NULL;
    pthread_mutex_lock(&shared->mutex);
    shared->is_closed = 1;
    pthread_cond_signal(&shared->posted);
    pthread_mutex_unlock(&shared->mutex);
    let_go(shared);
}

static void writer_dealloc(Writer *self)
{
    PyTypeObject *type = Py_TYPE(self);
    close_shared(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *writer_close(Writer *self, PyObject *unused)
{
    (void)unused;
    close_shared(self);
    Py_RETURN_NONE;
}

static PyObject *writer_fileno(Writer *self, PyObject *unused)
{
    (void)unused;
    struct shared *shared = opened(self);
    return shared ? PyLong_FromLong(shared->event) : NULL;
}

static PyObject *writer_post(Writer *self, PyObject *arguments)
{
    int descriptor;
    Py_buffer data;
    long long offset, zeros_from = 0, zeros_to = 0;
    struct shared *shared = opened(self);
    if (!shared ||
        !PyArg_ParseTuple(arguments, "iy*L|LL:post", &descriptor, &data, &offset, &zeros_from, &zeros_to))
        return NULL;
    char *copy = malloc(data.len ? (size_t)data.len : 1);
    if (!copy) {
        PyBuffer_Release(&data);
        return PyErr_NoMemory();
    }
    memcpy(copy, data.buf, (size_t)data.len);
    pthread_mutex_lock(&shared->mutex);
    int is_idle = shared->state == IDLE;
    if (is_idle) {
        shared->descriptor = descriptor;
        shared->data = copy;
        shared->size = (size_t)data.len;
        shared->offset = (off_t)offset;
        shared->zeros_from = (off_t)zeros_from;
        shared->zeros_to = (off_t)zeros_to;
        shared->state = POSTED;
        pthread_cond_signal(&shared->posted);
    }
    pthread_mutex_unlock(&shared->mutex);
    PyBuffer_Release(&data);
    if (!is_idle) {
        free(copy);
        PyErr_SetString(PyExc_ValueError, "a write is under way, or was not taken back");
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Wait until no write is under way; when `seconds` is negative, for ever, and until nothing is being filled either. */
static int wait_until_done(struct shared *shared, double seconds)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (seconds >= 0) {
        long long nanoseconds = end.tv_nsec + (long long)(seconds * 1e9);
        end.tv_sec += (time_t)(nanoseconds / 1000000000);
        end.tv_nsec = (long)(nanoseconds % 1000000000);
    }
    pthread_mutex_lock(&shared->mutex);
    int error = 0;
    while ((shared->state == POSTED || (seconds < 0 && shared->is_filling)) && error != ETIMEDOUT)
        error = seconds < 0 ? pthread_cond_wait(&shared->done, &shared->mutex)
                            : pthread_cond_timedwait(&shared->done, &shared->mutex, &end);
    int is_done = shared->state != POSTED;
    pthread_mutex_unlock(&shared->mutex);
    return is_done;
}

static PyObject *writer_wait(Writer *self, PyObject *arguments)
{
    double seconds;
    int is_done;
    struct shared *shared = opened(self);
    if (!shared || !PyArg_ParseTuple(arguments, "d:wait", &seconds))
        return NULL;
    /* Another thread may close the writer meanwhile. */
    pthread_mutex_lock(&shared->mutex);
    shared->users++;
    pthread_mutex_unlock(&shared->mutex);
    Py_BEGIN_ALLOW_THREADS
    is_done = wait_until_done(shared, seconds);
    let_go(shared);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(is_done);
}

static PyObject *writer_arm(Writer *self, PyObject *unused)
{
    (void)unused;
    struct shared *shared = opened(self);
    if (!shared)
        return NULL;
    pthread_mutex_lock(&shared->mutex);
    int is_done = shared->state != POSTED;
    shared->is_armed = !is_done;
    pthread_mutex_unlock(&shared->mutex);
    return PyBool_FromLong(is_done);
}

static PyObject *writer_take(Writer *self, PyObject *unused)
{
    (void)unused;
    struct shared *shared = opened(self);
    if (!shared)
        return NULL;
    uint64_t count;
    char *data = NULL;
    pthread_mutex_lock(&shared->mutex);
    int is_done = shared->state == DONE, error = shared->error;
    if (is_done) {
        shared->state = IDLE;
        data = shared->data;
        shared->data = NULL;
    }
    pthread_mutex_unlock(&shared->mutex);
    if (!is_done) {
        PyErr_SetString(PyExc_ValueError, "no write has ended");
        return NULL;
    }
    free(data);
    /* Empty when the end was not announced. */
    if (read(shared->event, &count, sizeof count) < 0 && errno != EAGAIN)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(error);
}

static PyMethodDef methods[] = {
    {"fileno", (PyCFunction)writer_fileno, METH_NOARGS, "The eventfd that becomes readable when `arm` asked for it."},
    {"post", (PyCFunction)writer_post, METH_VARARGS,
     "post(descriptor, data, offset, zeros_from=0, zeros_to=0): write all of `data` there and sync; when that has ended, "
     "fill the bytes between the other two with zeros. ValueError unless the last one was taken."},
    {"wait", (PyCFunction)writer_wait, METH_VARARGS,
     "wait(seconds): wait that long for the write under way; return whether there is none. When negative, wait for ever, "
     "and until nothing is being filled."},
    {"arm", (PyCFunction)writer_arm, METH_NOARGS,
     "Have the end of the write under way announced by `fileno`; return True when there is nothing to wait for."},
    {"take", (PyCFunction)writer_take, METH_NOARGS, "Return the errno of the write that has ended, 0 for success."},
    {"close", (PyCFunction)writer_close, METH_NOARGS, "End the thread behind the write under way, without waiting."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, writer_new},
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "A thread that writes and syncs one piece of a file at a time."},
    {0, NULL},
};

static PyType_Spec specification = {
    .name = "pyswarm.manager.raft._disk_writer.Writer",
    .basicsize = sizeof(Writer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

static int add_type(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&specification);
    int result = type ? PyModule_AddObjectRef(module, "Writer", type) : -1;
    Py_XDECREF(type);
    return result;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, add_type},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_disk_writer",
    .m_doc = "Write and sync without the interpreter's lock.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__disk_writer(void)
{
    return PyModuleDef_Init(&module);
}
