"""The verdict says no more than the numbers allow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxfer.report.files import read_run
from jaxfer.report.verdict import tiles, verdict


def words(workdir: Path) -> str:
    return " ".join(verdict(read_run(workdir)))


def with_gain(workdir: Path, pair: str, **changes: Any) -> Path:
    """The run with one gain of its evaluation's summary changed."""
    file = workdir / "evaluate/summary.json"
    record = json.loads(file.read_text())
    record["gain"][pair].update(changes)
    file.write_text(json.dumps(record))
    return workdir


def test_a_finished_run_is_judged(finished: Path) -> None:
    text = words(finished)
    assert text.startswith("By LEEP the best source is phantom/ageing/flair/tissue.")
    assert "the next, phantom/ageing/flair/wmh, −0.03110. 3 of 5 sources" in text
    assert "6 test subjects (1 of them without a defined Dice)" in text
    assert "0.454 from scratch, 0.596 after plain fine-tuning and 0.644 after" in text
    assert "Risk-weighted fine-tuning is 4.8 Dice points above plain fine-tuning" in text
    assert "The order weighted > plain > scratch holds, each interval clear of 0." in text
    assert "plain fine-tuning in 1 of 5 patients (worst: p3, −1.0 points)" in text
    assert "risk-weighted fine-tuning in none of 5 patients" in text
    assert "6 test subjects and 2 seeds are few" in text


def test_an_interval_that_contains_zero_tells_nothing(fake_run) -> None:
    text = words(with_gain(fake_run.all().workdir, "weighted - plain", interval=[-0.01, 0.08]))
    assert (
        "Whether risk-weighted fine-tuning beats plain fine-tuning cannot be told: +4.8 Dice "
        "points in the mean, but the 95 % interval over subjects (−1.0 to +8.0) contains 0." in text
    )
    assert "holds in the means, but not every step" in text
    assert "4.8 Dice points above" not in text


def test_a_loss_is_called_a_loss(fake_run) -> None:
    gains = {"mean": -0.03, "interval": [-0.05, -0.01]}
    text = words(with_gain(fake_run.all().workdir, "weighted - plain", **gains))
    assert "Risk-weighted fine-tuning is 3.0 Dice points below plain fine-tuning" in text


def test_two_patients_prove_nothing(fake_run) -> None:
    two = {"interval": [0.03, 0.05], "per_subject": {"p1": 0.03, "p2": 0.05}}
    text = words(with_gain(fake_run.all().workdir, "weighted - plain", **two))
    assert "cannot be told: +4.8 Dice points in the mean, but only 2 patients can be" in text


def test_without_an_interval_nothing_is_claimed(fake_run) -> None:
    text = words(with_gain(fake_run.all().workdir, "weighted - plain", interval=None))
    assert "with no interval to judge it by" in text


def test_an_order_that_does_not_hold_is_not_claimed(fake_run) -> None:
    run = fake_run.all()
    file = run.workdir / "evaluate/summary.json"
    record = json.loads(file.read_text())
    record["methods"]["plain"]["dice_mean"] = 0.9
    file.write_text(json.dumps(record))
    assert "weighted > plain > scratch does not hold" in words(run.workdir)


def test_no_negative_transfer_is_said_too(fake_run) -> None:
    workdir = fake_run.all().workdir
    for pair in ("plain - scratch", "weighted - scratch"):
        with_gain(workdir, pair, per_subject={"p1": 0.1, "p2": 0.0, "p3": 0.2})
    assert "No patient shows negative transfer" in words(workdir)


def test_before_the_evaluation_nothing_is_known(fake_run) -> None:
    assert "whether the transfer helps is not known" in words(fake_run.started().selected().workdir)


def test_before_the_selection_no_source_is_named(fake_run) -> None:
    assert words(fake_run.started().workdir).startswith("No source has been ranked yet.")


def test_a_lone_source_had_no_rival(fake_run, entry) -> None:
    run = fake_run.started().selected([entry(1, "d/a/f/x", -0.1), entry(None, "d/b/f/x", -0.01)])
    assert "LEEP (−0.1000) had nothing to choose between" in words(run.workdir)


def test_an_empty_shortlist_is_said(fake_run, entry) -> None:
    run = fake_run.started().selected([entry(None, "d/a/f/x", -0.1)])
    assert "No source was left to rank" in words(run.workdir)
    assert tiles(read_run(run.workdir)) == ()


def test_a_tie_is_called_a_tie(fake_run, entry) -> None:
    run = fake_run.started().selected([entry(1, "d/a/f/x", -0.1), entry(2, "d/b/f/x", -0.10001)])
    assert "d/b/f/x, −0.1000, the same to the digits shown" in words(run.workdir)


def test_sources_without_a_score_are_not_ranked_in_words(fake_run, entry) -> None:
    run = fake_run.started().selected([entry(1, "d/a/f/x", None), entry(2, "d/b/f/x", None)])
    assert "No source has a LEEP score" in words(run.workdir)


def test_another_start_is_said(fake_run) -> None:
    run = fake_run.all()
    file = run.workdir / "finetune/summary.json"
    record = {**json.loads(file.read_text()), "source": "phantom/ageing/flair/wmh"}
    file.write_text(json.dumps(record))
    assert "started from another source, phantom/ageing/flair/wmh" in words(run.workdir)


def test_a_start_along_a_path_is_said(fake_run) -> None:
    run = fake_run.all()
    file = run.workdir / "finetune/summary.json"
    names = ["phantom/ageing/flair/wmh", "phantom/ageing/flair/tissue"]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"path": names}))
    told = words(run.workdir)
    assert "from a network trained along a path, phantom/ageing/flair/wmh → phantom/ageing" in told
    file.write_text(json.dumps(json.loads(file.read_text()) | {"path": names[1:]}))
    assert "path" not in words(run.workdir)


def test_tiles_say_when_it_cannot_be_told(fake_run) -> None:
    workdir = with_gain(fake_run.all().workdir, "weighted - plain", interval=[-0.01, 0.08])
    shown = {tile.title: tile for tile in tiles(read_run(workdir))}
    assert shown["weighted − plain"].value == "+4.8"
    assert shown["weighted − plain"].remark.endswith("cannot be told")
    assert not shown["weighted − scratch"].remark.endswith("cannot be told")
    assert shown["negative transfer"].value == "0 of 5"


def test_the_method_of_a_run_by_default_is_judged_as_the_papers_is(fake_run) -> None:
    workdir = fake_run.all().workdir
    for name in ("metrics.csv", "summary.json", "cases.json"):
        file = workdir / "evaluate" / name
        file.write_text(file.read_text().replace("weighted", "plain_where"))
    summary = workdir / "evaluate/summary.json"
    record = json.loads(summary.read_text())
    record["gain"] = dict(reversed(record["gain"].items()))
    summary.write_text(json.dumps(record))
    text = words(workdir)
    assert "Fine-tuning weighted by risk within classes is 4.8 Dice points above plain" in text
    assert "The order plain_where > plain > scratch holds, each interval clear of 0." in text
    run = read_run(workdir)
    titles = [tile.title for tile in tiles(run)]
    assert titles[1:3] == ["plain_where − plain", "plain_where − scratch"]
    assert run.evaluation is not None
    assert next((g.over, g.under) for g in run.evaluation.gains) == ("plain_where", "plain")


def test_of_two_risk_weighted_methods_both_are_told(fake_run) -> None:
    workdir = fake_run.all().workdir
    file = workdir / "evaluate/summary.json"
    record = json.loads(file.read_text())
    record["methods"]["plain_where"] = record["methods"]["weighted"]
    record["gain"]["plain_where - plain"] = record["gain"]["weighted - plain"]
    file.write_text(json.dumps(record))
    text = words(workdir)
    for name in ("Fine-tuning weighted by risk within classes", "Risk-weighted fine-tuning"):
        assert f"{name} is 4.8 Dice points above plain fine-tuning" in text
    assert "The order" not in text
    titles = [tile.title for tile in tiles(read_run(workdir))]
    assert {"plain_where − plain", "weighted − plain"} <= {*titles}


def with_summary(workdir: Path, **added: Any) -> Path:
    file = workdir / "evaluate/summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | added))
    return workdir


def test_a_source_that_would_hurt_is_called_so(fake_run) -> None:
    readings = {"plain": {"reading": "hurts"}, "weighted": {"reading": "cannot be told"}}
    text = words(with_summary(fake_run.all().workdir, transfer=readings))
    assert "This source would hurt: below scratch after plain fine-tuning." in text
    told = "Whether this source helps or hurts could not be told after risk-weighted fine-tuning."
    assert told in text
    assert "This source helps" not in text


def test_networks_that_lost_a_class_are_named(fake_run) -> None:
    lost = {"networks": 2, "collapsed": [{"seed": 1, "classes": ["core", "rim"]}]}
    fine = {"networks": 2, "collapsed": []}
    collapse = {"rule": "…", "bar": 0.1, "methods": {"scratch": lost, "plain": fine}}
    text = words(with_summary(fake_run.all().workdir, collapse=collapse))
    assert "1 of 4 networks lost a class: from scratch, seed 1 (core, rim)." in text
    assert "lost a class" not in words(with_summary(fake_run.workdir, collapse={"methods": {}}))
