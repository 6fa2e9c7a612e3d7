"""Moments up to the fourth, around means: neither an offset nor a split costs digits.

A batch is taken block by block, each block's moments around its own mean, and the blocks are put
together: the float64 copies of a block stay in a processor's cache, where those of a batch do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.sums import product

Total = Callable[[Array], Array]
CACHED_ROWS = 2048
"""Rows of a block on a CPU: 1 MiB of 64 features in float64."""
LAUNCHED_ROWS = 65536
"""Rows of a block elsewhere, where every block costs the launch of some dozen kernels."""


class Moments(NamedTuple):
    """Moments of groups of voxels, each group around its own mean m.

    Attributes:
        size: voxels.
        mean: m; 0 for an empty group.
        scatter: Σ (f − m)(f − m)ᵀ.
        third: Σ ‖f − m‖² (f − m).
        fourth: Σ ‖f − m‖⁴.
    """

    size: Float[Array, "*k"]
    mean: Float[Array, "*k d"]
    scatter: Float[Array, "*k d d"]
    third: Float[Array, "*k d"]
    fourth: Float[Array, "*k"]


def class_means_of(sums: Float[Array, "*k d"], counts: Float[Array, "*k"]) -> Float[Array, "*k d"]:
    """Sums over counts, 0 where nothing was counted."""
    return sums / jnp.where(counts > 0, counts, 1)[..., None]


def together(parts: Moments, total: Total) -> Moments:
    """Groups put together; `total` adds over them: a stacked axis, or the devices.

    The update of Chan, Golub & LeVeque (1979) for the scatter, carried on to the fourth moment:
    with f = x + δ, x around a part's mean and δ from there to the common one, the sums of ‖x + δ‖²
    (x + δ) and of ‖x + δ‖⁴ over a part are polynomials in δ whose coefficients are its moments.
    """
    size = total(parts.size)
    mean = class_means_of(total(parts.size[..., None] * parts.mean), size)
    shift = parts.mean - jnp.broadcast_to(mean, parts.mean.shape)
    length = (shift**2).sum(-1)
    turned = jnp.einsum("...de,...e->...d", parts.scatter, shift, precision="highest")
    spread = jnp.trace(parts.scatter, axis1=-2, axis2=-1)
    weight = parts.size[..., None]
    scatter = weight[..., None] * shift[..., :, None] * shift[..., None, :]
    third = (spread + parts.size * length)[..., None] * shift + 2 * turned
    fourth = (
        4 * ((parts.third + turned) * shift).sum(-1) + 2 * length * spread + parts.size * length**2
    )
    return Moments(
        size=size,
        mean=mean,
        scatter=total(parts.scatter + scatter),
        third=total(parts.third + third),
        fourth=total(parts.fourth + fourth),
    )


def block_rows(num_rows: int) -> int:
    """Rows of a block of a batch of so many rows."""
    largest = CACHED_ROWS if jax.default_backend() == "cpu" else LAUNCHED_ROWS
    return max(min(num_rows, largest), 1)


def no_moments(*groups: int, num_features: int) -> Moments:
    """The moments of empty groups."""

    def zeros(*shape: int) -> Array:
        return jnp.zeros((*groups, *shape), jnp.float64)

    d = num_features
    return Moments(zeros(), zeros(d), zeros(d, d), zeros(d), zeros())


def moments_of(features: Real[Array, "v d"], used: Bool[Array, " v"]) -> Moments:
    """The moments of the used rows, around their mean; unused ones may hold anything."""
    features = jnp.where(used[:, None], features.astype(jnp.float64), 0)
    size = used.sum().astype(jnp.float64)
    mean = features.sum(0) / jnp.maximum(size, 1)
    centred = jnp.where(used[:, None], features - mean[None, :], 0)
    squares = (centred**2).sum(-1)
    return Moments(
        size=size,
        mean=mean,
        scatter=product(centred.T, centred),
        third=product(squares[None, :], centred)[0],
        fourth=(squares**2).sum(),
    )


def both(a: Moments, b: Moments) -> Moments:
    """Two groups put together."""
    return together(jax.tree.map(lambda x, y: jnp.stack([x, y]), a, b), lambda x: x.sum(0))
