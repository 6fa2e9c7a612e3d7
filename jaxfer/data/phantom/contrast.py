"""What tissue looks like: T1- and T2-weighted and FLAIR images of healthy and diseased brains.

Intensities are on the template's scale, on which white matter is 87 in T1 and grey matter 56 in T2.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, UInt8
from scipy import ndimage

from jaxfer.data.phantom.fields import random_field
from jaxfer.data.phantom.labels import ENHANCING, NECROSIS, OEDEMA, WMH
from jaxfer.data.phantom.template import VOXEL_MM

MODALITIES = ("t1", "t2", "flair")

# FLAIR is T2-weighted with the fluid's signal suppressed: fluid, grey and white matter.
FLAIR_MEANS = np.array([20, 80, 64], np.float32)

# Intensities of diseased tissue by modality. T1 is without contrast agent, so that the enhancing
# rim is as bright as grey matter; necrosis is fluid with debris, which FLAIR suppresses in part.
_LESIONS: Mapping[int, tuple[float, float, float]] = {
    WMH: (70, 72, 112),
    NECROSIS: (40, 90, 52),
    OEDEMA: (66, 76, 108),
    ENHANCING: (72, 62, 92),
}


def individual(
    rng: np.random.Generator, tissues: Float32[np.ndarray, "3 x y z"], atrophy: float
) -> Float32[np.ndarray, "3 x y z"]:
    """One person's tissues from a population's probabilities.

    The template is an average, so its cortex is blurred and its sulci are faint. Squaring the
    probabilities sharpens them; smooth noise on their logarithms shifts the borders between tissues
    by a different amount in every place, as the cortex of no two people is the same.

    Args:
        tissues: probabilities of cerebrospinal fluid, grey and white matter; 0 outside the brain.
        atrophy: 0 to 1, how much fluid there is in the sulci.
    """
    shape = tissues.shape[1:]
    tilt = 0.5 * np.stack([random_field(rng, shape, 10 / VOXEL_MM) for _ in range(3)])
    tilt[0] += 0.6 + 0.8 * atrophy
    sharp = np.square(tissues) * np.exp(tilt)
    return sharp / np.maximum(sharp.sum(axis=0), 1e-6)


def healthy(
    rng: np.random.Generator,
    t1: Float32[np.ndarray, "x y z"],
    t2: Float32[np.ndarray, "x y z"],
    average: Float32[np.ndarray, "3 x y z"],
    tissues: Float32[np.ndarray, "3 x y z"],
    t1_means: Float32[np.ndarray, " tissues"],
    t2_means: Float32[np.ndarray, " tissues"],
) -> dict[str, Float32[np.ndarray, "x y z"]]:
    """The images of a brain without lesions, by modality.

    T1 and T2 are the template's, changed where the person's tissue differs from the average one.
    FLAIR is synthesised: its own mean for every tissue, and T2's finer structure upon it.

    Args:
        t1, t2: the warped template.
        average: the warped probabilities, `tissues` the person's own.
        t1_means, t2_means: the template's intensity of every tissue.
    """
    finer = t2 - np.tensordot(t2_means, average, axes=1)
    parenchyma = tissues[1] + tissues[2]
    images = {
        "t1": t1 + np.tensordot(t1_means, tissues - average, axes=1),
        "t2": t2 + np.tensordot(t2_means, tissues - average, axes=1),
        "flair": np.tensordot(FLAIR_MEANS, tissues, axes=1)
        + 0.5 * parenchyma * finer.clip(-20, 20),
    }
    for name, image in images.items():
        own = rng.normal(0, 1.5, 3).astype(np.float32)
        fine = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), 0.7)
        texture = 1 + 0.06 * fine + 0.015 * random_field(rng, image.shape, 12 / VOXEL_MM)
        images[name] = (image + np.tensordot(own, tissues, axes=1)).clip(1, None) * texture
    return images


def diseased(
    rng: np.random.Generator,
    images: Mapping[str, Float32[np.ndarray, "x y z"]],
    labels: UInt8[np.ndarray, "x y z"],
) -> dict[str, Float32[np.ndarray, "x y z"]]:
    """The images with the labelled lesions in them.

    Borders are as soft as a voxel that two tissues share; oedema and hyperintensities let some of
    the tissue shine through.
    """
    out = dict(images)
    for label, means in _LESIONS.items():
        where = labels == label
        if not where.any():
            continue
        share = ndimage.gaussian_filter(where.astype(np.float32), 0.5)
        patchy = random_field(rng, labels.shape, 8 / VOXEL_MM)
        if label in (WMH, OEDEMA):
            share = share * (0.85 + 0.08 * patchy).clip(0.6, 1)
        for name, mean in zip(MODALITIES, means, strict=True):
            value = mean * rng.normal(1, 0.04) * (1 + 0.05 * patchy)
            out[name] = out[name] + share * (value - out[name])
    return out
