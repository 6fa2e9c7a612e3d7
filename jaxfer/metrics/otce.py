"""OTCE and its relatives: what the target's labels keep to themselves when voxels are transported.

The optimal plan between the source's and the target's features couples their labels; the less the
source's label leaves open of the target's, the better the source. All need the source's own voxels.
With a cost that compares classes too it is `jc_otce`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.clouds import (
    BLOCK_SIZE,
    COST,
    EPSILON,
    MAX_ITERATIONS,
    THRESHOLD,
    Samples,
    Settings,
    TransportScore,
    check_settings,
    check_side,
    clouds_of,
    plan_between,
    score_of,
)
from jaxfer.metrics.precision import AnyArray, compiled_in_float64


class OtceFit(NamedTuple):
    """Coefficients of OTCE: accuracy ≈ w_d · W_D + w_t · W_T + intercept."""

    w_d: float
    w_t: float
    intercept: float


def f_otce(
    source_features: Float[AnyArray, "*n d"],
    source_labels: Real[AnyArray, "*n"],
    target_features: Float[AnyArray, "*m d"],
    target_labels: Real[AnyArray, "*m"],
    *,
    num_source_classes: int,
    num_classes: int,
    source_mask: Bool[AnyArray, "*n"] | None = None,
    target_mask: Bool[AnyArray, "*m"] | None = None,
    epsilon: float = EPSILON,
    max_iterations: int = MAX_ITERATIONS,
    threshold: float = THRESHOLD,
    block_size: int = BLOCK_SIZE,
) -> TransportScore:
    """F-OTCE, −H(Y_t|Y_s) under the optimal plan between both feature clouds.

    Higher is better, within [−H(Y_t), 0] up to the plan's marginal error. One source class, and
    features that do not vary, give −H(Y_t). Tan et al., arXiv 2207.05510.

    We depart from published code in how the plan is made. Exact transport costs O(n³ log n); the
    published entropic form has an ε in the features' unit. Here both clouds are brought to one
    mean, which changes no exact plan, and the cost ‖f_s − f_t‖² is divided by its mean over all
    pairs, so that ε, and with it the score, is free of the features' unit and of an offset between
    the sides, such as of two scanners; and
    a plan that has not converged is no score. ε blurs the plan: towards 0 the score becomes that of
    the exact plan, towards ∞ it becomes −H(Y_t).

    Args:
        source_features: of the network on the source's own voxels.
        source_labels: source classes in [0, num_source_classes).
        target_features: of the same network and layer on the target's voxels.
        target_labels: target classes in [0, num_classes).
        num_source_classes: S, static.
        num_classes: C, static; absent classes are left out and counted.
        source_mask, target_mask: True where a voxel counts; others contribute nothing, even when
            they hold NaN.
        epsilon: entropic regularisation as a share of the mean cost. Measured with 0.002 against
            the exact plan's conditional entropy: −0.7 to +0.2 % on six pairs of made clouds
            (4,000 voxels; overlapping, rectified and quantised features), +0.5 and +1.2 % on two
            of hippocampus voxels (4,000; 7 filters of the image), −0.5 to +1.2 % on other made
            clouds of 10,000, and up to −3 % on quantised ones of 4,000. The sign varies, so
            differences of less than 3 % between sources may be the plan's; 0.05 was off by up to
            half. Where the exact cost is itself a small share of the mean (the hippocampus: 1.4 %),
            the same epsilon blurs more.
        max_iterations: sweeps over all pairs. The made clouds of 4,000 above needed 55 to 150,
            the hippocampus 820 and 920.
        threshold: of the plan's marginal error, as a share of the mass. What is left of it does not
            bend the score much, since the masses of whole classes are right in any case.
        block_size: target voxels whose costs to all source voxels exist at a time, static. Memory
            is O((n + m) D + block_size · n), time O(n m D) per sweep.

    Returns:
        The score in nats. Its `n_used` counts the target's voxels, `n_invalid` both sides'.

    Raises:
        ValueError: shapes disagree, the settings are out of range; outside `jit`, also for labels
            out of range.
    """
    check_side(source_features, source_labels, source_mask, num_source_classes, "source")
    check_side(target_features, target_labels, target_mask, num_classes, "target")
    channels = source_features.shape[-1], target_features.shape[-1]
    check_settings(*channels, epsilon, max_iterations, threshold)
    return _f_otce(
        (source_features, source_labels, source_mask),
        (target_features, target_labels, target_mask),
        (epsilon, max_iterations, threshold),
        num_source_classes=num_source_classes,
        num_classes=num_classes,
        block_size=block_size,
    )


def otce(
    source_features: Float[AnyArray, "*n d"],
    source_labels: Real[AnyArray, "*n"],
    target_features: Float[AnyArray, "*m d"],
    target_labels: Real[AnyArray, "*m"],
    *,
    num_source_classes: int,
    num_classes: int,
    fit: OtceFit | None = None,
    source_mask: Bool[AnyArray, "*n"] | None = None,
    target_mask: Bool[AnyArray, "*m"] | None = None,
    epsilon: float = EPSILON,
    max_iterations: int = MAX_ITERATIONS,
    threshold: float = THRESHOLD,
    block_size: int = BLOCK_SIZE,
) -> TransportScore:
    """OTCE, λ1 · W_D + λ2 · W_T + b: the accuracy that auxiliary tasks would lead one to expect.

    Higher is better, unbounded. Tan et al., CVPR 2021. Plan and departures as in `f_otce`. W_D has
    the features' unit, so a fit serves only the network and the layer that it was made with.

    Args:
        fit: from `fit_otce`, on tasks other than this target.
        others: as `f_otce`.

    Raises:
        ValueError: no fit is given; as `f_otce`.
    """
    if fit is None:
        raise ValueError(
            "otce needs coefficients fitted on auxiliary tasks of known accuracy: pass "
            "fit=fit_otce(w_d, w_t, accuracies), or use f_otce, which needs none"
        )
    plan = f_otce(
        source_features,
        source_labels,
        target_features,
        target_labels,
        num_source_classes=num_source_classes,
        num_classes=num_classes,
        source_mask=source_mask,
        target_mask=target_mask,
        epsilon=epsilon,
        max_iterations=max_iterations,
        threshold=threshold,
        block_size=block_size,
    )
    value = fit.w_d * plan.w_d + fit.w_t * plan.w_t + fit.intercept
    defined = jnp.isfinite(plan.score.score)
    return plan._replace(score=plan.score._replace(score=jnp.where(defined, value, jnp.nan)))


def fit_otce(
    w_d: Sequence[float] | Real[AnyArray, " t"],
    w_t: Sequence[float] | Real[AnyArray, " t"],
    accuracies: Sequence[float] | Real[AnyArray, " t"],
) -> OtceFit:
    """Coefficients of OTCE by least squares; on the host, outside `jit`.

    Args:
        w_d: of auxiliary tasks, from `f_otce`.
        w_t: likewise.
        accuracies: that fine-tuning reached on them, any unit; it becomes the score's unit.

    Raises:
        ValueError: fewer than three tasks, values that are not finite, or tasks whose W_D and W_T
            do not tell the coefficients apart.
    """
    columns = [np.asarray(x, np.float64) for x in (w_d, w_t, accuracies)]
    shapes = [x.shape for x in columns]
    if len(set(shapes)) > 1 or columns[0].ndim != 1 or len(columns[0]) < 3:
        raise ValueError(f"fit_otce needs three lists of at least 3 tasks each: found {shapes}")
    if not all(np.isfinite(x).all() for x in columns):
        raise ValueError("fit_otce needs finite values: leave out tasks whose plan is no score")
    predictors = np.stack(columns[:2], 1)
    mean, spread = predictors.mean(0), predictors.std(0)
    unit = np.where(spread > 0, spread, 1)
    centred = (predictors - mean) / unit
    if np.linalg.matrix_rank(centred, tol=1e-9 * len(centred)) < 2:
        raise ValueError(
            "fit_otce cannot tell W_D from W_T: over these tasks one is constant, or a linear "
            "function of the other; add tasks"
        )
    slopes = np.linalg.lstsq(centred, columns[2] - columns[2].mean(), rcond=None)[0] / unit
    return OtceFit(float(slopes[0]), float(slopes[1]), float(columns[2].mean() - mean @ slopes))


@compiled_in_float64("num_source_classes", "num_classes", "block_size", cast_back=True)
def _f_otce(
    source: Samples,
    target: Samples,
    settings: Settings,
    *,
    num_source_classes: int,
    num_classes: int,
    block_size: int,
) -> TransportScore:
    clouds = clouds_of(source, target, num_source_classes, num_classes)
    return score_of(clouds, plan_between(clouds, settings, block_size))


F_OTCE = Metric(
    name="f_otce",
    meaning="what the source's labels leave unknown of the target's when both sides' voxels are "
    "matched by optimal transport between their features, negated",
    needs="source samples",
    direction="higher",
    range="[-H(Y), 0] nats",
    comparable="within one target, any source, the same epsilon",
    cost=COST,
    reference="Tan et al., Transferability-Guided Cross-Domain Cross-Task Transfer Learning, "
    "arXiv 2207.05510",
    departure="epsilon is a share of the mean cost between clouds brought to one mean (elsewhere "
    "in the features' unit, or an exact plan); a plan that has not converged is NaN (elsewhere "
    "used in silence)",
    compute=f_otce,
)


OTCE = Metric(
    name="otce",
    meaning="accuracy expected from the transport cost and the conditional entropy of f_otce, by a "
    "linear fit to auxiliary tasks",
    needs="source samples",
    direction="higher",
    range="unbounded, in the unit of the fitted accuracies",
    comparable="within one target, sources scored with one fit",
    cost=COST,
    reference="Tan et al., OTCE: A Transferability Metric for Cross-Domain Cross-Task "
    "Representations, CVPR 2021",
    departure="as f_otce; without a fit it is refused",
    compute=otce,
)
