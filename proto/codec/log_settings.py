"""Log drivers and their options, from Docker's words to settings (pure).

Shared by whoever judges a service before it is written and by the runtime that carries it out, so that both know the
same drivers, options and defaults. What an option means to a driver is the runtime's business.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pyswarm.proto.codec.placeholders import filled_in, names_in
from pyswarm.proto.codec.problems import Problem
from pyswarm.proto.codec.units import parse_bytes
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.spec import LogDriver

JSON_FILE: Final = "json-file"
LOCAL: Final = "local"
SYSLOG: Final = "syslog"
JOURNALD: Final = "journald"
NONE: Final = "none"

READABLE: Final = frozenset({JSON_FILE, LOCAL})
"""Drivers whose logs can be read again; those of the others are where they went."""

_COMMON = frozenset({"mode", "max-buffer-size", "tag"})
_OPTIONS: Final[Mapping[str, frozenset[str]]] = {
    JSON_FILE: _COMMON | {"max-size", "max-file", "compress"},
    LOCAL: _COMMON | {"max-size", "max-file", "compress"},
    SYSLOG: _COMMON | {"syslog-address", "syslog-facility", "syslog-format"},
    JOURNALD: _COMMON | {"labels", "env"},
    NONE: frozenset(),
}

MIB: Final = 1024 * 1024
_FILES: Final = {LOCAL: (20 * MIB, 5)}
"""Largest file and number of files, where Docker limits them by itself; json-file is limited here, too."""
_DEFAULT_FILES: Final = (10 * MIB, 3)

FACILITIES: Final = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp".split()  # noqa: SIM905
    + [""] * 4
    + [f"local{number}" for number in range(8)]
)
FORMATS: Final = ("", "rfc3164", "rfc5424", "rfc5424micro")

TAG_PLACEHOLDERS: Final = (".ID", ".FullID", ".Name", ".ImageID", ".ImageFullID", ".ImageName", ".DaemonName")
_SYSLOG_PORT = 514


@dataclass(frozen=True)
class SyslogAddress:
    """`kind`: unix, unixgram, udp or tcp; a path or a host with its port."""

    kind: str
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"{self.kind}://{self.path or f'{self.host}:{self.port}'}"


@dataclass(frozen=True)
class LogSettings:
    """`largest_file_bytes` 0 is no limit; `facility` a syslog number; `address` None the machine's own syslog."""

    driver: str = JSON_FILE
    largest_file_bytes: int = _DEFAULT_FILES[0]
    most_files: int = _DEFAULT_FILES[1]
    is_blocking: bool = True
    buffer_bytes: int = MIB
    tag: str = "{{.ID}}"
    address: SyslogAddress | None = None
    facility: int = FACILITIES.index("daemon")
    format: str = ""
    labels: tuple[str, ...] = ()
    env: tuple[str, ...] = ()

    @property
    def is_readable(self) -> bool:
        return self.driver in READABLE


def log_driver_problems(wanted: LogDriver) -> Iterator[Problem]:
    """Yield what is wrong with a log driver and its options."""
    driver = wanted.name or JSON_FILE
    if driver not in _OPTIONS:
        yield Problem(f"no log driver named '{driver}' is registered", f"Log drivers are {', '.join(_OPTIONS)}.")
        return
    if driver == NONE and wanted.options:
        yield Problem("invalid logging opts for driver none", "Leave the options out: nothing is kept.")
        return
    for name in sorted(wanted.options.keys() - _OPTIONS[driver]):
        yield Problem(
            f"unknown log opt '{name}' for {driver} log driver", f"It knows {', '.join(sorted(_OPTIONS[driver]))}."
        )
    for name, parse in _PARSERS.items():
        if name in wanted.options and name in _OPTIONS[driver]:
            try:
                parse(wanted.options[name])
            except InvalidArgument as error:
                yield Problem(f"log opt {name}: {error.message}", error.remedy)
    if "max-buffer-size" in wanted.options and wanted.options.get("mode") != "non-blocking":
        yield Problem("log opt max-buffer-size is for mode=non-blocking", "Add mode=non-blocking, or leave it out.")


def log_settings(wanted: LogDriver) -> LogSettings:
    """Return what a log driver's options say. Raises InvalidArgument with the first thing that is wrong."""
    for problem in log_driver_problems(wanted):
        raise InvalidArgument(problem.message, remedy=problem.remedy)
    driver, options = wanted.name or JSON_FILE, wanted.options
    values = {name: parse(options[name]) for name, parse in _PARSERS.items() if name in options}
    size, files = _FILES.get(driver, _DEFAULT_FILES)
    return LogSettings(
        driver=driver,
        largest_file_bytes=values.get("max-size", size),
        most_files=values.get("max-file", files),
        is_blocking=values.get("mode", True),
        buffer_bytes=values.get("max-buffer-size", MIB),
        tag=values.get("tag", LogSettings.tag),
        address=values.get("syslog-address"),
        facility=values.get("syslog-facility", LogSettings.facility),
        format=values.get("syslog-format", ""),
        labels=values.get("labels", ()),
        env=values.get("env", ()),
    )


def tag_of(template: str, *, container_id: str, name: str, image_id: str, image: str) -> str:
    """Return what a tag's template stands for, for one container."""
    values = {
        ".ID": container_id[:12], ".FullID": container_id, ".Name": name, ".ImageID": image_id[7:19],
        ".ImageFullID": image_id, ".ImageName": image, ".DaemonName": "pyswarm",
    }  # fmt: skip
    return filled_in(template, values)


def _size(text: str) -> int:
    """A size, or -1 for none."""
    if text == "-1":
        return 0
    size = parse_bytes(text)
    if size <= 0:
        raise InvalidArgument(f'"{text}" leaves room for nothing', remedy="Write a size such as 10m.")
    return size


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1000):
        raise InvalidArgument(f'"{text}" is no number of files', remedy="Write a number from 1 to 1000.")
    return int(text)


def _buffer(text: str) -> int:
    size = parse_bytes(text)
    if not 1 <= size <= 256 * MIB:
        raise InvalidArgument(f'"{text}" is no size of a buffer', remedy="Write a size up to 256m.")
    return size


def _is_blocking(text: str) -> bool:
    if text not in ("blocking", "non-blocking"):
        raise InvalidArgument(f'logging mode "{text}" is unknown', remedy="Modes are blocking and non-blocking.")
    return text == "blocking"


def _no_compression(text: str) -> bool:
    if text != "false":
        raise InvalidArgument("rotated files are not compressed", remedy="Leave compress out, or write compress=false.")
    return False


def _tag(text: str) -> str:
    for name in names_in(text):
        if name not in TAG_PLACEHOLDERS:
            raise InvalidArgument(
                f"the placeholder {{{{{name}}}}} is unknown", remedy=f"Known are {', '.join(TAG_PLACEHOLDERS)}."
            )
    if not text.isprintable():
        raise InvalidArgument("a tag has characters that cannot be printed", remedy="Leave them out.")
    return text


def _address(text: str) -> SyslogAddress:
    remedy = "Write unix:///PATH, unixgram:///PATH, udp://HOST:PORT or tcp://HOST:PORT."
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or _SYSLOG_PORT
    except ValueError as error:
        raise InvalidArgument(f'"{text}" is no address of a syslog', remedy=remedy) from error
    if parts.scheme in ("unix", "unixgram") and parts.path.startswith("/") and not host:
        return SyslogAddress(parts.scheme, path=parts.path)
    if parts.scheme in ("udp", "tcp") and host and parts.path in ("", "/"):
        return SyslogAddress(parts.scheme, host=host, port=port)
    raise InvalidArgument(f'"{text}" is no address of a syslog', remedy=remedy)


def _facility(text: str) -> int:
    if text in FACILITIES and text:
        return FACILITIES.index(text)
    if text.isascii() and text.isdigit() and int(text) < len(FACILITIES):
        return int(text)
    known = ", ".join(name for name in FACILITIES if name)
    raise InvalidArgument(f'syslog facility "{text}" is unknown', remedy=f"Facilities are {known}.")


def _format(text: str) -> str:
    if text not in FORMATS:
        raise InvalidArgument(
            f'syslog format "{text}" is unknown', remedy="Formats are rfc3164, rfc5424, rfc5424micro."
        )
    return text


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "max-size": _size, "max-file": _count, "compress": _no_compression, "mode": _is_blocking,
    "max-buffer-size": _buffer, "tag": _tag, "syslog-address": _address, "syslog-facility": _facility,
    "syslog-format": _format, "labels": _names, "env": _names,
}  # fmt: skip
