"""The one slice of a volume that is shown, turned so that every picture is oriented alike.

Volumes are turned to the nearest RAS+ axes; the slice is taken across the third axis and shown as
radiologists look at it: anterior up, the patient's right on the left of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Bool, Float, Shaped

from jaxfer.errors import UserError
from jaxfer.files import check_regular
from jaxfer.report.files import reading
from jaxfer.report.records import LabelValues, TestCase

_MOST_VOXELS = 2**30


@dataclass(frozen=True)
class Volume:
    """A volume on its nearest RAS+ axes, with the voxel's edge lengths in mm."""

    values: Shaped[np.ndarray, "x y z"]
    spacing: tuple[float, float, float]

    @property
    def aspect(self) -> float:
        """The height of a shown pixel over its width."""
        return self.spacing[1] / self.spacing[0]


@dataclass(frozen=True)
class CaseSlice:
    """One slice of a test case, cropped to the head: masks by class name; risk only if stored."""

    index: int
    n_slices: int
    aspect: float
    image: Float[np.ndarray, "row column"]
    truth: Mapping[str, Bool[np.ndarray, "row column"]]
    prediction: Mapping[str, Bool[np.ndarray, "row column"]]
    risk: Float[np.ndarray, "row column"] | None
    truth_empty: bool


def read_volume(path: Path, channel: int = 0) -> Volume:
    """Reads an image file on its nearest RAS+ axes; of a fourth axis only one volume.

    Args:
        path: a file that nibabel reads.
        channel: which volume, if it holds several.

    Returns:
        The volume, not resampled.

    Raises:
        UserError: the file cannot be read, or does not hold a volume.
    """
    with reading(path):
        check_regular(path)
        stored = nibabel.load(path)
        if not isinstance(stored, nibabel.spatialimages.SpatialImage) or not (
            0 < math.prod(stored.shape) <= _MOST_VOXELS
        ):
            raise ValueError("its header announces an absurd grid, or none")
        image = nibabel.as_closest_canonical(stored)
        values = np.asanyarray(image.dataobj)
        values = values.reshape(*values.shape[:3], -1)[..., channel] if values.ndim > 3 else values
        if values.ndim != 3 or not values.size:
            raise ValueError(f"its shape is {values.shape}, not that of a volume")
        x, y, z = (float(edge) for edge in image.header.get_zooms()[:3])
        return Volume(values, (x, y, z))


def shown(values: Shaped[np.ndarray, "x y z"], index: int) -> Shaped[np.ndarray, "row column"]:
    """A slice of an RAS+ volume as rows of a picture: anterior up, the patient's right on the left.

    Args:
        values: the volume; x grows to the patient's right, y to the front, z to the head.
        index: the slice across z.

    Returns:
        The picture, its first row the most anterior, its first column the patient's rightmost.
    """
    return values[::-1, ::-1, index].T


def fullest_slice(amount: Shaped[np.ndarray, "x y z"]) -> int:
    """The slice across z that holds the most; the first of equals."""
    return int(np.argmax(amount.sum(axis=(0, 1), dtype=np.float64)))


def case_slice(case: TestCase, labels: Sequence[LabelValues], prediction: Path) -> CaseSlice:
    """The slice of a test case with the most truth; without truth, with the most prediction.

    Args:
        case: where the image, the reference and the risk map lie.
        labels: the values of the classes in the two kinds of label file.
        prediction: the label file of the method and seed to show.

    Returns:
        The slice; where reference and prediction are both empty, the middle one.

    Raises:
        UserError: a file cannot be read, or two files do not share a grid.
    """
    image = read_volume(case.image, case.channel)
    truth_values = _on_grid(case.label, image)
    predicted_values = _on_grid(prediction, image)
    truth = {label.name: np.isin(truth_values, label.reference) for label in labels}
    predicted = {label.name: predicted_values == label.prediction for label in labels}
    any_truth = _union(truth, image.values.shape)
    any_predicted = _union(predicted, image.values.shape)
    n_slices = image.values.shape[2]
    if any_truth.any():
        index = fullest_slice(any_truth)
    else:
        index = fullest_slice(any_predicted) if any_predicted.any() else n_slices // 2
    picture = shown(image.values, index).astype(np.float64)
    window = head_window(picture, shown(any_truth | any_predicted, index))
    risk = None
    if case.risk is not None and case.risk.is_file():
        risk = shown(_on_grid(case.risk, image), index)[window].astype(np.float64)
    return CaseSlice(
        index=index,
        n_slices=n_slices,
        aspect=image.aspect,
        image=picture[window],
        truth={name: shown(mask, index)[window] for name, mask in truth.items()},
        prediction={name: shown(mask, index)[window] for name, mask in predicted.items()},
        risk=risk,
        truth_empty=not any_truth.any(),
    )


def head_window(
    picture: Float[np.ndarray, "row column"], keep: Bool[np.ndarray, "row column"]
) -> tuple[slice, slice]:
    """The rows and columns that hold the head and all that is marked, with a small margin."""
    finite = np.where(np.isfinite(picture), picture, np.nanmin(picture, initial=0.0))
    low, high = np.percentile(finite, (1, 99))
    inside = (finite > low + 0.1 * (high - low)) | keep
    spans = []
    for axis in (1, 0):
        occupied = np.flatnonzero(inside.any(axis=axis))
        size = inside.shape[1 - axis]
        if not occupied.size:
            spans.append(slice(0, size))
            continue
        margin = max(1, size // 40)
        start, stop = int(occupied[0]) - margin, int(occupied[-1]) + 1 + margin
        spans.append(slice(max(0, start), min(size, stop)))
    return spans[0], spans[1]


def _on_grid(path: Path, image: Volume) -> Shaped[np.ndarray, "x y z"]:
    values = read_volume(path).values
    if values.shape != image.values.shape:
        raise UserError(
            f"{path} is not on the grid of its case's image",
            found=f"shape {values.shape}",
            allowed=f"shape {image.values.shape}",
            mend="run the evaluate stage again",
        )
    return values


def _union(
    masks: Mapping[str, Bool[np.ndarray, "x y z"]], shape: tuple[int, ...]
) -> Bool[np.ndarray, "x y z"]:
    union = np.zeros(shape, bool)
    for mask in masks.values():
        union |= mask
    return union
