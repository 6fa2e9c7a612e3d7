"""ETran: its two parts, and their total over a pool."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from jaxfer.metrics.etran import etran_terms, etran_total
from jaxfer.metrics.lda import lda
from tests.metrics import contract
from tests.metrics.test_sfda import class_covariances, posterior

CLASSES = 3


def terms(features, labels, **kwargs):
    return etran_terms(features, labels, num_classes=CLASSES, **kwargs)


def test_the_discriminant_is_that_of_the_generalised_eigenproblem(draw):
    voxels = draw(0, n=60)
    features = (voxels.features / 20).astype(np.float32)
    largest = np.linalg.eigvalsh(class_covariances(features, voxels.labels)[1])[-1]
    shrinkage = np.exp(-5 * largest)
    assert 0.01 < shrinkage < 0.99
    probs = posterior(features.astype(np.float64), voxels.labels, shrinkage)
    with jax.enable_x64(True):
        found = terms(features, voxels.labels).lda
    assert float(found) == pytest.approx(probs[np.arange(60), voxels.labels].mean(), rel=1e-8)
    assert float(found) == pytest.approx(
        float(lda(features, voxels.labels, num_classes=CLASSES)), rel=1e-5
    )


@pytest.mark.parametrize(("tail", "counted"), [(0.005, 1), (0.1, 6), (0.35, 21), (1, 60)])
def test_the_energy_is_the_mean_over_the_lowest_voxels(tail, counted, draw):
    voxels = draw(1, n=60)
    energies = np.sort(logsumexp(voxels.features.astype(np.float64), axis=1))
    found = terms(voxels.features, voxels.labels, tail=float(tail)).energy
    assert float(found) == pytest.approx(energies[:counted].mean(), rel=1e-6)


def test_constant_features(draw):
    found = terms(np.full((60, 6), 0.1, np.float32), draw(2, n=60).labels)
    assert float(found.lda) == pytest.approx(1 / 3, rel=1e-6)
    assert float(found.energy) == pytest.approx(0.1 + np.log(6), rel=1e-6)


def test_the_total_over_a_pool(draw):
    voxels = draw(3, n=60)
    pool = [voxels.features, voxels.features[::-1].copy(), 2 * voxels.features]
    found = [terms(features, voxels.labels) for features in pool]
    parts = np.array([[float(t.lda), float(t.energy)] for t in found])
    scaled = (parts - parts.min(0)) / (parts.max(0) - parts.min(0))
    total = etran_total(found)
    np.testing.assert_allclose(total.score, scaled @ [0.85, 0.15], 1e-5)
    assert total.flags.tolist() == [0, 0, 0]


def test_a_pool_that_agrees_a_pool_of_one_and_an_undefined_candidate(draw):
    voxels = draw(4, n=60)
    first = terms(voxels.features, voxels.labels)
    second = terms(voxels.features + np.float32(1), voxels.labels)  # the energy alone moves
    nothing = terms(np.full_like(voxels.features, np.nan), voxels.labels)
    total = etran_total([nothing, first, first])
    assert np.isnan(total.score[0])
    assert total.score[1:].tolist() == [0, 0]
    assert jax.tree.map(lambda x: x[1], total).reasons == ("tied",)
    # Without an offset's rounding: the discriminant's parts are equal, and their 0/0 is no 1.
    moved = etran_total([nothing, first, second])
    np.testing.assert_allclose(moved.score[1:], [0, 0.15], 1e-6)
    with pytest.raises(ValueError, match="etran_total compares candidates: it needs at least 2"):
        etran_total([first])
    with pytest.raises(ValueError, match=r"tail must lie in \(0, 1\]: found 0"):
        terms(voxels.features, voxels.labels, tail=0.0)


def test_the_contract(draw):
    voxels = draw(5, n=60)
    contract.check(etran_terms, voxels.features, voxels.labels, 1e-5)
