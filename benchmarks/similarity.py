"""All pairs of masks at once against scikit-image, pair by pair.

    python -m benchmarks.similarity [--masks=100] [--pairs=20]

Masks at 2 mm (91 × 109 × 91 voxels). scikit-image is timed on some pairs and multiplied up; the
values of those pairs are compared. Its windows have no global form: for that one its time stands
beside for scale, and the values are compared with the formula in float64.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags
from rich.console import Console
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from jaxfer.metrics.similarity import global_ssim, windowed_ssim

_MASKS = flags.DEFINE_integer("masks", 100, "Masks of each side.", lower_bound=1)
_PAIRS = flags.DEFINE_integer("pairs", 20, "Pairs that scikit-image is timed on.", lower_bound=1)

SHAPE = (91, 109, 91)


def draw(number: int, seed: int) -> np.ndarray:
    """Smooth blobs that fill a twentieth of the volume."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        field = gaussian_filter(rng.standard_normal(SHAPE, np.float32), 6)
        found.append(field > np.quantile(field, 0.95))
    return np.stack(found)


def timed(work: Callable[[], Any]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = np.asarray(jax.block_until_ready(work()))
    return time.perf_counter() - start, result


def formula(a: np.ndarray, b: np.ndarray) -> float:
    """The global form, in float64."""
    a, b = a.astype(float), b.astype(float)
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    means = (2 * a.mean() * b.mean() + 1e-4) / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
    return float(means * (2 * covariance + 9e-4) / (a.var() + b.var() + 9e-4))


def main(argv: list[str]) -> None:
    del argv
    console, number = Console(), _MASKS.value
    ours, theirs = draw(number, 0), draw(number, 1)
    rng = np.random.default_rng(2)
    pairs = [tuple(map(int, p)) for p in rng.integers(number, size=(_PAIRS.value, 2))]
    floats = [(ours[i].astype(float), theirs[j].astype(float)) for i, j in pairs]
    start = time.perf_counter()
    expected = [
        structural_similarity(a, b, data_range=1.0, use_sample_covariance=False) for a, b in floats
    ]
    peer = (time.perf_counter() - start) / len(pairs) * number**2
    console.print(f"scikit-image, window 7: {peer:.0f} s for {number**2} pairs")
    flat = [masks.reshape(number, -1) for masks in (ours, theirs)]
    rows = (
        ("global", lambda: global_ssim(*flat), [formula(a, b) for a, b in floats]),
        ("windowed", lambda: windowed_ssim(ours, theirs), expected),
    )
    for name, work, values in rows:
        seconds, found = timed(work)
        off = max(abs(float(found[i, j]) - v) for (i, j), v in zip(pairs, values, strict=True))
        console.print(
            f"{name}: {seconds:.1f} s with compilation, 1/{peer / seconds:.0f} of scikit-image, "
            f"values within {off:.0e}"
        )


if __name__ == "__main__":
    app.run(main)
