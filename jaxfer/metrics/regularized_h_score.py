"""Shrinkage H-score: the H-score with a covariance that fewer voxels can estimate."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.score import Score, make_score
from jaxfer.metrics.statistics import FeatureStatistics
from jaxfer.metrics.sums import product
from jaxfer.metrics.validation import num_channels

FLOAT64_EPS = float(np.finfo(np.float64).eps)


def regularized_h_score(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
) -> Score:
    """H-score with Ledoit-Wolf shrinkage a, tr(Σ_a⁻¹ (1−a) Σ_b), Σ_a = (1−a) Σ + a (tr Σ / D) I.

    Σ is the features' covariance, Σ_b that of their class means. Higher is better, within
    [0, C−1] and never above the H-score; meant for D near or above n, where the H-score is C−1
    whatever the features are. Unchanged by offsets, orthogonal maps and one common unit, but not
    by a unit for each column, and it depends on n. Ibrahim et al., arXiv 2110.06893.

    We depart from published code in that both covariances have the divisor n. It takes n−1 for
    Σ_b alone: multiply by n/(n−1) to compare.

    Args:
        features: any real values, in comparable units.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.

    Returns:
        The score; 0 for constant features, and where a is 1: no direction stands out.

    Raises:
        ValueError: shapes disagree; outside `jit`, also for labels out of range.
    """
    stats = FeatureStatistics.zeros(num_classes, num_channels(features, "features"))
    return regularized_h_score_from_statistics(stats.update(features, labels, mask=mask))


@compiled_in_float64(cast_back=True)
def regularized_h_score_from_statistics(stats: FeatureStatistics) -> Score:
    """Shrinkage H-score from moments."""
    n = jnp.maximum(stats.counts.sum(), 1)
    mean = (stats.counts[:, None] * stats.means).sum(0) / n
    variances, directions = jnp.linalg.eigh(stats.scatter / n)
    variances = jnp.maximum(variances, 0)
    strength = _strength(variances, stats.fourth, n)
    shrunken = (1 - strength) * variances + strength * variances.mean()
    kept = shrunken > variances.size * FLOAT64_EPS * variances[-1]
    between = product(stats.means - mean[None, :], directions) ** 2
    explained = (stats.counts[:, None] * between).sum(0) / n
    value = (1 - strength) * jnp.where(kept, explained / jnp.where(kept, shrunken, 1), 0).sum()
    return make_score(value, class_counts=stats.counts, n_invalid=stats.n_invalid)


@compiled_in_float64(cast_back=True)
def ledoit_wolf_shrinkage(stats: FeatureStatistics) -> Float[Array, ""]:
    """The shrinkage a in [0, 1] of Ledoit & Wolf (2004) for the covariance of all features.

    0 when there is nothing to shrink: a single column, or constant features.
    """
    n = jnp.maximum(stats.counts.sum(), 1)
    variances = jnp.maximum(jnp.linalg.eigvalsh(stats.scatter / n), 0)
    return _strength(variances, stats.fourth, n)


def _strength(
    variances: Float[Array, " d"], fourth: Float[Array, ""], n: Float[Array, ""]
) -> Float[Array, ""]:
    """Error of the sample covariance over its distance from the multiple of I.

    Args:
        variances: eigenvalues of the covariance.
        fourth: Σ ‖f − f̄‖⁴.
        n: voxels.
    """
    if variances.size == 1:
        return jnp.zeros((), jnp.float64)
    error = jnp.maximum(fourth / n - (variances**2).sum(), 0) / n
    distance = ((variances - variances.mean()) ** 2).sum()
    share = error / jnp.where(distance > 0, distance, 1)
    return jnp.where(error < distance, share, jnp.where(error > 0, 1.0, 0.0))


CARD = Metric(
    name="regularized_h_score",
    meaning="spread of the classes' mean features, in units of a shrunken covariance",
    needs="features",
    direction="higher",
    range="[0, C-1]",
    comparable="within one target, the same n for every source",
    cost="O(n D² + D³), one pass",
    reference="Ibrahim et al., Newer is not always better, arXiv 2110.06893; shrinkage of "
    "Ledoit & Wolf, J. Multivariate Analysis 2004",
    departure="the divisor n in both covariances (published code: n-1 in one, a factor n/(n-1))",
    compute=regularized_h_score,
    statistics=FeatureStatistics,
    finalise=regularized_h_score_from_statistics,
)
