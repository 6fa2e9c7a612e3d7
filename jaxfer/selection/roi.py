"""RoI analysis: how alike two tasks' RoIs lie and look, by SSIM in label space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from jaxfer.metrics.similarity import global_ssim

GRID = 64
"""Voxels along each side of the common grid on which label maps are compared."""


def on_common_grid(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, " v"]:
    """A mask on the common grid: its field of view stretched to GRID³, nearest voxel, flattened.

    The field of view is the brain's bounding box where images are skull-stripped, so that brains
    of different size and position meet in the same place.
    """
    index = [((np.arange(GRID) + 0.5) * n / GRID).astype(int) for n in mask.shape]
    return mask[np.ix_(*index)].reshape(-1)


def foreground_masks(volumes: Sequence[UInt8[np.ndarray, "_ _ _"]]) -> Bool[np.ndarray, "n v"]:
    """The foreground of several label maps (class indices, 255 = ignored) on the common grid."""
    return np.stack([on_common_grid((v > 0) & (v < 255)) for v in volumes])


@dataclass(frozen=True)
class RoiSimilarity:
    """SSIM between two tasks' RoIs.

    Attributes:
        mean: over the pairs of subjects whose masks are both not empty; NaN without such a pair.
        pairs: number of those pairs.
        empty: number of pairs left out, since an empty mask has no shape to compare.
    """

    mean: float
    pairs: int
    empty: int


def roi_similarity(
    source: Bool[np.ndarray, "n v"], target: Bool[np.ndarray, "m v"], *, k1: float, k2: float
) -> RoiSimilarity:
    """Global SSIM of the foregrounds over all pairs of a source's and the target's subjects.

    "Finding the Most Transferable Tasks" (arXiv 2301.00934) compares RoIs by SSIM in label space
    without public parameters; a public recipe takes 0.3 for both constants, which rates a lesion
    against an empty mask above two disjoint lesions.

    Args:
        source, target: masks on the common grid.
        k1, k2: SSIM's constants.
    """
    table = np.asarray(
        global_ssim(source.astype(np.float32), target.astype(np.float32), k1=k1, k2=k2)
    )
    usable = np.isfinite(table)
    mean = float(table[usable].mean()) if usable.any() else float("nan")
    return RoiSimilarity(mean, int(usable.sum()), int((~usable).sum()))
