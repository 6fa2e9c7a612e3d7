"""What a study says of a claim: holds, does not hold, or cannot be told; and how sure its truth is.

The rule stands before any number is seen: a claim is a number that is above 0 if it is right; it
*holds* if the 95 % bootstrap interval over targets, sources and subjects lies above 0, *does not
hold* if it lies below, and *cannot be told* otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxfer.metrics.agreement import Measure, over_targets
from jaxfer.metrics.agreement_evidence import mean_performance, resampled
from jaxfer.metrics.uncertainty import interval

FEWEST = 3
"""Sources without which a pool is not ranked: two are in order or not, and nothing between."""

MOST_UNDEFINED = 0.05
"""Share of the draws that may say nothing, lest those that do are a choice of their own."""

Pool = Bool[np.ndarray, "t s"]
Statistic = Callable[
    [Float[np.ndarray, "t s"], Int[np.ndarray, " t"], Int[np.ndarray, " s"]],
    Float[np.ndarray, " t"],
]
"""From the truth of drawn targets and sources, and their numbers, to a value for each target."""


class Claim(NamedTuple):
    """What became of a claim.

    Attributes:
        value: mean over the targets; NaN where none says anything.
        low, high: its 95 % percentile interval.
        undefined_draws: share of the draws in which no target said anything.
        per_target: the value of each target; NaN where it says nothing.
        verdict: 'holds', 'does not hold' or 'cannot be told'.
    """

    value: float
    low: float
    high: float
    undefined_draws: float
    per_target: tuple[float, ...]
    verdict: str


def verdict(low: float, high: float, undefined: float = 0.0) -> str:
    """What an interval says; nothing if too many draws said nothing."""
    if not undefined <= MOST_UNDEFINED:
        return "cannot be told"
    if low > 0:
        return "holds"
    return "does not hold" if high < 0 else "cannot be told"


def judged(
    statistic: Statistic,
    performance: Float[np.ndarray, "t s n"],
    *,
    seed: int,
    draws: int = 1000,
) -> Claim:
    """A claim's number, its interval and what follows.

    Args:
        statistic: above 0 where the claim is right.
        performance: as for `mean_performance`.
        seed: of the draws; equal seeds draw the same.
        draws: how many.
    """
    targets, sources = np.arange(performance.shape[0]), np.arange(performance.shape[1])
    per_target = statistic(mean_performance(performance), targets, sources)
    drawn = resampled(performance, seed=seed, draws=draws)
    found = np.array(
        [
            over_targets(statistic(truth, rows, columns))
            for rows, columns, truth in zip(*drawn, strict=True)
        ]
    )
    ends = interval(found)
    low, high, undefined = float(ends.low), float(ends.high), float(ends.undefined)
    return Claim(
        value=float(over_targets(per_target)),
        low=low,
        high=high,
        undefined_draws=undefined,
        per_target=tuple(map(float, per_target)),
        verdict=verdict(low, high, undefined),
    )


def difference(first: Pool, second: Pool) -> Statistic:
    """How much better the sources of one group are than those of another, in the truth's unit.

    A target without a source in either group says nothing.
    """

    def statistic(
        truth: Float[np.ndarray, "t s"], rows: Int[np.ndarray, " t"], columns: Int[np.ndarray, " s"]
    ) -> Float[np.ndarray, " t"]:
        a, b = (_mean(truth, group[rows][:, columns]) for group in (first, second))
        return np.asarray(a - b)

    return statistic


def within(measure: Measure, scores: Float[np.ndarray, "t s"], pool: Pool) -> Statistic:
    """Agreement of a score, of which higher is better, with the truth among a pool's sources."""

    def statistic(
        truth: Float[np.ndarray, "t s"], rows: Int[np.ndarray, " t"], columns: Int[np.ndarray, " s"]
    ) -> Float[np.ndarray, " t"]:
        inside = np.where(pool[rows][:, columns], truth, np.nan)
        return _in_pools(measure, scores[rows][:, columns], inside, columns)

    return statistic


def lift(
    measure: Measure,
    scores: Float[np.ndarray, "m t s"],
    kept: Pool,
    *,
    seed: int,
    subsets: int = 20,
) -> Statistic:
    """How much better scores rank what a filter kept than random subsets of the same size.

    Fewer sources alone change an agreement, so that the whole pool is no control. The mean over the
    scores.

    Args:
        measure: of which higher is better.
        scores: of which higher is better.
        kept: what the filter keeps of all sources.
        seed: of the subsets.
        subsets: how many random ones each target and draw has.
    """

    def statistic(
        truth: Float[np.ndarray, "t s"], rows: Int[np.ndarray, " t"], columns: Int[np.ndarray, " s"]
    ) -> Float[np.ndarray, " t"]:
        rng = np.random.default_rng(seed)
        there = ~np.isnan(truth)
        filtered = kept[rows][:, columns] & there
        number = filtered.sum(1)
        # The first so many of a random order of the target's own sources.
        order = np.where(there, rng.random((subsets, *truth.shape)), np.inf)
        chosen = np.argsort(np.argsort(order, -1), -1) < number[:, None]
        own = scores[:, rows][:, :, columns]
        with_filter = _in_pools(measure, own, _over(own, truth, filtered), columns)
        at_random = _in_pools(
            measure,
            np.broadcast_to(own[:, None], (len(own), *chosen.shape)),
            np.broadcast_to(np.where(chosen, truth, np.nan), (len(own), *chosen.shape)),
            columns,
        )
        gains = with_filter - _mean_of_defined(at_random, 1)
        # What keeps all sources is no filter.
        return np.where(number < there.sum(1), _mean_of_defined(gains, 0), np.nan)

    return statistic


def reliability(table: Float[np.ndarray, "s r"]) -> tuple[float, float, float, float]:
    """How well replicates agree on the order of the sources: two-way analysis of variance.

    Args:
        table: performance of each source in each replicate, which are paired: the same few-shot
            subset and seed for all sources. Rows or columns with a NaN are left out whole.

    Returns:
        Standard deviation of the sources' means; residual standard deviation of one replicate;
        reliability of one replicate and of the mean over all, ICC(C,1) and ICC(C,k) of McGraw and
        Wong 1996: 1 if replicates order the sources alike, 0 (or below) if by chance. NaN with
        fewer than two sources or replicates.
    """
    table = table[~np.isnan(table).all(1)]
    table = table[:, ~np.isnan(table).any(0)]
    sources, replicates = table.shape
    if min(sources, replicates) < 2:
        return (float("nan"),) * 4
    means = table.mean(1)
    left = table - means[:, None] - table.mean(0)[None, :] + table.mean()
    error = float((left**2).sum() / ((sources - 1) * (replicates - 1)))
    between = float(replicates * means.var(ddof=1))
    one = (between - error) / (between + (replicates - 1) * error) if between or error else np.nan
    whole = (between - error) / between if between > 0 else np.nan
    return float(means.std(ddof=1)), float(error**0.5), float(one), float(whole)


def _mean(values: Float[np.ndarray, "t s"], group: Pool) -> Float[np.ndarray, " t"]:
    return _mean_of_defined(np.where(group, values, np.nan), -1)


def _mean_of_defined(values: np.ndarray, axis: int) -> np.ndarray:
    known = ~np.isnan(values)
    number = known.sum(axis)
    total = np.where(known, values, 0).sum(axis)
    return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))


def _over(scores: np.ndarray, truth: np.ndarray, pool: Pool) -> np.ndarray:
    return np.broadcast_to(np.where(pool, truth, np.nan), scores.shape)


def _in_pools(
    measure: Measure, scores: np.ndarray, truth: np.ndarray, columns: Int[np.ndarray, " s"]
) -> np.ndarray:
    """The measure where the pool has enough *different* sources; one drawn twice is one."""
    different = np.zeros((*truth.shape[:-1], columns.max() + 1), bool)
    for place, source in enumerate(columns):
        different[..., source] |= ~np.isnan(truth[..., place])
    return np.where(different.sum(-1) >= FEWEST, measure(scores, truth), np.nan)
