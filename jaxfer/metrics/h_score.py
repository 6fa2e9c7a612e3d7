"""H-score: how much of the features' spread lies between the target's classes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.statistics import FeatureStatistics
from jaxfer.metrics.sums import product
from jaxfer.metrics.validation import num_channels

FLOAT32_EPS = float(np.finfo(np.float32).eps)
FLOAT64_EPS = float(np.finfo(np.float64).eps)


def h_score(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
) -> Score:
    """H-score, tr(cov(f)⁺ cov(E[f|y])).

    Higher is better, within [0, min(C−1, D)]; unchanged by invertible linear maps of the features,
    by an offset and by repeating every voxel. Bao et al., ICIP 2019. With D ≥ n−1 features it is
    C−1 whatever the features are: flagged `SATURATED`.

    We depart from published code in what the pseudo-inverse drops: not what lies below a fixed
    cut-off, which decides the value when features are nearly dependent, but what rounding the
    features to float32 would have made by itself (see `h_score_from_statistics`).

    Args:
        features: any real values, any unit.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.

    Returns:
        The score; 0 for constant features.

    Raises:
        ValueError: shapes disagree; outside `jit`, also for labels out of range.
    """
    stats = FeatureStatistics.zeros(num_classes, num_channels(features, "features"))
    return h_score_from_statistics(stats.update(features, labels, mask=mask))


@compiled_in_float64(cast_back=True)
def h_score_from_statistics(stats: FeatureStatistics) -> Score:
    """H-score from moments.

    The score does not change when columns are scaled, so every column is scaled to unit variance
    first: an ill-chosen unit then costs no digits. A direction v is kept when its variance exceeds
    both vᵀNv, with N the variance that rounding each column to float32 adds to it, and the
    rounding of the eigenvalues themselves.
    """
    n = stats.counts.sum()
    num_features = stats.means.shape[-1]
    mean = (stats.counts[:, None] * stats.means).sum(0) / jnp.maximum(n, 1)
    spread = jnp.diagonal(stats.scatter)
    rounding = FLOAT32_EPS**2 * (spread + n * mean**2)
    varies = spread > rounding
    scale = jnp.where(varies, 1 / jnp.sqrt(jnp.where(varies, spread, 1)), 0)
    variance, directions = jnp.linalg.eigh(scale[:, None] * stats.scatter * scale[None, :])
    noise = ((scale**2 * rounding)[:, None] * directions**2).sum(0)
    kept = variance > jnp.maximum(noise, num_features * FLOAT64_EPS * variance[-1])

    offsets = scale[None, :] * (stats.means - mean[None, :])
    between = jnp.sqrt(stats.counts)[:, None] * product(offsets, directions)
    explained = (between**2).sum(0) / jnp.where(kept, variance, 1)
    value = jnp.where(kept, explained, 0).sum()
    return make_score(
        value,
        class_counts=stats.counts,
        n_invalid=stats.n_invalid,
        flags=flag_where(num_features >= n - 1, Flag.SATURATED),
    )


CARD = Metric(
    name="h_score",
    meaning="spread of the classes' mean features, in units of the features' covariance",
    needs="features",
    direction="higher",
    range="[0, min(C-1, D)]",
    comparable="within one target, any source with D well below n",
    cost="O(n D² + D³), one pass",
    reference="Bao et al., An Information-Theoretic Approach to Transferability, ICIP 2019",
    departure="the pseudo-inverse drops what float32 rounding alone would have made, instead "
    "of a fixed cut-off; D >= n-1, where the score is C-1 whatever the features, is flagged",
    compute=h_score,
    statistics=FeatureStatistics,
    finalise=h_score_from_statistics,
)
