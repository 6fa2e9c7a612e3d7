"""The posterior of a linear discriminant that was fitted on statistics, voxel by voxel."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from jaxfer.metrics.class_statistics import ClassFeatureStatistics
from jaxfer.metrics.discriminant import (
    Discriminant,
    Scatter,
    adaptive_shrinkage,
    discriminant,
    log_posterior,
)
from jaxfer.metrics.moments import block_rows
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.sums import added, added_over, added_weighted, is_finite, product, usable
from jaxfer.metrics.validation import check_labels, check_num_classes, check_samples


class LinearClassifier(NamedTuple):
    """A discriminant, and the mean of the features that it was fitted on."""

    mean: Float[Array, " d"]
    fitted: Discriminant


class PosteriorStatistics(NamedTuple):
    """The second pass of LDA: sums of the true class's posterior; additive like `LabelStatistics`.

    Attributes:
        sums: Σ P(y_i|f_i) over the voxels of each class.
        counts: voxels by class.
        n_unseen: voxels of a class that the classifier was not fitted on; their posterior is 0.
        n_invalid: unmasked voxels left out: a feature is not finite, or the label is no class.
    """

    sums: Float[Array, " c"]
    counts: Float[Array, " c"]
    n_unseen: Float[Array, ""]
    n_invalid: Float[Array, ""]

    @staticmethod
    def zeros(num_classes: int) -> PosteriorStatistics:
        """The statistics of no voxel."""
        check_num_classes(num_classes)
        return _zeros(num_classes=num_classes)

    def update(
        self,
        features: Float[AnyArray, "*n d"],
        labels: Real[AnyArray, "*n"],
        classifier: LinearClassifier,
        *,
        mask: Bool[AnyArray, "*n"] | None = None,
    ) -> PosteriorStatistics:
        """The statistics with a batch of voxels added.

        Args:
            features: any real values, in the unit of those that the classifier was fitted on.
            labels: target classes in [0, c).
            classifier: of `linear_classifier`, of these voxels or of others.
            mask: True where a voxel counts; others contribute nothing, even when they hold NaN.

        Raises:
            ValueError: shapes disagree; outside `jit`, also for labels out of range.
        """
        channels = classifier.mean.shape[-1]
        check_samples(features, labels, mask, name="features", channels=channels)
        check_labels(labels, self.counts.shape[-1], mask)
        return _update(self, features, labels, classifier, mask)

    def merge(self, other: PosteriorStatistics) -> PosteriorStatistics:
        """The statistics of both parts together; associative and commutative."""
        return added(self, other)

    def psum(self, axis_name: str) -> PosteriorStatistics:
        """The statistics of all devices along a mapped axis."""
        return added_over(self, axis_name=axis_name)

    def pool(self, weights: Real[AnyArray, " k"]) -> PosteriorStatistics:
        """The statistics of k stacked parts, part i counted weights[i] ≥ 0 times."""
        return added_weighted(self, weights)


@compiled_in_float64("shrinkage")
def linear_classifier(
    stats: ClassFeatureStatistics, *, shrinkage: float | None = None
) -> LinearClassifier:
    """Linear discriminant analysis from moments, with the classes' shares as priors.

    Args:
        stats: of at least one voxel.
        shrinkage: share in [0, 1] of the multiple of I in the within-class covariance, static;
            None: max(exp(−5 λ_max), 1e-10), λ_max its largest eigenvalue.

    Raises:
        ValueError: the shrinkage is out of range.
    """
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage must be in [0, 1] or None, found {shrinkage}")
    n = jnp.maximum(stats.counts.sum(), 1)
    shares = stats.counts / n
    mean = (shares[:, None] * stats.means).sum(0)
    means = stats.means - mean[None, :]
    within = stats.scatters.sum(0) / n
    scatter = Scatter(shares, means, within, product((shares[:, None] * means).T, means))
    if shrinkage is None:
        strength = adaptive_shrinkage(within)
    else:
        strength = jnp.asarray(shrinkage, jnp.float64)
    return LinearClassifier(mean, discriminant(scatter, strength))


@compiled_in_float64("num_classes")
def _zeros(*, num_classes: int) -> PosteriorStatistics:
    by_class, one = jnp.zeros((num_classes,), jnp.float64), jnp.zeros((), jnp.float64)
    return PosteriorStatistics(by_class, by_class, one, one)


@compiled_in_float64()
def _update(
    stats: PosteriorStatistics,
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    classifier: LinearClassifier,
    mask: Bool[AnyArray, "*n"] | None,
) -> PosteriorStatistics:
    num_features = classifier.mean.shape[0]
    features = jnp.reshape(features, (-1, num_features))
    readable = is_finite(features)
    classes, used, n_invalid = usable(labels, mask, readable, stats.counts.shape[0])
    seen = classes * jnp.isfinite(classifier.fitted.log_priors)[None, :]
    rows = block_rows(used.size)

    def add(block: Int[Array, ""], so_far: Float[Array, " c"]) -> Float[Array, " c"]:
        # The last block ends with the batch: rows that it shares with the one before are not new.
        start = jnp.minimum(block * rows, used.size - rows)
        new = start + jnp.arange(rows) >= block * rows
        taken, own, counted = (
            jax.lax.dynamic_slice_in_dim(x, start, rows) for x in (features, seen, used)
        )
        taken = taken.astype(jnp.float64) - classifier.mean[None, :]
        taken = jnp.where(counted[:, None], taken, 0)
        posterior = jnp.exp(log_posterior(classifier.fitted, taken))
        return so_far + jnp.where(new[:, None] & (own > 0), posterior, 0).sum(0)

    blocks = -(-used.size // rows)
    return PosteriorStatistics(
        sums=jax.lax.fori_loop(0, blocks, add, stats.sums) if blocks else stats.sums,
        counts=stats.counts + classes.sum(0),
        n_unseen=stats.n_unseen + classes.sum() - seen.sum(),
        n_invalid=stats.n_invalid + n_invalid,
    )
