"""A run keeps the splits that it finds: news are told, what it needs and is gone ends the run."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from jaxfer.errors import UserError
from jaxfer.stages import prepare
from jaxfer.stages.run import Run

DEMO = Path(__file__).parents[2] / "configs" / "demo.py"
TARGET = "phantom/clinic/flair/WMH"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The toy demo with two folds, its stage prepare done."""
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    config = demo.get_config("tiny").unlock()
    config.data.folds, config.data.fold = 2, 1
    config.sources = ("phantom/ageing/t1/tissue", "phantom/clinic/t1/tissue")
    made = Run(config, tmp_path / "run", Console(file=io.StringIO(), width=400))
    prepare.run(made)
    return made


def test_splits_are_kept_news_are_told_and_gone_subjects_refused(run: Run) -> None:
    file = run.workdir / "prepare" / "splits.json"
    splits = json.loads(file.read_text())
    target = splits["target"]
    assert len(target["test"]) == 2
    assert len(target["subjects"]) == 4
    fresh = prepare.inputs(run)
    assert fresh is not None

    # Another order than the seeds' is kept; a case that the file does not know is told of.
    known = {k: v for k, v in target["subjects"].items() if k not in target["train"]}
    swapped = target | {"test": target["test"][::-1], "train": [], "subjects": known}
    file.write_text(json.dumps(splits | {"target": swapped}))
    assert prepare.inputs(run) != fresh
    prepare.run(run)
    said = run.console.file.getvalue()
    assert f"{TARGET}: cases appeared since the split" in said
    assert target["train"][0] in said
    assert json.loads(file.read_text())["target"] == swapped
    record = json.loads((run.workdir / "prepare" / "prepared.json").read_text())
    assert record["splits"][TARGET]["test"] == swapped["test"]

    gone = target | {"test": ["nobody"], "subjects": target["subjects"] | {"nobody": "N. N."}}
    text = json.dumps(splits | {"target": gone})
    file.write_text(text)
    assert prepare.inputs(run) is None
    with pytest.raises(UserError, match=f"subjects of {TARGET} are gone") as caught:
        prepare.run(run)
    assert caught.value.found == "N. N."
    assert file.read_text() == text

    # No source may train on a subject that the target is tested on, whoever wrote the file.
    other = "phantom/clinic/t1/tissue"
    leaked = splits[other] | {"train": target["test"], "validation": []}
    file.write_text(json.dumps(splits | {other: leaked}))
    with pytest.raises(UserError, match="that the target is tested on"):
        prepare.run(run)

    file.write_text("[]")
    with pytest.raises(UserError, match="not the splits of a run"):
        prepare.run(run)
