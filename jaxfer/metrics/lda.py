"""LDA score: how surely a linear discriminant of the features knows the target's labels.

Two passes over the voxels, the second with the classifier of the first:

    stats = stats.update(features, labels)                               over all batches
    classifier = linear_classifier(stats)
    posteriors = posteriors.update(features, labels, classifier)         over all batches
    lda_from_statistics(posteriors)
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.class_statistics import ClassFeatureStatistics
from jaxfer.metrics.posterior import PosteriorStatistics, linear_classifier
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.validation import num_channels


def lda(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    shrinkage: float | None = None,
) -> Score:
    """Mean posterior of the true class under shrinkage LDA, (1/n) Σ_i P(y_i|f_i).

    Gaussian classes of one covariance S̃ = (1−a) S_w + a (tr S_w / D) I, S_w that within the
    classes, priors their shares; fitted and scored on the same voxels. Higher is better, within
    [0, 1]; a source that knows nothing scores Σ_c (n_c/n)². Unchanged by offsets and orthogonal
    maps; with the default shrinkage not by the features' unit. The classification part of ETran
    (Gholami et al., ICCV 2023).

    We depart from published code in the eigenproblem: it gives the non-symmetric S̃⁻¹S_b to a
    solver for symmetric matrices, so its directions are no discriminants. λ_max is exact there
    where three power iterations stand.

    Args:
        features: any real values.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        shrinkage: a in [0, 1], static; None: max(exp(−5 λ_max(S_w)), 1e-10) as published, which
            depends on the features' unit.

    Returns:
        The score; Σ_c (n_c/n)² for constant features, 1 for classes without spread apart.

    Raises:
        ValueError: shapes disagree, or the shrinkage is out of range; outside `jit`, also for
            labels out of range.
    """
    stats = ClassFeatureStatistics.zeros(num_classes, num_channels(features, "features"))
    stats = stats.update(features, labels, mask=mask)
    classifier = linear_classifier(stats, shrinkage=shrinkage)
    posteriors = PosteriorStatistics.zeros(num_classes)
    return lda_from_statistics(posteriors.update(features, labels, classifier, mask=mask))


@compiled_in_float64(cast_back=True)
def lda_from_statistics(stats: PosteriorStatistics) -> Score:
    """LDA score from the statistics of the second pass."""
    return make_score(
        stats.sums.sum() / jnp.maximum(stats.counts.sum(), 1),
        class_counts=stats.counts,
        n_invalid=stats.n_invalid,
        flags=flag_where(stats.n_unseen > 0, Flag.UNSEEN_LABELS),
    )


CARD = Metric(
    name="lda",
    meaning="how surely a linear discriminant of the features knows the labels",
    needs="features",
    direction="higher",
    range="[0, 1]",
    comparable="within one target, features in one unit",
    cost="O(n D² + D³), two passes",
    reference="Gholami et al., ETran: Energy-Based Transferability Estimation, ICCV 2023",
    departure="the generalised symmetric eigenproblem (published code: a symmetric solver on a "
    "non-symmetric matrix); the largest eigenvalue exactly",
    compute=lda,
    statistics=ClassFeatureStatistics,
    second_pass=PosteriorStatistics,
    finalise=lda_from_statistics,
)
