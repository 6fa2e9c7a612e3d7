"""The benchmarks' jobs at toy sizes: a change of the package must not leave one behind."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.launching import ROOT

NETWORK: dict[str, Any] = {"widths": [4, 8], "shape": [4, 16, 16]}
SELECTION: dict[str, Any] = {
    "widths": [4, 8],
    "shape": [16, 16, 4],
    "cases": 2,
    "patch": [16, 16],
    "batch": 2,
}
METRICS = ["leep", "nce", "h_score", "logme", "lda"]
TOY = {
    "jobs_jaxfer": {
        "product": {"side": 32},
        "train": NETWORK,
        "infer": {"widths": [4, 8], "volume": [16, 16, 4], "patch": [16, 16], "batch": 2},
        "score": {"metrics": METRICS, "size": 3000},
        "neighbours": {"size": 200, "k": 3},
        "transport": {"size": 100},
        "select": SELECTION,
        "bare forward": SELECTION,
        "statistics": SELECTION,
        "import": {"module": "jaxfer.errors"},
        "compile": NETWORK | {"again": True},
        "profile": NETWORK | {"conv_impl": "shifted"},
    },
    "jobs_numpy": {"score": {"metrics": METRICS, "size": 3000}},
    "jobs_files": {
        "store": {"shape": [16, 16, 8], "cases": 1},
        "gunzip": {"shape": [16, 16, 8], "cases": 1},
    },
}


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        names = ("parts", "jobs_jaxfer", "jobs_numpy", "jobs_files")
        found = {name: importlib.import_module(name) for name in names}
        scratch = tmp_path_factory.mktemp("scratch")
        for name in names[1:]:
            # Devices are the suite's.
            patch.setattr(found[name], "_scratch", Path(scratch), raising=False)
        yield found


def test_every_line_asks_for_a_job_that_there_is(benchmarks: dict[str, ModuleType]) -> None:
    seen = set()
    for quick in (True, False):
        for part in benchmarks["parts"].parts(quick).values():
            for pair in part.pairs:
                for job in (pair.ours, pair.peer):
                    if job is not None and job.module in benchmarks:
                        kind = benchmarks[job.module].JOBS[job.kind]
                        inspect.signature(kind).bind(**job.arguments)
                        seen.add((job.module, job.kind))
    # The product is the machine's, which every line is set beside.
    expected = {(module, kind) for module, own in TOY.items() for kind in own}
    assert seen == expected - {("jobs_jaxfer", "product")}
    assert {m: set(benchmarks[m].JOBS) for m in TOY} == {m: set(own) for m, own in TOY.items()}


@pytest.mark.parametrize(("module", "kind"), [(m, k) for m, own in TOY.items() for k in own])
def test_a_job_runs(benchmarks: dict[str, ModuleType], module: str, kind: str) -> None:
    job = benchmarks[module].JOBS[kind](**TOY[module][kind])
    told = job() or {}
    for numbers in (told.get("scores", []), told.get("seconds", {}).values()):
        assert np.isfinite(list(numbers)).all()


def test_both_sides_of_a_metric_score_the_same_voxels(benchmarks: dict[str, ModuleType]) -> None:
    asked = TOY["jobs_numpy"]["score"]
    ours, theirs = (benchmarks[m].JOBS["score"](**asked)() for m in ("jobs_jaxfer", "jobs_numpy"))
    np.testing.assert_allclose(ours["scores"], theirs["scores"], rtol=1e-6)
