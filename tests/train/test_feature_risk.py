"""Risk maps from features: their metrics' own numbers, and pixel by pixel against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from jaxfer.metrics import ClassFeatureStatistics, class_balanced, lda, logme_models
from jaxfer.train.feature_risk import posterior_risk


@pytest.fixture
def drawn():
    """Features of three classes of unequal size, of which some pixels are ignored."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, (20, 15), p=(0.8, 0.15, 0.05))
    features = rng.standard_normal((20, 15, 4)) @ rng.standard_normal((4, 4))
    features = (features + 1.5 * np.eye(4)[labels]).astype(np.float32)
    return features, labels, rng.random((20, 15)) < 0.9


def fitted(features, labels, valid):
    return ClassFeatureStatistics.zeros(3, 4).update(features, labels, mask=valid)


def test_the_mean_posterior_of_lda_is_its_score(drawn):
    features, labels, valid = drawn
    risk = posterior_risk(features, labels, fitted(*drawn), valid, "lda")
    score = lda(features, labels, num_classes=3, mask=valid)
    assert np.exp(-risk[valid]).mean() == pytest.approx(float(score), rel=1e-5)
    assert not risk[~valid].any()
    assert risk.min() >= 0


@pytest.mark.parametrize("balanced", [False, True])
def test_gbc_is_the_posterior_of_diagonal_gaussians(drawn, balanced):
    features, labels, valid = drawn
    stats = fitted(*drawn)
    stats = class_balanced(stats) if balanced else stats
    risk = posterior_risk(features, labels, stats, valid, "gbc")
    joint = []
    for c in range(3):
        own = features[valid & (labels == c)].astype(np.float64)
        prior = 1 / 3 if balanced else len(own) / valid.sum()
        density = multivariate_normal(own.mean(0), np.diag(own.var(0)))
        joint.append(prior * density.pdf(features))
    joint = np.stack(joint, -1)
    true = np.take_along_axis(joint, labels[..., None], -1)[..., 0] / joint.sum(-1)
    np.testing.assert_allclose(risk[valid], -np.log(true[valid]), rtol=1e-3, atol=1e-4)


def test_logme_is_the_posterior_of_its_predictive_densities(drawn):
    """By the models' normal equations, one class after the other."""
    features, labels, valid = drawn
    risk = posterior_risk(features, labels, fitted(*drawn), valid, "logme")
    models = logme_models(fitted(*drawn).features())
    rows, truth = features[valid].astype(np.float64), labels[valid]
    target = np.eye(3)[truth]
    # The precisions are LogME's fixed point; all else follows from them.
    densities = np.ones((len(rows), 3))
    for c in range(3):
        beta = float(models.noise[c])
        alpha = 1 / float(models.spread[c, 0]) - beta * np.linalg.eigvalsh(rows.T @ rows)[0]
        covariance = np.linalg.inv(alpha * np.eye(4) + beta * rows.T @ rows)
        mean = rows @ (beta * covariance @ rows.T @ target[:, c])
        deviation = np.sqrt(1 / beta + np.einsum("nd,de,ne->n", rows, covariance, rows))
        for label in range(3):
            densities[:, label] *= norm.pdf(float(label == c), mean, deviation)
    expected = -np.log(densities[np.arange(len(rows)), truth] / densities.sum(1))
    np.testing.assert_allclose(risk[valid], expected, rtol=1e-4, atol=1e-5)


def test_logme_gives_an_absent_class_no_share(drawn):
    features, labels, valid = drawn
    absent = valid & (labels == 2)
    found = posterior_risk(
        features, labels, fitted(features, labels, valid & ~absent), valid & ~absent, "logme"
    )
    assert np.isfinite(found).all()
    two = ClassFeatureStatistics.zeros(2, 4).update(
        features, np.minimum(labels, 1), mask=valid & ~absent
    )
    alone = posterior_risk(features, labels, two, valid & ~absent, "logme")
    np.testing.assert_allclose(found, alone, rtol=1e-5)


@pytest.mark.parametrize("metric", ["lda", "gbc"])
def test_features_that_tell_nothing_leave_the_share_of_the_class(drawn, metric):
    _, labels, valid = drawn
    features = np.full((20, 15, 4), 3.0, np.float32)
    risk = posterior_risk(features, labels, fitted(features, labels, valid), valid, metric)
    shares = np.bincount(labels[valid], minlength=3) / valid.sum()
    np.testing.assert_allclose(risk[valid], -np.log(shares[labels[valid]]), rtol=1e-5)


@pytest.mark.parametrize("metric", ["lda", "gbc", "logme"])
def test_features_of_zeros_leave_the_share_of_the_class(drawn, metric):
    _, labels, valid = drawn
    features = np.zeros((20, 15, 4), np.float32)
    risk = posterior_risk(features, labels, fitted(features, labels, valid), valid, metric)
    shares = np.bincount(labels[valid], minlength=3) / valid.sum()
    np.testing.assert_allclose(risk[valid], -np.log(shares[labels[valid]]), rtol=1e-5)


def test_ignored_pixels_may_hold_anything_and_all_ignored_is_nothing(drawn):
    features, labels, valid = drawn
    expected = posterior_risk(features, labels, fitted(*drawn), valid, "lda")
    features[~valid], labels[~valid] = np.nan, 99
    found = posterior_risk(features, labels, fitted(features, labels, valid), valid, "lda")
    np.testing.assert_array_equal(found, expected)
    nothing = posterior_risk(features, labels, fitted(*drawn), np.zeros_like(valid), "gbc")
    assert not nothing.any()


def test_an_unknown_metric_is_refused(drawn):
    features, labels, valid = drawn
    with pytest.raises(ValueError, match="'otce'"):
        posterior_risk(features, labels, fitted(*drawn), valid, "otce")


def test_balanced_logme_tells_the_pixels_of_a_rare_class_apart():
    """By its models of a rare class alone, the risk of nearly all its pixels is the largest."""
    rng = np.random.default_rng(3)
    labels = (rng.random(20_000) < 0.005).astype(np.uint8)
    features = rng.normal(size=(20_000, 4)).astype(np.float32)
    features[:, 0] += 1.5 * labels
    features[:, 1] = 1
    valid = np.ones(labels.shape, bool)
    stats = ClassFeatureStatistics.zeros(2, 4).update(features, labels, mask=valid)
    rare = labels == 1
    plain = posterior_risk(features, labels, stats, valid, "logme")[rare]
    balanced = posterior_risk(features, labels, class_balanced(stats), valid, "logme")[rare]
    assert (plain == plain.max()).mean() > 0.9
    assert balanced.std() > 0.5 * balanced.mean()
    assert np.corrcoef(balanced, features[rare, 0])[0, 1] < -0.7
