"""The product's own source, as the house rules look at it: files, syntax trees and who imports whom.

Imports are followed wherever they stand (also inside functions, so that nothing hides), except under
`if TYPE_CHECKING`, which never runs. What the standard library imports inside itself is its own matter, and
so is what a room prepares when its package is first imported: nothing is called through that.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("proto", "manager", "worker", "agent_runtime", "deploy")


@cache
def product_files() -> tuple[Path, ...]:
    """Return every Python file of the rooms except the generated ones, relative to the root."""
    found = (p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
    return tuple(sorted(p.relative_to(ROOT) for p in found if "_pb2" not in p.name and "__pycache__" not in p.parts))


@cache
def files_of_tests() -> tuple[Path, ...]:
    return tuple(sorted(p.relative_to(ROOT) for p in (ROOT / "tests").rglob("*.py") if "__pycache__" not in p.parts))


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text(), filename=str(file))


def module_of(file: Path) -> str:
    """Return the import path of a file of the product."""
    parts = file.with_suffix("").parts
    return ".".join(("pyswarm", *(parts[:-1] if parts[-1] == "__init__" else parts)))


@cache
def modules() -> dict[str, Path]:
    return {module_of(file): file for file in product_files()}


@cache
def imports_of(file: Path) -> tuple[tuple[str, int], ...]:
    """Return (module, line) for each module a file imports; `from x import y` counts as x.y where that is one."""
    package = module_of(file) if file.name == "__init__.py" else module_of(file).rpartition(".")[0]
    found: list[tuple[str, int]] = []
    for node in _running_nodes(tree_of(file)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.append((inner if inner in modules() or _is_generated(inner) else base, node.lineno))
    return tuple(found)


def top_level(module: str) -> str:
    return module.partition(".")[0]


def chains_from(module: str) -> Iterator[tuple[tuple[str, ...], str, int]]:
    """Yield (chain of our modules, foreign module, line) for every import of something not ours within reach."""
    seen = {module}
    waiting: list[tuple[str, ...]] = [(module,)]
    while waiting:
        chain = waiting.pop(0)
        file = modules().get(chain[-1])
        if file is None:
            continue
        for name, line in imports_of(file):
            if top_level(name) != "pyswarm":
                yield chain, name, line
            elif name not in seen:
                seen.add(name)
                waiting.append((*chain, name))


def _running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for otherwise in node.orelse:
                yield otherwise
                yield from _running_nodes(otherwise)
        else:
            yield from _running_nodes(node)


def _is_generated(module: str) -> bool:
    return module.endswith(("_pb2", "_pb2_grpc"))


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` for a name or attribute chain, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield (dotted name as written, call) for each call in a file."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            yield name, node
