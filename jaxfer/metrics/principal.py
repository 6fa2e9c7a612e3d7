"""Principal components of centred voxels, exact and with a stated sign."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jaxfer.metrics.samples import Samples
from jaxfer.metrics.sums import product

FLOAT64_EPS = float(np.finfo(np.float64).eps)


class Components(NamedTuple):
    """Principal components, the largest variance first.

    Attributes:
        scores: the voxels' coordinates; 0 beyond the rank and in unused rows.
        variances: of the coordinates, divisor n; 0 beyond the rank.
        rank: how many variances exceed their rounding.
    """

    scores: Float[Array, "v d"]
    variances: Float[Array, " d"]
    rank: Int[Array, ""]


def principal_components(samples: Samples) -> Components:
    """All principal components.

    An axis points where its largest loading is positive, the first of nearly equal ones: a score
    that depends on signs must not depend on the eigensolver's.
    """
    n = jnp.maximum(samples.n_used, 1)
    features = samples.features
    variances, axes = jnp.linalg.eigh(product(features.T, features) / n)
    variances, axes = variances[::-1], axes[:, ::-1]
    size = jnp.abs(axes)
    leading = jax.lax.argmax(size >= (1 - 1e-6) * size.max(0, keepdims=True), 0, jnp.int32)
    signs = jnp.sign(jnp.take_along_axis(axes, leading[None, :], axis=0))
    kept = variances > features.shape[1] * FLOAT64_EPS * variances[0]
    axes = jnp.where(kept[None, :], axes * signs, 0)
    return Components(
        product(features, axes), jnp.where(kept, variances, 0), kept.sum().astype(jnp.int32)
    )
