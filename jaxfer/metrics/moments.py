"""Moments up to the fourth, around means: neither an offset nor a split costs digits.

A batch is taken block by block, since the float64 copies of a block stay in a processor's cache,
where those of a batch do not. Powers are summed around a reference among the batch's rows, brought
to the batch's own mean, and then put together with what was there before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Real, Shaped

from jaxfer.metrics.sums import product

Total = Callable[[Array], Array]
Sums = TypeVar("Sums")
CACHED_ROWS = 2048
"""Rows of a block on a CPU: 1 MiB of 64 features in float64."""
REFERENCE_ROWS = 32
"""Rows whose mean serves as reference: enough that one outlier does not set it alone."""
LAUNCHED_ROWS = 65536
"""Rows of a block elsewhere, where every block costs the launch of some dozen kernels."""
_HALVED = 32
"""Features from which on half a symmetric product is less work than all of it."""


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


def over_blocks(add: Callable[..., Sums], start: Sums, *arrays: Shaped[Array, "v ..."]) -> Sums:
    """The sums over a batch's rows, one block of them after the other.

    Args:
        add: of the sums so far, which rows of the block are new, and the block of each array,
            makes the sums with these rows. The last block ends with the batch: rows that it
            shares with the one before are not new.
        start: the sums of no row.
        arrays: with one row, along the first axis, for each voxel.
    """
    num_rows = arrays[0].shape[0]
    if num_rows == 0:
        return start
    rows = block_rows(num_rows)

    def step(block: Int[Array, ""], so_far: Sums) -> Sums:
        first = jnp.minimum(block * rows, num_rows - rows)
        new = first + jnp.arange(rows) >= block * rows
        return add(so_far, new, *(jax.lax.dynamic_slice_in_dim(x, first, rows) for x in arrays))

    return jax.lax.fori_loop(0, -(-num_rows // rows), step, start)


def no_moments(*groups: int, num_features: int) -> Moments:
    """The moments of empty groups."""

    def zeros(*shape: int) -> Array:
        return jnp.zeros((*groups, *shape), jnp.float64)

    d = num_features
    return Moments(zeros(), zeros(d), zeros(d, d), zeros(d), zeros())


def sums_around(
    reference: Float[Array, " d"], features: Real[Array, "v d"], used: Bool[Array, " v"]
) -> Moments:
    """Sums of powers of x = f − reference over the used rows; unused ones may hold anything.

    Returns:
        In the places of the moments: the number of rows, Σ x, Σ x xᵀ, Σ ‖x‖² x, Σ ‖x‖⁴. They add
        up over rows with one reference; `around_mean` makes moments of them.
    """
    offsets = jnp.where(used[:, None], features.astype(jnp.float64) - reference[None, :], 0)
    # As a product: a sum over so few features is several times slower on a CPU.
    squares = product(offsets**2, jnp.ones((offsets.shape[1], 1), jnp.float64))[:, 0]
    ones = used.astype(jnp.float64)
    weighted = product(jnp.stack([ones, squares]), offsets)
    return Moments(
        ones.sum(), weighted[0], symmetric_product(offsets), weighted[1], (squares**2).sum()
    )


def symmetric_product(rows: Float[Array, "v d"]) -> Float[Array, "d d"]:
    """rowsᵀ rows, of which the quarter below the diagonal is a copy and not a calculation, where
    there are enough columns for that to pay."""
    if rows.shape[1] < _HALVED:
        return product(rows.T, rows)
    half = rows.shape[1] // 2
    left, right = rows[:, :half], rows[:, half:]
    upper, lower = product(left.T, rows), product(right.T, right)
    return jnp.concatenate([upper, jnp.concatenate([upper[:, half:].T, lower], 1)], 0)


def around_mean(sums: Moments, reference: Float[Array, "*k d"]) -> Moments:
    """The moments of groups of which sums around a reference are known.

    They are differences, whose digits last as long as the reference lies among the group's rows.
    """
    size, scatter = sums.size, sums.scatter
    shift = class_means_of(sums.mean, size)
    length = (shift**2).sum(-1)
    turned = jnp.einsum("...de,...e->...d", scatter, shift, precision="highest")
    spread = jnp.trace(scatter, axis1=-2, axis2=-1)
    own = size[..., None, None] * shift[..., :, None] * shift[..., None, :]
    third = sums.third - 2 * turned + (2 * size * length - spread)[..., None] * shift
    fourth = (
        sums.fourth
        + 4 * ((turned - sums.third) * shift).sum(-1)
        + (2 * spread - 3 * size * length) * length
    )
    return Moments(
        size=size,
        mean=jnp.where(size[..., None] > 0, reference + shift, 0),
        scatter=scatter - own,
        third=third,
        fourth=jnp.maximum(fourth, 0),
    )
