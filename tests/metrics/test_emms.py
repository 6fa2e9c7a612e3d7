"""EMMS: least squares by numpy, the mixture's weights, and degenerate input."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from scipy.optimize import minimize

from jaxfer.metrics.emms import emms, sparsemax
from tests.metrics import contract

CLASSES = 3


def standardised(columns):
    columns = columns.astype(np.float64)
    return (columns - columns.mean(0)) / columns.std(0)


def simplex(values):
    """The nearest point of the simplex, by a general optimiser."""
    found = minimize(
        lambda weights: ((weights - values) ** 2).sum(),
        np.full(len(values), 1 / len(values)),
        bounds=[(0, 1)] * len(values),
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        tol=1e-14,
    )
    return found.x


def oracle(features, labels, embeddings, rounds=1):
    """Everything by voxel, with dense least squares."""
    inputs = standardised(features)
    targets = np.stack([standardised(table[labels]) for table in embeddings])
    weights = np.full(len(targets), 1 / len(targets))
    fit = inputs @ np.linalg.pinv(inputs, rcond=1e-9)
    for _ in range(rounds):
        fitted = fit @ np.tensordot(weights, targets, 1)
        flat = targets.reshape(len(targets), -1).T
        weights = simplex(np.linalg.lstsq(flat, fitted.reshape(-1), rcond=None)[0])
    target = np.tensordot(weights, targets, 1)
    return -((target - fit @ target) ** 2).mean()


def score(features, labels, **kwargs):
    return emms(features, labels, num_classes=CLASSES, **kwargs)


@pytest.mark.parametrize("seed", range(2))
def test_one_hot_labels_are_plain_least_squares(seed, draw):
    voxels = draw(seed, n=60)
    with jax.enable_x64(True):
        found = score(voxels.features, voxels.labels)
    expected = oracle(voxels.features, voxels.labels, [np.eye(CLASSES)])
    assert float(found) == pytest.approx(expected, rel=1e-9)
    assert found.reasons == ()


@pytest.mark.parametrize("rounds", [1, 3])
def test_several_embeddings_are_mixed_on_the_simplex(rounds, draw):
    voxels = draw(2, n=60)
    embeddings = np.random.default_rng(0).standard_normal((3, CLASSES, 4)).astype(np.float32)
    found = score(voxels.features, voxels.labels, label_embeddings=embeddings, rounds=rounds)
    expected = oracle(voxels.features, voxels.labels, embeddings, rounds)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_sparsemax_is_the_projection_on_the_simplex():
    for values in ([0.2, 0.9, -0.3], [3.0, 0.0, 0.1], [0.1, 0.1, 0.1], [-5.0, -5.2, -9.0]):
        with jax.enable_x64(True):
            found = sparsemax(jax.numpy.array(values))
        np.testing.assert_allclose(found, simplex(np.array(values)), atol=1e-6)


def test_one_minus_r_squared_by_hand():
    # r between (1, 3, 5, 7) and (0, 0, 1, 1) is 4/√20, in both columns of the labels.
    features = np.array([[1], [3], [5], [7]], np.float32)
    found = emms(features, np.array([0, 0, 1, 1]), num_classes=2)
    assert float(found) == pytest.approx(-(1 - 16 / 20), rel=1e-6)


def test_invertible_maps_and_dependent_or_constant_columns_change_nothing(draw):
    voxels = draw(3, n=60, features=3)
    expected = float(score(voxels.features, voxels.labels))
    doubled = 2 * voxels.features[:, :2]  # exact in float32
    constant = np.full((60, 1), 0.1, np.float32)
    wide = np.concatenate([voxels.features, doubled, constant], axis=1)
    assert float(score(wide, voxels.labels)) == pytest.approx(expected, rel=1e-5)
    mapped = wide @ np.diag(10.0 ** np.array([-3, 2, 0, 1, 5, 0])) + 3
    assert float(score(mapped, voxels.labels)) == pytest.approx(expected, rel=1e-5)


def test_constant_and_separated_features_and_more_features_than_voxels(draw):
    voxels = draw(4, n=60)
    constant = score(np.full((60, 6), 0.1, np.float32), voxels.labels)
    assert float(constant) == pytest.approx(-1, rel=1e-6)
    apart = 10 * np.eye(3, 6, dtype=np.float32)[voxels.labels]
    assert float(score(apart, voxels.labels)) == pytest.approx(0, abs=1e-6)
    few = score(voxels.features, voxels.labels, mask=np.arange(60) < 6)
    assert float(few) == pytest.approx(0, abs=1e-6)
    assert few.reasons == ("saturated",)


def test_embeddings_that_do_not_vary_are_no_target(draw):
    voxels = draw(5, n=60)
    flat = np.ones((1, CLASSES, 2), np.float32)
    nothing = score(voxels.features, voxels.labels, label_embeddings=flat)
    assert np.isnan(float(nothing))
    assert nothing.reasons == ("zero features",)
    padded = np.concatenate([np.eye(CLASSES, dtype=np.float32)[None], flat], axis=2)
    found = score(voxels.features, voxels.labels, label_embeddings=padded)
    assert float(found) == pytest.approx(float(score(voxels.features, voxels.labels)), rel=1e-6)


def test_arguments_that_make_no_sense(draw):
    voxels = draw(0, n=60)
    with pytest.raises(ValueError, match="one row for each of 3 classes"):
        score(voxels.features, voxels.labels, label_embeddings=np.ones((1, 4, 2), np.float32))
    with pytest.raises(ValueError, match="rounds must be at least 1: found 0"):
        score(voxels.features, voxels.labels, rounds=0)


def test_the_contract(draw):
    voxels = draw(6, n=60)
    contract.check(functools.partial(emms), voxels.features, voxels.labels, 1e-5)
