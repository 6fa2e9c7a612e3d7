"""Paths as a run finds them, and networks trained along them."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from configs.demo import get_config
from jaxfer.config import validate
from jaxfer.errors import Interrupted, UserError
from jaxfer.models.zoo import Source, load_source
from jaxfer.stages import evaluate, pretrain, select
from jaxfer.stages.along import end_of_path, train_along
from jaxfer.stages.finetune import chosen_path, chosen_source, starting_source
from jaxfer.stages.interrupt import Interruption
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.risk import make_risk_maps
from jaxfer.stages.run import Run
from jaxfer.tasks import Task
from tests.launching import Launch

SOURCES = get_config("tiny").sources


@pytest.fixture
def again(demo: Path, tmp_path: Path) -> Callable[..., Run]:
    """The finished toy run with other settings; the original stays as it is."""
    workdir = tmp_path / "copy"
    left = ("store", "finetune", "evaluate", "risk")
    shutil.copytree(demo, workdir, ignore=shutil.ignore_patterns(*left))
    (workdir / "store").symlink_to(demo / "store")

    def run(*path: str, **changes: object) -> Run:
        config = get_config("tiny")
        config.finetune.path = path
        config.finetune.methods = ("plain",)
        config.select.metrics = ("leep",)
        config.select.update(changes)
        validate(config)
        return Run(config, workdir, Console(quiet=True), Interruption())

    return run


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training leaves the parameters as they are."""
    monkeypatch.setattr(pretrain, "train", lambda _run, _settings, params, *_, **__: params)


def tasks(*names: str) -> tuple[Task, ...]:
    return tuple(map(Task.parse, names))


def test_the_cheapest_paths_stand_in_a_file(again: Callable[..., Run]) -> None:
    run = again(paths=True, path_alpha=2.0, path_beta=0.5, path_cost="largest")
    select.run(run)
    file = run.workdir / "select" / "paths.json"
    record = json.loads(file.read_text())
    assert [record[key] for key in ("target", "alpha", "beta", "cost")] == [
        run.config.target,
        2.0,
        0.5,
        "largest",
    ]
    distances = {frozenset(own["between"]): own for own in record["distances"]}
    nodes = (*SOURCES, run.config.target)
    assert set(distances) == {frozenset(pair) for pair in itertools.combinations(nodes, 2)}
    for own in distances.values():
        parts = 2.0 * own["image_distance"] + 0.5 * (1 - own["label_similarity"])
        assert own["distance"] == pytest.approx(parts, rel=1e-5)
    # The images' distance of a source from the target is the one that the ranking shows.
    rows = json.loads((run.workdir / "select" / "selection.json").read_text())["sources"]
    for row in rows:
        own = distances[frozenset((row["source"], run.config.target))]
        assert own["image_distance"] == pytest.approx(row["modality_distance"], rel=1e-5)
        assert own["label_similarity"] == pytest.approx(row["roi_similarity"], rel=1e-4)
    for row in record["paths"]:
        others = [name for name in SOURCES if name != row["source"]]
        costs = {}
        for number in (0, 1, 2):
            for through in itertools.permutations(others, number):
                walk = (row["source"], *through, run.config.target)
                legs = [distances[frozenset(leg)]["distance"] for leg in itertools.pairwise(walk)]
                costs[walk[:-1]] = max(legs)
        assert row["cost"] == pytest.approx(min(costs.values()))
        assert costs[tuple(row["path"])] == row["cost"]
        assert row["direct_cost"] == row["direct"] == costs[(row["source"],)]
    select.run(again())
    assert not file.exists()


def test_a_source_without_data_starts_paths_and_is_not_on_them(again: Callable[..., Run]) -> None:
    run = again(paths=True)
    record = run.workdir / "prepare" / "prepared.json"
    prepared = json.loads(record.read_text())
    prepared["unavailable"][SOURCES[0]] = "its data are not there"
    record.write_text(json.dumps(prepared))
    select.run(run)
    found = json.loads((run.workdir / "select" / "paths.json").read_text())
    assert found["without_data"] == {SOURCES[0]: "its data are not there"}
    by_start = {row["source"]: row["path"] for row in found["paths"]}
    assert by_start[SOURCES[0]][0] == SOURCES[0]
    assert all(SOURCES[0] not in path[1:] for path in by_start.values())
    with pytest.raises(UserError, match="nothing can be trained on") as told:
        train_along(run, Prepared.read(run), tasks(SOURCES[1], SOURCES[0]))
    assert "its data are not there" in str(told.value)


@pytest.mark.usefixtures("untrained")
def test_each_network_starts_from_the_one_before(again: Callable[..., Run]) -> None:
    run = again()
    prepared, path = Prepared.read(run), tasks(*SOURCES)
    first = load_source(run.shelf / path[0].slug)
    cards = {file: file.read_bytes() for file in run.shelf.glob("*/card.json")}
    found = train_along(run, prepared, path)
    # Nothing was trained, and all that fits was carried to the end.
    assert found.card["class_names"] == first.card["class_names"]
    assert jax.tree.all(jax.tree.map(np.array_equal, found.params, first.params))
    assert tuple(found.card["path"]) == SOURCES
    assert found.card["task"]["name"] == SOURCES[-1]
    assert found.card["leaves"]["remade"] == []
    assert set(found.card["train_subjects"]) >= set(first.card["train_subjects"])
    folder = end_of_path(run, prepared, path)
    assert folder.relative_to(run.shelf).parts[:3] == ("along", path[0].slug, path[1].slug)
    assert folder.name == f"{path[2].slug}-{found.card['fingerprint']}"
    # The ordinary networks stay what they are.
    assert {file: file.read_bytes() for file in run.shelf.glob("*/card.json")} == cards


@pytest.mark.usefixtures("untrained")
def test_what_is_on_the_shelf_is_not_trained_again(
    again: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = again()
    prepared, path = Prepared.read(run), tasks(*SOURCES)
    train_along(run, prepared, path[:2])
    trained: list[str] = []
    real = pretrain.train

    def counted(run: Run, *rest: object, **named: object) -> object:
        trained.append(named["folder"].name)
        return real(run, *rest, **named)

    monkeypatch.setattr(pretrain, "train", counted)
    train_along(run, prepared, path[:2])
    assert trained == []
    # The end is new, what leads there is not.
    train_along(run, prepared, path)
    assert len(trained) == 1
    assert trained[0].startswith(path[2].slug)
    train_along(run, prepared, (path[1], path[2]))
    assert len(trained) == 2


def test_the_mark_tells_the_way(again: Callable[..., Run]) -> None:
    run = again()
    prepared, (a, b, c) = Prepared.read(run), tasks(*SOURCES)
    ways = [(a, b), (c, b), (a, c, b), (c, a, b)]
    marks = [end_of_path(run, prepared, way).name.rpartition("-")[2] for way in ways]
    assert len(set(marks)) == len(ways)
    card = run.shelf / a.slug / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"fingerprint": "another"}))
    assert end_of_path(run, prepared, (a, b)).name.rpartition("-")[2] != marks[0]
    assert end_of_path(run, prepared, (c, b)).name.rpartition("-")[2] == marks[1]
    run.config.pretrain.learning_rate /= 2
    assert end_of_path(run, prepared, (c, b)).name.rpartition("-")[2] != marks[1]


def test_best_is_the_path_of_the_file(again: Callable[..., Run]) -> None:
    run = again("best", paths=True)
    select.run(run)
    file = run.workdir / "select" / "paths.json"
    record, start = json.loads(file.read_text()), chosen_source(run)
    by_start = {row["source"]: row for row in record["paths"]}
    assert chosen_path(run) == tasks(*by_start[start.name]["path"])
    by_start[start.name]["path"] = [start.name, *(n for n in SOURCES if n != start.name)]
    file.write_text(json.dumps(record))
    assert len(chosen_path(run)) == 3
    by_start[start.name]["path"] = [start.name, "another/run/t1/source"]
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match="none of this run's sources"):
        chosen_path(run)
    by_start[start.name]["path"] = []
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"no path leads from {start.name}"):
        chosen_path(run)


def test_without_a_path_the_source_is_the_shelfs(again: Callable[..., Run]) -> None:
    run = again()
    assert chosen_path(run) == (chosen_source(run),)
    prepared = Prepared.read(run)
    assert end_of_path(run, prepared, chosen_path(run)) == run.shelf / chosen_source(run).slug
    started = starting_source(run, prepared)
    assert started.card["task"]["name"] == chosen_source(run).name
    assert "path" not in started.card


def test_an_interrupted_leg_goes_on_where_it_stopped(again: Callable[..., Run]) -> None:
    run = again()
    prepared, path = Prepared.read(run), tasks(*SOURCES[:2])
    whole = train_along(run, prepared, path)
    folder = end_of_path(run, prepared, path)
    shutil.rmtree(folder)
    looked = iter(range(100))
    stopping = Interruption()
    stopping.reason = lambda: "told to" if next(looked) >= 2 else ""
    stopped = Run(run.config, run.workdir, run.console, stopping)
    with pytest.raises(Interrupted, match="told to"):
        train_along(stopped, prepared, path)
    assert not (folder / "card.json").exists()
    assert list((folder / "steps").iterdir())
    resumed = train_along(run, prepared, path)
    assert jax.tree.all(jax.tree.map(np.array_equal, resumed.params, whole.params))
    assert not (folder / "steps").exists()


def test_a_launch_along_a_path(
    launch: Launch, again: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = again(SOURCES[1], SOURCES[0])
    command = (
        "--config=configs/demo.py:tiny",
        f"--workdir={run.workdir}",
        f"--config.finetune.path=('{SOURCES[1]}','{SOURCES[0]}')",
        "--config.finetune.methods=('scratch','weighted')",
    )
    done = launch(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"source {SOURCES[1]} → {SOURCES[0]}; scratch, weighted" in done.stdout
    summary = json.loads((run.workdir / "finetune" / "summary.json").read_text())
    assert summary["path"] == [SOURCES[1], SOURCES[0]]
    assert summary["source"] == SOURCES[0]
    assert summary["methods"]["weighted"]["initial"] == (
        f"{SOURCES[1]} → {SOURCES[0]}, 0.5 of it random"
    )
    along, ordinary = (
        starting_source(run, Prepared.read(run)),
        load_source(run.shelf / Task.parse(SOURCES[0]).slug),
    )
    assert along.card["path"] == [SOURCES[1], SOURCES[0]]
    gaps = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), along.params, ordinary.params)
    assert all(gap > 0 and math.isfinite(gap) for gap in jax.tree.leaves(gaps))
    # The risk maps are of the network at the end, those to train with and those to look at.
    prepared, other = Prepared.read(run), Run(run.config, tmp_path / "other", run.console)
    other.workdir.mkdir()
    cases = prepared.cases(Task.parse(run.config.target), "train")
    leep = [
        make_risk_maps(other, prepared, source, cases, on_case=lambda _: None)["leep"]
        for source in (along, ordinary)
    ]
    assert summary["risk"]["leep"] == pytest.approx(leep[0], rel=1e-6)
    assert leep[0] != pytest.approx(leep[1], rel=1e-6)
    shown: list[list[str] | None] = []
    real = evaluate.source_log_probs

    def looked_at(run: Run, source: Source, image: np.ndarray) -> np.ndarray:
        shown.append(source.card.get("path"))
        return real(run, source, image)

    monkeypatch.setattr(evaluate, "source_log_probs", looked_at)
    run.config.finetune.methods = ("scratch", "weighted")
    evaluate.run(run)
    assert shown
    assert all(path == [SOURCES[1], SOURCES[0]] for path in shown)
    page = (run.workdir / "report.html").read_text()
    assert f"trained along a path, {SOURCES[1]} → {SOURCES[0]}" in page
