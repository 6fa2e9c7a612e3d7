"""Two clouds of voxels and the plan between them: what OTCE and its relatives share."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from jaxfer.metrics.entropy import negative_conditional_entropy
from jaxfer.metrics.precision import AnyArray
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.sinkhorn import Cost, Transport, transport
from jaxfer.metrics.sums import is_finite, product, usable
from jaxfer.metrics.validation import check_labels, check_samples

FLOAT32_EPS = float(np.finfo(np.float32).eps)

EPSILON = 0.002
MAX_ITERATIONS = 10_000
"""Sweeps at which to give up. Most plans take 50 to 1,000; those between a few dozen voxels, whose
exact plan is nearly one of several, some thousands, which cost little there."""
THRESHOLD = 1e-3
BLOCK_SIZE = 64
COST = "O(n m D) for each of 50 to 1,000 sweeps, O((n + m) D) memory; samples, not all voxels"
"""Of a metric of one plan, for its card."""


class TransportScore(NamedTuple):
    """A score from a transport plan, and how far the plan can be trusted.

    Attributes:
        score: the metric; NaN and flagged `NOT_CONVERGED` when the plan is not within `threshold`,
            so that it cannot be ranked.
        w_d: ⟨c, P⟩, the mean ground cost of what is transported; for squared distances in the
            features' unit squared.
        w_t: H(Y_t|Y_s) under the plan, nats; both also without convergence.
        converged: of every plan that was needed.
        iterations: of the last plan.
        marginal_error: share of the mass in the wrong place, the largest of the plans needed.
    """

    score: Score
    w_d: Float[Array, "*k"]
    w_t: Float[Array, "*k"]
    converged: Bool[Array, "*k"]
    iterations: Int[Array, "*k"]
    marginal_error: Float[Array, "*k"]

    def __float__(self) -> float:
        return float(self.score)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The score's flags in words."""
        return self.score.reasons


Samples = tuple[Float[AnyArray, "... d"], Real[AnyArray, " ..."], Bool[AnyArray, " ..."] | None]


Settings = tuple[float | Array, int | Array, float | Array]


class Clouds(NamedTuple):
    """Both sides' features around their common mean, and one-hot labels, 0 for unused voxels."""

    x: Float[Array, "n d"]
    y: Float[Array, "m d"]
    source_classes: Float[Array, "n s"]
    target_classes: Float[Array, "m c"]
    n_invalid: Float[Array, ""]


def check_side(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    num_classes: int,
    side: str,
) -> None:
    """Raise ValueError for shapes that disagree; outside `jit`, also for labels out of range."""
    check_samples(features, labels, mask, name=f"{side}_features")
    check_labels(labels, num_classes, mask, name=f"{side}_labels")


def check_settings(
    source_channels: int,
    target_channels: int,
    epsilon: float,
    max_iterations: int,
    threshold: float,
) -> None:
    """Raise ValueError for sides of different layers, and for settings out of range."""
    if source_channels != target_channels:
        raise ValueError(
            "source and target features must come from one layer: found "
            f"{source_channels} and {target_channels} channels"
        )
    for name, value in (
        ("epsilon", epsilon),
        ("max_iterations", max_iterations),
        ("threshold", threshold),
    ):
        if not isinstance(value, jax.core.Tracer) and not value > 0:
            raise ValueError(f"{name} must be above 0: found {value}")


def clouds_of(
    source: Samples, target: Samples, num_source_classes: int, num_classes: int
) -> Clouds:
    """Both sides, brought to their common mean; unusable voxels and constant columns are 0."""
    x, source_classes, source_invalid = _readable(*source, num_source_classes)
    y, target_classes, target_invalid = _readable(*target, num_classes)
    used_x: Float[Array, "n 1"] = source_classes.sum(1, keepdims=True)
    used_y: Float[Array, "m 1"] = target_classes.sum(1, keepdims=True)
    n = jnp.maximum(used_x.sum() + used_y.sum(), 1)
    mean = ((used_x * x).sum(0) + (used_y * y).sum(0)) / n
    x, y = (used * (z - mean[None, :]) for used, z in ((used_x, x), (used_y, y)))
    spread = ((x**2).sum(0) + (y**2).sum(0)) / n
    # What rounding to float32 alone would have made is no difference between voxels.
    varies = (spread > FLOAT32_EPS**2 * mean**2)[None, :]
    return Clouds(
        jnp.where(varies, x, 0),
        jnp.where(varies, y, 0),
        source_classes,
        target_classes,
        source_invalid + target_invalid,
    )


def _readable(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    num_classes: int,
) -> tuple[Float[Array, "v d"], Float[Array, "v c"], Float[Array, ""]]:
    features = jnp.reshape(features, (-1, features.shape[-1])).astype(jnp.float64)
    readable = is_finite(features)
    classes, used, n_invalid = usable(labels, mask, readable, num_classes)
    return jnp.where(used[:, None], features, 0), classes, n_invalid


def masses(clouds: Clouds) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
    """Equal masses of the voxels of each side; 0 for all of an empty one."""
    sides = (clouds.source_classes.sum(1), clouds.target_classes.sum(1))
    a, b = (used / jnp.maximum(used.sum(), 1) for used in sides)
    return a, b


def centred_cost(clouds: Clouds) -> tuple[Cost, Float[Array, ""]]:
    """Squared distances once each side is brought to its own mean, and those of the means.

    Moving a whole side adds to every plan's cost alike, so the best plan is the same; the mean
    cost, of which epsilon is a share, would grow with the move, and the plan blur.
    """
    a, b = masses(clouds)
    sides = ((a, clouds.x), (b, clouds.y))
    mean_x, mean_y = (product(mass[None, :], points) for mass, points in sides)
    cost = Cost.squared_distance(clouds.x - mean_x, clouds.y - mean_y)
    # What rounding to float32 leaves of voxels in one place is no difference between them.
    size = sum((mass * (points**2).sum(1)).sum() for mass, points in sides)
    differs = cost.mean(a, b) > FLOAT32_EPS**2 * size
    return cost.times(jnp.where(differs, 1.0, 0.0)), ((mean_x - mean_y) ** 2).sum()


def plan_between(clouds: Clouds, settings: Settings, block_size: int) -> Transport:
    """The plan for squared distances, its cost in the features' unit squared."""
    cost, apart = centred_cost(clouds)
    plan = plan_for(cost, clouds, settings, block_size)
    return plan._replace(cost=plan.cost + apart)


def plan_for(cost: Cost, clouds: Clouds, settings: Settings, block_size: int) -> Transport:
    """The plan for a cost, of whose mean epsilon is a share."""
    epsilon, max_iterations, threshold = settings
    relative, unit = relative_cost(cost, clouds)
    plan = transport(
        relative,
        clouds.source_classes,
        clouds.target_classes,
        epsilon=epsilon,
        max_iterations=max_iterations,
        threshold=threshold,
        block_size=block_size,
    )
    return plan._replace(cost=plan.cost * unit)


def relative_cost(cost: Cost, clouds: Clouds) -> tuple[Cost, Float[Array, ""]]:
    """A cost over its mean, and that mean; 0 both where all pairs cost the same."""
    a, b = masses(clouds)
    unit = cost.mean(a, b)
    # The mean is a difference of offsets and product: what equal clouds leave of it is noise.
    offsets = (a * cost.row_offsets).sum() + (b * cost.column_offsets).sum()
    differs = unit > FLOAT32_EPS**2 * offsets
    unit = jnp.where(differs, unit, 0)
    return cost.times(jnp.where(differs, 1 / jnp.where(differs, unit, 1), 0)), unit


def score_of(clouds: Clouds, plan: Transport) -> TransportScore:
    """The score of a plan between two clouds, and what is told of the plan."""
    value = negative_conditional_entropy(plan.table.T)
    class_counts = clouds.target_classes.sum(0)
    empty = (clouds.source_classes.sum() == 0) | (class_counts.sum() == 0)
    score = make_score(
        jnp.where(plan.converged, value, jnp.nan),
        class_counts=class_counts,
        n_invalid=clouds.n_invalid,
        flags=flag_where(~plan.converged & ~empty, Flag.NOT_CONVERGED)
        | flag_where(empty, Flag.NO_VOXELS),
    )
    return TransportScore(
        score=score,
        w_d=plan.cost,
        w_t=-value,
        converged=plan.converged,
        iterations=plan.iterations,
        marginal_error=plan.marginal_error,
    )
