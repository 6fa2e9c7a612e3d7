"""What a scanner makes of a brain: thick slices, its own contrast, uneven sensitivity, noise."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int16
from scipy import ndimage

from jaxfer.data.phantom.fields import random_field
from jaxfer.data.phantom.sites import Scanner
from jaxfer.data.phantom.template import VOXEL_MM

_FWHM = float(np.sqrt(8 * np.log(2)))
# The intensity on the template's scale that every site's exponent leaves as it is.
_PIVOT = 87.0


def scan(
    rng: np.random.Generator,
    image: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    scanner: Scanner,
    *,
    voxel_mm: float = VOXEL_MM,
) -> Int16[np.ndarray, "x y z"]:
    """The image as a scanner stores it: at least 1 in the mask, exactly 0 outside.

    Args:
        image: intensities on the template's scale.
        mask: the brain, or all that is to have a value.
        scanner: which one.
        voxel_mm: side of a voxel.
    """
    signal = np.where(mask, image, 0)
    if scanner.slice_mm > 0:
        sigma = (0, 0, scanner.slice_mm / _FWHM / voxel_mm)
        weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
        signal = ndimage.gaussian_filter(signal, sigma) / np.maximum(weight, 1e-3)
    signal = (signal.clip(0, None) / _PIVOT) ** np.float32(scanner.gamma * rng.normal(1, 0.03))
    signal *= np.exp(np.float32(scanner.bias) * random_field(rng, image.shape, 90 / voxel_mm))
    noise = scanner.noise * rng.uniform(0.8, 1.2)
    real, imaginary = noise * rng.standard_normal((2, *image.shape), dtype=np.float32)
    magnitude = np.hypot(signal + real, imaginary) * (scanner.units * rng.uniform(0.9, 1.1))
    return np.where(mask, magnitude.round().clip(1, 32767), 0).astype(np.int16)
