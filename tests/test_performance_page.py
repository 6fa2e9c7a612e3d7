"""The pages of speed: what was measured stands there, as their generators write it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.launching import ROOT


@pytest.fixture(scope="module")
def maker() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        patch.syspath_prepend(ROOT / "docs")
        yield importlib.import_module("make_performance")


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results.json").read_text())


def test_the_pages_are_those_of_the_results(maker: ModuleType, results: dict[str, Any]) -> None:
    makers = {"docs/performance.md": maker.page, "benchmarks/results.md": maker.render.page}
    for name, page in makers.items():
        assert (ROOT / name).read_text() == page(results), "run python docs/make_performance.py"


def line(name: str, ours: list[float], bar: float | None) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": [1.0, 1.0, 1.0], "bar": bar, "peak": [1, 1]}


def test_a_missed_bar_is_marked(maker: ModuleType) -> None:
    lines = [
        line("over", [1.201, 1.201, 0.9], 1.2),
        line("under", [1.2, 1.1, 9.0], 1.2),
        line("none", [9.0, 9.0, 9.0], None),
    ]
    rows = dict(row.split(" | ", 1) for row in maker.render.table("theirs", lines).splitlines())
    assert " 1.2, missed |" in rows["| over"]
    assert " 1.2 |" in rows["| under"]
    assert "missed" not in rows["| none"]


def test_parts_without_a_line_are_named(maker: ModuleType, results: dict[str, Any]) -> None:
    some = results | {"parts": {"networks": results["parts"]["networks"]}}
    text = maker.render.sections(some)
    assert text.count("\n## ") == 1
    (told,) = [told for told in text.splitlines() if told.startswith("Parts that were not")]
    titles = {part.title for part in maker.render.parts(False).values()}
    assert {title for title in titles if title in told} == titles - {"Beside PyTorch and MONAI"}
