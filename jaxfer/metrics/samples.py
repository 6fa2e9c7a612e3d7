"""Voxels in memory, for metrics that no fixed-size statistics can replace."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from jaxfer.metrics.precision import AnyArray
from jaxfer.metrics.sums import is_finite, usable
from jaxfer.metrics.validation import check_labels, check_samples

FLOAT32_EPS = float(np.finfo(np.float32).eps)


class Samples(NamedTuple):
    """v voxels in one list, float64; at least one row, so that maxima exist.

    Attributes:
        features: centred by the mean of the used rows; 0 in unused rows, and in columns that are
            constant but for what rounding to float32 makes by itself.
        classes: one-hot, 0 for unused rows.
        used: rows that count.
        n_invalid: unmasked rows that do not: a feature is not finite, or the label is no class.
        mean: what was subtracted.
    """

    features: Float[Array, "v d"]
    classes: Float[Array, "v c"]
    used: Bool[Array, " v"]
    n_invalid: Float[Array, ""]
    mean: Float[Array, " d"]

    @property
    def n_used(self) -> Float[Array, ""]:
        """How many rows count."""
        return self.classes.sum()


def check_voxels(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None,
) -> None:
    """Raise ValueError for shapes that disagree; outside `jit`, also for labels out of range."""
    check_samples(features, labels, mask, name="features")
    check_labels(labels, num_classes, mask)


def used_samples(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    num_classes: int,
) -> Samples:
    """The voxels in one list; call it inside the scope of float64."""
    features = jnp.reshape(features, (-1, features.shape[-1])).astype(jnp.float64)
    classes, used, n_invalid = usable(labels, mask, is_finite(features), num_classes)
    if features.shape[0] == 0:
        features, classes, used = (
            jnp.zeros((1, *x.shape[1:]), x.dtype) for x in (features, classes, used)
        )
    features = jnp.where(used[:, None], features, 0)
    n = jnp.maximum(used.sum(), 1)
    mean = features.sum(0) / n
    centred = jnp.where(used[:, None], features - mean[None, :], 0)
    spread = (centred**2).sum(0)
    varies = spread > FLOAT32_EPS**2 * (spread + n * mean**2)
    return Samples(jnp.where(varies[None, :], centred, 0), classes, used, n_invalid, mean)


def first_largest(values: Float[Array, "*n"], axis: int) -> Int[Array, "*m"]:
    """Where the largest value stands, the first of equals.

    In place of argmax, which a caller's `jit` lowers outside the scope of float64, and then in
    32 bits.
    """
    largest = values == values.max(axis, keepdims=True)
    return jax.lax.argmax(largest, axis, jnp.int32)
