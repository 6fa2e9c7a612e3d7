"""Where the diseased tissue lies: white matter hyperintensities, and a tumour with its oedema."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from jaxfer.data.phantom.fields import Shape, random_field
from jaxfer.data.phantom.template import VOXEL_MM


def _distance_mm(where: Bool[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
    """How far each voxel lies from the nearest one that is in `where`."""
    return ndimage.distance_transform_edt(~where).astype(np.float32) * np.float32(VOXEL_MM)


def _largest(
    score: Float32[np.ndarray, "x y z"], eligible: Bool[np.ndarray, "x y z"], count: int
) -> Bool[np.ndarray, "x y z"]:
    """The `count` eligible voxels of the largest score."""
    candidates = np.flatnonzero(eligible)
    count = min(count, candidates.size)
    best = candidates[np.argpartition(score.ravel()[candidates], -count)[-count:]]
    chosen = np.zeros(score.size, bool)
    chosen[best] = True
    return chosen.reshape(score.shape)


def white_matter_lesions(
    rng: np.random.Generator,
    eligible: Bool[np.ndarray, "x y z"],
    ventricles: Bool[np.ndarray, "x y z"],
    count: int,
) -> Bool[np.ndarray, "x y z"]:
    """White matter hyperintensities: caps and bands on the ventricles, and spots deeper in.

    The larger part clings to the ventricles, most at their horns; the rest are spots, small ones
    where there are few of them and confluent ones where there are many.

    Args:
        eligible: the white matter in which lesions occur.
        ventricles: the lateral ventricles.
        count: how many voxels the lesions take up together, about.
    """
    shape = eligible.shape
    away = _distance_mm(ventricles)
    along = np.arange(shape[1], dtype=np.float32)
    y = np.flatnonzero(ventricles.any(axis=(0, 2)))
    horn = np.abs(along - float(y.mean())) / max(float(np.ptp(y)) / 2, 1.0)
    noise = random_field(rng, shape, 14 / VOXEL_MM) + 0.6 * random_field(rng, shape, 6 / VOXEL_MM)
    cling = -away / 3.5 + 1.5 * horn[None, :, None] + noise
    periventricular = _largest(cling, eligible, int(count * rng.uniform(0.55, 0.85)))

    spots = random_field(rng, shape, 5 / VOXEL_MM) + 0.5 * random_field(rng, shape, 30 / VOXEL_MM)
    rest = count - int(periventricular.sum())
    deep = _largest(spots, eligible & (away > 6) & ~periventricular, rest)
    return periventricular | deep


def tumour_centre(
    rng: np.random.Generator,
    eligible: Bool[np.ndarray, "x y z"],
    depth_mm: Float32[np.ndarray, "x y z"],
    ventricles: Bool[np.ndarray, "x y z"],
    radius_mm: float,
) -> tuple[int, int, int]:
    """A voxel of white matter with room for a tumour around it.

    Args:
        eligible: the white matter in which tumours occur.
        depth_mm: distance to the brain's outline.
        radius_mm: the tumour's mean radius.
    """
    room = eligible & (depth_mm > 0.75 * radius_mm + 3) & (_distance_mm(ventricles) > 8)
    x, y, z = rng.choice(np.argwhere(room))
    return int(x), int(y), int(z)


def tumour_core(
    rng: np.random.Generator,
    mask: Bool[np.ndarray, "x y z"],
    ventricles: Bool[np.ndarray, "x y z"],
    centre: tuple[int, int, int],
    radius_mm: float,
) -> tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """The whole core of a tumour, and the necrosis in it, which a living rim encloses.

    An ellipsoid with dents and bumps; the rim, what is core and not necrosis, is some millimetres
    thick here and more there, and everywhere at least a voxel.

    Args:
        mask: the brain.
        ventricles: they stay free.
        centre: a voxel that will be necrosis.
        radius_mm: mean radius.
    """
    shape: Shape = mask.shape
    axes = rng.uniform(0.8, 1.25, 3)
    axes /= axes.prod() ** (1 / 3)
    offsets = [
        (np.arange(n, dtype=np.float32) - c) * np.float32(VOXEL_MM / (radius_mm * a))
        for n, c, a in zip(shape, centre, axes, strict=True)
    ]
    x, y, z = np.ix_(*offsets)
    noise = 0.24 * random_field(rng, shape, radius_mm / VOXEL_MM)
    noise += 0.1 * random_field(rng, shape, 7 / VOXEL_MM)
    distance = np.sqrt(x**2 + y**2 + z**2) + (noise - noise[centre])
    pieces, _ = ndimage.label((distance < 1) & mask & ~ventricles)
    core = pieces == pieces[centre]
    rim = rng.uniform(0.2, 0.45) * np.exp(0.35 * random_field(rng, shape, 12 / VOXEL_MM))
    within = distance < 1 - np.minimum(rim, 0.7)
    pieces, _ = ndimage.label(within & ndimage.binary_erosion(core))
    return core, pieces == pieces[centre]


def oedema(
    rng: np.random.Generator,
    tissues: Float32[np.ndarray, "3 x y z"],
    core: Bool[np.ndarray, "x y z"],
    reach_mm: float,
) -> Bool[np.ndarray, "x y z"]:
    """The swelling around a tumour's core: fingers along the white matter, sparing the cortex.

    Args:
        tissues: cerebrospinal fluid, grey and white matter; all 0 outside the brain.
        core: the tumour.
        reach_mm: how far it goes in white matter, about.
    """
    csf, _, wm = tissues
    noise = random_field(rng, core.shape, 14 / VOXEL_MM)
    resistance = _distance_mm(core) / reach_mm + 0.8 * (1 - wm) + 0.3 * noise
    swollen = (resistance < 1) & (tissues.sum(axis=0) > 0) & (csf < 0.4)
    pieces, _ = ndimage.label(swollen | core)
    return (pieces == pieces[core][0]) & ~core
