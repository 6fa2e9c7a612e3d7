"""How far scores and ranks would move with other subjects: the subject is what is drawn again.

    key = jax.random.key(0)
    scores = jnp.stack([bootstrap(stacked, h_score_from_statistics, key) for stacked in sources])
    interval(scores[0])                     of one source
    interval(scores[0] - scores[1])         of a difference: both had the same subjects
    probability_best(scores, sign=metric("h_score").sign)

A draw costs no voxel: the statistics of each subject are pooled with the weights of the draw.
Statistics of one subject's cases are merged first, since its cases are not independent.

Two-pass scores (LEEP, LDA) are bootstrapped from the statistics of the second pass, which keeps
what the first one found, LEEP's table P(y|z) or LDA's classifier, as of all subjects. A table of
every draw's own would need every voxel again for every draw. So the interval tells how the score
of *that* table varies with the subjects, and is a little too narrow; `leep_lower_bound`, of the
first pass alone, is bootstrapped with its table.

Intervals of a handful of subjects are too narrow, as percentile intervals are: a lower bound of
what is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.score import Score

DRAWS = 1_000
AT_ONCE = 8
"""Draws that are pooled at the same time: each holds a copy of every subject's scatter."""


class Interval(NamedTuple):
    """A percentile interval.

    Attributes:
        low: its lower end; NaN when no draw has a score.
        high: its upper end.
        undefined: share of the draws without a score, which are left out.
    """

    low: Float[Array, ""]
    high: Float[Array, ""]
    undefined: Float[Array, ""]


@compiled_in_float64("subjects", "draws")
def subject_draws(
    key: PRNGKeyArray, *, subjects: int, draws: int = DRAWS
) -> Int[Array, "draws subjects"]:
    """How often each draw holds each subject; the same for the same key and number of subjects."""
    chosen = jax.random.randint(key, (draws, subjects), 0, subjects, jnp.int32)
    return jax.vmap(lambda row: jnp.bincount(row, length=subjects))(chosen).astype(jnp.int32)


@compiled_in_float64("finalise", "draws", cast_back=True)
def bootstrap(
    stacked: Any,
    finalise: Callable[[Any], Score],
    key: PRNGKeyArray,
    draws: int = DRAWS,
) -> Float[Array, " draws"]:
    """Scores of samples of subjects, drawn with replacement, as many as there are.

    Args:
        stacked: statistics of one kind, a row for each subject.
        finalise: the score of the pooled statistics, e.g. `h_score_from_statistics`. Compiled
            once for each function: name it, rather than making a new one for every call.
        key: the same key draws the same subjects, so that sources are compared in pairs.
        draws: how many, static.

    Returns:
        A score for each draw; NaN where it is not defined, e.g. without a class that few subjects
        have. All NaN with fewer than two subjects, of which nothing can be said.
    """
    subjects = jax.tree.leaves(stacked)[0].shape[0]
    if subjects < 2:
        return jnp.full((draws,), jnp.nan, jnp.float64)

    def score(weights: Int[Array, " k"]) -> Float[Array, ""]:
        return finalise(stacked.pool(weights)).score

    weights = subject_draws(key, subjects=subjects, draws=draws)
    return jax.lax.map(score, weights, batch_size=AT_ONCE)


def interval(scores: Float[AnyArray, " draws"], level: float = 0.95) -> Interval:
    """Percentile interval of the draws.

    Args:
        scores: of `bootstrap`, or a difference of two sources' with one key.
        level: probability in (0, 1) that the interval claims to cover.

    Raises:
        ValueError: the level is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, found {level}")
    return _interval(scores, level)


@compiled_in_float64(cast_back=True)
def _interval(scores: Float[AnyArray, " draws"], level: float | Array) -> Interval:
    scores = jnp.asarray(scores).astype(jnp.float64)
    tail = (1 - level) / 2
    low, high = (jnp.nanquantile(scores, q) for q in (tail, 1 - tail))
    return Interval(low, high, jnp.isnan(scores).mean(dtype=jnp.float64))


@compiled_in_float64("sign", cast_back=True)
def probability_best(
    scores: Float[AnyArray, "sources draws"], sign: int = 1
) -> Float[Array, " sources"]:
    """The share of the draws in which each source has the best score.

    Args:
        scores: of `bootstrap`, every source with the same key.
        sign: 1 where higher is better, −1 where lower is, as `Metric.sign`.

    Returns:
        Shares that sum to 1. Equal scores share a draw; one without a score loses it; a draw
        without any score is left out. All NaN when no draw has one.
    """
    scores = sign * jnp.asarray(scores).astype(jnp.float64)
    defined = ~jnp.isnan(scores)
    oriented = jnp.where(defined, scores, -jnp.inf)
    best = defined & (oriented == oriented.max(0, keepdims=True))
    winners = best.sum(0, keepdims=True)
    shares = jnp.where(winners > 0, best / jnp.maximum(winners, 1), 0)
    return shares.sum(1) / (winners > 0).sum()
