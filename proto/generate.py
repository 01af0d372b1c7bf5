"""Generate typed Python from `proto/v1/*.proto`.

Run as a script (`python proto/generate.py`) or from the package build. The generated files are not
committed. protoc writes imports relative to its own root; they are rewritten to `pyswarm.proto.v1`.
"""

import re
import sys
from importlib.resources import files
from pathlib import Path

HERE = Path(__file__).resolve().parent / "v1"
_PLAIN_IMPORT = re.compile(r"^import (\w+_pb2)( as \w+)?$", re.MULTILINE)


def generate() -> None:
    """Run protoc over every `.proto` file; raise `RuntimeError` when it reports an error."""
    from grpc_tools import protoc

    sources = sorted(str(p) for p in HERE.glob("*.proto"))
    wanted = [HERE / (Path(s).stem + "_pb2.py") for s in sources]
    newest_source = max(Path(s).stat().st_mtime for s in [*sources, __file__])
    if all(w.exists() and w.stat().st_mtime >= newest_source for w in wanted):
        return
    status = protoc.main(
        [
            "protoc",
            f"-I{HERE}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={HERE}",
            f"--grpc_python_out={HERE}",
            f"--mypy_out={HERE}",
            f"--mypy_grpc_out={HERE}",
            *sources,
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc exited with {status}; see its message above")
    for made in [*HERE.glob("*_pb2*.py"), *HERE.glob("*_pb2*.pyi")]:
        text = made.read_text()
        text = _PLAIN_IMPORT.sub(lambda m: f"from pyswarm.proto.v1 import {m[1]}{m[2] or ''}", text)
        made.write_text(text)


if __name__ == "__main__":
    generate()
    sys.exit(0)
