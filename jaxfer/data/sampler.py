"""From stored cases to batches: which slice, which patch, in an order that a seed decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grain
import numpy as np
from jaxtyping import Float32, Int64, UInt8

from jaxfer.data.store import StoredCase
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
        counts: voxels per axial slice and class, the ignored ones in none.
        risk: file of the risk map on the working grid, if there is one.
    """

    stored: StoredCase
    modality: str
    roi: RoI
    ignore: tuple[int, ...]
    counts: Int64[np.ndarray, "z c"]
    risk: Path | None = None

    def image(self) -> np.ndarray:
        return self.stored.image(self.modality)

    def classes(self) -> UInt8[np.ndarray, "x y z"]:
        """Class indices of the whole volume, ``IGNORE`` where nothing is to be learnt."""
        return classes_of(np.asarray(self.stored.labels()), self.roi, self.ignore)

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


def task_case(stored: StoredCase, modality: str, roi: RoI, ignore: tuple[int, ...]) -> TaskCase:
    """A stored case with the counts of its classes, which the store knows."""
    return TaskCase(stored, modality, roi, ignore, stored.index().class_counts(roi, ignore))


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
    """A case with its arrays mapped, so that the workers need not open files."""

    case: TaskCase
    image: np.ndarray
    labels: np.ndarray
    risk: np.ndarray | None

    @classmethod
    def of(cls, case: TaskCase) -> _Opened:
        risk = None if case.risk is None else risk_of(case)
        return cls(case, case.image(), case.stored.labels(), risk)


def _patch(
    opened: _Opened, patch: tuple[int, int], foreground: bool, rng: np.random.Generator
) -> Batch:
    case, image = opened.case, opened.image
    with_foreground = np.flatnonzero(case.counts[:, 1:].sum(1))
    if foreground and len(with_foreground):
        z = int(rng.choice(with_foreground))
    else:
        z = int(rng.integers(image.shape[2]))
    classes = classes_of(np.asarray(opened.labels[:, :, z]), case.roi, case.ignore)
    centre = [int(rng.integers(n)) for n in classes.shape]
    if foreground and len(with_foreground):
        places = np.argwhere((classes > 0) & (classes != IGNORE))
        jitter = [int(rng.integers(-(p // 4), p // 4 + 1)) for p in patch]
        centre = [int(c) + j for c, j in zip(rng.choice(places), jitter, strict=True)]
    spans = [_span(n, p, c) for n, p, c in zip(classes.shape, patch, centre, strict=True)]
    source, place = tuple(s for s, _ in spans), tuple(p for _, p in spans)
    pixels = np.zeros(patch, np.float32)
    label = np.full(patch, IGNORE, np.int32)
    risk = np.ones(patch, np.float32)
    pixels[place] = image[:, :, z][source]
    label[place] = classes[source]
    if opened.risk is not None:
        risk[place] = opened.risk[:, :, z][source]
    fraction = np.asarray(case.foreground_fraction, np.float32)
    return {
        "image": pixels[..., None],
        "label": label,
        "risk": risk,
        "foreground_fraction": fraction,
    }


def training_batches(
    cases: Sequence[TaskCase],
    *,
    patch: tuple[int, int],
    batch_size: int,
    foreground_patches: float,
    seed: int,
    first_step: int = 0,
    steps: int,
) -> Iterator[Batch]:
    """Batches of random axial patches; batch k depends on the seed and on k alone.

    Args:
        cases: drawn uniformly, whatever their size.
        patch: pixels; what lies outside of a smaller slice is 0 in the image and ignored.
        batch_size: patches per batch.
        foreground_patches: share of the patches that are centred near a foreground pixel.
        seed: of the order and the places.
        first_step: first batch to draw.
        steps: batch after the last one.

    Yields:
        ``image`` [b h w 1], ``label`` [b h w] class indices, ``risk`` [b h w],
        ``foreground_fraction`` [b] of the volume each patch is from, ``index`` [b].
    """

    opened = [_Opened.of(case) for case in cases]

    def record(index: int) -> Batch:
        rng = np.random.default_rng((seed, index))
        case = opened[int(rng.integers(len(opened)))]
        drawn = _patch(case, patch, bool(rng.random() < foreground_patches), rng)
        return drawn | {"index": np.asarray(index, np.int32)}

    indices = grain.MapDataset.range(first_step * batch_size, steps * batch_size)
    batches = indices.map(record).batch(batch_size)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    yield from batches.to_iter_dataset(options)


def risk_of(case: TaskCase) -> Float32[np.ndarray, "x y z"]:
    """The case's risk map, ones where it has none."""
    if case.risk is None:
        return np.ones(case.image().shape, np.float32)
    return np.load(case.risk, mmap_mode="r")
