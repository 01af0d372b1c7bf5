"""`pyswarm lab up|down|ls|exec|kill|partition|heal`: a thin skin over `lab.py`."""

import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from pyswarm.deploy.lab import demo
from pyswarm.deploy.lab.lab import Lab, LabNotFound
from pyswarm.deploy.lab.machine import CommandFailed

_name = click.option("--name", default="lab", show_default=True, help="Which lab.")


def _explained(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the failures of a lab into a message and exit status 1."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        if os.geteuid() != 0:
            raise click.ClickException("a lab makes namespaces, which needs root\nRun the command again with sudo.")
        try:
            return command(*args, **kwargs)
        except (LabNotFound, CommandFailed, RuntimeError, ValueError, TimeoutError) as error:
            raise click.ClickException(str(error)) from error

    return run


@click.group(help="A lab cluster on this machine: hosts made of network namespaces.")
def lab() -> None:
    pass


@lab.command(help="Start a lab, or what is missing of it: hosts, registry, cluster and the example stack.")
@_name
@click.option("--managers", type=int, help="Number of managers (3).")
@click.option("--workers", type=int, help="Number of workers (2).")
@click.option("--bare", is_flag=True, help="Form the cluster, but deploy nothing.")
@_explained
def up(name: str, managers: int | None, workers: int | None, bare: bool) -> None:
    started = time.monotonic()
    if managers is None and workers is None and name in Lab.names():
        cluster = Lab.load(name)
    else:
        cluster = Lab.create(
            name, managers=3 if managers is None else managers, workers=2 if workers is None else workers
        )
    cluster.start_network()
    cluster.form_cluster(click.echo)
    if not bare:
        demo.show(cluster, click.echo)
    command = f"{os.path.relpath(sys.argv[0])} lab"
    click.echo(f"\nlab {name} is up ({time.monotonic() - started:.0f} s). What to type next:")
    click.echo(demo.what_next(cluster, command))


@lab.command(help="Stop a lab and remove all of it.")
@_name
@click.option("--if-exists", is_flag=True, help="Succeed when there is no such lab.")
@_explained
def down(name: str, if_exists: bool) -> None:
    if if_exists and name not in Lab.names():
        return
    Lab.load(name).down()
    click.echo(f"lab {name} is gone")


@lab.command(help="List the hosts of a lab.")
@_name
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@_explained
def ls(name: str, form: str, quiet: bool) -> None:
    import json

    hosts = Lab.load(name).hosts.values()
    if quiet:
        for host in hosts:
            click.echo(host.name)
    elif form == "json":
        for host in hosts:
            row = {"Name": host.name, "Address": host.address, "Running": host.is_running, "Root": str(host.state)}
            click.echo(json.dumps(row))
    else:
        click.echo(f"{'HOST':8}{'ADDRESS':14}{'STATUS':9}ROOT")
        for host in hosts:
            click.echo(f"{host.name:8}{host.address:14}{'up' if host.is_running else 'down':9}{host.state}")


@lab.command("exec", help="Run a command on a host.", context_settings={"ignore_unknown_options": True})
@_name
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_explained
def execute(name: str, host: str, command: tuple[str, ...]) -> None:
    machine = Lab.load(name).host(host)
    line = machine.command(command)
    os.execvpe(line[0], line, machine.environment())


@lab.command(help="Pull a host's plug: SIGKILL every process on it. `up` boots it again.")
@_name
@click.argument("host")
@_explained
def kill(name: str, host: str) -> None:
    Lab.load(name).kill(host)
    click.echo(f"{host} is down")


@lab.command(help="Cut a host off the network.")
@_name
@click.argument("host")
@_explained
def partition(name: str, host: str) -> None:
    Lab.load(name).host(host).partition()
    click.echo(f"{host} is cut off")


@lab.command(help="Undo `partition`.")
@_name
@click.argument("host")
@_explained
def heal(name: str, host: str) -> None:
    Lab.load(name).host(host).heal()
    click.echo(f"{host} is connected")
