"""Decide what a new version of a secret or config changes, and which old ones nobody needs any more (pure).

What one holds never changes, so a new version is a new object, called `key.2`. Services that use the one before get it
in its place, at the same path: by a rolling update as of any change of their spec, or in the tasks that run, where the
service asks for that (in_place.py). Old versions stay as long as a service, its previous spec, or a task of an earlier
revision may need them.
"""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.orchestrator.in_place import template_held
from pyswarm.manager.orchestrator.secrets import (
    Payload,
    config_versions,
    guarded,
    kind_of_payload,
    secret_versions,
    version_number,
)
from pyswarm.manager.orchestrator.services import changed_service
from pyswarm.manager.orchestrator.slots import NewId
from pyswarm.manager.store.changes import Change, Create, Delete, Plan
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import VERSION_LABEL, VERSION_OF_LABEL, Config, Revision, Secret, Service
from pyswarm.proto.model.spec import ConfigReference, ContainerSpec, FileTarget, SecretReference, ServiceSpec


class Rotation(Struct, frozen=True):
    """The newest version, and the services that are updated to it: none when that has this content already."""

    payload: Payload
    service_ids: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def rotate_payload(seen: Snapshot, payload: Payload, data: bytes, *, new_id: NewId) -> tuple[Plan, Rotation]:
    """Make a new version with this content, give it to all that use an older one, and remove those nobody needs."""
    family = _family(seen, payload)
    newest = family[-1]
    if newest.spec.data == data:
        return Plan(), Rotation(newest)
    made = _next_version(newest, data, new_id())
    changes: list[Change] = [Create(made)]
    ahead = seen.with_changes(changes, version=seen.version + 1)
    old = {p.id for p in family}
    users = [service for service in seen.services() if old & _ids_in(service.spec.task_template.container_spec)]
    for service in users:
        step = changed_service(ahead, service, _with_version(service.spec, old, made), rollback=False)
        changes += step
        ahead = ahead.with_changes(step, version=seen.version + 1)
    unused = [p for p in family if p.id not in _needed(ahead)]
    changes += _deletes(unused)
    why = f"{kind_of_payload(made.spec)} {made.spec.name} is the newest version"
    removed = tuple(p.spec.name for p in unused)
    # The new one is written by the same entry, so nothing is expected of it.
    return Plan(guarded(seen, changes), why=why), Rotation(made, tuple(s.id for s in users), removed)


def prune_payloads(seen: Snapshot, kind: str, *, everything: bool) -> tuple[Plan, tuple[str, ...]]:
    """Remove what no service or task needs: old versions, or with `everything` all such secrets or configs."""
    needed = _needed(seen)
    found: list[Payload] = [*(seen.secrets() if kind == "secret" else seen.configs())]
    unused = [p for p in found if p.id not in needed and (everything or _is_old(seen, p))]
    names = tuple(sorted(p.spec.name for p in unused))
    return Plan(_deletes(unused), why=f"{len(unused)} {kind}s were pruned" if unused else ""), names


def _is_old(seen: Snapshot, payload: Payload) -> bool:
    return _family(seen, payload)[-1].id != payload.id


def _family(seen: Snapshot, payload: Payload) -> tuple[Payload, ...]:
    base = payload.spec.labels.get(VERSION_OF_LABEL, payload.spec.name)
    if isinstance(payload, Secret):
        return secret_versions(seen, base)
    return config_versions(seen, base)


def _deletes(payloads: Iterable[Payload]) -> tuple[Change, ...]:
    return tuple(Delete("secret" if isinstance(p, Secret) else "config", p.id, p.version) for p in payloads)


def _next_version(newest: Payload, data: bytes, id: str) -> Payload:
    base = newest.spec.labels.get(VERSION_OF_LABEL, newest.spec.name)
    number = version_number(newest) + 1
    labels = {**newest.spec.labels, VERSION_OF_LABEL: base, VERSION_LABEL: str(number)}
    name = f"{base}.{number}"
    if isinstance(newest, Secret):
        return Secret(id=id, spec=replace(newest.spec, name=name, labels=labels, data=data))
    return Config(id=id, spec=replace(newest.spec, name=name, labels=labels, data=data))


def _with_version(spec: ServiceSpec, old: set[str], made: Payload) -> ServiceSpec:
    container = spec.task_template.container_spec
    secrets = tuple(_moved_secret(r, made) if r.secret_id in old else r for r in container.secrets)
    configs = tuple(_moved_config(r, made) if r.config_id in old else r for r in container.configs)
    container = replace(container, secrets=secrets, configs=configs)
    return replace(spec, task_template=replace(spec.task_template, container_spec=container))


def _moved_secret(reference: SecretReference, made: Payload) -> SecretReference:
    file = _kept_place(reference.file, reference.secret_name)
    return replace(reference, secret_id=made.id, secret_name=made.spec.name, file=file)


def _moved_config(reference: ConfigReference, made: Payload) -> ConfigReference:
    file = _kept_place(reference.file, reference.config_name)
    return replace(reference, config_id=made.id, config_name=made.spec.name, file=file)


def _kept_place(file: FileTarget, name: str) -> FileTarget:
    return file if file.name else replace(file, name=name)


def _needed(seen: Snapshot) -> set[str]:
    """Return the ids that a service names, or would if it were rolled back, or that a task may still need."""
    needed: set[str] = set()
    for service in seen.services():
        needed |= _ids_of(service)
    for revision in seen.revisions():
        held = template_held(seen.service(revision.service_id), revision)
        ids = _ids_in(held.container_spec)
        if not ids <= needed and _has_live_tasks(seen, revision):
            needed |= ids
    return needed


def _has_live_tasks(seen: Snapshot, revision: Revision) -> bool:
    tasks = seen.tasks_of_service(revision.service_id)
    return any(t.spec_version == revision.spec_version and not t.state.is_terminal for t in tasks)


def _ids_of(service: Service) -> set[str]:
    previous = service.previous_spec
    before = _ids_in(previous.task_template.container_spec) if previous is not None else set()
    return before | _ids_in(service.spec.task_template.container_spec)


def _ids_in(container: ContainerSpec) -> set[str]:
    return {r.secret_id for r in container.secrets} | {r.config_id for r in container.configs}
