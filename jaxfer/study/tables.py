"""The tables of a study: a line per cell and subject, and a line per score."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxfer.evaluation import CaseResult, class_dice, lost_classes
from jaxfer.study.cells import Cell, Group

RESULTS = (
    *("study", "target", "shots", "subset", "source", "pretraining", "method", "seed", "subject"),
    *("dice", "hd95", "min_class_dice", "collapsed", "map_spread"),
)
SCORES = ("target", "shots", "subset", "pretraining", "source", "score", "value", "low", "high")


@dataclass(frozen=True)
class ScoreRow:
    """A number that is known of a source before any fine-tuning, or that it cost.

    Attributes:
        source: a task's name.
        score: its name.
        value: NaN where it is not defined.
        low, high: 95 % interval; NaN where there is none.
    """

    source: str
    score: str
    value: float
    low: float = math.nan
    high: float = math.nan


def _number(value: float) -> str:
    """An empty field for NaN; else what reads back to the same number."""
    return "" if math.isnan(value) else repr(float(value))


def _mean(values: Sequence[float]) -> float:
    """Over those that are defined."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def result_rows(
    study: str,
    cell: Cell,
    results: Sequence[CaseResult],
    bar: float,
    map_spread: float = math.nan,
) -> list[tuple[Any, ...]]:
    """The lines of one cell, one per subject.

    Dice and HD95 are means over the subject's classes and cases, as in an ordinary run; HD95 is
    infinite where a class was missed or made up. ``min_class_dice``, ``collapsed`` (1 or 0) and
    ``map_spread`` are of the whole cell: the lowest mean Dice of a class, whether a class was lost,
    and how far the weights of one class lie apart in its risk map, relative to their mean. What
    starts from scratch has no source and no pre-training.

    Args:
        study: its name.
        cell: whose lines.
        results: of its test cases and classes.
        bar: of ``lost_classes``.
        map_spread: NaN for a method that heeds no map.
    """
    group, start = cell.group, cell.source
    lowest = min((v for v in class_dice(results).values() if not math.isnan(v)), default=math.nan)
    head = (
        *(study, group.target.name, group.shots, group.subset),
        *((start.name, group.pretraining) if start else ("", "")),
        *(cell.method, cell.seed),
    )
    rows = []
    for subject in dict.fromkeys(r.subject for r in results):
        own = [r for r in results if r.subject == subject]
        measures = (_mean([r.dice for r in own]), _mean([r.hd95 for r in own]), lowest)
        collapsed = int(bool(lost_classes(results, bar)))
        rows.append((*head, subject, *map(_number, measures), collapsed, _number(map_spread)))
    return rows


def score_rows(group: Group, scores: Iterable[ScoreRow]) -> list[tuple[Any, ...]]:
    """The lines of one group's scores."""
    head = (group.target.name, group.shots, group.subset, group.pretraining)
    return [(*head, s.source, s.score, *map(_number, (s.value, s.low, s.high))) for s in scores]


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Comma-separated values."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows(rows)
    return text.getvalue()


def read_measures(text: str) -> list[CaseResult]:
    """The measures of one cell, as the table of an ordinary run has them.

    Raises:
        ValueError: it is no such table, or has no line.
    """
    kinds = {"seed": int, "dice": float, "hd95": float, "n_reference": int, "n_prediction": int}
    found = []
    for line in csv.DictReader(io.StringIO(text)):
        if set(line) != set(CaseResult.__dataclass_fields__) or None in line.values():
            raise ValueError("not the columns of a table of measures")
        found.append(CaseResult(**{k: kinds.get(k, str)(v or "") for k, v in line.items()}))
    if not found:
        raise ValueError("a table of measures without a line")
    return found


def scores_of_record(row: Mapping[str, Any]) -> list[ScoreRow]:
    """What a source's record in ``selection.json`` says of it, whatever its scores are called."""
    name, intervals = row["source"], row["intervals"]

    def value(number: Any) -> float:
        return math.nan if number is None else float(number)

    found = [
        ScoreRow(name, score, value(number), *map(value, intervals.get(score, (None, None))))
        for score, number in row["scores"].items()
    ]
    found += [
        ScoreRow(name, f"{score}_balanced", value(number))
        for score, number in row["balanced"].items()
    ]
    if "modality_distance" in row:
        found.append(ScoreRow(name, "modality_distance", value(row["modality_distance"])))
    return [*found, ScoreRow(name, "validation_dice", value(row["validation_dice"]))]
