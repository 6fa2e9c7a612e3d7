"""What is read from a run's folder, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from jaxfer.errors import UserError
from jaxfer.report.files import read_run
from jaxfer.report.page import write_report
from jaxfer.report.tables import cost_words


def test_a_finished_run_is_read_whole(finished: Path) -> None:
    run = read_run(finished)
    assert run.name == "demo"
    assert run.synthetic
    assert run.split is not None
    assert list(run.split) == ["train", "validation", "test"]
    assert run.split["test"] == ("p1", "p2", "p3", "p4", "p5", "p6")
    assert run.problems is not None
    assert run.problems[0].found == "1.2 mm"
    assert run.ranking is not None
    assert run.ranking.metrics[0].name == run.ranking.rank_by == "leep"
    assert math.isnan(run.ranking.sources[2].scores["leep"])
    assert run.finetuning is not None
    assert run.finetuning.risk["mode"] == "instance"
    assert set(run.risk_maps) == {"t0", "t1"}
    assert set(run.risk_maps["t0"]) == {"instance", "positional"}
    assert {methods: set(files) for methods, files in run.weights.items()} == {
        "weighted": {"t0", "t1"}
    }
    assert [curve.name for curve in run.source_curves] == [
        "phantom/ageing/flair/csf",
        "phantom/ageing/flair/tissue",
        "phantom/ageing/flair/wmh",
    ]
    assert {method: len(curves) for method, curves in run.curves.items()} == {
        "scratch": 2,
        "plain": 2,
        "weighted": 2,
    }
    assert run.evaluation is not None
    assert len(run.evaluation.scores) == 3 * 2 * 6
    missed = next(score for score in run.evaluation.scores if score.outcome == "missed")
    assert math.isinf(missed.hd95)
    assert [summary.method for summary in run.evaluation.methods] == [
        "scratch",
        "plain",
        "weighted",
    ]
    assert run.evaluation.labels[0].reference == (4, 5)
    assert run.evaluation.cases[2].harm == {"plain": (102.0, 2000.5), "weighted": (102.0, 2000.5)}
    assert "p5" not in run.evaluation.gains[0].per_subject
    assert run.evaluation.notes["empty_mask_policy"].startswith("both empty")


def test_a_line_without_a_loss_is_no_point_of_the_curve(finished: Path) -> None:
    curve = read_run(finished).curves["plain"][0]
    assert len(curve.steps) == len(curve.losses) == 75
    assert curve.steps[-1] == 148


def test_what_has_not_run_is_none(fake_run) -> None:
    run = read_run(fake_run.started().prepared().selected().workdir)
    assert run.ranking is not None
    assert run.finetuning is None
    assert run.evaluation is None
    assert run.curves == {}
    assert run.risk_maps == {}
    assert run.weights == {}


def test_an_evaluation_without_its_summary_has_not_ended(fake_run) -> None:
    run = fake_run.all()
    (run.workdir / "evaluate/summary.json").unlink()
    assert read_run(run.workdir).evaluation is None


@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "run.json",
        "prepare/splits.json",
        "verify/verify.json",
        "select/selection.json",
        "sources/phantom-ageing-flair-csf/metrics.jsonl",
        "sources/phantom-ageing-flair-csf/card.json",
        "finetune/plain/seed1/metrics.jsonl",
        "finetune/summary.json",
        "evaluate/metrics.csv",
        "evaluate/summary.json",
        "evaluate/cases.json",
        "evaluate/labels.json",
    ],
)
@pytest.mark.parametrize("content", [b"{ not a rec\xff", b'[{"strange": 1}]', b"7"])
def test_a_broken_file_is_named(finished: Path, tmp_path: Path, file: str, content: bytes) -> None:
    workdir = shutil.copytree(finished, tmp_path / "run")
    (workdir / file).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_run(workdir)
    assert file in str(caught.value)
    assert caught.value.mend


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("evaluate/summary.json", {"gain": {"weighted over plain": {"mean": 0.1}}}),
        ("evaluate/summary.json", {"methods": {}}),
        ("select/selection.json", {"sources": [{"source": "a/b/c/d"}]}),
    ],
)
def test_a_record_that_lacks_its_parts_is_named(fake_run, file: str, change: dict) -> None:
    run = fake_run.all()
    record = json.loads((run.workdir / file).read_text())
    (run.workdir / file).write_text(json.dumps({**record, **change}))
    with pytest.raises(UserError, match=file):
        read_run(run.workdir)


def test_a_table_without_rows_is_no_evaluation(fake_run) -> None:
    run = fake_run.all()
    table = run.workdir / "evaluate/metrics.csv"
    table.write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="holds no score"):
        read_run(run.workdir)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a run"):
        read_run(tmp_path)


def test_what_choosing_cost_stands_beside_fine_tuning_from_all(fake_run) -> None:
    run = fake_run.all()
    assert read_run(run.workdir).cost is None
    of_select = {name: {"forward": 1.0, "statistics": 0.5, "samples": 0.0} for name in ("a", "b")}
    (run.workdir / "select/seconds.json").write_text(json.dumps(of_select))
    assert read_run(run.workdir).cost is None
    for seed, seconds in ((0, 0.02), (1, 0.04)):
        path = run.workdir / f"finetune/plain/seed{seed}/seconds.json"
        path.write_text(json.dumps({"per_step": seconds}))
    path = run.workdir / "finetune/weighted/seed0/seconds.json"
    path.write_text(json.dumps({"per_step": None}))
    cost = read_run(run.workdir).cost
    assert cost.one_finetuning == pytest.approx(0.03 * 150)
    scored = [s for s in read_run(run.workdir).ranking.sources if s.scores]
    assert cost.sources == len([s for s in scored if not all(map(math.isnan, s.scores.values()))])
    assert cost.share == pytest.approx(3.0 / (cost.sources * 4.5))
    assert f"took 3.0 s; fine-tuning from each would take about {cost.sources} × 4.5 s" in (
        cost_words(cost)
    )
    write_report(run.workdir)
    assert cost_words(cost) in (run.workdir / "report.html").read_text()


def test_the_images_distance_is_read_and_shown(fake_run) -> None:
    run = fake_run.all()
    write_report(run.workdir)
    assert "standardised histograms" not in (run.workdir / "report.html").read_text()
    path = run.workdir / "select/selection.json"
    record = json.loads(path.read_text())
    record["modality"] = "soft"
    record["sources"][0] |= {
        "modality_distance": 0.2345,
        "modality_distance_interval": [0.1, 0.3],
    }
    path.write_text(json.dumps(record))
    assert read_run(run.workdir).ranking.sources[0].modality_distance == 0.2345
    write_report(run.workdir)
    page = (run.workdir / "report.html").read_text()
    assert "standardised histograms" in page
    assert "0.100 to 0.300" in page
    assert "by modality, then" not in page


@pytest.mark.parametrize("folder", [["risk/configured"], 7, {"a": 1}, "../elsewhere", ""])
def test_a_folder_of_weights_that_is_none_is_no_picture(fake_run, folder) -> None:
    workdir = fake_run.all().workdir
    file = workdir / "finetune/summary.json"
    record = json.loads(file.read_text())
    record["methods"]["weighted"]["weights"] = folder
    file.write_text(json.dumps(record))
    assert read_run(workdir).weights == {}
