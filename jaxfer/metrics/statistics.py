"""What the metrics need of the voxels: small, float64, and the same for every split of the voxels.

All kinds of statistics are pytrees of float64 arrays with the same five operations:

    zeros(…)                     of no voxel
    update(stats, batch, labels) with a batch of voxels
    merge(a, b)                  of two parts: other batches, cases, hosts
    psum(stats, axis_name)       of all devices along a mapped axis
    pool(stacked, weights)       of k parts at once, part i counted weights[i] times

Keep them per case: a bootstrap over subjects is then `pool` under `vmap`, without another pass
over the voxels. They work under `jit`, `vmap`, `pmap` and `scan`. Only `vmap` over a caller's own
`jit` must be called inside `jax.enable_x64(True)`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.moments import (
    REFERENCE_ROWS,
    Moments,
    Total,
    around_mean,
    class_means_of,
    no_moments,
    over_blocks,
    sums_around,
    together,
)
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.sums import (
    added,
    added_over,
    added_weighted,
    is_distribution,
    is_finite,
    members,
    once,
    product,
    product_over_rows,
    usable,
    weighted_sum,
)
from jaxfer.metrics.validation import (
    check_labels,
    check_log_probs,
    check_num_classes,
    check_samples,
)


class LabelStatistics(NamedTuple):
    """How often target class c meets source class s, in voxels; additive.

    Attributes:
        joint: source classes weighted by their probability (LEEP): Σ_i 1[y_i = c] θ_i(s).
        hard_joint: only the most probable source class, the first of equals (NCE).
        n_invalid: unmasked voxels left out because their row or label cannot be used.
    """

    joint: Float[Array, "c s"]
    hard_joint: Float[Array, "c s"]
    n_invalid: Float[Array, ""]

    @staticmethod
    def zeros(num_classes: int, num_source_classes: int) -> LabelStatistics:
        """The statistics of no voxel."""
        check_num_classes(num_classes, num_source_classes)
        return _zero_labels(num_classes=num_classes, num_source_classes=num_source_classes)

    def update(
        self,
        log_probs: Float[AnyArray, "*n s"],
        labels: Real[AnyArray, "*n"],
        *,
        mask: Bool[AnyArray, "*n"] | None = None,
    ) -> LabelStatistics:
        """The statistics with a batch of voxels added.

        Args:
            log_probs: log-probabilities of the source's classes, natural logarithm, or −inf.
            labels: target classes in [0, c).
            mask: True where a voxel counts; others contribute nothing, even when they hold NaN.

        Raises:
            ValueError: shapes disagree; outside `jit`, also for labels out of range and for rows
                that are no log-probabilities.
        """
        num_classes, num_source_classes = self.joint.shape[-2:]
        check_samples(log_probs, labels, mask, name="log_probs", channels=num_source_classes)
        check_labels(labels, num_classes, mask)
        check_log_probs(log_probs, mask)
        return _update_labels(self, log_probs, labels, mask)

    def merge(self, other: LabelStatistics) -> LabelStatistics:
        """The statistics of both parts together; associative and commutative."""
        return added(self, other)

    def psum(self, axis_name: str) -> LabelStatistics:
        """The statistics of all devices along a mapped axis."""
        return added_over(self, axis_name=axis_name)

    def pool(self, weights: Real[AnyArray, " k"]) -> LabelStatistics:
        """The statistics of k stacked parts, part i counted weights[i] ≥ 0 times."""
        return added_weighted(self, weights)


class FeatureStatistics(NamedTuple):
    """Mean features by target class, and moments of all features around their common mean f̄.

    They are centred, so that an offset of the features costs no digits, and are put together by an
    update that is exact for any split (see `moments.together`).

    Attributes:
        counts: voxels by class.
        means: mean feature by class; 0 for an absent class.
        scatter: Σ_i (f_i − f̄)(f_i − f̄)ᵀ.
        third: Σ_i ‖f_i − f̄‖² (f_i − f̄); it lets `fourth` be put together.
        fourth: Σ_i ‖f_i − f̄‖⁴, of which Ledoit-Wolf shrinkage is made.
        n_invalid: unmasked voxels left out: a feature is not finite, or the label is no class.
    """

    counts: Float[Array, " c"]
    means: Float[Array, "c d"]
    scatter: Float[Array, "d d"]
    third: Float[Array, " d"]
    fourth: Float[Array, ""]
    n_invalid: Float[Array, ""]

    @staticmethod
    def zeros(num_classes: int, num_features: int) -> FeatureStatistics:
        """The statistics of no voxel."""
        check_num_classes(num_classes)
        return _zero_features(num_classes=num_classes, num_features=num_features)

    def update(
        self,
        features: Float[AnyArray, "*n d"],
        labels: Real[AnyArray, "*n"],
        *,
        mask: Bool[AnyArray, "*n"] | None = None,
    ) -> FeatureStatistics:
        """The statistics with a batch of voxels added.

        Args:
            features: any real values, any unit.
            labels: target classes in [0, c).
            mask: True where a voxel counts; others contribute nothing, even when they hold NaN.

        Raises:
            ValueError: shapes disagree; outside `jit`, also for labels out of range.
        """
        check_samples(features, labels, mask, name="features", channels=self.means.shape[-1])
        check_labels(labels, self.counts.shape[-1], mask)
        return _update_features(self, features, labels, mask)

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """The statistics of both parts together; commutative, associative to rounding."""
        return _merge_features(self, other)

    def psum(self, axis_name: str) -> FeatureStatistics:
        """The statistics of all devices along a mapped axis."""
        return _psum_features(self, axis_name=axis_name)

    def pool(self, weights: Real[AnyArray, " k"]) -> FeatureStatistics:
        """The statistics of k stacked parts, part i counted weights[i] ≥ 0 times."""
        return _pool_features(self, weights)


@compiled_in_float64("num_classes", "num_source_classes")
def _zero_labels(*, num_classes: int, num_source_classes: int) -> LabelStatistics:
    table = jnp.zeros((num_classes, num_source_classes), jnp.float64)
    return LabelStatistics(table, table, jnp.zeros((), jnp.float64))


@compiled_in_float64()
def _update_labels(
    stats: LabelStatistics,
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
) -> LabelStatistics:
    num_classes, num_source_classes = stats.joint.shape
    log_probs = jnp.reshape(log_probs, (-1, num_source_classes))
    labels = jnp.reshape(jnp.asarray(labels), -1)
    asked = jnp.full(labels.shape, True) if mask is None else jnp.reshape(mask, -1)

    def add(
        so_far: LabelStatistics,
        new: Bool[Array, " v"],
        log_probs: Float[Array, "v s"],
        labels: Real[Array, " v"],
        asked: Bool[Array, " v"],
    ) -> LabelStatistics:
        # Source class by source class: voxels side by side are added up faster.
        own = log_probs.T
        probs = once(jnp.exp(own.astype(jnp.float64)))
        classes, used, n_invalid = members(
            labels, asked & new, is_distribution(probs, 0), num_classes
        )
        best = jax.lax.argmax(own, 0, jnp.int32)
        hard = best[None, :] == jnp.arange(num_source_classes)[:, None]
        target = classes.astype(jnp.float64)
        both = jnp.concatenate([jnp.where(used[None, :], probs, 0), hard.astype(jnp.float64)])
        tables = product_over_rows(target, both)
        return LabelStatistics(
            joint=so_far.joint + tables[:, :num_source_classes],
            hard_joint=so_far.hard_joint + tables[:, num_source_classes:],
            n_invalid=so_far.n_invalid + n_invalid,
        )

    return over_blocks(add, stats, log_probs, labels, asked)


@compiled_in_float64("num_classes", "num_features")
def _zero_features(*, num_classes: int, num_features: int) -> FeatureStatistics:
    return FeatureStatistics(
        counts=jnp.zeros((num_classes,), jnp.float64),
        means=jnp.zeros((num_classes, num_features), jnp.float64),
        scatter=jnp.zeros((num_features, num_features), jnp.float64),
        third=jnp.zeros((num_features,), jnp.float64),
        fourth=jnp.zeros((), jnp.float64),
        n_invalid=jnp.zeros((), jnp.float64),
    )


@compiled_in_float64()
def _update_features(
    stats: FeatureStatistics,
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
) -> FeatureStatistics:
    num_classes, num_features = stats.means.shape
    features = jnp.reshape(features, (-1, num_features))
    classes, used, n_invalid = usable(labels, mask, is_finite(features), num_classes)
    num_rows = used.size
    if num_rows == 0:
        return stats
    few = jax.lax.argmax(used, 0, jnp.int32) + jnp.arange(min(REFERENCE_ROWS, num_rows))
    few = jnp.minimum(few, num_rows - 1)
    inside = used[few]
    first = jnp.where(inside[:, None], features[few].astype(jnp.float64), 0)
    reference = first.sum(0) / jnp.maximum(inside.sum(), 1)

    def add(
        so_far: tuple[Float[Array, "c d"], Moments],
        new: Bool[Array, " v"],
        taken: Real[Array, "v d"],
        own: Float[Array, "v c"],
        counted: Bool[Array, " v"],
    ) -> tuple[Float[Array, "c d"], Moments]:
        counted = counted & new
        offsets = jnp.where(counted[:, None], taken.astype(jnp.float64) - reference[None, :], 0)
        part = product(own.T, offsets), sums_around(reference, taken, counted)
        return jax.tree.map(jnp.add, so_far, part)

    start = (jnp.zeros_like(stats.means), no_moments(num_features=num_features))
    sums, powers = over_blocks(add, start, features, classes, used)
    counts = classes.sum(0)
    means = jnp.where(counts[:, None] > 0, reference[None, :] + class_means_of(sums, counts), 0)
    whole = around_mean(powers, reference)
    return _merge_features(stats, FeatureStatistics(counts, means, *whole[2:], n_invalid))


@compiled_in_float64()
def _merge_features(a: FeatureStatistics, b: FeatureStatistics) -> FeatureStatistics:
    return _together(jax.tree.map(lambda x, y: jnp.stack([x, y]), a, b), lambda x: x.sum(0))


@compiled_in_float64("axis_name")
def _psum_features(stats: FeatureStatistics, *, axis_name: str) -> FeatureStatistics:
    return _together(stats, lambda x: jax.lax.psum(x, axis_name))


@compiled_in_float64()
def _pool_features(stacked: FeatureStatistics, weights: Real[AnyArray, " k"]) -> FeatureStatistics:
    return _together(stacked, weighted_sum(weights))


def _together(parts: FeatureStatistics, total: Total) -> FeatureStatistics:
    """Put parts together; `total` adds over the parts: a stacked axis, or the devices."""
    sums = parts.counts[..., None] * parts.means
    size = parts.counts.sum(-1)
    part = Moments(
        size, class_means_of(sums.sum(-2), size), parts.scatter, parts.third, parts.fourth
    )
    whole = together(part, total)
    counts = total(parts.counts)
    return FeatureStatistics(
        counts=counts,
        means=class_means_of(total(sums), counts),
        scatter=whole.scatter,
        third=whole.third,
        fourth=whole.fourth,
        n_invalid=total(parts.n_invalid),
    )
