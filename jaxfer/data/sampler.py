"""From stored cases to batches: which slice, which patch, in an order that a seed decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from jaxfer.data.planes import NORMALS, slices_last
from jaxfer.data.store import StoredCase
from jaxfer.errors import UserError
from jaxfer.files import read_array
from jaxfer.tasks import IGNORE, RoI, classes_of

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class TaskCase:
    """A stored case, seen as one task sees it: one modality, the RoI's classes.

    Attributes:
        stored: where the arrays lie.
        modality: which image.
        roi: which classes.
        ignore: label values that no loss may see.
        counts: voxels per slice of the plane and class, the ignored ones in none.
        risk: file of the weights that a risk map gives on the working grid, if there are any.
        drawn_by: file of the weights with which centres of patches are drawn in place of centres
            near foreground, if there are any.
        plane: of the slices that a 2-D network sees. The arrays themselves stay as stored.
    """

    stored: StoredCase
    modality: str
    roi: RoI
    ignore: tuple[int, ...]
    counts: Int64[np.ndarray, "z c"]
    risk: Path | None = None
    plane: str = "axial"
    drawn_by: Path | None = None

    def image(self) -> np.ndarray:
        return self.stored.image(self.modality)

    def classes(self) -> UInt8[np.ndarray, "x y z"]:
        """Class indices of the whole volume, ``IGNORE`` where nothing is to be learnt."""
        return classes_of(np.asarray(self.stored.labels()), self.roi, self.ignore)

    def sliced_image(self) -> np.ndarray:
        """The image with the slices of the plane last, as a 2-D network sees them."""
        return slices_last(self.image(), self.plane)

    def sliced_classes(self) -> UInt8[np.ndarray, "h w z"]:
        """The class indices with the slices of the plane last."""
        return slices_last(self.classes(), self.plane)

    @property
    def content(self) -> tuple[str, str]:
        """Hashes of the image's and the labels' bytes; they change just when training does."""
        return self.stored.content[f"{self.modality}.npy"], self.stored.content["label.npy"]

    @property
    def foreground_fraction(self) -> float:
        """Share of the usable voxels that are foreground; 1 if none is.

        A loss over the foreground's size then falls back to the volume's: divided by next to
        nothing, a volume without foreground would outweigh all others a thousand times.
        """
        foreground, total = self.counts[:, 1:].sum(), self.counts.sum()
        return float(foreground / total) if foreground else 1.0


def task_case(
    stored: StoredCase, modality: str, roi: RoI, ignore: tuple[int, ...], plane: str = "axial"
) -> TaskCase:
    """A stored case with the counts of its classes by slice of a plane, which the store knows."""
    counts = stored.index().class_counts(roi, ignore, NORMALS[plane])
    return TaskCase(stored, modality, roi, ignore, counts, plane=plane)


def class_frequencies(cases: Sequence[TaskCase]) -> np.ndarray:
    """Share of each class among all usable voxels of the cases."""
    counts = sum(case.counts.sum(0) for case in cases)
    return np.asarray(counts / max(np.sum(counts), 1))


def _span(size: int, patch: int, centre: int) -> tuple[slice, slice]:
    """Where a patch around a centre reads from an axis, and where in the patch it lands."""
    start = int(np.clip(centre - patch // 2, 0, max(size - patch, 0)))
    length = min(size, patch)
    before = (patch - length) // 2
    return slice(start, start + length), slice(before, before + length)


@dataclass(frozen=True)
class _Opened:
    """A case with its arrays mapped and its slices last, so that the workers need not open files.

    Attributes:
        foreground: voxels per slice of each class of foreground.
        drawn_by: weights with which centres are drawn, and their sums per slice.
    """

    case: TaskCase
    image: np.ndarray
    labels: np.ndarray
    risk: np.ndarray | None
    foreground: Int64[np.ndarray, "z _"]
    drawn_by: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, case: TaskCase) -> _Opened:
        image, labels = (slices_last(a, case.plane) for a in (case.image(), case.stored.labels()))
        risk = None if case.risk is None else slices_last(risk_of(case), case.plane)
        drawn_by = None
        if case.drawn_by is not None:
            weights = slices_last(_weights_of(case, case.drawn_by), case.plane)
            drawn_by = (weights, weights.sum((0, 1), dtype=np.float64))
        return cls(case, image, labels, risk, case.counts[:, 1:], drawn_by)

    def classes(self, where: tuple[Any, ...]) -> UInt8[np.ndarray, "*n"]:
        return classes_of(np.asarray(self.labels[where]), self.case.roi, self.case.ignore)


def _near_foreground(
    opened: _Opened, patch: tuple[int, ...], rng: np.random.Generator
) -> list[int]:
    """A voxel near foreground, at most a quarter of the patch away; in 2-D in the very slice.

    First the class is drawn, as in nnU-Net (Isensee et al., 2021): each that the case has is as
    likely, where a small one would hardly be met among all voxels. A 2-D patch takes any slice that
    holds it, a 3-D one any voxel of it: the one is seen alone, the other with its neighbours, where
    every slice alike would favour the ends of lesions.
    """
    drawn = int(rng.choice(np.flatnonzero(opened.foreground.any(0))))
    voxels = opened.foreground[:, drawn]
    weights = voxels > 0 if len(patch) == 2 else voxels
    z = int(rng.choice(len(weights), p=weights / weights.sum()))
    classes = opened.classes((slice(None), slice(None), z))
    row, column = rng.choice(np.argwhere(classes == drawn + 1))
    return _moved([int(row), int(column), z], patch, rng)


def _moved(place: list[int], patch: tuple[int, ...], rng: np.random.Generator) -> list[int]:
    """A place at most a quarter of the patch away along each of its axes."""
    for axis, side in enumerate(patch):
        place[axis] += int(rng.integers(-(side // 4), side // 4 + 1))
    return place


def _by_weight(
    weights: Float32[np.ndarray, "h w z"],
    of_slices: Float64[np.ndarray, " z"],
    patch: tuple[int, ...],
    rng: np.random.Generator,
) -> list[int]:
    """A voxel near one that is drawn in proportion to its weight, as near as to foreground."""
    z = int(rng.choice(len(of_slices), p=of_slices / of_slices.sum()))
    own = np.asarray(weights[:, :, z], np.float64).reshape(-1)
    place = int(rng.choice(own.size, p=own / own.sum()))
    row, column = divmod(place, weights.shape[1])
    return _moved([row, column, z], patch, rng)


def _patch(
    opened: _Opened, patch: tuple[int, ...], foreground: bool, rng: np.random.Generator
) -> Batch:
    if foreground and opened.drawn_by is not None and opened.drawn_by[1].any():
        centre = _by_weight(*opened.drawn_by, patch, rng)
    elif foreground and opened.foreground.any():
        centre = _near_foreground(opened, patch, rng)
    else:
        centre = [int(rng.integers(n)) for n in opened.image.shape]
    spans = [_span(n, p, c) for n, p, c in zip(opened.image.shape, patch, centre, strict=False)]
    source: tuple[Any, ...] = (*(s for s, _ in spans), *centre[len(patch) :])
    place = tuple(p for _, p in spans)
    pixels = np.zeros(patch, np.float32)
    label = np.full(patch, IGNORE, np.int32)
    risk = np.ones(patch, np.float32)
    pixels[place] = opened.image[source]
    label[place] = opened.classes(source)
    if opened.risk is not None:
        risk[place] = opened.risk[source]
    return {
        "image": pixels[..., None],
        "label": label,
        "risk": risk,
        "foreground_fraction": np.asarray(opened.case.foreground_fraction, np.float32),
    }


def training_batches(
    cases: Sequence[TaskCase],
    *,
    patch: tuple[int, ...],
    batch_size: int,
    foreground_patches: float,
    seed: int,
    steps: int,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Batches of random patches; batch k depends on the seed and on k alone.

    A training can therefore be taken up at any step, without a walk through the batches before.

    Args:
        cases: drawn uniformly, whatever their size.
        patch: pixels [h, w] of a slice in the cases' plane, or voxels [x, y, z]; what lies outside
            of a smaller case is 0 in the image and ignored.
        batch_size: patches per batch.
        foreground_patches: share of the patches that are centred near a foreground pixel, of any
            class as often, or are drawn by the cases' weights where they have such.
        seed: of the order and the places.
        steps: batch after the last one.
        start: first batch to draw.
        share: (k, n): the k-th of n equal parts of every batch.

    Yields:
        ``image`` [b *patch 1], ``label`` [b *patch] class indices, ``risk`` [b *patch],
        ``foreground_fraction`` [b] of the volume each patch is from, ``index`` [b].
    """
    opened = [_Opened.of(case) for case in cases]
    part, parts = share
    own = batch_size // parts

    def record(place: int) -> Batch:
        index = place // own * batch_size + part * own + place % own
        rng = np.random.default_rng((seed, index))
        case = opened[int(rng.integers(len(opened)))]
        drawn = _patch(case, patch, bool(rng.random() < foreground_patches), rng)
        return drawn | {"index": np.asarray(index, np.int32)}

    places = grain.MapDataset.range(start * own, steps * own)
    batches = places.map(record).batch(own)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    yield from batches.to_iter_dataset(options)


def risk_of(case: TaskCase) -> Float32[np.ndarray, "x y z"]:
    """The weights of the case's risk map, ones where it has none."""
    if case.risk is None:
        return np.ones(case.image().shape, np.float32)
    return _weights_of(case, case.risk)


def _weights_of(case: TaskCase, file: Path) -> Float32[np.ndarray, "x y z"]:
    try:
        found = read_array(file)
        if found.dtype != np.float32 or found.shape != case.stored.geometry.crop_shape:
            raise ValueError(f"it holds {found.dtype} of shape {found.shape}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file}: not the risk map of case {case.stored.id}",
            found=f"{type(error).__name__}: {error}",
            mend="delete the folder that holds it; the stage 'finetune' makes it again",
        ) from error
    return found
