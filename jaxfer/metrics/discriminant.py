"""Shrunken linear discriminant analysis: what SFDA, ETran and NCTI have in common.

The generalised symmetric eigenproblem S̃_b v = λ S̃_w v of the shrunken scatter matrices

    S̃ = (1 − a) S + a (tr S / D) I

is solved by whitening with S̃_w and a second symmetric eigenproblem. Its D vectors V satisfy
VᵀS̃_wV = I, hence VVᵀ = S̃_w⁻¹: the posterior with all of them is that of Gaussian classes with
the common covariance S̃_w, priors the classes' shares.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxfer.metrics.statistics import class_means_of
from jaxfer.metrics.sums import product

FLOAT64_EPS = float(np.finfo(np.float64).eps)
MIN_SHRINKAGE = 1e-10
"""Below it nothing is shrunken: the floor of the published code of SFDA and NCTI."""


class Scatter(NamedTuple):
    """Means and covariances by class, divisor n; shares of absent classes are 0."""

    shares: Float[Array, " c"]
    means: Float[Array, "c d"]
    within: Float[Array, "d d"]
    between: Float[Array, "d d"]


class Discriminant(NamedTuple):
    """A fitted discriminant.

    Attributes:
        directions: V, one direction a column, the most discriminating first.
        centres: class means along the directions.
        log_priors: −inf for absent classes.
    """

    directions: Float[Array, "d d"]
    centres: Float[Array, "c d"]
    log_priors: Float[Array, " c"]


def scatter_of(features: Float[Array, "v d"], classes: Float[Array, "v c"]) -> Scatter:
    """The scatter of voxels; unused rows are 0 in both arguments."""
    counts = classes.sum(0)
    n = jnp.maximum(counts.sum(), 1)
    means = class_means_of(product(classes.T, features), counts)
    residual = features - product(classes, means)
    shares = counts / n
    offsets = jnp.sqrt(shares)[:, None] * (means - product(shares[None, :], means))
    return Scatter(shares, means, product(residual.T, residual) / n, product(offsets.T, offsets))


def adaptive_shrinkage(within: Float[Array, "d d"]) -> Float[Array, ""]:
    """max(exp(−5 λ_max(S_w)), 1e-10), the choice of SFDA; it depends on the features' unit."""
    return jnp.maximum(jnp.exp(-5 * jnp.linalg.eigvalsh(within)[-1]), MIN_SHRINKAGE)


def discriminant(scatter: Scatter, shrinkage: Float[Array, ""]) -> Discriminant:
    """The discriminant of scatter matrices shrunken by `shrinkage` in [0, 1].

    Classes without any spread would make S̃_w zero; it is held above the rounding of the total
    scatter, so that separated points are told apart with certainty, and equal ones not at all.
    """
    floor = FLOAT64_EPS * (jnp.trace(scatter.within) + jnp.trace(scatter.between))
    power, axes = jnp.linalg.eigh(_shrunken(scatter.within, shrinkage))
    power = jnp.maximum(power, 0) + floor
    scale = jnp.where(power > 0, 1 / jnp.sqrt(jnp.where(power > 0, power, 1)), 0)
    whitening = axes * scale[None, :]
    between = _shrunken(scatter.between, shrinkage)
    _, turns = jnp.linalg.eigh(product(product(whitening.T, between), whitening))
    directions = product(whitening, turns[:, ::-1])
    shares = scatter.shares
    log_priors = jnp.where(shares > 0, jnp.log(jnp.where(shares > 0, shares, 1)), -jnp.inf)
    return Discriminant(directions, product(scatter.means, directions), log_priors)


def log_posterior(fitted: Discriminant, features: Float[Array, "v d"]) -> Float[Array, "v c"]:
    """log P(class|features), natural logarithm; −inf for absent classes."""
    centres = fitted.centres
    # C columns instead of the D directions.
    evidence = product(features, product(fitted.directions, centres.T))
    offsets = fitted.log_priors - (centres**2).sum(1) / 2
    return jax.nn.log_softmax(evidence + offsets[None, :], axis=-1)


def true_class_posterior(
    fitted: Discriminant, features: Float[Array, "v d"], classes: Float[Array, "v c"]
) -> Float[Array, " v"]:
    """P(own class|features) of every voxel; 0 for unused ones."""
    return (classes * jnp.exp(log_posterior(fitted, features))).sum(1)


def _shrunken(matrix: Float[Array, "d d"], shrinkage: Float[Array, ""]) -> Float[Array, "d d"]:
    size = matrix.shape[0]
    mean = jnp.trace(matrix) / size
    return (1 - shrinkage) * matrix + shrinkage * mean * jnp.eye(size)
