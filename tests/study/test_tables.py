"""The tables of a study, and when a class counts as lost."""

from __future__ import annotations

import csv
import dataclasses
import io
import math

import numpy as np
import pytest

from jaxfer.evaluation import CaseResult, lost_classes
from jaxfer.stages.evaluate import measures_table
from jaxfer.study.cells import Cell, Group
from jaxfer.study.tables import (
    RESULTS,
    read_measures,
    result_rows,
    score_rows,
    scores_of_record,
    table,
)
from jaxfer.tasks import Task

GROUP = Group(Task("mine", "a", "t1", "core"), 5, 2, 7)
CELL = Cell(GROUP, "plain", 2000, Task("mine", "c", "t2", "core"))


def measure(
    subject: str, label: str, dice: float, hd95: float = 1.5, found: int = 10, there: int = 10
) -> CaseResult:
    case = f"{subject}-1"
    return CaseResult(
        "plain",
        2000,
        case,
        subject,
        label,
        dice,
        hd95,
        there,
        found,
        "missed" if not found else "scored",
    )


RESULTS_OF_TWO = [
    measure("one", "a", 0.8, 2.0),
    measure("one", "b", 0.6, 4.0),
    measure("two", "a", 0.0, math.inf, found=0),
    measure("two", "b", math.nan, math.nan, found=0, there=0),
]


def lines(cell: Cell, results: list[CaseResult], bar: float = 0.1) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table(RESULTS, result_rows("s", cell, results, bar)))))


def test_a_line_for_every_subject() -> None:
    one, two = lines(CELL, RESULTS_OF_TWO)
    assert one == {
        "study": "s",
        "target": "mine/a/t1/core",
        "shots": "5",
        "subset": "2",
        "source": "mine/c/t2/core",
        "pretraining": "7",
        "method": "plain",
        "seed": "2000",
        "subject": "one",
        "dice": repr(float(np.mean([0.8, 0.6]))),
        "hd95": "3.0",
        "min_class_dice": "0.4",
        "collapsed": "1",  # class a: in half of the subjects that have it nowhere
        "map_spread": "",  # a method that heeds no map
    }
    assert (two["dice"], two["hd95"]) == ("0.0", "inf")


def test_scratch_has_no_source_and_no_pretraining() -> None:
    found = lines(dataclasses.replace(CELL, source=None, method="scratch"), RESULTS_OF_TWO)
    assert {(r["source"], r["pretraining"]) for r in found} == {("", "")}


def test_what_is_not_defined_is_empty() -> None:
    nothing = [measure("one", "a", math.nan, math.nan, found=0, there=0)]
    (row,) = lines(CELL, nothing)
    assert (row["dice"], row["hd95"], row["min_class_dice"], row["collapsed"]) == ("", "", "", "0")


def test_measures_come_back_as_they_were_written() -> None:
    again = read_measures(measures_table(RESULTS_OF_TWO))
    assert str(again) == str(RESULTS_OF_TWO)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "method,seed\n"])
def test_what_is_no_table_of_measures_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="table of measures"):
        read_measures(text)


def test_a_cut_table_is_refused() -> None:
    whole = measures_table(RESULTS_OF_TWO)
    with pytest.raises(ValueError):
        read_measures(whole[: whole.rindex(",")])


@pytest.mark.parametrize(
    ("dices", "found", "lost"),
    [
        ({"a": [0.9, 0.9, 0.9], "b": [0.5, 0.5, 0.5]}, {}, []),
        ({"a": [0.9, 0.9, 0.9], "b": [0.2, 0.01, 0.0]}, {}, ["b"]),
        # All bad alike: a hard task, no lost class.
        ({"a": [0.05, 0.05, 0.05], "b": [0.04, 0.04, 0.04]}, {}, []),
        ({"a": [0.05, 0.05, 0.05]}, {}, []),
        # Predicted nowhere in two of three.
        ({"a": [0.9, 0.0, 0.0]}, {"a": [10, 0, 0]}, ["a"]),
        ({"a": [0.9, 0.9, 0.0]}, {"a": [10, 10, 0]}, []),
    ],
)
def test_lost_classes(
    dices: dict[str, list[float]], found: dict[str, list[int]], lost: list[str]
) -> None:
    results = [
        measure(str(i), label, value, found=found.get(label, [10] * 3)[i])
        for label, values in dices.items()
        for i, value in enumerate(values)
    ]
    assert lost_classes(results, 0.1) == lost


def test_a_class_that_a_subject_lacks_is_not_lost_there() -> None:
    absent = [measure(str(i), "b", math.nan, found=0, there=0) for i in range(5)]
    assert lost_classes([measure("9", "a", 0.9), measure("9", "b", 0.5), *absent], 0.1) == []


def test_scores_of_a_ranking_with_their_intervals() -> None:
    record = {
        "source": "mine/c/t2/core",
        "scores": {"leep": -0.5, "knn_accuracy@decoder_0": None},
        "intervals": {"leep": [-0.6, -0.4]},
        "balanced": {"leep": -0.7},
        "validation_dice": None,
        "modality_distance": 0.25,
    }
    rows = score_rows(GROUP, scores_of_record(record))
    head = ("mine/a/t1/core", 5, 2, 7, "mine/c/t2/core")
    assert rows == [
        (*head, "leep", "-0.5", "-0.6", "-0.4"),
        (*head, "knn_accuracy@decoder_0", "", "", ""),
        (*head, "leep_balanced", "-0.7", "", ""),
        (*head, "modality_distance", "0.25", "", ""),
        (*head, "validation_dice", "", "", ""),
    ]
