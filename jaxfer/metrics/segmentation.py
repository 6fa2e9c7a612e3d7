"""How well a predicted mask matches the reference, on the host, with one policy for empty masks.

    | prediction | reference | outcome    | Dice  | HD95  |
    |------------|-----------|------------|-------|-------|
    | empty      | empty     | both_empty | NaN   | NaN   |
    | empty      | something | missed     | 0     | inf   |
    | something  | empty     | spurious   | 0     | inf   |
    | something  | something | scored     | value | value |

Leave `both_empty` out of means, and count it. A mean over the finite HD95 alone gets better the
fewer structures are found: quote it only beside the numbers of `missed` and `spurious`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, SupportsFloat

import numpy as np
from jaxtyping import Bool, Float

Outcome = Literal["both_empty", "missed", "spurious", "scored"]


def outcome(prediction: Bool[np.ndarray, "*grid"], reference: Bool[np.ndarray, "*grid"]) -> Outcome:
    """Which row of the empty-mask policy a pair of masks falls in.

    Raises:
        ValueError: the masks are not boolean or differ in shape.
    """
    _check_masks(prediction, reference)
    if prediction.any():
        return "scored" if reference.any() else "spurious"
    return "missed" if reference.any() else "both_empty"


def dice(prediction: Bool[np.ndarray, "*grid"], reference: Bool[np.ndarray, "*grid"]) -> float:
    """Dice overlap 2|P∩R| / (|P| + |R|), in [0, 1], higher is better; empty masks by the policy.

    Raises:
        ValueError: the masks are not boolean or differ in shape.
    """
    if outcome(prediction, reference) == "both_empty":
        return float("nan")
    common = np.count_nonzero(prediction & reference)
    return 2 * common / (np.count_nonzero(prediction) + np.count_nonzero(reference))


def hd95(
    prediction: Bool[np.ndarray, "*grid"],
    reference: Bool[np.ndarray, "*grid"],
    spacing: Iterable[SupportsFloat],
) -> float:
    """95th percentile Hausdorff distance in mm, lower is better; empty masks by the policy.

    Conventions, which differ between implementations: the boundary is the mask without its erosion
    by face neighbours (6 in 3-D), everything outside the grid counts as background; from every
    boundary voxel to the nearest boundary voxel of the other mask, centre to centre; the 95th
    percentile (linear interpolation) of each direction on its own, then the larger of the two.

    Args:
        prediction: boolean mask.
        reference: boolean mask on the same grid.
        spacing: voxel edge in mm along each axis of the arrays.

    Raises:
        ValueError: the masks are not boolean or differ in shape, or the spacing does not fit them.
    """
    edges = tuple(float(edge) for edge in spacing)
    if len(edges) != prediction.ndim or not all(0 < edge < np.inf for edge in edges):
        raise ValueError(
            f"spacing must be one positive edge in mm per axis: "
            f"found {edges} for masks of {prediction.ndim} axes"
        )
    match outcome(prediction, reference):
        case "both_empty":
            return float("nan")
        case "missed" | "spurious":
            return float("inf")
        case _:
            box = _bounding_box(prediction | reference)
            a, b = _boundary(prediction[box]), _boundary(reference[box])
            directed = (_distances(a, b, edges), _distances(b, a, edges))
            return float(max(np.percentile(distances, 95) for distances in directed))


def _check_masks(prediction: np.ndarray, reference: np.ndarray) -> None:
    if prediction.shape != reference.shape:
        raise ValueError(
            f"prediction and reference must share a grid: {prediction.shape} != {reference.shape}"
        )
    if prediction.dtype != bool or reference.dtype != bool:
        raise ValueError(
            f"masks must be boolean: found {prediction.dtype} and {reference.dtype}; "
            "compare the label map with the RoI's labels first"
        )


def _bounding_box(mask: Bool[np.ndarray, "*grid"]) -> tuple[slice, ...]:
    """The smallest box around a mask; outside it lies background, as outside the grid."""
    axes = range(mask.ndim)
    hits = (np.flatnonzero(mask.any(tuple(a for a in axes if a != axis))) for axis in axes)
    return tuple(slice(hit[0], hit[-1] + 1) for hit in hits)


def _boundary(mask: Bool[np.ndarray, "*grid"]) -> Bool[np.ndarray, "*grid"]:
    from scipy import ndimage

    return mask & ~ndimage.binary_erosion(mask, border_value=0)


def _distances(
    start: Bool[np.ndarray, "*grid"], end: Bool[np.ndarray, "*grid"], spacing: tuple[float, ...]
) -> Float[np.ndarray, " b"]:
    """From every voxel of `start` to the nearest of `end`, in mm."""
    from scipy import ndimage

    return ndimage.distance_transform_edt(~end, sampling=spacing)[start]
