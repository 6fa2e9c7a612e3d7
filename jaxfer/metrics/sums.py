"""What additive statistics share: which voxels count, and how parts are put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.validation import ROW_SUM_TOLERANCE

Stats = TypeVar("Stats")


@compiled_in_float64()
def added(a: Stats, b: Stats) -> Stats:
    """Both parts together."""
    return jax.tree.map(jnp.add, a, b)


@compiled_in_float64("axis_name")
def added_over(stats: Stats, *, axis_name: str) -> Stats:
    """The parts of all devices together."""
    return jax.lax.psum(stats, axis_name)


@compiled_in_float64()
def added_weighted(stacked: Stats, weights: Real[AnyArray, " k"]) -> Stats:
    """k stacked parts together, part i counted weights[i] times."""
    return jax.tree.map(weighted_sum(weights), stacked)


def product_over_rows(a: Float[Array, "i v"], b: Float[Array, "j v"]) -> Float[Array, "i j"]:
    """The sums Σ_v a_iv b_jv, in full precision."""
    over = (((1,), (1,)), ((), ()))
    return jax.lax.dot_general(a, b, over, precision="highest")


def weighted_sum(weights: Real[AnyArray, " k"]) -> Callable[[Array], Array]:
    """The sum over the first axis with these weights."""
    scale = jnp.asarray(weights).astype(jnp.float64)
    return lambda x: jnp.tensordot(scale, x, 1, precision="highest")


def once(x: Stats) -> Stats:
    """x itself, computed once: on a CPU, a compiler makes it anew for every use."""
    return jax.lax.optimization_barrier(x)


def product(a: Float[Array, "i j"], b: Float[Array, "j k"]) -> Float[Array, "i k"]:
    """Matrix product in full precision: the default of some accelerators keeps three digits."""
    return jnp.matmul(a, b, precision="highest")


def is_distribution(probs: Float[Array, "m n"], axis: int = -1) -> Bool[Array, " _"]:
    """Which rows are finite and sum to 1; with axis 0, which columns."""
    return jnp.abs(probs.sum(axis) - 1) <= ROW_SUM_TOLERANCE


def is_finite(features: Real[Array, "v d"]) -> Bool[Array, " v"]:
    """Which rows hold finite numbers only."""
    return jnp.isfinite(features).all(-1)


def usable(
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    readable: Bool[Array, " v"],
    num_classes: int,
) -> tuple[Float[Array, "v c"], Bool[Array, " v"], Float[Array, ""]]:
    """Which voxels count, flattened to v.

    Returns:
        The one-hot classes, 0 for voxels that do not count; which do; and how many unmasked ones
        do not, because they are not readable or their label is no class.
    """
    classes, used, n_invalid = members(labels, mask, readable, num_classes)
    return classes.T.astype(jnp.float64), used, n_invalid


def members(
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    readable: Bool[Array, " v"],
    num_classes: int,
) -> tuple[Bool[Array, "c v"], Bool[Array, " v"], Float[Array, ""]]:
    """As ``usable``, class by class: voxels side by side are what a processor adds up fastest."""
    labels = jnp.reshape(labels, (1, -1))
    classes = labels == jnp.arange(num_classes)[:, None]
    asked = jnp.full(readable.shape, True) if mask is None else jnp.reshape(mask, -1)
    used = asked & readable & classes.any(0)
    n_invalid = (asked & ~used).sum().astype(jnp.float64)
    return classes & used[None, :], used, n_invalid
