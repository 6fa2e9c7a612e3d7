"""JC-OTCE: transport that also compares the voxels' classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.clouds import (
    BLOCK_SIZE,
    COST,
    EPSILON,
    FLOAT32_EPS,
    MAX_ITERATIONS,
    THRESHOLD,
    Samples,
    Settings,
    TransportScore,
    centred_cost,
    check_settings,
    check_side,
    clouds_of,
    masses,
    plan_between,
    plan_for,
    score_of,
)
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.sinkhorn import Cost, Transport
from jaxfer.metrics.sums import product


def jc_otce(
    source_features: Float[AnyArray, "*n d"],
    source_labels: Real[AnyArray, "*n"],
    target_features: Float[AnyArray, "*m d"],
    target_labels: Real[AnyArray, "*m"],
    *,
    num_source_classes: int,
    num_classes: int,
    gamma: float = 0.5,
    source_mask: Bool[AnyArray, "*n"] | None = None,
    target_mask: Bool[AnyArray, "*m"] | None = None,
    epsilon: float = EPSILON,
    max_iterations: int = MAX_ITERATIONS,
    threshold: float = THRESHOLD,
    block_size: int = BLOCK_SIZE,
) -> TransportScore:
    """JC-OTCE, F-OTCE with a ground cost that also compares the voxels' classes.

        c_ij = γ ‖f_i − f_j‖² / mean + (1 − γ) d(y_i, y_j) / mean,

    f brought to one mean over each side, d the transport cost between the clouds of a source and a
    target class. Higher is better, within [−H(Y_t), 0]; γ = 1 is F-OTCE. Tan et al., arXiv
    2106.10479, of which we know no more than this: γ = 0.5 and the power of d are not confirmed.
    Both terms have their mean as unit, since their scales differ otherwise; d is in squared
    distances, as the first term is.

    Public code, of others, adds both as they are; in place of d it takes the plan between the
    classes' means times its cost, which is 0 for classes that this plan does not pair; its plans
    are exact; and where it reduces features, source and target get components of their own.

    Args:
        gamma: γ in [0, 1].
        others: as `otce.f_otce`; `epsilon` is a share of the mean cost of every plan. S · C plans
            between classes come before the last one, each as costly.

    Returns:
        As `f_otce`; `w_d` is in units of the mean cost. `converged` speaks of all plans.

    Raises:
        ValueError: as `f_otce`; gamma is not in [0, 1].
    """
    check_side(source_features, source_labels, source_mask, num_source_classes, "source")
    check_side(target_features, target_labels, target_mask, num_classes, "target")
    channels = source_features.shape[-1], target_features.shape[-1]
    check_settings(*channels, epsilon, max_iterations, threshold)
    if not isinstance(gamma, jax.core.Tracer) and not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1]: found {gamma}")
    return _jc_otce(
        (source_features, source_labels, source_mask),
        (target_features, target_labels, target_mask),
        (epsilon, max_iterations, threshold),
        gamma,
        num_source_classes=num_source_classes,
        num_classes=num_classes,
        block_size=block_size,
    )


@compiled_in_float64("num_source_classes", "num_classes", "block_size", cast_back=True)
def _jc_otce(
    source: Samples,
    target: Samples,
    settings: Settings,
    gamma: float | Array,
    *,
    num_source_classes: int,
    num_classes: int,
    block_size: int,
) -> TransportScore:
    clouds = clouds_of(source, target, num_source_classes, num_classes)
    source_sizes, target_sizes = clouds.source_classes.sum(0), clouds.target_classes.sum(0)

    def of_pair(pair: Int[Array, ""]) -> Transport:
        s, c = pair // num_classes, pair % num_classes
        # The columns of two classes alone: only their voxels carry mass.
        source_classes = jnp.take(clouds.source_classes, s, axis=1)[:, None]
        target_classes = jnp.take(clouds.target_classes, c, axis=1)[:, None]
        of_both = clouds._replace(source_classes=source_classes, target_classes=target_classes)
        return plan_between(of_both, settings, block_size)

    plans = jax.lax.map(of_pair, jnp.arange(num_source_classes * num_classes))
    shape = (num_source_classes, num_classes)
    present: Bool[Array, "s c"] = (source_sizes > 0)[:, None] & (target_sizes > 0)[None, :]
    distance = jnp.where(present, plans.cost.reshape(shape), 0)
    of_classes = Cost(
        product(clouds.source_classes, distance),
        clouds.target_classes,
        jnp.zeros(len(clouds.x), jnp.float64),
        jnp.zeros(len(clouds.y), jnp.float64),
    )
    a, b = masses(clouds)
    mean = of_classes.mean(a, b)
    # Far below the features' own spread, two classes lie in one place.
    features, apart = centred_cost(clouds)
    mean_distance = features.mean(a, b)
    classes_unit = jnp.where(mean > FLOAT32_EPS**2 * (mean_distance + apart), mean, jnp.inf)
    features_unit = jnp.where(mean_distance > 0, mean_distance, jnp.inf)
    joint = features.times(gamma / features_unit).plus(of_classes.times((1 - gamma) / classes_unit))
    plan = plan_for(joint, clouds, settings, block_size)
    worst = jnp.where(present, plans.marginal_error.reshape(shape), 0).max()
    return score_of(
        clouds,
        plan._replace(
            converged=plan.converged & (plans.converged.reshape(shape) | ~present).all(),
            marginal_error=jnp.maximum(plan.marginal_error, worst),
        ),
    )


JC_OTCE = Metric(
    name="jc_otce",
    meaning="as f_otce, where matching voxels also costs the distance between their classes",
    needs="source samples",
    direction="higher",
    range="[-H(Y), 0] nats",
    comparable="within one target, any source, the same epsilon and gamma",
    cost=f"S C + 1 plans, each {COST}",
    reference="Tan et al., Practical Transferability Estimation for Image Classification Tasks, "
    "arXiv 2106.10479",
    departure="each term of the ground cost is divided by its mean, as their scales differ; "
    "gamma = 0.5 and the power of the class distance are not confirmed by the paper's text",
    compute=jc_otce,
)
