"""LogME: the evidence of an independent calculation, its invariances, and degenerate input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from jaxfer.metrics import FeatureStatistics, logme, logme_from_statistics

CLASSES = 3
CONVERGED = {"max_rounds": 2000, "tolerance": 1e-12}


def score(features, labels, **kwargs):
    return logme(features, labels, num_classes=CLASSES, **kwargs)


def evidence(features, target, alpha, beta):
    """log N(t | 0, I/β + FFᵀ/α), with the n × n covariance: no eigenvalues, no posterior."""
    covariance = np.eye(len(target)) / beta + features @ features.T / alpha
    return multivariate_normal(cov=covariance).logpdf(target)


def best_evidence(features, labels):
    """The maximum over α and β by a general optimiser, averaged over the classes."""
    features = features.astype(np.float64)

    def of_class(label):
        target = (labels == label).astype(np.float64)

        def loss(log_precisions):
            return -evidence(features, target, *np.exp(log_precisions))

        bounds = [(-10, 20)] * 2
        starts = [(0.0, 0.0), (0.0, 3.0), (3.0, 3.0)]
        return max(
            -minimize(loss, start, method="Nelder-Mead", tol=1e-8, bounds=bounds).fun
            for start in starts
        )

    return np.mean([of_class(label) for label in np.unique(labels)]) / len(labels)


def published_rounds(features, labels, rounds=11):
    """The fixed point with dense matrices, and the evidence with all D terms of the determinant."""
    features = features.astype(np.float64)
    n, d = features.shape
    gram = features.T @ features
    scores = []
    for label in np.unique(labels):
        target = (labels == label).astype(np.float64)
        alpha = beta = 1.0
        for _ in range(rounds):
            ratio = alpha / beta
            mean = np.linalg.solve(gram + ratio * np.eye(d), features.T @ target)
            gamma = np.trace(np.linalg.solve(gram + ratio * np.eye(d), gram))
            weights, residual = mean @ mean, ((target - features @ mean) ** 2).sum()
            alpha, beta = gamma / (weights + 1e-5), (n - gamma) / (residual + 1e-5)
            if abs(alpha / beta - ratio) <= 1e-3 * ratio:
                break
        _, determinant = np.linalg.slogdet(alpha * np.eye(d) + beta * gram)
        scores.append(
            d / 2 * np.log(alpha)
            + n / 2 * np.log(beta)
            - determinant / 2
            - beta / 2 * residual
            - alpha / 2 * weights
            - n / 2 * np.log(2 * np.pi)
        )
    return np.mean(scores) / n


def wide(seed=0):
    """More features than voxels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(30) % 3
    features = rng.standard_normal((30, 45))
    features[:, :3] += 2 * np.eye(3)[labels]
    return features.astype(np.float32), labels


@pytest.mark.parametrize("seed", range(3))
def test_the_default_is_the_published_rounds(seed, draw):
    voxels = draw(seed)
    with jax.enable_x64(True):
        found = score(voxels.features, voxels.labels)
    assert float(found) == pytest.approx(published_rounds(*voxels[::2]), rel=1e-9)
    assert (int(found.n_used), int(found.classes_present)) == (120, 3)


def test_the_default_is_the_published_rounds_with_more_features_than_voxels():
    features, labels = wide()
    with jax.enable_x64(True):
        found = score(features, labels)
    assert float(found) == pytest.approx(published_rounds(features, labels), rel=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_converged_it_is_the_maximum_of_the_marginal_likelihood(seed, draw):
    voxels = draw(seed, n=60)
    with jax.enable_x64(True):
        found = score(voxels.features, voxels.labels, **CONVERGED)
    assert float(found) == pytest.approx(best_evidence(*voxels[::2]), abs=1e-6)
    assert found.reasons == ()


def test_converged_with_more_features_than_voxels():
    features, labels = wide()
    with jax.enable_x64(True):
        found = score(features, labels, **CONVERGED)
    assert float(found) == pytest.approx(best_evidence(features, labels), abs=1e-4)


def test_orthogonal_maps_and_columns_of_zeros_change_nothing(draw):
    voxels = draw(3)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    features = voxels.features.astype(np.float64)
    with jax.enable_x64(True):
        expected = float(score(features, voxels.labels))
        turned = score(features @ basis, voxels.labels)
        padded = score(np.pad(features, ((0, 0), (3, 20))), voxels.labels)
    assert float(turned) == pytest.approx(expected, rel=1e-9)
    assert float(padded) == pytest.approx(expected, rel=1e-9)
    wide_features, labels = wide()
    padded = score(np.pad(wide_features, ((0, 0), (0, 30))), labels)
    assert float(padded) == pytest.approx(float(score(wide_features, labels)), rel=1e-6)


def test_the_unit_of_the_features_matters_only_before_convergence(draw):
    voxels = draw(4)
    tiny, large = voxels.features * np.float32(2**-6), voxels.features
    assert float(score(tiny, voxels.labels, **CONVERGED)) == pytest.approx(
        float(score(large, voxels.labels, **CONVERGED)), rel=1e-3
    )


def test_rounds_that_run_out_are_flagged(draw):
    voxels = draw(4)
    assert score(*voxels[::2], max_rounds=1).reasons == ("not converged",)


def test_what_lies_in_small_directions_beside_large_ones_is_seen():
    rng = np.random.default_rng(5)
    labels = np.arange(600) % 3
    features = rng.standard_normal((600, 12)) + 2 * np.eye(3, 12)[labels]
    features[:, 5] = 1e4 * rng.standard_normal(600)  # eight decades of variance
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    features = (features @ basis).astype(np.float32)
    u, s, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    expected = published_rounds(u * s, labels)
    assert expected > published_rounds((u * s)[:, :1], labels) + 0.3
    assert float(score(features, labels)) == pytest.approx(expected, rel=1e-5)


def test_absent_classes_and_masked_voxels(draw):
    voxels = draw(6)
    features = np.concatenate([voxels.features, np.full((4, 6), np.nan, np.float32)])
    labels = np.concatenate([np.array([6, 0, 3])[voxels.labels], np.full(4, 99)])
    found = logme(features, labels, num_classes=8, mask=np.arange(124) < 120)
    assert float(found) == pytest.approx(float(score(*voxels[::2])), rel=1e-6)
    assert int(found.classes_present) == 3


def test_perfect_features_are_finite_and_flagged(draw):
    labels = draw(7).labels
    found = score(np.eye(3, dtype=np.float32)[labels], labels)
    assert np.isfinite(float(found))
    assert "perfect fit" in found.reasons


def test_any_split_and_four_devices(draw):
    voxels = draw(8)
    parts = [
        FeatureStatistics.zeros(CLASSES, 6).update(*chunk)
        for chunk in zip(
            np.array_split(voxels.features, 3), np.array_split(voxels.labels, 3), strict=True
        )
    ]
    expected = published_rounds(*voxels[::2])
    merged = logme_from_statistics(parts[2].merge(parts[0]).merge(parts[1]))
    assert float(merged) == pytest.approx(expected, rel=1e-6)

    def on_device(features, labels):
        stats = FeatureStatistics.zeros(CLASSES, 6).update(features, labels)
        return logme_from_statistics(stats.psum("devices"))

    mapped = jax.pmap(on_device, axis_name="devices", out_axes=None)
    found = mapped(voxels.features.reshape(4, 30, 6), voxels.labels.reshape(4, 30))
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_jit_and_vmap(draw):
    cases = [draw(seed) for seed in range(3)]
    features, labels = (jnp.stack([case[i] for case in cases]) for i in (0, 2))
    expected = [published_rounds(case.features, case.labels) for case in cases]
    np.testing.assert_allclose(jax.vmap(score)(features, labels).score, expected, 1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(score))(features, labels).score, expected, 1e-5)
    assert float(jax.jit(score)(features[0], labels[0])) == pytest.approx(expected[0], rel=1e-5)


def test_degenerate_input_is_nan_with_a_reason(draw):
    voxels = draw(9)
    zero = score(np.zeros((120, 4), np.float32), voxels.labels)
    assert np.isnan(float(zero))
    assert "zero features" in zero.reasons
    single = score(voxels.features, np.zeros(120, np.int32))
    assert np.isnan(float(single))
    assert "few classes" in single.reasons
    nothing = score(*voxels[::2], mask=np.zeros(120, bool))
    assert np.isnan(float(nothing))
    assert nothing.reasons[:2] == ("no voxels", "few classes")
    spoilt = voxels.features.copy()
    spoilt[3, 2] = np.nan
    found = score(spoilt, voxels.labels)
    assert np.isnan(float(found))
    assert (int(found.n_invalid), "invalid input" in found.reasons) == (1, True)
