"""The statistics of a class-balanced population: rare classes weigh as much as common ones.

On whole images with a small RoI nearly every voxel is background, and a source that knows nothing
scores close to one that knows all. Weights instead of sampling: every voxel stays, each class
counts with the same total mass, and the sum of all masses stays the number of voxels.

    h_score_from_statistics(class_balanced(stats).features())     ClassFeatureStatistics
    nce_from_statistics(class_balanced(stats))                    LabelStatistics

LEEP is balanced in both passes, and the LDA score likewise:

    log_conditional = conditional_log_probs(class_balanced(stats))
    leep_from_statistics(class_balanced(predictions))             with that table in the second pass

Put all parts together first: shares are those of the whole, not of one case.
"""

from __future__ import annotations

from typing import TypeVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxfer.metrics.class_statistics import ClassFeatureStatistics
from jaxfer.metrics.posterior import PosteriorStatistics
from jaxfer.metrics.precision import compiled_in_float64
from jaxfer.metrics.prediction import PredictionStatistics
from jaxfer.metrics.statistics import FeatureStatistics, LabelStatistics

ByClass = TypeVar(
    "ByClass", LabelStatistics, PredictionStatistics, ClassFeatureStatistics, PosteriorStatistics
)

_SUMS = {
    LabelStatistics: ("joint", "hard_joint"),
    PredictionStatistics: ("log_sums", "counts"),
    ClassFeatureStatistics: ("counts", "scatters", "thirds", "fourths"),
    PosteriorStatistics: ("sums", "counts"),
}
"""What grows with the voxels of a class; the class is its first axis."""


def class_balanced(stats: ByClass) -> ByClass:
    """The statistics as if each present class had the same share of the voxels.

    A voxel of class c weighs n / (C' n_c): n voxels in all, C' present classes, n_c voxels of the
    class. Exact for any metric made of them. Counts of what was left out stay as they are.

    Raises:
        ValueError: `FeatureStatistics` have one scatter for all classes, which no weights of
            classes can change; gather `ClassFeatureStatistics`.
    """
    if isinstance(stats, FeatureStatistics):
        raise ValueError(
            "FeatureStatistics hold one scatter for all classes and cannot be balanced: gather "
            "ClassFeatureStatistics and use class_balanced(stats).features()"
        )
    return _balanced(stats)


@compiled_in_float64()
def _balanced(stats: ByClass) -> ByClass:
    counts = stats.hard_joint.sum(1) if isinstance(stats, LabelStatistics) else stats.counts
    present = counts > 0
    share = counts.sum() / jnp.maximum(present.sum(), 1)
    weights = jnp.where(present, share / jnp.where(present, counts, 1), 0)

    def weighted(sums: Float[Array, "c ..."]) -> Float[Array, "c ..."]:
        return weights.reshape(-1, *[1] * (sums.ndim - 1)) * sums

    return stats._replace(**{name: weighted(getattr(stats, name)) for name in _SUMS[type(stats)]})
