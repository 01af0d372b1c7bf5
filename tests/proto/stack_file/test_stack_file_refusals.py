"""Whatever is wrong with a stack file is told with file, line and column, and what to do about it."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.proto.codec.stack_file import parse_stack
from pyswarm.proto.errors import InvalidArgument, InvalidStackFile


def refusal(text: str, **environment: str) -> InvalidStackFile:
    with pytest.raises(InvalidStackFile) as caught:
        parse_stack([("web.yaml", text)], stack="s", environment=environment)
    return caught.value


def in_service(body: str) -> str:
    """A file whose service's body starts on line 4."""
    return "services:\n  web:\n    image: web:1\n" + "".join(f"    {line}\n" for line in body.splitlines())


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        pytest.param("", "1:1", "the file is empty", id="empty"),
        pytest.param("# only a comment\n", "1:1", "the file is empty", id="comment"),
        pytest.param("- a\n", "1:1", "a stack file is a mapping", id="list"),
        pytest.param("services:\n  web:\n   image: [\n", "4:1", "malformed YAML on line 4", id="open bracket"),
        pytest.param("services:\n\tweb:\n", "2:1", "malformed YAML on line 2", id="tab"),
        pytest.param("services:\n  a: b: c\n", "2:7", "malformed YAML on line 2", id="two colons"),
        pytest.param("a: 1\n---\nb: 2\n", "2:1", "a second YAML document", id="documents"),
        pytest.param("services: {a: *nope}\n", "1:15", "unknown alias *nope", id="alias"),
        pytest.param("services: &s {a: *s}\n", "1:18", "unknown alias *s", id="alias of itself"),
        pytest.param("services:\n  a: \x07\n", "2:6", "character U+0007 is not allowed", id="control character"),
        pytest.param('a: "\\UFFFFFFFF"\n', "1:7", "an escape that names no character", id="escape of no character"),
        pytest.param("a: !!python/object:x 1\n", "1:4", "tag:yaml.org,2002:python", id="python tag"),
        pytest.param("services: !reset\n", "1:11", "the YAML tag !reset is not supported", id="tag"),
        pytest.param("? [a]\n: 1\n", "1:3", "a key must be text", id="key"),
        pytest.param("services:\n  web: {}\n  web: {}\n", "3:3", "duplicate key web", id="duplicate"),
        pytest.param("services: 1\n", "1:11", 'services must be a mapping, not "1"', id="services"),
        pytest.param("services: {}\n", "1:11", "no services", id="no services"),
        pytest.param("version: '3'\n", "1:1", "no services", id="only version"),
        pytest.param("version: 2.4\nservices: {a: {image: b}}\n", "1:10", 'version "2.4"', id="version 2"),
        pytest.param("servces: {}\n", "1:1", "unknown key servces", id="unknown at the top"),
        pytest.param(
            "services: {a: {image: b}}\nsecrets: {x: {}}\n", "2:14", "secrets.x has nothing to hold", id="secrets"
        ),
        pytest.param(
            "services: {a: {image: b}}\nconfigs: {x: {file: a, content: b}}\n",
            "2:14",
            "configs.x has both file and content",
            id="two sources",
        ),
        pytest.param(
            "services: {a: {image: b}}\nsecrets: {x: {external: true, file: a}}\n",
            "2:37",
            "secrets.x is external and has a file",
            id="external with a file",
        ),
        pytest.param(
            "services: {a: {image: b, secrets: [y]}}\nsecrets: {x: {file: a}}\n",
            "1:36",
            '"y" is not among the secrets of the file',
            id="unlisted secret",
        ),
        pytest.param(
            "services: {a: {image: b, configs: [{source: x, mode: 9999}]}}\nconfigs: {x: {file: a}}\n",
            "1:54",
            'mode must be a file mode such as 0440, not "9999"',
            id="mode",
        ),
        pytest.param("services: {a: {image: b}}\nvolumes: {x: }\n", "2:1", "volumes is not supported", id="volumes"),
        pytest.param("services:\n  web:\n    command: x\n", "3:5", "services.web has no image", id="no image"),
        pytest.param("services:\n  web:\n", "2:3", "services.web has no image", id="nothing"),
        pytest.param("services:\n  web: {image: 'A B'}\n", "2:3", "white space", id="bad image"),
        pytest.param("services:\n  'a b': {image: c}\n", "2:3", "DNS name", id="bad name"),
    ],
)
def test_a_file_that_is_no_stack_is_refused(text: str, place: str, message: str) -> None:
    error = refusal(text)
    assert error.message.startswith(f"web.yaml:{place}: "), error.message
    assert message in error.message
    assert error.remedy


@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        ("imagee: x", "4:5", "unknown key services.web.imagee"),
        ("networks: [a]", "4:5", "services.web.networks is not supported"),
        ("extends: {service: x}", "4:5", "services.web.extends is not supported"),
        ("mem_limit: 5m", "4:5", "services.web.mem_limit is not supported"),
        ("hostname: true", "4:15", 'services.web.hostname must be text, not "true"'),
        ("hostname: [a]", "4:15", "services.web.hostname must be text, not a list"),
        ("read_only: maybe", "4:16", 'services.web.read_only must be true or false, not "maybe"'),
        ("command: echo 'a", "4:14", "services.web.command: no closing quotation"),
        ("command: {a: b}", "4:14", "services.web.command must be a list or a line of text, not a mapping"),
        ("environment: a", "4:18", "services.web.environment must be a mapping or a list"),
        ("environment: ['=x']", "4:19", "services.web.environment must be NAME=value"),
        ("environment: {A: true}", "4:22", 'services.web.environment.A must be text, not "true"'),
        ("environment: {A: [x]}", "4:22", "services.web.environment.A must be text, not a list"),
        ("stop_grace_period: 5", "4:24", 'services.web.stop_grace_period: "5" is not a length of time'),
        ("ports: 80", "4:12", 'services.web.ports must be a list, not "80"'),
        ("ports: [a]", "4:13", '"a" is not a port'),
        ("ports: ['127.0.0.1:80:80']", "4:13", 'port "127.0.0.1:80:80" names an address'),
        ("ports: ['8080:80/sctp']", "4:13", 'protocol "sctp" is not supported'),
        ("ports: ['1-2:1-3']", "4:13", "ranges of different length"),
        ("ports: ['70000']", "4:13", "not between 1 and 65535"),
        ("ports: ['9-8:80']", "4:13", "not between 1 and 65535"),
        ("ports: [{published: 80}]", "4:13", "services.web.ports has no target"),
        ("ports: [{target: 80, mode: hst}]", "4:32", "services.web.ports.mode must be one of ingress, host"),
        ("ports: [{target: 80, published: 70000}]", "4:37", "must be at most 65535"),
        ("ports: [{target: 80, host_ip: 1.2.3.4}]", "4:26", "services.web.ports.host_ip is not supported"),
        ("ports: ['8080:80', '8080:81']", "2:3", "8080/tcp is published twice"),
        ("volumes: ['data:/data']", "4:15", '"data" is a named volume'),
        ("volumes: [/data]", "4:15", '"/data" is an anonymous volume'),
        ("volumes: ['./a:/data']", "4:15", '"./a" is a relative path'),
        ("volumes: ['/a:b']", "4:15", 'target "b" is not absolute'),
        ("volumes: ['/a:/b:z']", "4:15", 'option "z" is not supported'),
        ("volumes: ['a:b:c:d']", "4:15", "too many colons"),
        ("volumes: [{type: volume, source: a, target: /b}]", "4:22", "services.web.volumes.type volume"),
        ("volumes: [{source: /a, target: /b}]", "4:15", "services.web.volumes has no type"),
        ("volumes: [{type: bind, source: /a, target: b}]", "4:15", "needs an absolute target"),
        ("volumes: [{type: tmpfs, source: /a, target: /b}]", "4:15", "a tmpfs has no source"),
        ("volumes: [{type: bind, source: a, target: /b}]", "4:36", '"a" is a named volume'),
        ("volumes: [{type: bind, source: /a, target: /b, bind: {propagation: x}}]", "4:52", "bind is not supported"),
        ("volumes: ['/a:/x', '/b:/x/']", "2:3", "/x is the target of two mounts"),
        ("stop_signal: SIGNOPE", "2:3", "stop signal 'SIGNOPE' is unknown"),
        ("cap_add: [NOPE]", "2:3", "capability 'NOPE' is unknown"),
        ("deploy: {replicas: many}", "4:24", 'services.web.deploy.replicas must be a whole number, not "many"'),
        ("deploy: {replicas: -1}", "4:24", "services.web.deploy.replicas must be at least 0"),
        ("deploy: {replicas: 1.5}", "4:24", "must be a whole number"),
        ("deploy: {mode: global, replicas: 2}", "4:38", "goes with mode: replicated or replicated-job only"),
        ("deploy: {mode: job}", "4:20", "must be one of replicated, global, replicated-job, global-job"),
        ("deploy: {replica: 1}", "4:14", "unknown key services.web.deploy.replica"),
        ("deploy: {resources: {limits: {memory: lots}}}", "4:43", '"lots" is not a size'),
        ("deploy: {resources: {limits: {memory: 1k}}}", "2:3", "the memory limit is 1024 bytes"),
        ("deploy: {resources: {limits: {cpus: x}}}", "4:41", '"x" is not a number of CPUs'),
        ("deploy: {resources: {limits: {gpus: 1}}}", "4:35", "unknown key services.web.deploy.resources.limits.gpus"),
        ("deploy: {restart_policy: {condition: always}}", "4:42", "must be one of none, on-failure, any"),
        ("deploy: {placement: {constraints: [nope]}}", "2:3", "nope"),
        ("deploy: {placement: {preferences: [x]}}", "4:40", "must be a list of `spread: node.labels.NAME`"),
        ("deploy: {update_config: {max_failure_ratio: 2}}", "4:49", "must be a number from 0 to 1"),
        ("deploy: {rollback_config: {failure_action: rollback}}", "4:48", "must be one of pause, continue"),
    ],
)
def test_a_mistake_in_a_service_is_named_where_it_stands(body: str, place: str, message: str) -> None:
    error = refusal(in_service(body))
    assert message in error.message
    assert error.message.startswith(f"web.yaml:{place}: "), error.message


@pytest.mark.parametrize(
    ("body", "remedy"),
    [
        ("imagee: x", "Did you mean image?"),
        ("deploy: {replica: 1}", "Did you mean replicas?"),
        ("ports: [{target: 80, mode: hst}]", "Did you mean host?"),
        ("hostname: true", 'Quote it if it is meant as text: "true".'),
        ("mem_limit: 5m", "Use deploy.resources.limits.memory."),
    ],
)
def test_the_remedy_says_what_to_write_instead(body: str, remedy: str) -> None:
    assert refusal(in_service(body)).remedy == remedy


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${A:?give it}", "required variable A is empty: give it"),
        ("${B?}", "required variable B is not set"),
        ("${A", "has no closing brace"),
        ("${A:x}", "invalid interpolation: ${A:x}"),
        ("${}", "invalid interpolation: ${}"),
        ("$1", "invalid interpolation: $1"),
        ("${A:-${B?deep}}", "required variable B is not set: deep"),
    ],
)
def test_a_variable_that_cannot_be_replaced_is_refused(written: str, message: str) -> None:
    error = refusal(in_service(f"hostname: '{written}'"), A="")
    assert error.message.startswith("web.yaml:4:15: ")
    assert message in error.message


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "ü"])
def test_a_stack_needs_a_name_that_services_can_start_with(name: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot name a stack"):
        parse_stack([("f", in_service(""))], stack=name, environment={})


def test_a_file_of_laughs_is_refused_before_it_fills_memory() -> None:
    lines = ["x-0: &a0 [" + ",".join(["lol"] * 10) + "]"]
    lines += [f"x-{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 10)]
    assert "once aliases are expanded" in refusal("\n".join(lines)).message


def test_depth_is_bounded_also_through_aliases() -> None:
    assert "nested deeper" in refusal("a: " + "[" * 100 + "]" * 100).message
    lines = ["x-0: &a0 " + "[" * 50 + "]" * 50]
    lines += [f"x-{n}: &a{n} " + "[" * 50 + f"*a{n - 1}" + "]" * 50 for n in range(1, 40)]
    assert "nested deeper" in refusal("\n".join(lines)).message


PLACE = re.compile(r"web\.yaml:\d+:\d+: ")
WORDS = st.sampled_from(
    [
        "services",
        "web",
        "image",
        "build",
        "ports",
        "volumes",
        "deploy",
        "replicas",
        "environment",
        "labels",
        "command",
        "version",
        "x-a",
        "resources",
        "limits",
        "memory",
        "cpus",
        "mode",
        "global",
        "restart_policy",
        "update_config",
        "80",
        "8080:80",
        "/a:/b",
        "type",
        "bind",
        "target",
        "published",
        "${A}",
        "${A:-1}",
        "$$",
        "true",
        "null",
        "1.5",
        "5s",
        "50M",
        "-",
        ":",
        "&",
        "*",
        "!",
        "|",
        ">",
        "'",
        '"',
        "{",
        "}",
        "[",
        "]",
        ",",
        "#",
        "<<",
        "*a",
        "&a",
        "?",
        "@",
        "`",
        "%",
    ]
)
YAMLISH = st.lists(st.one_of(WORDS, st.sampled_from(["\n", "\n  ", "\n    ", " ", ": ", "- "])), max_size=40).map(
    "".join
)
TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), WORDS),
    lambda children: st.one_of(st.lists(children, max_size=4), st.dictionaries(WORDS, children, max_size=4)),
    max_leaves=20,
)


def accepts_or_tells_the_line(text: str) -> None:
    try:
        parsed = parse_stack([("web.yaml", text)], stack="s", environment={"A": "x"})
        told = ""
    except InvalidStackFile as error:
        told = error.message
    assert PLACE.match(told) if told else parsed.services, told


@given(st.one_of(st.text(), YAMLISH))
@settings(max_examples=300, deadline=None)
def test_any_text_is_either_a_stack_or_refused_with_its_line(text: str) -> None:
    accepts_or_tells_the_line(text)


@given(st.dictionaries(WORDS, TREES, max_size=5))
@settings(max_examples=300, deadline=None)
def test_any_tree_in_a_service_is_either_a_spec_or_refused_with_its_line(tree: dict[str, object]) -> None:
    import yaml

    accepts_or_tells_the_line(yaml.safe_dump({"services": {"web": {"image": "web:1", **tree}}}))


@pytest.mark.parametrize(
    ("written", "content", "message"),
    [
        ("gone.env", None, "services.a.env_file: cannot read gone.env: No such file"),
        ("bad.env", "A=1\nnot a name=2\n", 'services.a.env_file: bad.env:2: "not a name" is not a variable'),
        ("{path: a.env}", "", "services.a.env_file must be text, not a mapping"),
    ],
    ids=["a file that is not there", "a line that is no variable", "the long spelling"],
)
def test_a_file_of_variables_that_cannot_be_read_is_named_where_it_stands(
    written: str, content: str | None, message: str
) -> None:
    def read(file: str) -> str:
        if content is None:
            raise FileNotFoundError(2, "No such file or directory", file)
        return content

    text = f"services:\n  a:\n    image: b\n    env_file: [{written}]\n"
    with pytest.raises(InvalidStackFile, match=r"web.yaml:4:16") as raised:
        parse_stack([("web.yaml", text)], stack="s", environment={}, read_text=read)
    assert message in raised.value.message
