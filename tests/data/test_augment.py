"""Augmentation: image, label and risk map move as one, and only as far as allowed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy import ndimage

from jaxfer.data.augment import Augmentation, augment_patch
from jaxfer.tasks import IGNORE

NOTHING = Augmentation()
WARP = Augmentation(flip=(0,), rotation=15.0, scale=0.2)
FLIP = Augmentation(flip=(0,))
STRETCH = Augmentation(scale=0.3)
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
    how = Augmentation(flip=(0,), rotation=10.0, scale=0.1, intensity=0.2, noise=0.1)
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
        (Augmentation(rotation=30.0), ROWS),
        (Augmentation(rotation=30.0), COLUMNS),
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
    how = Augmentation(rotation=12.0, scale=0.2)
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
    how = Augmentation(intensity=0.3, noise=0.2)
    found, labels, risks = augmented(how, image, label, risk)
    np.testing.assert_array_equal(found[:, :8], 0.0)
    assert (found[:, 8:] != image[8:]).mean() > 0.99
    np.testing.assert_array_equal(labels, np.broadcast_to(label, labels.shape))
    np.testing.assert_array_equal(risks, np.broadcast_to(risk, risks.shape))


def test_gain_and_offset_are_one_per_patch_and_bounded(patch: tuple) -> None:
    image, label, risk = patch
    found, _, _ = augmented(Augmentation(intensity=0.3), image, label, risk)
    fits = np.array([np.polyfit(image.ravel(), f.ravel(), 1) for f in found])
    residual = found - (fits[:, :1, None] * image + fits[:, 1:, None])
    assert np.abs(residual).max() < 1e-4
    assert 0.7 <= fits[:, 0].min() < 0.72
    assert 1.28 < fits[:, 0].max() <= 1.3001
    assert 0.28 < np.abs(fits[:, 1]).max() <= 0.3001
    assert np.abs(np.corrcoef(fits.T)[0, 1]) < 0.2


def test_noise_is_bounded_and_independent(patch: tuple) -> None:
    image, label, risk = patch
    found, _, _ = augmented(Augmentation(noise=0.5), image, label, risk)
    noise = found - image
    deviations = noise.std((1, 2))
    assert deviations.max() < 0.56
    assert deviations.min() < 0.05
    assert deviations.max() > 0.4
    assert np.abs(noise.mean()) < 0.01
    assert np.abs(np.mean(noise[:, 1:] * noise[:, :-1]) / np.mean(noise**2)) < 0.02


CUBE = (12, 10, 14)
ALL = {
    "rotation": 15.0,
    "scale": 0.2,
    "elastic": 3.0,
    "blur": 1.5,
    "low_resolution": 1.0,
    "gamma": 0.5,
    "intensity": 0.2,
    "noise": 0.1,
}
BENT = Augmentation(flip=(1,), rotation=20.0, scale=0.2, elastic=4.0)
both = pytest.mark.parametrize("shape", [SHAPE, CUBE], ids=["2-D", "3-D"])


def all_of_it(shape: tuple[int, ...], probability: float) -> Augmentation:
    often = {f"{name}_probability": probability for name in ("flip", *ALL)}
    return Augmentation(flip=tuple(range(len(shape))), **ALL, **often)


def random_patch(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    image = rng.normal(0, 1, shape).astype(np.float32)
    return image, rng.choice([0, 1, 2, IGNORE], shape), rng.uniform(2, 5, shape).astype(np.float32)


def sources(how: Augmentation, shape: tuple[int, ...]) -> np.ndarray:
    """Where each pixel comes from under every key; NaN outside: the warp of each axis' ramp."""
    ramps = np.indices(shape).astype(np.float32) + 100
    found = []
    for ramp in ramps:
        image, label, _ = augmented(how, ramp, np.zeros(shape), ramp)
        inside = ndimage.binary_erosion(label != IGNORE, np.ones((1, *(3,) * len(shape))))
        found.append(np.where(inside, image - 100, np.nan))
    return np.stack(found, axis=1)


@both
def test_a_patch_that_nothing_happens_to_keeps_every_bit(shape: tuple[int, ...]) -> None:
    given = random_patch(shape)
    for found, patch in zip(augmented(all_of_it(shape, 1e-9), *given), given, strict=True):
        np.testing.assert_array_equal(found, np.broadcast_to(patch, found.shape))


@both
def test_with_everything_on_labels_stay_labels_and_risk_in_its_range(shape: tuple) -> None:
    image, label, risk = random_patch(shape)
    found, labels, risks = augmented(all_of_it(shape, 1.0), image, label, risk)
    assert np.isfinite(found).all()
    assert set(np.unique(labels)) == {0, 1, 2, IGNORE}
    assert risks.min() >= 1
    assert risks.max() <= risk.max()
    # An all-ignored patch stays so: whatever comes from outside is ignored too.
    _, labels, _ = augmented(all_of_it(shape, 1.0), image, np.full(shape, IGNORE), risk)
    assert (labels == IGNORE).all()


@both
def test_a_landmark_is_at_the_same_place_in_image_label_and_risk(shape: tuple) -> None:
    index = np.indices(shape).astype(np.float32)
    place = np.array([n * 0.4 for n in shape]).reshape(-1, *[1] * len(shape))
    blob = np.exp(-((index - place) ** 2).sum(0) / 4).astype(np.float32)
    images, labels, risks = augmented(BENT, blob, (blob > 0.4).astype(int), 1 + blob)

    def centre(mass: np.ndarray) -> np.ndarray:
        return np.array(ndimage.center_of_mass(mass))

    edge = np.ones(shape, bool)
    edge[(slice(1, -1),) * len(shape)] = False
    moved = 0
    for image, label, risk in zip(images, labels, risks, strict=True):
        mask = label == 1
        if not mask.any() or (ndimage.binary_dilation(mask) & (edge | (label == IGNORE))).any():
            continue
        assert np.abs(centre(image * mask) - centre(mask)).max() < 0.5
        assert np.abs(centre((risk - 1) * mask) - centre(mask)).max() < 0.5
        moved += np.abs(centre(mask) - centre(blob > 0.4)).max() > 1
    assert moved > 20


@both
def test_values_are_interpolated_as_scipy_does(shape: tuple[int, ...]) -> None:
    image, label, risk = random_patch(shape)
    where = sources(BENT, shape)
    images, labels, risks = augmented(BENT, image, label, risk)
    known = np.isfinite(where).all(1)
    assert known.mean() > 0.2
    columns = np.moveaxis(where, 1, 0)[:, known]
    for found, values in ((images, image), (risks, risk)):
        expected = ndimage.map_coordinates(values.astype(np.float64), columns, order=1)
        np.testing.assert_allclose(found[known], expected, atol=3e-4)
    halfway = (np.abs(columns - np.floor(columns) - 0.5) < 1e-3).any(0)
    nearest = label[tuple(np.round(columns).astype(int))]
    np.testing.assert_array_equal(labels[known][~halfway], nearest[~halfway])


def test_the_strongest_elastic_warp_is_smooth_and_never_folds() -> None:
    shape = (70, 50)
    where = sources(Augmentation(elastic=7.0), shape)
    moved = where - np.indices(shape)
    assert 3 < np.nanmax(np.abs(moved)) <= 7
    rows, columns = (np.gradient(where[:, axis], axis=(1, 2)) for axis in range(2))
    jacobian = rows[0] * columns[1] - rows[1] * columns[0]
    assert np.nanmin(jacobian) > 0
    assert np.nanmin(jacobian) < 0.8
    assert np.nanmax(np.abs(np.diff(moved, 2, axis=2))) < 0.1
    assert np.isfinite(where).mean() > 0.7
    # No direction is favoured, and the places of one patch are not moved all alike.
    assert np.abs(np.nanmean(moved)) < 0.3
    assert np.nanmedian(np.nanstd(moved[:, 0], axis=(1, 2))) > 0.5


@pytest.mark.parametrize("sides", [(1.0, 3.0), (2.0, 1.0, 0.5)])
def test_a_rotation_is_rigid_in_millimetres(sides: tuple[float, ...]) -> None:
    shape = SHAPE if len(sides) == 2 else CUBE
    where = sources(Augmentation(rotation=20.0, spacing=sides), shape)
    middle = tuple(slice(n // 2 - 2, n // 2 + 2) for n in shape)
    steps = np.stack(
        [
            np.diff(where[(..., *middle)], axis=axis + 2).mean(tuple(range(2, 2 + len(shape))))
            for axis in range(len(shape))
        ],
        axis=2,
    )
    millimetres = steps * np.array(sides)[:, None] / np.array(sides)[None, :]
    gram = np.einsum("nij,nik->njk", millimetres, millimetres)
    usable = np.isfinite(gram).all((1, 2))
    assert usable.mean() > 0.9
    np.testing.assert_allclose(
        gram[usable], np.broadcast_to(np.eye(len(sides)), gram[usable].shape), atol=1e-3
    )
    turned = np.abs(millimetres[usable] - np.eye(len(sides))).max((1, 2))
    assert np.sin(np.deg2rad(15)) < turned.max() < np.sin(np.deg2rad(41))


def test_every_axis_is_mirrored_on_its_own() -> None:
    image, label, risk = random_patch(CUBE)
    how = Augmentation(flip=(0, 2), flip_probability=0.3)
    images, labels, risks = augmented(how, image, label, risk)
    seen = []
    for axes in ((), (0,), (2,), (0, 2)):
        same = (images == np.flip(image, axes)).all((1, 2, 3))
        assert (labels[same] == np.flip(label, axes)).all()
        assert (risks[same] == np.flip(risk, axes)).all()
        seen.append(same.mean())
    np.testing.assert_allclose(seen, [0.49, 0.21, 0.21, 0.09], atol=0.08)


@pytest.mark.parametrize("name", list(ALL))
def test_each_change_happens_to_its_share_of_the_patches(name: str, patch: tuple) -> None:
    how = Augmentation(**{name: ALL[name], f"{name}_probability": 0.3})
    image, _, _ = augmented(how, *patch)
    assert (image != patch[0]).any((1, 2)).mean() == pytest.approx(0.3, abs=0.09)
    assert not replace(how, **{f"{name}_probability": 0.0}).has(name)


def test_gamma_is_a_power_of_the_place_within_the_range(patch: tuple) -> None:
    image, label, risk = patch
    image = image.copy()
    image[3:6] = 0.0
    inside = image != 0
    found, labels, risks = augmented(Augmentation(gamma=0.5), image, label, risk)
    low, span = image[inside].min(), np.ptp(image[inside])
    place = (image.astype(np.float64) - low) / span
    probe = np.unravel_index(np.argmin(np.where(inside, np.abs(place - 0.4), 9)), SHAPE)
    exponents = np.log((found[:, *probe] - low) / span) / np.log(place[probe])
    expected = low + span * place ** exponents[:, None, None]
    np.testing.assert_allclose(found[:, inside], expected[:, inside], atol=2e-4)
    np.testing.assert_array_equal(found[:, ~inside], 0)
    assert 1 / 1.5 - 1e-3 < exponents.min() < 0.69
    assert 1.45 < exponents.max() < 1.501
    # As often up as down.
    assert np.abs(np.log(exponents).mean()) < 0.05
    np.testing.assert_array_equal(labels, np.broadcast_to(label, labels.shape))
    np.testing.assert_array_equal(risks, np.broadcast_to(risk, risks.shape))


@pytest.mark.parametrize("values", [0.0, 2.5])
def test_gamma_of_a_constant_changes_nothing(values: float, patch: tuple) -> None:
    found, _, _ = augmented(Augmentation(gamma=0.5), np.full(SHAPE, values), *patch[1:])
    np.testing.assert_array_equal(found, np.float32(values))


@both
def test_blur_is_that_of_scipy(shape: tuple[int, ...]) -> None:
    image, label, risk = random_patch(shape)
    how = Augmentation(blur=1.5)
    middle = tuple(n // 2 for n in shape)
    impulse = np.full(shape, 1e-9)  # not 0, which would be background
    impulse[middle] = 1.0
    answers, _, _ = augmented(how, impulse, label, risk)
    beside = answers[:, *middle[:-1], middle[-1] + 1] / answers[:, *middle]
    deviations = np.sqrt(-0.5 / np.log(np.maximum(beside, 1e-30)))
    assert deviations.max() <= 1.501
    assert deviations.max() > 1.45
    images, labels, _ = augmented(how, image, label, risk)
    for found, deviation in list(zip(images, deviations, strict=True))[:40]:
        if deviation < 0.3:  # the impulse's neighbour is lost in rounding
            continue
        settings = {"sigma": deviation, "mode": "constant", "radius": max(shape)}
        expected = ndimage.gaussian_filter(image.astype(np.float64), **settings)
        expected /= ndimage.gaussian_filter(np.ones(shape), **settings)
        np.testing.assert_allclose(found, expected, atol=2e-4)
    np.testing.assert_array_equal(labels, np.broadcast_to(label, labels.shape))


def averaged(values: np.ndarray, number: int, axis: int) -> np.ndarray:
    """An axis as so many longer voxels, each the mean over its extent, then linear in between."""

    def line(row: np.ndarray) -> np.ndarray:
        side = len(row) / number
        integral = np.concatenate([[0.0], np.cumsum(row)])
        edges = np.interp(np.arange(number + 1) * side, np.arange(len(row) + 1), integral)
        centres = (np.arange(number) + 0.5) * side
        return np.interp(np.arange(len(row)) + 0.5, centres, np.diff(edges) / side)

    return np.apply_along_axis(line, axis, values)


@both
def test_low_resolution_is_averaging_in_longer_voxels(shape: tuple[int, ...]) -> None:
    image, label, risk = random_patch(shape)
    found, _, _ = augmented(Augmentation(low_resolution=1.0), image, label, risk)
    candidates = {
        tuple(int(np.round(n / factor)) for n in shape) for factor in np.linspace(1, 2, 2001)
    }
    results = {}
    for numbers in candidates:
        values = image.astype(np.float64)
        for axis, number in enumerate(numbers):
            values = averaged(values, number, axis)
        results[numbers] = values
    seen = set()
    for image in found[:60]:
        error = {numbers: np.abs(image - r).max() for numbers, r in results.items()}
        best = min(error, key=error.__getitem__)
        assert error[best] < 1e-4
        seen.add(best)
    assert len(seen) > 5
    assert min(n[0] for n in seen) <= 0.6 * shape[0]
