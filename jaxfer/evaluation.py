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
from jaxtyping import Bool, Float32, Integer, UInt8

from jaxfer.metrics import dice, hd95, outcome
from jaxfer.metrics.intervals import bootstrap_mean_interval
from jaxfer.tasks import IGNORE

EMPTY_MASK_POLICY = (
    "Both masks empty: Dice and HD95 are not defined and are left out of the means, the case is "
    "counted as both_empty. One of them empty: Dice is 0 and counts in the mean, HD95 is infinite, "
    "is counted as missed or spurious and left out of the mean of the finite HD95."
)


COLLAPSE_RULE = (
    "A network has lost a class if it predicts it nowhere in half or more of the cases that have "
    "it, or if the class's mean Dice is under the bar while another class's is not."
)
FEWEST_SUBJECTS = 3
"""An interval over fewer is as narrow as chance makes it, and tells nothing."""


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
    outcomes = Counter(r.outcome for r in own)
    return {
        "dice_mean": float(values.mean()) if len(values) else float("nan"),
        "dice_interval": list(bootstrap_mean_interval(values, seed=seed)),
        "dice_by_label": class_dice(own),
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


def class_dice(results: Sequence[CaseResult]) -> dict[str, float]:
    """Mean Dice of every class over the cases; NaN for a class that no case has."""
    found = {}
    for label in dict.fromkeys(r.label for r in results):
        dices = [r.dice for r in results if r.label == label]
        found[label] = float(np.nanmean(dices)) if not np.isnan(dices).all() else float("nan")
    return found


def lost_classes(results: Sequence[CaseResult], bar: float) -> list[str]:
    """The classes that one network has lost, by ``COLLAPSE_RULE``.

    Args:
        results: of all cases and classes, of one network.
        bar: Dice, 0 … 1.
    """
    means = class_dice(results)
    lost = []
    for label in means:
        present = [r for r in results if r.label == label and r.n_reference > 0]
        missed = sum(r.n_prediction == 0 for r in present)
        fine = any(mean >= bar for other, mean in means.items() if other != label)
        if (present and 2 * missed >= len(present)) or (means[label] < bar and fine):
            lost.append(label)
    return lost


def collapsed(results: Sequence[CaseResult], bar: float) -> dict[str, Any]:
    """Which networks have lost which classes, by method.

    Returns:
        The rule, the bar, and for each method the number of its networks and, of each that has
        lost a class, its seed and the classes.
    """
    networks: dict[tuple[str, int], list[CaseResult]] = {}
    for result in results:
        networks.setdefault((result.method, result.seed), []).append(result)
    found: dict[str, dict[str, Any]] = {}
    for (method, seed), own in networks.items():
        entry = found.setdefault(method, {"networks": 0, "collapsed": []})
        entry["networks"] += 1
        if lost := lost_classes(own, bar):
            entry["collapsed"].append({"seed": seed, "classes": lost})
    return {"rule": COLLAPSE_RULE, "bar": bar, "methods": found}


def transfer_gains(
    results: Sequence[CaseResult], transferred: Sequence[str], *, seed: int
) -> dict[str, Any]:
    """NTG, Dice(method) − Dice(scratch) per subject, of methods that start from the source.

    Args:
        results: of these methods and of "scratch", with equal budgets.
        transferred: names of the methods.
        seed: of the bootstrap.

    Returns:
        For each method the mean, its 95 % interval over subjects, the gain of each subject, the
        number below 0, and what the interval says: "helps", "hurts" or "cannot be told".
    """
    scratch, found = _by_subject(results, "scratch"), {}
    for method in transferred:
        own = _by_subject(results, method)
        gains = {
            subject: own[subject] - dice for subject, dice in scratch.items() if subject in own
        }
        values = np.array(list(gains.values()))
        low, high = bootstrap_mean_interval(values, seed=seed)
        told = "helps" if low > 0 else "hurts" if high < 0 else "cannot be told"
        found[method] = {
            "mean": float(values.mean()) if len(values) else float("nan"),
            "interval": [low, high],
            "per_subject": gains,
            "below": int((values < 0).sum()),
            "reading": told if len(values) >= FEWEST_SUBJECTS else "cannot be told",
        }
    return found


def harm(
    truth: Integer[np.ndarray, "x y z"],
    scratch: Sequence[Integer[np.ndarray, "x y z"]],
    transferred: Sequence[Integer[np.ndarray, "x y z"]],
    valid: Bool[np.ndarray, "x y z"],
) -> Float32[np.ndarray, "x y z"]:
    """Where transfer hurt: 1 where scratch is right and the transferred is wrong, −1 the other way.

    Args:
        truth: classes.
        scratch, transferred: predicted classes, paired by seed; the map is the mean over pairs.
        valid: voxels that are not ignored; 0 elsewhere.
    """
    pairs = zip(scratch, transferred, strict=True)
    total = sum(
        ((theirs != truth).astype(np.float32) - (ours != truth) for ours, theirs in pairs),
        np.zeros(truth.shape, np.float32),
    )
    return np.where(valid, total / len(scratch), 0).astype(np.float32)
