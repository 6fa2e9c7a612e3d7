"""Augmentation: image, label and risk map move as one, and only as far as allowed."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy import ndimage

from jaxfer.data.augment import Augmentation, augment_patch
from jaxfer.tasks import IGNORE

NOTHING = Augmentation(flip=False, rotation=0.0, scale=0.0, intensity=0.0, noise=0.0)
WARP = Augmentation(flip=True, rotation=15.0, scale=0.2, intensity=0.0, noise=0.0)
FLIP = Augmentation(flip=True, rotation=0.0, scale=0.0, intensity=0.0, noise=0.0)
STRETCH = Augmentation(flip=False, rotation=0.0, scale=0.3, intensity=0.0, noise=0.0)
SHAPE = (20, 26)
ROWS, COLUMNS = np.indices(SHAPE).astype(np.float32)


@partial(jax.jit, static_argnames="how")
def under_keys(how: Augmentation, keys: Array, *patch: Array) -> tuple[Array, Array, Array]:
    return jax.vmap(lambda key: augment_patch(key, how, *patch))(keys)


def augmented(
    how: Augmentation, image: np.ndarray, label: np.ndarray, risk: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The patch under 300 keys."""
    keys = jax.random.split(jax.random.key(7), 300)
    floats = [jnp.asarray(a, jnp.float32) for a in (image[..., None], risk)]
    found = under_keys(how, keys, floats[0], jnp.asarray(label, jnp.int32), floats[1])
    image, label, risk = (np.asarray(a) for a in found)
    return image[..., 0], label, risk


@pytest.fixture
def patch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image without zeros, labels with some to ignore, a risk map."""
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, SHAPE).astype(np.float32)
    label = rng.choice([0, 1, 2, IGNORE], SHAPE)
    return image, label, rng.random(SHAPE).astype(np.float32)


def test_zeros_change_nothing(patch: tuple) -> None:
    for found, given in zip(augmented(NOTHING, *patch), patch, strict=True):
        np.testing.assert_array_equal(found, np.broadcast_to(given, found.shape))


def test_shapes_and_types_stay() -> None:
    image, label, risk = jnp.ones((6, 7, 1)), jnp.ones((6, 7), jnp.int32), jnp.ones((6, 7))
    found = augment_patch(jax.random.key(0), WARP, image, label, risk)
    for new, old in zip(found, (image, label, risk), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)


def test_the_same_key_gives_the_same_patch_and_another_one_another(patch: tuple) -> None:
    how = Augmentation(flip=True, rotation=10.0, scale=0.1, intensity=0.2, noise=0.1)
    first, again = augmented(how, *patch), augmented(how, *patch)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
        assert len(np.unique(a.reshape(len(a), -1), axis=0)) > 280


@pytest.mark.parametrize(
    ("how", "ramp"),
    [
        (WARP, ROWS),
        (WARP, COLUMNS),
        (FLIP, ROWS),
        (Augmentation(False, 30.0, 0.0, 0.0, 0.0), ROWS),
        (Augmentation(False, 30.0, 0.0, 0.0, 0.0), COLUMNS),
        (STRETCH, ROWS),
        (STRETCH, COLUMNS),
    ],
)
def test_image_label_and_risk_move_together(how: Augmentation, ramp: np.ndarray) -> None:
    ramp = ramp + 1
    image, label, risk = augmented(how, ramp, ramp, ramp)
    # Away from what is outside, linear interpolation of a ramp is exact, and the nearest label is
    # the ramp's, rounded.
    inner = ndimage.minimum_filter(label != IGNORE, (1, 3, 3), mode="constant", cval=False)
    assert inner.mean() > 0.5
    np.testing.assert_allclose(image[inner], risk[inner], atol=1e-4)
    assert np.abs(image - label)[inner].max() < 0.501
    assert (np.abs(image - ramp) > 0.5)[inner].mean() > 0.2


def test_what_comes_from_outside() -> None:
    image, label, risk = augmented(STRETCH, np.ones(SHAPE), np.ones(SHAPE), 5 + ROWS)
    outside = label == IGNORE
    assert 0 < outside.mean() < 0.5
    far = outside & (image == 0)
    assert far.any()
    np.testing.assert_allclose(risk[far], 1.0, atol=1e-6)
    assert set(np.unique(label)) == {1, IGNORE}
    # Neither wrapped nor mirrored: the middle of a patch is never from outside.
    assert not outside[:, 8:12, 10:16].any()


def test_labels_are_never_mixed(patch: tuple) -> None:
    image, label, risk = patch
    _, found, _ = augmented(WARP, image, np.where(label == 1, 200, label), risk)
    assert set(np.unique(found)) == {0, 2, 200, IGNORE}


def test_half_of_the_patches_are_mirrored_left_to_right(patch: tuple) -> None:
    image, label, risk = patch
    images, labels, risks = augmented(FLIP, image, label, risk)
    mirrored = (images == image[::-1]).all((1, 2))
    same = (images == image).all((1, 2))
    assert (mirrored ^ same).all()
    assert mirrored.mean() == pytest.approx(0.5, abs=0.1)
    assert (labels[mirrored] == label[::-1]).all()
    assert (risks[mirrored] == risk[::-1]).all()
    assert (labels[same] == label).all()
    assert (risks[same] == risk).all()


def test_angles_and_scales_stay_within_their_bounds_and_reach_them() -> None:
    how = Augmentation(False, 12.0, 0.2, 0.0, 0.0)
    _, _, risk = augmented(how, np.ones(SHAPE), np.ones(SHAPE), ROWS + 50)
    middle = risk[:, 7:13, 9:17]
    along, across = np.diff(middle, axis=1).mean((1, 2)), np.diff(middle, axis=2).mean((1, 2))
    angle, scale = np.rad2deg(np.arctan2(-across, along)), 1 / np.hypot(along, across)
    assert 11 < np.abs(angle).max() < 12.01
    assert angle.min() < -11 < 11 < angle.max()
    assert np.abs(angle.mean()) < 1.5
    assert 0.799 < scale.min() < 0.82
    assert 1.18 < scale.max() < 1.201
    # The middle of the patch stays where it is.
    np.testing.assert_allclose(middle.mean((1, 2)), 50 + 9.5, atol=1e-3)


def test_background_of_exact_zeros_stays_zero(patch: tuple) -> None:
    image, label, risk = patch
    image = np.where(ROWS < 8, 0.0, image).astype(np.float32)
    how = Augmentation(False, 0.0, 0.0, 0.3, 0.2)
    found, labels, risks = augmented(how, image, label, risk)
    np.testing.assert_array_equal(found[:, :8], 0.0)
    assert (found[:, 8:] != image[8:]).mean() > 0.99
    np.testing.assert_array_equal(labels, np.broadcast_to(label, labels.shape))
    np.testing.assert_array_equal(risks, np.broadcast_to(risk, risks.shape))


def test_gain_and_offset_are_one_per_patch_and_bounded(patch: tuple) -> None:
    image, label, risk = patch
    found, _, _ = augmented(Augmentation(False, 0.0, 0.0, 0.3, 0.0), image, label, risk)
    fits = np.array([np.polyfit(image.ravel(), f.ravel(), 1) for f in found])
    residual = found - (fits[:, :1, None] * image + fits[:, 1:, None])
    assert np.abs(residual).max() < 1e-4
    assert 0.7 <= fits[:, 0].min() < 0.72
    assert 1.28 < fits[:, 0].max() <= 1.3001
    assert 0.28 < np.abs(fits[:, 1]).max() <= 0.3001
    assert np.abs(np.corrcoef(fits.T)[0, 1]) < 0.2


def test_noise_is_bounded_and_independent(patch: tuple) -> None:
    image, label, risk = patch
    found, _, _ = augmented(Augmentation(False, 0.0, 0.0, 0.0, 0.5), image, label, risk)
    noise = found - image
    deviations = noise.std((1, 2))
    assert deviations.max() < 0.56
    assert deviations.min() < 0.05
    assert deviations.max() > 0.4
    assert np.abs(noise.mean()) < 0.01
    assert np.abs(np.mean(noise[:, 1:] * noise[:, :-1]) / np.mean(noise**2)) < 0.02
