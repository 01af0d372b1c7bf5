"""An explanation for people: the state, a table of nodes by filter, what happened, what would help (pure)."""

from collections.abc import Sequence

from pyswarm.manager.cli.view.human import ago
from pyswarm.manager.cli.view.table import render_table
from pyswarm.proto.v1 import control_pb2 as pb

NODES_SHOWN = 4


def explanation_text(found: pb.Explanation, *, now: float) -> str:
    head = f"{found.kind.title()} {found.name} ({found.id[:12]}): {found.state}"
    parts = ["\n".join([head, *(f"  {fact}" for fact in found.facts)])]
    if found.groups:
        parts.append(_groups(found.groups))
    if found.steps:
        rows = [[str(s.index or "-"), ago(s.at, now) if s.at else "", s.what, s.cause] for s in found.steps]
        parts.append(render_table(["INDEX", "WHEN", "WHAT HAPPENED", "WHY"], rows))
    if found.remedies:
        parts.append("\n".join(["What would help:", *(f"  - {remedy}" for remedy in found.remedies)]))
    return "\n\n".join(parts)


def _groups(groups: Sequence[pb.NodeGroup]) -> str:
    """One line for each group of nodes; a filter that refuses none of them is left out, but for the first."""
    names = [v.filter for v in groups[0].verdicts]
    shown = [n for i, n in enumerate(names) if i == 0 or any(group.verdicts[i].refusal for group in groups)]
    rows = []
    for group in groups:
        said = {v.filter: v.refusal or "ok" for v in group.verdicts}
        is_fit = all(not v.refusal for v in group.verdicts)
        rows.append([_nodes(group.nodes), "yes" if is_fit else "no", *(said[name] for name in shown)])
    return render_table(["NODES", "FITS", *(name.upper() for name in shown)], rows)


def _nodes(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - NODES_SHOWN} more" if len(nodes) > NODES_SHOWN else ""
    return ", ".join(nodes[:NODES_SHOWN]) + more
