"""What a service's containers see around them: name servers, other hosts, kernel settings, limits; to the model."""

from pyswarm.proto.codec.stack_file.document import Node, Scalar, Sequence, Table, failure
from pyswarm.proto.codec.stack_file.reader import Section
from pyswarm.proto.codec.stack_file.vocabulary import ULIMIT
from pyswarm.proto.model.spec import Ulimit


def one_or_many(service: Section, key: str) -> tuple[str, ...]:
    """Return the texts under `key`: a list, or one alone."""
    node = service.get(key)
    return service.texts(key) if node is None or isinstance(node, Sequence) else (service.text(key),)


def hosts_of(service: Section) -> tuple[str, ...]:
    """Return `NAME:ADDRESS` entries, written so, with `=`, or as a mapping. Raises InvalidStackFile."""
    node = service.get("extra_hosts")
    if isinstance(node, Table):
        return tuple(f"{name}:{address or ''}" for name, address, _ in service.pairs("extra_hosts"))
    return tuple(":".join(text.split("=", 1)) if "=" in text else text for text in service.texts("extra_hosts"))


def sysctls_of(service: Section) -> dict[str, str]:
    """Return the kernel settings. Raises InvalidStackFile."""
    found = {}
    for name, value, place in service.pairs("sysctls"):
        if value is None:
            raise failure(place, f"{service.name('sysctls')}.{name} has no value", "Write NAME: VALUE.")
        found[name] = value
    return found


def ulimits_of(service: Section, warnings: list[str]) -> tuple[Ulimit, ...]:
    """Return the limits: one number for both, or `soft` and `hard`. Raises InvalidStackFile."""
    section = service.section("ulimits")
    return tuple(_ulimit(section, name, node, warnings) for name, node in section.table.entries.items())


def _ulimit(section: Section, name: str, node: Node, warnings: list[str]) -> Ulimit:
    if isinstance(node, Scalar):
        value = section.whole(name, least=-1)
        return Ulimit(name, value, value)
    limit = section.section(name)
    limit.check_keys(ULIMIT, warnings)
    if limit.get("soft") is None or limit.get("hard") is None:
        raise failure(limit.place, f"{limit.path} needs soft and hard", "Write both, or one number alone.")
    return Ulimit(name, limit.whole("soft", least=-1), limit.whole("hard", least=-1))
