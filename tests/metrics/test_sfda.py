"""SFDA: the published steps with a general eigensolver, and degenerate input."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.linalg
from scipy.special import softmax

from jaxfer.metrics.sfda import sfda
from tests.metrics import contract

CLASSES = 3


def shrunken(matrix, shrinkage):
    size = len(matrix)
    return (1 - shrinkage) * matrix + shrinkage * np.trace(matrix) / size * np.eye(size)


def class_covariances(features, labels):
    shares = np.bincount(labels) / len(labels)
    within = sum(
        share * np.cov(features[labels == c], rowvar=False, bias=True)
        for c, share in enumerate(shares)
    )
    return shares, np.atleast_2d(within)


def posterior(features, labels, shrinkage):
    """Posteriors from all generalised eigenvectors of the shrunken scatter matrices."""
    shares, within = class_covariances(features, labels)
    total = np.atleast_2d(np.cov(features, rowvar=False, bias=True))
    within = shrunken(within, shrinkage)
    _, vectors = scipy.linalg.eigh(shrunken(total, shrinkage) - within, within)
    means = np.stack([features[labels == c].mean(0) for c in range(len(shares))])
    slopes = means @ vectors @ vectors.T
    return softmax(features @ slopes.T - (means * slopes).sum(1) / 2 + np.log(shares), axis=1)


def oracle(features, labels, shrinkage=None):
    features = features.astype(np.float64)
    if shrinkage is None:
        largest = np.linalg.eigvalsh(class_covariances(features, labels)[1])[-1]
        shrinkage = max(np.exp(-5 * largest), 1e-10)
    confidence = softmax(posterior(features, labels, shrinkage), axis=1)
    means = np.stack([features[labels == c].mean(0) for c in range(labels.max() + 1)])
    mixed = np.empty_like(features)
    for i, label in enumerate(labels):
        rivals = np.delete(means, label, axis=0).mean(0)
        mixed[i] = confidence[i, label] * features[i] + (1 - confidence[i, label]) * rivals
    return posterior(mixed, labels, shrinkage)[np.arange(len(labels)), labels].mean()


def score(features, labels, **kwargs):
    return sfda(features, labels, num_classes=CLASSES, **kwargs)


@pytest.mark.parametrize("unit", [1, 0.05])
def test_is_the_published_steps(unit, draw):
    voxels = draw(0, n=60)
    features = voxels.features * np.float32(unit)
    with jax.enable_x64(True):
        found = score(features, voxels.labels)
    # At this unit the adaptive shrinkage is at its floor, at the other one far from it.
    assert float(found) == pytest.approx(oracle(features, voxels.labels), rel=1e-7)
    assert 0.3 < float(found) < 1
    assert found.reasons == ()


def test_a_given_shrinkage_and_invariance_at_none(draw):
    voxels = draw(1, n=60)
    found = score(voxels.features, voxels.labels, shrinkage=0.3)
    assert float(found) == pytest.approx(oracle(voxels.features, voxels.labels, 0.3), rel=1e-6)
    mapped = voxels.features @ np.random.default_rng(0).standard_normal((6, 6)) + 7
    plain = float(score(voxels.features, voxels.labels, shrinkage=0.0))
    assert float(score(mapped.astype(np.float32), voxels.labels, shrinkage=0.0)) == pytest.approx(
        plain, rel=1e-4
    )
    with pytest.raises(ValueError, match=r"shrinkage must lie in \[0, 1\]: found 2"):
        score(voxels.features, voxels.labels, shrinkage=2.0)


def test_constant_features_leave_the_priors(draw):
    labels = np.array([0] * 30 + [1] * 20 + [2] * 10)
    found = score(np.full((60, 6), 0.1, np.float32), labels)
    assert float(found) == pytest.approx((9 + 4 + 1) / 36, rel=1e-6)


def test_separated_classes_score_one_even_without_any_spread(draw):
    labels = draw(2, n=60).labels
    apart = 100 * np.eye(3, 6, dtype=np.float32)[labels]
    assert float(score(apart, labels)) == pytest.approx(1, abs=1e-6)
    noisy = apart + np.random.default_rng(2).standard_normal((60, 6))
    assert float(score(noisy.astype(np.float32), labels)) == pytest.approx(1, abs=1e-6)


def test_dependent_columns_are_defined(draw):
    voxels = draw(3, n=60)
    features = np.concatenate([voxels.features[:, :3], 2 * voxels.features[:, :3]], axis=1)
    found = score(features, voxels.labels)
    # With next to no shrinkage, columns that repeat others tell nothing new.
    expected = oracle(voxels.features[:, :3], voxels.labels, 1e-10)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_as_many_features_as_voxels_are_flagged(draw):
    voxels = draw(4, n=60)
    found = score(voxels.features, voxels.labels, mask=np.arange(60) < 6)
    assert found.reasons == ("saturated",)
    assert 0 < float(found) <= 1


def test_the_contract(draw):
    voxels = draw(5, n=60)
    contract.check(sfda, voxels.features, voxels.labels, 1e-5)
