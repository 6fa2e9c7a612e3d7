"""CC-FV: the formula with general matrix roots, distances that are known, degenerate images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm

from jaxfer.metrics.cc_fv import CARD, CcFv, cc_fv, gaussian_w2

IMAGES, VOXELS, CLASSES = 4, 30, 3


def layers(seed, depths=(5, 40)):
    """Voxels of two layers, one with more features than voxels."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.permutation(np.arange(VOXELS) % CLASSES) for _ in range(IMAGES)])
    features = [
        (rng.standard_normal((IMAGES, VOXELS, d)) + rng.standard_normal((IMAGES, 1, d)) + 1)
        for d in depths
    ]
    return [f.astype(np.float32) for f in features], [labels.astype(np.int32)] * len(depths)


def score(features, labels, **kwargs):
    return cc_fv(features, labels, **{"num_classes": CLASSES, **kwargs})


def w2_oracle(mean_a, cov_a, mean_b, cov_b):
    middle = sqrtm(sqrtm(cov_a) @ cov_b @ sqrtm(cov_a)).real
    return np.sqrt(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * middle))


def gaussian(voxels, shrinkage):
    covariance = np.cov(voxels, rowvar=False, bias=True)
    shrunk = (1 - shrinkage) * covariance
    return voxels.mean(0), shrunk + shrinkage * np.trace(covariance) / len(shrunk) * np.eye(
        len(shrunk)
    )


def oracle(features, labels, shrinkage=0.1, exponent=1.0, background=0):
    """Consistency and variety of one layer."""
    features = features.astype(np.float64)
    consistency = 0.0
    for k in set(range(CLASSES)) - {background}:
        own = [
            gaussian(f[y == k], shrinkage)
            for f, y in zip(features, labels, strict=True)
            if (y == k).sum() > 1
        ]
        if len(own) > 1:
            consistency += np.mean(
                [w2_oracle(*a, *b) for i, a in enumerate(own) for b in own[i + 1 :]]
            )
    means = features.mean(1)
    points = means / np.linalg.norm(means, axis=1, keepdims=True)
    upper = np.triu_indices(len(points), 1)
    distances = np.linalg.norm(points[upper[0]] - points[upper[1]], axis=1)
    return consistency, 1 / np.mean(distances**-exponent)


@pytest.mark.parametrize("kwargs", [{}, {"shrinkage": 0.5, "exponent": 2.0}])
def test_is_the_formula(kwargs):
    features, labels = layers(0)
    expected = np.array([oracle(f, y, **kwargs) for f, y in zip(features, labels, strict=True)])
    found = score(features, labels, **kwargs)
    np.testing.assert_allclose(found.consistency, expected[:, 0], 1e-4)
    np.testing.assert_allclose(found.variety, expected[:, 1], 1e-5)
    np.testing.assert_allclose(found.layer_scores, np.log(expected[:, 1] / expected[:, 0]), 1e-4)
    assert float(found) == pytest.approx(float(found.layer_scores.mean()), rel=1e-6)
    assert found.reasons == ()
    assert int(found.score.n_used) == 2 * IMAGES * VOXELS
    assert found.classes_left_out.tolist() == [0, 0]


def test_singular_covariances_without_shrinkage():
    features, labels = layers(1)
    found = score(features, labels, shrinkage=0.0)
    expected = [oracle(f, y, 0.0)[0] for f, y in zip(features, labels, strict=True)]
    np.testing.assert_allclose(found.consistency, expected, 1e-4)


def test_distances_that_are_known():
    with jax.enable_x64(True):
        root = jnp.diag(jnp.array([3.0, 0.0, 1.0]))
        mean = jnp.array([1.0, 2.0, 3.0])
        assert float(gaussian_w2(mean, root, mean, root)) == 0
        assert float(gaussian_w2(mean, root, mean + 2, root)) == pytest.approx(12**0.5)
        # Covariances that commute: the distance of the roots.
        other = jnp.diag(jnp.array([1.0, 2.0, 1.0]))
        assert float(gaussian_w2(mean, root, mean, other)) == pytest.approx(8**0.5)
        turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
        turned = gaussian_w2(turn @ mean, turn @ root @ turn.T, turn @ mean, turn @ other @ turn.T)
        assert float(turned) == pytest.approx(8**0.5)


def test_the_mean_over_images_is_no_sum():
    """Unit distance between all images: 1 for one class, 2 for two, however many images."""
    rng = np.random.default_rng(2)
    cloud = rng.standard_normal((VOXELS, 6))
    cloud -= cloud.mean(0)
    moved = cloud[None] + np.eye(6)[:IMAGES, None] / 2**0.5
    labels = np.tile(np.arange(2), (IMAGES, VOXELS // 2)).astype(np.int32)
    # The same voxels with both labels: both classes' Gaussians only move with the image.
    features = [np.repeat(moved[:, : VOXELS // 2], 2, axis=1).astype(np.float32)]
    two = score(features, [labels + 1])
    one = score(features, [labels])
    assert float(two.consistency[0]) == pytest.approx(2, rel=1e-5)
    assert float(one.consistency[0]) == pytest.approx(1, rel=1e-5)


def test_a_class_in_one_image_is_left_out_and_counted():
    features, labels = layers(3, (5,))
    changed = labels[0].copy()
    changed[1:][changed[1:] == 2] = 0
    # One voxel has no covariance.
    changed[1, 0] = 2
    found = score(features, [changed])
    expected = oracle(features[0], changed)
    alone = changed.copy()
    alone[alone == 2] = 0
    assert found.classes_left_out.tolist() == [1]
    assert int(found.score.classes_present) == 1
    assert float(found.consistency[0]) == pytest.approx(oracle(features[0], alone)[0], rel=1e-4)
    assert float(found.variety[0]) == pytest.approx(expected[1], rel=1e-5)
    assert found.reasons == ()


def test_masked_voxels_and_images_contribute_nothing():
    features, labels = layers(4, (5,))
    spoilt, strange = features[0].copy(), labels[0].copy()
    spoilt[3], strange[3] = np.nan, 99
    found = score([spoilt], [strange], masks=[np.arange(IMAGES)[:, None].repeat(VOXELS, 1) < 3])
    expected = oracle(features[0][:3], labels[0][:3])
    assert float(found.consistency[0]) == pytest.approx(expected[0], rel=1e-4)
    assert float(found.variety[0]) == pytest.approx(expected[1], rel=1e-5)


def test_order_names_rotations_and_units():
    features, labels = layers(5, (5,))
    expected = score(features, labels)
    rng = np.random.default_rng(0)
    order, images = rng.permutation(VOXELS), rng.permutation(IMAGES)
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    moved = (features[0][images][:, order] @ turn).astype(np.float32)
    renamed = np.array([0, 2, 1])[labels[0][images][:, order]]
    assert float(score([moved], [renamed])) == pytest.approx(float(expected), rel=1e-4)
    scaled = score([1000 * features[0]], labels)
    assert float(scaled) == pytest.approx(float(expected) - np.log(1000), rel=1e-5)


def test_degenerate_images_are_nan_with_a_reason():
    features, labels = layers(6, (5,))
    same = score([features[0][:1].repeat(IMAGES, 0)], [labels[0][:1].repeat(IMAGES, 0)])
    assert np.isnan(float(same))
    assert same.reasons == ("identical",)
    assert (float(same.consistency[0]), float(same.variety[0])) == pytest.approx((0, 0), abs=1e-6)
    constant = score([0 * features[0] + 3.7], labels)
    assert constant.reasons == ("identical",)
    zero = score([0 * features[0]], labels)
    assert np.isnan(float(zero))
    assert zero.reasons == ("zero features", "identical")
    only_first = np.arange(IMAGES)[:, None].repeat(VOXELS, 1) < 1
    lone = score(features, labels, masks=[only_first])
    assert np.isnan(float(lone))
    assert lone.reasons == ("few images",)
    background = score(features, [0 * labels[0]])
    assert np.isnan(float(background))
    assert background.reasons == ("few images",)
    nothing = score(features, labels, masks=[only_first & False])
    assert np.isnan(float(nothing))
    assert nothing.reasons == ("no voxels", "few images")
    spoilt = features[0].copy()
    spoilt[1, 2, 3] = np.inf
    found = score([spoilt], labels)
    assert np.isnan(float(found))
    assert (int(found.score.n_invalid), found.reasons) == (1, ("invalid input",))


def test_jit_vmap_and_pmap():
    cases = [layers(seed, (5,)) for seed in range(4)]
    features, labels = (jnp.stack([case[i][0] for case in cases]) for i in (0, 1))
    expected = [float(score(*case)) for case in cases]

    def of(features, labels) -> CcFv:
        return score([features], [labels])

    for mapped in (jax.vmap(of), jax.pmap(of)):
        np.testing.assert_allclose(mapped(features, labels).score.score, expected, 1e-4)
    assert float(jax.jit(of)(features[0], labels[0])) == pytest.approx(expected[0], rel=1e-5)


def test_misuse_raises():
    features, labels = layers(7, (5,))
    with pytest.raises(ValueError, match="1 features, 0 labels"):
        score(features, [])
    with pytest.raises(ValueError, match="found 0 features"):
        score([], [])
    with pytest.raises(ValueError, match=r"labels must be whole numbers in \[0, 1\]"):
        score(features, labels, num_classes=2)
    with pytest.raises(ValueError, match=r"shrinkage must be in \[0, 1\]: found 2"):
        score(features, labels, shrinkage=2.0)
    with pytest.raises(ValueError, match="exponent must be above 0: found 0"):
        score(features, labels, exponent=0.0)
    assert CARD.compute is cc_fv
