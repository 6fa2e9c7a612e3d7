"""GBC: how little the target's classes overlap, each a Gaussian in the source's features."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.class_statistics import ClassFeatureStatistics
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.sums import product
from jaxfer.metrics.validation import num_channels

Covariance = Literal["spherical", "diagonal", "full"]
COMPONENTS = 64
MIN_VARIANCE = 1e-4
"""Both as published."""
LOG_FLOAT32_MIN = float(np.log(np.finfo(np.float32).tiny))


def gbc(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    covariance: Covariance = "spherical",
    components: int = COMPONENTS,
    min_variance: float = MIN_VARIANCE,
) -> Score:
    """Gaussian Bhattacharyya coefficient, −Σ_{c≠c'} exp(−D_B(c, c')), each pair counted twice.

    D_B = ⅛ (μ−μ')ᵀ S̄⁻¹ (μ−μ') + ½ log(det S̄ / √(det S det S')), S̄ the mean of the two classes'
    covariances S, S'. Higher is better, within [−C(C−1), 0]. The counts of the classes do not
    matter. Depends on the features' unit through `min_variance`: standardise them, or compare
    sources in one unit only. Pándy et al., CVPR 2022 (arXiv 2111.12780).

    Classes that are far apart let the score round to 0, for every good source alike: flagged
    `SATURATED`. `log_gbc` orders sources as this one does, and goes on where this one ends.

    We depart from published code in that the logarithm of a spherical covariance counts D times,
    as the determinant in the paper has it (elsewhere once), and in that a class of one voxel,
    which has no covariance, is left out.

    Args:
        features: any real values, in one unit for all sources.
        labels: target classes in [0, num_classes).
        num_classes: C, static; classes with fewer than two voxels are left out and not counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        covariance: of a class: "spherical", the mean of its variances; "diagonal"; or "full".
        components: more features than these are first projected on their so many principal
            components, static.
        min_variance: floor > 0 of the variances, of the eigenvalues where "full", static.

    Returns:
        The score.

    Raises:
        ValueError: shapes disagree, or an option is none of those above; outside `jit`, also for
            labels out of range.
    """
    stats = ClassFeatureStatistics.zeros(num_classes, num_channels(features, "features"))
    stats = stats.update(features, labels, mask=mask)
    return gbc_from_statistics(
        stats, covariance=covariance, components=components, min_variance=min_variance
    )


def log_gbc(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    covariance: Covariance = "spherical",
    components: int = COMPONENTS,
    min_variance: float = MIN_VARIANCE,
) -> Score:
    """GBC without its underflow, −log Σ_{c≠c'} exp(−D_B(c, c')) = −log(−gbc).

    Higher is better, at least −log(C(C−1)), unbounded above. Orders sources as `gbc` does.
    Arguments, departures and errors are those of `gbc`.
    """
    stats = ClassFeatureStatistics.zeros(num_classes, num_channels(features, "features"))
    stats = stats.update(features, labels, mask=mask)
    return log_gbc_from_statistics(
        stats, covariance=covariance, components=components, min_variance=min_variance
    )


@compiled_in_float64("covariance", "components", "min_variance", cast_back=True)
def gbc_from_statistics(
    stats: ClassFeatureStatistics,
    *,
    covariance: Covariance = "spherical",
    components: int = COMPONENTS,
    min_variance: float = MIN_VARIANCE,
) -> Score:
    """GBC from moments; arguments as `gbc`."""
    overlap = _log_overlap(stats, covariance, components, min_variance)
    counts = _measured(stats)
    rounds_to_zero = ((counts > 0).sum() >= 2) & (overlap < LOG_FLOAT32_MIN)
    return make_score(
        -jnp.exp(overlap),
        class_counts=counts,
        n_invalid=stats.n_invalid,
        flags=flag_where(rounds_to_zero, Flag.SATURATED),
    )


@compiled_in_float64("covariance", "components", "min_variance", cast_back=True)
def log_gbc_from_statistics(
    stats: ClassFeatureStatistics,
    *,
    covariance: Covariance = "spherical",
    components: int = COMPONENTS,
    min_variance: float = MIN_VARIANCE,
) -> Score:
    """log GBC from moments; arguments as `gbc`."""
    overlap = _log_overlap(stats, covariance, components, min_variance)
    return make_score(-overlap, class_counts=_measured(stats), n_invalid=stats.n_invalid)


def _measured(stats: ClassFeatureStatistics) -> Float[Array, " c"]:
    """Voxels by class, 0 for classes without a covariance."""
    return jnp.where(stats.counts >= 2, stats.counts, 0)


def _log_overlap(
    stats: ClassFeatureStatistics, covariance: Covariance, components: int, min_variance: float
) -> Float[Array, ""]:
    """log Σ_{c≠c'} exp(−D_B(c, c')); −inf with fewer than two classes."""
    if covariance not in ("spherical", "diagonal", "full"):
        raise ValueError(
            f"covariance must be 'spherical', 'diagonal' or 'full', found {covariance!r}"
        )
    if components < 1:
        raise ValueError(f"components must be at least 1, found {components}")
    if not min_variance > 0:
        raise ValueError(f"min_variance must be above 0, found {min_variance}")
    means = stats.means
    covariances = stats.scatters / jnp.maximum(stats.counts, 1)[:, None, None]
    if means.shape[1] > components:
        axes = jnp.linalg.eigh(stats.features().scatter)[1][:, -components:]
        means = product(means, axes)
        covariances = jax.vmap(lambda matrix: product(axes.T, product(matrix, axes)))(covariances)
    if covariance == "full":
        distances = _full_distances(means, _floored(covariances, min_variance))
    else:
        variances = jnp.maximum(jnp.diagonal(covariances, axis1=1, axis2=2), min_variance)
        if covariance == "spherical":
            variances = jnp.broadcast_to(variances.mean(1, keepdims=True), variances.shape)
        distances = _diagonal_distances(means, variances)
    measured = _measured(stats) > 0
    pairs = measured[:, None] & measured[None, :] & ~jnp.eye(measured.size, dtype=bool)
    return jax.nn.logsumexp(jnp.where(pairs, -distances, -jnp.inf))


def _diagonal_distances(
    means: Float[Array, "c d"], variances: Float[Array, "c d"]
) -> Float[Array, "c c"]:
    def from_one(
        one: tuple[Float[Array, " d"], Float[Array, " d"]],
    ) -> Float[Array, " c"]:
        mean, variance = one
        common = (variance[None, :] + variances) / 2
        apart = ((mean[None, :] - means) ** 2 / common).sum(1) / 8
        # log(s̄/√(ss')) of two variances, each near 1 in units of their mean.
        unlike = (jnp.log(variance[None, :] / common) + jnp.log(variances / common)).sum(1)
        return apart - unlike / 4

    return jax.lax.map(from_one, (means, variances))


def _full_distances(
    means: Float[Array, "c d"], covariances: Float[Array, "c d d"]
) -> Float[Array, "c c"]:
    log_dets = jnp.linalg.slogdet(covariances)[1]

    def from_one(
        one: tuple[Float[Array, " d"], Float[Array, "d d"], Float[Array, ""]],
    ) -> Float[Array, " c"]:
        mean, matrix, log_det = one
        common = (matrix[None] + covariances) / 2
        offset = mean[None, :] - means
        apart = (offset * jnp.linalg.solve(common, offset[..., None])[..., 0]).sum(1) / 8
        return apart + jnp.linalg.slogdet(common)[1] / 2 - (log_det + log_dets) / 4

    return jax.lax.map(from_one, (means, covariances, log_dets))


def _floored(covariances: Float[Array, "c d d"], floor: float) -> Float[Array, "c d d"]:
    values, axes = jnp.linalg.eigh(covariances)
    values = jnp.maximum(values, floor)
    return jnp.einsum("cik,ck,cjk->cij", axes, values, axes, precision="highest")


CARD = Metric(
    name="gbc",
    meaning="overlap of the classes' features, each class a Gaussian, negated",
    needs="features",
    direction="higher",
    range="[-C(C-1), 0]",
    comparable="within one target, features in one unit; sources that all round to 0 by log_gbc",
    cost="O(n D² + D³ + C² D), one pass",
    reference="Pándy et al., Transferability Estimation using Bhattacharyya Class Separability, "
    "CVPR 2022, arXiv 2111.12780",
    departure="the log-determinant of a spherical covariance has D terms, as in the paper "
    "(published code: one); classes of one voxel are left out; full covariances are offered",
    compute=gbc,
    statistics=ClassFeatureStatistics,
    finalise=gbc_from_statistics,
)

LOG_CARD = Metric(
    name="log_gbc",
    meaning="overlap of the classes' features as in gbc, as minus its logarithm",
    needs="features",
    direction="higher",
    range="[-log(C(C-1)), inf)",
    comparable="within one target, features in one unit; orders sources as gbc does",
    cost="O(n D² + D³ + C² D), one pass",
    reference="Pándy et al., as gbc",
    departure="-log(-gbc): separable classes do not underflow to one value for all sources",
    compute=log_gbc,
    statistics=ClassFeatureStatistics,
    finalise=log_gbc_from_statistics,
)
