"""The rows, against sums written out here."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxfer.report.files import read_run
from jaxfer.report.records import CaseScore, Evaluation, Gain, Ranking
from jaxfer.report.tables import (
    flat,
    mean_defined,
    patient_rows,
    pictured,
    ranking_rows,
    reading_rows,
    shown_gains,
    shown_method,
    subject_dice,
    undefined_subjects,
)


def scored(method: str, subject: str, dice: float, seed: int = 0, **changes: object) -> CaseScore:
    fields: dict = {
        "method": method, "seed": seed, "case": subject, "subject": subject, "label": "WMH",
        "dice": dice, "hd95": 2.0, "n_reference": 10, "n_prediction": 10, "outcome": "scored",
    }  # fmt: skip
    return CaseScore(**{**fields, **changes})


def evaluated(*scores: CaseScore) -> Evaluation:
    return Evaluation(scores, (), (), {}, (), ())


@given(st.lists(st.floats(0, 1) | st.just(math.nan)))
def test_mean_defined_is_the_mean_without_nan(values: list[float]) -> None:
    defined = [value for value in values if value == value]
    expected = sum(defined) / len(defined) if defined else math.nan
    assert mean_defined(values) == pytest.approx(expected, nan_ok=True)


def test_one_infinite_distance_makes_the_mean_infinite() -> None:
    assert mean_defined([1.0, math.nan, math.inf]) == math.inf


def test_patient_rows_equal_the_means_of_the_table(finished: Path) -> None:
    evaluation = read_run(finished).evaluation
    assert evaluation is not None
    dice = defaultdict(list)
    with (finished / "evaluate/metrics.csv").open() as table:
        for line in csv.DictReader(table):
            dice[line["subject"], line["method"]].append(float(line["dice"]))
    rows = patient_rows(evaluation)
    assert [row.subject for row in rows] == ["p1", "p2", "p3", "p4", "p5", "p6"]
    for row in rows:
        for method in ("scratch", "plain", "weighted"):
            assert row.dice[method] == pytest.approx(
                np.mean(dice[row.subject, method]), nan_ok=True
            )
        assert row.gain("weighted", "plain") == pytest.approx(
            row.dice["weighted"] - row.dice["plain"], nan_ok=True
        )
    assert rows[5].hd95["scratch"] == math.inf
    assert math.isnan(rows[0].gain("weighted", "focal"))


def test_remarks_say_what_was_missed_and_by_whom() -> None:
    missed = {"dice": 0.0, "hd95": math.inf, "outcome": "missed"}
    empty = {"outcome": "both_empty"}
    rows = patient_rows(
        evaluated(
            scored("scratch", "a", 0.0, 0, **{k: v for k, v in missed.items() if k != "dice"}),
            scored("scratch", "a", 0.5, 1),
            scored("plain", "a", 0.6, 0),
            scored("plain", "a", 0.6, 1),
            scored("scratch", "b", math.nan, 0, **empty),
            scored("plain", "b", math.nan, 0, **empty),
            scored("scratch", "c", 0.5),
            scored("plain", "c", 0.0, 0, outcome="spurious"),
        )
    )
    assert [row.remarks for row in rows] == [
        ("missed: scratch (1 of 2)",),
        ("both empty",),
        ("spurious: plain",),
    ]


def test_labels_have_rows_of_their_own_and_one_mean_per_subject() -> None:
    evaluation = evaluated(
        scored("plain", "a", 0.2, label="GM"),
        scored("plain", "a", 0.6, label="WM"),
        scored("plain", "a", math.nan, label="CSF"),
    )
    assert [(row.label, row.dice["plain"]) for row in patient_rows(evaluation)[:2]] == [
        ("GM", 0.2),
        ("WM", 0.6),
    ]
    assert subject_dice(evaluation) == {"a": {"plain": pytest.approx(0.4)}}


@given(st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=9, unique=True))
def test_pictured_are_the_best_the_median_and_the_worst(dice: list[float]) -> None:
    evaluation = evaluated(*(scored("weighted", f"p{i}", d) for i, d in enumerate(dice)))
    value = dict(zip((f"p{i}" for i in range(len(dice))), dice, strict=True))
    defined = sorted(d for d in dice if not math.isnan(d))
    shown = {place: value[subject] for place, subject in pictured(evaluation, "weighted")}
    if len(defined) > 2:
        middle = defined[(len(defined) - 1) // 2]
        assert shown == {"best": defined[-1], "median": middle, "worst": defined[0]}
    elif len(defined) == 2:
        assert shown == {"best": defined[1], "worst": defined[0]}
    else:
        assert shown == ({"only": defined[0]} if defined else {})
    left_out = undefined_subjects(evaluation, "weighted")
    assert len(left_out) + len(defined) == len(dice)
    assert all(math.isnan(value[subject]) for subject in left_out)


def test_the_weighted_method_is_shown_if_there_is_one() -> None:
    both = (scored("weighted", "a", 0.5), scored("zzz", "a", 0.5))
    assert shown_method(evaluated(*both)) == "weighted"
    assert (
        shown_method(evaluated(scored("scratch", "a", 0.1), scored("plain", "a", 0.5))) == "plain"
    )


def ranking_of(fake_run, sources: list[dict]) -> Ranking:
    ranking = read_run(fake_run.started().selected(sources).workdir).ranking
    assert ranking is not None
    return ranking


def test_a_source_leads_only_among_the_ranked(fake_run, entry) -> None:
    rows = ranking_rows(
        ranking_of(
            fake_run,
            [
                entry(1, "d/a/flair/x", -0.02, scores={"leep": -0.02, "logme": 1.0, "nce": None}),
                entry(2, "d/b/flair/x", -0.03, scores={"leep": -0.03, "logme": 1.5, "nce": None}),
                entry(None, "d/c/t1/x", -0.01, decisions=[
                    {"step": "modality", "kept": False, "reason": "t1"}]),
            ],
        )
    )  # fmt: skip
    assert [row.leads_in for row in rows] == [{"leep"}, {"logme"}, frozenset()]
    assert [row.reasons for row in rows] == [(), (), ("t1",)]


def test_where_lower_is_better_the_lowest_leads(fake_run, entry) -> None:
    ranking = ranking_of(fake_run, [entry(1, "d/a/f/x", -0.02), entry(2, "d/b/f/x", -0.03)])
    lower = tuple(type(m)(m.name, "lower", m.range, "", "") for m in ranking.metrics)
    turned = Ranking(**{**vars(ranking), "metrics": lower})
    assert [("leep" in row.leads_in) for row in ranking_rows(turned)] == [False, True]


def test_a_lone_source_leads_in_nothing(fake_run, entry) -> None:
    rows = ranking_rows(ranking_of(fake_run, [entry(1, "d/a/flair/x", -0.02)]))
    assert rows[0].leads_in == frozenset()


def test_flat_names_nested_values_by_their_path() -> None:
    assert flat({"a": 0.1 + 0.2, "b": {"c": [1, 2e-5], "d": {"e": None}}, "f": {}}) == (
        ("a", "0.3"),
        ("b.c", "1, 2e-05"),
        ("b.d.e", "–"),
    )


def test_the_readings_are_named(finished: Path) -> None:
    finetuning = read_run(finished).finetuning
    assert finetuning is not None
    rows = dict(reading_rows(finetuning))
    assert rows["risk.mode"] == "instance"
    assert "risk-weighted cross-entropy" in rows["risk-weighted fine-tuning"]


def test_of_many_methods_the_gains_that_answer_a_question_are_shown() -> None:
    names = ("scratch", "plain", "weighted", "weighted_shuffled", "focal")
    pairs = [(over, under) for i, under in enumerate(names) for over in names[i + 1 :]]
    gains = tuple(Gain(*pair, 0.1, (0.0, 0.2), {}) for pair in pairs)
    found = replace(evaluated(*(scored(name, "a", 0.5) for name in names)), gains=gains)
    shown = {(gain.over, gain.under) for gain in shown_gains(found)}
    assert shown == {pair for pair in pairs if pair[1] in ("scratch", "plain")} | {
        ("weighted_shuffled", "weighted")
    }
    few = replace(evaluated(*(scored(name, "a", 0.5) for name in names[:3])), gains=gains)
    assert shown_gains(few) == gains
