"""Who may import whom, read from the sources, and the size of the entry points. Nothing of the project is imported.

Each rule is a function from a repository's root to its violations, so that it is also shown a tree that breaks it.
"""

import ast
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("alif_jax", "data_gen")
NO_JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "alif_jax"}
NO_TORCH = {"torch", "tensorflow", "transformers", "peft"}
SHARED_BY_ENTRY_POINTS = {"__init__.py", "app.py", "children.py", "columns.py", "evaluation.py", "processes.py"}


def modules(root: Path, package: str) -> dict[str, ast.Module]:
    """Dotted name -> syntax tree of a package's modules; empty where there is no package."""
    found = {}
    for file in sorted((root / package).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(file.read_text(encoding="utf-8"), str(file))
    return found


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: all but those inside of functions."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            yield from at_import(node)


def imported(nodes: Iterator[ast.AST], name: str, is_package: bool) -> Iterator[str]:
    """Dotted names which a module imports; `from a import b` gives both a and a.b, as b may be a module."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + is_package] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def forbidden(root: Path, package: str, names: set[str], lazily_allowed: bool) -> list[str]:
    found = []
    for name, tree in modules(root, package).items():
        nodes = at_import(tree) if lazily_allowed else ast.walk(tree)
        tops = {source.split(".")[0] for source in imported(nodes, name, False)}
        found += [f"{name} imports {top}" for top in sorted(tops & names)]
    return found


def forbidden_imports(root: Path) -> list[str]:
    return [
        *forbidden(root, "data_gen", NO_JAX, lazily_allowed=False),
        *forbidden(root, "alif_jax", {"data_gen"}, lazily_allowed=False),
        *forbidden(root, "alif_jax", NO_TORCH, lazily_allowed=True),
    ]


def cycles(root: Path) -> list[str]:
    """Import cycles, with imports inside of functions counted: they hide a cycle and do not undo it."""
    found = []
    for package in PACKAGES:
        trees = modules(root, package)
        inits = {".".join(p.relative_to(root).parts[:-1]) for p in (root / package).rglob("__init__.py")}
        graph = {
            name: sorted((set(imported(ast.walk(tree), name, name in inits)) & trees.keys()) - {name})
            for name, tree in trees.items()
        }
        done: set[str] = set()
        for name in graph:
            found += list(_cycles_from(name, graph, [], done))
    return found


def _cycles_from(name: str, graph: dict[str, list[str]], path: list[str], done: set[str]) -> Iterator[str]:
    if name in path:
        yield " -> ".join([*path[path.index(name) :], name])
    elif name not in done:
        for other in graph[name]:
            yield from _cycles_from(other, graph, [*path, name], done)
        done.add(name)


def entry_points(root: Path) -> list[str]:
    """At most 60 lines (the quickstart apart), and importing one runs nothing."""
    found = []
    for file in sorted((root / "launch").glob("*.py")):
        lines = file.read_text(encoding="utf-8").splitlines()
        if file.name in SHARED_BY_ENTRY_POINTS:
            continue
        if len(lines) > 60 and file.name != "quickstart.py":
            found.append(f"{file.name} has {len(lines)} lines")
        if 'if __name__ == "__main__":' not in lines:
            found.append(f"{file.name} runs when it is imported")
    return found


@pytest.mark.parametrize("rule", [forbidden_imports, cycles, entry_points])
def test_the_project_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    assert rule(ROOT) == []


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_forbidden_imports_are_found(tmp_path: Path) -> None:
    files = {
        "data_gen/a.py": "def f():\n    from alif_jax import model\n",
        "data_gen/b.py": "import jax.numpy as jnp\n",
        "alif_jax/a.py": "import data_gen.record\n",
        "alif_jax/b.py": "if True:\n    from transformers import x\n",
        "alif_jax/c.py": "def f():\n    import torch\n",
    }
    assert forbidden_imports(write(tmp_path, files)) == [
        "data_gen.a imports alif_jax",
        "data_gen.b imports jax",
        "alif_jax.a imports data_gen",
        "alif_jax.b imports transformers",
    ]


def test_cycles_are_found(tmp_path: Path) -> None:
    files = {
        "alif_jax/__init__.py": "",
        "alif_jax/a.py": "from alif_jax import b, UsageError\n",
        "alif_jax/b.py": "from .sub import c\n",
        "alif_jax/sub/__init__.py": "",
        "alif_jax/sub/c.py": "def f():\n    from ..a import g\n",
        "data_gen/__init__.py": "from . import a\n",
        "data_gen/a.py": "from data_gen import b\n",
        "data_gen/b.py": "import json\n",
    }
    assert cycles(write(tmp_path, files)) == [
        "alif_jax.a -> alif_jax.b -> alif_jax.sub.c -> alif_jax.a",
        "data_gen -> data_gen.a -> data_gen",
    ]


def test_long_and_running_entry_points_are_found(tmp_path: Path) -> None:
    guard = 'if __name__ == "__main__":\n    main()\n'
    files = {
        "launch/app.py": "x = 1\n" * 99,
        "launch/bad.py": "main()\n",
        "launch/good.py": "x = 1\n" * 58 + guard,
        "launch/long.py": "x = 1\n" * 59 + guard,
        "launch/quickstart.py": "x = 1\n" * 99 + guard,
    }
    assert entry_points(write(tmp_path, files)) == ["bad.py runs when it is imported", "long.py has 61 lines"]


def test_an_empty_tree_breaks_no_rule(tmp_path: Path) -> None:
    assert forbidden_imports(tmp_path) == cycles(tmp_path) == entry_points(tmp_path) == []


def test_the_network_is_closed_and_loopback_open() -> None:
    with socket.socket() as raw:
        for connect in (raw.connect, raw.connect_ex):
            with pytest.raises(RuntimeError, match="without network"):
                connect(("192.0.2.1", 80))
    with pytest.raises(RuntimeError, match="without network"):
        socket.create_connection(("example.org", 80), timeout=1)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=1):
        pass
