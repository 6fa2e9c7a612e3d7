"""T1-, T2-weighted and FLAIR images from one label map, as a scanner might have seen that head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int16, Integer
from scipy import ndimage

from jaxfer.data.heads.anatomy import BRIGHTNESS, FIRST_OUTSIDE, KINDS, MODALITIES
from jaxfer.data.phantom.fields import random_field
from jaxfer.data.phantom.scanner import scan
from jaxfer.data.phantom.sites import Scanner

_MARGIN_MM = 4.0
# Two tissues share a voxel at their border: standard deviation of the blur that mixes them.
_BORDER_MM = 0.6
# Standard deviation of a subject's own brightness of a kind of tissue, on the templates' scale.
_OWN = 2.5


@dataclass(frozen=True)
class Head:
    """A label map and the images rendered from it.

    Attributes:
        labels: inside the box around the brain.
        images: by modality; 0 outside the brain if that was asked for.
        corner: the box's first voxel in the label map.
    """

    labels: Int16[np.ndarray, "x y z"]
    images: dict[str, Int16[np.ndarray, "x y z"]]
    corner: tuple[int, int, int]


def render(
    labels: Integer[np.ndarray, "a b c"], *, seed: int, subject: str, brain: bool, voxel_mm: float
) -> Head:
    """A head in every modality, inside the box around its brain and 4 mm.

    Every kind of tissue has a brightness of this subject's own in each modality, the same in both
    hemispheres; borders mix within a voxel; tissue has texture; a scanner of this subject's own
    adds contrast, uneven sensitivity and noise.

    Args:
        labels: values of `LABEL_NAMES` alone.
        seed: of the whole data set; the same seed and subject give the same voxels.
        subject: a name.
        brain: set to 0 what is not brain or its fluid.
        voxel_mm: side of a voxel.

    Raises:
        ValueError: a label is not known, or there is no brain.
    """
    unknown = sorted(set(np.unique(labels).tolist()) - KINDS.keys())
    if unknown:
        raise ValueError(f"labels that are not known: {unknown[:8]}")
    labels, corner = _box(labels.astype(np.int16), round(_MARGIN_MM / voxel_mm))
    rng = np.random.default_rng([seed, *subject.encode()])
    scanner = Scanner(
        gamma=rng.uniform(0.85, 1.2),
        slice_mm=0.0,
        bias=rng.uniform(0.03, 0.1),
        noise=rng.uniform(0.015, 0.04),
        units=rng.uniform(300, 1200),
    )
    inside = (labels > 0) & (labels < FIRST_OUTSIDE) if brain else np.ones(labels.shape, bool)
    texture = _texture(rng, labels.shape, voxel_mm)
    images = {}
    for index, modality in enumerate(MODALITIES):
        own = {kind: max(m[index] + rng.normal(0, _OWN), 0) for kind, m in BRIGHTNESS.items()}
        signal = _brightness(labels, own | {"air": 0.0})
        signal = ndimage.gaussian_filter(signal, _BORDER_MM / voxel_mm) * texture
        images[modality] = scan(rng, signal, inside, scanner, voxel_mm=voxel_mm)
    return Head(labels, images, corner)


def _box(
    labels: Int16[np.ndarray, "a b c"], margin: int
) -> tuple[Int16[np.ndarray, "x y z"], tuple[int, int, int]]:
    """The labels in the box around the brain, and where it begins."""
    brain = (labels > 0) & (labels < FIRST_OUTSIDE)
    if not brain.any():
        raise ValueError("no voxel of it is brain")
    box = ndimage.find_objects(brain.astype(np.int8))[0]
    window = tuple(
        slice(max(side.start - margin, 0), min(side.stop + margin, n))
        for side, n in zip(box, labels.shape, strict=True)
    )
    x, y, z = (side.start for side in window)
    return np.ascontiguousarray(labels[window]), (x, y, z)


def _brightness(
    labels: Int16[np.ndarray, "x y z"], own: dict[str, float]
) -> Float32[np.ndarray, "x y z"]:
    table = np.zeros(max(KINDS) + 1, np.float32)
    for value, kind in KINDS.items():
        table[value] = own[kind]
    return table[labels]


def _texture(
    rng: np.random.Generator, shape: tuple[int, ...], voxel_mm: float
) -> Float32[np.ndarray, "x y z"]:
    """What tissue is brighter or darker by than the mean of its kind, about 1."""
    x, y, z = shape
    fine = ndimage.gaussian_filter(rng.standard_normal((x, y, z), dtype=np.float32), 1.0)
    return 1 + 0.2 * fine + np.float32(0.02) * random_field(rng, (x, y, z), 12 / voxel_mm)
