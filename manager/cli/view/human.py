"""Moments and sizes in the words Docker uses."""

_MINUTE, _HOUR, _DAY, _WEEK, _MONTH, _YEAR = 60, 3600, 86400, 7 * 86400, 30 * 86400, 365 * 86400


def length(seconds: float) -> str:
    """Return a length of time roughly: `About a minute`, `3 hours`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < _MINUTE:
        return f"{whole} seconds"
    if whole < 2 * _MINUTE:
        return "About a minute"
    if whole < _HOUR:
        return f"{whole // _MINUTE} minutes"
    hours = int(seconds / _HOUR + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    for limit, unit, name in (
        (2 * _WEEK, _DAY, "days"),
        (2 * _MONTH, _WEEK, "weeks"),
        (2 * _YEAR, _MONTH, "months"),
    ):
        if whole < limit:
            return f"{whole // unit} {name}"
    return f"{whole // _YEAR} years"


def ago(moment: float, now: float) -> str:
    """Return how long before `now` it was; a clock that runs ahead counts as now."""
    return f"{length(max(0.0, now - moment))} ago"


def size(count: int) -> str:
    """Return bytes in decimal units, three digits: 4270000 → `4.27MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}PB"


def binary_size(count: int) -> str:
    """Return bytes in binary units, four digits: 67108864 → `64MiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.4g}{unit}"
        value /= 1024
    return f"{value:.4g}PiB"
