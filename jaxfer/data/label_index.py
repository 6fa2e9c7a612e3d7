"""Where the labels of a case lie, so that drawing patches of a class reads no whole label map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer, UInt16

from jaxfer.tasks import IGNORE, RoI, classes_of

MOST_PLACES = 4096
"""Voxels of each label value that are remembered; of more, evenly spread ones."""


@dataclass(frozen=True)
class LabelIndex:
    """Counts and places of a label map's values.

    Attributes:
        values: that occur, rising.
        counts: for each axis, voxels per slice across it and value.
        places: value's index in ``values`` and x, y, z of at most ``MOST_PLACES`` voxels of every
            value but 0, in the map's order.
    """

    values: tuple[int, ...]
    counts: tuple[Int64[np.ndarray, "x v"], Int64[np.ndarray, "y v"], Int64[np.ndarray, "z v"]]
    places: UInt16[np.ndarray, "n 4"]

    def class_counts(
        self, roi: RoI, ignore: tuple[int, ...] = (), axis: int = 2
    ) -> Int64[np.ndarray, "slices classes"]:
        """Voxels per slice across an axis and class of an RoI, the ignored ones in none."""
        classes = classes_of(np.asarray(self.values, np.int64), roi, ignore)
        counts = self.counts[axis]
        return np.stack(
            [counts[:, classes == c].sum(1) for c in range(roi.num_classes)], axis=1
        ).astype(np.int64)

    def class_places(
        self, roi: RoI, ignore: tuple[int, ...] = ()
    ) -> tuple[Int64[np.ndarray, "n 3"], ...]:
        """Voxels of each class after the background: all of it, or an even sample."""
        classes = classes_of(np.asarray(self.values, np.int64), roi, ignore)
        of_place = classes[self.places[:, 0]]
        places = self.places[:, 1:].astype(np.int64)
        return tuple(places[(of_place == c) & (c != IGNORE)] for c in range(1, roi.num_classes))


def index_labels(labels: Integer[np.ndarray, "x y z"]) -> LabelIndex:
    """Indexes a label map; the same map gives the same index."""
    flat = labels.ravel(order="F")
    places = np.flatnonzero(flat != 0)
    found = flat[places]
    values = np.unique(found)
    which = np.searchsorted(values, found)
    by_axis = np.unravel_index(places, labels.shape, order="F")
    counts, kept = [], []
    for size, place in zip(labels.shape, by_axis, strict=True):
        both = np.bincount(place * len(values) + which, minlength=size * len(values))
        counts.append(both.reshape(size, len(values)))
    for index in range(len(values)):
        own = np.flatnonzero(which == index)
        own = own[np.linspace(0, len(own) - 1, min(len(own), MOST_PLACES)).round().astype(np.int64)]
        kept.append(np.stack([np.full(len(own), index), *(p[own] for p in by_axis)], axis=1))
    background = [labels.size // len(c) - c.sum(1) for c in counts]
    if any(b.any() for b in background):
        # 0 has its place among the values: label maps may hold negative ones.
        at = int(np.searchsorted(values, 0))
        values = np.insert(values, at, 0)
        counts = [np.insert(c, at, b, axis=1) for c, b in zip(counts, background, strict=True)]
        for own in kept[at:]:
            own[:, 0] += 1
    x, y, z = counts
    everywhere = np.concatenate([np.zeros((0, 4), np.int64), *kept]).astype(np.uint16)
    return LabelIndex(tuple(int(v) for v in values), (x, y, z), everywhere)
