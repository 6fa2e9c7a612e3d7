"""PACTran with a linear head: its minimum by scipy, its sharpness, and degenerate input."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from jaxfer.metrics.pactran_gaussian import pactran_gaussian
from tests.metrics import contract

CLASSES = 3


def gaussian_oracle(features, labels, strength=1.0, prior_variance=10.0):
    """The minimum by a general optimiser, and the trace of the Hessian by its definition."""
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    n, d = centred.shape
    inputs = np.concatenate([centred, np.ones((n, 1))], axis=1)
    one_hot = np.eye(CLASSES)[labels]
    decay = np.append(np.ones(d), 0) / (strength * n)

    def loss(flat):
        weights = flat.reshape(CLASSES, -1)
        log_p = log_softmax(inputs @ weights.T, axis=1)
        slope = (np.exp(log_p) - one_hot).T @ inputs / n + decay * weights
        value = -(one_hot * log_p).sum() / n + (decay * weights**2).sum() / 2
        return value, slope.reshape(-1)

    found = minimize(loss, np.zeros(inputs.shape[1] * CLASSES), jac=True, tol=1e-12)
    p = softmax(inputs @ found.x.reshape(CLASSES, -1).T, axis=1)
    trace = ((p * (1 - p)).sum(1) * (inputs**2).sum(1)).mean() + CLASSES * decay.sum()
    size = CLASSES * d
    sharpness = np.log(strength * n * trace / size)
    return found.fun + size / (2 * strength * n) * prior_variance / d * sharpness


@pytest.mark.parametrize(("strength", "variance"), [(1.0, 10.0), (0.1, 1.0)])
def test_the_gaussian_bound_is_the_regularised_minimum_and_its_sharpness(strength, variance, draw):
    voxels = draw(5, n=60)
    options = {"strength": strength, "prior_variance": variance}
    with jax.enable_x64(True):
        found = pactran_gaussian(voxels.features, voxels.labels, num_classes=CLASSES, **options)
    expected = gaussian_oracle(voxels.features, voxels.labels, **options)
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert found.reasons == ()


def test_the_gaussian_bound_of_degenerate_features(draw):
    voxels = draw(6, n=60)

    def score(features, **kwargs):
        return pactran_gaussian(features, voxels.labels, num_classes=CLASSES, **kwargs)

    constant = score(np.full((60, 6), 0.1, np.float32))
    # Only the biases' curvature, 3 · ⅓ · ⅔, beside the priors'.
    sharpness = np.log(60 * (2 / 3 + 18 / 60) / 18)
    assert float(constant) == pytest.approx(np.log(3) + 18 / 120 * 10 / 6 * sharpness, rel=1e-5)
    apart = 10 * np.eye(3, 6, dtype=np.float32)[voxels.labels]
    found = score(apart)
    assert found.reasons == ()
    assert float(found) == pytest.approx(gaussian_oracle(apart, voxels.labels), rel=1e-4)
    turned = voxels.features @ np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    expected = float(score(voxels.features))
    assert float(score(turned.astype(np.float32) + 1)) == pytest.approx(expected, rel=1e-4)
    doubled = np.concatenate([voxels.features[:, :3]] * 2, axis=1)
    assert float(score(doubled)) == pytest.approx(gaussian_oracle(doubled, voxels.labels), rel=1e-4)
    few = score(voxels.features, mask=np.arange(60) < 6)
    assert np.isfinite(float(few))
    assert few.reasons == ()
    with pytest.raises(ValueError, match=r"must be positive: found 0\.0, 10\.0, 100"):
        score(voxels.features, strength=0.0)


def test_newton_steps_that_run_out_are_flagged(draw):
    voxels = draw(7, n=60)
    found = pactran_gaussian(voxels.features, voxels.labels, num_classes=CLASSES, max_rounds=1)
    assert found.reasons == ("not converged",)


def test_the_contract_of_the_head(draw):
    voxels = draw(9, n=60)
    contract.check(pactran_gaussian, voxels.features, voxels.labels, 1e-5)
