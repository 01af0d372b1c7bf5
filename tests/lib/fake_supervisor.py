"""pyswarmd's socket with answers made up by a test: one JSON object a line each way."""

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


class FakeSupervisor:
    """Answers each op with the messages of `answers`, in order; `asked` holds the requests."""

    def __init__(self, answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self.answers = dict(answers)
        self.asked: list[dict[str, Any]] = []


@contextlib.contextmanager
def serving_supervisor(path: Path, fake: FakeSupervisor) -> Iterator[None]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            request = json.loads(self.rfile.readline())
            fake.asked.append(request)
            for message in fake.answers.get(request["op"], ()):
                self.wfile.write(json.dumps(message).encode() + b"\n")

    path.parent.mkdir(parents=True, exist_ok=True)
    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(10)
    path.unlink(missing_ok=True)
