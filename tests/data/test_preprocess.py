"""To the working grid and back: where voxels land, which labels survive, how intensities scale."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from scipy.spatial.transform import Rotation

from jaxfer.data.nifti import Header
from jaxfer.data.preprocess import (
    SPLINES,
    Geometry,
    Preprocessing,
    _between,
    bounding_box,
    field_of_view,
    image_to_working,
    labels_to_working,
    mask_to_working,
    normalise,
    percentile,
    restore,
    to_canonical,
    to_working,
)
from jaxfer.errors import UserError

ORIENTATIONS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(
    spacing: tuple[float, ...],
    order: tuple[int, ...] = (0, 1, 2),
    signs: tuple[int, ...] = (1, 1, 1),
    turn: float = 0.0,
) -> np.ndarray:
    """File axis i runs along the world axis order[i], forwards or backwards, then all is turned.

    Args:
        spacing: mm, of the file's axes.
        turn: degrees, about an oblique axis.
    """
    affine = np.eye(4)
    affine[:3, :3] = 0.0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * spacing[axis]
    rotation = Rotation.from_rotvec(np.deg2rad(turn) * np.array([2.0, -1.0, 2.0]) / 3)
    affine[:3, :3] = rotation.as_matrix() @ affine[:3, :3]
    affine[:3, 3] = (-31.0, 17.0, 5.0)
    return affine


def positions(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """World coordinates of every voxel, [x, y, z, 3]."""
    return np.stack(np.indices(shape), -1) @ affine[:3, :3].T + affine[:3, 3]


def ball(shape: tuple[int, ...], affine: np.ndarray, radius: float) -> np.ndarray:
    """Label 5 in a ball, in mm about the middle of the grid, and 2 in its half at larger x."""
    places = positions(shape, affine)
    centre = (np.array(shape) - 1) / 2 @ affine[:3, :3].T + affine[:3, 3]
    inside = np.linalg.norm(places - centre, axis=-1) <= radius
    return np.where(inside, np.where(places[..., 0] > centre[0], 2, 5), 0).astype(np.int32)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def back(working: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A working label map on the file's grid: the largest of the restored indicators."""
    values = np.unique(working)
    shares = [restore((working == v).astype(np.float32), geometry, float(v == 0)) for v in values]
    return values[np.argmax(shares, axis=0)]


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_every_orientation_comes_to_ras_and_back_exactly(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    shape, spacing = (4, 5, 6), (1.0, 2.0, 3.0)
    affine = affine_of(spacing, order, signs)
    world = [0.0, 0.0, 0.0]
    for axis in range(3):
        world[order[axis]] = spacing[axis]
    geometry = field_of_view(shape, affine, tuple(world))
    assert geometry.canonical_spacing == tuple(world)
    assert geometry.full_shape == geometry.canonical_shape

    places = positions(shape, affine)
    for axis in range(3):
        ramp = image_to_working(places[..., axis].astype(np.float32), geometry)
        steps = [np.unique(np.diff(ramp, axis=other).round(4)) for other in range(3)]
        expected = [[world[axis]] if other == axis else [0.0] for other in range(3)]
        for found, step in zip(steps, expected, strict=True):
            np.testing.assert_allclose(found, step, atol=1e-4)

    labels = np.random.default_rng(0).integers(0, 600, shape).astype(np.int32)
    working = labels_to_working(labels, geometry)
    np.testing.assert_array_equal(np.sort(working, None), np.sort(labels, None))
    np.testing.assert_array_equal(restore(working.astype(np.float32), geometry, 0.0), labels)
    np.testing.assert_array_equal(to_canonical(labels, geometry), working)


@pytest.mark.parametrize("turn", [0.0, 20.0, 40.0])
@pytest.mark.parametrize("crop", [False, True])
def test_oblique_files_come_back_exactly_at_equal_spacing(turn: float, crop: bool) -> None:
    shape = (13, 11, 9)
    affine = affine_of((1.5, 1.5, 1.5), (2, 0, 1), (-1, 1, -1), turn)
    labels = ball(shape, affine, 4.0)
    geometry = field_of_view(shape, affine, (1.5, 1.5, 1.5))
    working = labels_to_working(labels, geometry)
    if crop:
        start, size = bounding_box(working != 0, 1)
        geometry = replace(geometry, start=start, crop_shape=size)
        assert working[geometry.window].size < working.size
        working = working[geometry.window]
    np.testing.assert_array_equal(back(working, geometry), labels)


@pytest.mark.parametrize(
    ("spacing", "working"),
    [
        ((1.0, 1.0, 1.0), (1.3, 1.3, 1.3)),
        ((1.0, 1.0, 1.0), (0.7, 0.7, 0.7)),
        ((0.8, 1.0, 1.7), (1.0, 1.0, 1.0)),
        ((1.0, 1.0, 1.0), (0.8, 1.0, 1.5)),
    ],
)
@pytest.mark.parametrize("turn", [0.0, 15.0])
@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize(("order", "signs"), [ORIENTATIONS[0], ORIENTATIONS[21]])
def test_resampled_labels_come_back_nearly(
    spacing: tuple[float, ...],
    working: tuple[float, ...],
    turn: float,
    crop: bool,
    order: tuple[int, ...],
    signs: tuple[int, ...],
) -> None:
    shape = tuple(round(24 / s) for s in spacing)
    affine = affine_of(spacing, order, signs, turn)
    labels = ball(shape, affine, 8.0)
    geometry = field_of_view(shape, affine, working)
    volume = labels_to_working(labels, geometry)
    assert set(np.unique(volume)) == {0, 2, 5}
    if crop:
        start, size = bounding_box(volume != 0, 2)
        geometry = replace(geometry, start=start, crop_shape=size)
        volume = volume[geometry.window]
    restored = back(volume, geometry)
    assert restored.shape == shape
    for value in (2, 5):
        assert overlap(restored == value, labels == value) > 0.9


@pytest.mark.parametrize("working", [(1.0, 1.0, 1.0), (0.6, 1.0, 2.5), (1.9, 0.5, 1.0)])
@pytest.mark.parametrize(("order", "signs"), [ORIENTATIONS[0], ORIENTATIONS[11], ORIENTATIONS[38]])
def test_voxels_keep_their_place_in_space(
    working: tuple[float, ...], order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    shape, spacing = (20, 16, 24), (1.0, 1.5, 1.0)
    affine = affine_of(spacing, order, signs)
    geometry = field_of_view(shape, affine, working)
    places = positions(shape, affine)
    low, high = places.min((0, 1, 2)), places.max((0, 1, 2))
    for axis in range(3):
        # Voxel centres of the working grid lie evenly about the middle of the field of view.
        n = geometry.full_shape[axis]
        centres = (low[axis] + high[axis]) / 2 + (np.arange(n) - (n - 1) / 2) * working[axis]
        ramp = image_to_working(places[..., axis].astype(np.float32), geometry)
        line = ramp.mean(tuple(a for a in range(3) if a != axis))
        inner = (centres > low[axis] + 4) & (centres < high[axis] - 4)
        assert inner.sum() > 2
        np.testing.assert_allclose(line[inner], centres[inner], atol=1e-3)

        # And back: a ramp on the working grid, of what each voxel's centre is.
        line = centres.reshape([-1 if a == axis else 1 for a in range(3)])
        volume = np.broadcast_to(line, geometry.full_shape).astype(np.float32)
        restored = restore(volume, geometry, 0.0)
        middle = np.abs(places[..., axis] - (low[axis] + high[axis]) / 2) < 3
        np.testing.assert_allclose(restored[middle], places[..., axis][middle], atol=1e-3)


def test_the_field_of_view_keeps_its_size_in_mm() -> None:
    geometry = field_of_view((10, 21, 30), affine_of((2.0, 1.0, 0.5)), (1.0, 1.0, 1.0))
    assert geometry.full_shape == (20, 21, 15)
    assert geometry.crop_shape == geometry.full_shape
    assert geometry.start == (0, 0, 0)
    assert geometry.shape == (10, 21, 30)
    assert geometry.spacing == (1.0, 1.0, 1.0)
    thin = field_of_view((10, 10, 1), affine_of((1.0, 1.0, 0.1)), (1.0, 1.0, 1.0))
    assert thin.full_shape == (10, 10, 1)


def test_an_absurdly_fine_grid_is_refused() -> None:
    with pytest.raises(UserError, match=r"config\.data\.spacing") as caught:
        field_of_view((182, 218, 182), affine_of((1.0, 1.0, 2.0)), (0.1, 0.1, 0.1))
    assert "1820 × 2180 × 3640" in caught.value.found
    assert "1 × 1 × 2 mm" in caught.value.mend


def test_a_coarser_grid_averages_what_lies_between() -> None:
    board = (np.indices((27, 27, 27)).sum(0) % 2 * 2 - 1).astype(np.float32)
    coarse = image_to_working(board, field_of_view((27, 27, 27), np.eye(4), (3.0, 3.0, 3.0)))
    assert coarse.shape == (9, 9, 9)
    assert np.abs(coarse[2:-2, 2:-2, 2:-2]).max() < 0.05


def test_the_label_with_the_largest_share_wins() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 5, 530, 1000], (15, 14, 13)).astype(np.int32)
    geometry = field_of_view(labels.shape, affine_of((1.0, 1.0, 1.0)), (0.8, 1.4, 1.0))
    working = labels_to_working(labels, geometry)
    assert working.dtype == labels.dtype
    values = np.array([0, 5, 530, 1000])
    shares = [image_to_working((labels == v).astype(np.float32), geometry) for v in values]
    np.testing.assert_array_equal(working, values[np.argmax(shares, axis=0)])


def test_a_mask_covers_the_same_space() -> None:
    affine = affine_of((1.0, 1.0, 2.0))
    mask = ball((26, 26, 13), affine, 9.0) != 0
    geometry = field_of_view(mask.shape, affine, (1.0, 1.0, 1.0))
    working = mask_to_working(mask, geometry)
    assert working.shape == (26, 26, 26)
    expected = ball((26, 26, 26), affine_of((1.0, 1.0, 1.0)), 9.0) != 0
    assert overlap(working, expected) > 0.95


def case_on(affine: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A skull-stripped image on a file's grid, and its labels."""
    labels = ball(shape, affine, 6.0)
    places = positions(shape, affine)
    centre = (np.array(shape) - 1) / 2 @ affine[:3, :3].T + affine[:3, 3]
    brain = np.linalg.norm(places - centre, axis=-1) < 9.0
    image = np.where(brain, 100 + 3 * (places - centre) @ [1.0, 2.0, -1.0], 0)
    return image.astype(np.float32), labels


@pytest.mark.parametrize("turn", [0.0, 15.0, 40.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.0, 3.0), (0.9583333, 0.9583333, 3.0)])
@pytest.mark.parametrize(("order", "signs"), [ORIENTATIONS[i] for i in (0, 7, 13, 22, 34, 47)])
@pytest.mark.parametrize("skull_stripped", [True, False])
def test_predictions_land_exactly_where_the_labels_were(
    spacing: tuple[float, ...],
    turn: float,
    order: tuple[int, ...],
    signs: tuple[int, ...],
    skull_stripped: bool,
) -> None:
    shape = tuple(round(24 / s) for s in spacing)
    affine = affine_of(spacing, order, signs, turn)
    image, labels = case_on(affine, shape)
    # Headers hold float32: what is written there is not quite what was meant.
    header = Header(shape, affine.astype(np.float32).astype(np.float64))
    how = Preprocessing((0.0, 0.0, 0.0), (0.5, 99.5), skull_stripped)
    case = to_working({"t1": image}, labels, header, how)
    assert case.labels is not None
    assert case.labels.size < labels.size
    np.testing.assert_array_equal(back(case.labels, case.geometry), labels)
    z_scores = restore(case.images["t1"].astype(np.float32), case.geometry, 0.0)
    inside = image != 0
    assert np.corrcoef(z_scores[inside], image[inside])[0, 1] > 0.999


def test_spacings_of_0_keep_those_of_the_file() -> None:
    affine = affine_of((0.8, 1.2, 5.0), (2, 0, 1))
    geometry = field_of_view((30, 20, 6), affine, (1.0, 0.0, 0.0))
    assert geometry.canonical_spacing == (1.2, 5.0, 0.8)
    assert geometry.spacing == (1.0, 5.0, 0.8)
    assert geometry.full_shape == (24, 6, 30)


def test_headers_that_round_their_spacing_are_not_resampled() -> None:
    image = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
    for size, same in ((1.00001, True), (0.9999, True), (1.002, False)):
        geometry = field_of_view((40,) * 3, affine_of((size,) * 3), (1.0, 1.0, 1.0))
        assert geometry.full_shape == (40, 40, 40)
        assert np.array_equal(image_to_working(image, geometry), image) == same


def test_a_header_without_orientation_leaves_the_axes_as_they_are() -> None:
    image, labels = case_on(np.eye(4), (20, 22, 24))
    header = Header((20, 22, 24), np.diag([1.0, 1.5, 2.0, 1.0]), oriented=False)
    case = to_working({"t1": image}, labels, header, Preprocessing((0.0,) * 3, (0.0, 100.0), True))
    np.testing.assert_array_equal(case.labels, labels[case.geometry.window])
    assert case.geometry.spacing == (1.0, 1.5, 2.0)


def test_the_crop_is_resampled_as_the_whole_would_be() -> None:
    affine = affine_of((0.8, 1.0, 1.7), (1, 2, 0), (1, -1, 1), 10.0)
    image, labels = case_on(affine, (30, 26, 15))
    whole = field_of_view(image.shape, affine, (1.0, 1.3, 1.0))
    start = (3, 2, 5)
    crop = replace(whole, start=start, crop_shape=(7, 9, 6))
    for interpolation in SPLINES:
        np.testing.assert_allclose(
            image_to_working(image, crop, interpolation),
            image_to_working(image, whole, interpolation)[crop.window],
            atol=1e-3,
        )
    np.testing.assert_array_equal(
        labels_to_working(labels, crop), labels_to_working(labels, whole)[crop.window]
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [((9, 5, 7), (4, 11, 7)), ((1, 2, 6), (3, 5, 13)), ((6, 1, 4), (1, 1, 2))],
    ids=str,
)
def test_lines_are_those_of_a_general_affine_transform(
    old: tuple[int, ...], new: tuple[int, ...]
) -> None:
    volume = np.random.default_rng(0).standard_normal(old).astype(np.float32)
    scale = np.array(old) / np.array(new)
    offset = (np.array(old) - 1) / 2 - scale * (np.array(new) - 1) / 2
    expected = ndimage.affine_transform(
        volume.astype(np.float64), scale, offset, output_shape=new, order=1, mode="nearest"
    )
    np.testing.assert_allclose(_between(volume, scale, offset, new), expected, atol=1e-6)


def test_splines_are_closer_to_smooth_images_than_lines() -> None:
    geometry = field_of_view((30, 30, 30), np.eye(4), (0.7, 0.7, 0.7))

    def wave(scale: float, shape: tuple[int, ...]) -> np.ndarray:
        x, y, z = ((np.arange(n) - (n - 1) / 2) * scale for n in shape)
        return (np.sin(x)[:, None, None] * np.cos(y)[:, None] * np.cos(z)).astype(np.float32)

    truth = wave(0.7, geometry.full_shape)[5:-5, 5:-5, 5:-5]
    errors = {
        name: np.abs(
            image_to_working(wave(1.0, (30, 30, 30)), geometry, name)[5:-5, 5:-5, 5:-5] - truth
        ).max()
        for name in ("linear", "spline")
    }
    assert errors["spline"] < errors["linear"] / 3


@given(
    arrays.arrays(np.float32, st.integers(1, 400), elements=st.floats(-100, 100, width=32)),
    st.floats(0, 100),
)
def test_percentiles_are_those_of_numpy(values: np.ndarray, wanted: float) -> None:
    expected = np.percentile(values.astype(np.float64), wanted)
    assert percentile(values, wanted) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("order", ["random", "rising", "falling", "few values", "sampled high"])
def test_percentiles_of_many_values_whatever_their_order(order: str) -> None:
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    if order in ("rising", "falling"):
        values = np.sort(values)[:: 1 if order == "rising" else -1]
    elif order == "few values":
        values = values.round()
    elif order == "sampled high":
        values[:: len(values) // 4096 + 1] = 50.0
    for wanted in (0.0, 0.5, 1.0, 33.0, 50.0, 99.5, 100.0):
        expected = np.percentile(values.astype(np.float64), wanted)
        assert percentile(values, wanted) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_outside_of_the_crop_is_filled() -> None:
    whole = field_of_view((6, 7, 8), affine_of((1.0, 1.0, 1.0), signs=(-1, 1, 1)), (1.0, 1.0, 1.0))
    geometry = replace(whole, start=(1, 2, 3), crop_shape=(2, 2, 2))
    restored = restore(np.full((2, 2, 2), 4.0, np.float32), geometry, -1.0)
    expected = np.full((6, 7, 8), -1.0)
    # The first axis of the file runs to the left: canonical 1 and 2 are 4 and 3 of the file.
    expected[3:5, 2:4, 3:5] = 4.0
    np.testing.assert_array_equal(restored, expected)


@given(
    arrays.arrays(bool, arrays.array_shapes(min_dims=3, max_dims=3, max_side=6)),
    st.integers(0, 3),
)
def test_the_box_is_the_smallest_with_its_margin(mask: np.ndarray, margin: int) -> None:
    start, size = bounding_box(mask, margin)
    if not mask.any():
        assert (start, size) == ((0, 0, 0), mask.shape)
        return
    places = np.argwhere(mask)
    low = np.maximum(places.min(0) - margin, 0)
    high = np.minimum(places.max(0) + margin, np.array(mask.shape) - 1)
    np.testing.assert_array_equal(start, low)
    np.testing.assert_array_equal(size, high - low + 1)


def test_intensities_are_z_scores_of_the_clipped_brain() -> None:
    rng = np.random.default_rng(2)
    brain = rng.random((12, 12, 12)) < 0.4
    image = np.where(brain, rng.normal(300.0, 50.0, brain.shape), 0.0).astype(np.float32)
    image[tuple(np.argwhere(brain)[0])] = 1e6
    image[tuple(np.argwhere(~brain)[0])] = -1e6
    result = normalise(image, brain, (1.0, 99.0))

    assert result.dtype == np.float32
    np.testing.assert_array_equal(result[~brain], 0.0)
    assert result[brain].mean(dtype=np.float64) == pytest.approx(0.0, abs=1e-5)
    assert result[brain].std(dtype=np.float64) == pytest.approx(1.0, abs=1e-5)
    inside = image[brain].astype(np.float64)
    clipped = np.clip(inside, *np.percentile(inside, [1.0, 99.0]))
    np.testing.assert_allclose(
        result[brain], (clipped - clipped.mean()) / clipped.std(), rtol=1e-4, atol=1e-5
    )


def test_a_flat_brain_and_no_brain_at_all_are_zero() -> None:
    image = np.full((4, 4, 4), 7.0, np.float32)
    for brain in (np.ones((4, 4, 4), bool), np.zeros((4, 4, 4), bool)):
        np.testing.assert_array_equal(normalise(image, brain, (0.5, 99.5)), 0.0)
