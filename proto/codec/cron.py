"""Read cron schedules: five fields in a time zone, and the moments they name (pure).

The fields and their meaning on days when clocks change are those of Debian's cron: a job at a time that is left out
runs right after the gap, one at a time that comes twice runs once.
"""

from datetime import datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.spec import CronSchedule

_FIELDS: Final = 5
_REMEDY: Final = 'Write five fields: minute hour day-of-month month day-of-week, for example "30 3 * * MON-FRI".'


def check_schedule(schedule: CronSchedule) -> None:
    """Raise `InvalidArgument` for an expression or a time zone that cannot be read, or that names no moment at all."""
    zone = _zone(schedule.time_zone)
    expression = schedule.expression
    if len(expression.split()) != _FIELDS:
        raise InvalidArgument(f"schedule {expression!r} has {len(expression.split())} fields", remedy=_REMEDY)
    try:
        next(CronSim(expression, datetime(2024, 1, 1, tzinfo=zone)))
    except CronSimError as error:
        raise InvalidArgument(f"schedule {expression!r}: {str(error).lower()}", remedy=_REMEDY) from error
    except StopIteration as error:
        raise InvalidArgument(f"schedule {expression!r} names no moment", remedy=_REMEDY) from error


def next_moment(schedule: CronSchedule, after: float) -> float:
    """Return the first moment of a valid schedule after another, in seconds since the epoch."""
    start = datetime.fromtimestamp(int(after), _zone(schedule.time_zone))
    return next(CronSim(schedule.expression, start)).timestamp()


def last_moment(schedule: CronSchedule, until: float) -> float:
    """Return the last moment of a valid schedule that is not after another, 0 when there was none."""
    start = datetime.fromtimestamp(int(until) + 1, _zone(schedule.time_zone))
    return next((m.timestamp() for m in CronSim(schedule.expression, start, reverse=True)), 0.0)


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:  # an unknown name is a KeyError
        raise InvalidArgument(f"time zone {name!r} is unknown", remedy="Name one as Europe/Berlin, or UTC.") from error
