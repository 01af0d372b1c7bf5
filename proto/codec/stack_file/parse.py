"""Stack files → the services of a stack, checked as the store will check them."""

import re
from collections.abc import Mapping, Sequence
from errno import ENOENT
from functools import reduce

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.proto.codec.affinity import with_stack_name
from pyswarm.proto.codec.problems import raise_if_any
from pyswarm.proto.codec.stack_file.document import Node, Scalar, Table, failure, parse_document
from pyswarm.proto.codec.stack_file.interpolation import Interpolation
from pyswarm.proto.codec.stack_file.merge import merge_tables
from pyswarm.proto.codec.stack_file.payloads import Known, StackData, known_of
from pyswarm.proto.codec.stack_file.reader import Section
from pyswarm.proto.codec.stack_file.service import service_of
from pyswarm.proto.codec.stack_file.variables import ReadText
from pyswarm.proto.codec.stack_file.vocabulary import TOP
from pyswarm.proto.codec.validate import service_problems
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.spec import ServiceSpec

_STACK_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[a-zA-Z0-9]+)*")


class StackFile(Struct, frozen=True):
    """The services in the files' order, the secrets and configs to create, and what the author should know."""

    services: tuple[ServiceSpec, ...]
    warnings: tuple[str, ...]
    secrets: tuple[StackData, ...] = ()
    configs: tuple[StackData, ...] = ()


def _nowhere(file: str) -> str:
    raise FileNotFoundError(ENOENT, "files cannot be read here", file)


def parse_stack(
    files: Sequence[tuple[str, str]],
    *,
    stack: str,
    environment: Mapping[str, str],
    read_text: ReadText = _nowhere,
) -> StackFile:
    """Return the services of `stack` that `files`, as (name, text), describe together.

    `read_text` reads what else they name and is part of a service: its `env_file`.

    Raises InvalidStackFile, which names file, line and column, and InvalidArgument for the stack's name.
    """
    check_stack_name(stack)
    if not files:
        raise InvalidArgument("no stack file given", remedy="Name one: -c FILE.")
    interpolation = Interpolation(environment)
    documents = [_interpolated(parse_document(text, name), interpolation) for name, text in files]
    top = Section(reduce(merge_tables, documents), "")
    warnings: list[str] = []
    top.check_keys(TOP, warnings)
    for document in documents:
        _check_version(document)
    services = top.section("services")
    if not services.table.entries:
        raise failure(services.place, "no services", "Write `services:` with at least one service.")
    secrets = known_of(top, "secrets", stack=stack, environment=environment, warnings=warnings)
    configs = known_of(top, "configs", stack=stack, environment=environment, warnings=warnings)
    specs = []
    for name in services.table.entries:
        spec, said = _service(services, name, stack, environment, secrets, configs, read_text)
        specs.append(spec)
        warnings += said
    return StackFile(tuple(specs), tuple(interpolation.warnings + warnings), secrets.brought, configs.brought)


def check_stack_name(stack: str) -> None:
    """Raises InvalidArgument unless `stack` can be the first part of a service's name."""
    if _STACK_NAME.fullmatch(stack) is None:
        raise InvalidArgument(
            f'"{stack}" cannot name a stack',
            remedy="Use letters, digits, - and _, with a letter or digit at both ends.",
        )


def _interpolated(document: Table, interpolation: Interpolation) -> Table:
    """Only what is carried out is interpolated: extension fields may hold anything."""
    entries: dict[str, Node] = {
        key: node if key.startswith("x-") else interpolation.tree(node) for key, node in document.entries.items()
    }
    return Table(entries, document.keys, document.place)


def _check_version(document: Table) -> None:
    version = document.entries.get("version")
    if version is None:
        return
    text = version.text if isinstance(version, Scalar) else ""
    if text != "3" and not text.startswith("3."):
        raise failure(
            version.place,
            f'version "{text}" of the Compose format is not supported',
            "Write 3.8, or leave version out.",
        )


def _service(
    services: Section,
    name: str,
    stack: str,
    environment: Mapping[str, str],
    secrets: Known,
    configs: Known,
    read_text: ReadText,
) -> tuple[ServiceSpec, list[str]]:
    section = services.section(name)
    spec, warnings = service_of(
        section,
        name=name,
        stack=stack,
        environment=environment,
        secrets=secrets,
        configs=configs,
        read_text=read_text,
    )
    spec = _with_stack_names(spec, stack, frozenset(services.table.entries), section)
    try:
        raise_if_any(section.path, service_problems(spec))
    except InvalidArgument as error:
        raise failure(services.table.keys[name], error.message, error.remedy) from error
    return spec, warnings


def _with_stack_names(spec: ServiceSpec, stack: str, names: frozenset[str], section: Section) -> ServiceSpec:
    placement = spec.task_template.placement
    if not placement.affinities:
        return spec
    try:
        affinities = tuple(with_stack_name(text, stack=stack, services=names) for text in placement.affinities)
    except InvalidArgument as error:
        raise failure(section.place, f"{section.path}: {error.message}", error.remedy) from error
    template = replace(spec.task_template, placement=replace(placement, affinities=affinities))
    return replace(spec, task_template=template)
