"""GBC: its formula for three kinds of covariance, underflow, classes that are too small."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxfer.metrics.gbc import gbc, log_gbc

CLASSES = 3
KINDS = ("spherical", "diagonal", "full")


def distance(mean, matrix, other_mean, other_matrix):
    """Bhattacharyya distance of two Gaussians, from matrices throughout."""
    common = (matrix + other_matrix) / 2
    apart = (mean - other_mean) @ np.linalg.inv(common) @ (mean - other_mean) / 8
    dets = [np.linalg.slogdet(x)[1] for x in (common, matrix, other_matrix)]
    return apart + (dets[0] - (dets[1] + dets[2]) / 2) / 2


def gaussian(features, kind, floor):
    matrix = np.cov(features, rowvar=False, bias=True).reshape(features.shape[1], -1)
    if kind == "full":
        values, axes = np.linalg.eigh(matrix)
        return features.mean(0), (axes * np.maximum(values, floor)) @ axes.T
    variances = np.maximum(np.diag(matrix), floor)
    if kind == "spherical":
        variances = np.full_like(variances, variances.mean())
    return features.mean(0), np.diag(variances)


def overlaps(features, labels, kind, floor=1e-4):
    features = features.astype(np.float64)
    classes = [gaussian(features[labels == c], kind, floor) for c in np.unique(labels)]
    pairs = [(a, b) for a in classes for b in classes if a is not b]
    return np.array([-distance(*a, *b) for a, b in pairs])


def oracle(features, labels, kind, floor=1e-4):
    return -np.exp(overlaps(features, labels, kind, floor)).sum()


def score(features, labels, kind, **kwargs):
    return gbc(features, labels, num_classes=CLASSES, covariance=kind, **kwargs)


@pytest.mark.parametrize("kind", KINDS)
def test_is_the_formula(kind, draw):
    voxels = draw(0)
    labels = np.where(np.arange(120) < 25, 2, voxels.labels)  # classes of unequal size
    with jax.enable_x64(True):
        found = score(voxels.features, labels, kind)
        log = log_gbc(voxels.features, labels, num_classes=CLASSES, covariance=kind)
    expected = oracle(voxels.features, labels, kind)
    assert float(found) == pytest.approx(expected, rel=1e-9)
    assert float(log) == pytest.approx(-np.log(-expected), rel=1e-9)
    assert -CLASSES * (CLASSES - 1) < float(found) < 0
    assert found.reasons == log.reasons == ()


@pytest.mark.parametrize("kind", KINDS)
def test_by_hand(kind):
    # Means 2 apart, variances 1: D_B = 4/8, two ordered pairs.
    features = np.array([[-1], [1], [1], [3]], np.float32)
    found = gbc(features, np.array([0, 0, 1, 1]), num_classes=2, covariance=kind)
    assert float(found) == pytest.approx(-2 * np.exp(-1 / 2), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_separable_classes_are_flagged_and_their_logarithm_still_orders(kind, draw):
    voxels = draw(1)
    logs = []
    for step in (1e3, 2e3):
        features = voxels.features + np.float32(step) * voxels.labels[:, None]
        found = score(features, voxels.labels, kind)
        assert float(found) == 0
        assert found.reasons == ("saturated",)
        log = log_gbc(features, voxels.labels, num_classes=CLASSES, covariance=kind)
        largest = np.logaddexp.reduce(overlaps(features, voxels.labels, kind))
        assert float(log) == pytest.approx(-largest, rel=1e-5)
        assert log.reasons == ()
        logs.append(float(log))
    assert logs[0] < logs[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_column_and_dependent_columns_meet_the_floor(kind, draw):
    voxels = draw(2)
    columns = [voxels.features, np.full((120, 1), 3, np.float32), voxels.features[:, :1]]
    features = np.concatenate(columns, 1)
    with jax.enable_x64(True):
        found = float(score(features, voxels.labels, kind, min_variance=0.01))
    assert found == pytest.approx(oracle(features, voxels.labels, kind, 0.01), rel=1e-9)
    constant = np.zeros((120, 2), np.float32)
    assert float(score(constant, voxels.labels, kind)) == pytest.approx(-6, rel=1e-6)


def test_a_class_of_one_voxel_is_left_out(draw):
    voxels = draw(3)
    labels = np.minimum(voxels.labels, 1)
    expected = oracle(voxels.features[1:], labels[1:], "full")
    labels[0] = 2
    found = score(voxels.features, labels, "full")
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert (int(found.classes_present), int(found.n_used)) == (2, 119)
    labels[1:] = 1
    alone = score(voxels.features, labels, "full")
    assert np.isnan(float(alone))
    assert alone.reasons == ("few classes",)


@pytest.mark.parametrize("kind", KINDS)
def test_more_features_than_components_are_projected(kind, draw):
    voxels = draw(4)
    features = voxels.features.astype(np.float64)
    axes = np.linalg.svd(features - features.mean(0))[2][:4]
    expected = oracle(features @ axes.T, voxels.labels, kind)
    with jax.enable_x64(True):
        found = float(score(voxels.features, voxels.labels, kind, components=4))
    assert found == pytest.approx(expected, rel=1e-8)


def test_repeats_offsets_and_rotations_change_nothing(draw):
    voxels = draw(5)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    mapped = (voxels.features.astype(np.float64) @ turn - 7).astype(np.float32).repeat(2, 0)
    for kind in ("spherical", "full"):
        found = score(mapped, voxels.labels.repeat(2), kind)
        assert float(found) == pytest.approx(oracle(*voxels[::2], kind), rel=1e-3)


def test_options_that_are_none_raise(draw):
    voxels = draw(6)
    with pytest.raises(ValueError, match="components must be at least 1, found 0"):
        score(*voxels[::2], "full", components=0)
    with pytest.raises(ValueError, match=r"min_variance must be above 0, found 0\.0"):
        score(*voxels[::2], "full", min_variance=0.0)
