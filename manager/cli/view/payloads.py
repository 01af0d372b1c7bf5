"""`secret ls|inspect` and `config ls|inspect`."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from pyswarm.manager.cli.view.facts import Fact, render_facts, rfc3339
from pyswarm.manager.cli.view.filters import labels_match
from pyswarm.manager.cli.view.human import ago
from pyswarm.manager.cli.view.table import Row, column
from pyswarm.proto.model.objects import Config, Secret

Payload = Secret | Config

SECRET_COLUMNS = (
    column("ID", "ID"),
    column("NAME", "Name"),
    column("DRIVER", "Driver"),
    column("CREATED", "CreatedAt"),
    column("UPDATED", "UpdatedAt"),
)
CONFIG_COLUMNS = (
    column("ID", "ID"),
    column("NAME", "Name"),
    column("CREATED", "CreatedAt"),
    column("UPDATED", "UpdatedAt"),
)


def payload_row(payload: Payload, *, now: float) -> Row:
    labels = ",".join(f"{key}={value}" for key, value in sorted(payload.spec.labels.items()))
    row = {
        "ID": payload.id,
        "Name": payload.spec.name,
        "CreatedAt": ago(payload.created_at, now),
        "UpdatedAt": ago(payload.updated_at, now),
        "Labels": labels,
    }
    return {**row, "Driver": ""} if isinstance(payload, Secret) else row


def keep_payloads(payloads: Sequence[Payload], filters: Mapping[str, Sequence[str]]) -> list[Payload]:
    """Return those that match every filter: the start of an id, part of a name, a label."""
    return [
        payload
        for payload in payloads
        if (not (ids := filters.get("id", ())) or any(payload.id.startswith(id) for id in ids))
        and (not (names := filters.get("name", ())) or any(name in payload.spec.name for name in names))
        and labels_match(filters.get("label", ()), payload.spec.labels)
    ]


def payload_json(payload: Payload) -> dict[str, Any]:
    """Return the object as Docker's API gives it: a config with what it holds, a secret without."""
    spec: dict[str, Any] = {"Name": payload.spec.name, "Labels": dict(payload.spec.labels)}
    if isinstance(payload, Config):
        spec["Data"] = base64.b64encode(payload.spec.data).decode()
    return {
        "ID": payload.id,
        "Version": {"Index": payload.version},
        "CreatedAt": rfc3339(payload.created_at),
        "UpdatedAt": rfc3339(payload.updated_at),
        "Spec": spec,
    }


def payload_pretty(payload: Payload) -> str:
    facts: list[Fact] = [
        ("ID", payload.id),
        ("Name", payload.spec.name),
        ("Labels", dict(sorted(payload.spec.labels.items()))),
        ("Created at", rfc3339(payload.created_at)),
        ("Updated at", rfc3339(payload.updated_at)),
    ]
    text = render_facts(facts)
    if isinstance(payload, Config):
        text += f"\nData:\n{payload.spec.data.decode(errors='backslashreplace')}"
    return text
