/* Work on files that lets go of the interpreter's lock once, and not for each system call: beside other threads every
 * call costs two more, and a change of threads. Who uses it, and the same in Python: kernel/trees.py.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* A descriptor is open for each level: deeper trees are somebody else's. */
#define DEEPEST 64

static int remove_named(int parent, const char *name, int is_directory, int depth);

static int is_self_or_parent(const char *name)
{
    return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
}

/* Remove everything in a directory. Return 0 or an errno. */
static int empty(int parent, const char *name, int depth)
{
    int error = 0;
    if (depth == DEEPEST)
        return ENAMETOOLONG;
    int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return errno;
    DIR *stream = fdopendir(folder);
    if (stream == NULL) {
        error = errno;
        close(folder);
        return error;
    }
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(stream);
        if (entry == NULL) {
            error = errno;
            break;
        }
        if (is_self_or_parent(entry->d_name))
            continue;
        error = remove_named(folder, entry->d_name, entry->d_type == DT_DIR, depth + 1);
        if (error)
            break;
    }
    closedir(stream);
    return error;
}

/* Remove a file or a tree. `is_directory` is what it most likely is: some file systems do not say. */
static int remove_named(int parent, const char *name, int is_directory, int depth)
{
    if (!is_directory) {
        if (unlinkat(parent, name, 0) == 0)
            return 0;
        if (errno != EISDIR)
            return errno;
    }
    if (unlinkat(parent, name, AT_REMOVEDIR) == 0)
        return 0;
    if (errno != ENOTEMPTY && errno != EEXIST)
        return errno;
    int error = empty(parent, name, depth);
    if (error)
        return error;
    return unlinkat(parent, name, AT_REMOVEDIR) == 0 ? 0 : errno;
}

PyDoc_STRVAR(remove_tree_doc,
"remove_tree(path)\n\n"
"Remove a directory with all that is in it, following no symbolic link. Raises OSError; ENAMETOOLONG when it is deeper\n"
"than this goes.");

static PyObject *unlocked_remove_tree(PyObject *module, PyObject *path)
{
    (void)module;
    PyObject *encoded;
    int error;
    if (!PyUnicode_FSConverter(path, &encoded))
        return NULL;
    const char *name = PyBytes_AS_STRING(encoded);
    Py_BEGIN_ALLOW_THREADS
    error = remove_named(AT_FDCWD, name, 1, 0);
    Py_END_ALLOW_THREADS
    Py_DECREF(encoded);
    if (error) {
        errno = error;
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"remove_tree", unlocked_remove_tree, METH_O, remove_tree_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_unlocked", "Work on files without the interpreter's lock.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__unlocked(void)
{
    return PyModule_Create(&module);
}
