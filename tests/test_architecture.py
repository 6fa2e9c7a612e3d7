"""Who may import whom: one direction, no way back."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "jaxfer"

# Each part, and what of jaxfer it may import beside itself. A part is a folder or a file.
ALLOWED = {
    "errors": "",
    "files": "",
    "hosts": "errors",
    "memory": "",
    "metrics": "",
    "models": "errors files",
    "report": "errors files",
    "tasks": "errors",
    "config": "errors tasks metrics.registry models.layers models.levels data.planes train.methods",
    "evaluation": "errors tasks metrics",
    "data": "errors files tasks",
    "train": "errors files hosts tasks metrics data models",
    "selection": "errors files tasks metrics data models train.predict",
    "study": "errors tasks config metrics evaluation train.methods",
    "stages": "errors files hosts tasks config metrics data models train selection evaluation "
    "report study __init__",
    "launch": "errors hosts memory config stages",
    "__init__": "",
}


def modules() -> dict[str, Path]:
    """Every module of the package, by its name behind ``jaxfer.``."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__" and len(parts) > 1
        found[".".join(parts[:-1] if is_package else parts)] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """The modules of jaxfer that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [node.module or ""]
            # ``from jaxfer.data import store`` imports a module, not a value.
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [n for n in inner if n.removeprefix("jaxfer.") in MODULES] or names
        else:
            continue
        for name in names:
            if name == "jaxfer":
                yield "__init__"
            elif name.startswith("jaxfer."):
                yield name.removeprefix("jaxfer.")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_one_way(name: str) -> None:
    part = name.split(".")[0]
    allowed = [part, *ALLOWED[part].split()]
    for other in imported(MODULES[name]):
        fine = any(other == a or other.startswith(f"{a}.") for a in allowed)
        assert fine, f"jaxfer.{name} imports jaxfer.{other}; allowed: {', '.join(allowed)}"


def test_the_table_has_every_part_and_no_way_back() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(ALLOWED)
    needs = {part: {a.split(".")[0] for a in text.split()} for part, text in ALLOWED.items()}
    while needs:
        free = {part for part, others in needs.items() if not others & needs.keys()}
        assert free, f"a circle: {sorted(needs)}"
        needs = {part: others for part, others in needs.items() if part not in free}


def test_the_reader_of_imports_finds_them(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        "import jaxfer.data.store as s\nfrom jaxfer import tasks\nfrom jaxfer.data import store\n"
        "def f():\n    from jaxfer.stages.run import Run\n    import os, jaxfer.launch\n"
        "from jaxfer.metrics import METRICS\nfrom jaxfer import __version__\n"
    )
    assert sorted(imported(path)) == [
        "__init__",
        "data.store",
        "data.store",
        "launch",
        "metrics",
        "stages.run",
        "tasks",
    ]
