"""`pyswarm secret` and `pyswarm config`: Docker's words, columns and JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from pyswarm.proto.model.spec import FileTarget, SecretReference


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "content"
    path.write_bytes(b"hunter2")
    return str(path)


def test_a_secret_is_created_listed_inspected_and_removed(pyswarm: Any, control: Any, file: str) -> None:
    assert pyswarm.ok("secret", "create", "-l", "a=b", "key", file) == "secret-key\n"
    assert control.requests[-1].data == b"hunter2"
    assert pyswarm.ok("secret", "ls").splitlines()[0].split() == ["ID", "NAME", "DRIVER", "CREATED", "UPDATED"]
    assert pyswarm.ok("secret", "ls", "-q", "--filter", "name=ke") == "secret-key\n"
    assert pyswarm.ok("secret", "ls", "-q", "--filter", "name=other") == ""
    (shown,) = json.loads(pyswarm.ok("secret", "inspect", "key"))
    assert shown["Spec"] == {"Name": "key", "Labels": {}}
    assert "hunter2" not in pyswarm.ok("secret", "inspect", "--pretty", "key")
    assert pyswarm.ok("secret", "rm", "key") == "key\n"


def test_a_config_shows_what_it_holds(pyswarm: Any, control: Any, file: str) -> None:
    pyswarm.ok("config", "create", "site", file)
    (shown,) = json.loads(pyswarm.ok("config", "inspect", "site"))
    assert shown["Spec"]["Data"] == "aHVudGVyMg=="
    assert "Data:\nhunter2" in pyswarm.ok("config", "inspect", "--pretty", "site")
    assert pyswarm.ok("config", "ls").splitlines()[0].split() == ["ID", "NAME", "CREATED", "UPDATED"]


def test_what_cannot_be_a_secret_is_refused_before_it_is_sent(pyswarm: Any, control: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(bytes(500 * 1024))
    assert "it is empty" in pyswarm.fails("secret", "create", "key", str(tmp_path / "empty"))
    assert "512,000 bytes long" in pyswarm.fails("secret", "create", "key", str(tmp_path / "large"))
    assert "'a/b' is not the name of a secret" in pyswarm.fails("secret", "create", "a/b", str(tmp_path / "large"))
    assert "No such file" in pyswarm.fails("secret", "create", "key", "/nowhere")
    assert control.requests == []


def test_rm_goes_on_after_a_failure(pyswarm: Any, control: Any, file: str) -> None:
    pyswarm.ok("secret", "create", "key", file)
    said = pyswarm.run("secret", "rm", "nope", "key")
    assert (said.status, said.out) == (1, "key\n")


def test_a_service_is_given_secrets_and_they_are_taken_out_again(pyswarm: Any, control: Any) -> None:
    pyswarm.ok("service", "create", "-d", "--name", "web", "--secret", "key", "--config", "source=c,target=/c", "web:1")
    (service,) = control.services.values()
    container = service.spec.task_template.container_spec
    assert container.secrets == (SecretReference(secret_name="key", file=FileTarget("key")),)
    assert container.configs[0].path == "/c"
    more = ("--secret-add", "source=cert,target=tls,uid=5,mode=0400")
    pyswarm.ok("service", "update", "-d", "--secret-rm", "key", *more, "web")
    (service,) = control.services.values()
    (cert,) = service.spec.task_template.container_spec.secrets
    assert (cert.secret_name, cert.file) == ("cert", FileTarget("tls", "5", "0", 0o400))


def test_a_secret_may_be_replaced_in_place(pyswarm: Any, control: Any) -> None:
    pyswarm.ok("service", "create", "-d", "--secret", "source=key,propagation=in-place,signal=SIGHUP", "web:1")
    (service,) = control.services.values()
    (key,) = service.spec.task_template.container_spec.secrets
    assert key.file == FileTarget("key", in_place=True, signal="SIGHUP")
    said = pyswarm.ok("service", "inspect", "--format", "json", service.id)
    assert '"Propagation": "in-place"' in said


def test_a_wrong_use_is_explained(pyswarm: Any, control: Any) -> None:
    assert "propagation" in pyswarm.fails("service", "create", "--secret", "source=a,propagation=fast", "web:1")
    assert "the mode is not octal" in pyswarm.fails("service", "create", "--secret", "source=a,mode=rw", "web:1")
    assert "has no source" in pyswarm.fails("service", "create", "--config", "target=a", "web:1")
