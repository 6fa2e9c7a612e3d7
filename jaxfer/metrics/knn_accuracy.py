"""kNN accuracy: how often a voxel's nearest other voxels vote for its label."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.neighbours import nearest_votes
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.samples import check_voxels, used_samples
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.sums import product

VOTE_ROUNDING = 1e-9


def knn_accuracy(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    k: int = 5,
    subjects: Real[AnyArray, "*n"] | None = None,
    balanced: bool = False,
    max_entries: int = 2**22,
) -> Score:
    """Leave-one-out accuracy of the k nearest neighbours, by Euclidean distance.

    Higher is better, within [0, 1]. The mandatory baseline: across 23 metrics nothing beat it
    (Sorkhei et al., arXiv 2503.18528). Plain accuracy follows prevalence; look at `balanced` too.
    Neighbours from the same subject flatter a source: with `subjects` they have no vote.

    Ties. Neighbours at the same distance as the k-th share the votes that are left; when classes
    share the first place, the voxel counts with the chance that a fair draw among them is right.
    So the order of voxels and the numbering of classes decide nothing.

    We depart from published code in that a voxel is excluded by its index, not as "the first
    neighbour", which with duplicate vectors need not be itself; and in these ties.

    Args:
        features: any real values; Euclidean distance weighs them as they are.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        k: neighbours, static; where fewer exist all of them vote, flagged `REDUCED`.
        subjects: a number for the subject of each voxel; None: only the voxel itself is excluded.
        balanced: the mean over the present classes of each one's accuracy, static.
        max_entries: distances held at once, static; bounds the memory to 8 bytes times a few.

    Returns:
        The score; a voxel without any neighbour is not used.

    Raises:
        ValueError: shapes disagree, or k < 1; outside `jit`, also for labels out of range.
    """
    check_voxels(features, labels, num_classes, mask)
    if subjects is not None and subjects.shape != labels.shape:
        raise ValueError(
            f"subjects must have the labels' shape: {subjects.shape} != {labels.shape}"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1: found {k}")
    return _knn_accuracy(
        features,
        labels,
        mask,
        subjects,
        num_classes=num_classes,
        k=k,
        balanced=balanced,
        max_entries=max_entries,
    )


@compiled_in_float64("num_classes", "k", "balanced", "max_entries", cast_back=True)
def _knn_accuracy(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    subjects: Real[AnyArray, "*n"] | None,
    *,
    num_classes: int,
    k: int,
    balanced: bool,
    max_entries: int,
) -> Score:
    samples = used_samples(features, labels, mask, num_classes)
    classes = samples.classes
    groups = (
        jnp.arange(len(classes), dtype=jnp.int32)
        if subjects is None or subjects.size == 0
        else jnp.reshape(jnp.asarray(subjects), -1)
    )
    votes, available = nearest_votes(
        samples.features, classes, groups, k=k, max_entries=max_entries
    )
    winners = votes >= votes.max(1, keepdims=True) - VOTE_ROUNDING
    right = (winners * classes).sum(1) / winners.sum(1)

    voted = classes * (available > 0)[:, None]
    counts = voted.sum(0)
    hits = product(right[None, :], voted)[0]
    present = counts > 0
    shares = jnp.where(present, hits / jnp.where(present, counts, 1), 0)
    value = (
        shares.sum() / jnp.maximum(present.sum(), 1)
        if balanced
        else hits.sum() / jnp.maximum(counts.sum(), 1)
    )
    return make_score(
        value,
        class_counts=counts,
        n_invalid=samples.n_invalid,
        flags=flag_where((samples.used & (available < k)).any(), Flag.REDUCED),
    )


_card = functools.partial(
    Metric,
    needs="features",
    direction="higher",
    range="[0, 1]",
    comparable="within one target, the same n and k for every source",
    cost="O(n² D), in blocks",
    reference="Sorkhei et al., arXiv 2503.18528, for its rank among 23 metrics",
    departure="a voxel is excluded by index (published code drops the first neighbour, wrong with "
    "duplicates); equal distances share votes and equal votes count with their chance; "
    "voxels of the same subject can be excluded",
    by_subject=True,
)

CARD = _card(
    name="knn_accuracy",
    meaning="share of voxels whose nearest other voxels vote for their label",
    compute=knn_accuracy,
)

BALANCED_CARD = _card(
    name="knn_balanced_accuracy",
    meaning="the same, as mean over the classes",
    compute=functools.partial(knn_accuracy, balanced=True),
)
