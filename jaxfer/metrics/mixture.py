"""Gaussian mixture by expectation maximisation, from a key, with a mask."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from jaxfer.metrics.samples import first_largest
from jaxfer.metrics.sums import product

FLOAT64_EPS = float(np.finfo(np.float64).eps)
LLOYD_ROUNDS = 10
"""Rounds of k-means between the seeds and the first estimate; the mixture does the rest."""


class Mixture(NamedTuple):
    """A fitted mixture of k Gaussians with full covariances.

    Attributes:
        log_weights: −inf for components that are not active.
        means: of the components.
        factors: lower Cholesky factors of the covariances.
        log_likelihood: mean over the used points, before the last update.
        converged: the log-likelihood stood still within the tolerance.
    """

    log_weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    factors: Float[Array, "k d d"]
    log_likelihood: Float[Array, ""]
    converged: Bool[Array, ""]


class _Round(NamedTuple):
    done: Int[Array, ""]
    mixture: Mixture


def fit_mixture(
    points: Float[Array, "v d"],
    used: Bool[Array, " v"],
    key: Key[Array, ""],
    *,
    num_components: int,
    active: Int[Array, ""],
    floor: Float[Array, ""],
    restarts: int,
    max_rounds: int,
    tolerance: float,
) -> Mixture:
    """The most likely of several fits, each from seeds of its own (k-means++, then k-means).

    The seeds are drawn along the order of the first coordinate, so that the order of the points
    does not matter.

    Args:
        points: 0 where unused.
        used: points that count.
        key: of the seeds.
        num_components: k, static.
        active: how many components to fit, at most k.
        floor: added to the covariances' diagonals.
        restarts: fits, static.
        max_rounds: rounds of expectation maximisation, static.
        tolerance: a fit ends when the mean log-likelihood moves by less, in nats.
    """
    order = jnp.argsort(jnp.where(used, points[:, 0], jnp.inf))
    points, used = points[order], used[order]
    is_active = jnp.arange(num_components) < active

    def fit(start: Key[Array, ""]) -> Mixture:
        groups = _k_means(points, used, is_active, start)
        first = _estimate(points, groups, is_active, floor)

        def improve(state: _Round) -> _Round:
            log_joint = log_densities(state.mixture, points)
            likelihood = jax.nn.logsumexp(log_joint, axis=1)
            mean = jnp.where(used, likelihood, 0).sum() / jnp.maximum(used.sum(), 1)
            shares = jnp.where(used[:, None], jnp.exp(log_joint - likelihood[:, None]), 0)
            found = _estimate(points, shares, is_active, floor)
            converged = jnp.abs(mean - state.mixture.log_likelihood) < tolerance
            found = found._replace(log_likelihood=mean, converged=converged)
            return _Round(state.done + 1, found)

        def unfinished(state: _Round) -> Bool[Array, ""]:
            return (state.done < max_rounds) & ~state.mixture.converged

        start_round = _Round(jnp.zeros((), jnp.int32), first)
        return jax.lax.while_loop(unfinished, improve, start_round).mixture

    starts = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(restarts))
    fits = jax.lax.map(fit, starts)
    best = first_largest(fits.log_likelihood, 0)
    return jax.tree.map(lambda x: x[best], fits)


def log_densities(mixture: Mixture, points: Float[Array, "v d"]) -> Float[Array, "v k"]:
    """log of weight times density of every component; −inf for those that are not active."""

    def of_component(part: tuple[Array, Array]) -> Float[Array, " v"]:
        mean, factor = part
        offsets = (points - mean[None, :]).T
        scaled = jax.scipy.linalg.solve_triangular(factor, offsets, lower=True)
        return -(scaled**2).sum(0) / 2 - jnp.log(jnp.diagonal(factor)).sum()

    found = jax.lax.map(of_component, (mixture.means, mixture.factors)).T
    constant = points.shape[1] / 2 * math.log(2 * math.pi)
    return found - constant + mixture.log_weights[None, :]


def _estimate(
    points: Float[Array, "v d"],
    shares: Float[Array, "v k"],
    is_active: Bool[Array, " k"],
    floor: Float[Array, ""],
) -> Mixture:
    """Weights, means and covariances of points that belong to components in these shares."""
    # A component that lost all its points must not divide by zero.
    sizes = shares.sum(0) + 10 * FLOAT64_EPS
    weights = jnp.where(is_active, sizes, 0)
    weights = weights / weights.sum()
    log_weights = jnp.where(is_active, jnp.log(jnp.where(is_active, weights, 1)), -jnp.inf)
    means = product(shares.T, points) / sizes[:, None]

    def factor(part: tuple[Array, Array, Array]) -> Float[Array, "d d"]:
        mean, share, size = part
        offsets = points - mean[None, :]
        covariance = product((share[:, None] * offsets).T, offsets) / size
        return jnp.linalg.cholesky(covariance + floor * jnp.eye(points.shape[1]))

    factors = jax.lax.map(factor, (means, shares.T, sizes))
    never = jnp.full((), -jnp.inf)
    return Mixture(log_weights, means, factors, never, jnp.zeros((), bool))


def _k_means(
    points: Float[Array, "v d"],
    used: Bool[Array, " v"],
    is_active: Bool[Array, " k"],
    key: Key[Array, ""],
) -> Float[Array, "v k"]:
    """To which of k centres each used point belongs, one-hot."""
    num_components = is_active.shape[0]
    norms = (points**2).sum(1)

    def distances(centres: Float[Array, "j d"]) -> Float[Array, "v j"]:
        found = norms[:, None] + (centres**2).sum(1)[None, :] - 2 * product(points, centres.T)
        return jnp.maximum(found, 0)

    def draw(step: Array, weights: Float[Array, " v"]) -> Float[Array, "1 d"]:
        # Where all points lie on centres already, any will do.
        weights = jnp.where(weights.sum() > 0, weights, used.astype(jnp.float64))
        summed = jnp.cumsum(weights)
        # In 32 bits: a caller's `jit` lowers this outside the scope of float64.
        share = jax.random.uniform(jax.random.fold_in(key, step), dtype=jnp.float32)
        level = share.astype(jnp.float64) * summed[-1]
        chosen = jnp.searchsorted(summed, level, side="right")
        return points[jnp.minimum(chosen, points.shape[0] - 1)][None, :]

    def add(step: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        centres, nearest = state
        centre = draw(step, nearest)
        nearest = jnp.minimum(nearest, jnp.where(used, distances(centre)[:, 0], 0))
        # No update of a slice: batched in a caller's `jit` it is lowered outside that scope, too.
        return jnp.where(jnp.arange(num_components)[:, None] == step, centre, centres), nearest

    everywhere = jnp.where(used, jnp.inf, 0)
    first = draw(jnp.zeros((), jnp.int32), used.astype(jnp.float64))
    nearest = jnp.minimum(everywhere, jnp.where(used, distances(first)[:, 0], 0))
    centres = jnp.zeros((num_components, points.shape[1])).at[0].set(first[0])
    centres, _ = jax.lax.fori_loop(1, num_components, add, (centres, nearest))

    def groups_of(centres: Float[Array, "k d"]) -> Float[Array, "v k"]:
        found = jnp.where(is_active[None, :], distances(centres), jnp.inf)
        nearest = first_largest(-found, 1)
        return jax.nn.one_hot(nearest, num_components, dtype=jnp.float64) * used[:, None]

    def move(_: Array, centres: Float[Array, "k d"]) -> Float[Array, "k d"]:
        groups = groups_of(centres)
        sizes = groups.sum(0)
        means = product(groups.T, points) / jnp.maximum(sizes, 1)[:, None]
        return jnp.where(sizes[:, None] > 0, means, centres)

    return groups_of(jax.lax.fori_loop(0, LLOYD_ROUNDS, move, centres))
