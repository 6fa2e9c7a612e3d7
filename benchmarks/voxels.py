"""Made voxels of a target, the same for everyone who scores them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FEATURES, CLASSES, SOURCES = 64, 4, 4


class Voxels(NamedTuple):
    features: np.ndarray
    log_probs: np.ndarray
    labels: np.ndarray


def draw(size: int) -> Voxels:
    """Voxels of unequal classes, of which features and source know something; background leads."""
    rng = np.random.default_rng(0)
    labels = rng.choice(CLASSES, size, p=[0.7, 0.15, 0.1, 0.05]).astype(np.int32)
    centres = rng.standard_normal((CLASSES, FEATURES), np.float32)
    mixing = (rng.standard_normal((FEATURES, FEATURES)) / 8).astype(np.float32)
    features = rng.standard_normal((size, FEATURES), np.float32)
    features += 0.3 * centres[labels]
    logits = rng.standard_normal((size, SOURCES)) + 2 * np.eye(SOURCES)[labels % SOURCES]
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    return Voxels(features @ mixing + 1, logits.astype(np.float32), labels)


def halves(size: int) -> tuple[Voxels, Voxels]:
    """`size` voxels of a source, and as many of a target."""
    both = draw(2 * size)
    first, second = (Voxels(*(x[part] for x in both)) for part in (np.s_[:size], np.s_[size:]))
    return first, second
