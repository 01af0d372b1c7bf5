"""Decide what requests about secrets and configs change, and which ones a service's references mean (pure).

What a secret or config holds never changes, only its labels do; one that a service names cannot be removed (SwarmKit
controlapi/secret.go, config.go). A service may name them by name: the ids are filled in here, when it is written.
"""

import posixpath
from collections.abc import Sequence

from msgspec.structs import replace

from pyswarm.manager.orchestrator.slots import NewId
from pyswarm.manager.store.changes import Change, Create, Delete, Expect, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OutOfSequence
from pyswarm.proto.model.objects import VERSION_LABEL, VERSION_OF_LABEL, Config, Secret, Service
from pyswarm.proto.model.spec import ConfigReference, ConfigSpec, FileTarget, SecretReference, SecretSpec, ServiceSpec

Payload = Secret | Config


def kind_of_payload(spec: SecretSpec | ConfigSpec) -> str:
    return "secret" if isinstance(spec, SecretSpec) else "config"


def secret_versions(seen: Snapshot, name: str) -> tuple[Secret, ...]:
    """Return all versions of the secret called `name`, the oldest first; a version's own name means it alone."""
    return tuple(sorted(seen.secrets_called(name), key=version_number))


def config_versions(seen: Snapshot, name: str) -> tuple[Config, ...]:
    """As `secret_versions`, of a config."""
    return tuple(sorted(seen.configs_called(name), key=version_number))


def newest_secret(seen: Snapshot, name: str) -> Secret | None:
    return next(reversed(secret_versions(seen, name)), None)


def newest_config(seen: Snapshot, name: str) -> Config | None:
    return next(reversed(config_versions(seen, name)), None)


def version_number(payload: Payload) -> int:
    text = payload.spec.labels.get(VERSION_LABEL, "1")
    return int(text) if text.isascii() and text.isdigit() else 1


def create_payload(seen: Snapshot, spec: SecretSpec | ConfigSpec, *, new_id: NewId) -> Plan:
    """Raises AlreadyExists when the name is taken."""
    if (there := _newest(seen, spec)) is not None:
        kind = kind_of_payload(spec)
        raise AlreadyExists(
            f"a {kind} called {there.spec.name} already exists",
            remedy=f"Choose another name, or make a new version: `pyswarm {kind} rotate {spec.name} FILE`.",
        )
    return Plan((Create(_made(spec, new_id())),), why=f"{kind_of_payload(spec)} {spec.name} was created")


def relabel_payload(payload: Payload, version: int, labels: dict[str, str]) -> Plan:
    """Raises OutOfSequence when it is not at `version` any more."""
    kind, name = kind_of_payload(payload.spec), payload.spec.name
    if version and payload.version != version:
        raise OutOfSequence(f"{kind} {name} is at version {payload.version}, not {version}")
    return Plan((Update(_with_labels(payload, labels)),), why=f"{kind} {name} was relabelled")


def remove_payload(seen: Snapshot, payload: Payload) -> Plan:
    """Raises FailedPrecondition while a service names it."""
    kind = kind_of_payload(payload.spec)
    users = sorted(service.spec.name for service in seen.services() if payload.id in _ids_named(service))
    if users:
        raise FailedPrecondition(
            f"{kind} {payload.spec.name} is in use by the following services: {', '.join(users)}",
            remedy=f"Take it out first: `pyswarm service update --{kind}-rm {payload.spec.name} {users[0]}`.",
        )
    delete = Delete("secret" if isinstance(payload, Secret) else "config", payload.id, payload.version)
    return Plan((delete,), why=f"{kind} {payload.spec.name} was removed")


def apply_payloads(
    seen: Snapshot, specs: Sequence[SecretSpec | ConfigSpec], *, new_id: NewId
) -> list[tuple[Change, str, Payload]]:
    """Return (change, action, object) for each of a stack's secrets and configs that is to be written.

    Raises InvalidArgument when one exists with another content.
    """
    steps: list[tuple[Change, str, Payload]] = []
    for spec in specs:
        there = _newest(seen, spec)
        if there is None:
            made = _made(spec, new_id())
            steps.append((Create(made), "created", made))
        elif there.spec.data != spec.data:
            kind = kind_of_payload(spec)
            raise InvalidArgument(
                f"{kind} {spec.name} exists with another content, and what a {kind} holds never changes",
                remedy=f"Make a new version, `pyswarm {kind} rotate {spec.name} FILE`, or give it a new name (`name:` "
                "in the stack file).",
            )
        elif (labels := {**spec.labels, **_version_labels(there)}) != there.spec.labels:
            steps.append((Update(_with_labels(there, labels)), "updated", there))
    return steps


def payloads_of_stack(seen: Snapshot, stack: str, label: str) -> list[Payload]:
    found: list[Payload] = [*seen.secrets(), *seen.configs()]
    return [payload for payload in found if payload.spec.labels.get(label) == stack]


def with_references(seen: Snapshot, spec: ServiceSpec) -> ServiceSpec:
    """Return the spec with the ids of the secrets and configs it names. Raises NotFound, InvalidArgument."""
    container = spec.task_template.container_spec
    if not container.secrets and not container.configs:
        return spec
    secrets = tuple(_resolved_secret(seen, spec.name, reference) for reference in container.secrets)
    configs = tuple(_resolved_config(seen, spec.name, reference) for reference in container.configs)
    files: list[SecretReference | ConfigReference] = [*secrets, *configs]
    targets = [m.target for m in container.mounts]
    _refuse_shared_paths(spec.name, [r.path for r in files], targets)
    _refuse_mounts_in_place(spec.name, files, targets)
    container = replace(container, secrets=secrets, configs=configs)
    return replace(spec, task_template=replace(spec.task_template, container_spec=container))


def guarded(seen: Snapshot, changes: Sequence[Change]) -> tuple[Change, ...]:
    """Return the changes, and for each service among them that what it names is still there when they apply."""
    expected: dict[str, Expect] = {}
    for change in changes:
        if isinstance(change, Create | Update) and isinstance(change.object, Service):
            container = change.object.spec.task_template.container_spec
            for secret in (seen.secret(reference.secret_id) for reference in container.secrets):
                if secret is not None:
                    expected[secret.id] = Expect("secret", secret.id, secret.version)
            for config in (seen.config(reference.config_id) for reference in container.configs):
                if config is not None:
                    expected[config.id] = Expect("config", config.id, config.version)
    return (*(expected[id] for id in sorted(expected)), *changes)


def _resolved_secret(seen: Snapshot, service: str, reference: SecretReference) -> SecretReference:
    # A name means its newest version, an id the very one.
    by_name = newest_secret(seen, reference.secret_name) if not reference.secret_id else None
    found = seen.secret(reference.secret_id) if reference.secret_id else by_name
    if found is None:
        raise _unknown(service, "secret", reference.secret_name or reference.secret_id)
    file = _kept_place(reference.file, reference.secret_name, found) if by_name is not None else reference.file
    return replace(reference, secret_id=found.id, secret_name=found.spec.name, file=file)


def _resolved_config(seen: Snapshot, service: str, reference: ConfigReference) -> ConfigReference:
    by_name = newest_config(seen, reference.config_name) if not reference.config_id else None
    found = seen.config(reference.config_id) if reference.config_id else by_name
    if found is None:
        raise _unknown(service, "config", reference.config_name or reference.config_id)
    file = _kept_place(reference.file, reference.config_name, found) if by_name is not None else reference.file
    return replace(reference, config_id=found.id, config_name=found.spec.name, file=file)


def _kept_place(file: FileTarget, name: str, found: Payload) -> FileTarget:
    """Return the place in the container, which a new version does not change."""
    return file if file.name or found.spec.name.casefold() == name.casefold() else replace(file, name=name)


def _unknown(service: str, kind: str, name: str) -> NotFound:
    return NotFound(
        f"service {service} uses {kind} {name}, which does not exist",
        remedy=f"Create it first: `pyswarm {kind} create {name} FILE`.",
    )


def _refuse_shared_paths(service: str, paths: Sequence[str], targets: Sequence[str]) -> None:
    taken = {target.rstrip("/") for target in targets}
    for path in paths:
        if path in taken:
            raise InvalidArgument(
                f"service {service}: {path} is the place of two secrets, configs or mounts",
                remedy="Give one of them another target.",
            )
        taken.add(path)


def _refuse_mounts_in_place(
    service: str, files: Sequence[SecretReference | ConfigReference], targets: Sequence[str]
) -> None:
    """The directory of a file that is replaced in place holds files, which lie in it directly, and no mounts."""
    directories = {posixpath.dirname(r.path) for r in files if r.file.in_place}
    deeper = [r.path for r in files if posixpath.dirname(r.path) not in directories]
    for directory in sorted(directories):
        for path in (*deeper, *targets, *(other + "/" for other in directories if other != directory)):
            if f"{path}/".startswith(f"{directory}/"):
                raise InvalidArgument(
                    f"service {service}: {path} lies in {directory}, where a file is replaced in place",
                    remedy="Give one of them another directory.",
                )


def _newest(seen: Snapshot, spec: SecretSpec | ConfigSpec) -> Payload | None:
    if isinstance(spec, SecretSpec):
        return newest_secret(seen, spec.name)
    return newest_config(seen, spec.name)


def _version_labels(payload: Payload) -> dict[str, str]:
    return {key: value for key, value in payload.spec.labels.items() if key in (VERSION_OF_LABEL, VERSION_LABEL)}


def _made(spec: SecretSpec | ConfigSpec, id: str) -> Payload:
    return Secret(id=id, spec=spec) if isinstance(spec, SecretSpec) else Config(id=id, spec=spec)


def _with_labels(payload: Payload, labels: dict[str, str]) -> Payload:
    if isinstance(payload, Secret):
        return replace(payload, spec=replace(payload.spec, labels=labels))
    return replace(payload, spec=replace(payload.spec, labels=labels))


def _ids_named(service: Service) -> set[str]:
    container = service.spec.task_template.container_spec
    return {r.secret_id for r in container.secrets} | {r.config_id for r in container.configs}
