"""Which versions of its secrets and configs a running task holds (pure).

A task's revision names versions and never changes. A file that its service has replaced in place is the exception: a
task of an earlier revision holds there what the service names now. So its assignment is the revision with those
references exchanged, nothing of that calls for another task, and the versions it held before may go.
"""

from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from pyswarm.proto.model.objects import Revision, Service
from pyswarm.proto.model.spec import ConfigReference, SecretReference, TaskSpec

R = TypeVar("R", SecretReference, ConfigReference)


def with_files_of(template: TaskSpec, current: TaskSpec) -> TaskSpec:
    """Return a task's template with the versions of files that its service, now at `current`, replaces in place."""
    container, now = template.container_spec, current.container_spec
    secrets = _exchanged(container.secrets, _in_place(now.secrets))
    configs = _exchanged(container.configs, _in_place(now.configs))
    if (secrets, configs) == (container.secrets, container.configs):
        return template
    return replace(template, container_spec=replace(container, secrets=secrets, configs=configs))


def template_held(service: Service | None, revision: Revision) -> TaskSpec:
    """Return what a task of a revision runs with; `service` is the revision's, None when it was removed."""
    if service is None or service.spec_version == revision.spec_version:
        return revision.task_template
    return with_files_of(revision.task_template, service.spec.task_template)


def _in_place(references: tuple[R, ...]) -> Mapping[str, R]:
    return {r.path: r for r in references if r.file.in_place}


def _exchanged(references: tuple[R, ...], fresh: Mapping[str, R]) -> tuple[R, ...]:
    if not fresh:
        return references
    return tuple(_newer(r, fresh.get(r.path)) for r in references)


def _newer(held: R, fresh: R | None) -> R:
    # Another owner, mode or signal is no new version: that takes another task.
    return fresh if fresh is not None and _manner(held) == _manner(fresh) else held


def _manner(reference: SecretReference | ConfigReference) -> tuple[object, ...]:
    file = reference.file
    return file.in_place, file.uid, file.gid, file.mode, file.signal
