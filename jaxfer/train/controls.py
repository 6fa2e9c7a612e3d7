"""Controls: a case's weights with one property taken away, to tell what of a map does the work.

Each takes the weights of one case and its class indices, and gives weights, 0 at ignored pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float32, UInt8

from jaxfer.tasks import IGNORE

Weights = Float[np.ndarray, "*n"]
Classes = UInt8[np.ndarray, "*n"]


def shuffled(weights: Weights, classes: Classes, seed: int) -> Float32[np.ndarray, "*n"]:
    """The same weights in each class, at other pixels of it: says which class, no longer where.

    Args:
        seed: of the permutation; the same one gives the same map.
    """
    found = np.zeros(weights.shape, np.float32)
    for index in np.unique(classes[classes != IGNORE]):
        own = classes == index
        found[own] = np.random.default_rng((seed, int(index))).permutation(weights[own])
    return found


def foreground(weights: Weights, classes: Classes) -> Float32[np.ndarray, "*n"]:
    """The weights' mean over the foreground, and that over the background: says no more."""
    return _by_region(
        weights, classes, classes.clip(max=1), lambda own, mean: np.full_like(own, mean)
    )


def where(weights: Weights, classes: Classes) -> Float32[np.ndarray, "*n"]:
    """The weights over their class's mean, 1 in a class without weight: says where alone.

    Every class has the mean weight 1, so that no class gains over another.
    """

    def relative(own: Weights, mean: float) -> Weights:
        return own / mean if mean > 0 else np.ones_like(own)

    return _by_region(weights, classes, classes, relative)


def inverted(weights: Weights, classes: Classes) -> Float32[np.ndarray, "*n"]:
    """The weights upside down, within the range that they have in the case: large where easy."""
    valid = classes != IGNORE
    found = np.zeros(weights.shape, np.float32)
    if valid.any():
        found[valid] = weights[valid].max() + weights[valid].min() - weights[valid]
    return found


def spread(weights: Weights, classes: Classes) -> float:
    """How far the weights of a class lie apart: their standard deviation over their mean, on
    average over the classes that have weight; 0 for a map that says which class, but not where."""
    found = []
    for index in np.unique(classes[classes != IGNORE]):
        own = weights[classes == index].astype(np.float64)
        if (mean := own.mean()) > 0:
            found.append(own.std() / mean)
    return float(np.mean(found)) if found else 0.0


def _by_region(
    weights: Weights,
    classes: Classes,
    regions: UInt8[np.ndarray, "*n"],
    change: Callable[[Weights, float], Weights],
) -> Float32[np.ndarray, "*n"]:
    found, valid = np.zeros(weights.shape, np.float32), classes != IGNORE
    for index in np.unique(regions[valid]):
        own = valid & (regions == index)
        found[own] = change(weights[own], float(weights[own].mean(dtype=np.float64)))
    return found


def controlled(
    weights: Weights, classes: Classes, controls: Sequence[str], seed: int
) -> Float32[np.ndarray, "*n"]:
    """The weights after each control, by name, in order.

    Raises:
        ValueError: there is no control of this name.
    """
    found = np.where(classes != IGNORE, weights, 0).astype(np.float32)
    for name in controls:
        if name == "shuffled":
            found = shuffled(found, classes, seed)
        elif name in _WITHOUT_CHANCE:
            found = _WITHOUT_CHANCE[name](found, classes)
        else:
            listed = ", ".join(("shuffled", *_WITHOUT_CHANCE))
            raise ValueError(f"control {name!r}: one of {listed}")
    return found


_WITHOUT_CHANCE = {"foreground": foreground, "where": where, "inverted": inverted}
