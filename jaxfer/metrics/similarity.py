"""Similarity of RoIs in label space: do two tasks outline the same shape at the same place?"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Shaped

from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.sums import product

BLOCK = 1 << 16
"""Voxels converted to float64 at a time: masks of whole volumes are large, their moments small."""


def global_ssim(
    masks_a: Shaped[AnyArray, "n v"],
    masks_b: Shaped[AnyArray, "m v"],
    *,
    k1: float = 0.01,
    k2: float = 0.03,
    dynamic_range: float = 1.0,
) -> Float[Array, "n m"]:
    """Structural similarity of every pair of masks, one window over the whole volume.

        (2 m_a m_b + C1)(2 s_ab + C2) / ((m_a² + m_b² + C1)(v_a + v_b + C2)),   C_i = (K_i L)²

    Range [−1, 1], symmetric, 1 for identical masks. Population moments (divisor v) throughout.
    Wang et al., IEEE TIP 2004. Published code on label maps uses K1 = K2 = 0.3, with which the
    constants swamp a small RoI: two disjoint lesions come out as similar as 0.9. Hence the usual
    0.01 and 0.03 here.

    Args:
        masks_a: boolean, or membership in [0, dynamic_range], flattened on a grid that all share.
        masks_b: likewise.
        k1: K1, stabilises the means.
        k2: K2, stabilises the variances.
        dynamic_range: L, the value of full membership.

    Returns:
        Entry (i, j) compares masks_a[i] with masks_b[j]. NaN when either is empty: an
        empty mask would come out more similar to a lesion than a lesion elsewhere does.

    Raises:
        ValueError: the masks do not share a grid.
    """
    if masks_a.shape[-1] != masks_b.shape[-1] or not masks_a.shape[-1]:
        raise ValueError(
            f"masks must lie on one grid, flattened and not empty: "
            f"found {masks_a.shape[-1]} and {masks_b.shape[-1]} voxels"
        )
    return _global_ssim(masks_a, masks_b, (k1 * dynamic_range) ** 2, (k2 * dynamic_range) ** 2)


def windowed_ssim(
    masks_a: Shaped[AnyArray, "n x y z"],
    masks_b: Shaped[AnyArray, "m x y z"],
    *,
    window: int = 7,
    k1: float = 0.01,
    k2: float = 0.03,
    dynamic_range: float = 1.0,
) -> Float[Array, "n m"]:
    """Structural similarity of every pair of masks, the mean over cubic windows.

    As `skimage.metrics.structural_similarity` with a uniform window and population moments: the
    windows that lie within the volume, each voxel weighing alike. Range [−1, 1], symmetric, 1 for
    identical masks. Windows where both masks are empty count as 1: small RoIs in large volumes come
    out close to 1 wherever they lie, so compare values of one grid and of RoIs of one size only.

    Args:
        masks_a: boolean, or membership in [0, dynamic_range], on a grid that all share.
        masks_b: likewise.
        window: voxels along a side, odd.
        k1, k2, dynamic_range: as for `global_ssim`.

    Returns:
        Entry (i, j) compares masks_a[i] with masks_b[j]; NaN when either is empty.

    Raises:
        ValueError: the masks do not share a grid, or the window is even or larger than the grid.
    """
    grid = masks_a.shape[1:]
    if grid != masks_b.shape[1:]:
        raise ValueError(f"masks must lie on one grid: found {grid} and {masks_b.shape[1:]}")
    if window % 2 == 0 or not 1 <= window <= min(grid):
        raise ValueError(f"window must be odd, from 1 to {min(grid)}: found {window}")
    c1, c2 = (k1 * dynamic_range) ** 2, (k2 * dynamic_range) ** 2
    return _windowed_ssim(masks_a, masks_b, c1, c2, window=window)


def dice_of_pairs(
    masks_a: Shaped[AnyArray, "n v"], masks_b: Shaped[AnyArray, "m v"]
) -> Float[Array, "n m"]:
    """Dice of every pair of masks, 2 Σab / (Σa² + Σb²): the plain overlap that SSIM must beat.

    Args:
        masks_a: boolean, or membership in [0, 1], flattened on a grid that all share.
        masks_b: likewise.

    Returns:
        In [0, 1]; entry (i, j) compares masks_a[i] with masks_b[j]; NaN when either is empty.

    Raises:
        ValueError: the masks do not share a grid.
    """
    if masks_a.shape[-1] != masks_b.shape[-1] or not masks_a.shape[-1]:
        raise ValueError(
            f"masks must lie on one grid, flattened and not empty: "
            f"found {masks_a.shape[-1]} and {masks_b.shape[-1]} voxels"
        )
    return _dice_of_pairs(masks_a, masks_b)


@compiled_in_float64(cast_back=True)
def _dice_of_pairs(
    masks_a: Shaped[AnyArray, "n v"], masks_b: Shaped[AnyArray, "m v"]
) -> Float[Array, "n m"]:
    (_, square_a), (_, square_b), both = _moments(jnp.asarray(masks_a), jnp.asarray(masks_b))
    empty = (square_a == 0)[:, None] | (square_b == 0)[None, :]
    return jnp.where(empty, jnp.nan, 2 * both / (square_a[:, None] + square_b[None, :]))


@partial(jax.jit, static_argnames="window")
def _windowed_ssim(
    masks_a: Shaped[AnyArray, "n x y z"],
    masks_b: Shaped[AnyArray, "m x y z"],
    c1: float | Array,
    c2: float | Array,
    *,
    window: int,
) -> Float[Array, "n m"]:
    """In float32: sums over a window of memberships lose less than 1e-6 of their mean."""

    def mean(volume: Float[Array, "x y z"]) -> Float[Array, "_ _ _"]:
        for axis in range(3):
            length = volume.shape[axis] - window + 1
            volume = sum(
                (jax.lax.slice_in_dim(volume, i, i + length, axis=axis) for i in range(1, window)),
                start=jax.lax.slice_in_dim(volume, 0, length, axis=axis),
            )
        return volume / window**3

    def moments(mask: Shaped[Array, "x y z"]) -> tuple[Float[Array, "_ _ _"], ...]:
        values = mask.astype(jnp.float32)
        return values, mean(values), mean(values**2)

    def of_pair(one: tuple[Array, ...], other: tuple[Array, ...]) -> Float[Array, ""]:
        (a, mean_a, square_a), (b, mean_b, square_b) = one, other
        product_of_means, squares = mean_a * mean_b, mean_a**2 + mean_b**2
        ssim = ((2 * product_of_means + c1) * (2 * (mean(a * b) - product_of_means) + c2)) / (
            (squares + c1) * (square_a + square_b - squares + c2)
        )
        return jnp.where(a.any() & b.any(), ssim.mean(), jnp.nan)

    of_b = jax.lax.map(moments, jnp.asarray(masks_b))

    def of_row(mask: Shaped[Array, "x y z"]) -> Float[Array, " m"]:
        own = moments(mask)
        return jax.lax.map(lambda other: of_pair(own, other), of_b)

    return jax.lax.map(of_row, jnp.asarray(masks_a))


@compiled_in_float64(cast_back=True)
def _global_ssim(
    masks_a: Shaped[AnyArray, "n v"],
    masks_b: Shaped[AnyArray, "m v"],
    c1: float | Array,
    c2: float | Array,
) -> Float[Array, "n m"]:
    masks_a, masks_b = jnp.asarray(masks_a), jnp.asarray(masks_b)
    num_voxels = masks_a.shape[-1]
    (sum_a, square_a), (sum_b, square_b), sum_ab = _moments(masks_a, masks_b)
    mean_a, mean_b = sum_a[:, None] / num_voxels, sum_b[None, :] / num_voxels
    variance_a = square_a[:, None] / num_voxels - mean_a**2
    variance_b = square_b[None, :] / num_voxels - mean_b**2
    covariance = sum_ab / num_voxels - mean_a * mean_b
    ssim = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    )
    empty: Bool[Array, "n m"] = (square_a == 0)[:, None] | (square_b == 0)[None, :]
    return jnp.where(empty, jnp.nan, ssim)


_Moments = tuple[
    tuple[Float[Array, " n"], Float[Array, " n"]],
    tuple[Float[Array, " m"], Float[Array, " m"]],
    Float[Array, "n m"],
]


def _moments(masks_a: Shaped[Array, "n v"], masks_b: Shaped[Array, "m v"]) -> _Moments:
    """Sum and sum of squares of each mask, and the product of every pair, over all voxels."""

    def of_block(start: int | Array, width: int) -> _Moments:
        a = jax.lax.dynamic_slice_in_dim(masks_a, start, width, 1).astype(jnp.float64)
        b = jax.lax.dynamic_slice_in_dim(masks_b, start, width, 1).astype(jnp.float64)
        return (a.sum(1), (a**2).sum(1)), (b.sum(1), (b**2).sum(1)), product(a, b.T)

    width = min(BLOCK, masks_a.shape[-1])
    blocks, rest = divmod(masks_a.shape[-1], width)
    return jax.lax.fori_loop(
        0,
        blocks,
        lambda i, total: jax.tree.map(jnp.add, total, of_block(i * width, width)),
        of_block(blocks * width, rest),
    )
