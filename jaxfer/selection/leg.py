"""How far two tasks are apart on a path: by their scans and label maps, no network needed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from jaxfer.metrics.affinity import mask_similarities, quantile_distances, task_affinity
from jaxfer.selection.modality import Intensities
from jaxfer.selection.roi import FULL


@dataclass(frozen=True)
class Place:
    """A task as its subjects show it.

    Attributes:
        masks: foreground of each on the common grid, in 255ths of a cell.
        intensities: of each one's scan; None: nothing is known of them.
    """

    masks: UInt8[np.ndarray, "n v"]
    intensities: Intensities | None


@dataclass(frozen=True)
class Leg:
    """The distance of two tasks, and its parts.

    Attributes:
        distance: α · image_distance + β · (1 − label_similarity); NaN if a part is.
        image_distance: Wasserstein-1 of the standardised intensities, in standard deviations, mean
            over all pairs of subjects.
        label_similarity: SSIM of the foregrounds, mean over all pairs of subjects.
        reason: why there is no distance; '' if there is one.
    """

    distance: float
    image_distance: float
    label_similarity: float
    reason: str = ""


def leg(a: Place, b: Place, *, alpha: float, beta: float, k1: float, k2: float) -> Leg:
    """The distance of two tasks.

    SeqTran (arXiv 2410.06892) compares raw intensities by principal components and fits α and β to
    measured performance; here intensities are standardised and compared by histogram, whose
    distance needs coefficients of its own. It does not connect tasks that differ in modality and
    label; here names decide nothing.

    Args:
        a, b: in any order: the distance is the same.
        alpha, beta: 0 or more.
        k1, k2: SSIM's constants.
    """
    if a.intensities is None or b.intensities is None:
        return _no_leg("nothing is kept of the scans' intensities")
    if a.intensities.skull_stripped != b.intensities.skull_stripped:
        return _no_leg("brains would be compared with what lies around them, too")
    found = task_affinity(
        quantile_distances(a.intensities.quantiles, b.intensities.quantiles),
        mask_similarities(*(p.masks.astype(np.float32) / FULL for p in (a, b)), k1=k1, k2=k2),
        alpha=alpha,
        beta=beta,
    )
    reasons = [
        *(["no pair of scans with any contrast"] if not found.image_pairs else []),
        *(["no pair of label maps with any foreground"] if not found.label_pairs else []),
    ]
    return Leg(
        float(found.distance),
        float(found.image_distance),
        float(found.label_similarity),
        "; ".join(reasons),
    )


def _no_leg(reason: str) -> Leg:
    return Leg(math.nan, math.nan, math.nan, reason)
