"""LDA score: its formula, its streamed second pass, and classes without spread."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import linalg
from scipy.special import softmax

from jaxfer.metrics.class_statistics import ClassFeatureStatistics
from jaxfer.metrics.lda import lda, lda_from_statistics
from jaxfer.metrics.posterior import PosteriorStatistics, linear_classifier

CLASSES = 3


def oracle(features, labels, shrinkage=None):
    """By the generalised eigenproblem of the paper, with all its vectors."""
    features = features.astype(np.float64)
    _, labels = np.unique(labels, return_inverse=True)
    priors = np.bincount(labels) / len(labels)
    means = np.stack([features[labels == c].mean(0) for c in range(len(priors))])
    within = np.cov(features - means[labels], rowvar=False, bias=True)
    between = np.cov(means[labels], rowvar=False, bias=True)
    if shrinkage is None:
        shrinkage = max(np.exp(-5 * np.linalg.eigvalsh(within)[-1]), 1e-10)
    size = len(within)
    shrunken = (1 - shrinkage) * within + shrinkage * np.trace(within) / size * np.eye(size)
    vectors = linalg.eigh(between, shrunken)[1]
    weights = means @ vectors @ vectors.T
    logits = features @ weights.T - (weights * means).sum(1) / 2 + np.log(priors)
    return softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()


def score(features, labels, **kwargs):
    return lda(features, labels, num_classes=CLASSES, **kwargs)


@pytest.mark.parametrize("shrinkage", [None, 0.3])
@pytest.mark.parametrize("unit", [1, 0.05])
def test_is_the_formula(shrinkage, unit, draw):
    voxels = draw(0)
    features = np.float32(unit) * voxels.features
    with jax.enable_x64(True):
        found = score(features, voxels.labels, shrinkage=shrinkage)
    expected = oracle(features, voxels.labels, shrinkage)
    assert float(found) == pytest.approx(expected, rel=1e-7)
    assert 1 / 3 < float(found) < 1
    assert found.reasons == ()


def test_by_hand():
    # Variance 1 within, means −1 and 1: the posterior at x is 1/(1 + exp(−2x)).
    features = np.array([[-2], [0], [0], [2]], np.float32)
    found = lda(features, np.array([0, 0, 1, 1]), num_classes=2, shrinkage=0.0)
    assert float(found) == pytest.approx((1 / (1 + np.exp(-4)) + 1 / 2) / 2, rel=1e-6)


def test_constant_features_leave_the_priors_and_separate_points_nothing_open():
    labels = np.repeat([0, 1, 2], [60, 40, 20])
    constant = score(np.full((120, 6), 0.1, np.float32), labels)
    assert float(constant) == pytest.approx((9 + 4 + 1) / 36, rel=1e-6)
    apart = score(np.eye(6, dtype=np.float32)[labels], labels)
    assert float(apart) == pytest.approx(1, abs=1e-6)
    assert apart.reasons == ()


def test_more_features_than_voxels(draw):
    voxels = draw(1, n=12, features=25)
    assert 0.9 < float(score(voxels.features, voxels.labels)) <= 1
    assert float(score(voxels.features, voxels.labels, shrinkage=0.5)) == pytest.approx(
        oracle(voxels.features, voxels.labels, 0.5), rel=1e-5
    )


def test_offsets_and_rotations_change_nothing(draw):
    voxels = draw(2)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    mapped = (voxels.features.astype(np.float64) @ turn + 1000).astype(np.float32)
    assert float(score(mapped, voxels.labels)) == pytest.approx(oracle(*voxels[::2]), rel=1e-3)


def test_labels_that_the_classifier_never_saw_are_counted(draw):
    voxels = draw(3)
    seen = voxels.labels < 2
    stats = ClassFeatureStatistics.zeros(CLASSES, 6)
    classifier = linear_classifier(stats.update(voxels.features, voxels.labels, mask=seen))
    found = PosteriorStatistics.zeros(CLASSES).update(voxels.features, voxels.labels, classifier)
    assert float(found.n_unseen) == (~seen).sum()
    assert float(found.sums[2]) == 0
    assert lda_from_statistics(found).reasons == ("unseen labels",)


def test_a_shrinkage_that_is_none_raises(draw):
    voxels = draw(4)
    with pytest.raises(ValueError, match=r"shrinkage must be in \[0, 1\] or None, found 1\.5"):
        score(*voxels[::2], shrinkage=1.5)
