"""H-score: its formula, its invariances, its rank decision, and degenerate input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from jaxfer.metrics import FeatureStatistics, h_score, h_score_from_statistics

CLASSES = 3


def oracle(features, labels, rcond=1e-12):
    features = features.astype(np.float64)
    between = np.zeros_like(features)
    for label in np.unique(labels):
        between[labels == label] = features[labels == label].mean(0)
    covariance = np.cov(features, rowvar=False, bias=True).reshape(features.shape[1], -1)
    explained = np.cov(between, rowvar=False, bias=True).reshape(features.shape[1], -1)
    return np.trace(np.linalg.pinv(covariance, rcond=rcond, hermitian=True) @ explained)


def score(features, labels, **kwargs):
    return h_score(features, labels, num_classes=CLASSES, **kwargs)


@pytest.mark.parametrize("seed", range(4))
def test_is_the_formula(seed, draw):
    voxels = draw(seed)
    with jax.enable_x64(True):
        found = score(voxels.features, voxels.labels)
    assert float(found) == pytest.approx(oracle(voxels.features, voxels.labels), rel=1e-9)
    assert 0 < float(found) < CLASSES - 1
    assert found.reasons == ()
    assert float(score(*voxels[::2])) == pytest.approx(float(found), rel=1e-6)


def test_by_hand():
    # Total variance 5 = within 1 + between 4.
    features = np.array([[1], [3], [5], [7]], np.float32)
    found = h_score(features, np.array([0, 0, 1, 1]), num_classes=2)
    assert float(found) == pytest.approx(4 / 5, rel=1e-6)


def test_invertible_maps_offsets_and_repeats_change_nothing(draw):
    voxels = draw(0)
    rng = np.random.default_rng(1)
    expected = oracle(voxels.features, voxels.labels)
    maps = {
        "linear": rng.standard_normal((6, 6)),
        "units": np.diag(10.0 ** np.array([-9, -4, 0, 1, 5, 9])),
        "orthogonal": np.linalg.qr(rng.standard_normal((6, 6)))[0],
    }
    for name, matrix in maps.items():
        mapped = (voxels.features.astype(np.float64) @ matrix).astype(np.float32)
        found = float(score(mapped, voxels.labels))
        assert found == pytest.approx(expected, rel=1e-4), name
    moved = np.repeat(voxels.features + np.float32(100), 5, axis=0)
    found = float(score(moved, np.repeat(voxels.labels, 5)))
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_spectrum_over_ten_decades_of_variance(draw):
    voxels = draw(1, n=600, features=12)
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    clean = np.linalg.qr(voxels.features - voxels.features.mean(0))[0]
    features = (clean * np.logspace(0, -5, 12)) @ basis.T
    expected = oracle(clean, voxels.labels)
    assert float(score(features.astype(np.float32), voxels.labels)) == pytest.approx(
        expected, rel=1e-3
    )


def test_dependent_and_constant_columns_add_nothing(draw):
    voxels = draw(2)
    expected = oracle(voxels.features, voxels.labels)
    constant = np.full((120, 1), 0.1, np.float32)
    doubled = voxels.features[:, :2] * 2  # exact in float32
    features = np.concatenate([constant, voxels.features, doubled, constant * 0], axis=1)
    assert float(score(features, voxels.labels)) == pytest.approx(expected, rel=1e-6)


def test_a_column_that_is_constant_but_for_rounding_says_nothing(draw):
    voxels = draw(2)
    one = np.float32(1)
    column = np.where(voxels.labels == 1, np.nextafter(one, np.float32(2)), one)[:, None]
    assert float(score(column, voxels.labels)) == 0
    found = score(np.concatenate([column, voxels.features], axis=1), voxels.labels)
    assert float(found) == pytest.approx(oracle(*voxels[::2]), rel=1e-6)


def test_probabilities_have_one_direction_less_however_rare_the_roi():
    # Float32 rows of a softmax sum to 1 but for rounding, which must not count as a feature.
    rng = np.random.default_rng(3)
    labels = (rng.random(20_000) < 0.01).astype(np.int32)
    logits = np.stack([np.zeros(20_000), rng.standard_normal(20_000) + labels - 6], 1)
    probs = softmax(logits, axis=1).astype(np.float32)
    both = float(h_score(probs, labels, num_classes=2))
    one = float(h_score(probs[:, :1], labels, num_classes=2))
    assert both == pytest.approx(one, rel=1e-4)


def test_constant_features_score_zero(draw):
    found = score(np.full((120, 4), 0.1, np.float32), draw(3).labels)
    assert float(found) == 0
    assert found.reasons == ()


def test_as_many_features_as_voxels_saturate_and_are_flagged():
    rng = np.random.default_rng(4)
    features = rng.standard_normal((20, 25)).astype(np.float32)
    found = score(features, np.arange(20) % 3)
    assert float(found) == pytest.approx(CLASSES - 1, rel=1e-6)
    assert found.reasons == ("saturated",)


def test_absent_classes_and_masked_voxels(draw):
    voxels = draw(5)
    features = np.concatenate([voxels.features, np.full((4, 6), np.nan, np.float32)])
    labels = np.concatenate([np.array([6, 0, 3])[voxels.labels], np.full(4, 99)])
    found = h_score(features, labels, num_classes=8, mask=np.arange(124) < 120)
    assert float(found) == pytest.approx(oracle(*voxels[::2]), rel=1e-6)
    assert (int(found.n_used), int(found.classes_present)) == (120, 3)


def test_any_split_and_four_devices(draw):
    voxels = draw(6)
    parts = [
        FeatureStatistics.zeros(CLASSES, 6).update(*chunk)
        for chunk in zip(
            np.array_split(voxels.features, 3), np.array_split(voxels.labels, 3), strict=True
        )
    ]
    expected = oracle(*voxels[::2])
    merged = h_score_from_statistics(parts[2].merge(parts[0]).merge(parts[1]))
    assert float(merged) == pytest.approx(expected, rel=1e-6)

    def on_device(features, labels):
        stats = FeatureStatistics.zeros(CLASSES, 6).update(features, labels)
        return h_score_from_statistics(stats.psum("devices"))

    mapped = jax.pmap(on_device, axis_name="devices", out_axes=None)
    found = mapped(voxels.features.reshape(4, 30, 6), voxels.labels.reshape(4, 30))
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_jit_and_vmap(draw):
    cases = [draw(seed) for seed in range(3)]
    features, labels = (jnp.stack([case[i] for case in cases]) for i in (0, 2))
    expected = [oracle(case.features, case.labels) for case in cases]
    np.testing.assert_allclose(jax.vmap(score)(features, labels).score, expected, 1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(score))(features, labels).score, expected, 1e-5)
    assert float(jax.jit(score)(features[0], labels[0])) == pytest.approx(expected[0], rel=1e-6)


def test_degenerate_input_is_nan_with_a_reason(draw):
    voxels = draw(7)
    single = score(voxels.features, np.zeros(120, np.int32))
    assert np.isnan(float(single))
    assert single.reasons == ("few classes",)
    nothing = score(*voxels[::2], mask=np.zeros(120, bool))
    assert np.isnan(float(nothing))
    assert nothing.reasons == ("no voxels", "few classes", "saturated")
    spoilt = voxels.features.copy()
    spoilt[3, 2] = np.inf
    found = score(spoilt, voxels.labels)
    assert np.isnan(float(found))
    assert (int(found.n_invalid), found.reasons) == (1, ("invalid input",))
    with pytest.raises(ValueError, match=r"labels must be whole numbers in \[0, 2\]"):
        score(voxels.features, voxels.labels - 1)
