"""SeqTran's affinity of two tasks: how far apart are their images and their RoIs? No network.

    distance = α · W + β · (1 − SSIM)

W between images, SSIM between masks. SeqTran, arXiv 2410.06892.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Real, Shaped

from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.similarity import global_ssim
from jaxfer.metrics.sums import product

FLOAT32_EPS = float(np.finfo(np.float32).eps)


class Affinity(NamedTuple):
    """The distance of two tasks, and its parts.

    Attributes:
        distance: lower means nearer; NaN when either part has no pair.
        image_distance: W, mean over the pairs of subjects whose images both vary.
        label_similarity: SSIM, mean over the pairs of subjects whose masks both are not empty.
        image_pairs: number of the former pairs.
        label_pairs: number of the latter pairs.
    """

    distance: Float[Array, "*k"]
    image_distance: Float[Array, "*k"]
    label_similarity: Float[Array, "*k"]
    image_pairs: Int[Array, "*k"]
    label_pairs: Int[Array, "*k"]

    def __float__(self) -> float:
        return float(self.distance)


def task_affinity(
    image_distances: Float[AnyArray, "n m"],
    label_similarities: Float[AnyArray, "n m"],
    *,
    alpha: float,
    beta: float,
) -> Affinity:
    """α · W + β · (1 − SSIM), each averaged over its defined pairs of subjects.

    Lower is better, from 0 for tasks that share images and masks. The published coefficients,
    α = 0.0044 and β = 2.4756, were fitted to *measured* performance, and α belongs to images in raw
    intensity units: they are no default here. Fit on targets that are not judged by them. Tasks
    that differ in modality and in label are not connected at all in the paper: the caller's choice.

    Args:
        image_distances: from `histogram_distances` or `component_distances`; NaN is left out.
        label_similarities: of the same subjects, from `global_ssim`, as `mask_similarities`.
        alpha: α ≥ 0.
        beta: β ≥ 0.

    Returns:
        The distance and its parts.

    Raises:
        ValueError: a coefficient is negative.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not isinstance(value, jax.core.Tracer) and not value >= 0:
            raise ValueError(f"{name} must be 0 or more: found {value}")
    return _task_affinity(image_distances, label_similarities, alpha, beta)


def histogram_distances(
    images_a: Real[AnyArray, " n *v"],
    images_b: Real[AnyArray, " m *w"],
    *,
    masks_a: Bool[AnyArray, " n *v"] | None = None,
    masks_b: Bool[AnyArray, " m *w"] | None = None,
    quantiles: int = 1024,
) -> Float[Array, "n m"]:
    """Wasserstein-1 distance between the intensities of every pair of images, standardised first.

    Each image's intensities are brought to mean 0 and variance 1, since the unit of an MR image is
    arbitrary: so gain and offset of a scanner change nothing, and the shape of the histogram
    remains. Lower means more alike, from 0; unit: standard deviations.

    Args:
        images_a, images_b: any unit; the two tasks' grids may differ.
        masks_a, masks_b: True where a voxel counts, such as inside the brain; others contribute
            nothing, even when they hold NaN.
        quantiles: midpoints at which the quantile functions are compared, static.

    Returns:
        Entry (i, j) compares images_a[i] with images_b[j]; NaN when either is constant, empty, or
        holds a value that is not finite.

    Raises:
        ValueError: a mask's shape is not its images'.
    """
    _check_shapes(images_a, masks_a)
    _check_shapes(images_b, masks_b)
    return _histogram_distances((images_a, masks_a), (images_b, masks_b), quantiles=quantiles)


def intensity_quantiles(
    images: Real[AnyArray, " n *v"],
    *,
    masks: Bool[AnyArray, " n *v"] | None = None,
    quantiles: int = 1024,
) -> Float[Array, "n q"]:
    """The quantile function of each image's standardised intensities: all that is compared.

    Few numbers that can be kept where the images cannot. Arguments as of `histogram_distances`.

    Returns:
        Rising numbers, at the midpoints of equal shares; NaN for a constant or empty image.

    Raises:
        ValueError: a mask's shape is not its images'.
    """
    _check_shapes(images, masks)
    return _intensity_quantiles((images, masks), quantiles=quantiles)


def quantile_distances(
    quantiles_a: Float[AnyArray, "n q"], quantiles_b: Float[AnyArray, "m q"]
) -> Float[Array, "n m"]:
    """`histogram_distances` of images whose `intensity_quantiles` are known."""
    return _quantile_distances(quantiles_a, quantiles_b)


def component_distances(
    images_a: Real[AnyArray, "n _ _ _"],
    images_b: Real[AnyArray, "m _ _ _"],
    *,
    num_components: int = 8,
    quantiles: int = 1024,
) -> Float[Array, "n m"]:
    """Wasserstein-1 distance between principal components of every pair of images, standardised.

    An image of D slices is a table of pixels by slices; the coordinates of its pixels along the
    first principal components of the slices are compared component by component, and averaged.
    Lower means more alike, from 0.

    We depart from published code, which takes raw intensities, as many components as keep 75 % of
    each image's variance, and all their coordinates in one: there the unit, the number of
    components and the arbitrary sign of each decide. Here images are standardised, the number is
    fixed, and the sign is the one that brings a pair closer.

    Args:
        images_a, images_b: finite, any unit, slices on the last axis, more slices than components.
        num_components: static.
        quantiles: midpoints at which the quantile functions are compared, static.

    Returns:
        Entry (i, j) compares images_a[i] with images_b[j]; NaN when either is constant or holds a
        value that is not finite.

    Raises:
        ValueError: an image has fewer slices than components.
    """
    slices = min(images_a.shape[-1], images_b.shape[-1])
    if not 1 <= num_components <= slices:
        raise ValueError(
            f"num_components must be in [1, {slices}], the number of slices: found {num_components}"
        )
    return _component_distances(
        images_a, images_b, num_components=num_components, quantiles=quantiles
    )


def mask_similarities(
    masks_a: Shaped[AnyArray, " n *v"],
    masks_b: Shaped[AnyArray, " m *v"],
    *,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Float[Array, "n m"]:
    """SSIM of every pair of masks on a shared grid, as `global_ssim`; NaN when either is empty."""
    flat_a, flat_b = (masks.reshape(len(masks), -1) for masks in (masks_a, masks_b))
    return global_ssim(flat_a, flat_b, k1=k1, k2=k2)


@compiled_in_float64(cast_back=True)
def _task_affinity(
    image_distances: Float[AnyArray, "n m"],
    label_similarities: Float[AnyArray, "n m"],
    alpha: float | Array,
    beta: float | Array,
) -> Affinity:
    distance, image_pairs = _mean_of_defined(image_distances)
    similarity, label_pairs = _mean_of_defined(label_similarities)
    return Affinity(
        distance=alpha * distance + beta * (1 - similarity),
        image_distance=distance,
        label_similarity=similarity,
        image_pairs=image_pairs,
        label_pairs=label_pairs,
    )


def _mean_of_defined(
    table: Float[AnyArray, "n m"],
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    table = jnp.asarray(table).astype(jnp.float64)
    defined = jnp.isfinite(table)
    number = defined.sum()
    return jnp.where(defined, table, 0).sum() / jnp.where(number, number, jnp.nan), number


_Images = tuple[Real[AnyArray, " ..."], Bool[AnyArray, " ..."] | None]


def _check_shapes(images: Real[AnyArray, " ..."], masks: Bool[AnyArray, " ..."] | None) -> None:
    if masks is not None and masks.shape != images.shape:
        raise ValueError(f"masks must have the images' shape: {masks.shape} != {images.shape}")


@compiled_in_float64("quantiles", cast_back=True)
def _histogram_distances(a: _Images, b: _Images, *, quantiles: int) -> Float[Array, "n m"]:
    return _mean_gap(_points(a, quantiles), _points(b, quantiles))


@compiled_in_float64("quantiles", cast_back=True)
def _intensity_quantiles(images: _Images, *, quantiles: int) -> Float[Array, "n q"]:
    return _points(images, quantiles)


@compiled_in_float64(cast_back=True)
def _quantile_distances(
    a: Float[AnyArray, "n q"], b: Float[AnyArray, "m q"]
) -> Float[Array, "n m"]:
    return _mean_gap(a, b)


def _mean_gap(a: Float[AnyArray, "n q"], b: Float[AnyArray, "m q"]) -> Float[Array, "n m"]:
    return jnp.abs(jnp.asarray(a)[:, None, :] - jnp.asarray(b)[None, :, :]).mean(-1)


def _points(of: _Images, quantiles: int) -> Float[Array, "n q"]:
    images, masks = of
    values = jnp.reshape(images, (len(images), -1))
    inside = jnp.full(values.shape, True) if masks is None else masks.reshape(values.shape)
    # One image at a time: sorting in float64 what is a whole data set would not fit.
    return jax.lax.map(
        lambda image: _quantiles(*_standardised(*image), quantiles), (values, inside)
    )


@compiled_in_float64("num_components", "quantiles", cast_back=True)
def _component_distances(
    images_a: Real[AnyArray, "n _ _ _"],
    images_b: Real[AnyArray, "m _ _ _"],
    *,
    num_components: int,
    quantiles: int,
) -> Float[Array, "n m"]:
    def of_image(image: Real[Array, "h w d"]) -> Float[Array, "k q"]:
        everywhere = jnp.full((image.size,), True)
        values, inside = _standardised(image.reshape(-1), everywhere)
        table = values.reshape(-1, image.shape[-1])
        table = table - table.mean(0)[None, :]
        finite = jnp.isfinite(table).all()
        _, directions = jnp.linalg.eigh(product(table.T, table))
        scores = product(table, directions[:, ::-1][:, :num_components])
        spread = jax.vmap(lambda column: _quantiles(column, inside[: len(table)], quantiles))
        return jnp.where(finite, spread(scores.T), jnp.nan)

    a, b = (jax.lax.map(of_image, jnp.asarray(images))[:, None] for images in (images_a, images_b))
    b = jnp.swapaxes(b, 0, 1)
    # The quantile function of −x is minus that of x, read backwards.
    as_found, turned = (jnp.abs(a - other).mean(-1) for other in (b, -b[..., ::-1]))
    return jnp.minimum(as_found, turned).mean(-1)


def _standardised(
    values: Real[Array, " v"], inside: Bool[Array, " v"]
) -> tuple[Float[Array, " v"], Bool[Array, " v"]]:
    """Mean 0 and variance 1 inside, NaN for what has no variance; and what is inside."""
    values = jnp.where(inside, values.astype(jnp.float64), 0)
    number = inside.sum()
    mean = values.sum() / number
    centred = jnp.where(inside, values - mean, 0)
    variance = (centred**2).sum() / number
    varies = variance > FLOAT32_EPS**2 * mean**2
    return centred / jnp.sqrt(jnp.where(varies, variance, jnp.nan)), inside


def _quantiles(
    values: Float[Array, " v"], inside: Bool[Array, " v"], quantiles: int
) -> Float[Array, " q"]:
    """The empirical quantile function at the midpoints of equal shares."""
    ordered = jnp.sort(jnp.where(inside, values, jnp.inf))
    shares = (jnp.arange(quantiles) + 0.5) / quantiles
    place = jnp.floor(shares * inside.sum()).astype(jnp.int32)
    return jnp.where(jnp.isnan(values).any(), jnp.nan, ordered[place])
