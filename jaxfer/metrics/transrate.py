"""TransRate: how many bits fewer the features cost once the target's labels are known."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.class_statistics import ClassFeatureStatistics
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.score import Score, make_score
from jaxfer.metrics.validation import num_channels

ClassWeights = Literal["count", "uniform"]
Scale = Literal["none", "unit"]
EPSILON = 1e-4
"""The published distortion."""


def transrate(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    class_weights: ClassWeights = "count",
    epsilon: float = EPSILON,
    scale: Scale = "none",
) -> Score:
    """Coding rate of the features less that of the classes, R(Z) − Σ_c w_c R(Z_c).

    R(Z) = ½ log det(I + ZᵀZ/(nε)) with Z the features less their mean over *all* classes, also in
    Z_c. Higher is better. Depends on the features' unit through ε; unchanged by offsets and
    orthogonal maps. Huang et al., ICML 2022 (arXiv 2106.09362).

    We depart from published code in that an absent class is left out (elsewhere a division by
    zero), and in the default weights: those of the counts keep the score at or above 0, since log
    det is concave; "uniform" is the published form, which can be negative.

    Args:
        features: any real values; fix their unit, or set `scale`.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        class_weights: w_c, "count": n_c/n; "uniform": 1 over the number of present classes.
        epsilon: the distortion ε > 0, static, in the square of the features' unit.
        scale: "unit" divides the centred features by the root of their mean squared norm, so that
            the unit no longer matters; "none" leaves them.

    Returns:
        The score in nats; 0 for constant features.

    Raises:
        ValueError: shapes disagree, or an option is none of those above; outside `jit`, also for
            labels out of range.
    """
    stats = ClassFeatureStatistics.zeros(num_classes, num_channels(features, "features"))
    stats = stats.update(features, labels, mask=mask)
    return transrate_from_statistics(
        stats, class_weights=class_weights, epsilon=epsilon, scale=scale
    )


@compiled_in_float64("class_weights", "epsilon", "scale", cast_back=True)
def transrate_from_statistics(
    stats: ClassFeatureStatistics,
    *,
    class_weights: ClassWeights = "count",
    epsilon: float = EPSILON,
    scale: Scale = "none",
) -> Score:
    """TransRate from moments; arguments as `transrate`."""
    if class_weights not in ("count", "uniform"):
        raise ValueError(f"class_weights must be 'count' or 'uniform', found {class_weights!r}")
    if scale not in ("none", "unit"):
        raise ValueError(f"scale must be 'none' or 'unit', found {scale!r}")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, found {epsilon}")
    counts = stats.counts
    n = jnp.maximum(counts.sum(), 1)
    offsets = stats.means - ((counts[:, None] * stats.means).sum(0) / n)[None, :]
    spread = counts[:, None, None] * offsets[:, :, None] * offsets[:, None, :]
    power = stats.scatters + spread
    whole = power.sum(0)
    unit = jnp.trace(whole) / n if scale == "unit" else jnp.ones((), jnp.float64)
    noise = epsilon * jnp.where(unit > 0, unit, 1)

    present = counts > 0
    by_class = _coding_rate(power, noise * jnp.where(present, counts, 1))
    weights = counts / n if class_weights == "count" else present / jnp.maximum(present.sum(), 1)
    value = _coding_rate(whole, noise * n) - (weights * by_class).sum()
    return make_score(value, class_counts=counts, n_invalid=stats.n_invalid)


def _coding_rate(power: Float[Array, "*k d d"], noise: Float[Array, "*k"]) -> Float[Array, "*k"]:
    """½ log det(I + power/noise)."""
    values = jnp.maximum(jnp.linalg.eigvalsh(power), 0)
    return jnp.log1p(values / noise[..., None]).sum(-1) / 2


CARD = Metric(
    name="transrate",
    meaning="how much shorter the features' code becomes once the labels are known",
    needs="features",
    direction="higher",
    range="[0, inf) nats; with uniform class weights also below 0",
    comparable="within one target, features in one unit or scaled to one",
    cost="O(n D² + C D³), one pass",
    reference="Huang et al., Frustratingly Easy Transferability Estimation, ICML 2022, "
    "arXiv 2106.09362",
    departure="classes weigh by their counts, which keeps the score >= 0 (published: all the same, "
    "an option); absent classes are left out (elsewhere a division by zero)",
    compute=transrate,
    statistics=ClassFeatureStatistics,
    finalise=transrate_from_statistics,
)
