"""What `pyswarm lab up` shows once the cluster stands: an image, a stack, its page, and what to type next."""

import subprocess
from pathlib import Path

import pyswarm.deploy.lab.images as images
from pyswarm.deploy.lab.lab import Lab, Say
from pyswarm.deploy.lab.topology import REGISTRY, REGISTRY_PORT

STACK = "web"
PORT = 8080
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "web.yaml"
_FETCH = """\
import sys, urllib.request
sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2])).read().decode())
"""


def push_web_image(lab: Lab, version: str) -> str:
    """Build the web image and push it to the lab's registry; return its reference."""
    reference = f"web:{version}"
    archive = lab.directory / f"web-{version}.tar"
    lab_python = lab.switch.command(
        *images.command("build-web", "--version", version, "--out", str(archive)),
        "--tag", reference, "--push", f"http://127.0.0.1:{REGISTRY_PORT}",
    )  # fmt: skip
    done = subprocess.run(lab_python, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the web image could not be built and pushed:\n{done.stderr.strip()}")
    return f"{REGISTRY}/{reference}"


def deploy_web(lab: Lab, *options: str) -> None:
    """Deploy the example stack from the first manager; its progress goes to the terminal."""
    host = lab.host("m1")
    command = host.command(["pyswarm", "stack", "deploy", *options, "-c", str(EXAMPLE), STACK])
    environment = {**host.environment(), "REGISTRY": REGISTRY}
    status = subprocess.run(command, env=environment, check=False).returncode
    if status != 0:
        raise RuntimeError(f"`pyswarm stack deploy` exited with {status}")


def fetch(lab: Lab, address: str, *, path: str = "/", timeout_seconds: float = 5.0) -> str:
    """Fetch a page through a published port from outside every host and container. Raises RuntimeError."""
    url = f"http://{address}:{PORT}{path}"
    done = subprocess.run(
        lab.switch.command("python3", "-c", _FETCH, url, str(timeout_seconds)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{url} did not answer: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def show(lab: Lab, say: Say) -> None:
    """Deploy the example and print what there is to see."""
    say(f"registry: pushing {REGISTRY}/web:1")
    push_web_image(lab, "1")
    say(f"m1: pyswarm stack deploy -c {EXAMPLE.relative_to(EXAMPLE.parents[2])} {STACK}")
    deploy_web(lab)
    running = [
        host.address
        for host in lab.hosts.values()
        if any(task["Node"] == host.name and task["CurrentState"].startswith("Running") for task in _tasks(lab))
    ]
    say(f"\nhttp://{running[0]}:{PORT}/ says, asked from outside the cluster:")
    say(fetch(lab, running[0]).rstrip())
    for arguments in (["node", "ls"], ["service", "ls"], ["service", "ps", f"{STACK}_web"]):
        say(f"\n$ pyswarm {' '.join(arguments)}")
        say(lab.manager_command(*arguments).rstrip())


def _tasks(lab: Lab) -> list[dict[str, str]]:
    from pyswarm.deploy.lab.lab import records

    return records(lab.manager_command("service", "ps", f"{STACK}_web", "--format", "json"))


def what_next(lab: Lab, command: str) -> str:
    """Return the lines that tell a newcomer what to type."""
    name = "" if lab.plan.name == "lab" else f" --name {lab.plan.name}"
    rows = [
        (f"{command} exec{name} m1 bash", "enter a host; `pyswarm` works there as on any machine"),
        (f"{command} exec{name} m1 pyswarm service scale {STACK}_web=10", "scale"),
        (f"{command} exec{name} m1 pyswarm service logs -f {STACK}_web", "read what the replicas print"),
        (f"{command} kill{name} w1", "pull a host's plug and watch its tasks move"),
        (f"{command} up{name}", "bring it back"),
        (f"{command} partition{name} m3", "cut a host off the network; `heal` undoes it"),
        (f"{command} down{name}", "take the lab down; nothing stays behind"),
    ]
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"  {typed:<{width}}   {meaning}" for typed, meaning in rows)
