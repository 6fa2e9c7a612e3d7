"""CRank: does a source's prediction stand when its input or its features are disturbed?

Without any label of the target. A network that always says the same is perfectly consistent, so
every result names the foreground that was predicted; read them together.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.sums import is_distribution, product, usable
from jaxfer.metrics.validation import (
    check_arrays,
    check_labels,
    check_log_probs,
    check_mask,
    num_channels,
)


class Consistency(NamedTuple):
    """Agreement of two predictions, and what they predict.

    Attributes:
        score: its `classes_present` counts the classes of the undisturbed prediction. One class
            alone, background or not, is no evidence: NaN, `FEW_CLASSES`.
        foreground: share of voxels that the undisturbed prediction does not call background.
        disturbed_foreground: likewise of the disturbed one.
    """

    score: Score
    foreground: Float[Array, "*k"]
    disturbed_foreground: Float[Array, "*k"]

    def __float__(self) -> float:
        return float(self.score)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The score's flags in words."""
        return self.score.reasons


def effective_invariance(
    log_probs: Float[AnyArray, "*n s"],
    disturbed: Float[AnyArray, "*n s"],
    *,
    mask: Bool[AnyArray, "*n"] | None = None,
    background: int = 0,
    foreground_only: bool = False,
) -> Consistency:
    """Effective invariance, the mean over voxels of √(p p') where both name one class, else 0.

    p and p' are the probabilities of the named classes. Higher is better, within [0, 1]. CRank,
    arXiv 2503.00450. How strong the disturbance is decides the value: the same for every source.

    Args:
        log_probs: log-probabilities of the source's classes, natural logarithm, −inf is allowed.
        disturbed: those with the input or the features disturbed.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        background: the class that is no foreground, static.
        foreground_only: count only voxels that either prediction calls foreground, static: over
            all voxels the background decides.

    Returns:
        The score, and the foreground that was predicted.

    Raises:
        ValueError: shapes disagree; outside `jit`, also for rows that are no log-probabilities.
    """
    num_channels(log_probs, "log_probs")
    check_arrays({"disturbed": disturbed})
    check_mask(log_probs[..., 0], mask)
    if log_probs.shape != disturbed.shape:
        raise ValueError(
            f"both predictions must have one shape: {log_probs.shape} != {disturbed.shape}"
        )
    check_log_probs(log_probs, mask)
    check_log_probs(disturbed, mask)
    return _invariance(
        log_probs, disturbed, mask, background=background, foreground_only=foreground_only
    )


def hamming_distance(
    labels: Real[AnyArray, "*n"],
    disturbed: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    background: int = 0,
    foreground_only: bool = False,
) -> Consistency:
    """Hamming distance, the share of voxels whose predicted class changes.

    Lower is better, within [0, 1]. CRank, arXiv 2503.00450.

    Args:
        labels: predicted classes in [0, num_classes).
        disturbed: those with the input or the features disturbed.
        num_classes: of the source, static.
        others: as `effective_invariance`.

    Raises:
        ValueError: shapes disagree; outside `jit`, also for classes out of range.
    """
    _check_pair(labels, disturbed, num_classes, mask)
    return _hamming(
        labels,
        disturbed,
        mask,
        num_classes=num_classes,
        background=background,
        foreground_only=foreground_only,
    )


def adapted_rand_error(
    instances: Real[AnyArray, "*n"],
    disturbed: Real[AnyArray, "*n"],
    *,
    num_instances: int,
    mask: Bool[AnyArray, "*n"] | None = None,
) -> Consistency:
    """Adapted Rand error of two predictions of instances, 1 − 2 P R / (P + R).

    P and R are the shares of pairs of voxels that lie together in one prediction and do in the
    other too, over voxels that the undisturbed prediction does not call 0, the background. Lower
    is better, within [0, 1]; names of instances do not matter. Arganda-Carreras et al., Frontiers
    in Neuroanatomy 2015; used by CRank, arXiv 2503.00450.

    Args:
        instances: instance numbers in [0, num_instances), 0 is background.
        disturbed: those with the input or the features disturbed.
        num_instances: largest instance number of either, plus 1, static.
        mask: True where a voxel counts.

    Returns:
        The error; NaN, `FEW_CLASSES`, without an instance or when instances fill the image as one.

    Raises:
        ValueError: shapes disagree; outside `jit`, also for numbers out of range.
    """
    _check_pair(instances, disturbed, num_instances, mask)
    return _rand(instances, disturbed, mask, num_instances=num_instances)


def _check_pair(
    labels: Real[AnyArray, " ..."],
    disturbed: Real[AnyArray, " ..."],
    num_classes: int,
    mask: Bool[AnyArray, " ..."] | None,
) -> None:
    check_arrays({"labels": labels, "disturbed": disturbed})
    if labels.shape != disturbed.shape:
        raise ValueError(
            f"both predictions must have one shape: {labels.shape} != {disturbed.shape}"
        )
    check_mask(labels, mask)
    check_labels(labels, num_classes, mask)
    check_labels(disturbed, num_classes, mask, name="disturbed")


@compiled_in_float64("background", "foreground_only", cast_back=True)
def _invariance(
    log_probs: Float[AnyArray, "*n s"],
    disturbed: Float[AnyArray, "*n s"],
    mask: Bool[AnyArray, "*n"] | None,
    *,
    background: int,
    foreground_only: bool,
) -> Consistency:
    num_classes = log_probs.shape[-1]
    a, b = (jnp.reshape(x, (-1, num_classes)) for x in (log_probs, disturbed))
    # In the caller's precision: under `pmap` an argmax of float64 does not compile.
    first, second = (jax.lax.argmax(x, 1, jnp.int32) for x in (a, b))
    a, b = a.astype(jnp.float64), b.astype(jnp.float64)
    readable = is_distribution(jnp.exp(a)) & is_distribution(jnp.exp(b))
    kept = jnp.exp((a.max(1) + b.max(1)) / 2)
    return _consistency(
        jnp.where(readable & (first == second), kept, 0),
        first,
        second,
        usable(first, mask, readable, num_classes),
        background,
        foreground_only,
    )


@compiled_in_float64("num_classes", "background", "foreground_only", cast_back=True)
def _hamming(
    labels: Real[AnyArray, "*n"],
    disturbed: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    *,
    num_classes: int,
    background: int,
    foreground_only: bool,
) -> Consistency:
    a, b = (jnp.reshape(x, -1) for x in (labels, disturbed))
    return _consistency(
        (a != b).astype(jnp.float64),
        a,
        b,
        usable(a, mask, _is_class(b, num_classes), num_classes),
        background,
        foreground_only,
    )


@compiled_in_float64("num_instances", cast_back=True)
def _rand(
    instances: Real[AnyArray, "*n"],
    disturbed: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    *,
    num_instances: int,
) -> Consistency:
    a, b = (jnp.reshape(x, -1) for x in (instances, disturbed))
    classes, used, n_invalid = usable(a, mask, _is_class(b, num_instances), num_instances)
    others = usable(b, used, jnp.full(b.shape, True), num_instances)[0]
    table = product(classes.T, others)
    inside = table[1:]
    total = inside.sum()

    def pairs(sizes: Float[Array, " ..."]) -> Float[Array, ""]:
        return (sizes * (sizes - 1)).sum()

    together, of_first, of_second = pairs(inside), pairs(inside.sum(1)), pairs(inside.sum(0))
    both = of_first + of_second
    # Without any pair in one instance, both predictions agree that nothing lies together.
    error = jnp.where(both > 0, 1 - 2 * together / jnp.where(both > 0, both, 1), 0)
    score = make_score(
        error,
        class_counts=table.sum(1),
        n_invalid=n_invalid,
        flags=flag_where(total == 0, Flag.FEW_CLASSES),
    )
    n = jnp.maximum(table.sum(), 1)
    return Consistency(score, total / n, table[:, 1:].sum() / n)


def _is_class(labels: Real[Array, " v"], num_classes: int) -> Bool[Array, " v"]:
    return (labels[:, None] == jnp.arange(num_classes)[None, :]).any(-1)


def _consistency(
    values: Float[Array, " v"],
    first: Real[Array, " v"],
    second: Real[Array, " v"],
    of_voxels: tuple[Float[Array, "v c"], Bool[Array, " v"], Float[Array, ""]],
    background: int,
    foreground_only: bool,
) -> Consistency:
    """The mean of values over the voxels that count."""
    classes, used, n_invalid = of_voxels
    n = jnp.maximum(used.sum(), 1)
    in_first, in_second = used & (first != background), used & (second != background)
    counted = in_first | in_second if foreground_only else used
    score = make_score(
        jnp.where(counted, values, 0).sum() / jnp.maximum(counted.sum(), 1),
        class_counts=classes.sum(0),
        n_invalid=n_invalid,
    )
    return Consistency(score, in_first.sum() / n, in_second.sum() / n)


EFFECTIVE_INVARIANCE = Metric(
    name="effective_invariance",
    meaning="how surely the source names the same class when its input or features are disturbed; "
    "needs no label of the target; read it with the predicted foreground",
    needs="two predictions",
    direction="higher",
    range="[0, 1]",
    comparable="within one target, the same disturbance for every source",
    cost="O(n S), two predictions",
    reference="CRank, arXiv 2503.00450",
    departure="a prediction of one class alone is NaN (elsewhere perfectly consistent); the "
    "predicted foreground is reported",
    compute=effective_invariance,
)

HAMMING = Metric(
    name="hamming_distance",
    meaning="share of voxels whose predicted class changes when input or features are disturbed; "
    "needs no label of the target; read it with the predicted foreground",
    needs="two predictions",
    direction="lower",
    range="[0, 1]",
    comparable="within one target, the same disturbance for every source",
    cost="O(n S), two predictions",
    reference="CRank, arXiv 2503.00450",
    departure="a prediction of one class alone is NaN (elsewhere perfectly consistent); the "
    "predicted foreground is reported",
    compute=hamming_distance,
)
