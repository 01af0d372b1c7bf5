"""Remove directory trees that nobody changes any more: in C where that was built, else in Python.

A container leaves some fifteen files and directories behind. In Python each of them gives up the interpreter's lock,
and waits for it again among all who start and end containers meanwhile.
"""

import errno
import os
import shutil

try:
    from pyswarm.agent_runtime.kernel import _unlocked
except ImportError:  # there was no compiler when this was installed
    HAS_NATIVE = False
else:
    HAS_NATIVE = True


def remove_tree(folder: str, *, native: bool = HAS_NATIVE) -> None:
    """Remove a directory with all that is in it, following no symbolic link. Raises OSError."""
    try:
        if native:
            _unlocked.remove_tree(folder)
        else:
            _remove_by_path(folder)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        shutil.rmtree(folder)  # by descriptors, level by level: a container may nest deeper than a path is long


def _remove_by_path(folder: str) -> None:
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            try:
                os.rmdir(entry.path)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                _remove_by_path(entry.path)
    os.rmdir(folder)
