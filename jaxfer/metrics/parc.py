"""PARC: do voxels that the features call alike have the same label?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.principal import principal_components
from jaxfer.metrics.samples import check_voxels, used_samples
from jaxfer.metrics.score import Score, make_score
from jaxfer.metrics.sums import product

DECIMALS = 12
"""Distances are compared after rounding to this: rows that are equal must tie."""
CONSTANT_ROW = 1e-12
"""A row varies when its spread is above this share of its size."""


def parc(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    num_components: int | None = 32,
) -> Score:
    """100 · Spearman's ρ between the voxels' pairwise distances by feature and by label.

    A distance is 1 − Pearson's r between two rows: of the standardised principal components, and
    of the one-hot labels. Higher is better, within [−100, 100]. Bolya et al., NeurIPS 2021 (arXiv
    2111.06977). The distances by label have two values only, so ties decide much: mid-ranks.
    Memory grows with n²: subsample by class and subject beforehand.

    We depart from published code in that the principal components are exact (elsewhere
    randomised) with a stated sign, on which the correlation of rows depends; that those without
    variance are dropped; and that a row which does not vary, whose correlation is undefined
    (elsewhere NaN for the whole score), is left out.

    Args:
        features: any real values.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        num_components: principal components, static; at most the features' rank. None: the
            features themselves.

    Returns:
        The score; `n_used` counts the rows that vary. 0 where there is no order to compare: all
        distances by feature are equal, or no two voxels share a class. With features that vary in
        fewer than two directions no row is left: NaN, `NO_VOXELS`.

    Raises:
        ValueError: shapes disagree, or num_components < 1; outside `jit`, also for labels out of
            range.
    """
    check_voxels(features, labels, num_classes, mask)
    if num_components is not None and num_components < 1:
        raise ValueError(f"num_components must be at least 1 or None: found {num_components}")
    return _parc(features, labels, mask, num_classes=num_classes, num_components=num_components)


@compiled_in_float64("num_classes", "num_components", cast_back=True)
def _parc(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    *,
    num_classes: int,
    num_components: int | None,
) -> Score:
    samples = used_samples(features, labels, mask, num_classes)
    if num_components is None:
        columns = samples.features
        variances = (columns**2).sum(0) / jnp.maximum(samples.n_used, 1)
    else:
        components = principal_components(samples)
        columns = components.scores[:, :num_components]
        variances = components.variances[:num_components]
    varies = variances > 0
    columns = columns / jnp.sqrt(jnp.where(varies, variances, 1))[None, :]
    width = jnp.maximum(varies.sum(), 1)
    size = (columns**2).sum(1)
    offsets = columns - columns.sum(1, keepdims=True) / width
    offsets = jnp.where(varies[None, :], offsets, 0)
    spread = (offsets**2).sum(1)
    kept = samples.used & (spread > CONSTANT_ROW * size)
    rows = offsets / jnp.sqrt(jnp.where(kept, spread, 1))[:, None]
    distances = jnp.round(1 - product(rows, rows.T), DECIMALS)

    first, second = jnp.triu_indices(rows.shape[0], 1)
    paired = kept[first] & kept[second]
    # The distance by label is larger between classes than within, whatever its two values.
    apart = 1 - (samples.classes[first] * samples.classes[second]).sum(1)
    value = _rank_correlation(distances[first, second], apart, paired)
    return make_score(
        100 * value,
        class_counts=jnp.where(kept[:, None], samples.classes, 0).sum(0),
        n_invalid=samples.n_invalid,
    )


def _rank_correlation(
    values: Float[Array, " p"], binary: Float[Array, " p"], used: Bool[Array, " p"]
) -> Float[Array, ""]:
    """Spearman's ρ with mid-ranks over the used pairs; 0 where one side does not vary.

    Mid-ranks of a quantity with two values are a linear function of it.
    """
    if values.size == 0:
        return jnp.zeros((), jnp.float64)
    ranks = jax.scipy.stats.rankdata(jnp.where(used, values, jnp.inf)).astype(jnp.float64)
    n = jnp.maximum(used.sum(), 1)
    ranks = jnp.where(used, ranks - jnp.where(used, ranks, 0).sum() / n, 0)
    binary = jnp.where(used, binary - jnp.where(used, binary, 0).sum() / n, 0)
    scale = (ranks**2).sum() * (binary**2).sum()
    return jnp.where(
        scale > 0, (ranks * binary).sum() / jnp.sqrt(jnp.where(scale > 0, scale, 1)), 0
    )


CARD = Metric(
    name="parc",
    meaning="rank correlation of the voxels' distances by feature and by label, times 100",
    needs="features",
    direction="higher",
    range="[-100, 100]",
    comparable="within one target, the same n for every source",
    cost="O(n² (log n + C)) time and memory",
    reference="Bolya et al., Scalable Diverse Model Selection, NeurIPS 2021, arXiv 2111.06977",
    departure="exact principal components with a stated sign (published: randomised); rows that "
    "do not vary are left out (published: NaN)",
    compute=parc,
)
