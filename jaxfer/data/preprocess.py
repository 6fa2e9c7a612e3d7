"""From a file's grid to the working grid of the networks, and back.

Canonical axes (RAS), then the working spacing, then a crop to the brain where the background is
exactly 0, then z-scores inside the brain. Every step is recorded in ``Geometry`` and undone by
``restore``, so that predictions land on the file's own grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, Shaped
from scipy import ndimage

from jaxfer.data.nifti import MAX_VOXELS
from jaxfer.errors import UserError


@dataclass(frozen=True)
class Geometry:
    """How a case's working grid lies in its file's grid.

    Attributes:
        shape: of the file.
        orientation: for each axis of the file, the canonical axis and its direction (±1).
        canonical_shape: of the file with its axes as R, A, S.
        canonical_spacing: mm.
        full_shape: of the whole field of view on the working grid.
        spacing: mm, of the working grid.
        start: first working voxel of the crop.
        crop_shape: of the arrays in the store.
    """

    shape: tuple[int, ...]
    orientation: tuple[tuple[int, int], ...]
    canonical_shape: tuple[int, ...]
    canonical_spacing: tuple[float, ...]
    full_shape: tuple[int, ...]
    spacing: tuple[float, ...]
    start: tuple[int, ...]
    crop_shape: tuple[int, ...]

    @property
    def scale(self) -> np.ndarray:
        """Working voxels' size in canonical voxels."""
        return np.asarray(self.spacing) / np.asarray(self.canonical_spacing)

    @property
    def window(self) -> tuple[slice, ...]:
        """The crop in the whole field of view."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.crop_shape, strict=True))


def field_of_view(
    shape: tuple[int, ...], affine: Float[np.ndarray, "4 4"], spacing: tuple[float, ...]
) -> Geometry:
    """The geometry of the whole, uncropped field of view at a spacing in mm.

    Raises:
        UserError: the spacing is so fine that the grid would not fit into memory.
    """
    orientation = nib.orientations.io_orientation(affine)
    axes = [int(a) for a in orientation[:, 0]]
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    canonical_shape, canonical_spacing = [0] * 3, [0.0] * 3
    for axis, (n, size) in enumerate(zip(shape, sizes, strict=True)):
        canonical_shape[axes[axis]], canonical_spacing[axes[axis]] = int(n), float(size)
    full = tuple(
        max(1, round(n * size / new))
        for n, size, new in zip(canonical_shape, canonical_spacing, spacing, strict=True)
    )
    if math.prod(full) > MAX_VOXELS:
        raise UserError(
            "config.data.spacing: the working grid would be absurd",
            found=f"{' × '.join(map(str, full))} voxels at {' × '.join(map(str, spacing))} mm",
            allowed=f"at most {MAX_VOXELS} voxels",
            mend="--config.data.spacing=X,Y,Z, near the files' own "
            f"{' × '.join(f'{s:g}' for s in canonical_spacing)} mm",
        )
    return Geometry(
        shape=tuple(int(n) for n in shape),
        orientation=tuple((int(a), int(f)) for a, f in orientation),
        canonical_shape=tuple(canonical_shape),
        canonical_spacing=tuple(canonical_spacing),
        full_shape=full,
        spacing=tuple(float(s) for s in spacing),
        start=(0, 0, 0),
        crop_shape=full,
    )


def _same_grid(geometry: Geometry) -> bool:
    return geometry.full_shape == geometry.canonical_shape and np.allclose(geometry.scale, 1.0)


def _resample(
    volume: Shaped[np.ndarray, "x y z"],
    scale: Float[np.ndarray, 3],
    shape: tuple[int, ...],
) -> Float32[np.ndarray, "u v w"]:
    """Linear resampling between two grids with a common centre.

    Args:
        volume: on the old grid.
        scale: size of a new voxel in old voxels, per axis.
        shape: of the new grid.
    """
    volume = np.asarray(volume, np.float32)
    coarser = np.maximum(scale - 1.0, 0.0) / 2.0
    if coarser.any():
        volume = ndimage.gaussian_filter(volume, coarser, mode="nearest")
    old, new = np.asarray(volume.shape), np.asarray(shape)
    offset = (old - 1) / 2 - scale * (new - 1) / 2
    return ndimage.affine_transform(
        volume, scale, offset, output_shape=tuple(shape), order=1, mode="nearest"
    )


def to_canonical(
    volume: Shaped[np.ndarray, "x y z"], geometry: Geometry
) -> Shaped[np.ndarray, "a b c"]:
    """The file's array with its axes as R, A, S."""
    return nib.orientations.apply_orientation(volume, np.array(geometry.orientation, float))


def _from_canonical(
    volume: Shaped[np.ndarray, "a b c"], geometry: Geometry
) -> Shaped[np.ndarray, "x y z"]:
    for axis, direction in geometry.orientation:
        if direction < 0:
            volume = np.flip(volume, axis)
    return volume.transpose([axis for axis, _ in geometry.orientation])


def image_to_working(
    image: Shaped[np.ndarray, "x y z"], geometry: Geometry
) -> Float32[np.ndarray, "u v w"]:
    """An image on the whole field of view of the working grid, linearly interpolated."""
    canonical = to_canonical(image, geometry).astype(np.float32)
    if _same_grid(geometry):
        return canonical
    return _resample(canonical, geometry.scale, geometry.full_shape)


def mask_to_working(
    mask: Bool[np.ndarray, "x y z"], geometry: Geometry
) -> Bool[np.ndarray, "u v w"]:
    """A mask on the whole field of view of the working grid."""
    return image_to_working(mask.astype(np.float32), geometry) > 0.5


def labels_to_working(
    labels: Integer[np.ndarray, "x y z"], geometry: Geometry
) -> Integer[np.ndarray, "u v w"]:
    """A label map on the whole field of view of the working grid.

    Every label's indicator is interpolated like an image and the largest wins, so that no value
    appears that was not there, and borders stay smooth.
    """
    if _same_grid(geometry):
        return to_canonical(labels, geometry)
    values = np.unique(labels)
    best = np.full(geometry.full_shape, -1.0, np.float32)
    result = np.zeros(geometry.full_shape, labels.dtype)
    for value in values:
        share = image_to_working(labels == value, geometry)
        wins = share > best
        result[wins], best[wins] = value, share[wins]
    return result


def bounding_box(
    mask: Bool[np.ndarray, "x y z"], margin: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First voxel and size of the box around a mask; the whole grid if the mask is empty."""
    if not mask.any():
        return (0, 0, 0), tuple(mask.shape)
    start, size = [], []
    for axis in range(3):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        low = max(int(inside[0]) - margin, 0)
        high = min(int(inside[-1]) + 1 + margin, mask.shape[axis])
        start.append(low)
        size.append(high - low)
    return tuple(start), tuple(size)


def normalise(
    image: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    percentiles: tuple[float, float],
) -> Float32[np.ndarray, "x y z"]:
    """z-scores inside the brain after clipping at two percentiles of the brain; 0 outside of it."""
    if not brain.any():
        return np.zeros(image.shape, np.float32)
    inside = image[brain].astype(np.float64)
    low, high = np.percentile(inside, percentiles)
    inside = np.clip(inside, low, high)
    deviation = inside.std()
    centred = np.clip(image, low, high) - inside.mean()
    result = centred / (deviation if deviation > 0 else 1.0)
    return np.where(brain, result, 0.0).astype(np.float32)


def restore(
    volume: Float[np.ndarray, "u v w"], geometry: Geometry, fill: float
) -> Float32[np.ndarray, "x y z"]:
    """Brings a working-grid array back to the file's grid; ``fill`` outside of the crop."""
    full = np.full(geometry.full_shape, fill, np.float32)
    full[geometry.window] = volume
    if not _same_grid(geometry):
        full = _resample(full, 1.0 / geometry.scale, geometry.canonical_shape)
    return np.ascontiguousarray(_from_canonical(full, geometry))
