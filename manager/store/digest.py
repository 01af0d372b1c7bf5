"""Fingerprints of what is stored, kept up to date at the cost of what changes (pure).

The tally of a set of objects is the sum of their fingerprints: an entry subtracts what it replaced and adds what it
wrote, so that comparing managers never costs a walk over a million objects. It is meant to bring faults of ours to
light (an apply that is not deterministic, a restore that loses something), not to withstand someone who forges
objects: whoever could propose them is a manager already.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct

from pyswarm.manager.store.transition import Event
from pyswarm.proto.model.objects import Object

TALLY_BITS: Final = 128
_MASK: Final = (1 << TALLY_BITS) - 1

# Deterministic: labels are one mapping whatever order they were written in.
_encoder = msgspec.msgpack.Encoder(order="deterministic")


def fingerprint(object: Object) -> int:
    """Return a number for the object's kind, id, version and content: the same in every process."""
    return int.from_bytes(hashlib.sha256(_encoder.encode(object)).digest()[: TALLY_BITS // 8], "big")


def tally(objects: Iterable[Object]) -> int:
    """Return the sum of the fingerprints of all `objects`, in any order."""
    return sum(map(fingerprint, objects)) & _MASK


def tally_after(before: int, events: Iterable[Event]) -> int:
    """Return the tally of the objects that `events` leave behind."""
    total = before
    for event in events:
        if event.old is not None:
            total -= fingerprint(event.old)
        if event.action != "delete":
            total += fingerprint(event.object)
    return total & _MASK


def combined(version: int, objects_tally: int, records: Iterable[Struct]) -> str:
    """Return one fingerprint, in hexadecimal, of a version, the objects at it, and further records in their order."""
    hasher = hashlib.sha256(_encoder.encode((version, objects_tally.to_bytes(TALLY_BITS // 8, "big"))))
    for record in records:
        hasher.update(_encoder.encode(record))
    return hasher.hexdigest()
