"""Terms of several candidates put on one scale: what a score that depends on the pool needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxfer.metrics.precision import compiled_in_float64
from jaxfer.metrics.score import Flag, Score, flag_where

SCORE_ROUNDING = 8 * float(np.finfo(np.float32).eps)
"""Scores that differ by less than this share are equal: min-max would blow rounding up to 1."""


def pooled_total(
    terms: Mapping[str, Sequence[Score]], weights: Mapping[str, float], *, name: str
) -> Score:
    """Σ weight · (term − min) / (max − min), extremes over the candidates whose terms are numbers.

    Args:
        terms: by term, the scores of the candidates.
        weights: by term.
        name: of the total, for messages.

    Returns:
        The scores of all candidates in one `Score`: NaN for a candidate with a NaN term; a term on
        which all agree contributes 0, flagged `TIED`.

    Raises:
        ValueError: fewer than two candidates.
    """
    found = {term: list(scores) for term, scores in terms.items()}
    count = len(next(iter(found.values())))
    if count < 2:
        raise ValueError(f"{name} compares candidates: it needs at least 2, found {count}")
    stacked = {
        term: jax.tree.map(lambda *leaves: jnp.stack(leaves), *scores)
        for term, scores in found.items()
    }
    return _total(stacked, tuple(weights.items()))


@compiled_in_float64("weights", cast_back=True)
def _total(terms: dict[str, Score], weights: tuple[tuple[str, float], ...]) -> Score:
    scores = {term: found.score.astype(jnp.float64) for term, found in terms.items()}
    known = jnp.stack([jnp.isfinite(values) for values in scores.values()]).all(0)
    total, flags = jnp.zeros(known.shape, jnp.float64), jnp.zeros(known.shape, jnp.int32)
    for term, weight in weights:
        scaled, tied = _scaled(scores[term], known)
        total = total + weight * scaled
        flags = flags | flag_where(tied, Flag.TIED) | terms[term].flags
    first = terms[weights[0][0]]
    return first._replace(score=jnp.where(known, total, jnp.nan), flags=flags)


def _scaled(values: Array, known: Array) -> tuple[Float[Array, " m"], Array]:
    low = jnp.where(known, values, jnp.inf).min()
    high = jnp.where(known, values, -jnp.inf).max()
    tied = ~(high - low > SCORE_ROUNDING * jnp.maximum(jnp.abs(low), jnp.abs(high)))
    return jnp.where(tied, 0, (values - low) / jnp.where(tied, 1, high - low)), tied
