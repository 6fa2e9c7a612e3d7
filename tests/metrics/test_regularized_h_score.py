"""Shrinkage H-score: its formula, its shrinkage, and what it keeps where the H-score saturates."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxfer.metrics import FeatureStatistics, h_score
from jaxfer.metrics.regularized_h_score import ledoit_wolf_shrinkage, regularized_h_score

CLASSES = 3


def shrinkage_oracle(features):
    """Ledoit & Wolf (2004), voxel by voxel: mean squared distance of f fᵀ from the covariance."""
    centred = features.astype(np.float64) - features.astype(np.float64).mean(0)
    n, size = centred.shape
    covariance = centred.T @ centred / n
    error = sum(np.linalg.norm(np.outer(f, f) - covariance) ** 2 for f in centred) / n**2
    distance = np.linalg.norm(covariance - np.trace(covariance) / size * np.eye(size)) ** 2
    return min(error, distance) / distance


def oracle(features, labels):
    """As published, but for the divisor of the second covariance."""
    strength = shrinkage_oracle(features)
    features = features.astype(np.float64)
    between = np.zeros_like(features)
    for label in np.unique(labels):
        between[labels == label] = features[labels == label].mean(0)
    covariance = np.cov(features, rowvar=False, bias=True)
    size = len(covariance)
    shrunken = (1 - strength) * covariance + strength * np.trace(covariance) / size * np.eye(size)
    explained = (1 - strength) * np.cov(between, rowvar=False, bias=True)
    return np.trace(np.linalg.solve(shrunken, explained))


def score(features, labels):
    return regularized_h_score(features, labels, num_classes=CLASSES)


@pytest.mark.parametrize("seed", range(3))
def test_is_the_formula(seed, draw):
    voxels = draw(seed)
    stats = FeatureStatistics.zeros(CLASSES, 6).update(voxels.features, voxels.labels)
    with jax.enable_x64(True):
        found = score(voxels.features, voxels.labels)
        strength = float(ledoit_wolf_shrinkage(stats))
    assert strength == pytest.approx(shrinkage_oracle(voxels.features), rel=1e-9)
    assert 0 < strength < 1
    assert float(found) == pytest.approx(oracle(voxels.features, voxels.labels), rel=1e-9)
    assert 0 < float(found) < float(h_score(*voxels[::2], num_classes=CLASSES))
    assert found.reasons == ()


def test_by_hand_one_column_is_the_h_score():
    features = np.array([[1], [3], [5], [7]], np.float32)
    found = regularized_h_score(features, np.array([0, 0, 1, 1]), num_classes=2)
    assert float(found) == pytest.approx(4 / 5, rel=1e-6)


def test_it_still_tells_sources_apart_with_more_features_than_voxels():
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 3
    noise = rng.standard_normal((20, 25)).astype(np.float32)
    telling = noise + np.eye(3, 25, dtype=np.float32)[labels] * 6
    assert float(h_score(noise, labels, num_classes=3)) == pytest.approx(2, rel=1e-6)
    with jax.enable_x64(True):
        low, high = float(score(noise, labels)), float(score(telling, labels))
    assert low == pytest.approx(oracle(noise, labels), rel=1e-9)
    assert high == pytest.approx(oracle(telling, labels), rel=1e-9)
    assert low < 0.5 < high < 2


def test_no_direction_stands_out_scores_zero():
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
    found = regularized_h_score(corners, np.array([0, 0, 1, 1]), num_classes=2)
    assert float(found) == 0


def test_offsets_rotations_and_one_unit_change_nothing(draw):
    voxels = draw(3)
    expected = oracle(*voxels[::2])
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    mapped = (1e-3 * (voxels.features.astype(np.float64) @ turn) + 0.1).astype(np.float32)
    assert float(score(mapped, voxels.labels)) == pytest.approx(expected, rel=1e-4)


def test_dependent_columns_are_defined(draw):
    voxels = draw(4)
    both = np.concatenate([voxels.features, voxels.features[:, :2]], 1)
    with jax.enable_x64(True):
        assert float(score(both, voxels.labels)) == pytest.approx(
            oracle(both, voxels.labels), rel=1e-9
        )
