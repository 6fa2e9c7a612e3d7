"""PARC: the rank correlation by scipy, its ties, and degenerate input."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from scipy.stats import spearmanr

from jaxfer.metrics.parc import parc
from tests.metrics import contract

CLASSES = 3


def oracle(features, labels, num_components=None):
    columns = features.astype(np.float64) - features.astype(np.float64).mean(0)
    if num_components is not None:
        _, _, axes = np.linalg.svd(columns, full_matrices=False)
        axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
        columns = columns @ axes[:num_components].T
    columns = columns / columns.std(0)
    pairs = np.triu_indices(len(labels), 1)
    one_hot = np.eye(CLASSES)[labels]
    by_feature = (1 - np.corrcoef(columns)).round(10)[pairs]
    by_label = (1 - np.corrcoef(one_hot))[pairs]
    return 100 * spearmanr(by_feature, by_label.round(9)).statistic


def score(features, labels, **kwargs):
    return parc(features, labels, num_classes=CLASSES, **kwargs)


@pytest.mark.parametrize("num_components", [None, 4])
def test_is_the_rank_correlation(num_components, draw):
    voxels = draw(0, n=60)
    with jax.enable_x64(True):
        found = score(voxels.features, voxels.labels, num_components=num_components)
    expected = oracle(voxels.features, voxels.labels, num_components)
    assert float(found) == pytest.approx(expected, rel=1e-8)
    assert int(found.n_used) == 60


def test_by_hand():
    # Rows of two values correlate with ±1: four of six pairs at distance 2, two at 0.
    features = np.array([[0, 1], [0, 2], [1, 0], [2, 0]], np.float32)
    same, crossed = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    found = parc(features, same, num_classes=2, num_components=None)
    assert float(found) == pytest.approx(100, rel=1e-6)
    # Of four far pairs two are of one class: ρ of the table (0, 2; 2, 2) is −½.
    found = parc(features, crossed, num_classes=2, num_components=None)
    assert float(found) == pytest.approx(-50, rel=1e-6)


def test_repeated_voxels_tie(draw):
    voxels = draw(1, n=60)
    features, labels = np.repeat(voxels.features[:30], 2, 0), np.repeat(voxels.labels[:30], 2)
    columns = (features - features.mean(0, dtype=np.float64)) / features.std(0, dtype=np.float64)
    pairs = np.triu_indices(60, 1)
    expected = spearmanr(
        (1 - np.corrcoef(columns)).round(10)[pairs], labels[pairs[0]] != labels[pairs[1]]
    ).statistic
    found = score(features, labels, num_components=None)
    assert float(found) == pytest.approx(100 * expected, rel=1e-6)


def test_columns_without_variance_change_nothing(draw):
    voxels = draw(2, n=60, features=3)
    whole = np.concatenate([voxels.features, np.full((60, 3), 0.1, np.float32)], axis=1)
    for num_components in (None, 32):
        expected = float(score(voxels.features, voxels.labels, num_components=num_components))
        found = score(whole, voxels.labels, num_components=num_components)
        assert float(found) == pytest.approx(expected, rel=1e-5)


def test_rows_that_do_not_vary_are_left_out(draw):
    voxels = draw(3, n=60)
    half = voxels.features[:29]
    features = np.concatenate([half, -half, np.zeros((2, 6), np.float32)])  # column means 0
    found = score(features, voxels.labels, num_components=None)
    expected = oracle(features[:58], voxels.labels[:58])
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert (int(found.n_used), int(found.n_invalid)) == (58, 0)
    # Twice the same column: every row is constant, and none is left.
    line = np.repeat(np.arange(60, dtype=np.float32)[:, None], 6, 1)
    nothing = score(line, voxels.labels, num_components=None)
    assert np.isnan(float(nothing))
    assert nothing.reasons == ("no voxels", "few classes")
    constant = score(np.full((60, 6), 0.1, np.float32), voxels.labels)
    assert constant.reasons == ("no voxels", "few classes")


def test_no_two_voxels_of_one_class_leave_nothing_to_order(draw):
    assert float(parc(draw(4, n=60).features, np.arange(60), num_classes=60)) == 0


def test_more_features_than_voxels_and_separated_classes(draw):
    labels = draw(5, n=60).labels
    apart = 50 * np.eye(3, 6, dtype=np.float32)[labels]
    noisy = (apart + np.random.default_rng(5).standard_normal((60, 6))).astype(np.float32)
    alike = float(score(noisy, labels, num_components=None))
    assert alike > 75
    few = score(noisy, labels, mask=np.arange(60) < 5)
    assert -100 <= float(few) <= 100
    with pytest.raises(ValueError, match="num_components must be at least 1 or None: found 0"):
        score(noisy, labels, num_components=0)


def test_the_contract(draw):
    voxels = draw(6, n=60)
    contract.check(functools.partial(parc, num_components=4), voxels.features, voxels.labels, 1e-4)
