"""The expected empirical prediction (EEP): what a source's output says of the target's label.

    EEP = Σ_z P(y|z) θ(z)

θ is the source's distribution over its classes z at a voxel, P(y|z) the table of `LabelStatistics`.
The mean of its logarithm is LEEP; voxel by voxel it is the ground of the risk map.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.moments import over_blocks
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.statistics import LabelStatistics
from jaxfer.metrics.sums import (
    added,
    added_over,
    added_weighted,
    is_distribution,
    members,
    once,
    product,
    product_over_rows,
)
from jaxfer.metrics.validation import (
    check_labels,
    check_log_probs,
    check_num_classes,
    check_samples,
)

LOG_EEP_FLOOR = math.log(1e-16)
"""Stands for log 0. A voxel that is part of the table cannot come near: its EEP is at least
1/(n S²), since some source class z has θ(z) ≥ 1/S and P(y|z) ≥ θ(z)/n. Only a table made from
other voxels can lack a pair (y, z) altogether."""


class PredictionStatistics(NamedTuple):
    """The second pass of LEEP: sums of log EEP by target class; additive like `LabelStatistics`.

    Attributes:
        log_sums: Σ log EEP over the voxels of each class, in nats.
        counts: voxels by class.
        n_unseen: voxels whose label the table never saw with any class the source proposes; each
            contributes `LOG_EEP_FLOOR`. 0 when the table was made from the same voxels.
        n_invalid: unmasked voxels left out because their row or label cannot be used.
    """

    log_sums: Float[Array, " c"]
    counts: Float[Array, " c"]
    n_unseen: Float[Array, ""]
    n_invalid: Float[Array, ""]

    @staticmethod
    def zeros(num_classes: int) -> PredictionStatistics:
        """The statistics of no voxel."""
        check_num_classes(num_classes)
        return _zeros(num_classes=num_classes)

    def update(
        self,
        log_probs: Float[AnyArray, "*n s"],
        labels: Real[AnyArray, "*n"],
        log_conditional: Float[AnyArray, "c s"],
        *,
        mask: Bool[AnyArray, "*n"] | None = None,
    ) -> PredictionStatistics:
        """The statistics with a batch of voxels added.

        Arguments and errors are those of `log_expected_prediction`.
        """
        _check(log_probs, labels, log_conditional, mask)
        return _update(self, log_probs, labels, log_conditional, mask)

    def merge(self, other: PredictionStatistics) -> PredictionStatistics:
        """The statistics of both parts together; associative and commutative."""
        return added(self, other)

    def psum(self, axis_name: str) -> PredictionStatistics:
        """The statistics of all devices along a mapped axis."""
        return added_over(self, axis_name=axis_name)

    def pool(self, weights: Real[AnyArray, " k"]) -> PredictionStatistics:
        """The statistics of k stacked parts, part i counted weights[i] ≥ 0 times."""
        return added_weighted(self, weights)


@compiled_in_float64()
def conditional_log_probs(stats: LabelStatistics) -> Float[Array, "c s"]:
    """log P(y|z), natural logarithm, from the soft joint table, in float64.

    A pair that never met is −inf, and so is the column of a source class without mass.
    """
    mass = stats.joint.sum(0, keepdims=True)
    met = stats.joint > 0
    joint = jnp.log(jnp.where(met, stats.joint, 1))
    return jnp.where(met, joint - jnp.log(jnp.where(mass > 0, mass, 1)), -jnp.inf)


def log_expected_prediction(
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    log_conditional: Float[AnyArray, "c s"],
    *,
    mask: Bool[AnyArray, "*n"] | None = None,
) -> Float[Array, "*n"]:
    """log EEP of every voxel. Its mean over the table's voxels is LEEP.

    Args:
        log_probs: log-probabilities of the source's classes, of any leading shape.
        labels: target classes in [0, c).
        log_conditional: log P(y|z) of `conditional_log_probs`, of these voxels or of others.
        mask: True where a voxel counts.

    Returns:
        Values in [LOG_EEP_FLOOR, 0]; the floor where the table never saw the label with any class
        that the source proposes; 0 where masked; NaN where a row holds NaN and, under `jit`, where
        a label is no class.

    Raises:
        ValueError: shapes disagree; outside `jit`, also for labels out of range and for rows that
            are no log-probabilities.
    """
    _check(log_probs, labels, log_conditional, mask)
    return _masked_log_eep(log_probs, labels, log_conditional, mask)


def _check(
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    log_conditional: Float[AnyArray, "c s"],
    mask: Bool[AnyArray, "*n"] | None,
) -> None:
    num_classes, num_source_classes = log_conditional.shape
    check_samples(log_probs, labels, mask, name="log_probs", channels=num_source_classes)
    check_labels(labels, num_classes, mask)
    check_log_probs(log_probs, mask)


def _log_eep(
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    log_conditional: Float[AnyArray, "c s"],
) -> Float[Array, "*n"]:
    labels = jnp.asarray(labels)
    rows = jnp.clip(labels.astype(jnp.int32), 0, log_conditional.shape[0] - 1)
    probs = jnp.exp(jnp.asarray(log_probs).astype(jnp.float64))
    value = _log_of((_conditional(log_conditional)[rows] * probs).sum(-1))
    return jnp.where(labels == rows, value, jnp.nan)


@compiled_in_float64(cast_back=True)
def _masked_log_eep(
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    log_conditional: Float[AnyArray, "c s"],
    mask: Bool[AnyArray, "*n"] | None,
) -> Float[Array, "*n"]:
    value = _log_eep(log_probs, labels, log_conditional)
    return value if mask is None else jnp.where(mask, value, 0)


@compiled_in_float64("num_classes")
def _zeros(*, num_classes: int) -> PredictionStatistics:
    by_class, one = jnp.zeros((num_classes,), jnp.float64), jnp.zeros((), jnp.float64)
    return PredictionStatistics(by_class, by_class, one, one)


@compiled_in_float64()
def _update(
    stats: PredictionStatistics,
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    log_conditional: Float[AnyArray, "c s"],
    mask: Bool[AnyArray, "*n"] | None,
) -> PredictionStatistics:
    num_classes, num_source_classes = log_conditional.shape
    log_probs = jnp.reshape(log_probs, (-1, num_source_classes))
    labels = jnp.reshape(jnp.asarray(labels), -1)
    asked = jnp.full(labels.shape, True) if mask is None else jnp.reshape(mask, -1)
    conditional = _conditional(log_conditional)

    def add(
        so_far: PredictionStatistics,
        new: Bool[Array, " v"],
        log_probs: Float[Array, "v s"],
        labels: Real[Array, " v"],
        asked: Bool[Array, " v"],
    ) -> PredictionStatistics:
        # Class by class: voxels side by side are added up faster.
        probs = once(jnp.exp(log_probs.T.astype(jnp.float64)))
        classes, used, n_invalid = members(
            labels, asked & new, is_distribution(probs, 0), num_classes
        )
        expected = once(jnp.where(classes, product(conditional, probs), 0).sum(0))
        value = once(jnp.where(used, _log_of(expected), 0))
        both = jnp.stack([value, jnp.ones_like(value)])
        sums = product_over_rows(classes.astype(jnp.float64), both)
        return PredictionStatistics(
            log_sums=so_far.log_sums + sums[:, 0],
            counts=so_far.counts + sums[:, 1],
            n_unseen=so_far.n_unseen + (value <= LOG_EEP_FLOOR).sum(),
            n_invalid=so_far.n_invalid + n_invalid,
        )

    return over_blocks(add, stats, log_probs, labels, asked)


def _conditional(log_conditional: Float[AnyArray, "c s"]) -> Float[Array, "c s"]:
    # Outside log space nothing is lost: what float64 cannot hold lies far below the floor.
    return jnp.exp(jnp.asarray(log_conditional).astype(jnp.float64))


def _log_of(expected: Float[Array, "*n"]) -> Float[Array, "*n"]:
    # A probability is at most 1; rounding of the rows may push it past.
    return jnp.clip(jnp.log(expected), LOG_EEP_FLOOR, 0)
