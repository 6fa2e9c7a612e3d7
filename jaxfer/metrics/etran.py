"""ETran: how familiar the target looks to a source, and how well a discriminant separates it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.discriminant import (
    adaptive_shrinkage,
    discriminant,
    scatter_of,
    true_class_posterior,
)
from jaxfer.metrics.pool import pooled_total
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.samples import check_voxels, used_samples
from jaxfer.metrics.score import Flag, Score, flag_where, make_score

WEIGHTS = {"lda": 0.85, "energy": 0.15}
"""Of the published code."""


class EtranTerms(NamedTuple):
    """The parts of ETran of one source; higher is better in both.

    Attributes:
        lda: mean posterior of the true class under a shrunken discriminant, in [0, 1].
        energy: mean of logsumexp(features) over the voxels where it is lowest; unbounded.
    """

    lda: Score
    energy: Score


def etran_terms(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    tail: float = 0.005,
) -> EtranTerms:
    """The parts of ETran; `etran_total` makes a score of those of several sources.

    The energy takes features for logits: of rectified features it is mostly a count of channels,
    so it compares only sources of one width. Gholami et al., ICCV 2023 (arXiv 2308.02027).

    We depart from published code in that the discriminant solves the generalised symmetric
    eigenproblem. There a symmetric solver is given the non-symmetric S_w⁻¹S_b; the vectors it
    returns are orthonormal, so that the covariance drops out and classes are told apart by the
    plain distance to their means.

    Args:
        features: any real values.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        tail: share of voxels with the lowest energy that count, rounded down, one at least; static.

    Returns:
        Both parts; the discriminant's is flagged `SATURATED` with D ≥ n−1 features.

    Raises:
        ValueError: shapes disagree, or tail outside (0, 1]; outside `jit`, also for labels out of
            range.
    """
    check_voxels(features, labels, num_classes, mask)
    if not 0 < tail <= 1:
        raise ValueError(f"tail must lie in (0, 1]: found {tail}")
    return _etran_terms(features, labels, mask, num_classes=num_classes, tail=tail)


def etran_total(terms: Sequence[EtranTerms]) -> Score:
    """ETran of several candidates: 0.85 · LDA + 0.15 · energy, each min-max over the candidates.

    Higher is better, within [0, 1]; depends on the pool: leave a candidate out, and the others'
    scores change.

    Returns:
        The scores of all candidates in one `Score`, in their order. A candidate with a NaN part is
        NaN and sets no scale; a part on which all agree contributes 0, flagged `TIED`.

    Raises:
        ValueError: fewer than two candidates.
    """
    parts = {"lda": [t.lda for t in terms], "energy": [t.energy for t in terms]}
    return pooled_total(parts, WEIGHTS, name="etran_total")


@compiled_in_float64("num_classes", "tail", cast_back=True)
def _etran_terms(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    *,
    num_classes: int,
    tail: float,
) -> EtranTerms:
    samples = used_samples(features, labels, mask, num_classes)
    points, classes = samples.features, samples.classes
    n, counts = samples.n_used, classes.sum(0)
    scatter = scatter_of(points, classes)
    fitted = discriminant(scatter, adaptive_shrinkage(scatter.within))
    lda = true_class_posterior(fitted, points, classes).sum() / jnp.maximum(n, 1)

    logits = samples.features + samples.mean[None, :]
    energies = jnp.where(samples.used, jax.nn.logsumexp(logits, axis=1), jnp.inf)
    # The product is rounded up by a hair: 0.005 · 1000 must be 5, not 4.
    lowest = jnp.maximum(jnp.floor(tail * n * (1 + 1e-12)), 1)
    counted = (jnp.arange(energies.shape[0]) < lowest) & (jnp.arange(energies.shape[0]) < n)
    energy = jnp.where(counted, jnp.sort(energies), 0).sum() / lowest

    flags = flag_where(points.shape[1] >= n - 1, Flag.SATURATED)
    return EtranTerms(
        make_score(lda, class_counts=counts, n_invalid=samples.n_invalid, flags=flags),
        make_score(energy, class_counts=counts, n_invalid=samples.n_invalid),
    )


def _energy(*args: Any, **options: Any) -> Score:
    return etran_terms(*args, **options).energy


CARD = Metric(
    name="etran_energy",
    meaning="how familiar the least familiar voxels look, without labels; with LDA it makes ETran",
    needs="features",
    direction="higher",
    range="unbounded",
    comparable="within one target, sources of one width",
    cost="O(n D)",
    reference="Gholami et al., ETran, ICCV 2023, arXiv 2308.02027",
    departure="the share of lowest voxels is one voxel at least",
    compute=_energy,
)

TOTAL_CARD = Metric(
    name="etran",
    meaning="0.85 of the discriminant's posterior of the true class and 0.15 of `etran_energy`, "
    "each min-max scaled over the sources",
    needs="several sources",
    direction="higher",
    range="[0, 1]",
    comparable="within one target and one pool of sources, whose extremes are 0 and 1",
    cost="O(n D² + D³)",
    reference="Gholami et al., ETran, ICCV 2023, arXiv 2308.02027",
    departure="the generalised symmetric eigenproblem (published code: a symmetric solver on a "
    "non-symmetric matrix); a term on which all sources agree contributes 0",
    compute=etran_total,
    terms=etran_terms,
)
