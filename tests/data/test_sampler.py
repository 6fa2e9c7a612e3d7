"""Batches: what is in a patch, where it is from, and which batch comes when."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxfer.data.sampler import (
    TaskCase,
    class_frequencies,
    risk_of,
    task_case,
    training_batches,
)
from jaxfer.data.store import StoredCase
from jaxfer.tasks import IGNORE, RoI

ROI = RoI("lesion", (("core", (3,)), ("rim", (1, 2))))
Put = Callable[..., StoredCase]


def draw(cases: Sequence[TaskCase], **changes: object) -> list[dict[str, np.ndarray]]:
    settings = {"patch": (6, 6), "batch_size": 4, "foreground_patches": 0.5, "seed": 1, "steps": 5}
    return list(training_batches(cases, **(settings | changes)))


def joined(batches: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}


def assert_same(a: Sequence[dict[str, np.ndarray]], b: Sequence[dict[str, np.ndarray]]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.fixture
def numbered(put_in_store: Put, tmp_path: Path) -> TaskCase:
    """Every voxel's image is its number, its label a function of it, its risk two more."""
    shape = (16, 14, 9)
    number = np.arange(np.prod(shape)).reshape(shape)  # at most 2048, exact in half precision
    stored = put_in_store("numbered", number, (number % 5).astype(np.uint8))
    np.save(tmp_path / "risk.npy", np.asfortranarray(number + 2.0, np.float32))
    case = task_case(stored, "t1", ROI, ignore=(4,))
    return replace(case, risk=tmp_path / "risk.npy")


def test_counts_frequencies_and_fractions(put_in_store: Put) -> None:
    labels = np.random.default_rng(0).integers(0, 5, (7, 6, 5)).astype(np.uint8)
    case = task_case(put_in_store("a", np.ones(labels.shape), labels), "t1", ROI, ignore=(4,))
    classes = np.choose(labels, [0, 2, 2, 1, IGNORE])
    np.testing.assert_array_equal(case.classes(), classes)
    for z, c in itertools.product(range(5), range(3)):
        assert case.counts[z, c] == np.count_nonzero(classes[:, :, z] == c)
    usable = np.count_nonzero(labels != 4)
    foreground = np.count_nonzero((labels > 0) & (labels < 4))
    assert case.foreground_fraction == pytest.approx(foreground / usable)

    empty = task_case(
        put_in_store("b", np.ones((5, 4, 3)), np.zeros((5, 4, 3), np.uint8)), "t1", ROI, ()
    )
    assert empty.foreground_fraction == 1.0
    both = np.array([60 * (c == 0) + np.count_nonzero(classes == c) for c in range(3)])
    np.testing.assert_allclose(class_frequencies([case, empty]), both / both.sum())
    np.testing.assert_array_equal(risk_of(empty), np.ones((5, 4, 3), np.float32))


@pytest.mark.parametrize("foreground_patches", [0.0, 1.0])
@pytest.mark.parametrize("patch", [(6, 8), (16, 14), (20, 8), (7, 21), (24, 32)])
def test_image_label_and_risk_are_cut_from_one_place(
    numbered: TaskCase, patch: tuple[int, int], foreground_patches: float
) -> None:
    batches = draw([numbered], patch=patch, steps=10, foreground_patches=foreground_patches)
    for batch in batches:
        assert batch["image"].shape == (4, *patch, 1)
        assert batch["image"].dtype == np.float32
        assert batch["label"].dtype == np.int32
        assert batch["risk"].dtype == np.float32
        assert batch["foreground_fraction"].shape == (4,)
        np.testing.assert_allclose(batch["foreground_fraction"], numbered.foreground_fraction)
    found = joined(batches)
    volume = np.asarray(numbered.image(), np.float32)
    number_of_places = set()
    for image, label, risk in zip(found["image"], found["label"], found["risk"], strict=True):
        image = image[..., 0]
        inside = risk != 1
        rows, columns = inside.any(1), inside.any(0)
        np.testing.assert_array_equal(inside, np.outer(rows, columns))
        height, width = rows.sum(), columns.sum()
        assert (height, width) == (min(patch[0], 16), min(patch[1], 14))
        np.testing.assert_array_equal(image[~inside], 0)
        np.testing.assert_array_equal(label[~inside], IGNORE)
        # What is missing is missing on both sides alike.
        assert np.flatnonzero(rows)[0] == (patch[0] - height) // 2
        assert np.flatnonzero(columns)[0] == (patch[1] - width) // 2

        numbers = image[inside].reshape(height, width).astype(int)
        x, y, z = np.unravel_index(numbers[0, 0], volume.shape)
        np.testing.assert_array_equal(numbers, volume[x : x + height, y : y + width, z])
        np.testing.assert_array_equal(risk[inside], image[inside] + 2)
        expected = np.choose(numbers % 5, [0, 2, 2, 1, IGNORE])
        np.testing.assert_array_equal(label[inside].reshape(height, width), expected)
        number_of_places.add((x, y, z))
    assert len(number_of_places) > 5


def test_without_a_risk_map_the_risk_is_one(numbered: TaskCase) -> None:
    found = joined(draw([replace(numbered, risk=None)]))
    np.testing.assert_array_equal(found["risk"], 1.0)


@pytest.mark.parametrize("patch", [(6, 6), (6, 5, 4)])
def test_a_batch_depends_on_the_seed_and_its_number_alone(
    numbered: TaskCase, patch: tuple[int, ...]
) -> None:
    whole = draw([numbered], patch=patch, steps=8)
    assert len(whole) == 8
    assert_same(whole, draw([numbered], patch=patch, steps=8))
    assert_same(whole[:3], draw([numbered], patch=patch, steps=3))
    for start in (0, 1, 5, 7, 8):
        assert_same(whole[start:], draw([numbered], patch=patch, start=start, steps=8))
    np.testing.assert_array_equal(joined(whole)["index"], np.arange(32))
    other = joined(draw([numbered], patch=patch, steps=8, seed=2))
    assert not np.array_equal(other["image"], joined(whole)["image"])
    # A patch does not depend on how many share its batch.
    assert_same([joined(whole)], [joined(draw([numbered], patch=patch, steps=4, batch_size=8))])


def test_taking_up_late_costs_nothing(numbered: TaskCase) -> None:
    far = 10**7
    (batch,) = draw([numbered], start=far, steps=far + 1)
    np.testing.assert_array_equal(batch["index"], far * 4 + np.arange(4))


@pytest.fixture
def needle(put_in_store: Put) -> TaskCase:
    """One voxel of foreground beside much background, and some that is ignored."""
    labels = np.zeros((40, 50, 6), np.uint8)
    labels[30, 8, 2] = 3
    labels[:, 45:, :] = 4
    image = np.where(labels == 3, 9.0, 1.0)
    return task_case(put_in_store("needle", image, labels), "t1", ROI, ignore=(4,))


@pytest.mark.parametrize("patch", [(16, 16), (9, 12), (64, 64)])
def test_foreground_patches_hold_foreground(needle: TaskCase, patch: tuple[int, int]) -> None:
    batches = joined(draw([needle], patch=patch, foreground_patches=1.0, steps=20))
    seen = (batches["label"] == 1).any((1, 2))
    assert seen.all()
    np.testing.assert_array_equal(batches["label"] == 1, batches["image"][..., 0] == 9)
    if patch != (64, 64):
        places = np.argwhere(batches["label"] == 1)[:, 1:]
        # Near the middle, and not always in one spot of it.
        off = np.abs(places - np.array(patch) // 2)
        near_edge = np.array([0, max(patch[1] // 2 - 8, 0)])
        assert (off <= np.array(patch) // 4 + near_edge + 1).all()
        assert len(np.unique(places[:, 0])) > 2


def test_the_share_of_foreground_patches(needle: TaskCase) -> None:
    shares = {
        wanted: (joined(draw([needle], foreground_patches=wanted, steps=100))["label"] == 1)
        .any((1, 2))
        .mean()
        for wanted in (0.0, 0.5, 1.0)
    }
    assert shares[0.0] < 0.05
    assert shares[0.5] == pytest.approx(0.5, abs=0.08)
    assert shares[1.0] == 1.0


def test_cases_without_foreground_still_give_patches(put_in_store: Put) -> None:
    labels = np.full((12, 12, 4), 4, np.uint8)
    labels[:6] = 0
    case = task_case(put_in_store("a", np.ones(labels.shape), labels), "t1", ROI, ignore=(4,))
    found = joined(draw([case], foreground_patches=1.0))
    assert set(np.unique(found["label"])) == {0, IGNORE}


def test_cases_are_drawn_alike_whatever_their_size(put_in_store: Put) -> None:
    cases = []
    for value, shape in enumerate([(8, 8, 2), (30, 30, 40), (9, 20, 7)], start=1):
        stored = put_in_store(str(value), np.full(shape, value), np.zeros(shape, np.uint8))
        cases.append(task_case(stored, "t1", ROI, ()))
    found = joined(draw(cases, steps=150))
    drawn = np.bincount(found["image"].max((1, 2, 3)).astype(int), minlength=4)[1:]
    np.testing.assert_allclose(drawn / 600, 1 / 3, atol=0.07)


def test_all_slices_and_all_places_are_drawn(numbered: TaskCase) -> None:
    found = joined(draw([numbered], steps=150, foreground_patches=0.0))
    numbers = np.unique(found["image"][found["risk"] != 1])
    assert len(numbers) > 0.99 * 16 * 14 * 9


@pytest.mark.parametrize("foreground_patches", [0.0, 1.0])
@pytest.mark.parametrize(("plane", "normal"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
def test_slices_of_every_plane(
    numbered: TaskCase, plane: str, normal: int, foreground_patches: float
) -> None:
    case = replace(
        task_case(numbered.stored, "t1", ROI, ignore=(4,), plane=plane), risk=numbered.risk
    )
    volume = np.asarray(case.image(), np.float32)
    assert volume.shape == (16, 14, 9)
    classes = np.moveaxis(case.classes(), normal, 2)
    for index in range(3):
        np.testing.assert_array_equal(case.counts[:, index], (classes == index).sum((0, 1)))
    found = joined(draw([case], patch=(5, 6), steps=20, foreground_patches=foreground_patches))
    slices = set()
    for image, label, risk in zip(found["image"], found["label"], found["risk"], strict=True):
        numbers = image[..., 0].astype(int)
        places = np.stack(np.unravel_index(numbers, volume.shape))
        (number,) = np.unique(places[normal])
        slices.add(int(number))
        # The two axes that are left stay in order, one pixel apart.
        rows, columns = np.delete(places, normal, axis=0)
        assert (np.diff(rows, axis=0) == 1).all()
        assert (np.diff(columns, axis=1) == 1).all()
        np.testing.assert_array_equal(risk, numbers + 2)
        np.testing.assert_array_equal(label, np.choose(numbers % 5, [0, 2, 2, 1, IGNORE]))
    assert len(slices) > 0.8 * volume.shape[normal]


@pytest.mark.parametrize("foreground_patches", [0.0, 1.0])
@pytest.mark.parametrize("patch", [(6, 8, 4), (16, 14, 9), (20, 8, 12), (7, 21, 16)])
def test_patches_in_3_d(
    numbered: TaskCase, patch: tuple[int, int, int], foreground_patches: float
) -> None:
    shape = (16, 14, 9)
    found = joined(draw([numbered], patch=patch, steps=8, foreground_patches=foreground_patches))
    assert found["image"].shape == (32, *patch, 1)
    assert found["label"].shape == found["risk"].shape == (32, *patch)
    size = [min(p, n) for p, n in zip(patch, shape, strict=True)]
    place = tuple(slice((p - n) // 2, (p - n) // 2 + n) for p, n in zip(patch, size, strict=True))
    outside = np.ones(patch, bool)
    outside[place] = False
    volume = np.asarray(numbered.image(), np.float32)
    starts = set()
    for image, label, risk in zip(found["image"], found["label"], found["risk"], strict=True):
        assert (image[outside] == 0).all()
        assert (label[outside] == IGNORE).all()
        assert (risk[outside] == 1).all()
        numbers = image[..., 0][place].astype(int)
        start = np.unravel_index(numbers[0, 0, 0], shape)
        window = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
        np.testing.assert_array_equal(numbers, volume[window])
        np.testing.assert_array_equal(risk[place], numbers + 2)
        np.testing.assert_array_equal(label[place], np.choose(numbers % 5, [0, 2, 2, 1, IGNORE]))
        starts.add(start)
    assert len(starts) > min(np.prod([n - s + 1 for n, s in zip(shape, size, strict=True)]), 10) / 2


@pytest.mark.parametrize("patch", [(16, 16, 4), (9, 12, 2), (64, 64, 8)])
def test_foreground_patches_in_3_d_hold_foreground(
    needle: TaskCase, patch: tuple[int, int, int]
) -> None:
    found = joined(draw([needle], patch=patch, foreground_patches=1.0, steps=10))
    assert (found["label"] == 1).any((1, 2, 3)).all()
    np.testing.assert_array_equal(found["label"] == 1, found["image"][..., 0] == 9)
    found = joined(draw([needle], patch=(4, 4, 2), foreground_patches=0.0, steps=40))
    assert (found["label"] == 1).any((1, 2, 3)).mean() < 0.1


def test_in_3_d_every_voxel_of_foreground_is_as_likely_in_2_d_every_slice(
    put_in_store: Put,
) -> None:
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[4:10, 4:10, 4] = 3  # 36 voxels in one slice, and 4 in four others
    labels[20, 20, 20:24] = 3
    case = task_case(put_in_store("a", labels + 1, labels), "t1", ROI, ())
    for patch, share in (((8, 8, 1), 0.9), ((8, 8), 0.2)):
        found = joined(draw([case], patch=patch, foreground_patches=1.0, steps=60))
        axes = tuple(range(1, len(patch) + 1))
        big = (found["label"] == 1).sum(axes) > 4
        assert big.mean() == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("patch", [(8, 8), (8, 8, 2)])
def test_small_classes_are_drawn_as_often_as_large_ones(
    put_in_store: Put, patch: tuple[int, ...]
) -> None:
    labels = np.zeros((60, 30, 12), np.uint8)
    labels[2:28, 2:28, 1:11] = 1  # of the rim
    labels[50, 15, 6] = 3  # of the core, far away
    case = task_case(put_in_store("a", labels + 1, labels), "t1", ROI, ())
    found = joined(draw([case], patch=patch, foreground_patches=1.0, steps=100))["label"]
    axes = tuple(range(1, found.ndim))
    assert (found == 1).any(axes).mean() == pytest.approx(0.5, abs=0.08)
    assert ((found == 1).any(axes) ^ (found == 2).any(axes)).all()


@pytest.mark.parametrize("parts", [2, 4])
def test_the_parts_of_several_processes_are_the_batch(numbered: TaskCase, parts: int) -> None:
    whole = draw([numbered], start=2)
    shares = [draw([numbered], start=2, share=(part, parts)) for part in range(parts)]
    assert_same([joined(batches) for batches in zip(*shares, strict=True)], whole)


def test_centres_are_drawn_in_proportion_to_the_weights(numbered: TaskCase, tmp_path: Path) -> None:
    weights = np.zeros((16, 14, 9), np.float32)
    weights[8, 7, 2], weights[4, 5, 6] = 3.0, 1.0
    np.save(tmp_path / "drawn.npy", np.asfortranarray(weights))
    case = replace(numbered, drawn_by=tmp_path / "drawn.npy")
    drawn = joined(draw([case], foreground_patches=1.0, steps=100, patch=(2, 2)))
    centres = drawn["image"][:, 1, 1, 0].astype(int)
    places, counts = np.unique(centres, return_counts=True)
    numbers = np.ravel_multi_index(([4, 8], [5, 7], [6, 2]), weights.shape)
    assert places.tolist() == sorted(numbers.tolist())
    assert counts[places == numbers[1]] / counts.sum() == pytest.approx(0.75, abs=0.07)
    np.save(tmp_path / "drawn.npy", np.asfortranarray(0 * weights))
    assert_same(draw([case]), draw([numbered]))
