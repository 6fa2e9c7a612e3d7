"""How well a score ranks: agreement of scores with what fine-tuning truly gave.

    truth = performance.mean(-1)                    # of targets by sources by subjects
    value = kendall(scores, truth)                  # a value for each target
    over_targets(value)

Always within a target, then the plain mean over targets: pooled, the targets' own difficulty would
drive everything; and Fisher's z is infinite at ±1, which few sources reach by chance.

Every measure takes scores of which higher is better (multiply by `Metric.sign`) and works on the
last axis, so that all targets, draws and permutations are one call. Rules that all of them share:

- No truth (NaN): the source is not in the target's pool.
- No score (NaN) but a truth: a *missing* source. Correlations leave it out, as the pair it is;
  Rel@k and regret@1 rank it last, as the ranking does, so that nothing is won by not scoring.
- Scores that are constant, or fewer than two, have correlation 0, and are counted (`Pool`).
- A pool of fewer than two, or whose truth is constant, has nothing to rank: NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import comb

Scores = Float[np.ndarray, "*k s"]
Truth = Float[np.ndarray, "*k s"]
Values = Float[np.ndarray, "*k"]


class Pool(NamedTuple):
    """What there was to rank, for each target.

    Attributes:
        sources: those with a truth.
        missing: those of them without a score.
        constant: the scores that are there do not differ or are fewer than two, or the truths
            beside them do not differ: no correlation, which counts as 0.
        undefined: fewer than two sources, or their truth does not differ.
    """

    sources: Int[np.ndarray, "*k"]
    missing: Int[np.ndarray, "*k"]
    constant: Bool[np.ndarray, "*k"]
    undefined: Bool[np.ndarray, "*k"]


def pool_of(scores: Scores, truth: Truth) -> Pool:
    """Counts what the measures leave out or call 0.

    Raises:
        ValueError: a score or a truth is infinite, or the shapes differ.
    """
    _check(scores, truth)
    there = ~np.isnan(truth)
    paired = there & ~np.isnan(scores)
    return Pool(
        sources=np.asarray(there.sum(-1)),
        missing=np.asarray((there & ~paired).sum(-1)),
        constant=_constant(scores, paired) | _constant(truth, paired),
        undefined=_constant(truth, there),
    )


def pearson(scores: Scores, truth: Truth) -> Values:
    """Pearson's r of each row, in [−1, 1]."""
    paired, undefined = _paired(scores, truth)
    return _correlation(scores, truth, paired, undefined)


def spearman(scores: Scores, truth: Truth) -> Values:
    """Spearman's ρ of each row, in [−1, 1]: Pearson's r of the mid-ranks."""
    paired, undefined = _paired(scores, truth)
    return _correlation(_mid_ranks(scores, paired), _mid_ranks(truth, paired), paired, undefined)


def kendall(scores: Scores, truth: Truth) -> Values:
    """Kendall's τ-b of each row, in [−1, 1]."""
    paired, undefined = _paired(scores, truth)
    weights = (paired[..., :, None] & paired[..., None, :]).astype(float)
    return _tau(scores, truth, weights, undefined)


def weighted_kendall(scores: Scores, truth: Truth) -> Values:
    """Weighted Kendall τ of each row, in [−1, 1]: the best places count most.

    The convention of `scipy.stats.weightedtau` by default: a pair weighs 1/(1 + r_i) + 1/(1 + r_j)
    with rank r = 0 for the best; the mean of two values, with ranks by the scores (equals by the
    truth) and with ranks by the truth (equals by the scores). Vigna, WWW 2015. Other papers rank by
    the truth alone: their values differ.
    """
    paired, undefined = _paired(scores, truth)
    both = paired[..., :, None] & paired[..., None, :]
    found = []
    for first, second in ((scores, truth), (truth, scores)):
        hyperbolic = 1 / (1 + _places(first, second, both))
        weights = np.where(both, hyperbolic[..., :, None] + hyperbolic[..., None, :], 0)
        found.append(_tau(scores, truth, weights, undefined))
    return np.asarray((found[0] + found[1]) / 2)


def rel_at(scores: Scores, truth: Truth, *, k: int) -> Values:
    """Rel@k of each row: the best truth among the k best scores, over the best of all.

    Equal scores: the expected value over all orders of the equals. 1 at best. NaN where the best
    truth is not above 0.

    Raises:
        ValueError: k is under 1.
    """
    best, of_top = _best_and_top(scores, truth, k)
    return np.asarray(of_top / np.where(best > 0, best, np.nan))


def regret_at_1(scores: Scores, truth: Truth) -> Values:
    """What is lost of each row by taking the source with the best score, in the truth's unit.

    Equal scores: the expected value over all orders of the equals. 0 at best, lower is better.
    """
    best, of_top = _best_and_top(scores, truth, 1)
    return np.asarray(best - of_top)


Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "pearson": pearson,
        "spearman": spearman,
        "kendall": kendall,
        "weighted_kendall": weighted_kendall,
        "rel_at_1": partial(rel_at, k=1),
        "rel_at_3": partial(rel_at, k=3),
        "regret_at_1": regret_at_1,
    }
)
"""Measures by name; of all but the last, higher is better."""

LOWER_IS_BETTER = frozenset({"regret_at_1"})


def over_targets(values: Float[np.ndarray, "*k t"]) -> Values:
    """The plain mean over the targets with a value; NaN without any."""
    defined = ~np.isnan(values)
    number = defined.sum(-1)
    total = np.where(defined, values, 0).sum(-1)
    return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))


def _check(scores: np.ndarray, truth: np.ndarray) -> None:
    if scores.shape != truth.shape:
        raise ValueError(f"scores and truth must have one shape: {scores.shape} != {truth.shape}")
    for name, values in (("scores", scores), ("truth", truth)):
        if (number := int(np.isinf(values).sum())) > 0:
            raise ValueError(f"{name} must be finite, or NaN where missing: {number} are infinite")


def _constant(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fewer than two values under the mask, or equal ones."""
    high = np.where(mask, values, -np.inf).max(-1, initial=-np.inf)
    low = np.where(mask, values, np.inf).min(-1, initial=np.inf)
    return np.asarray(~(high > low))


def _paired(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sources with both, and the rows that have nothing to rank."""
    _check(scores, truth)
    there = ~np.isnan(truth)
    return there & ~np.isnan(scores), _constant(truth, there)


def _finish(
    value: np.ndarray | np.floating, scale: np.ndarray | np.floating, undefined: np.ndarray
) -> np.ndarray:
    """The ratio; 0 for what does not vary, NaN for what cannot be ranked."""
    ratio = np.where(scale > 0, value / np.where(scale > 0, scale, 1), 0)
    return np.asarray(np.where(undefined, np.nan, np.clip(ratio, -1, 1)))


def _correlation(
    x: np.ndarray, y: np.ndarray, paired: np.ndarray, undefined: np.ndarray
) -> np.ndarray:
    number = np.maximum(paired.sum(-1, keepdims=True), 1)

    def unit(values: np.ndarray) -> np.ndarray:
        """Centred, of length 1; all zeros where nothing varies, whatever rounding makes of it."""
        values = np.where(paired, values, 0)
        # Divided first: the squares of small numbers vanish.
        centred = np.where(paired, values - values.sum(-1, keepdims=True) / number, 0)
        largest = np.abs(centred).max(-1, keepdims=True, initial=0)
        centred = centred / np.where(largest > 0, largest, 1)
        length = np.sqrt((centred**2).sum(-1, keepdims=True))
        varies = ~_constant(values, paired)[..., None]
        return np.where(varies, centred / np.where(length > 0, length, 1), 0)

    value = (unit(x) * unit(y)).sum(-1)
    return _finish(value, np.ones_like(value), undefined)


def _mid_ranks(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Ranks from the lowest among those under the mask; equals share the mean."""
    among = mask[..., None, :]
    below = (among & (values[..., None, :] < values[..., :, None])).sum(-1)
    equal = (among & (values[..., None, :] == values[..., :, None])).sum(-1)
    return below + (equal - 1) / 2


def _places(first: np.ndarray, second: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Places from the best, 0, by the first, then by the second, then as they stand.

    Equals in both stand in an order of no consequence: they compare alike with every other.
    """
    later = np.tri(first.shape[-1], k=-1, dtype=bool)
    own, other = first[..., :, None], first[..., None, :]
    own2, other2 = second[..., :, None], second[..., None, :]
    better = (other > own) | ((other == own) & ((other2 > own2) | ((other2 == own2) & later)))
    return (both & better).sum(-1)


def _tau(
    scores: np.ndarray, truth: np.ndarray, weights: np.ndarray, undefined: np.ndarray
) -> np.ndarray:
    """Σ w sgn·sgn / √(Σ w sgn² · Σ w sgn²) over pairs, where equals have sign 0."""
    x, y = (
        np.sign(np.nan_to_num(v)[..., :, None] - np.nan_to_num(v)[..., None, :])
        for v in (scores, truth)
    )
    value = (weights * x * y).sum((-2, -1))
    scale = np.sqrt((weights * x**2).sum((-2, -1))) * np.sqrt((weights * y**2).sum((-2, -1)))
    return _finish(value, scale, undefined)


def _best_and_top(scores: np.ndarray, truth: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best truth of each row, and the expected best among the k best scores."""
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")
    _check(scores, truth)
    there = ~np.isnan(truth)
    undefined = there.sum(-1) < 2
    # What has no score comes last, equal among themselves.
    s = np.where(there & ~np.isnan(scores), scores, -np.inf)
    among = there[..., None, :]
    above = (among & (s[..., None, :] > s[..., :, None])).sum(-1)
    equal = (among & (s[..., None, :] == s[..., :, None])).sum(-1)
    sure = there & (above + equal <= k)
    # The equals among which the last of the k places are drawn.
    drawn = there & (above < k) & (k < above + equal)
    low = np.where(there, truth, -np.inf)
    certain = np.where(sure, low, -np.inf).max(-1, keepdims=True, initial=-np.inf)
    place = 1 + _places(low, low, drawn[..., :, None] & drawn[..., None, :])
    seats, of_them = np.where(drawn, k - above, 1), np.where(drawn, equal, 1)
    chance = np.where(drawn, comb(of_them - place, seats - 1) / comb(of_them, seats), 0)
    with_draw = np.where(drawn, chance * np.where(drawn, np.maximum(low, certain), 0), 0).sum(-1)
    of_top = np.where(drawn.any(-1), with_draw, certain[..., 0])
    best = low.max(-1, initial=-np.inf)
    return np.where(undefined, np.nan, best), np.where(undefined, np.nan, of_top)
