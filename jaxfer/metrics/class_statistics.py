"""The moments of every class by itself: for metrics that look inside classes, and for balance."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from jaxfer.metrics.class_order import ClassOrder, found_order
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
from jaxfer.metrics.sums import is_finite, once, weighted_sum
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
        order: ClassOrder | None = None,
    ) -> ClassFeatureStatistics:
        """The statistics with a batch of voxels added; as `FeatureStatistics.update`.

        Args:
            order: `class_order` of these labels and this mask, where they are on the host, saves
                finding it here. Voxels that another order puts elsewhere count as invalid.
        """
        check_samples(features, labels, mask, name="features", channels=self.means.shape[-1])
        check_labels(labels, self.counts.shape[-1], mask)
        if order is not None and (order.rows.size, order.counts.shape) != (
            labels.size,
            self.counts.shape,
        ):
            raise ValueError(
                f"the order must be of these labels: found one of {order.rows.size} rows and "
                f"{order.counts.size} classes, and {labels.size} labels and {self.counts.size}"
            )
        return _update(self, features, labels, mask, order)

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
    order: ClassOrder | None,
) -> ClassFeatureStatistics:
    num_classes, num_features = stats.means.shape
    features = jnp.reshape(features, (-1, num_features))
    num_rows = features.shape[0]
    if num_rows == 0:
        return stats
    # A block is of one class: C classes cost no more products than one.
    found = found_order(labels, num_classes, mask) if order is None else order
    numbers, counts = jnp.asarray(found.rows), jnp.asarray(found.counts)
    starts = jnp.cumsum(counts) - counts
    rows = block_rows(num_rows)
    blocks = (counts + rows - 1) // rows
    ends = jnp.cumsum(blocks)

    references = _references(features, numbers, starts, counts)
    # As float32, for unsigned labels know no −1 and small ones not every number of classes.
    classes = jnp.reshape(jnp.asarray(labels), -1).astype(jnp.float32)
    classes = classes if mask is None else jnp.where(jnp.reshape(mask, -1), classes, -1)
    padded = jnp.pad(numbers, (0, rows))

    def add(block: Int[Array, ""], so_far: Moments) -> Moments:
        own = (block >= ends).sum()
        within = (block - ends[own] + blocks[own]) * rows + jnp.arange(rows)
        picked = jax.lax.dynamic_slice_in_dim(padded, starts[own] + within[0], rows)
        taken = once(features.at[picked].get(mode="promise_in_bounds"))
        # Whatever the order says, a voxel counts for its own class.
        member = classes.at[picked].get(mode="promise_in_bounds") == own.astype(jnp.float32)
        counted = is_finite(taken) & member & (within < counts[own])
        part = sums_around(references[own], taken, counted)
        return jax.tree.map(lambda x, y: x.at[own].add(y), so_far, part)

    sums: Moments = jax.lax.fori_loop(
        0, ends[-1], add, no_moments(num_classes, num_features=num_features)
    )
    asked = num_rows if mask is None else mask.sum()
    n_invalid = asked - sums.size.sum()
    return _merge(stats, ClassFeatureStatistics(*around_mean(sums, references), n_invalid))


def _references(
    features: Real[Array, "v d"],
    order: Int[Array, " v"],
    starts: Int[Array, " c"],
    counts: Int[Array, " c"],
) -> Float[Array, "c d"]:
    """A point among the finite rows of every class; 0 for a class without any."""
    few = jnp.arange(REFERENCE_ROWS)
    places = jnp.minimum(starts[:, None] + few[None, :], order.size - 1)
    inside = few[None, :] < counts[:, None]
    rows = features[order[places]]
    none = ~(jnp.isfinite(rows).all(-1) & inside).any(1)

    def first_finite() -> Real[Array, "c r d"]:
        place = jnp.arange(order.size)[None, :]
        own = (place >= starts[:, None]) & (place < (starts + counts)[:, None])
        finite = is_finite(features)[order]
        first = jax.lax.argmax(own & finite[None, :], 1, jnp.int32)
        return jnp.where(none[:, None, None], features[order[first]][:, None, :], rows)

    rows = jax.lax.cond((none & (counts > 0)).any(), first_finite, lambda: rows)
    counted = jnp.isfinite(rows).all(-1) & inside
    rows = jnp.where(counted[..., None], rows.astype(jnp.float64), 0)
    return class_means_of(rows.sum(1), counted.sum(1).astype(jnp.float64))


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
