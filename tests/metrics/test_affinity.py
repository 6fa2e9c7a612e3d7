"""SeqTran's affinity: distances of histograms against scipy, the traps of units and signs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from jaxfer.metrics import global_ssim
from jaxfer.metrics.affinity import (
    component_distances,
    histogram_distances,
    mask_similarities,
    task_affinity,
)


def images(seed, number, shape=(8, 8, 6)):
    rng = np.random.default_rng(seed)
    tables = rng.gamma(1 + np.arange(number).reshape(-1, 1, 1, 1), 2.0, (number, *shape))
    return tables.astype(np.float32)


def standardised(values):
    values = values.astype(np.float64)
    return (values - values.mean()) / values.std()


def oracle(a, b):
    return wasserstein_distance(standardised(a).ravel(), standardised(b).ravel())


def three_components(a, b):
    return component_distances(a, b, num_components=3)


def test_histograms_are_compared_as_scipy_does():
    a, b = images(0, 3), images(1, 2)
    # As many midpoints as voxels: the quantile functions as they are.
    found = histogram_distances(a, b, quantiles=a[0].size)
    np.testing.assert_allclose(found, [[oracle(x, y) for y in b] for x in a], 1e-5)
    coarse = histogram_distances(a, b, quantiles=200)
    np.testing.assert_allclose(coarse, found, 0.05, 0.01)


def test_images_of_two_grids_and_masks():
    a, b = images(2, 2), images(3, 1, (4, 4, 6))
    spoilt = a.copy()
    spoilt[:, 4:] = np.nan
    masks = np.isfinite(spoilt)
    found = histogram_distances(spoilt, b, masks_a=masks, quantiles=192)
    np.testing.assert_allclose(found, [[oracle(x[:4], b[0])] for x in a], 1e-5)


@pytest.mark.parametrize("distances", [histogram_distances, three_components])
def test_gain_and_offset_of_a_scanner_change_nothing(distances):
    a, b = images(4, 2), images(5, 2)
    expected = np.asarray(distances(a, b))
    np.testing.assert_allclose(distances(700 * a + 30, b / 9 - 2), expected, 1e-3, 1e-4)
    assert (expected > 0.01).all()
    np.testing.assert_allclose(np.diag(distances(a, a)), 0, atol=1e-6)
    np.testing.assert_allclose(distances(b, a), expected.T, 1e-5)


@pytest.mark.parametrize("distances", [histogram_distances, three_components])
def test_images_without_contrast_are_nan(distances):
    a = images(6, 3)
    a[1] = 5.3
    a[2, 0, 0, 0] = np.inf
    found = np.asarray(distances(a, images(7, 2)))
    np.testing.assert_array_equal(np.isnan(found), [[0, 0], [1, 1], [1, 1]])


def component_oracle(a, b, number):
    def scores(image):
        table = standardised(image).reshape(-1, image.shape[-1])
        table = table - table.mean(0)
        return (table @ np.linalg.svd(table, full_matrices=False)[2].T)[:, :number].T

    pairs = zip(scores(a), scores(b), strict=True)
    return np.mean([min(wasserstein_distance(x, y), wasserstein_distance(x, -y)) for x, y in pairs])


def test_components_are_compared_up_to_their_sign():
    a, b = images(8, 2), images(9, 2)
    found = component_distances(a, b, num_components=3, quantiles=64)
    expected = [[component_oracle(x, y, 3) for y in b] for x in a]
    np.testing.assert_allclose(found, expected, 1e-4)


def test_slices_in_another_order_have_the_same_components():
    a, b = images(10, 2), images(11, 2)
    order = np.random.default_rng(0).permutation(6)
    expected = component_distances(a, b, num_components=4)
    np.testing.assert_allclose(
        component_distances(a[..., order], b, num_components=4), expected, 1e-4
    )


def test_the_affinity_is_the_weighted_sum_of_defined_pairs():
    distances = np.array([[1.0, 3.0], [np.nan, 2.0]])
    similarities = np.array([[0.5, np.nan], [np.nan, 0.9]])
    found = task_affinity(distances, similarities, alpha=0.5, beta=2.0)
    assert float(found) == pytest.approx(0.5 * 2 + 2.0 * (1 - 0.7))
    assert float(found.image_distance) == pytest.approx(2)
    assert float(found.label_similarity) == pytest.approx(0.7)
    assert (int(found.image_pairs), int(found.label_pairs)) == (3, 2)
    undefined = task_affinity(distances, similarities * np.nan, alpha=0.5, beta=2.0)
    assert np.isnan(float(undefined))
    assert (float(undefined.image_distance), int(undefined.label_pairs)) == (2, 0)


def test_a_task_is_at_no_distance_from_itself():
    a, masks = images(12, 1), images(13, 1) > 3
    near = task_affinity(
        histogram_distances(a, a), mask_similarities(masks, masks), alpha=1.0, beta=1.0
    )
    assert float(near) == pytest.approx(0, abs=1e-6)
    far = task_affinity(
        histogram_distances(a, images(14, 1)),
        mask_similarities(masks, np.roll(masks, 4, 1)),
        alpha=1.0,
        beta=1.0,
    )
    assert float(far) > 0.1


def test_masks_are_compared_by_global_ssim():
    masks = images(15, 3) > 4
    flat = masks.reshape(3, -1)
    found = mask_similarities(masks, masks, k1=0.02)
    np.testing.assert_allclose(found, global_ssim(flat, flat, k1=0.02), 1e-6)


def test_jit_vmap_and_pmap():
    a, b = (np.stack([images(seed + shift, 2) for seed in range(4)]) for shift in (0, 50))
    a, b = jnp.asarray(a), jnp.asarray(b)
    expected = [histogram_distances(x, y) for x, y in zip(a, b, strict=True)]
    for mapped in (jax.vmap(histogram_distances), jax.pmap(histogram_distances)):
        np.testing.assert_allclose(mapped(a, b), expected, 1e-5)
    np.testing.assert_allclose(jax.jit(histogram_distances)(a[0], b[0]), expected[0], 1e-5)
    components = jax.vmap(lambda x, y: component_distances(x, y, num_components=2))(a, b)
    np.testing.assert_allclose(
        components[1], component_distances(a[1], b[1], num_components=2), 1e-4
    )


def test_misuse_raises():
    a = images(16, 2)
    with pytest.raises(ValueError, match="alpha must be 0 or more: found -1"):
        task_affinity(np.ones((1, 1)), np.ones((1, 1)), alpha=-1.0, beta=1.0)
    with pytest.raises(ValueError, match=r"num_components must be in \[1, 6\].*found 7"):
        component_distances(a, a, num_components=7)
    with pytest.raises(ValueError, match="masks must have the images' shape"):
        histogram_distances.__wrapped__(a, a, masks_a=np.ones((2, 3), bool))
