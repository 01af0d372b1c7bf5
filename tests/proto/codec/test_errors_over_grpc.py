"""An error that crosses a process boundary arrives as what it was."""

import pytest

from pyswarm.manager.store.conflict import Conflict
from pyswarm.proto import errors
from pyswarm.proto.codec.errors import CODE_KEY, LEADER_KEY, MAX_TEXT_BYTES, REMEDY_KEY, from_status, to_status
from pyswarm.proto.errors import SwarmError


def every_error_class() -> list[type[SwarmError]]:
    return [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, SwarmError) and c is not SwarmError
    ]


def carried(error: SwarmError) -> SwarmError:
    status, details, metadata = to_status(error)
    return from_status(status, details, dict(metadata))


@pytest.mark.parametrize("cls", every_error_class(), ids=lambda c: c.code)
def test_each_class_arrives_as_itself_with_message_and_remedy(cls: type[SwarmError]) -> None:
    arrived = carried(cls("disk of w1 is full — 0 B", remedy="Free some space."))

    assert type(arrived) is cls
    assert (arrived.message, arrived.remedy) == ("disk of w1 is full — 0 B", "Free some space.")


@pytest.mark.parametrize("cls", every_error_class(), ids=lambda c: c.code)
def test_no_error_travels_as_success(cls: type[SwarmError]) -> None:
    assert to_status(cls("x"))[0] not in (0, 2)


def test_codes_are_unique() -> None:
    codes = [c.code for c in every_error_class()]
    assert len(set(codes)) == len(codes)


def test_not_leader_says_who_leads() -> None:
    arrived = carried(errors.NotLeader(leader="m2"))
    assert isinstance(arrived, errors.NotLeader)
    assert arrived.leader == "m2"


def test_an_error_class_of_a_room_arrives_as_the_class_of_its_code() -> None:
    arrived = carried(Conflict("task", "t1", expected=3, found=5))
    assert type(arrived) is errors.OutOfSequence
    assert "t1" in arrived.message


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (3, errors.InvalidArgument),
        (4, errors.OutcomeUnknown),
        (5, errors.NotFound),
        (9, errors.FailedPrecondition),
        (10, errors.OutOfSequence),
        (14, errors.Unavailable),
        (16, errors.PermissionDenied),
        (2, errors.Internal),
        (99, errors.Internal),
    ],
)
def test_an_unknown_code_becomes_the_base_class_of_its_status(status: int, cls: type[SwarmError]) -> None:
    arrived = from_status(status, "no", {CODE_KEY: "from-the-future", REMEDY_KEY: "Läs på.".encode()})
    assert type(arrived) is cls
    assert arrived.remedy == "Läs på."


def test_a_status_of_grpc_itself_keeps_its_message_and_the_remedy_of_its_class() -> None:
    arrived = from_status(13, "", {})
    assert arrived.message
    assert arrived.remedy == errors.Internal.remedy


def test_ascii_metadata_only_outside_bin_keys_and_bounded_text() -> None:
    _status, details, metadata = to_status(errors.NotLeader("ö" * 9000, leader="m1", remedy="ü" * 9000))
    assert len(details.encode()) <= MAX_TEXT_BYTES
    for key, value in metadata:
        assert len(value) <= MAX_TEXT_BYTES
        assert isinstance(value, bytes) == key.endswith("-bin")
        assert isinstance(value, bytes) or value.isascii()
    assert dict(metadata)[LEADER_KEY] == "m1"
