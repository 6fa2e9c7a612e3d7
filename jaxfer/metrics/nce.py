"""NCE: how much of the target's labels the source's decisions explain."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.entropy import negative_conditional_entropy
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.score import Score, make_score
from jaxfer.metrics.statistics import LabelStatistics
from jaxfer.metrics.validation import check_arrays, check_labels, check_mask


def nce(
    source_labels: Real[AnyArray, "*n"],
    labels: Real[AnyArray, "*n"],
    *,
    num_source_classes: int,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
) -> Score:
    """Negative conditional entropy −H(Y|Z) = Σ_{y,z} P(y,z) log P(y|z).

    Higher is better, within [−H(Y), 0]. Hard decisions hide confidence: a source that calls every
    voxel background scores −H(Y) whatever its probabilities knew. Tran et al., ICCV 2019.

    We depart from published code in that nothing is added to the table: 0·log 0 is 0, and source
    classes that never occur contribute nothing. One target class alone gives NaN, not 0.

    Args:
        source_labels: the source's classes in [0, num_source_classes).
        labels: target classes in [0, num_classes).
        num_source_classes: S, static.
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts.

    Returns:
        The score in nats.

    Raises:
        ValueError: shapes disagree; outside `jit`, also for classes out of range.
    """
    check_arrays({"source_labels": source_labels, "labels": labels})
    if source_labels.shape != labels.shape:
        raise ValueError(
            f"source_labels must have the labels' shape: {source_labels.shape} != {labels.shape}"
        )
    check_mask(labels, mask)
    check_labels(source_labels, num_source_classes, mask, name="source_labels")
    check_labels(labels, num_classes, mask)
    certain = _certain(source_labels, num_source_classes=num_source_classes)
    stats = LabelStatistics.zeros(num_classes, num_source_classes)
    return nce_from_statistics(stats.update(certain, labels, mask=mask))


@compiled_in_float64(cast_back=True)
def nce_from_statistics(stats: LabelStatistics) -> Score:
    """NCE from the table of the most probable source classes."""
    value = negative_conditional_entropy(stats.hard_joint)
    return make_score(value, class_counts=stats.hard_joint.sum(1), n_invalid=stats.n_invalid)


@compiled_in_float64("num_source_classes")
def _certain(
    source_labels: Real[AnyArray, "*n"], *, num_source_classes: int
) -> Float[Array, "*n s"]:
    """Decisions as log-probabilities: 0 for the class, −inf for the others."""
    source_labels = jnp.asarray(source_labels)
    classes = jnp.arange(num_source_classes)
    classes = classes.reshape((1,) * source_labels.ndim + classes.shape)
    return jnp.where(source_labels[..., None] == classes, 0.0, -jnp.inf).astype(jnp.float32)


CARD = Metric(
    name="nce",
    meaning="what the source's predicted label leaves unknown of the target's, negated",
    needs="probabilities",
    direction="higher",
    range="[-H(Y), 0] nats",
    comparable="within one target, any source",
    cost="O(n S), one pass",
    reference="Tran et al., Transferability and Hardness of Supervised Classification Tasks, "
    "ICCV 2019",
    departure="nothing is added to the joint table; one target class alone is NaN",
    compute=nce,
    statistics=LabelStatistics,
    finalise=nce_from_statistics,
)
