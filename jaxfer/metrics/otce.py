"""OTCE and its relatives: what the target's labels keep to themselves when voxels are transported.

The optimal plan between the source's and the target's features couples their labels; the less the
source's label leaves open of the target's, the better the source. All need the source's own voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.entropy import negative_conditional_entropy
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.sinkhorn import Cost, Transport, transport
from jaxfer.metrics.sums import is_finite, product, usable
from jaxfer.metrics.validation import check_labels, check_samples

FLOAT32_EPS = float(np.finfo(np.float32).eps)

EPSILON = 0.002
MAX_ITERATIONS = 2000
THRESHOLD = 1e-3
BLOCK_SIZE = 64


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
    published entropic form has an ε in the features' unit. Here the cost ‖f_s − f_t‖² is divided by
    its mean over all pairs, so that ε, and with it the score, is free of the features' unit; and
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
        epsilon: entropic regularisation as a share of the mean cost. With 0.002, plans between
            4,000 to 10,000 made voxels of 4 to 64 features came within 1 % of the exact plan's
            conditional entropy, or within one voxel's part in it where hardly any mass changes
            its class; 0.05 was off by up to half. No epsilon reaches it for few voxels: the exact
            plan is n hard pairs, one of many such plans of nearly the same cost, and its entropy
            lies about (S−1)(C−1)/(2n) below that of their mixture.
        max_iterations: sweeps over all pairs; 50 to 160 were needed for the values above.
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
    _check(source_features, source_labels, source_mask, num_source_classes, "source")
    _check(target_features, target_labels, target_mask, num_classes, "target")
    channels = source_features.shape[-1], target_features.shape[-1]
    _check_settings(*channels, epsilon, max_iterations, threshold)
    return _f_otce(
        (source_features, source_labels, source_mask),
        (target_features, target_labels, target_mask),
        (epsilon, max_iterations, threshold),
        num_source_classes=num_source_classes,
        num_classes=num_classes,
        block_size=block_size,
    )


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

    d the transport cost between the clouds of a source and a target class. Higher is better, within
    [−H(Y_t), 0]; γ = 1 is F-OTCE. Tan et al., arXiv 2106.10479, of which we know no more than
    this: γ = 0.5 and the power of d are not confirmed. Both terms have their mean as unit, since
    their scales differ otherwise; d is in squared distances, as the first term is.

    Args:
        gamma: γ in [0, 1].
        others: as `f_otce`; `epsilon` is a share of the mean cost of every plan. S · C plans
            between classes come before the last one, each as costly.

    Returns:
        As `f_otce`; `w_d` is in units of the mean cost. `converged` speaks of all plans.

    Raises:
        ValueError: as `f_otce`; gamma is not in [0, 1].
    """
    _check(source_features, source_labels, source_mask, num_source_classes, "source")
    _check(target_features, target_labels, target_mask, num_classes, "target")
    channels = source_features.shape[-1], target_features.shape[-1]
    _check_settings(*channels, epsilon, max_iterations, threshold)
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


Samples = tuple[Float[AnyArray, "... d"], Real[AnyArray, " ..."], Bool[AnyArray, " ..."] | None]
Settings = tuple[float | Array, int | Array, float | Array]


def _check(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    num_classes: int,
    side: str,
) -> None:
    check_samples(features, labels, mask, name=f"{side}_features")
    check_labels(labels, num_classes, mask, name=f"{side}_labels")


def _check_settings(
    source_channels: int,
    target_channels: int,
    epsilon: float,
    max_iterations: int,
    threshold: float,
) -> None:
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


class _Clouds(NamedTuple):
    """Both sides' features around their common mean, and one-hot labels, 0 for unused voxels."""

    x: Float[Array, "n d"]
    y: Float[Array, "m d"]
    source_classes: Float[Array, "n s"]
    target_classes: Float[Array, "m c"]
    n_invalid: Float[Array, ""]


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
    clouds = _clouds(source, target, num_source_classes, num_classes)
    plan, unit = _plan(clouds, settings, block_size)
    return _score(clouds, plan._replace(cost=plan.cost * unit))


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
    clouds = _clouds(source, target, num_source_classes, num_classes)
    source_sizes, target_sizes = clouds.source_classes.sum(0), clouds.target_classes.sum(0)

    def of_pair(pair: Int[Array, ""]) -> Transport:
        s, c = pair // num_classes, pair % num_classes
        # The columns of two classes alone: only their voxels carry mass.
        return _between(clouds, s, c, settings, block_size)

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
    a, b = _masses(clouds)
    mean = of_classes.mean(a, b)
    # Far below the features' own spread, two classes lie in one place.
    features = Cost.squared_distance(clouds.x, clouds.y)
    mean_distance = features.mean(a, b)
    classes_unit = jnp.where(mean > FLOAT32_EPS**2 * mean_distance, mean, jnp.inf)
    features_unit = jnp.where(mean_distance > 0, mean_distance, jnp.inf)
    joint = features.times(gamma / features_unit).plus(of_classes.times((1 - gamma) / classes_unit))
    plan, unit = _plan(clouds, settings, block_size, joint)
    worst = jnp.where(present, plans.marginal_error.reshape(shape), 0).max()
    return _score(
        clouds,
        plan._replace(
            cost=plan.cost * unit,
            converged=plan.converged & (plans.converged.reshape(shape) | ~present).all(),
            marginal_error=jnp.maximum(plan.marginal_error, worst),
        ),
    )


def _clouds(source: Samples, target: Samples, num_source_classes: int, num_classes: int) -> _Clouds:
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
    return _Clouds(
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


def _masses(clouds: _Clouds) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
    sides = (clouds.source_classes.sum(1), clouds.target_classes.sum(1))
    a, b = (used / jnp.maximum(used.sum(), 1) for used in sides)
    return a, b


def _plan(
    clouds: _Clouds, settings: Settings, block_size: int, cost: Cost | None = None
) -> tuple[Transport, Float[Array, ""]]:
    """The plan for the cost in units of its mean, and that unit; squared distances by default."""
    epsilon, max_iterations, threshold = settings
    cost = Cost.squared_distance(clouds.x, clouds.y) if cost is None else cost
    a, b = _masses(clouds)
    unit = cost.mean(a, b)
    # The mean is a difference of offsets and product: what equal clouds leave of it is noise.
    offsets = (a * cost.row_offsets).sum() + (b * cost.column_offsets).sum()
    differs = unit > FLOAT32_EPS**2 * offsets
    unit = jnp.where(differs, unit, 0)
    plan = transport(
        cost.times(jnp.where(differs, 1 / jnp.where(differs, unit, 1), 0)),
        clouds.source_classes,
        clouds.target_classes,
        epsilon=epsilon,
        max_iterations=max_iterations,
        threshold=threshold,
        block_size=block_size,
    )
    return plan, unit


def _between(
    clouds: _Clouds,
    source_class: Int[Array, ""],
    target_class: Int[Array, ""],
    settings: Settings,
    block_size: int,
) -> Transport:
    """The plan between the voxels of a source and a target class, its cost in squared distances."""
    source_classes = jnp.take(clouds.source_classes, source_class, axis=1)[:, None]
    target_classes = jnp.take(clouds.target_classes, target_class, axis=1)[:, None]
    pair = clouds._replace(source_classes=source_classes, target_classes=target_classes)
    plan, unit = _plan(pair, settings, block_size)
    return plan._replace(cost=plan.cost * unit)


def _score(clouds: _Clouds, plan: Transport) -> TransportScore:
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


_COST = "O(n m D) for each of 50 to 160 sweeps, O((n + m) D) memory; samples, not all voxels"

F_OTCE = Metric(
    name="f_otce",
    meaning="what the source's labels leave unknown of the target's when both sides' voxels are "
    "matched by optimal transport between their features, negated",
    needs="source samples",
    direction="higher",
    range="[-H(Y), 0] nats",
    comparable="within one target, any source, the same epsilon",
    cost=_COST,
    reference="Tan et al., Transferability-Guided Cross-Domain Cross-Task Transfer Learning, "
    "arXiv 2207.05510",
    departure="epsilon is a share of the mean cost (elsewhere in the features' unit, or an exact "
    "plan); a plan that has not converged is NaN (elsewhere used in silence)",
    compute=f_otce,
)

JC_OTCE = Metric(
    name="jc_otce",
    meaning="as f_otce, where matching voxels also costs the distance between their classes",
    needs="source samples",
    direction="higher",
    range="[-H(Y), 0] nats",
    comparable="within one target, any source, the same epsilon and gamma",
    cost=f"S C + 1 plans, each {_COST}",
    reference="Tan et al., Practical Transferability Estimation for Image Classification Tasks, "
    "arXiv 2106.10479",
    departure="each term of the ground cost is divided by its mean, as their scales differ; "
    "gamma = 0.5 and the power of the class distance are not confirmed by the paper's text",
    compute=jc_otce,
)

OTCE = Metric(
    name="otce",
    meaning="accuracy expected from the transport cost and the conditional entropy of f_otce, by a "
    "linear fit to auxiliary tasks",
    needs="source samples",
    direction="higher",
    range="unbounded, in the unit of the fitted accuracies",
    comparable="within one target, sources scored with one fit",
    cost=_COST,
    reference="Tan et al., OTCE: A Transferability Metric for Cross-Domain Cross-Task "
    "Representations, CVPR 2021",
    departure="as f_otce; without a fit it is refused",
    compute=otce,
)
