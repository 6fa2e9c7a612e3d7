"""Splits: by subject, never by case, decided by seeds, and kept once they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxfer.errors import Problem, UserError
from jaxfer.tasks import Case

Split = dict[str, list[str]]

PARTS = ("train", "validation", "test")


def _shuffled(subjects: Sequence[str], *seeds: int) -> list[str]:
    order = np.random.default_rng(seeds).permutation(len(subjects))
    return [subjects[i] for i in order]


def _order(cases: Sequence[Case], seed: int) -> list[str]:
    """The subjects, in an order that a seed decides and the order of the cases does not."""
    return _shuffled(sorted({c.subject for c in cases}), seed)


def _of(cases: Sequence[Case], subjects: Sequence[str]) -> list[str]:
    """Ids of the cases of these subjects, in the subjects' order."""
    return [c.id for subject in subjects for c in cases if c.subject == subject]


def target_split(
    cases: Sequence[Case],
    *,
    seed: int,
    train_subjects: int,
    test_subjects: int,
    subset: int = 0,
    folds: int = 0,
    fold: int = 0,
    validation_subjects: int = 0,
) -> Split:
    """The few subjects to train on, those to test on, and those that choose between networks.

    The training subjects of a smaller number are among those of a larger one. With folds, every
    subject is tested on in exactly one fold, and neither ``subset`` nor the number of training
    subjects moves a test subject; without, they do not as long as enough subjects are left.

    Args:
        cases: of the target.
        seed: decides the order of the subjects, and the folds.
        train_subjects: how many to train on.
        test_subjects: how many to test on, at most; 0 = all others, or the whole fold.
        subset: which subjects are the few: 0 takes the first of the order, any other number is the
            seed of another choice.
        folds: number of parts that the subjects are dealt into; 0 = none.
        fold: the part to test on, from 0.
        validation_subjects: how many, of neither the few nor the tested, to choose networks by.

    Raises:
        UserError: nobody is left to test on, or the fold leaves too few to train on.
    """
    order = _order(cases, seed)
    if folds > len(order):
        raise UserError(
            "config.data.folds: more folds than subjects",
            found=f"{folds} folds of {len(order)} subject(s) of the target",
            allowed=f"0 (none) or 2 to {len(order)}",
            mend="--config.data.folds=N",
        )
    if folds:
        kept = order[fold::folds][::-1]
        pool = [s for i, s in enumerate(order) if i % folds != fold]
    else:
        # Test subjects come from the other end, so that more shots do not change who is tested.
        wanted = min(test_subjects or 1, len(order) - train_subjects)
        kept = order[::-1][: max(wanted, 1)]
        pool = order[: len(order) - len(kept)] if test_subjects else order
    most = len(pool) if folds else len(order) - 1
    if train_subjects > most:
        raise UserError(
            "config.data.train_subjects: "
            + ("more than the other folds hold" if folds else "nobody is left to test on"),
            found=f"{train_subjects} of {len(order)} subject(s) of the target",
            allowed=f"1 to {most}" if most else "more subjects are needed",
            mend="--config.data.train_subjects=N",
        )
    few = (_shuffled(sorted(pool), seed, subset) if subset else pool)[:train_subjects]
    rest = kept if folds or test_subjects else [s for s in order[::-1] if s not in few]
    tested = rest[:test_subjects] if test_subjects else rest
    validated: list[str] = []
    if validation_subjects:
        # From the far end of the pool, where more shots come last.
        free = [s for s in pool if s not in few]
        free = free if folds or test_subjects else free[:-1]
        if validation_subjects > len(free):
            raise UserError(
                "config.data.validation_subjects: more than are left beside the others",
                found=f"{validation_subjects}, and {len(few)} to train on, "
                f"of {len(order)} subject(s) of the target",
                allowed=f"0 to {len(free)}",
                mend="--config.data.validation_subjects=N, or fewer --config.data.test_subjects",
            )
        validated = free[-validation_subjects:]
        tested = [s for s in tested if s not in validated]
    parts = {"train": few, "validation": validated, "test": tested}
    return {part: _of(cases, subjects) for part, subjects in parts.items()}


def source_split(cases: Sequence[Case], *, seed: int, validation_fraction: float) -> Split:
    """A source's subjects: most to train on, some for the Dice in its card; one alone trains."""
    order = _order(cases, seed)
    held = min(max(1, round(validation_fraction * len(order))), len(order) - 1)
    return {
        "train": _of(cases, order[held:]),
        "validation": _of(cases, order[:held]),
        "test": [],
    }


def written_split(split: Split, cases: Sequence[Case]) -> dict[str, object]:
    """A split as it is written: with the subject of every case that there was to choose from."""
    return split | {"subjects": {c.id: c.subject for c in cases}}


def kept_split(
    written: object, cases: Sequence[Case], *, task: str, where: str
) -> tuple[Split, list[Problem]]:
    """A split that was written before, for the cases that there are now.

    Args:
        written: by ``written_split``.
        cases: of the task, as its data set holds them now.
        task: whose split it is, for the messages.
        where: the file it stands in.

    Returns:
        The split without the cases that vanished, and a warning each if cases vanished or appeared.

    Raises:
        UserError: a subject of the split has no case left, or is in two parts of it.
    """
    anew = f"delete {where} to have the subjects split anew"
    if not _is_split(written):
        raise UserError(
            f"{where}: not a split of {task}",
            found=str(written)[:200],
            allowed=f"lists of cases: {', '.join(PARTS)}; and the subjects, by case",
            mend=anew,
        )
    assert isinstance(written, Mapping)
    now, then = {c.id: c.subject for c in cases}, written["subjects"]
    split = {part: [case for case in written[part] if case in now] for part in PARTS}
    parts: dict[str, set[str]] = {}
    for part, ids in split.items():
        for case in ids:
            parts.setdefault(now[case], set()).add(part)
    if torn := sorted(subject for subject, its in parts.items() if len(its) > 1):
        raise UserError(
            f"{where}: a subject of {task} is in two parts of the split",
            found=", ".join(torn),
            allowed="each subject in one part",
            mend=anew,
        )
    needed = {then.get(case, case) for part in PARTS for case in written[part]}
    if gone := sorted(needed - parts.keys()):
        raise UserError(
            f"{where}: subjects of {task} are gone from the data set",
            found=", ".join(gone),
            allowed="the subjects that the run was split into",
            mend=f"put their files back, or {anew}",
        )
    vanished, appeared = sorted(then.keys() - now.keys()), sorted(now.keys() - then.keys())
    notes = [
        Problem("warning", where, f"{task}: cases {what} since the split", ", ".join(ids), None, do)
        for what, ids, do in (
            ("vanished", vanished, "put their files back"),
            ("appeared", appeared, f"they are not used; {anew}"),
        )
        if ids
    ]
    return split, notes


def _is_split(written: object) -> bool:
    return (
        isinstance(written, Mapping)
        and isinstance(written.get("subjects"), Mapping)
        and all(isinstance(s, str) for s in written["subjects"].values())
        and all(isinstance(written.get(part), list) for part in PARTS)
        and all(isinstance(case, str) for part in PARTS for case in written[part])
    )
