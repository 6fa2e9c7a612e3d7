"""NCTI: its three parts by singular values, and their total over a pool."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
import scipy.linalg
from scipy.special import softmax

from jaxfer.metrics.ncti import ncti_terms, ncti_total
from tests.metrics import contract
from tests.metrics.test_sfda import class_covariances, posterior, shrunken

CLASSES = 3
four = functools.partial(ncti_terms, num_components=4)


def oracle(features, labels, num_components):
    centred = features.astype(np.float64) - features.astype(np.float64).mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    points = centred @ axes[:num_components].T
    variances = sizes**2 / (len(labels) - 1)
    shrinkage = max(np.exp(-variances[: num_components // 2].sum()), 1e-10)
    probs = posterior(points, labels, shrinkage)
    within = shrunken(class_covariances(points, labels)[1], shrinkage)
    total = shrunken(np.cov(points, rowvar=False, bias=True), shrinkage)
    values, vectors = scipy.linalg.eigh(total - within, within)
    projected = points @ vectors[:, np.argsort(-values)[: labels.max()]]
    nuclear = functools.partial(np.linalg.norm, ord="nuc")
    return (
        probs[np.arange(len(labels)), labels].mean(),
        nuclear(projected - projected.mean(0)),
        np.log(sum(nuclear(probs[labels == c]) for c in range(labels.max() + 1))),
    )


def published_svd(features, labels, num_components):
    """The published solver for the smallest shrinkage: none, within-class divisor n − C."""
    n, classes = len(labels), labels.max() + 1
    centred = features.astype(np.float64) - features.astype(np.float64).mean(0)
    points = centred @ np.linalg.svd(centred, full_matrices=False)[2][:num_components].T
    means = np.stack([points[labels == c].mean(0) for c in range(classes)])
    shares = np.bincount(labels) / n
    residual = points - means[labels]
    whitening = np.linalg.inv(np.linalg.cholesky(residual.T @ residual / (n - classes))).T
    spread = np.sqrt(shares)[:, None] * (means @ whitening)
    directions = whitening @ np.linalg.svd(spread)[2][: classes - 1].T
    places, centres = points @ directions, means @ directions
    logits = places @ centres.T - (centres**2).sum(1) / 2 + np.log(shares)
    probs = softmax(logits, axis=1)
    nuclear = functools.partial(np.linalg.norm, ord="nuc")
    return (
        probs[np.arange(n), labels].mean(),
        nuclear(places),
        np.log(sum(nuclear(probs[labels == c]) for c in range(classes))),
    )


def test_the_published_other_solver_differs_by_its_divisor_alone(draw):
    # Overlapping classes, so that the posteriors are not certain.
    voxels, n = draw(6, n=600), 600
    features = 40 * voxels.features + np.random.default_rng(6).normal(0, 120, (n, 6))
    found = contract.values(four(features, voxels.labels, num_classes=CLASSES))
    expected = np.array(published_svd(features, voxels.labels, 4))
    assert 0.4 < expected[0] < 0.9
    assert found[1] * np.sqrt((n - CLASSES) / n) == pytest.approx(expected[1], rel=1e-5)
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], CLASSES / n)
    assert abs(found[0] / expected[0] - 1) > 1e-5


@pytest.mark.parametrize("unit", [1, 0.1])
def test_is_the_formula(unit, draw):
    voxels = draw(0, n=60)
    features = voxels.features * np.float32(unit)
    with jax.enable_x64(True):
        found = four(features, voxels.labels, num_classes=CLASSES)
    expected = oracle(features, voxels.labels, 4)
    np.testing.assert_allclose(contract.values(found), expected, 1e-6)
    assert found.ncc.reasons == ()


def test_fewer_features_than_components_are_flagged(draw):
    voxels = draw(1, n=60)
    found = ncti_terms(voxels.features, voxels.labels, num_classes=CLASSES, num_components=12)
    np.testing.assert_allclose(
        contract.values(found), oracle(voxels.features, voxels.labels, 12), 1e-5
    )
    assert found.seli.reasons == ("reduced",)


def test_as_many_components_as_voxels_are_flagged(draw):
    voxels = draw(5, n=12, features=11)
    found = ncti_terms(voxels.features, voxels.labels, num_classes=CLASSES, num_components=11)
    assert found.seli.reasons == found.ncc.reasons == ("saturated",)
    fewer = ncti_terms(voxels.features, voxels.labels, num_classes=CLASSES, num_components=10)
    assert fewer.seli.reasons == ()


def test_constant_and_collapsed_features(draw):
    labels = draw(2, n=60).labels
    constant = four(np.full((60, 6), 0.1, np.float32), labels, num_classes=CLASSES)
    # Every posterior is the prior: rank-one blocks of norm √(20/3) each.
    np.testing.assert_allclose(
        contract.values(constant), [1 / 3, 0, np.log(3 * np.sqrt(20 / 3))], 1e-5
    )
    collapsed = four(100 * np.eye(3, 6, dtype=np.float32)[labels], labels, num_classes=CLASSES)
    assert float(collapsed.ncc) == pytest.approx(1, abs=1e-6)
    assert float(collapsed.vc) == pytest.approx(np.log(3 * np.sqrt(20)), rel=1e-5)


def test_the_total_over_a_pool(draw):
    voxels = draw(3, n=60)
    pool = [voxels.features, voxels.features[::-1].copy(), voxels.features / np.float32(3)]
    found = [four(features, voxels.labels, num_classes=CLASSES) for features in pool]
    parts = np.array([contract.values(terms) for terms in found])
    scaled = (parts - parts.min(0)) / (parts.max(0) - parts.min(0))
    np.testing.assert_allclose(ncti_total(found).score, scaled @ [1, 1, -1], 1e-4)
    same = ncti_total([found[0], found[0]])
    assert same.score.tolist() == [0, 0]
    assert jax.tree.map(lambda x: x[0], same).reasons == ("tied",)
    with pytest.raises(ValueError, match="ncti_total compares candidates: it needs at least 2"):
        ncti_total(found[:1])


def test_the_contract(draw):
    voxels = draw(4, n=60)
    contract.check(four, voxels.features, voxels.labels, 1e-4)
