"""Run one of pyswarmd's one-shots: JSON options on standard input, one JSON object on standard output.

    {"ok": true, …}    or    {"ok": false, "code": "…", "message": "…", "remedy": "…"} and exit status 1

Whatever happens, the answer is of that form (docs/reference/seams.md); a fault of ours leaves its traceback on
standard error besides.
"""

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from pyswarm.proto.errors import Internal, InvalidArgument, ResourceExhausted, SwarmError
from pyswarm.proto.paths import NodePaths

Work = Callable[[NodePaths, dict[str, Any]], dict[str, Any]]


def run(work: Work, *, description: str) -> NoReturn:
    """Answer with what `work(paths, options)` returns or raises, and exit."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", default=None, help="where state and sockets live (PYSWARM_ROOT, /)")
    arguments = parser.parse_args()
    try:
        answer = {"ok": True, **work(NodePaths.from_environment(arguments.root), _options(sys.stdin.read()))}
    except SwarmError as error:
        answer = _refusal(error)
    except OSError as error:
        answer = _refusal(_unwritten(error))
    except Exception as error:  # noqa: BLE001 - told to whoever asked, with its traceback on standard error
        traceback.print_exc()
        answer = _refusal(Internal(f"{type(error).__name__}: {error}"))
    print(json.dumps(answer))
    sys.exit(0 if answer["ok"] else 1)


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text or "{}")
    except ValueError as error:
        raise InvalidArgument(f"the options are not JSON: {error}") from error
    if not isinstance(options, dict):
        raise InvalidArgument("the options are not a JSON object")
    return options


def _unwritten(error: OSError) -> SwarmError:
    place = f"{error.filename}: " if error.filename else ""
    return ResourceExhausted(
        f"the node's files cannot be written: {place}{error.strerror or error}",
        remedy="Look at the free space and the permissions of the state directory.",
    )


def _refusal(error: SwarmError) -> dict[str, Any]:
    return {"ok": False, "code": error.code, "message": error.message, "remedy": error.remedy}
