"""Voxels to score: float32 outputs of a source and labels of a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import log_softmax


class Voxels(NamedTuple):
    """n voxels with every class present."""

    features: np.ndarray
    log_probs: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="session")
def draw() -> Callable[..., Voxels]:
    """Draws voxels whose outputs know something of their labels."""

    def draw(
        seed: int, *, n: int = 120, classes: int = 3, sources: int = 4, features: int = 6
    ) -> Voxels:
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.arange(n) * classes // n)
        known = rng.standard_normal((classes, sources))
        logits = 2 * rng.standard_normal((n, sources)) + known[labels]
        centres = rng.standard_normal((classes, features))
        mixing = rng.standard_normal((features, features))
        values = (rng.standard_normal((n, features)) + centres[labels]) @ mixing + 3
        return Voxels(
            values.astype(np.float32),
            log_softmax(logits, axis=-1).astype(np.float32),
            labels.astype(np.int32),
        )

    return draw
