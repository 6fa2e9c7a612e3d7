"""The votes of every voxel's nearest other voxels, exact, at the price of float32 distances.

A product in float32 proposes for each voxel a few candidates more than are asked for, by distances
lowered by all that rounding can have added. When the last candidate's is above the exact distance
of the last one needed, no other voxel can be nearer, or as near. Voxels for which that fails, such
as those with many duplicates, are compared with all others in float64.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from jaxfer.metrics.samples import FLOAT32_EPS
from jaxfer.metrics.sums import product

DISTANCE_ROUNDING = 1e-13
"""Two squared distances are equal when they differ by less than this share of what they are made
of: the squared norms of the voxels, from their common mean."""
SPARE = 8
"""Candidates beyond those that are asked for."""
GROUP = 32
"""Values of which the least stands for all, when the smallest of a long row are looked for."""
UNDERFLOW = 1e-30
"""Above what float32 loses at its lower end, of squared distances up to 4."""


def nearest_votes(
    points: Float[Array, "v d"],
    classes: Float[Array, "v c"],
    groups: Real[Array, " v"],
    *,
    k: int,
    max_entries: int,
) -> tuple[Float[Array, "v c"], Int[Array, " v"]]:
    """Votes by class of the k nearest voxels of other groups, and how many voted: at most k.

    Voxels at the same distance as the last one share the votes that are left.

    Args:
        points: around their common mean.
        classes: one-hot; a row of 0 has no vote, and its own result means nothing.
        groups: of each voxel; voxels of one group have no vote for one another.
        k: static.
        max_entries: distances held at once, static.
    """
    total, width = points.shape
    norms = (points**2).sum(1)
    largest = norms.max()
    points = points / jnp.where(largest > 0, jnp.sqrt(largest), 1)
    norms = (points**2).sum(1)
    used = classes.sum(1) > 0
    nearest, rows = min(k, total), max(1, min(total, max_entries // total))

    # A product of d terms is off by at most d/2 eps of the norms, which have errors of their own.
    certain = 1 - (width + 8) * FLOAT32_EPS
    narrow = points.astype(jnp.float32)
    lowered = jnp.where(used, certain * norms, jnp.inf).astype(jnp.float32)

    def proposed(
        asked: Int[Array, " r"],
    ) -> tuple[Float[Array, "r c"], Int[Array, " r"], Bool[Array, " r"]]:
        own = (certain * norms[asked] - UNDERFLOW).astype(jnp.float32)
        bounds = own[:, None] + lowered[None, :] - product(2 * narrow[asked], narrow.T)
        bounds = jnp.where(groups[asked][:, None] != groups[None, :], bounds, jnp.inf)
        bounds, found = smallest(bounds, min(nearest + SPARE, total))
        distances = ((points[found] - points[asked][:, None, :]) ** 2).sum(2)
        distances = jnp.where(jnp.isfinite(bounds), distances, jnp.inf)
        around = norms[asked][:, None] + norms[found]
        nearer, level, voters, last = _ranked(distances, around, nearest)
        votes = _shared(
            (nearer[..., None] * classes[found]).sum(1),
            (level[..., None] * classes[found]).sum(1),
            voters,
        )
        # The bounds leave more room than the rounding of what counts as level.
        sure = bounds[:, -1] > last * (1 + 10 * DISTANCE_ROUNDING)
        return votes, voters, sure | ~used[asked]

    def compared(asked: Int[Array, " r"]) -> tuple[Float[Array, "r c"], Int[Array, " r"]]:
        around = norms[asked][:, None] + norms[None, :]
        distances = jnp.maximum(around - 2 * product(points[asked], points.T), 0)
        others = used[None, :] & (groups[asked][:, None] != groups[None, :])
        distances = jnp.where(others, distances, jnp.inf)
        nearer, level, voters, _ = _ranked(distances, around, nearest)
        votes = _shared(
            product(nearer.astype(jnp.float64), classes),
            product(level.astype(jnp.float64), classes),
            voters,
        )
        return votes, voters

    first = jnp.arange(rows, dtype=jnp.int32)
    starts = rows * jnp.arange(-(-total // rows), dtype=jnp.int32)
    votes, voters, sure = (
        x.reshape(-1, *x.shape[2:])[:total]
        for x in jax.lax.map(lambda start: proposed(jnp.minimum(start + first, total - 1)), starts)
    )

    place = jnp.where(sure, total, jnp.cumsum(~sure, dtype=jnp.int32) - 1)
    unsure = jnp.zeros((total + rows,), jnp.int32)
    unsure = unsure.at[place].set(jnp.arange(total, dtype=jnp.int32), mode="drop")
    blocks = ((~sure).sum(dtype=jnp.int32) + rows - 1) // rows

    def again(block: Array, known: tuple[Array, Array]) -> tuple[Array, Array]:
        asked = jax.lax.dynamic_slice_in_dim(unsure, block * rows, rows)
        votes, voters = compared(asked)
        return known[0].at[asked].set(votes), known[1].at[asked].set(voters)

    return jax.lax.fori_loop(0, blocks, again, (votes, voters))


def smallest(values: Float[Array, "r m"], k: int) -> tuple[Float[Array, "r k"], Int[Array, "r k"]]:
    """The k smallest values of each row, in order, and where they stand.

    They lie in the k groups whose least values are the smallest: most values are looked at once.
    """
    rows, number = values.shape
    groups = -(-number // GROUP)
    if groups <= k:
        negative, places = jax.lax.top_k(-values, k)
        return -negative, places
    padding = ((0, 0), (0, groups * GROUP - number))
    grouped = jnp.pad(values, padding, constant_values=jnp.inf).reshape(rows, groups, GROUP)
    _, leading = jax.lax.top_k(-grouped.min(2), k)
    members = jnp.take_along_axis(grouped, leading[:, :, None], axis=1).reshape(rows, -1)
    negative, within = jax.lax.top_k(-members, k)
    group = jnp.take_along_axis(leading, within // GROUP, axis=1)
    # Where fewer than k values are finite the padding is among them.
    return -negative, jnp.minimum(group * GROUP + within % GROUP, number - 1)


def _ranked(
    distances: Float[Array, "r m"], around: Float[Array, "r m"], nearest: int
) -> tuple[Bool[Array, "r m"], Bool[Array, "r m"], Int[Array, " r"], Float[Array, " r"]]:
    """Which are nearer than the last one needed, which as far; how many vote; how far it is.

    Args:
        distances: squared; infinite for those without a vote.
        around: what they are made of, the sums of both squared norms.
        nearest: votes, where there are as many voters.
    """
    first, _ = smallest(distances, nearest)
    voters = jnp.isfinite(first).sum(1, dtype=jnp.int32)
    last = jnp.take_along_axis(first, jnp.maximum(voters - 1, 0)[:, None], axis=1)
    rounding = DISTANCE_ROUNDING * (around + last)
    nearer = distances < last - rounding
    level = jnp.isfinite(distances) & ~nearer & (distances <= last + rounding)
    return nearer, level, voters, last[:, 0]


def _shared(
    nearer: Float[Array, "r c"], level: Float[Array, "r c"], voters: Int[Array, " r"]
) -> Float[Array, "r c"]:
    """Votes of those that are nearer, and what is left for those at the last one's distance."""
    left = (voters - nearer.sum(1)) / jnp.maximum(level.sum(1), 1)
    return nearer + level * left[:, None]
