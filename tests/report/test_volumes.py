"""The slice that is shown, and which way up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from jaxfer.errors import UserError
from jaxfer.report.records import LabelValues, TestCase
from jaxfer.report.volumes import case_slice, fullest_slice, head_window, read_volume, shown

LABELS = (LabelValues("WMH", 4, (4, 5)),)


def save(path: Path, values: np.ndarray, axes: str = "RAS") -> Path:
    """Stores an RAS+ volume with its axes in another order and direction."""
    image = nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0]))
    wanted = nibabel.orientations.axcodes2ornt(tuple(axes))
    have = nibabel.orientations.io_orientation(image.affine)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(have, wanted))
    assert "".join(nibabel.aff2axcodes(turned.affine)) == axes
    nibabel.save(turned, path)
    return path


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "PIR", "SAL"])
def test_every_storage_is_shown_alike(tmp_path: Path, axes: str) -> None:
    values = np.zeros((5, 7, 3), np.int16)
    values[4, 3, 1] = 1  # the patient's right
    values[2, 6, 1] = 2  # the front
    volume = read_volume(save(tmp_path / "image.nii.gz", values, axes))
    picture = shown(volume.values, 1)
    assert picture.shape == (7, 5)
    assert picture[3, 0] == 1, "the patient's right is on the left"
    assert picture[0, 2] == 2, "the front is up"
    assert volume.aspect == 2.0


def test_of_several_volumes_one_is_read(tmp_path: Path) -> None:
    values = np.stack([np.full((2, 3, 4), i, np.int16) for i in (7, 9)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "series.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "series.nii.gz").values, values[..., 0])
    assert np.array_equal(read_volume(tmp_path / "series.nii.gz", 1).values, values[..., 1])


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_broken_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image.nii.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"image\.nii\.gz"):
        read_volume(tmp_path / "image.nii.gz")


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = save(tmp_path / "image.nii.gz", rng.normal(size=(20, 20, 20)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"image\.nii\.gz"):
        read_volume(path)


def test_fullest_slice_is_the_first_of_equals() -> None:
    amount = np.zeros((4, 4, 5), bool)
    amount[0, :2, 1] = amount[3, :2, 3] = True
    assert fullest_slice(amount) == 1


def case_files(folder: Path, truth: np.ndarray, prediction: np.ndarray) -> tuple[TestCase, Path]:
    image = np.zeros(truth.shape, np.int16)
    image[6:14, 8:20] = 100
    case = TestCase(
        case="c",
        subject="p",
        image=save(folder / "image.nii.gz", image),
        label=save(folder / "label.nii.gz", truth, "LPS"),
        predictions={},
        risk=None,
    )
    return case, save(folder / "prediction.nii.gz", prediction)


def marked(slices: dict[int, int], value: int) -> np.ndarray:
    """A label volume with so many voxels of a value in these slices."""
    labels = np.zeros((20, 30, 9), np.uint8)
    for index, count in slices.items():
        labels[8, 9 : 9 + count, index] = value
    return labels


def test_the_channel_that_was_segmented_is_shown(tmp_path: Path) -> None:
    case, prediction = case_files(tmp_path, marked({5: 7}, 4), marked({}, 4))
    first = nibabel.load(case.image)
    values = np.stack([np.asarray(first.dataobj), 3 * np.asarray(first.dataobj)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(values, first.affine), tmp_path / "series.nii.gz")
    for channel, brightest in ((0, 100.0), (1, 300.0)):
        several = replace(case, image=tmp_path / "series.nii.gz", channel=channel)
        assert case_slice(several, LABELS, prediction).image.max() == brightest


@pytest.mark.parametrize(
    ("truth", "prediction", "index", "empty"),
    [
        ({2: 3, 5: 7}, {7: 9}, 5, False),
        ({}, {7: 9, 1: 2}, 7, True),
        ({}, {}, 4, True),
    ],
)
def test_the_slice_with_the_most_truth_is_shown(
    tmp_path: Path, truth: dict, prediction: dict, index: int, empty: bool
) -> None:
    cut = case_slice(*reversed_last(case_files(tmp_path, marked(truth, 5), marked(prediction, 4))))
    assert (cut.index, cut.n_slices, cut.truth_empty) == (index, 9, empty)
    assert cut.truth["WMH"].sum() == truth.get(index, 0)
    assert cut.prediction["WMH"].sum() == prediction.get(index, 0)
    assert cut.risk is None


def reversed_last(files: tuple[TestCase, Path]) -> tuple[TestCase, tuple, Path]:
    case, prediction = files
    return case, LABELS, prediction


def test_a_value_outside_the_group_is_not_truth(tmp_path: Path) -> None:
    case, prediction = case_files(tmp_path, marked({3: 5}, 1), marked({3: 5}, 5))
    cut = case_slice(case, LABELS, prediction)
    assert cut.truth_empty
    assert not cut.prediction["WMH"].any()


def test_the_window_keeps_the_head_and_all_that_is_marked() -> None:
    picture = np.zeros((100, 80))
    picture[30:60, 20:50] = 10
    keep = np.zeros((100, 80), bool)
    keep[90, 70] = True
    assert head_window(picture, keep) == (slice(28, 93), slice(18, 73))
    assert head_window(picture, np.zeros_like(keep)) == (slice(28, 62), slice(18, 52))


def test_an_image_of_one_value_is_kept_whole() -> None:
    picture = np.full((10, 12), 3.0)
    assert head_window(picture, np.zeros((10, 12), bool)) == (slice(0, 10), slice(0, 12))


def test_another_grid_is_named(tmp_path: Path) -> None:
    case, _ = case_files(tmp_path, marked({3: 5}, 4), marked({3: 5}, 4))
    other = save(tmp_path / "other.nii.gz", np.zeros((20, 30, 8), np.uint8))
    with pytest.raises(UserError, match=r"other\.nii\.gz is not on the grid") as caught:
        case_slice(case, LABELS, other)
    assert "(20, 30, 8)" in str(caught.value.found)
