"""The moments of every class by itself: for metrics that look inside classes, and for balance."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from jaxfer.metrics.moments import (
    REFERENCE_ROWS,
    Moments,
    Total,
    around_mean,
    block_rows,
    class_means_of,
    no_moments,
    sums_around,
    together,
)
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.statistics import FeatureStatistics
from jaxfer.metrics.sums import is_finite, members, weighted_sum
from jaxfer.metrics.validation import check_labels, check_num_classes, check_samples


class ClassFeatureStatistics(NamedTuple):
    """Moments of the features by target class, each class around its own mean.

    Like `FeatureStatistics`, which `features` makes of them, but C times as large: C D² numbers.

    Attributes:
        counts: voxels by class.
        means: mean feature μ by class; 0 for an absent class.
        scatters: Σ (f_i − μ)(f_i − μ)ᵀ by class.
        thirds: Σ ‖f_i − μ‖² (f_i − μ) by class.
        fourths: Σ ‖f_i − μ‖⁴ by class.
        n_invalid: unmasked voxels left out: a feature is not finite, or the label is no class.
    """

    counts: Float[Array, " c"]
    means: Float[Array, "c d"]
    scatters: Float[Array, "c d d"]
    thirds: Float[Array, "c d"]
    fourths: Float[Array, " c"]
    n_invalid: Float[Array, ""]

    @staticmethod
    def zeros(num_classes: int, num_features: int) -> ClassFeatureStatistics:
        """The statistics of no voxel."""
        check_num_classes(num_classes)
        return _zeros(num_classes=num_classes, num_features=num_features)

    def update(
        self,
        features: Float[AnyArray, "*n d"],
        labels: Real[AnyArray, "*n"],
        *,
        mask: Bool[AnyArray, "*n"] | None = None,
    ) -> ClassFeatureStatistics:
        """The statistics with a batch of voxels added; as `FeatureStatistics.update`."""
        check_samples(features, labels, mask, name="features", channels=self.means.shape[-1])
        check_labels(labels, self.counts.shape[-1], mask)
        return _update(self, features, labels, mask)

    def merge(self, other: ClassFeatureStatistics) -> ClassFeatureStatistics:
        """The statistics of both parts together; commutative, associative to rounding."""
        return _merge(self, other)

    def psum(self, axis_name: str) -> ClassFeatureStatistics:
        """The statistics of all devices along a mapped axis."""
        return _psum(self, axis_name=axis_name)

    def pool(self, weights: Real[AnyArray, " k"]) -> ClassFeatureStatistics:
        """The statistics of k stacked parts, part i counted weights[i] ≥ 0 times."""
        return _pool(self, weights)

    def features(self) -> FeatureStatistics:
        """The statistics of all classes together."""
        return _features(self)


@compiled_in_float64("num_classes", "num_features")
def _zeros(*, num_classes: int, num_features: int) -> ClassFeatureStatistics:
    nothing = no_moments(num_classes, num_features=num_features)
    return ClassFeatureStatistics(*nothing, n_invalid=jnp.zeros((), jnp.float64))


@compiled_in_float64()
def _update(
    stats: ClassFeatureStatistics,
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
) -> ClassFeatureStatistics:
    num_classes, num_features = stats.means.shape
    features = jnp.reshape(features, (-1, num_features))
    classes, used, n_invalid = members(labels, mask, is_finite(features), num_classes)
    num_rows = used.size
    if num_rows == 0:
        return stats
    # Rows by class: a block is then of one class, and C classes cost no more products than one.
    ranks = jnp.cumsum(classes.astype(jnp.int32), 1)
    counts = ranks[:, -1]
    starts = jnp.cumsum(counts) - counts
    place = jnp.where(classes, starts[:, None] + ranks - 1, 0).sum(0)
    order = jnp.zeros((num_rows,), jnp.int32)
    order = order.at[jnp.where(used, place, num_rows)].set(
        jnp.arange(num_rows, dtype=jnp.int32), mode="drop", unique_indices=True
    )
    rows = block_rows(num_rows)
    blocks = (counts + rows - 1) // rows
    ends = jnp.cumsum(blocks)

    # Moved once: picked out block by block, rows are read again for each of their sums.
    ordered = features.at[jnp.pad(order, (0, rows))].get(mode="promise_in_bounds")
    few = jnp.arange(min(REFERENCE_ROWS, num_rows))
    inside: Bool[Array, "c r"] = few[None, :] < counts[:, None]
    first = ordered[starts[:, None] + few[None, :]].astype(jnp.float64)
    first = jnp.where(inside[..., None], first, 0)
    references = class_means_of(first.sum(1), inside.sum(1).astype(jnp.float64))

    def add(block: Int[Array, ""], so_far: Moments) -> Moments:
        own = (block >= ends).sum()
        within = (block - ends[own] + blocks[own]) * rows + jnp.arange(rows)
        taken = jax.lax.dynamic_slice_in_dim(ordered, starts[own] + within[0], rows)
        part = sums_around(references[own], taken, within < counts[own])
        return jax.tree.map(lambda x, y: x.at[own].add(y), so_far, part)

    found: Moments = jax.lax.fori_loop(
        0, ends[-1], add, no_moments(num_classes, num_features=num_features)
    )
    return _merge(stats, ClassFeatureStatistics(*around_mean(found, references), n_invalid))


@compiled_in_float64()
def _merge(a: ClassFeatureStatistics, b: ClassFeatureStatistics) -> ClassFeatureStatistics:
    return _together(jax.tree.map(lambda x, y: jnp.stack([x, y]), a, b), lambda x: x.sum(0))


@compiled_in_float64("axis_name")
def _psum(stats: ClassFeatureStatistics, *, axis_name: str) -> ClassFeatureStatistics:
    return _together(stats, lambda x: jax.lax.psum(x, axis_name))


@compiled_in_float64()
def _pool(stacked: ClassFeatureStatistics, weights: Real[AnyArray, " k"]) -> ClassFeatureStatistics:
    return _together(stacked, weighted_sum(weights))


def _together(parts: ClassFeatureStatistics, total: Total) -> ClassFeatureStatistics:
    return ClassFeatureStatistics(
        *together(Moments(*parts[:-1]), total), n_invalid=total(parts.n_invalid)
    )


@compiled_in_float64()
def _features(stats: ClassFeatureStatistics) -> FeatureStatistics:
    whole = together(Moments(*stats[:-1]), lambda x: x.sum(0))
    return FeatureStatistics(
        counts=stats.counts,
        means=stats.means,
        scatter=whole.scatter,
        third=whole.third,
        fourth=whole.fourth,
        n_invalid=stats.n_invalid,
    )
