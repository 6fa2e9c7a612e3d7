"""When a fine-tuning has lost a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxfer.evaluation import CaseResult


def class_dice(results: Sequence[CaseResult]) -> dict[str, float]:
    """Mean Dice of every class over the cases; NaN for a class that no case has."""
    found = {}
    for label in dict.fromkeys(r.label for r in results):
        own = [r.dice for r in results if r.label == label and not np.isnan(r.dice)]
        found[label] = float(np.mean(own)) if own else float("nan")
    return found


def lost_classes(results: Sequence[CaseResult], bar: float) -> list[str]:
    """The classes that one network has lost, by either of two rules.

    A class is lost if it is predicted nowhere in half or more of the cases that have it; or if its
    mean Dice is under the bar while that of another class is not.

    Args:
        results: of all test cases and classes, of one network.
        bar: Dice, 0 … 1.
    """
    means, lost = class_dice(results), []
    for label, mean in means.items():
        present = [r for r in results if r.label == label and r.n_reference > 0]
        missed = sum(r.n_prediction == 0 for r in present)
        others = [value for name, value in means.items() if name != label]
        if (present and 2 * missed >= len(present)) or (
            mean < bar and max(others, default=0) >= bar
        ):
            lost.append(label)
    return lost
