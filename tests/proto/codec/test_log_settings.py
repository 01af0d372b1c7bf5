"""Log drivers and their options: what they stand for, and what is refused by name."""

import pytest

from pyswarm.proto.codec.log_settings import (
    FACILITIES,
    LogSettings,
    SyslogAddress,
    log_driver_problems,
    log_settings,
    tag_of,
)
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.spec import LogDriver

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("driver", "options", "expected"),
    [
        pytest.param("", {}, LogSettings(), id="nothing said is json-file, limited"),
        pytest.param(
            "json-file", {"max-size": "10k", "max-file": "2"},
            LogSettings(largest_file_bytes=10240, most_files=2), id="rotation by size and count",
        ),
        pytest.param("json-file", {"max-size": "-1"}, LogSettings(largest_file_bytes=0), id="no limit"),
        pytest.param(
            "local", {"compress": "false"},
            LogSettings(driver="local", largest_file_bytes=20 * MIB, most_files=5), id="local has Docker's limits",
        ),
        pytest.param(
            "syslog",
            {"syslog-address": "udp://[::1]:1514", "syslog-facility": "local3", "syslog-format": "rfc5424", "tag": "x"},
            LogSettings(
                driver="syslog", address=SyslogAddress("udp", host="::1", port=1514), facility=19,
                format="rfc5424", tag="x",
            ),
            id="a syslog elsewhere",
        ),
        pytest.param(
            "syslog", {"syslog-address": "tcp://logs", "mode": "non-blocking", "max-buffer-size": "4m"},
            LogSettings(
                driver="syslog", address=SyslogAddress("tcp", host="logs", port=514), is_blocking=False,
                buffer_bytes=4 * MIB,
            ),
            id="its usual port; never waiting for it",
        ),
        pytest.param(
            "journald", {"labels": "a, b", "env": "C"}, LogSettings(driver="journald", labels=("a", "b"), env=("C",)),
            id="fields for the journal",
        ),
    ],
)  # fmt: skip
def test_options_stand_for_settings(driver: str, options: dict[str, str], expected: LogSettings) -> None:
    assert log_settings(LogDriver(driver, options)) == expected


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("splunk", {}, "no log driver named 'splunk' is registered"),
        ("json-file", {"max-sise": "1m"}, "unknown log opt 'max-sise' for json-file log driver"),
        ("journald", {"max-size": "1m"}, "unknown log opt 'max-size' for journald log driver"),
        ("none", {"max-size": "1m"}, "invalid logging opts for driver none"),
        ("json-file", {"max-size": "much"}, 'log opt max-size: "much" is not a size'),
        ("json-file", {"max-size": "0"}, 'log opt max-size: "0" leaves room for nothing'),
        ("json-file", {"max-file": "0"}, 'log opt max-file: "0" is no number of files'),
        ("local", {"compress": "true"}, "log opt compress: rotated files are not compressed"),
        ("local", {"mode": "fast"}, 'log opt mode: logging mode "fast" is unknown'),
        ("local", {"max-buffer-size": "1m"}, "log opt max-buffer-size is for mode=non-blocking"),
        (
            "syslog",
            {"syslog-address": "tcp+tls://h"},
            'log opt syslog-address: "tcp+tls://h" is no address of a syslog',
        ),
        ("syslog", {"syslog-address": "udp://h:x"}, 'log opt syslog-address: "udp://h:x" is no address of a syslog'),
        ("syslog", {"syslog-address": "unix://h/p"}, 'log opt syslog-address: "unix://h/p" is no address of a syslog'),
        ("syslog", {"syslog-facility": "24"}, 'log opt syslog-facility: syslog facility "24" is unknown'),
        ("syslog", {"syslog-format": "xml"}, 'log opt syslog-format: syslog format "xml" is unknown'),
        ("syslog", {"tag": "{{.Nmae}}"}, "log opt tag: the placeholder {{.Nmae}} is unknown"),
        ("syslog", {"tag": "a\nb"}, "log opt tag: a tag has characters that cannot be printed"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_by_name(driver: str, options: dict[str, str], message: str) -> None:
    (problem,) = log_driver_problems(LogDriver(driver, options))
    assert problem.message == message
    with pytest.raises(InvalidArgument, match=r".+") as raised:
        log_settings(LogDriver(driver, options))
    assert raised.value.message == message


def test_every_problem_is_told() -> None:
    wanted = LogDriver("json-file", {"max-size": "x", "a": "", "b": ""})
    assert len(list(log_driver_problems(wanted))) == 3


def test_a_tag_names_the_container_and_its_image() -> None:
    tag = tag_of(
        "{{.DaemonName}}/{{.ImageName}}/{{ .Name }}/{{.ID}}/{{.FullID}}/{{.ImageID}}",
        container_id="0123456789abcdef", name="web.1.x", image_id="sha256:" + "e" * 64, image="nginx",
    )  # fmt: skip
    assert tag == "pyswarm/nginx/web.1.x/0123456789ab/0123456789abcdef/eeeeeeeeeeee"


def test_facilities_have_the_numbers_of_syslog() -> None:
    assert (FACILITIES.index("daemon"), FACILITIES.index("authpriv"), FACILITIES.index("local7")) == (3, 10, 23)
