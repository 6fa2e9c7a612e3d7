"""From a file's grid to the working grid of the networks, and back.

Canonical axes (RAS) where the header says how the axes lie, then the working spacing, then a crop
to what is not exactly 0, then z-scores: inside the brain if the scans are skull-stripped, else over
the crop. Every step is recorded in ``Geometry`` and undone by ``restore``, so that predictions land
on the file's own grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, Shaped
from scipy import ndimage

from jaxfer.data.nifti import MAX_VOXELS, Header
from jaxfer.errors import UserError

MARGIN = 2
"""Working voxels kept around the brain."""

SPLINES = {"linear": 1, "spline": 3}
"""Order of the spline of each ``config.data.interpolation``."""

_SAME = 0.01
"""Largest distance, in voxels, between voxels of two grids that count as one."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every case before a network sees it.

    Attributes:
        spacing: mm along R, A, S of the working grid; 0 keeps the file's own.
        percentiles: at which intensities are clipped, inside the brain.
        skull_stripped: the brain is where an image is not 0; else all within the crop counts.
        interpolation: of images where the spacing changes, 'linear' or 'spline' (cubic). Label
            maps are not interpolated across values, see ``labels_to_working``.
        precision: of the stored images, 'float16' or 'float32'.
    """

    spacing: tuple[float, float, float]
    percentiles: tuple[float, float]
    skull_stripped: bool
    interpolation: str = "linear"
    precision: str = "float16"


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
    """The geometry of the whole, uncropped field of view at a spacing in mm; 0 keeps the file's.

    Raises:
        UserError: the spacing is so fine that the grid would not fit into memory.
    """
    orientation = nib.orientations.io_orientation(affine)
    axes = [int(a) for a in orientation[:, 0]]
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    canonical_shape, canonical_spacing = [0] * 3, [0.0] * 3
    for axis, (n, size) in enumerate(zip(shape, sizes, strict=True)):
        canonical_shape[axes[axis]], canonical_spacing[axes[axis]] = int(n), float(size)
    spacing = tuple(float(s or own) for s, own in zip(spacing, canonical_spacing, strict=True))
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
        spacing=spacing,
        start=(0, 0, 0),
        crop_shape=full,
    )


def _same_grid(geometry: Geometry) -> bool:
    if geometry.full_shape != geometry.canonical_shape:
        return False
    # Headers round their voxel sizes; what matters is how far apart the outermost voxels are.
    apart = np.abs(geometry.scale - 1.0) * np.asarray(geometry.full_shape) / 2
    return bool((apart < _SAME).all())


def _resample(
    volume: Shaped[np.ndarray, "x y z"],
    scale: Float[np.ndarray, 3],
    shape: tuple[int, ...],
    window: tuple[slice, ...],
    order: int = 1,
) -> Float32[np.ndarray, "u v w"]:
    """Resampling between two grids with a common centre.

    Args:
        volume: on the old grid.
        scale: size of a new voxel in old voxels, per axis.
        shape: of the new grid.
        window: the part of the new grid that is wanted.
        order: of the spline.
    """
    volume = np.asarray(volume, np.float32)
    coarser = np.maximum(scale - 1.0, 0.0) / 2.0
    if coarser.any():
        volume = ndimage.gaussian_filter(volume, coarser, mode="nearest")
    old, new = np.asarray(volume.shape), np.asarray(shape)
    start = np.asarray([part.start for part in window])
    offset = (old - 1) / 2 - scale * (new - 1) / 2 + scale * start
    size = tuple(part.stop - part.start for part in window)
    if order == 1:
        return _between(volume, scale, offset, size)
    return ndimage.affine_transform(
        volume, scale, offset, output_shape=size, order=order, mode="nearest"
    )


def _between(
    volume: Float32[np.ndarray, "x y z"],
    scale: Float[np.ndarray, 3],
    offset: Float[np.ndarray, 3],
    size: tuple[int, ...],
) -> Float32[np.ndarray, "u v w"]:
    """Linear interpolation at ``offset + scale × index``, beyond the edge as at the edge.

    One matrix product per axis, several times faster than a general affine transform.
    """
    matrices = []
    for old, step, start, new in zip(volume.shape, scale, offset, size, strict=True):
        place = np.clip(start + step * np.arange(new), 0, old - 1)
        below = np.minimum(place.astype(int), max(old - 2, 0))
        matrix = np.zeros((new, old), np.float32)
        matrix[np.arange(new), np.minimum(below + 1, old - 1)] = place - below
        matrix[np.arange(new), below] = 1.0 - (place - below)
        matrices.append(matrix)
    first, second, third = matrices
    return np.matmul(second, np.tensordot(first, volume, 1)) @ third.T


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
    image: Shaped[np.ndarray, "x y z"], geometry: Geometry, interpolation: str = "linear"
) -> Float32[np.ndarray, "u v w"]:
    """An image on the working grid, the crop of it.

    Args:
        image: on the file's grid.
        geometry: of the case.
        interpolation: 'linear' or 'spline', which is cubic and may overshoot at edges. Where the
            working voxels are the larger ones, the image is smoothed first (Gaussian, half the
            excess of their size as its deviation), so that nothing between them is skipped.
    """
    canonical = to_canonical(image, geometry)
    if _same_grid(geometry):
        return np.asfortranarray(canonical[geometry.window], np.float32)
    return _resample(
        canonical, geometry.scale, geometry.full_shape, geometry.window, SPLINES[interpolation]
    )


def mask_to_working(
    mask: Bool[np.ndarray, "x y z"], geometry: Geometry
) -> Bool[np.ndarray, "u v w"]:
    """A mask on the working grid: where at least half of it would be, linearly interpolated."""
    if _same_grid(geometry):
        return np.asfortranarray(to_canonical(mask, geometry)[geometry.window])
    return image_to_working(mask.astype(np.float32), geometry) > 0.5


def labels_to_working(
    labels: Integer[np.ndarray, "x y z"], geometry: Geometry
) -> Integer[np.ndarray, "u v w"]:
    """A label map on the working grid.

    Every label's indicator is interpolated linearly and the largest wins, so that no value appears
    that was not there, and borders stay smooth, where nearest-neighbour interpolation moves them by
    up to half a voxel. What fills less of a coarser voxel than its surroundings do vanishes.
    """
    if _same_grid(geometry):
        return np.asfortranarray(to_canonical(labels, geometry)[geometry.window])
    best = np.full(geometry.crop_shape, -1.0, np.float32)
    result = np.zeros(geometry.crop_shape, labels.dtype)
    for value in np.unique(labels):
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


def percentile(values: Float[np.ndarray, " n"], wanted: float) -> float:
    """``np.percentile``, several times faster where it is far from the median.

    A sample bounds the values that can matter; should it mislead, all are looked at.
    """
    rank = wanted / 100 * (len(values) - 1)
    below = math.floor(rank)
    above = min(below + 1, len(values) - 1)
    sample = np.sort(values[:: len(values) // 4096 + 1])
    place, last = int(wanted / 100 * len(sample)), len(sample) - 1
    if wanted <= 50:
        tail, before = values[values <= sample[min(place + 32, last)]], 0
    else:
        tail = values[values >= sample[max(place - 32, 0)]]
        before = len(values) - len(tail)
    if below < before or above >= before + len(tail):
        tail, before = values, 0
    below, above, rank = below - before, above - before, rank - before
    tail = np.partition(tail, (below, above))
    return float(tail[below] + (rank - below) * (tail[above] - tail[below]))


def normalise(
    image: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    percentiles: tuple[float, float],
    precision: str = "float32",
) -> Float[np.ndarray, "x y z"]:
    """z-scores inside the brain after clipping at two percentiles of the brain; 0 outside of it.

    Args:
        image: in any unit.
        brain: the voxels that count.
        percentiles: in 0 … 100.
        precision: of the result, 'float16' or 'float32'.
    """
    result = np.zeros(image.size, precision)
    places = brain.ravel(order="F")
    inside = image.ravel(order="F")[places].astype(np.float32, copy=False)
    if inside.size:
        low, high = (percentile(inside, p) for p in percentiles)
        # Sums in float64; each voxel in float32, and in place, since memory is what takes time.
        values = np.clip(inside, np.float32(low), np.float32(high), out=inside)
        values -= np.float32(values.mean(dtype=np.float64))
        values /= np.float32(math.sqrt(np.square(values).mean(dtype=np.float64)) or 1.0)
        result[places] = values.astype(precision, copy=False)
    return result.reshape(image.shape, order="F")


@dataclass(frozen=True)
class WorkingCase:
    """A case on its working grid, axes R, A, S, the first contiguous.

    Attributes:
        images: z-scores by modality, in the precision asked for.
        labels: the data set's label values.
        geometry: how it lies in the files' grid.
    """

    images: Mapping[str, Float[np.ndarray, "x y z"]]
    labels: Integer[np.ndarray, "x y z"] | None
    geometry: Geometry


def to_working(
    images: Mapping[str, Shaped[np.ndarray, "x y z"]],
    labels: Integer[np.ndarray, "x y z"] | None,
    header: Header,
    how: Preprocessing,
) -> WorkingCase:
    """Brings a case's arrays from its files' common grid to the working grid.

    Args:
        images: by modality, one or more.
        labels: label values, if the case is labelled.
        header: of the grid; without an orientation, the axes stay as they are.
        how: the preprocessing.

    Raises:
        UserError: the working grid would be absurd.
    """
    whole = field_of_view(header.shape, header.affine, how.spacing)
    content = np.zeros(header.shape, bool, order="F")
    for image in images.values():
        content |= image != 0
    inside = mask_to_working(content, whole)
    start, size = bounding_box(inside, MARGIN if how.skull_stripped else 0)
    geometry = replace(whole, start=start, crop_shape=size)
    brain = inside[geometry.window] if how.skull_stripped else np.ones(size, bool, order="F")
    working = {
        modality: normalise(
            image_to_working(image, geometry, how.interpolation),
            brain,
            how.percentiles,
            how.precision,
        )
        for modality, image in images.items()
    }
    return WorkingCase(
        working, None if labels is None else labels_to_working(labels, geometry), geometry
    )


def restore(
    volume: Float[np.ndarray, "u v w"], geometry: Geometry, fill: float
) -> Float32[np.ndarray, "x y z"]:
    """Brings a working-grid array back to the file's grid; ``fill`` outside of the crop.

    Interpolation is linear whatever it was on the way there: probabilities stay within 0 and 1,
    and those of all classes sum to 1.
    """
    full = np.full(geometry.full_shape, fill, np.float32)
    full[geometry.window] = volume
    if not _same_grid(geometry):
        everything = tuple(slice(0, n) for n in geometry.canonical_shape)
        full = _resample(full, 1.0 / geometry.scale, geometry.canonical_shape, everything)
    return np.ascontiguousarray(_from_canonical(full, geometry))
