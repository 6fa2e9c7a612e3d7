"""NCTI: how near the features are to neural collapse, the end of training on the target."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.discriminant import (
    MIN_SHRINKAGE,
    discriminant,
    log_posterior,
    scatter_of,
)
from jaxfer.metrics.pool import pooled_total
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.principal import principal_components
from jaxfer.metrics.samples import check_voxels, used_samples
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.sums import product

WEIGHTS = {"ncc": 1.0, "seli": 1.0, "vc": -1.0}


class NctiTerms(NamedTuple):
    """The parts of NCTI of one source.

    Attributes:
        ncc: nearest class centre: mean posterior of the true class, in [0, 1]; higher is better.
        seli: nuclear norm of the centred features in the C−1 discriminant directions, ≥ 0; higher
            is better.
        vc: variability collapse: log Σ_c of the nuclear norm of the posteriors of class c's voxels;
            lower is better beside the others, but by itself lowest for features that tell nothing.
    """

    ncc: Score
    seli: Score
    vc: Score


def ncti_terms(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    num_components: int = 64,
) -> NctiTerms:
    """The parts of NCTI; `ncti_total` makes a score of those of several sources.

    Principal components, then a discriminant with shrinkage max(exp(−v), 1e-10), v the variance
    of the first half of the components. Nuclear norms grow with n: the same n for every source.
    Wang et al., How Far Pre-trained Models Are from Neural Collapse, ICCV 2023.

    We depart from published code in using one solver for every shrinkage. There the smallest one
    switches to another, whose variances have n−C for divisor: `seli` is then ours times
    √((n−C)/n), the distances in the posteriors of `ncc` and `vc` ours times (n−C)/n, and sources
    on either side of the switch do not compare.

    Args:
        features: any real values.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        num_components: principal components, static; more than the features' rank are reduced to
            it, flagged `REDUCED`.

    Returns:
        The three parts, flagged `SATURATED` with n−1 components or more, which tell any labels
        apart: `seli` is then made of the floor under the variances.

    Raises:
        ValueError: shapes disagree, or num_components < 1; outside `jit`, also for labels out of
            range.
    """
    check_voxels(features, labels, num_classes, mask)
    if num_components < 1:
        raise ValueError(f"num_components must be at least 1: found {num_components}")
    return _ncti_terms(
        features, labels, mask, num_classes=num_classes, num_components=num_components
    )


def ncti_total(terms: Sequence[NctiTerms]) -> Score:
    """NCTI of several candidates: ncc + seli − vc, each min-max over the candidates.

    Higher is better, within [−1, 2]; depends on the pool.

    Returns:
        The scores of all candidates in one `Score`, in their order. A candidate with a NaN part is
        NaN and sets no scale; a part on which all agree contributes 0, flagged `TIED`.

    Raises:
        ValueError: fewer than two candidates.
    """
    parts = {
        "ncc": [t.ncc for t in terms],
        "seli": [t.seli for t in terms],
        "vc": [t.vc for t in terms],
    }
    return pooled_total(parts, WEIGHTS, name="ncti_total")


@compiled_in_float64("num_classes", "num_components", cast_back=True)
def _ncti_terms(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    *,
    num_classes: int,
    num_components: int,
) -> NctiTerms:
    samples = used_samples(features, labels, mask, num_classes)
    classes, n = samples.classes, samples.n_used
    components = principal_components(samples)
    points = components.scores[:, :num_components]
    # The published variances have n − 1 for divisor.
    energy = components.variances[: num_components // 2].sum() * n / jnp.maximum(n - 1, 1)
    shrinkage = jnp.maximum(jnp.exp(-energy), MIN_SHRINKAGE)

    scatter = scatter_of(points, classes)
    fitted = discriminant(scatter, shrinkage)
    posterior = jnp.exp(log_posterior(fitted, points)) * samples.used[:, None]
    ncc = (classes * posterior).sum() / jnp.maximum(n, 1)

    present = scatter.shares > 0
    projected = product(points, fitted.directions)
    telling = jnp.arange(projected.shape[1]) < present.sum() - 1
    seli = _nuclear_norm(jnp.where(telling[None, :], projected, 0)[:, : max(num_classes - 1, 1)])

    spread = jax.vmap(lambda own: _nuclear_norm(own[:, None] * posterior))(classes.T)
    spread = jnp.where(present, spread, 0).sum()
    vc = jnp.log(jnp.where(spread > 0, spread, 1))

    counts, n_invalid = classes.sum(0), samples.n_invalid
    flags = flag_where(components.rank < num_components, Flag.REDUCED) | flag_where(
        points.shape[1] >= n - 1, Flag.SATURATED
    )
    scores = (
        make_score(value, class_counts=counts, n_invalid=n_invalid, flags=flags)
        for value in (ncc, seli, vc)
    )
    return NctiTerms(*scores)


def _nuclear_norm(matrix: Float[Array, "v w"]) -> Float[Array, ""]:
    """Sum of the singular values, from the small Gram matrix; those below 1e-8 of the largest are
    rounding."""
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(product(matrix.T, matrix)), 0)).sum()


def _ncc(*args: Any, **options: Any) -> Score:
    return ncti_terms(*args, **options).ncc


def _seli(*args: Any, **options: Any) -> Score:
    return ncti_terms(*args, **options).seli


def _vc(*args: Any, **options: Any) -> Score:
    return ncti_terms(*args, **options).vc


_card = functools.partial(
    Metric,
    needs="features",
    comparable="within one target, the same n for every source; parts, whose total `ncti` "
    "ranks the sources of one pool",
    cost="O(n D² + D³)",
    reference="Wang et al., How Far Pre-trained Models Are from Neural Collapse on the Target "
    "Dataset Informs their Transferability, ICCV 2023",
    departure="one solver for every shrinkage (published: two, of different scale)",
)

NCC_CARD = _card(
    name="ncti_ncc",
    meaning="posterior of the true class under a discriminant of 64 principal components",
    direction="higher",
    range="[0, 1]",
    compute=_ncc,
)

SELI_CARD = _card(
    name="ncti_seli",
    meaning="nuclear norm of the features in the discriminant directions",
    direction="higher",
    range="at least 0",
    compute=_seli,
)

VC_CARD = _card(
    name="ncti_vc",
    meaning="logarithm of the nuclear norms of the posteriors, class by class",
    direction="lower",
    range="real",
    compute=_vc,
)

TOTAL_CARD = Metric(
    name="ncti",
    meaning="`ncti_ncc` plus `ncti_seli` minus `ncti_vc`, each min-max scaled over the sources",
    needs="several sources",
    direction="higher",
    range="[-1, 2]",
    comparable="within one target and one pool of sources, the same n for every source",
    cost="O(n D² + D³)",
    reference=NCC_CARD.reference,
    departure="one solver for every shrinkage (published: two, of different scale); a term on "
    "which all sources agree contributes 0",
    compute=ncti_total,
    terms=ncti_terms,
)
