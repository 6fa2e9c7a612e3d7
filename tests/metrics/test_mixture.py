"""The Gaussian mixture: its densities by scipy, and a fit as fixed point."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from jaxfer.metrics.mixture import fit_mixture, log_densities


@pytest.fixture(scope="module")
def fitted():
    """A converged fit in two dimensions, and the points."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((60, 2)) + 2 * rng.integers(0, 2, (60, 1))
    with jax.enable_x64(True):
        mixture = fit_mixture(
            jnp.asarray(points),
            jnp.full(60, True),
            jax.random.key(1),
            num_components=4,
            active=jnp.asarray(3, jnp.int32),
            floor=jnp.asarray(1e-3),
            restarts=2,
            max_rounds=5000,
            tolerance=1e-13,
        )
        return (
            jax.tree.map(np.asarray, mixture),
            points,
            np.asarray(log_densities(mixture, jnp.asarray(points))),
        )


def test_densities_are_those_of_the_gaussians(fitted):
    mixture, points, found = fitted
    for k in range(3):
        covariance = mixture.factors[k] @ mixture.factors[k].T
        density = multivariate_normal(mixture.means[k], covariance).logpdf(points)
        np.testing.assert_allclose(found[:, k], mixture.log_weights[k] + density, 1e-9)
    assert (found[:, 3] == -np.inf).all()


def test_a_converged_fit_is_a_fixed_point_of_expectation_maximisation(fitted):
    mixture, points, found = fitted
    assert mixture.converged
    shares = np.exp(found - logsumexp(found, axis=1, keepdims=True))[:, :3]
    sizes = shares.sum(0)
    np.testing.assert_allclose(np.exp(mixture.log_weights[:3]), sizes / 60, 1e-4)
    for k in range(3):
        mean = shares[:, k] @ points / sizes[k]
        np.testing.assert_allclose(mixture.means[k], mean, atol=1e-4)
        covariance = (shares[:, k, None] * (points - mean)).T @ (points - mean) / sizes[k]
        np.testing.assert_allclose(
            mixture.factors[k] @ mixture.factors[k].T, covariance + 1e-3 * np.eye(2), atol=1e-4
        )
    assert mixture.log_likelihood == pytest.approx(logsumexp(found, axis=1).mean(), abs=1e-9)
