"""Measures per case and class, their means over subjects, and the gain of one method over another.

The rule for empty masks is one, and every mean comes with the number of cases behind it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxfer.metrics import dice, hd95, outcome
from jaxfer.metrics.intervals import bootstrap_mean_interval
from jaxfer.tasks import IGNORE

EMPTY_MASK_POLICY = (
    "Both masks empty: Dice and HD95 are not defined and are left out of the means, the case is "
    "counted as both_empty. One of them empty: Dice is 0 and counts in the mean, HD95 is infinite, "
    "is counted as missed or spurious and left out of the mean of the finite HD95."
)


@dataclass(frozen=True)
class CaseResult:
    """One class of one case under one method and seed.

    Attributes:
        hd95: mm.
        n_reference, n_prediction: voxels of the class in truth and prediction.
        outcome: scored, missed, spurious or both_empty.
    """

    method: str
    seed: int
    case: str
    subject: str
    label: str
    dice: float
    hd95: float
    n_reference: int
    n_prediction: int
    outcome: str


def compare(
    predicted: UInt8[np.ndarray, "x y z"],
    truth: UInt8[np.ndarray, "x y z"],
    class_names: Sequence[str],
    *,
    spacing: tuple[float, ...],
    method: str,
    seed: int,
    case: str,
    subject: str,
) -> list[CaseResult]:
    """Dice and HD95 of every class; ignored voxels are in neither mask.

    Args:
        predicted, truth: class indices on the file's own grid; 255 in the truth is ignored.
        class_names: of the classes after the background.
        spacing: mm.
    """
    valid = truth != IGNORE
    results = []
    for index, name in enumerate(class_names, start=1):
        mine, theirs = (predicted == index) & valid, truth == index
        results.append(
            CaseResult(
                method=method,
                seed=seed,
                case=case,
                subject=subject,
                label=name,
                dice=dice(mine, theirs),
                hd95=hd95(mine, theirs, spacing),
                n_reference=int(theirs.sum()),
                n_prediction=int(mine.sum()),
                outcome=outcome(mine, theirs),
            )
        )
    return results


def _by_subject(results: Sequence[CaseResult], method: str) -> dict[str, float]:
    """Mean Dice of every subject: over classes, cases and seeds; undefined ones left out."""
    found: dict[str, list[float]] = {}
    for r in results:
        if r.method == method and not np.isnan(r.dice):
            found.setdefault(r.subject, []).append(r.dice)
    return {subject: float(np.mean(values)) for subject, values in found.items()}


def mean_over_subjects(results: Sequence[CaseResult]) -> float:
    """Mean Dice over the subjects, each the mean over its classes and cases; NaN without any."""
    found = [_by_subject(results, method) for method in dict.fromkeys(r.method for r in results)]
    values = [value for subjects in found for value in subjects.values()]
    return float(np.mean(values)) if values else float("nan")


def _method(results: Sequence[CaseResult], method: str, seed: int) -> dict[str, Any]:
    own = [r for r in results if r.method == method]
    subjects = _by_subject(results, method)
    values = np.array(list(subjects.values()))
    finite = [r.hd95 for r in own if np.isfinite(r.hd95)]
    by_label = {
        label: float(np.nanmean(dices)) if not np.isnan(dices).all() else float("nan")
        for label in dict.fromkeys(r.label for r in own)
        for dices in [[r.dice for r in own if r.label == label]]
    }
    outcomes = Counter(r.outcome for r in own)
    return {
        "dice_mean": float(values.mean()) if len(values) else float("nan"),
        "dice_interval": list(bootstrap_mean_interval(values, seed=seed)),
        "dice_by_label": by_label,
        "hd95_mean_finite": float(np.mean(finite)) if finite else float("nan"),
        "n_hd95_finite": len(finite),
        "n_cases": len({r.case for r in own}),
        "n_subjects": len(subjects),
        "outcomes": {k: outcomes[k] for k in ("scored", "missed", "spurious", "both_empty")},
    }


def summarise(results: Sequence[CaseResult], *, seed: int) -> dict[str, Any]:
    """Means with intervals over subjects, per method, and paired gains between methods.

    Args:
        results: of all methods, seeds, cases and classes.
        seed: of the bootstrap.

    Returns:
        ``methods`` and ``gain``; a gain is in Dice, not in points, and is paired by subject.
    """
    names = list(dict.fromkeys(r.method for r in results))
    gains = {}
    for first, second in itertools.combinations(names, 2):
        a, b = _by_subject(results, first), _by_subject(results, second)
        paired = {s: b[s] - a[s] for s in a if s in b}
        values = np.array(list(paired.values()))
        gains[f"{second} - {first}"] = {
            "mean": float(values.mean()) if len(values) else float("nan"),
            "interval": list(bootstrap_mean_interval(values, seed=seed)),
            "per_subject": paired,
        }
    return {"methods": {name: _method(results, name, seed) for name in names}, "gain": gains}
