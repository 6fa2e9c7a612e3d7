"""SSIM of masks: every pair against the formula, and the traps of small RoIs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from jaxfer.metrics import global_ssim, similarity
from jaxfer.metrics.similarity import dice_of_pairs, windowed_ssim


def oracle(a, b, k1=0.01, k2=0.03, dynamic_range=1.0):
    a, b = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (k1 * dynamic_range) ** 2, (k2 * dynamic_range) ** 2
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    luminance = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
    return luminance * (2 * covariance + c2) / (a.var() + b.var() + c2)


def table(masks_a, masks_b, **kwargs):
    return np.array([[oracle(a, b, **kwargs) for b in masks_b] for a in masks_a])


@pytest.mark.parametrize("kwargs", [{}, {"k1": 0.3, "k2": 0.3}, {"dynamic_range": 255.0}])
def test_every_pair_is_the_formula(kwargs):
    rng = np.random.default_rng(0)
    level = kwargs.get("dynamic_range", 1.0)
    masks_a = level * rng.random((4, 300)).round(1).astype(np.float32)
    masks_b = level * (rng.random((3, 300)) < 0.2).astype(np.float32)
    found = global_ssim(masks_a, masks_b, **kwargs)
    np.testing.assert_allclose(found, table(masks_a, masks_b, **kwargs), 1e-5)


def test_volumes_longer_than_a_block():
    rng = np.random.default_rng(1)
    masks = rng.random((2, 2 * similarity.BLOCK + 17)) < 0.01
    with jax.enable_x64(True):
        np.testing.assert_allclose(global_ssim(masks, masks), table(masks, masks), 1e-9)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 0.95))
def test_bounded_symmetric_and_one_for_identical_masks(seed, share):
    masks = np.random.default_rng(seed).random((3, 64)) < share
    masks[:, seed % 64] = True
    found = np.asarray(global_ssim(masks, masks))
    np.testing.assert_allclose(np.diag(found), 1, 1e-6)
    np.testing.assert_allclose(found, found.T, 1e-6)
    assert np.all(np.abs(found) <= 1 + 1e-6)


def test_disjoint_lesions_are_dissimilar_unless_the_constants_swamp_them():
    masks = np.zeros((2, 32, 32, 32), bool)
    masks[0, 4:9, 4:9, 4:9] = masks[1, 20:25, 20:25, 20:25] = True
    masks = masks.reshape(2, -1)
    assert float(global_ssim(masks, masks)[0, 1]) == pytest.approx(0.10, abs=0.01)
    swamped = global_ssim(masks, masks, k1=0.3, k2=0.3)
    assert float(swamped[0, 1]) == pytest.approx(0.92, abs=0.01)


def test_pairs_with_an_empty_mask_are_nan():
    masks = np.zeros((3, 50), bool)
    masks[0, :5] = masks[2, 3:9] = True
    found = np.asarray(global_ssim(masks, masks))
    np.testing.assert_array_equal(np.isnan(found), [[0, 1, 0], [1, 1, 1], [0, 1, 0]])


def test_jit_and_vmap():
    masks = np.random.default_rng(2).random((3, 4, 80)) < 0.3
    expected = [table(each, each) for each in masks]
    np.testing.assert_allclose(jax.vmap(global_ssim)(masks, masks), expected, 1e-5, 1e-6)
    masks = jnp.asarray(masks)
    np.testing.assert_allclose(jax.jit(global_ssim)(masks[0], masks[0]), expected[0], 1e-5, 1e-6)


def test_masks_of_two_grids_raise():
    with pytest.raises(ValueError, match="found 8 and 9 voxels"):
        global_ssim.__wrapped__(np.ones((1, 8), bool), np.ones((1, 9), bool))


def blobs(number, shape, seed):
    rng = np.random.default_rng(seed)
    smooth = [scipy.ndimage.gaussian_filter(rng.standard_normal(shape), 1.5) for _ in range(number)]
    return np.stack([s > np.quantile(s, 0.9) for s in smooth])


@pytest.mark.parametrize("kwargs", [{}, {"k1": 0.3, "k2": 0.3}, {"window": 3}])
def test_windows_are_scikit_images(kwargs):
    ours = blobs(2, (12, 15, 11), 0)
    theirs = blobs(3, (12, 15, 11), 1) * np.float32(0.7)
    theirs[2] = ours[1]
    options = {"K1": kwargs.get("k1", 0.01), "K2": kwargs.get("k2", 0.03)}
    options |= {"win_size": kwargs.get("window", 7), "use_sample_covariance": False}
    expected = [
        [structural_similarity(a * 1.0, b * 1.0, data_range=1.0, **options) for b in theirs]
        for a in ours
    ]
    found = windowed_ssim(ours, theirs, **kwargs)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert float(found[1, 2]) == pytest.approx(1, abs=1e-6)


def test_windows_of_an_empty_mask_and_of_another_grid():
    masks = blobs(2, (9, 9, 9), 0)
    masks[1] = False
    found = np.asarray(windowed_ssim(masks, masks))
    np.testing.assert_array_equal(np.isnan(found), [[0, 1], [1, 1]])
    with pytest.raises(ValueError, match="window must be odd, from 1 to 9: found 11"):
        windowed_ssim(masks, masks, window=11)
    with pytest.raises(ValueError, match="found 4"):
        windowed_ssim(masks, masks, window=4)


def test_dice_of_every_pair():
    masks = np.random.default_rng(0).random((4, 200)) < 0.3
    masks[3] = False
    found = np.asarray(dice_of_pairs(masks[:2], masks))
    expected = [[2 * (a & b).sum() / (a.sum() + b.sum()) for b in masks[:3]] for a in masks[:2]]
    np.testing.assert_allclose(found[:, :3], expected, 1e-6)
    assert np.isnan(found[:, 3]).all()
    with pytest.raises(ValueError, match="found 200 and 199 voxels"):
        dice_of_pairs.__wrapped__(masks, masks[:, :199])
