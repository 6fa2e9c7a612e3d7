"""N-LEEP: LEEP of a Gaussian mixture of the features, for sources without a head."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Key, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.leep import leep
from jaxfer.metrics.mixture import fit_mixture, log_densities
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.principal import principal_components
from jaxfer.metrics.samples import check_voxels, used_samples
from jaxfer.metrics.score import Flag, Score, flag_where


class MixturePosteriors(NamedTuple):
    """What stands for a source's output where there is no head.

    Attributes:
        log_posteriors: log P(component|features) of every voxel in one list, natural logarithm;
            NaN for voxels that do not count.
        num_components: how many components were fitted.
        num_dimensions: how many principal components they were fitted to.
        flags: bits of `Flag`.
    """

    log_posteriors: Float[Array, "v k"]
    num_components: Int[Array, ""]
    num_dimensions: Int[Array, ""]
    flags: Int[Array, ""]


def n_leep(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    key: Key[Array, ""] | None = None,
    components_per_class: int = 5,
    energy: float = 0.8,
    covariance_floor: float = 1e-6,
    restarts: int = 1,
    max_rounds: int = 100,
    tolerance: float = 1e-3,
) -> Score:
    """LEEP of the posteriors of a Gaussian mixture fitted to the features' principal components.

    Higher is better, within [−H(Y), 0]. Depends on where the mixture starts: report the spread
    over keys. Li et al., Ranking Neural Checkpoints, CVPR 2021 (arXiv 2011.11200).

    We depart from published code in that the logarithm of LEEP is kept (SFDA's and NCTI's copies
    leave it out; PACTran's has the opposite sign); the floor of the covariances is relative, so
    that the features' unit does not matter (there 1e-6 in their unit); the mixture starts from a
    key (there unseeded, mostly); and the number of components follows the classes that are
    present. PACTran's has another number, max(min(C, n/5), n/10).

    Args:
        features: any real values.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        key: of the mixture's seeds; None: `jax.random.key(0)`.
        components_per_class: components by present class, static; more than one for two voxels
            are reduced to that, flagged `REDUCED`.
        energy: share of variance that the principal components keep, static.
        covariance_floor: added to the components' variances, in units of the mean variance of the
            kept principal components, static.
        restarts: fits of which the most likely one counts, static.
        max_rounds: rounds of each fit, static.
        tolerance: nats per voxel by which the likelihood may move at the end, static.

    Returns:
        The score in nats; flagged `NOT_CONVERGED` when the fit used up its rounds.

    Raises:
        ValueError: shapes disagree; outside `jit`, also for labels out of range.
    """
    posteriors = mixture_posteriors(
        features,
        labels,
        num_classes=num_classes,
        mask=mask,
        key=key,
        components_per_class=components_per_class,
        energy=energy,
        covariance_floor=covariance_floor,
        restarts=restarts,
        max_rounds=max_rounds,
        tolerance=tolerance,
    )
    flat = None if mask is None else jnp.reshape(mask, -1)
    found = leep(
        posteriors.log_posteriors, jnp.reshape(labels, -1), num_classes=num_classes, mask=flat
    )
    return found._replace(flags=found.flags | posteriors.flags)


def mixture_posteriors(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    key: Key[Array, ""] | None = None,
    components_per_class: int = 5,
    energy: float = 0.8,
    covariance_floor: float = 1e-6,
    restarts: int = 1,
    max_rounds: int = 100,
    tolerance: float = 1e-3,
) -> MixturePosteriors:
    """The posteriors of `n_leep`, whose arguments and errors these are.

    They also serve the metrics that want class probabilities of a source without a head.
    """
    check_voxels(features, labels, num_classes, mask)
    return _posteriors(
        features,
        labels,
        mask,
        jax.random.key(0) if key is None else key,
        num_classes=num_classes,
        components_per_class=components_per_class,
        energy=energy,
        covariance_floor=covariance_floor,
        restarts=restarts,
        max_rounds=max_rounds,
        tolerance=tolerance,
    )


@compiled_in_float64(
    "num_classes",
    "components_per_class",
    "energy",
    "covariance_floor",
    "restarts",
    "max_rounds",
    "tolerance",
    cast_back=True,
)
def _posteriors(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    key: Key[Array, ""],
    *,
    num_classes: int,
    components_per_class: int,
    energy: float,
    covariance_floor: float,
    restarts: int,
    max_rounds: int,
    tolerance: float,
) -> MixturePosteriors:
    samples = used_samples(features, labels, mask, num_classes)
    components = principal_components(samples)
    variances = components.variances
    before = jnp.cumsum(variances) - variances
    kept = (variances > 0) & (before < energy * variances.sum())
    # A dropped dimension is 0 everywhere: it has the same density in every component.
    points = jnp.where(kept[None, :], components.scores, 0)
    mean_variance = jnp.where(kept, variances, 0).sum() / jnp.maximum(kept.sum(), 1)
    floor = covariance_floor * jnp.where(mean_variance > 0, mean_variance, 1)

    present = (samples.classes.sum(0) > 0).sum()
    wanted = components_per_class * present
    most = jnp.maximum(samples.used.sum() // 2, 1)
    active = jnp.clip(jnp.minimum(wanted, most), 1).astype(jnp.int32)
    mixture = fit_mixture(
        points,
        samples.used,
        key,
        num_components=components_per_class * num_classes,
        active=active,
        floor=floor,
        restarts=restarts,
        max_rounds=max_rounds,
        tolerance=tolerance,
    )
    log_posteriors = jax.nn.log_softmax(log_densities(mixture, points), axis=1)
    log_posteriors = jnp.where(samples.used[:, None], log_posteriors, jnp.nan)
    flags = flag_where(wanted > most, Flag.REDUCED) | flag_where(
        ~mixture.converged, Flag.NOT_CONVERGED
    )
    return MixturePosteriors(
        log_posteriors[: labels.size], active, kept.sum().astype(jnp.int32), flags
    )


CARD = Metric(
    name="n_leep",
    meaning="LEEP of a Gaussian mixture of the features in place of the source's classes",
    needs="features",
    direction="higher",
    range="[-H(Y), 0] nats",
    comparable="within one target, the same n and key for every source",
    cost="O(n C D²) a round of the fit",
    reference="Li et al., Ranking Neural Checkpoints, CVPR 2021, arXiv 2011.11200",
    departure="the logarithm is kept (elsewhere left out); the covariances' floor is relative to "
    "the features' variance; components follow the present classes",
    compute=n_leep,
)
