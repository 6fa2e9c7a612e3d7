"""Which voxel counts in which tile, and which cell of a layer stands for which voxel.

Tiles overlap where a volume does not divide by them: a voxel counts in the first tile that covers
it, so in one only. Tiles are of a slice or, in 3-D, of the volume. A layer has a scale along each
axis of a tile: at scale (4, 4, 2) it has a cell for every 4 × 4 × 2 voxels. The cell stands for the
voxel at its centre (of an even number, the one after the middle), as in resampling to the nearest:
it has that voxel's label, and counts just when that voxel lies in the volume, counts in this tile
and is not ignored. So a voxel is counted at most once, classes keep their share of the voxels, and
a lesion smaller than a cell is not outvoted by what surrounds it. At scale 1 every voxel is a cell.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxfer.tasks import IGNORE
from jaxfer.train.predict import Patch, Tile, read_tile, starts


def owners(size: int, patch: int) -> Int[np.ndarray, " n"]:
    """Along an axis, the first pixel of the tile in which each pixel counts."""
    first = np.asarray(starts(size, patch, 0.0))
    return first[np.searchsorted(first + patch, np.arange(size), side="right")]


def centres(size: int, patch: int, scale: int) -> Bool[np.ndarray, " n"]:
    """Along an axis, the pixels at the centre of a cell."""
    return (np.arange(size) - owners(size, patch)) % scale == scale // 2


def owned_labels(
    classes: UInt8[np.ndarray, "x y z"], tile: Tile, patch: Patch
) -> UInt8[np.ndarray, "*s"]:
    """A tile's labels, ``IGNORE`` where the voxel counts in another tile or lies outside."""
    labels = read_tile(classes, tile, patch, IGNORE)
    for axis in range(len(patch)):
        own = owners(classes.shape[axis], patch[axis])[tile.start[axis] :][: patch[axis]]
        np.moveaxis(labels, axis, 0)[: len(own)][own != tile.start[axis]] = IGNORE
    return labels
