"""Trivial scores that a metric must beat, from a tidy table of a study.

A table has a column for every name, a row for every pair of target and source. Every baseline is a
score of which higher is better, a number for each row, NaN where the table has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

Table = Mapping[str, Shaped[np.ndarray, " rows"]]
"""Columns of one length: target, source, performance, and what a baseline names."""

Baseline = Callable[[Table], np.ndarray]


class Grid(NamedTuple):
    """A column of a table, by target and source.

    Attributes:
        targets: names of the rows, sorted.
        sources: names of the columns, sorted.
        values: NaN where the table has no such pair.
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    values: Float[np.ndarray, "t s"]


def grid(table: Table, values: Float[np.ndarray, " rows"]) -> Grid:
    """A number of each row, by target and source.

    Raises:
        ValueError: a column is missing, or a pair stands in the table twice: average first.
    """
    targets, row = np.unique(_column(table, "target"), return_inverse=True)
    sources, place = np.unique(_column(table, "source"), return_inverse=True)
    pairs = row * len(sources) + place
    if twice := len(pairs) - len(np.unique(pairs)):
        raise ValueError(f"a pair of target and source must stand once: {twice} rows too many")
    found = np.full((len(targets), len(sources)), np.nan)
    found[row, place] = values
    return Grid(tuple(map(str, targets)), tuple(map(str, sources)), found)


def random(table: Table, *, seed: int) -> Float[np.ndarray, " rows"]:
    """A draw for each row. One draw is luck: a study takes the mean over many seeds."""
    return np.random.default_rng(seed).random(len(_column(table, "target")))


def static_mean_rank(table: Table) -> Float[np.ndarray, " rows"]:
    """A list of sources that knows nothing of the target: mean place in all *other* targets.

    A place is the share of the other target's sources that do worse, equals counting half, in
    [0, 1], so that pools of different size weigh alike. Few-shot subsets of one target are one
    target here: give them one name, or the list has seen what it is judged on.

    Returns:
        NaN for a source that no other target has.
    """
    truth = _numbers(table, "performance")
    targets, sources = _column(table, "target"), _column(table, "source")
    known = ~np.isnan(truth)
    place = np.full(len(truth), np.nan)
    for target in np.unique(targets):
        rows = np.flatnonzero((targets == target) & known)
        if len(rows) > 1:
            own = truth[rows]
            worse = (own[None, :] < own[:, None]).sum(1)
            equal = (own[None, :] == own[:, None]).sum(1) - 1
            place[rows] = (worse + equal / 2) / (len(rows) - 1)
    found = np.full(len(truth), np.nan)
    for i in range(len(truth)):
        others = place[(sources == sources[i]) & (targets != targets[i])]
        if not np.isnan(others).all():
            found[i] = np.nanmean(others)
    return found


def same_modality(table: Table) -> Float[np.ndarray, " rows"]:
    """1 where source and target have one modality, else 0."""
    same = _column(table, "source_modality") == _column(table, "target_modality")
    return np.asarray(same, float)


def of_column(table: Table, *, name: str) -> Float[np.ndarray, " rows"]:
    """What the table says of each pair, as it stands."""
    return _numbers(table, name)


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        "random": partial(random, seed=0),
        "static_mean_rank": static_mean_rank,
        "same_modality": same_modality,
        "validation_dice": partial(of_column, name="validation_dice"),
        "source_size": partial(of_column, name="source_size"),
        "zero_shot_dice": partial(of_column, name="zero_shot_dice"),
        "label_ssim": partial(of_column, name="label_ssim"),
        "knn_accuracy": partial(of_column, name="knn_accuracy"),
    }
)
"""Trivial scores by name; the last five are columns of the same name."""


def _column(table: Table, name: str) -> np.ndarray:
    if name not in table:
        raise ValueError(f"the table has no column {name}: found {', '.join(sorted(table))}")
    return np.asarray(table[name])


def _numbers(table: Table, name: str) -> np.ndarray:
    return np.asarray(_column(table, name), float)
