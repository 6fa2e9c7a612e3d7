"""What can be wrong with the voxels of an image or a label map."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

from jaxfer.errors import Problem
from jaxfer.tasks import Dataset, Image

_STRIPPED = 0.95
"""More voxels than this share are not 0: nobody has taken away what surrounds the brain."""


def image_problems(
    file: Image, image: Shaped[np.ndarray, "x y z"], dataset: Dataset
) -> list[Problem]:
    """NaN and infinite values, one value everywhere, a skull where none should be."""
    bad = int(image.size - np.isfinite(image).sum()) if image.dtype.kind == "f" else 0
    if bad:
        return [
            Problem(
                "error",
                str(file),
                "the image holds NaN or infinite values",
                f"{bad} voxels",
                "finite numbers",
                "repair the image, or leave the case out",
            )
        ]
    if image.min() == image.max():
        return [
            Problem(
                "error",
                str(file),
                "every voxel has the same value",
                f"{image.flat[0]:g}",
                "more than one value",
                "export the image again, or leave the case out",
            )
        ]
    share = np.count_nonzero(image) / image.size
    if dataset.skull_stripped and share > _STRIPPED:
        return [
            Problem(
                "warning",
                str(file),
                "declared as skull-stripped, but hardly a voxel is 0: all of it counts as brain",
                f"{share:.1%} of the voxels are not 0",
                "exact zeros around the brain",
                "declare the data set's skull_stripped as False, if it is not",
            )
        ]
    return []


def label_problems(
    file: Image, label: Shaped[np.ndarray, "x y z"], dataset: Dataset
) -> list[Problem]:
    """Values that are not whole, or that the data set does not declare; nothing but background."""
    if label.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            bad = ~(np.isfinite(label) & (label == np.round(label)))
        if bad.any():
            return [
                Problem(
                    "error",
                    str(file),
                    "the label map holds values that are not whole numbers",
                    _some(np.unique(label[bad])),
                    _declared(dataset),
                    "export the labels without interpolation",
                )
            ]
    # Most of a label map is 0; looking for the other values in the rest alone is much faster.
    values = np.unique(label[label != 0])
    unknown = [v for v in values.tolist() if v not in dataset.label_names]
    if unknown:
        return [
            Problem(
                "error",
                str(file),
                "label values that nobody declared",
                _some(np.array(unknown)),
                _declared(dataset),
                "correct the label map, or declare the values where the data set does",
            )
        ]
    if not values.size:
        return [
            Problem(
                "warning",
                str(file),
                "the label map is empty",
                "only 0",
                _declared(dataset),
                "nothing, if nothing is to be seen in the image",
            )
        ]
    return []


def _some(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:g}" for v in values[:8])
    return shown + (f", … ({len(values)} values)" if len(values) > 8 else "")


def _declared(dataset: Dataset) -> str:
    return ", ".join(f"{v} {n}" for v, n in sorted(dataset.label_names.items()))
