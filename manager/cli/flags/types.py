"""Click types whose values are already what the model holds; every complaint names the accepted form."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import click

from pyswarm.proto.codec.canary import parse_canary
from pyswarm.proto.codec.units import parse_bytes, parse_duration, parse_nano_cpus
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.states import (
    Availability,
    Concurrency,
    FailureAction,
    PlacementStrategy,
    RestartCondition,
    Role,
    UpdateOrder,
)

T = TypeVar("T")


class Parsed(click.ParamType, Generic[T]):  # type: ignore[type-arg, unused-ignore]
    """A value read by a function that raises InvalidArgument."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except InvalidArgument as error:
            self.fail(str(error), param, ctx)


class OneOf(Parsed[T]):
    """A word that stands for a value."""

    def __init__(self, name: str, words: Mapping[str, T]) -> None:
        super().__init__(name, self._look_up)
        self._words = words

    def _look_up(self, text: str) -> T:
        if text not in self._words:
            raise InvalidArgument(f'"{text}" is none of: {", ".join(self._words)}')
        return self._words[text]

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "|".join(self._words)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidArgument(f'"{text}" is not a whole number of at least 0')
    return int(text)


def _whole_number(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise InvalidArgument(f'"{text}" is not a whole number')
    return int(text)


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        raise InvalidArgument(f'"{text}" is not a number from 0 to 1')
    return ratio


CANARY = Parsed("steps", parse_canary)
DURATION = Parsed("duration", parse_duration)
BYTES = Parsed("bytes", parse_bytes)
RATIO = Parsed("ratio", _ratio)
CPUS = Parsed("decimal", parse_nano_cpus)
COUNT = Parsed("count", _count)
OOM_SCORE = Parsed("number", _whole_number)
PRIORITY = Parsed("number", _whole_number)
PLACEMENT_STRATEGY = OneOf("strategy", {"spread": PlacementStrategy.SPREAD, "binpack": PlacementStrategy.BINPACK})
AVAILABILITY = OneOf(
    "availability", {"active": Availability.ACTIVE, "pause": Availability.PAUSE, "drain": Availability.DRAIN}
)
ROLE = OneOf("role", {"worker": Role.WORKER, "manager": Role.MANAGER})
RESTART_CONDITION = OneOf(
    "condition",
    {"none": RestartCondition.NONE, "on-failure": RestartCondition.ON_FAILURE, "any": RestartCondition.ANY},
)
CONCURRENCY = OneOf(
    "policy", {"forbid": Concurrency.FORBID, "allow": Concurrency.ALLOW, "replace": Concurrency.REPLACE}
)
REBALANCE = OneOf("mode", {"auto": True, "manual": False})
UPDATE_ORDER = OneOf("order", {"stop-first": UpdateOrder.STOP_FIRST, "start-first": UpdateOrder.START_FIRST})
ROLLBACK_FAILURE_ACTION = OneOf("action", {"pause": FailureAction.PAUSE, "continue": FailureAction.CONTINUE})
UPDATE_FAILURE_ACTION = OneOf(
    "action",
    {"pause": FailureAction.PAUSE, "continue": FailureAction.CONTINUE, "rollback": FailureAction.ROLLBACK},
)
