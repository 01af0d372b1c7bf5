"""Canary steps as people write them: `1,25%` (pure)."""

from collections.abc import Iterator, Sequence

from pyswarm.proto.codec.problems import Problem

REMEDY = "Write numbers of tasks or shares of them, growing: 1,25%."


def parse_canary(text: str) -> tuple[str, ...]:
    """Return the steps in `1,25%`; none for an empty text. What they say is judged with the spec."""
    return tuple(step.strip() for step in text.split(",")) if text.strip() else ()


def canary_problems(what: str, steps: Sequence[str]) -> Iterator[Problem]:
    """Yield what is wrong with the steps of an update."""
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for step in steps:
        number = step.removesuffix("%")
        is_share = step.endswith("%")
        if not (number.isascii() and number.isdigit() and 1 <= int(number) <= (100 if is_share else 1_000_000)):
            yield Problem(f"the {what}'s canary step {step!r} is none", REMEDY)
            return
        sizes[is_share].append(int(number))
    if any(found != sorted(set(found)) for found in sizes.values()):
        yield Problem(f"the {what}'s canary steps {', '.join(steps)} do not grow", REMEDY)
