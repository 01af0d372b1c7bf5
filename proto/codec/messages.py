"""Translate between frozen records and protobuf messages, both ways, exactly (pure).

    to_message(service, types_pb2.Service)        from_message(message, Service)

Driven by names and annotations: a record's field and the message's field of the same name hold the same
thing. The plan for a pair of classes is made once and kept; making it fails when the two do not match, and
a test makes it for every record of the model.

Defaults: a message that is set is taken verbatim, so a 0 in it is a 0 even where the model's default is
another number; a sub-message that is not set means the model's default (None where the record allows it).
`to_message` therefore sets every sub-message.
"""

from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo

from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.objects import Cluster, RootCA
from pyswarm.proto.model.spec import SecretSpec

R = TypeVar("R", bound=Struct)
M = TypeVar("M", bound=Message)

NOT_SENT: Final[Mapping[type[Struct], frozenset[str]]] = {
    RootCA: frozenset({"key_pem"}),
    Cluster: frozenset({"blacklist", "unlock_key"}),
    SecretSpec: frozenset({"data"}),
}
"""Fields that stay in the store: `to_message` leaves them out, `from_message` gives them their default."""

_Encoder = Callable[[Any], Any]
_Decoder = Callable[[Any], Any]


def to_message(record: Struct, message_class: type[M]) -> M:
    """Return `record` as a message.

    Raises:
        InvalidArgument: a value does not fit the wire: a number beyond 64 bits, text that is not Unicode.
    """
    fields = _encoder(type(record))(record)
    try:
        return message_class(**fields)
    except ValueError as error:
        raise InvalidArgument(
            f"{type(record).__name__} cannot be sent: {error}",
            remedy="Numbers must fit 64 bits and text must be valid Unicode.",
        ) from error


def from_message(message: Message, record_class: type[R]) -> R:
    """Return `message` as a record.

    Raises:
        InvalidArgument: it holds a value of an enumeration that this version does not know.
    """
    check_match(record_class, message.DESCRIPTOR)
    try:
        record = _decoder(record_class)(message)
    except ValueError as error:
        raise InvalidArgument(
            f"{message.DESCRIPTOR.name} cannot be read: {error}",
            remedy="The sender may run a newer version: upgrade this side first.",
        ) from error
    assert isinstance(record, record_class)
    return record


@cache
def check_match(record_class: type[Struct], descriptor: Descriptor) -> None:
    """Raise `TypeError` unless record and message have the same fields of the same types, all the way down."""
    infos = {f.name: f for f in _sent_fields(record_class)}
    fields = dict(descriptor.fields_by_name)
    if infos.keys() != fields.keys():
        odd = sorted(infos.keys() ^ fields.keys())
        raise TypeError(f"{record_class.__name__} and message {descriptor.name} differ in {', '.join(odd)}")
    for name, info in infos.items():
        _check_type(f"{record_class.__name__}.{name}", info.type, fields[name])


def _sent_fields(record_class: type[Struct]) -> list[FieldInfo]:
    hidden = NOT_SENT.get(record_class, frozenset())
    return [f for f in msgspec.structs.fields(record_class) if f.name not in hidden]


# --- checking a pair


_WIRE_TYPES: Final[Mapping[type, str]] = {
    str: "TYPE_STRING",
    bytes: "TYPE_BYTES",
    bool: "TYPE_BOOL",
    float: "TYPE_DOUBLE",
    int: "TYPE_INT64",
}


def _check_type(what: str, annotation: Any, field: Any) -> None:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Mapping:
        entry = field.message_type
        if entry is None or not entry.GetOptions().map_entry:
            raise TypeError(f"{what}: the message's field is no map")
        for argument, name in zip(args, ("key", "value"), strict=True):
            _check_single(f"{what}[{name}]", argument, entry.fields_by_name[name])
        return
    if (origin is tuple) != field.is_repeated:
        raise TypeError(f"{what}: only one of the two is repeated")
    optional = origin is UnionType
    if optional and not field.has_presence:
        raise TypeError(f"{what}: None cannot be told from a default in the message")
    _check_single(what, args[0] if origin is tuple else _without_none(annotation) if optional else annotation, field)


def _check_single(what: str, annotation: Any, field: Any) -> None:
    if issubclass(annotation, Struct):
        if field.message_type is None:
            raise TypeError(f"{what}: the message's field is no message")
        check_match(annotation, field.message_type)
    elif issubclass(annotation, IntEnum):
        if field.enum_type is None:
            raise TypeError(f"{what}: the message's field is no enumeration")
        ours, theirs = {int(v) for v in annotation}, {v.number for v in field.enum_type.values}
        if ours != theirs:
            raise TypeError(f"{what}: the numbers {sorted(ours ^ theirs)} are in one enumeration only")
    elif field.type != getattr(field, _WIRE_TYPES[annotation]):
        raise TypeError(f"{what}: {annotation.__name__} meets another type in the message")


def _without_none(annotation: Any) -> Any:
    (only,) = (a for a in get_args(annotation) if a is not NoneType)
    return only


# --- record -> message


@cache
def _encoder(record_class: type[Struct]) -> Callable[[Struct], dict[str, Any]]:
    """Return a function from a record to the keyword arguments of its message."""
    fields = _sent_fields(record_class)
    names = tuple(f.name for f in fields)
    read = _reader(names)
    special = tuple((f.name, e) for f in fields if (e := _field_encoder(f.type)) is not None)

    def encode(record: Struct) -> dict[str, Any]:
        values = dict(zip(names, read(record), strict=True))
        for name, convert in special:
            value = values[name]
            if value is not None:
                values[name] = convert(value)
        return values

    return encode


def _field_encoder(annotation: Any) -> _Encoder | None:
    """Return how a value becomes what the message's constructor takes; None when it is that already."""
    origin = get_origin(annotation)
    if origin is UnionType:
        return _field_encoder(_without_none(annotation))
    if origin is tuple:
        each = _field_encoder(get_args(annotation)[0])
        return None if each is None else lambda values: [each(v) for v in values]
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return _encoder(annotation)
    return None


# --- message -> record


@cache
def _decoder(record_class: type[Struct]) -> _Decoder:
    """Return a function from a message to its record."""
    fields = _sent_fields(record_class)
    names = tuple(f.name for f in fields)
    read = _reader(names)
    special = tuple((f.name, d) for f in fields if (d := _field_decoder(f)) is not None)

    def decode(message: Message) -> Struct:
        values = dict(zip(names, read(message), strict=True))
        for name, convert in special:
            values[name] = convert(message)
        return record_class(**values)

    return decode


def _field_decoder(info: FieldInfo) -> _Decoder | None:
    """Return how a field is read from its message; None when the plain attribute is the value."""
    name, annotation = info.name, info.type
    read = attrgetter(name)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Mapping:
        return lambda message: dict(read(message))
    if origin is tuple:
        if issubclass(args[0], Struct):
            each = _decoder(args[0])
            return lambda message: tuple([each(m) for m in read(message)])
        if issubclass(args[0], IntEnum):
            member = args[0]
            return lambda message: tuple([member(v) for v in read(message)])
        return lambda message: tuple(read(message))
    if origin is UnionType:
        annotation = _without_none(annotation)
    if issubclass(annotation, Struct):
        inner = _decoder(annotation)
        # Records are immutable, so every unset field of this name can share the one default.
        default = info.default if info.default is not NODEFAULT else None
        return lambda message: inner(read(message)) if message.HasField(name) else default
    if issubclass(annotation, IntEnum):
        return lambda message: annotation(read(message))
    if origin is UnionType:
        # An `optional` field: absent is None, and a 0 that was sent is a 0.
        return lambda message: read(message) if message.HasField(name) else None
    return None


def _reader(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that reads all `names` from an object at once."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda object: tuple(getattr(object, name) for name in names)
