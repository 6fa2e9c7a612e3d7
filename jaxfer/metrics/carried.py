"""Where the optimal plan between two clouds takes voxels that it was not made of.

    plan = carrier(source_features, source_labels, target_features, target_labels, …)
    log_probs = carried_log_probs(plan, features)      of every voxel of the target's scans

A plan of OTCE is made of samples. Its potentials tell for any other voxel of the target's side what
share of its mass each source class would send: probabilities as a source's head gives them, but by
the match of the features alone.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.clouds import (
    BLOCK_SIZE,
    EPSILON,
    MAX_ITERATIONS,
    THRESHOLD,
    Samples,
    Settings,
    centred_cost,
    check_settings,
    check_side,
    clouds_of,
    plan_for,
    relative_cost,
)
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.sums import product

_ROWS = 2048
"""Voxels whose shares of all sources exist at a time."""


class Carrier(NamedTuple):
    """What is kept of a plan: the share of source i in a target's mass is in proportion to
    exp(log_offers_i − ⟨rows_i, features − centre⟩).

    Attributes:
        rows: of the source's voxels; 0 for features that do not vary.
        log_offers: −∞ of voxels that do not count.
        source_classes: one-hot.
        centre: mean of the target's features.
        converged: whether the plan is one.
    """

    rows: Float[Array, "n d"]
    log_offers: Float[Array, " n"]
    source_classes: Float[Array, "n s"]
    centre: Float[Array, " d"]
    converged: Bool[Array, ""]


def carrier(
    source_features: Float[AnyArray, "*n d"],
    source_labels: Real[AnyArray, "*n"],
    target_features: Float[AnyArray, "*m d"],
    target_labels: Real[AnyArray, "*m"],
    *,
    num_source_classes: int,
    num_classes: int,
    source_mask: Bool[AnyArray, "*n"] | None = None,
    target_mask: Bool[AnyArray, "*m"] | None = None,
    epsilon: float = EPSILON,
    max_iterations: int = MAX_ITERATIONS,
    threshold: float = THRESHOLD,
    block_size: int = BLOCK_SIZE,
) -> Carrier:
    """The plan of `f_otce` in a form that takes other voxels; arguments and errors are the same."""
    check_side(source_features, source_labels, source_mask, num_source_classes, "source")
    check_side(target_features, target_labels, target_mask, num_classes, "target")
    channels = source_features.shape[-1], target_features.shape[-1]
    check_settings(*channels, epsilon, max_iterations, threshold)
    return _carrier(
        (source_features, source_labels, source_mask),
        (target_features, target_labels, target_mask),
        (epsilon, max_iterations, threshold),
        num_source_classes=num_source_classes,
        num_classes=num_classes,
        block_size=block_size,
    )


def carried_log_probs(plan: Carrier, features: Float[AnyArray, "*m d"]) -> Float[Array, "*m s"]:
    """Log-probabilities of the source's classes, by where the plan takes the mass of each voxel.

    Args:
        plan: of `carrier`.
        features: of the network and layer of the plan, on the target's voxels.

    Returns:
        float32, natural logarithm; −∞ for a class without a voxel, and where a share underflows: at
        a small epsilon most voxels go to one class.
    """
    return _carried(plan, jnp.asarray(features))


@compiled_in_float64("num_source_classes", "num_classes", "block_size")
def _carrier(
    source: Samples,
    target: Samples,
    settings: Settings,
    *,
    num_source_classes: int,
    num_classes: int,
    block_size: int,
) -> Carrier:
    clouds = clouds_of(source, target, num_source_classes, num_classes)
    cost, _ = centred_cost(clouds)
    plan = plan_for(cost, clouds, settings, block_size)
    relative, _ = relative_cost(cost, clouds)
    used = clouds.target_classes.sum(1)
    points = jnp.reshape(target[0], (len(used), -1)).astype(jnp.float64)
    points = jnp.where(used[:, None] > 0, points, 0)
    return Carrier(
        rows=relative.rows / settings[0],
        log_offers=plan.log_offers,
        source_classes=clouds.source_classes,
        centre=points.sum(0) / jnp.maximum(used.sum(), 1),
        converged=plan.converged,
    )


@jax.jit
def _carried(plan: Carrier, features: Float[Array, "*m d"]) -> Float[Array, "*m s"]:
    plan = jax.tree.map(lambda x: x.astype(jnp.float32), plan)
    flat = features.reshape(-1, features.shape[-1]).astype(jnp.float32)
    missing = -len(flat) % _ROWS
    blocks = jnp.pad(flat, ((0, missing), (0, 0))).reshape(-1, _ROWS, flat.shape[-1])

    def of_block(rows: Float[Array, "b d"]) -> Float[Array, "b s"]:
        shares = plan.log_offers[None, :] - product(rows - plan.centre[None, :], plan.rows.T)
        largest = shares.max(1, keepdims=True)
        sums = product(jnp.exp(shares - largest), plan.source_classes)
        return jnp.log(sums) - jnp.log(sums.sum(1, keepdims=True))

    found = jax.lax.map(of_block, blocks).reshape(-1, plan.source_classes.shape[-1])
    return found[: len(flat)].reshape(*features.shape[:-1], -1)
