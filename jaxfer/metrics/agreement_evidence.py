"""How sure one can be that a score ranks: intervals, and p-values corrected for many scores.

What is drawn again is what one wants to speak of: other targets, other sources, other subjects.
Sources and targets are crossed, so that a draw has the same sources for every target; subjects are
drawn within their target, the same for every source, which were all tested on them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxfer.metrics.agreement import (
    LOWER_IS_BETTER,
    MEASURES,
    Measure,
    over_targets,
    pool_of,
)
from jaxfer.metrics.uncertainty import interval

UNITS = ("targets", "sources", "subjects")
AT_ONCE = 1 << 21
"""Pairs of sources that are compared at the same time."""


class Evidence(NamedTuple):
    """The agreement of one score by one measure, over all targets.

    Attributes:
        value: mean over the targets; NaN if none can be ranked.
        low, high: its 95 % percentile interval over draws; few targets make it too narrow.
        undefined_draws: share of the draws in which no target could be ranked, which are left out.
        p: one-sided permutation p-value of this score by itself.
        p_max: corrected for all scores by the maximum statistic (single step, Westfall and Young
            1993): uses how the scores depend on each other.
        p_holm: corrected by Holm 1979, whatever the dependence; the larger of the two as a rule.
        per_target: the value of each target.
        missing: sources with a truth but no score, over all targets.
        constant: targets where the score does not vary, counted as 0 in correlations.
        undefined: targets with nothing to rank, left out.
    """

    value: float
    low: float
    high: float
    undefined_draws: float
    p: float
    p_max: float
    p_holm: float
    per_target: tuple[float, ...]
    missing: int
    constant: int
    undefined: int


class PValues(NamedTuple):
    """By themselves, corrected by the maximum statistic, corrected by Holm; NaN if undefined."""

    alone: Float[np.ndarray, " m"]
    maximum: Float[np.ndarray, " m"]
    holm: Float[np.ndarray, " m"]


class Resampled(NamedTuple):
    """Draws with replacement.

    Attributes:
        targets: numbers of the targets of each draw.
        sources: numbers of the sources, the same for all targets of a draw.
        truth: of these, over the subjects that were drawn.
    """

    targets: Int[np.ndarray, "d t"]
    sources: Int[np.ndarray, "d s"]
    truth: Float[np.ndarray, "d t s"]


def mean_performance(performance: Float[np.ndarray, "t s n"]) -> Float[np.ndarray, "t s"]:
    """The truth: mean over a target's subjects; NaN where a source was not tried on a target.

    Args:
        performance: e.g. Dice after fine-tuning, averaged over seeds; NaN where a target has no
            such subject, or was not tried from such a source.

    Raises:
        ValueError: sources of one target were tested on different subjects, or not finite.
    """
    weights = _subjects(performance).astype(float)
    return _weighted_truth(performance, weights[None])[0]


def bootstrap_agreement(
    measure: Measure,
    scores: Float[np.ndarray, "m t s"],
    performance: Float[np.ndarray, "t s n"],
    *,
    seed: int,
    draws: int = 1000,
    over: Collection[str] = UNITS,
) -> Float[np.ndarray, "m draws"]:
    """Agreement of several scores in draws of targets, sources and subjects, with replacement.

    A source drawn twice ties with itself in score and truth, a pair that Kendall's τ leaves out.

    Args:
        measure: of `MEASURES`.
        scores: of which higher is better; NaN where missing.
        performance: as for `mean_performance`.
        seed: the same seed draws the same, so that scores compare in pairs: the difference of two
            rows has an interval too.
        draws: how many.
        over: which of `UNITS` are drawn; the others stay as they are.

    Returns:
        The mean over targets for each score and draw; NaN where no target could be ranked.

    Raises:
        ValueError: an unknown unit, or what `mean_performance` refuses.
    """
    targets, sources, truth = resampled(performance, seed=seed, draws=draws, over=over)
    found = np.empty((len(scores), draws))
    for block in _blocks(draws, truth[0].size * truth.shape[2]):
        rows, columns = targets[block][:, :, None], sources[block][:, None, :]
        for i, own in enumerate(scores):
            found[i, block] = over_targets(measure(own[rows, columns], truth[block]))
    return found


def resampled(
    performance: Float[np.ndarray, "t s n"],
    *,
    seed: int,
    draws: int = 1000,
    over: Collection[str] = UNITS,
) -> Resampled:
    """Draws of targets, sources and subjects with replacement, as `bootstrap_agreement` takes them.

    Raises:
        ValueError: an unknown unit, or what `mean_performance` refuses.
    """
    if unknown := set(over) - set(UNITS):
        raise ValueError(f"over must name some of {', '.join(UNITS)}: found {sorted(unknown)}")
    num_targets, num_sources, _ = performance.shape
    there = _subjects(performance)
    rng = np.random.default_rng(seed)
    targets = np.tile(np.arange(num_targets), (draws, 1))
    sources = np.tile(np.arange(num_sources), (draws, 1))
    weights = np.broadcast_to(there.astype(float), (draws, *there.shape))
    if "targets" in over:
        targets = rng.integers(num_targets, size=targets.shape)
    if "sources" in over:
        sources = rng.integers(num_sources, size=sources.shape)
    if "subjects" in over:
        weights = np.stack([_drawn(rng, subjects, draws) for subjects in there], axis=1)
    truth = _weighted_truth(performance, weights)
    rows, columns = targets[:, :, None], sources[:, None, :]
    drawn = np.take_along_axis(np.take_along_axis(truth, rows, 1), columns, 2)
    return Resampled(targets, sources, drawn)


def permutation_p_values(
    measure: Measure,
    scores: Float[np.ndarray, "m t s"],
    truth: Float[np.ndarray, "t s"],
    *,
    seed: int,
    permutations: int = 5000,
    lower_is_better: bool = False,
) -> PValues:
    """How often scores dealt to the sources at random agree as well, in the mean over targets.

    A permutation deals a source's scores of *all* targets to another source: sources that are good
    for every target are one finding, not one for each target. Where a target lacks sources, the
    permutation's cycles skip them, which leaves a fair permutation of its own sources. One-sided,
    (1 + those at least as good) / (1 + permutations).

    Args:
        measure: of `MEASURES`.
        scores: of which higher is better; NaN where missing. All that were looked at belong here,
            or the correction is too small.
        truth: of `mean_performance`.
        seed: of the permutations.
        permutations: how many are drawn.
        lower_is_better: of the measure.
    """
    sign = -1.0 if lower_is_better else 1.0
    observed = sign * over_targets(measure(scores, np.broadcast_to(truth, scores.shape)))
    rng = np.random.default_rng(seed)
    num_targets, num_sources = truth.shape
    dealt = rng.permuted(np.tile(np.arange(num_sources), (permutations, 1)), axis=1)
    within = _within_pools(dealt, ~np.isnan(truth))
    null = np.empty((len(scores), permutations))
    for block in _blocks(permutations, num_targets * num_sources**2):
        repeated = np.broadcast_to(truth, within[block].shape)
        for i, own in enumerate(scores):
            moved = np.take_along_axis(np.broadcast_to(own, repeated.shape), within[block], 2)
            null[i, block] = sign * over_targets(measure(moved, repeated))
    best = np.where(np.isnan(null), -np.inf, null).max(0, initial=-np.inf)

    def share(draws: np.ndarray) -> np.ndarray:
        # Sums in another order differ by rounding: equal values must not look smaller.
        reached = (draws >= observed[:, None] - 1e-9).sum(1)
        return np.where(np.isnan(observed), np.nan, (1 + reached) / (1 + permutations))

    alone = share(null)
    return PValues(alone, share(np.broadcast_to(best, null.shape)), holm(alone))


def holm(p_values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Holm's step-down correction for many tests; NaN stays and counts as no test. Holm 1979."""
    order = np.argsort(p_values)
    number = int((~np.isnan(p_values)).sum())
    stepped = p_values[order][:number] * (number - np.arange(number))
    corrected = np.full_like(p_values, np.nan)
    corrected[order[:number]] = np.minimum(np.maximum.accumulate(stepped), 1)
    return corrected


def agreement(
    scores: Mapping[str, Float[np.ndarray, "t s"]],
    performance: Float[np.ndarray, "t s n"],
    *,
    seed: int,
    measures: Mapping[str, Measure] = MEASURES,
    draws: int = 1000,
    permutations: int = 5000,
    over: Collection[str] = UNITS,
) -> dict[tuple[str, str], Evidence]:
    """How well several scores rank the sources of several targets, by several measures.

    Args:
        scores: by name, of which higher is better; NaN where missing. P-values are corrected for
            all of them, within a measure.
        performance: as for `mean_performance`.
        seed: of draws and permutations.
        measures: by name.
        draws, permutations: how many.
        over: units of the bootstrap.

    Returns:
        By (score, measure).
    """
    names = list(scores)
    stacked = np.stack([scores[name] for name in names])
    truth = mean_performance(performance)
    found = {}
    for label, measure in measures.items():
        drawn = bootstrap_agreement(
            measure, stacked, performance, seed=seed, draws=draws, over=over
        )
        p = permutation_p_values(
            measure,
            stacked,
            truth,
            seed=seed,
            permutations=permutations,
            lower_is_better=label in LOWER_IS_BETTER,
        )
        for i, name in enumerate(names):
            pool, values, span = pool_of(stacked[i], truth), measure(stacked[i], truth), drawn[i]
            ends = interval(span)
            found[name, label] = Evidence(
                value=float(over_targets(values)),
                low=float(ends.low),
                high=float(ends.high),
                undefined_draws=float(ends.undefined),
                p=float(p.alone[i]),
                p_max=float(p.maximum[i]),
                p_holm=float(p.holm[i]),
                per_target=tuple(map(float, values)),
                missing=int(pool.missing.sum()),
                constant=int((pool.constant & ~pool.undefined).sum()),
                undefined=int(pool.undefined.sum()),
            )
    return found


def _subjects(performance: np.ndarray) -> Bool[np.ndarray, "t n"]:
    """Which subjects each target has; the same for all of its sources."""
    if number := int(np.isinf(performance).sum()):
        raise ValueError(f"performance must be finite, or NaN: {number} values are infinite")
    known = ~np.isnan(performance)
    subjects = known.any(1)
    tried = known.any(2)
    different = (tried[:, :, None] & (known != subjects[:, None, :])).any((1, 2))
    if different.any():
        raise ValueError(
            "sources of one target must be tested on the same subjects: "
            f"{int(different.sum())} of {len(different)} targets' are not"
        )
    return subjects


def _weighted_truth(
    performance: np.ndarray, weights: Float[np.ndarray, "d t n"]
) -> Float[np.ndarray, "d t s"]:
    """Means over subjects as often as each was drawn."""
    tried = ~np.isnan(performance).all(2)
    total = weights.sum(2)[:, :, None]
    sums = np.einsum("dtn,tsn->dts", weights, np.nan_to_num(performance))
    return np.where(tried[None], sums / np.where(total > 0, total, 1), np.nan)


def _drawn(rng: np.random.Generator, there: np.ndarray, draws: int) -> Float[np.ndarray, "d n"]:
    """How often each draw holds each of a target's subjects."""
    number = int(there.sum())
    if not number:
        return np.zeros((draws, len(there)))
    return rng.multinomial(number, there / number, size=draws).astype(float)


def _blocks(number: int, size: int) -> Iterator[slice]:
    """Slices of draws whose pairs of sources fit in memory."""
    step = max(1, AT_ONCE // max(size, 1))
    return (slice(start, min(start + step, number)) for start in range(0, number, step))


def _within_pools(
    dealt: Int[np.ndarray, "d s"], there: Bool[np.ndarray, "t s"]
) -> Int[np.ndarray, "d t s"]:
    """Each permutation within each target's own sources: its cycles, without the others."""
    shape = (len(dealt), *there.shape)
    steps = np.broadcast_to(dealt[:, None, :], shape)
    inside = np.broadcast_to(there[None], shape)
    found = steps
    for _ in range(there.shape[1]):
        found = np.where(
            np.take_along_axis(inside, found, 2), found, np.take_along_axis(steps, found, 2)
        )
    return found
