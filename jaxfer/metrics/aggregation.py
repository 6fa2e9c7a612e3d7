"""One order out of several scores: Borda's mean place, and the mean z-score within the pool.

Both compare the sources of one pool with each other, so that another pool has other values. Higher
is better. Every score counts the same. NaN is a missing score: of a score that *must* be there it
counts as the worst of the pool, so that nothing is won by not being scored; of a `neutral` one,
which may be unknown without anybody's fault, it counts neither for nor against.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

Scores = Float[np.ndarray, "*k m s"]
Values = Float[np.ndarray, "*k s"]


def borda(scores: Scores, neutral: Bool[np.ndarray, " n"]) -> Values:
    """The share of the other sources that a source beats, mean over the scores.

    Equal scores share a place: each counts as half beaten by the other. Those without a score
    stand behind all that have one, equal among themselves.

    Args:
        scores: m scores of s sources, each oriented so that higher is better.
        neutral: of each score, whether a missing value counts as the middle, one half.

    Returns:
        1 for the best by every score, 0 for the worst; one half for the only source of a pool.
    """
    _check(scores, neutral)
    number = scores.shape[-1]
    if number < 2:
        return np.full((*scores.shape[:-2], number), 0.5)
    absent = np.isnan(scores)
    ordered = np.where(absent, -np.inf, scores)
    mine, theirs = ordered[..., :, None], ordered[..., None, :]
    known = ~(neutral[:, None] & absent)
    # Where a missing value is neutral, its source takes no part: neither beats nor is beaten.
    pairs = known[..., :, None] & known[..., None, :] & ~np.eye(number, dtype=bool)
    beaten = np.where(pairs, (mine > theirs) + 0.5 * (mine == theirs), 0).sum(-1)
    against = pairs.sum(-1)
    points = np.where(known & (against > 0), beaten / np.maximum(against, 1), 0.5)
    return np.asarray(points.mean(-2))


def mean_z(scores: Scores, neutral: Bool[np.ndarray, " n"]) -> Values:
    """The mean over the scores of each one's z-score within the pool.

    A score that does not vary says nothing: 0 for all. Unlike places, z-scores keep how far sources
    are apart, and one outlier can outweigh all else.

    Args:
        scores: m scores of s sources, each oriented so that higher is better.
        neutral: of each score, whether a missing value counts as the mean, 0.
    """
    _check(scores, neutral)
    known = ~np.isnan(scores)
    number = np.maximum(known.sum(-1, keepdims=True), 1)
    mean = np.where(known, scores, 0).sum(-1, keepdims=True) / number
    gaps = np.where(known, scores - mean, 0)
    spread = np.sqrt((gaps**2).sum(-1, keepdims=True) / number)
    # What rounding makes of equal scores is no spread.
    varies = spread > 1e-12 * np.maximum(np.abs(mean), np.finfo(float).tiny)
    z = np.where(varies, gaps / np.where(varies, spread, 1), 0)
    filled = np.where(known | neutral[:, None], z, z.min(-1, keepdims=True))
    return np.asarray(filled.mean(-2))


def _check(scores: Scores, neutral: Bool[np.ndarray, " n"]) -> None:
    if neutral.shape != scores.shape[-2:-1]:
        raise ValueError(f"neutral must name each of {scores.shape[-2]} scores: {neutral.shape}")
    if np.isinf(scores).any():
        raise ValueError("scores must be finite, or NaN where they are missing")
