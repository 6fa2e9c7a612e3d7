"""SFDA: how well a discriminant tells the classes apart once they were drawn together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.discriminant import (
    adaptive_shrinkage,
    discriminant,
    log_posterior,
    scatter_of,
    true_class_posterior,
)
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.samples import check_voxels, used_samples
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.sums import product


def sfda(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    shrinkage: float | None = None,
) -> Score:
    """Self-challenging Fisher discriminant analysis: the mean posterior of the true class.

    A shrunken discriminant gives each voxel a confidence p in its own class, softened by another
    softmax over the classes. Each voxel is mixed with the mean of the other classes' means,
    p f + (1 − p) m; a second discriminant with the same shrinkage is fitted to the mixed features
    and scored on them. Higher is better, within [0, 1]. Shao et al., ECCV 2022 (arXiv 2207.03036).

    We depart from published code in that the largest eigenvalue behind the shrinkage is exact
    (elsewhere three power iterations), and that the features stay as they are (elsewhere they are
    mixed in place). Adaptive shrinkage depends on the features' unit, as published.

    Args:
        features: any real values.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        shrinkage: in [0, 1], static; None: max(exp(−5 λ_max(S_w)), 1e-10).

    Returns:
        The score; for constant features the sum of the squared shares of the classes. Flagged
        `SATURATED` with D ≥ n−1 features, which tell any labels apart.

    Raises:
        ValueError: shapes disagree, or shrinkage outside [0, 1]; outside `jit`, also for labels
            out of range.
    """
    check_voxels(features, labels, num_classes, mask)
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage must lie in [0, 1]: found {shrinkage}")
    return _sfda(features, labels, mask, num_classes=num_classes, shrinkage=shrinkage)


@compiled_in_float64("num_classes", "shrinkage", cast_back=True)
def _sfda(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    *,
    num_classes: int,
    shrinkage: float | None,
) -> Score:
    samples = used_samples(features, labels, mask, num_classes)
    points, classes = samples.features, samples.classes
    scatter = scatter_of(points, classes)
    strength = adaptive_shrinkage(scatter.within) if shrinkage is None else jnp.asarray(shrinkage)

    present = scatter.shares > 0
    posterior = jnp.exp(log_posterior(discriminant(scatter, strength), points))
    softened = jax.nn.softmax(jnp.where(present[None, :], posterior, -jnp.inf), axis=1)
    confidence = (classes * softened).sum(1, keepdims=True)
    others = jnp.maximum(present.sum() - 1, 1)
    rivals = (scatter.means.sum(0, keepdims=True) - scatter.means) / others
    mixed = confidence * points + (1 - confidence) * product(classes, rivals)
    mixed = jnp.where(samples.used[:, None], mixed, 0)

    second = discriminant(scatter_of(mixed, classes), strength)
    n = samples.n_used
    return make_score(
        true_class_posterior(second, mixed, classes).sum() / jnp.maximum(n, 1),
        class_counts=classes.sum(0),
        n_invalid=samples.n_invalid,
        flags=flag_where(points.shape[1] >= n - 1, Flag.SATURATED),
    )


CARD = Metric(
    name="sfda",
    meaning="posterior of the true class under a discriminant of features mixed across classes",
    needs="features",
    direction="higher",
    range="[0, 1]",
    comparable="within one target, any source with D well below n and features of one unit",
    cost="O(n D² + D³)",
    reference="Shao et al., Not All Models Are Equal, ECCV 2022, arXiv 2207.03036",
    departure="exact largest eigenvalue (published: three power iterations); the features are not "
    "changed in place",
    compute=sfda,
)
