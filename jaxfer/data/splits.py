"""Splits: by subject, never by case, decided by a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxfer.errors import UserError
from jaxfer.tasks import Case


def _shuffled(cases: Sequence[Case], seed: int) -> list[str]:
    subjects = sorted({c.subject for c in cases})
    order = np.random.default_rng(seed).permutation(len(subjects))
    return [subjects[i] for i in order]


def _of(cases: Sequence[Case], subjects: Sequence[str]) -> list[str]:
    """Ids of the cases of these subjects, in the subjects' order."""
    return [c.id for subject in subjects for c in cases if c.subject == subject]


def target_split(
    cases: Sequence[Case], *, seed: int, train_subjects: int, test_subjects: int
) -> dict[str, list[str]]:
    """The few subjects to train on, and those to test on.

    The training subjects of a smaller number are among those of a larger one; with all subjects
    for testing, neither number moves a subject within the other's order.

    Args:
        cases: of the target.
        seed: decides the order of the subjects.
        train_subjects: how many to train on.
        test_subjects: how many to test on, at most; 0 = all others.
    """
    order = _shuffled(cases, seed)
    if len(order) <= train_subjects:
        raise UserError(
            "config.data.train_subjects: nobody is left to test on",
            found=f"{train_subjects} of {len(order)} subject(s) of the target",
            allowed=f"1 to {len(order) - 1}" if len(order) > 1 else "more subjects are needed",
            mend="--config.data.train_subjects=N",
        )
    # Test subjects come from the other end, so that more shots do not change who is tested.
    rest = order[train_subjects:][::-1]
    tested = rest[:test_subjects] if test_subjects else rest
    return {
        "train": _of(cases, order[:train_subjects]),
        "validation": [],
        "test": _of(cases, tested),
    }


def source_split(
    cases: Sequence[Case], *, seed: int, validation_fraction: float
) -> dict[str, list[str]]:
    """A source's subjects: most to train on, some for the Dice in its card; one alone trains."""
    order = _shuffled(cases, seed)
    held = min(max(1, round(validation_fraction * len(order))), len(order) - 1)
    return {
        "train": _of(cases, order[held:]),
        "validation": _of(cases, order[:held]),
        "test": [],
    }
