"""`pyswarm why`."""

import json

import click
from google.protobuf.json_format import MessageToDict

from pyswarm.manager.cli.client.control import connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.shared import format_option
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.template import render, unescape
from pyswarm.manager.cli.view.why import explanation_text
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.v1 import control_pb2 as pb


@click.command(
    help="Say why a task, a service or a node is as it is: what each filter says of the nodes, what led there and what "
    "would help. A task goes by its id or SERVICE.SLOT."
)
@format_option
@click.argument("name", metavar="TASK|SERVICE|NODE")
@pass_settings
def why(settings: Settings, format_: str, name: str) -> None:
    async def ask() -> pb.Explanation:
        async with connect(settings) as client:
            return await client.explain(name)

    found = run(ask())
    if format_:
        told = MessageToDict(found, preserving_proto_field_name=True)
        click.echo(json.dumps(told, ensure_ascii=False) if format_ == "json" else render(unescape(format_), told))
    else:
        click.echo(explanation_text(found, now=SYSTEM_CLOCK.now()))
