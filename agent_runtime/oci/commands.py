"""What each command of `pyswarm-oci` does with its arguments; returns the exit code.

Reading the command line is `main.py`'s work, and doing the work that of the modules named after it.
"""

import argparse
import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pyswarm.agent_runtime.bundle.runtime_spec import OCI_VERSION
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel import syscalls
from pyswarm.agent_runtime.kernel.process import exit_code
from pyswarm.agent_runtime.oci import abandoned, execute, lifecycle, observe, rootless, terminal, update
from pyswarm.agent_runtime.oci.create import Creation, create, load
from pyswarm.agent_runtime.oci.example import features, write_spec
from pyswarm.agent_runtime.oci.messages import Messages
from pyswarm.agent_runtime.oci.state import Container, Root
from pyswarm.agent_runtime.oci.status import full_state, is_alive
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, NotFound

__all__ = ["ENTERED", "OCI_VERSION", "UPDATE_FLAGS", "run"]

ENTERED = rootless.ENTERED
UPDATE_FLAGS = update.FLAGS
DEFAULT_ROOT = Path("/run/pyswarm-oci")


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Carry out one command. Raises SwarmError, OSError."""
    root = Root((arguments.root or _default_root(arguments)).absolute())
    if arguments.systemd_cgroup:
        raise FailedPrecondition(
            "--systemd-cgroup is not supported: cgroups are made directly",
            remedy='Use cgroupfs: "exec-opts": ["native.cgroupdriver=cgroupfs"] for Docker, '
            "--cgroup-manager cgroupfs for podman.",
        )
    if rootless.is_ordinary_user():
        _enter_user_namespace(root, arguments)
    command: str = arguments.command
    if command == "spec":
        write_spec(arguments.bundle, rootless=arguments.rootless_spec)
    elif command == "features":
        print(json.dumps(features(), indent=2))
    elif command == "list":
        observe.show_list(root, as_json=arguments.format == "json", quiet=arguments.quiet)
    elif command == "create":
        create(root, _creation(arguments), messages.warn)
    elif command == "run":
        return _run(root, arguments, messages)
    elif command == "delete":
        _delete(root, arguments, messages)
    else:
        return _on_container(root, root.load(arguments.id), arguments, messages)
    return 0


def _default_root(arguments: argparse.Namespace) -> Path:
    by_user = arguments.in_user_namespace or rootless.is_ordinary_user()
    return rootless.default_root() if by_user else DEFAULT_ROOT


def _enter_user_namespace(root: Root, arguments: argparse.Namespace) -> None:
    """Let those commands begin anew that take more than an ordinary user may do."""
    if arguments.command in ("create", "run"):
        rootless.enter_new(load(arguments.bundle / "config.json", lambda _warning: None))
    elif arguments.command in ("start", "exec"):
        container = root.load(arguments.id)
        if is_alive(container.process):
            rootless.enter_that_of(container.pid)


def _on_container(root: Root, container: Container, arguments: argparse.Namespace, messages: Messages) -> int:
    command = arguments.command
    if command == "start":
        lifecycle.start(root, container, messages.warn)
    elif command == "state":
        print(json.dumps(full_state(root, container), indent=2))
    elif command == "kill":
        number = lifecycle.signal_number(arguments.signal)
        lifecycle.kill(root, container, number, everyone=arguments.all)
    elif command == "pause":
        lifecycle.pause(root, container)
    elif command == "resume":
        lifecycle.resume(root, container)
    elif command == "exec":
        return execute.execute(root, container, execute.request_of(arguments), messages.warn)
    elif command == "ps":
        observe.show_processes(container, as_json=arguments.format == "json", options=arguments.options)
    elif command == "events":
        observe.show_events(root, container, interval=arguments.interval, once=arguments.stats)
    elif command == "update":
        update.update(root, container, arguments)
    return 0


def _creation(arguments: argparse.Namespace) -> Creation:
    listen_fds = os.environ.get("LISTEN_FDS", "")
    preserved = arguments.preserve_fds + (int(listen_fds) if listen_fds.isdecimal() else 0)
    for number in range(3, 3 + preserved):
        try:
            os.set_inheritable(number, True)
        except OSError as error:
            raise InvalidArgument(
                f"descriptor {number} is not open", remedy="Give --preserve-fds the number of descriptors from 3 on."
            ) from error
    return Creation(
        id=arguments.id, bundle=arguments.bundle, console_socket=arguments.console_socket,
        pid_file=arguments.pid_file, preserved=preserved, pivot=not arguments.no_pivot,
        new_keyring=not arguments.no_new_keyring, entered=arguments.in_user_namespace,
    )  # fmt: skip


def _delete(root: Root, arguments: argparse.Namespace, messages: Messages) -> None:
    try:
        container = root.load(arguments.id)
    except NotFound:
        if not abandoned.clean(root, arguments.id, messages.warn) and not arguments.force:
            raise
        return
    lifecycle.delete(root, container, messages.warn, force=arguments.force)


def _run(root: Root, arguments: argparse.Namespace, messages: Messages) -> int:
    """Create, start, wait, delete: the exit code is the program's."""
    kept: list[int] = []
    wanted = _creation(arguments)
    if not arguments.detach and not arguments.console_socket:
        wanted = replace(wanted, keep_terminal=kept.append)
    if not arguments.detach:
        syscalls.prctl(n.PR_SET_CHILD_SUBREAPER, 1)
    container = create(root, wanted, messages.warn)
    try:
        lifecycle.start(root, container, messages.warn)
        if arguments.detach:
            return 0
        return _wait(container, kept)
    except BaseException:
        arguments.detach = False
        raise
    finally:
        if not arguments.detach and not arguments.keep:
            with suppress(NotFound):
                lifecycle.delete(root, root.load(container.id), messages.warn, force=True)


def _wait(container: Container, terminals: list[int]) -> int:
    if terminals:
        pidfd = os.pidfd_open(container.pid)
        with terminal.raw(0):
            terminal.carry(terminals[0], pidfd)
        os.close(pidfd)
    return exit_code(lifecycle.wait_and_forward(container.pid))
