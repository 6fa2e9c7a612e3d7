"""The planes that 2-D networks look at: which axis of a stored volume counts the slices."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

AXES = ("left-right", "front-back", "up-down")
"""Of a stored volume, in order."""

NORMALS = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis that a plane is perpendicular to."""


def in_plane(plane: str) -> tuple[int, int]:
    """The two axes of a volume that a slice has, in order."""
    first, second = (axis for axis in range(3) if axis != NORMALS[plane])
    return first, second


def slices_last(
    volume: Shaped[np.ndarray, "_ _ _ *c"], plane: str
) -> Shaped[np.ndarray, "_ _ _ *c"]:
    """A view of a volume whose last axis counts the slices of a plane; channels may follow."""
    return np.moveaxis(volume, NORMALS[plane], 2)


def slices_back(
    volume: Shaped[np.ndarray, "_ _ _ *c"], plane: str
) -> Shaped[np.ndarray, "_ _ _ *c"]:
    """Undoes ``slices_last``; channels may follow."""
    return np.moveaxis(volume, 2, NORMALS[plane])
