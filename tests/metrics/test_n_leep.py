"""N-LEEP: LEEP of the mixture's posteriors, its limits, its key, and degenerate input."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import multivariate_normal

from jaxfer.metrics.n_leep import mixture_posteriors, n_leep
from tests.metrics import contract
from tests.metrics.test_leep import oracle as leep_oracle

CLASSES = 3
two = functools.partial(n_leep, components_per_class=2)


def blobs(seed, n=60, places=3):
    """Well separated blobs, and which one each voxel is of."""
    rng = np.random.default_rng(seed)
    place = rng.permutation(np.arange(n) * places // n)
    centres = 40 * rng.standard_normal((places, 6))
    return (centres[place] + rng.standard_normal((n, 6))).astype(np.float32), place


def test_is_leep_of_the_posteriors(draw):
    voxels = draw(0, n=60)
    options = {"num_classes": CLASSES, "components_per_class": 2}
    found = n_leep(voxels.features, voxels.labels, **options)
    posteriors = mixture_posteriors(voxels.features, voxels.labels, **options)
    log_posteriors = np.asarray(posteriors.log_posteriors, np.float64)
    np.testing.assert_allclose(np.exp(log_posteriors).sum(1), 1, 1e-5)
    assert float(found) == pytest.approx(leep_oracle(log_posteriors, voxels.labels), rel=1e-4)
    assert -np.log(3) < float(found) < 0
    # Eighty percent of the energy, by singular values.
    sizes = np.linalg.svd(voxels.features - voxels.features.mean(0), compute_uv=False) ** 2
    enough = np.searchsorted(np.cumsum(sizes) / sizes.sum(), 0.8) + 1
    assert (int(posteriors.num_dimensions), int(posteriors.num_components)) == (enough, 6)


def published(features, labels, place, rounds=300):
    """LEEP of expectation maximisation in float64, started from the true blobs."""
    centred = features.astype(np.float64) - features.astype(np.float64).mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    enough = np.searchsorted(np.cumsum(sizes**2) / (sizes**2).sum(), 0.8) + 1
    points, shares = centred @ axes[:enough].T, np.eye(place.max() + 1)[place]
    for _ in range(rounds):
        logs = []
        for share in shares.T:
            mean = share @ points / share.sum()
            spread = (share[:, None] * (points - mean)).T @ (points - mean) / share.sum()
            covariance = spread + 1e-6 * np.eye(enough)
            density = multivariate_normal(mean, covariance).logpdf(points)
            logs.append(np.log(share.mean()) + density)
        log_posteriors = log_softmax(np.stack(logs, 1), axis=1)
        shares = np.exp(log_posteriors)
    return leep_oracle(log_posteriors, labels)


def test_blobs_that_overlap_score_what_the_published_mixture_does():
    rng = np.random.default_rng(8)
    place = np.arange(300) % 3
    centres = 2.5 * np.eye(3, 4)
    features = (centres[place] + rng.standard_normal((300, 4))).astype(np.float32)
    labels = np.where(rng.random(300) < 0.8, place, (place + 1) % 3)
    options = {"components_per_class": 1, "restarts": 4, "max_rounds": 1000, "tolerance": 1e-10}
    found = n_leep(features, labels, num_classes=CLASSES, **options)
    assert found.reasons == ()
    assert float(found) == pytest.approx(published(features, labels, place), rel=1e-3)
    assert -1.0 < float(found) < -0.5


def test_blobs_of_one_class_score_zero_and_blobs_of_all_classes_the_prior():
    features, place = blobs(1)
    pure = n_leep(features, place, num_classes=CLASSES, components_per_class=1, restarts=4)
    assert float(pure) == pytest.approx(0, abs=1e-4)
    mixed = np.empty(60, int)
    for blob in range(3):
        mixed[place == blob] = np.arange(20) % 2
    ignorant = n_leep(features, mixed, num_classes=CLASSES, components_per_class=1, restarts=4)
    assert float(ignorant) == pytest.approx(-np.log(2), abs=0.05)


def test_constant_features_score_minus_the_label_entropy():
    labels = np.array([0] * 30 + [1] * 20 + [2] * 10)
    shares = np.array([3, 2, 1]) / 6
    found = two(np.full((60, 6), 0.1, np.float32), labels, num_classes=CLASSES)
    assert float(found) == pytest.approx((shares * np.log(shares)).sum(), rel=1e-5)


def test_the_unit_and_the_offset_of_the_features_do_not_matter(draw):
    voxels = draw(2, n=60)
    expected = float(two(voxels.features, voxels.labels, num_classes=CLASSES))
    moved = voxels.features * np.float32(2**-10) + np.float32(1)
    found = two(moved, voxels.labels, num_classes=CLASSES)
    assert float(found) == pytest.approx(expected, rel=0.02)
    scaled = two(voxels.features * np.float32(2**-20), voxels.labels, num_classes=CLASSES)
    assert float(scaled) == pytest.approx(expected, rel=1e-4)


def test_the_key_decides_and_nothing_else(draw):
    voxels = draw(3, n=60)
    first, second, again = (
        float(two(voxels.features, voxels.labels, num_classes=CLASSES, key=jax.random.key(seed)))
        for seed in (1, 2, 1)
    )
    assert first == again != second


def test_too_many_components_and_too_few_rounds_are_flagged(draw):
    voxels = draw(4, n=60)
    few = np.arange(60) < 8
    found = two(voxels.features, voxels.labels, num_classes=CLASSES, mask=few, max_rounds=1)
    assert found.reasons == ("not converged", "reduced")
    assert np.isfinite(float(found))


def test_the_contract(draw):
    voxels = draw(5, n=60)
    contract.check(two, voxels.features, voxels.labels, 1e-3)
