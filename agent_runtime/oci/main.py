"""`pyswarm-oci`: the OCI command line with runc's commands and flags.

Errors go to stderr and, if asked, to a log, in the form containerd and conmon read. argparse, not click: whoever
drives a runtime starts it several times a container, and every module counts.
"""

import argparse
import os
import sys
from pathlib import Path

from pyswarm.agent_runtime.oci import commands
from pyswarm.agent_runtime.oci.messages import Messages
from pyswarm.proto.errors import SwarmError

VERSION = "0.1.0"


def main() -> None:
    arguments = _parser().parse_args()
    messages = Messages(arguments.log, arguments.log_format, debug=arguments.debug)
    try:
        sys.exit(commands.run(arguments, messages))
    except SwarmError as error:
        messages.error(error.message)
        if error.remedy:
            print(error.remedy, file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        messages.error(f"cannot {arguments.command}:{where} {os.strerror(error.errno or 0)} ({error})")
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pyswarm-oci", description="Run containers from OCI bundles.")
    parser.add_argument("--root", type=Path, help=f"where containers are remembered ({commands.DEFAULT_ROOT})")
    parser.add_argument(commands.ENTERED, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--log", default="", help="write errors to this file as well")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--debug", action="store_true", help="say more in the log")
    parser.add_argument("--systemd-cgroup", action="store_true", help="have systemd make the cgroups")
    parser.add_argument("--rootless", default="auto", help=argparse.SUPPRESS)
    parser.add_argument("--criu", default="", help=argparse.SUPPRESS)
    version = f"pyswarm-oci version {VERSION}\nspec: {commands.OCI_VERSION}"
    parser.add_argument("--version", "-v", action="version", version=version)
    found = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, add in _COMMANDS.items():
        command = found.add_parser(name, help=add.__doc__, description=add.__doc__)
        add(command)
    return parser


def _create_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", "-b", type=Path, default=Path(), help="directory of config.json")
    parser.add_argument("--console-socket", default="", help="socket that gets the container's terminal")
    parser.add_argument("--pid-file", default="", help="where to write the first process's pid")
    parser.add_argument("--preserve-fds", type=int, default=0, help="descriptors from 3 on to pass on")
    parser.add_argument("--no-pivot", action="store_true", help="for machines that run from their initramfs")
    parser.add_argument("--no-new-keyring", action="store_true", help="keep the caller's session keyring")
    parser.add_argument("id")


def _create(parser: argparse.ArgumentParser) -> None:
    """Create a container that waits for its start."""
    _create_flags(parser)


def _run(parser: argparse.ArgumentParser) -> None:
    """Create and start a container, and wait for its end."""
    _create_flags(parser)
    parser.add_argument("--detach", "-d", action="store_true", help="do not wait")
    parser.add_argument("--keep", action="store_true", help="do not delete it at its end")
    parser.add_argument("--no-subreaper", action="store_true", help=argparse.SUPPRESS)


def _only_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id")


def _start(parser: argparse.ArgumentParser) -> None:
    """Execute the program of a created container."""
    _only_id(parser)


def _state(parser: argparse.ArgumentParser) -> None:
    """Show the state of a container."""
    _only_id(parser)


def _kill(parser: argparse.ArgumentParser) -> None:
    """Send a signal to a container's first process."""
    parser.add_argument("--all", "-a", action="store_true", help="send it to every process")
    parser.add_argument("id")
    parser.add_argument("signal", nargs="?", default="SIGTERM")


def _delete(parser: argparse.ArgumentParser) -> None:
    """Remove a stopped container."""
    parser.add_argument("--force", "-f", action="store_true", help="kill it first; do nothing if there is none")
    _only_id(parser)


def _exec(parser: argparse.ArgumentParser) -> None:
    """Execute another program in a running container."""
    parser.add_argument("--console-socket", default="")
    parser.add_argument("--pid-file", default="")
    parser.add_argument("--cwd", default="")
    parser.add_argument("--env", "-e", action="append", default=[])
    parser.add_argument("--tty", "-t", action="store_true")
    parser.add_argument("--user", "-u", default="", help="UID[:GID]")
    parser.add_argument("--additional-gids", "-g", type=int, action="append", default=[])
    parser.add_argument("--process", "-p", default="", help="a process.json")
    parser.add_argument("--detach", "-d", action="store_true")
    parser.add_argument("--cap", "-c", action="append", default=[])
    parser.add_argument("--no-new-privs", action="store_true")
    parser.add_argument("--preserve-fds", type=int, default=0)
    parser.add_argument("--ignore-paused", action="store_true")
    parser.add_argument("--process-label", default="")
    parser.add_argument("--apparmor", default="")
    parser.add_argument("id")
    parser.add_argument("args", nargs=argparse.REMAINDER)


def _ps(parser: argparse.ArgumentParser) -> None:
    """Show the processes of a container."""
    parser.add_argument("--format", "-f", choices=("table", "json"), default="table")
    parser.add_argument("id")
    parser.add_argument("options", nargs=argparse.REMAINDER)


def _events(parser: argparse.ArgumentParser) -> None:
    """Show what a container uses, and when it runs out of memory."""
    parser.add_argument("--interval", default="5s")
    parser.add_argument("--stats", action="store_true", help="once")
    _only_id(parser)


def _pause(parser: argparse.ArgumentParser) -> None:
    """Stop every process of a container where it is."""
    _only_id(parser)


def _resume(parser: argparse.ArgumentParser) -> None:
    """Let a paused container go on."""
    _only_id(parser)


def _update(parser: argparse.ArgumentParser) -> None:
    """Change the limits of a container."""
    parser.add_argument("--resources", "-r", default="", help="file with a resources object, - for standard input")
    for name in commands.UPDATE_FLAGS:
        parser.add_argument(f"--{name}", default=None)
    _only_id(parser)


def _list(parser: argparse.ArgumentParser) -> None:
    """Show the containers there are."""
    parser.add_argument("--format", "-f", choices=("table", "json"), default="table")
    parser.add_argument("--quiet", "-q", action="store_true")


def _spec(parser: argparse.ArgumentParser) -> None:
    """Write a config.json to begin with."""
    parser.add_argument("--bundle", "-b", type=Path, default=Path())
    parser.add_argument("--rootless", action="store_true", dest="rootless_spec", help="for the ordinary user who calls")


def _features(_parser: argparse.ArgumentParser) -> None:
    """Show what this runtime can do."""


_COMMANDS = {
    "create": _create, "start": _start, "state": _state, "kill": _kill, "delete": _delete, "run": _run,
    "exec": _exec, "ps": _ps, "events": _events, "pause": _pause, "resume": _resume, "update": _update,
    "list": _list, "spec": _spec, "features": _features,
}  # fmt: skip

if __name__ == "__main__":
    main()
