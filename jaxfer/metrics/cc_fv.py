"""CC-FV: do images agree on what a class looks like, and do they still differ as a whole?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.score import Flag, Score, flag_where
from jaxfer.metrics.sums import is_finite, product, usable
from jaxfer.metrics.validation import check_labels, check_samples

FLOAT32_EPS = float(np.finfo(np.float32).eps)


class CcFv(NamedTuple):
    """CC-FV and its parts.

    Attributes:
        score: mean over layers of `layer_scores`; its `n_used` and `n_invalid` count voxels of all
            layers, `classes_present` the foreground classes that some layer could compare.
        layer_scores: log(variety / consistency).
        consistency: lower means that images agree more, in the features' unit.
        variety: higher means that images differ more.
        classes_left_out: foreground classes that are in fewer than two images of a layer.
    """

    score: Score
    layer_scores: Float[Array, "*k l"]
    consistency: Float[Array, "*k l"]
    variety: Float[Array, "*k l"]
    classes_left_out: Int[Array, "*k l"]

    def __float__(self) -> float:
        return float(self.score)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The score's flags in words."""
        return self.score.reasons


def cc_fv(
    features: Sequence[Float[AnyArray, "i _ _"]],
    labels: Sequence[Real[AnyArray, "i _"]],
    *,
    num_classes: int,
    masks: Sequence[Bool[AnyArray, "i _"]] | None = None,
    background: int | None = 0,
    shrinkage: float = 0.1,
    exponent: float = 1.0,
) -> CcFv:
    """CC-FV, mean over layers of log(F_v / C_cons).

        C_cons = Σ_k 1/(N(N−1)) Σ_{i≠j} W₂(F_i^k, F_j^k)
        F_v    = 1 / ( 1/(N(N−1)) Σ_{i≠j} ‖g_i − g_j‖^−s )

    F_i^k is the Gaussian of class k's voxels in image i, k over the foreground classes; g_i the
    mean feature of image i's voxels, brought to length 1. Higher is better, unbounded. Yang et al.,
    MICCAI 2023 (arXiv 2307.11958), of which the exponent s, and that F_v is a mean over pairs, are
    not confirmed.

    The published code does not compute this: it adds up unequally weighted classes, takes the
    energy itself for the variety, of vectors that it does not bring to length 1, and takes square
    roots of matrices that are not symmetric. We depart from the formula in two ways. Covariances
    are shrunk, as voxels are often fewer than features. A class counts the images that it is in,
    two at least, as its N.

    Args:
        features: of each layer, v voxels sampled from each of i images; v and the number of
            channels may differ between layers. The number of voxels enters the covariances: give
            every source the same.
        labels: of each layer's voxels, classes in [0, num_classes).
        num_classes: C, static.
        masks: True where a voxel counts; others contribute nothing, even when they hold NaN.
        background: the class that is not compared, static; it counts in g_i. None: there is none.
        shrinkage: a in Σ ← (1−a) Σ + a tr(Σ)/D · I.
        exponent: s above 0.

    Returns:
        The score and its parts. NaN with a reason: `FEW_IMAGES` when a layer has no class with two
        voxels in each of two images, `IDENTICAL` when a layer's images do not differ by more than
        rounding, so that a ratio of zeros is left, `ZERO_FEATURES` when a mean feature is 0.

    Raises:
        ValueError: no layer, shapes disagree, settings out of range; outside `jit`, also for labels
            out of range.
    """
    of_masks = [None] * len(features) if masks is None else list(masks)
    if not len(features) == len(labels) == len(of_masks) or not len(features):
        raise ValueError(
            "cc_fv needs features and labels of at least one layer: found "
            f"{len(features)} features, {len(labels)} labels, {len(of_masks)} masks"
        )
    if not isinstance(shrinkage, jax.core.Tracer) and not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage must be in [0, 1]: found {shrinkage}")
    if not isinstance(exponent, jax.core.Tracer) and not exponent > 0:
        raise ValueError(f"exponent must be above 0: found {exponent}")
    for of_layer, of_labels, of_mask in zip(features, labels, of_masks, strict=True):
        check_samples(of_layer, of_labels, of_mask, name="features")
        check_labels(of_labels, num_classes, of_mask)
    return _cc_fv(
        tuple(zip(features, labels, of_masks, strict=True)),
        shrinkage,
        exponent,
        num_classes=num_classes,
        background=background,
    )


def gaussian_w2(
    mean_a: Float[Array, " d"],
    root_a: Float[Array, "d d"],
    mean_b: Float[Array, " d"],
    root_b: Float[Array, "d d"],
) -> Float[Array, ""]:
    """Wasserstein-2 distance between two Gaussians, from the square roots of their covariances.

    W₂² = ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a^½ Σ_b Σ_a^½)^½). The last trace is the sum of the
    singular values of Σ_a^½ Σ_b^½, and as such correct to rounding: the roots of eigenvalues that
    are 0 would each be wrong by the root of that. What rounding leaves of equal Gaussians is 0.
    """
    traces = (root_a**2).sum() + (root_b**2).sum()
    common = jnp.linalg.svd(product(root_a, root_b), compute_uv=False).sum()
    spread = jnp.maximum(traces - 2 * common, 0)
    noise = 8 * len(mean_a) * jnp.finfo(traces.dtype).eps * traces
    return jnp.sqrt(((mean_a - mean_b) ** 2).sum() + jnp.where(spread > noise, spread, 0))


_LayerInput = tuple[Float[AnyArray, "... _"], Real[AnyArray, " ..."], Bool[AnyArray, " ..."] | None]


class _Layer(NamedTuple):
    consistency: Float[Array, ""]
    variety: Float[Array, ""]
    class_counts: Float[Array, " c"]
    compared: Bool[Array, " c"]
    n_invalid: Float[Array, ""]
    flags: Int[Array, ""]


@compiled_in_float64("num_classes", "background", cast_back=True)
def _cc_fv(
    layers: tuple[_LayerInput, ...],
    shrinkage: float | Array,
    exponent: float | Array,
    *,
    num_classes: int,
    background: int | None,
) -> CcFv:
    found = [_layer(*layer, shrinkage, exponent, num_classes, background) for layer in layers]
    parts: _Layer = jax.tree.map(lambda *each: jnp.stack(each), *found)
    bad = parts.flags != 0
    ratio = jnp.where(bad, 1, parts.variety) / jnp.where(bad, 1, parts.consistency)
    layer_scores = jnp.where(bad, jnp.nan, jnp.log(ratio))
    n_used = parts.class_counts.sum()
    n_invalid = parts.n_invalid.sum()
    flags = flag_where(n_used == 0, Flag.NO_VOXELS) | flag_where(n_invalid > 0, Flag.INVALID_INPUT)
    for each in found:
        flags = flags | each.flags
    foreground = num_classes - (background is not None)
    return CcFv(
        score=Score(
            score=jnp.where(flags != 0, jnp.nan, layer_scores.mean()),
            n_used=n_used,
            n_invalid=n_invalid,
            classes_present=parts.compared.any(0).sum().astype(jnp.int32),
            flags=flags,
        ),
        layer_scores=layer_scores,
        consistency=parts.consistency,
        variety=parts.variety,
        classes_left_out=(foreground - parts.compared.sum(1)).astype(jnp.int32),
    )


def _layer(
    features: Float[AnyArray, "... d"],
    labels: Real[AnyArray, " ..."],
    mask: Bool[AnyArray, " ..."] | None,
    shrinkage: float | Array,
    exponent: float | Array,
    num_classes: int,
    background: int | None,
) -> _Layer:
    num_images, num_voxels, num_features = features.shape
    rows = jnp.reshape(features, (-1, num_features)).astype(jnp.float64)
    classes, used, n_invalid = usable(labels, mask, is_finite(rows), num_classes)
    images = jnp.where(used[:, None], rows, 0).reshape(num_images, num_voxels, num_features)
    classes = classes.reshape(num_images, num_voxels, num_classes)
    sizes = classes.sum(1)

    consistency, compared, agree = _consistency(images, classes, sizes, shrinkage, background)
    variety, variety_flags = _variety(images, sizes.sum(1), exponent)
    few = ~compared.any()
    return _Layer(
        consistency=jnp.where(few, jnp.nan, consistency),
        variety=variety,
        class_counts=sizes.sum(0),
        compared=compared,
        n_invalid=n_invalid,
        flags=flag_where(few, Flag.FEW_IMAGES)
        | flag_where(~few & agree, Flag.IDENTICAL)
        | variety_flags,
    )


def _consistency(
    images: Float[Array, "i v d"],
    classes: Float[Array, "i v c"],
    sizes: Float[Array, "i c"],
    shrinkage: float | Array,
    background: int | None,
) -> tuple[Float[Array, ""], Bool[Array, " c"], Bool[Array, ""]]:
    """C_cons, the classes that it compares, and whether their images all agree to rounding."""
    num_features, num_classes = images.shape[-1], classes.shape[-1]
    foreground = jnp.arange(num_classes) != (-1 if background is None else background)
    # One voxel has no covariance.
    present: Bool[Array, "i c"] = (sizes >= 2) & foreground[None, :]
    number = present.sum(0)
    compared = number >= 2

    def gaussian(
        voxels: Float[Array, "v d"], inside: Float[Array, " v"]
    ) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
        size = jnp.maximum(inside.sum(), 1)
        mean = product(inside[None, :], voxels)[0] / size
        centred = inside[:, None] * (voxels - mean[None, :])
        power, directions = jnp.linalg.eigh(product(centred.T, centred) / size)
        power = jnp.maximum(power, 0)
        power = (1 - shrinkage) * power + shrinkage * power.sum() / num_features
        return mean, product(directions * jnp.sqrt(power)[None, :], directions.T)

    first, second = np.triu_indices(len(images), 1)

    def of_class(
        of: tuple[Float[Array, "i v"], Bool[Array, " i"]],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        inside, there = of
        means, roots = jax.lax.map(lambda image: gaussian(*image), (images, inside))

        def of_pair(pair: tuple[Int[Array, ""], Int[Array, ""]]) -> Float[Array, ""]:
            a, b = pair
            return jnp.where(
                there[a] & there[b], gaussian_w2(means[a], roots[a], means[b], roots[b]), 0
            )

        distances = jax.lax.map(of_pair, (jnp.asarray(first), jnp.asarray(second)))
        length = jnp.where(there, (means**2).sum(1) + (roots**2).sum((1, 2)), 0).max()
        return distances.sum(), length

    totals, lengths = jax.lax.map(
        of_class, (jnp.moveaxis(classes, -1, 0), jnp.moveaxis(present, -1, 0))
    )
    pairs = jnp.maximum(number * (number - 1) / 2, 1)
    consistency = jnp.where(compared, totals / pairs, 0).sum()
    # Features arrive in float32: what that rounding makes is no disagreement.
    scale = jnp.sqrt(jnp.where(compared, lengths, 0).max())
    return consistency, compared, consistency <= FLOAT32_EPS * scale


def _variety(
    images: Float[Array, "i v d"], sizes: Float[Array, " i"], exponent: float | Array
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """F_v of the images that have a voxel, and why it is undefined."""
    means = images.sum(1) / jnp.maximum(sizes, 1)[:, None]
    length = jnp.sqrt((means**2).sum(1))
    there = sizes > 0
    zero = there & (length == 0)
    points = means / jnp.where(length > 0, length, 1)[:, None]
    distance = jnp.sqrt(((points[:, None, :] - points[None, :, :]) ** 2).sum(-1))
    pairs: Bool[Array, "i i"] = there[:, None] & there[None, :] & ~jnp.eye(len(there), dtype=bool)
    same = (pairs & (distance <= FLOAT32_EPS)).any()
    energy = jnp.where(pairs, jnp.where(distance > 0, distance, 1) ** -exponent, 0).sum()
    few = ~pairs.any()
    flags = (
        flag_where(few, Flag.FEW_IMAGES)
        | flag_where(zero.any(), Flag.ZERO_FEATURES)
        | flag_where(same & ~zero.any(), Flag.IDENTICAL)
    )
    variety = jnp.where(same, 0, pairs.sum() / jnp.where(few, 1, energy))
    return jnp.where(few | zero.any(), jnp.nan, variety), flags


CARD = Metric(
    name="cc_fv",
    meaning="how much the images differ as a whole, over how much they disagree on what a class "
    "looks like; log ratio, mean over layers",
    needs="several images",
    direction="higher",
    range="unbounded",
    comparable="within one target, the same layers, images and number of voxels for every source",
    cost="O(C N (v D² + N D³)) for N images of v voxels, each layer",
    reference="Yang et al., Pick the Best Pre-trained Model: Towards Transferability Estimation "
    "for Medical Image Segmentation, MICCAI 2023, arXiv 2307.11958",
    departure="the paper's formula, which its code does not compute; covariances are shrunk; a "
    "class is compared over the images that it is in; the energy's exponent is not confirmed",
    compute=cc_fv,
)
