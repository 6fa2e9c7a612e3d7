"""RoI analysis: how alike two tasks' RoIs lie and look, by SSIM in label space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import affine_transform

from jaxfer.metrics.similarity import dice_of_pairs, global_ssim, windowed_ssim
from jaxfer.selection.pairs import interval_over_subjects

GRID = 64
"""Voxels along each side of the common grid on which label maps are compared."""

FULL = 255
"""Membership of a cell of the common grid that lies within the RoI altogether."""

RADIUS = GRID / 6
"""Cells to which the RoI's root-mean-square radius is brought where only shape is compared."""

SIMILARITIES = ("ssim", "ssim_centred", "ssim_shape", "ssim_windowed", "dice")
"""The kinds of ``roi_similarity``."""


def on_common_grid(mask: Bool[np.ndarray, "x y z"]) -> UInt8[np.ndarray, " v"]:
    """A mask on the common grid: its field of view stretched to GRID³, flattened.

    The field of view is the brain's bounding box where images are skull-stripped, so that brains
    of different size and position meet in the same place. A cell holds the share of its volume
    that is in the RoI, in 255ths and rounded up: no lesion is too small to be seen.
    """
    shares = mask.astype(np.float64)
    for axis, size in enumerate(mask.shape):
        edges = np.arange(GRID + 1) * size / GRID
        voxels = np.arange(size)
        low = np.maximum(edges[:-1, None], voxels[None, :])
        high = np.minimum(edges[1:, None], voxels[None, :] + 1)
        overlap = np.maximum(high - low, 0) * GRID / size
        shares = np.moveaxis(np.tensordot(overlap, shares, (1, axis)), 0, axis)
    # What rounding adds must not be rounded up.
    filled = np.where(shares > 0, np.maximum(np.ceil(FULL * shares - 1e-6), 1), 0)
    return filled.clip(0, FULL).astype(np.uint8).reshape(-1)


def foreground_masks(volumes: Sequence[UInt8[np.ndarray, "_ _ _"]]) -> UInt8[np.ndarray, "n v"]:
    """The foreground of several label maps (class indices, 255 = ignored) on the common grid.

    All classes of a RoI count as one: class names of two tasks need not mean the same.
    """
    return np.stack([on_common_grid((v > 0) & (v < 255)) for v in volumes])


def centred(
    masks: Float[np.ndarray, "n v"], *, scaled: bool = False
) -> Float[np.ndarray, "n x y z"]:
    """Masks moved so that their centre of mass is the grid's: place no longer counts.

    Args:
        masks: membership in [0, 1] on the common grid.
        scaled: also bring their root-mean-square radius to RADIUS, one factor for all axes, so
            that size no longer counts either. Linear interpolation; what leaves the grid is lost.
    """
    axes = np.arange(GRID)
    found = []
    for mask in masks.reshape(-1, GRID, GRID, GRID):
        total = mask.sum()
        if not total:
            found.append(mask)
            continue
        spread = [mask.sum(others) / total for others in ((1, 2), (0, 2), (0, 1))]
        centre = np.array([share @ axes for share in spread])
        # A cell is no point: it has a variance of its own, 1/12 along each axis.
        variance = sum(share @ (axes - c) ** 2 for share, c in zip(spread, centre, strict=True))
        zoom = np.sqrt(variance + 3 / 12) / RADIUS if scaled else 1.0
        offset = centre - zoom * (GRID - 1) / 2
        found.append(affine_transform(mask, np.full(3, zoom), offset, order=1, mode="constant"))
    return np.stack(found)


@dataclass(frozen=True)
class RoiSimilarity:
    """Similarity of two tasks' RoIs.

    Attributes:
        mean: over the pairs of subjects whose masks are both not empty; NaN without such a pair.
        pairs: number of those pairs.
        empty: number of pairs left out, since an empty mask has no shape to compare.
        low, high: 95 % percentile interval of the mean, subjects of both tasks drawn again; NaN
            where either has fewer than two that can be compared.
    """

    mean: float
    pairs: int
    empty: int
    low: float
    high: float


def roi_similarity(
    source: UInt8[np.ndarray, "n v"],
    target: UInt8[np.ndarray, "m v"],
    *,
    k1: float,
    k2: float,
    kind: str = "ssim",
    seed: int = 0,
) -> RoiSimilarity:
    """Similarity of the foregrounds over all pairs of a source's and the target's subjects.

    "Finding the Most Transferable Tasks" (arXiv 2301.00934) compares RoIs by SSIM in label space
    without public parameters; a public recipe takes 0.3 for both constants, which rates a lesion
    against an empty mask above two disjoint lesions.

    Args:
        source, target: masks of `foreground_masks`.
        k1, k2: SSIM's constants.
        kind: 'ssim', one window over the whole grid: place, size and shape. 'ssim_centred': size
            and shape. 'ssim_shape': shape alone. 'ssim_windowed': the mean over windows of 7 cells.
            'dice': overlap.
        seed: of the interval.
    """
    a, b = (masks.astype(np.float32) / FULL for masks in (source, target))
    if kind in ("ssim_centred", "ssim_shape"):
        a, b = (
            centred(masks, scaled=kind == "ssim_shape").reshape(len(masks), -1) for masks in (a, b)
        )
    if kind == "dice":
        table = np.asarray(dice_of_pairs(a, b))
    elif kind == "ssim_windowed":
        volumes = (masks.reshape(-1, GRID, GRID, GRID) for masks in (a, b))
        table = np.asarray(windowed_ssim(*volumes, k1=k1, k2=k2))
    else:
        table = np.asarray(global_ssim(a, b, k1=k1, k2=k2))
    usable = np.isfinite(table)
    mean = float(table[usable].mean()) if usable.any() else float("nan")
    low, high = interval_over_subjects(table[usable.any(1)][:, usable.any(0)], seed)
    return RoiSimilarity(mean, int(usable.sum()), int((~usable).sum()), low, high)
