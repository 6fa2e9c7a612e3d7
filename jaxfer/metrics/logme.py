"""LogME: the evidence of the target's labels under a Bayesian linear model of the features."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.statistics import FeatureStatistics
from jaxfer.metrics.sums import product
from jaxfer.metrics.validation import num_channels

FLOAT64_EPS = float(np.finfo(np.float64).eps)
EPSILON = 1e-5
"""Added to both denominators of the fixed point, as in the published code: it keeps the noise
precision β finite when the features fit a class perfectly."""


def logme(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    max_rounds: int = 11,
    tolerance: float = 1e-3,
) -> Score:
    """Log of maximum evidence per voxel, averaged over the one-vs-rest targets of present classes.

    Higher is better, unbounded on both sides, no probability; compares only within one target.
    Unchanged by orthogonal maps and by columns of zeros. There is no intercept and no centring, so
    an offset of the features matters. You et al., ICML 2021; fixed point of arXiv 2110.10545.

    We depart from published code in two ways. Its log-determinant has D terms in one place and as
    many as there are singular values in another, which is far too high when D > n; here D cancels.
    And an absent class, whose all-zero target is "explained" perfectly, is left out of the mean.
    The stopping rule is the published one, at which scores still depend on the features' unit; for
    the optimum itself pass e.g. `max_rounds=1000, tolerance=1e-9`.

    Args:
        features: any real values.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        max_rounds: rounds of the fixed point, static.
        tolerance: a class stops when α/β moves by less than this share, static.

    Returns:
        The score in nats per voxel; flagged `NOT_CONVERGED` when a class used up its rounds,
        `PERFECT_FIT` when only `EPSILON` bounds the noise precision of a class.

    Raises:
        ValueError: shapes disagree; outside `jit`, also for labels out of range.
    """
    stats = FeatureStatistics.zeros(num_classes, num_channels(features, "features"))
    stats = stats.update(features, labels, mask=mask)
    return logme_from_statistics(stats, max_rounds=max_rounds, tolerance=tolerance)


@compiled_in_float64("max_rounds", "tolerance", cast_back=True)
def logme_from_statistics(
    stats: FeatureStatistics, *, max_rounds: int = 11, tolerance: float = 1e-3
) -> Score:
    """LogME from moments; arguments as `logme`."""
    spectrum, found = _fitted(stats, max_rounds, tolerance)
    present = stats.counts > 0
    value = jnp.where(present, found.value, 0).sum() / jnp.maximum(present.sum(), 1)
    flags = (
        flag_where(~(spectrum.power > 0).any(), Flag.ZERO_FEATURES)
        | flag_where((present & ~found.converged).any(), Flag.NOT_CONVERGED)
        | flag_where((present & (found.residual <= EPSILON)).any(), Flag.PERFECT_FIT)
    )
    return make_score(value, class_counts=stats.counts, n_invalid=stats.n_invalid, flags=flags)


class LinearModels(NamedTuple):
    """The Bayesian linear model of each class's one-vs-rest target that LogME's evidence is of.

    A row f of features has the target f · weights ± √(1/noise + Σ_k (f · directions_k)² spread_k).

    Attributes:
        weights: means of the posterior of the weights.
        directions: V, columns: eigenvectors of FᵀF.
        spread: by class and column, the posterior's variance along it.
        noise: β, the noise precision of each class.
        present: which classes there are.
    """

    weights: Float[Array, "c d"]
    directions: Float[Array, "d d"]
    spread: Float[Array, "c d"]
    noise: Float[Array, " c"]
    present: Bool[Array, " c"]


@compiled_in_float64("max_rounds", "tolerance")
def logme_models(
    stats: FeatureStatistics, *, max_rounds: int = 11, tolerance: float = 1e-3
) -> LinearModels:
    """The models behind LogME, from moments, in float64; arguments as `logme`."""
    spectrum, found = _fitted(stats, max_rounds, tolerance)
    alpha, beta = found.alpha[:, None], found.beta[:, None]
    spread = 1 / (alpha + beta * spectrum.power[None, :])
    along = jnp.where(spectrum.power[None, :] > 0, beta * spread * spectrum.projected, 0)
    return LinearModels(
        weights=product(along, spectrum.directions.T),
        directions=spectrum.directions,
        spread=spread,
        noise=found.beta,
        present=stats.counts > 0,
    )


class _Spectrum(NamedTuple):
    """Of the features and of their products with the one-vs-rest targets t.

    Attributes:
        power: σ_k, eigenvalues of FᵀF, 0 where dropped.
        directions: V, their eigenvectors.
        projected: (Vᵀ Fᵀ t)_k of every class.
    """

    power: Float[Array, " d"]
    directions: Float[Array, "d d"]
    projected: Float[Array, "c d"]


class _Evidence(NamedTuple):
    value: Float[Array, ""]
    residual: Float[Array, ""]
    converged: Bool[Array, ""]
    alpha: Float[Array, ""]
    beta: Float[Array, ""]


def _fitted(
    stats: FeatureStatistics, max_rounds: int, tolerance: float
) -> tuple[_Spectrum, _Evidence]:
    """The evidence of every class's target, with what it was made of."""
    n = stats.counts.sum()
    sums = stats.counts[:, None] * stats.means
    mean = sums.sum(0) / jnp.maximum(n, 1)
    power, directions = jnp.linalg.eigh(stats.scatter + n * mean[:, None] * mean[None, :])
    kept = power > stats.means.shape[-1] * FLOAT64_EPS * power[-1]
    power = jnp.where(kept, power, 0)
    projected = product(sums, directions)
    squares = jnp.where(kept[None, :], projected**2 / jnp.where(kept, power, 1)[None, :], 0)

    def evidence(target: Float[Array, " d"], size: Float[Array, ""]) -> _Evidence:
        return _maximise(power, kept.sum(), target, size, n, max_rounds, tolerance)

    return _Spectrum(power, directions, projected), jax.vmap(evidence)(squares, stats.counts)


class _Round(NamedTuple):
    done: Int[Array, ""]
    alpha: Float[Array, ""]
    beta: Float[Array, ""]
    weights: Float[Array, ""]
    residual: Float[Array, ""]
    converged: Bool[Array, ""]


def _maximise(
    power: Float[Array, " d"],
    rank: Int[Array, ""],
    target: Float[Array, " d"],
    size: Float[Array, ""],
    n: Float[Array, ""],
    max_rounds: int,
    tolerance: float,
) -> _Evidence:
    """The evidence of one target, maximised over the prior precision α and the noise precision β.

    Args:
        power: σ_k, eigenvalues of FᵀF, 0 where dropped.
        rank: how many are not.
        target: x_k², squares of the target's coordinates along the left singular vectors.
        size: ‖t‖².
        n: voxels.
    """
    unexplained = jnp.maximum(size - target.sum(), 0)

    def improve(state: _Round) -> _Round:
        ratio = state.alpha / state.beta
        # n − γ without the cancellation: the rounding of n − Σ σ/(σ+r) could make it negative.
        free = n - rank + jnp.where(power > 0, ratio / (power + ratio), 0).sum()
        weights = (power * target / (power + ratio) ** 2).sum()
        residual = (target * (ratio / (power + ratio)) ** 2).sum() + unexplained
        alpha = (power / (power + ratio)).sum() / (weights + EPSILON)
        beta = free / (residual + EPSILON)
        converged = jnp.abs(alpha / beta - ratio) <= tolerance * ratio
        return _Round(state.done + 1, alpha, beta, weights, residual, converged)

    def unfinished(state: _Round) -> Bool[Array, ""]:
        return (state.done < max_rounds) & ~state.converged

    zero, one = jnp.zeros((), jnp.float64), jnp.ones((), jnp.float64)
    start = _Round(jnp.zeros((), jnp.int32), one, one, zero, zero, jnp.zeros((), bool))
    end = jax.lax.while_loop(unfinished, improve, start)
    value = (
        n * jnp.log(end.beta)
        - jnp.log1p(power * end.beta / end.alpha).sum()
        - end.beta * end.residual
        - end.alpha * end.weights
        - n * jnp.log(2 * jnp.pi)
    ) / (2 * jnp.maximum(n, 1))
    return _Evidence(value, end.residual, end.converged, end.alpha, end.beta)


CARD = Metric(
    name="logme",
    meaning="evidence for a linear model from the features to the labels",
    needs="features",
    direction="higher",
    range="unbounded, nats per voxel",
    comparable="within one target, the same n for every source",
    cost="O(n D² + D³), one pass",
    reference="You et al., LogME, ICML 2021, arXiv 2102.11005; fixed point of arXiv 2110.10545",
    departure="the log-determinant in which D cancels (published fixed point: far too high "
    "when D > n); absent classes are left out (elsewhere they pull the mean up)",
    compute=logme,
    statistics=FeatureStatistics,
    finalise=logme_from_statistics,
)
