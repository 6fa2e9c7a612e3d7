"""A study at toy size: its grid, its tables, launches that share it, launches that are killed."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launching import ROOT, Launch, environment

SOURCES = ("phantom/ageing/flair/tissue", "phantom/ageing/t1/tissue")
METHODS = ("scratch", "weighted_other")
"""The map of another source needs what the group knows of all of them."""
TARGET = "phantom/clinic/flair/WMH"
CELLS = 2 * (1 + 2 * 2)
"""Subsets × (scratch, and pre-trainings × sources × methods)."""


def arguments(demo: Path, workdir: Path, *more: str) -> list[str]:
    return [
        "--config=configs/demo.py:tiny",
        "--config.stages=('study',)",
        f"--config.sources={SOURCES}",
        "--config.study.subsets=(0,1)",
        f"--config.study.methods={METHODS}",
        "--config.study.shots=(2,)",
        "--config.select.metrics=('leep','h_score')",
        f"--config.data.cache={demo / 'store'}",  # the collection is there already
        f"--workdir={workdir}",
        *more,
    ]


def start(demo: Path, workdir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "jaxfer.launch", *arguments(demo, workdir)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def table(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def done(workdir: Path) -> list[Path]:
    return list(workdir.glob("cells/*/done.json"))


@pytest.fixture(scope="module")
def studied(launch: Launch, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a study that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("studies") / "studied"
    told = launch(*arguments(demo, workdir))
    assert told.returncode == 0, told.stderr[-3000:]
    assert f"{CELLS} of {CELLS} cells done" in told.stdout
    return workdir


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        with process:
            process.kill()


def test_the_grid_is_whole_and_paired(studied: Path) -> None:
    rows = table(studied / "results.csv")
    cells = {(r["subset"], r["source"], r["pretraining"], r["method"], r["seed"]) for r in rows}
    assert len(cells) == CELLS
    started = {
        (subset, source, pretraining, method, f"{1000 * int(subset)}")
        for subset in "01"
        for source in SOURCES
        for pretraining in "01"
        for method in METHODS[1:]
    }
    assert cells == started | {(s, "", "", "scratch", f"{1000 * int(s)}") for s in "01"}
    subjects = {cell: [] for cell in cells}
    for r in rows:
        key = (r["subset"], r["source"], r["pretraining"], r["method"], r["seed"])
        subjects[key].append(r["subject"])
    assert len({tuple(s) for s in subjects.values()}) == 1
    for r in rows:
        assert (r["map_spread"] != "") == r["method"].startswith("weighted")
        assert r["map_spread"] == "" or float(r["map_spread"]) > 0
    assert len(rows) == 2 * CELLS
    trained = {
        subset: json.loads(
            next(
                studied.glob(f"groups/*subset{subset}-pretraining0/prepare/splits.json")
            ).read_text()
        )["target"]["train"]
        for subset in (0, 1)
    }
    assert trained[0] != trained[1]


def test_pretrainings_are_other_networks_of_the_same_subjects(studied: Path) -> None:
    cards = [json.loads(f.read_text()) for f in studied.glob("shelf/*/card.json")]
    # Both subsets, of one target, share them.
    assert len(cards) == 2 * 2
    for source in SOURCES:
        one, two = (c for c in cards if c["task"]["name"] == source)
        assert one["seed"] != two["seed"]
        assert one["train_subjects"] == two["train_subjects"]
    rows = table(studied / "results.csv")
    for row in rows:
        twin = {**row, "pretraining": "1"}
        if row["pretraining"] == "0" and row["method"] != "scratch":
            keys = ("subset", "source", "pretraining", "method", "subject")
            (other,) = (r for r in rows if all(r[k] == twin[k] for k in keys))
            assert other["hd95"] != row["hd95"] or other["dice"] != row["dice"]


def test_every_source_has_its_scores_and_baselines(studied: Path) -> None:
    rows = table(studied / "scores.csv")
    names = {"leep", "h_score@decoder_0", "validation_dice", "source_subjects", "same_modality"}
    names |= {"leep_balanced", "h_score@decoder_0_balanced", "zero_shot_dice"}
    names |= {f"roi_{k}" for k in ("ssim", "ssim_centred", "ssim_shape", "ssim_windowed", "dice")}
    names |= {"selection_seconds", "finetune_seconds", "modality_distance"}
    for subset in "01":
        for pretraining in "01":
            for source in SOURCES:
                own = {
                    r["score"]: r["value"]
                    for r in rows
                    if (r["subset"], r["pretraining"], r["source"]) == (subset, pretraining, source)
                }
                assert set(own) == names
                assert own["same_modality"] == f"{float('flair' in source)}"
                assert own["zero_shot_dice"] == ""  # tissue has other classes than WMH
                selection = next(
                    studied.glob(f"groups/*subset{subset}-pretraining{pretraining}/select")
                )
                ranked = json.loads((selection / "selection.json").read_text())["sources"]
                (record,) = (r for r in ranked if r["source"] == source)
                assert float(own["leep"]) == record["scores"]["leep"]
                assert float(own["roi_ssim"]) == record["roi_similarity"]
                assert float(own["modality_distance"]) == record["modality_distance"]


def test_a_cell_is_what_an_ordinary_run_gives(
    launch: Launch, demo: Path, studied: Path, tmp_path: Path
) -> None:
    told = launch(
        "--config=configs/demo.py:tiny",
        f"--config.sources={SOURCES}",
        f"--config.finetune.source={SOURCES[1]}",
        "--config.finetune.seeds=(1000,)",
        f"--config.finetune.methods={METHODS}",
        "--config.pretrain.seed=1",
        "--config.data.subset=1",
        "--config.data.train_subjects=2",
        f"--config.data.cache={demo / 'store'}",
        "--config.stages=('prepare','pretrain','select','finetune','evaluate')",
        f"--workdir={tmp_path}",
    )
    assert told.returncode == 0, told.stderr[-3000:]
    ordinary = table(tmp_path / "evaluate" / "metrics.csv")
    assert {r["method"] for r in ordinary} == {*METHODS}
    rows = table(studied / "results.csv")
    for row in ordinary:
        key = ("", "") if row["method"] == "scratch" else (SOURCES[1], "1")
        (same,) = (
            r
            for r in rows
            if (r["method"], r["subset"], r["subject"]) == (row["method"], "1", row["subject"])
            and (r["source"], r["pretraining"]) == key
        )
        # One class and one case per subject: nothing is averaged.
        assert float(same["dice"]) == float(row["dice"])
        assert float(same["hd95"]) == float(row["hd95"])


def test_nothing_is_done_again_and_more_cells_leave_the_others_alone(
    launch: Launch, demo: Path, studied: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "copy"
    shutil.copytree(studied, workdir, symlinks=True)
    before = {f: f.stat().st_mtime_ns for f in done(workdir)}
    # A cell that was cut off before its record.
    lost, *_ = before
    lost.unlink()
    told = launch(*arguments(demo, workdir, "--config.study.repeats=2"))
    assert told.returncode == 0, told.stderr[-3000:]
    after = {f: f.stat().st_mtime_ns for f in done(workdir)}
    assert len(after) == 2 * CELLS
    assert {f for f in before if after[f] != before[f]} == {lost}
    old, new = table(studied / "results.csv"), table(workdir / "results.csv")
    assert [r for r in new if int(r["seed"]) % 1000 == 0] == old
    assert not list(workdir.glob("cells/*/work"))


def test_a_setting_that_decides_nothing_of_a_cell_leaves_it_in_the_table(
    launch: Launch, demo: Path, studied: Path, tmp_path: Path
) -> None:
    """The map's gain decides what a weighted method learns, and nothing of what is from scratch."""
    workdir = tmp_path / "study"
    shutil.copytree(studied, workdir, symlinks=True)
    measured = {f: f.stat().st_mtime_ns for f in workdir.glob("cells/*/metrics.csv")}
    told = launch(*arguments(demo, workdir, "--config.risk.gain=0.25"))
    assert told.returncode == 0, told.stderr[-3000:]
    again = {f for f, when in measured.items() if f.stat().st_mtime_ns != when}
    assert again == {f for f in measured if "-weighted_other-" in f.parent.name}
    old, new = table(studied / "results.csv"), table(workdir / "results.csv")
    assert len(new) == len(old)
    assert [r for r in new if r["method"] == "scratch"] == [
        r for r in old if r["method"] == "scratch"
    ]


def test_launches_share_a_workdir_and_survive_kills(
    demo: Path, studied: Path, tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    workdir = tmp_path / "shared"
    processes += [start(demo, workdir) for _ in range(2)]
    killed, stopped = processes
    end = time.monotonic() + 300
    while len(done(workdir)) < 2:
        assert time.monotonic() < end
        assert killed.poll() is None, killed.communicate()[1][-3000:]
        time.sleep(0.01)
    killed.kill()
    stopped.send_signal(signal.SIGTERM)
    _, told = stopped.communicate(timeout=120)
    assert stopped.returncode == 75, told[-3000:]
    killed.communicate()
    cells = len(done(workdir))
    assert 0 < cells < CELLS
    partial, whole = table(workdir / "results.csv"), table(studied / "results.csv")
    assert len(partial) in (2 * cells, 2 * cells - 2)
    assert all(row in whole for row in partial)
    again = [start(demo, workdir) for _ in range(2)]
    processes += again
    said = [process.communicate(timeout=300) for process in again]
    assert [process.returncode for process in again] == [0, 0], said
    assert (workdir / "results.csv").read_bytes() == (studied / "results.csv").read_bytes()
    assert len(done(workdir)) == CELLS
    for out, err in said:
        assert "Traceback" not in out + err


def test_a_grid_that_makes_no_sense_is_refused(launch: Launch, tmp_path: Path) -> None:
    told = launch(
        "--config=configs/demo.py:tiny",
        "--config.stages=('study','select')",
        "--config.study.shots=(0,)",
        "--config.study.subsets=(1,1)",
        "--config.study.methods=('magic',)",
        "--config.study.targets=('nowhere/a/t1/x','wrong')",
        "--config.study.overrides=('q/x/t1/y data.spacing=(1,1,1)','nothing','q data.seed=1')",
        "--config.data.test_subjects=0",
        f"--workdir={tmp_path / 'none'}",
    )
    assert told.returncode == 2
    for field in ("stages", "shots", "subsets", "methods", "targets", "overrides"):
        assert f"config.study.{field}" in told.stderr or f"config.{field}" in told.stderr, field
    assert "config.data.test_subjects" in told.stderr
    assert told.stderr.count("config.study.overrides") == 3
    assert "Traceback" not in told.stderr
    assert not (tmp_path / "none").exists()


def test_an_override_is_checked_as_any_field(launch: Launch, tmp_path: Path) -> None:
    told = launch(
        "--config=configs/demo.py:tiny",
        "--config.stages=('study',)",
        f"--config.study.overrides=('{TARGET} finetune.steps=0.5',)",
        f"--workdir={tmp_path / 'none'}",
    )
    assert told.returncode == 2
    assert "config.finetune.steps" in told.stderr
    assert "Traceback" not in told.stderr
