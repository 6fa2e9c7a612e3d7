"""WMH 2017: sites at different depths, an odd folder name, float masks, the label to ignore."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from jaxfer.data.layouts.wmh import site_of
from jaxfer.data.nifti import read_header, read_volume
from jaxfer.data.verify import verify_cases
from jaxfer.errors import UserError
from jaxfer.tasks import IGNORE, classes_of
from tests.data.layouts.build import nifti, read, scan, wmh

WMH = {"layout": "wmh", "folder": "WMH", "images": "pre"}


def test_every_site_at_its_depth(tmp_path: Path) -> None:
    wmh(tmp_path)
    dataset, problems = read(tmp_path, WMH)
    assert problems == []
    assert [(c.id, c.site) for c in dataset.cases] == [
        ("GE1T5-150", "GE1T5"),
        ("GE3T-100", "GE3T"),
        ("PETMR-200", "PETMR"),
        ("Singapore-50", "Singapore"),
        ("Utrecht-0", "Utrecht"),
    ]
    assert verify_cases(dataset, dataset.cases, ("t1", "flair")) == []
    assert not dataset.skull_stripped


@pytest.mark.parametrize(
    ("folder", "site"),
    [
        ("Philips_VU .PETMR_01.", "PETMR"),
        ("Philips_VU .PETMR_01", "PETMR"),
        ("Philips_VU.PETMR_01.", "PETMR"),
        ("utrecht", "Utrecht"),
        ("GE1T5", "GE1T5"),
        ("GE3T", "GE3T"),
        ("Leiden .", "Leiden"),
    ],
)
def test_sites_whatever_the_unpacker_left_of_their_names(folder: str, site: str) -> None:
    assert site_of(folder) == site


def test_a_name_with_a_space_and_a_trailing_dot_is_read(tmp_path: Path) -> None:
    wmh(tmp_path, ["test/Amsterdam/Philips_VU .PETMR_01."])
    dataset, _ = read(tmp_path, WMH)
    (case,) = dataset.select("PETMR", "flair")
    assert "/Philips_VU .PETMR_01./" in str(case.label)
    assert read_volume(case.images["flair"].path).any()


@pytest.mark.parametrize("images", ["pre", "orig"])
def test_3dt1_is_on_another_grid_and_not_taken(tmp_path: Path, images: str) -> None:
    wmh(tmp_path, ["training/Utrecht"])
    dataset, _ = read(tmp_path, WMH, images=images)
    (case,) = dataset.cases
    assert {m: i.path.name for m, i in case.images.items()} == {
        "t1": "T1.nii.gz",
        "flair": "FLAIR.nii.gz",
    }
    assert {i.path.parent.name for i in case.images.values()} == {images}
    own = read_header(case.images["t1"].path.with_name("3DT1.nii.gz"))
    assert own.shape != read_header(case.label).shape


def test_masks_are_float_and_2_is_ignored(tmp_path: Path) -> None:
    wmh(tmp_path, ["training/Utrecht"])
    dataset, _ = read(tmp_path, WMH)
    (case,) = dataset.cases
    assert nib.load(case.label).get_data_dtype() == np.float32
    truth = read_volume(case.label)
    assert set(np.unique(truth)) == {0, 1, 2}
    assert dataset.roi("WMH").classes == (("WMH", (1,)),)
    classes = classes_of(truth.astype(int), dataset.roi("WMH"), dataset.ignore)
    np.testing.assert_array_equal(classes == 1, truth == 1)
    np.testing.assert_array_equal(classes == IGNORE, truth == 2)
    with pytest.raises(UserError, match="no RoI") as caught:
        dataset.roi("other pathology")
    assert caught.value.allowed == "WMH"


def test_a_value_of_the_website_list_is_unknown(tmp_path: Path) -> None:
    wmh(tmp_path, ["training/Utrecht"], values=(1, 2, 3))
    dataset, _ = read(tmp_path, WMH)
    (problem,) = verify_cases(dataset, dataset.cases, ("flair",))
    assert problem.found == "3"


def test_shapes_differ_within_a_site(tmp_path: Path) -> None:
    wmh(tmp_path, ["training/Singapore"], shape=(16, 14, 10))
    wmh(tmp_path / "other", ["training/Singapore"], shape=(14, 16, 10))
    turned = tmp_path / "other" / "WMH" / "training" / "Singapore" / "0"
    shutil.move(turned, tmp_path / "WMH" / "training" / "Singapore" / "1")
    dataset, problems = read(tmp_path, WMH)
    assert problems == []
    assert len({read_header(c.label).shape for c in dataset.cases}) == 2
    assert verify_cases(dataset, dataset.cases, ("t1", "flair")) == []


def test_second_annotations_are_no_cases(tmp_path: Path) -> None:
    wmh(tmp_path, ["training/Utrecht"])
    nifti(tmp_path / "WMH/additional_annotations/o4/test/9/result.nii.gz", np.ones((2, 2, 2)))
    dataset, _ = read(tmp_path, WMH)
    assert [c.id for c in dataset.cases] == ["Utrecht-0"]


def test_a_test_part_without_masks(tmp_path: Path) -> None:
    folder = wmh(tmp_path, ["training/Utrecht", "test/Amsterdam/GE1T5"])
    (folder / "test/Amsterdam/GE1T5/50/wmh.nii.gz").unlink()
    dataset, (warning,) = read(tmp_path, WMH)
    assert warning.found == "GE1T5-50"
    assert [c.id for c in dataset.select("all", "flair")] == ["Utrecht-0"]


def test_a_mask_without_images_is_told(tmp_path: Path) -> None:
    folder = wmh(tmp_path, ["training/Utrecht"], number=2)
    shutil.rmtree(folder / "training" / "Utrecht" / "1" / "pre")
    dataset, problems = read(tmp_path, WMH)
    assert [(p.severity, p.found) for p in problems] == [("warning", "Utrecht-1")] * 2
    assert [c.id for c in dataset.select("all", "t1")] == ["Utrecht-0"]


def test_a_folder_without_cases(tmp_path: Path) -> None:
    nifti(tmp_path / "WMH" / "a" / "FLAIR.nii.gz", scan(np.zeros((4, 4, 4), int)))
    with pytest.raises(UserError, match="no usable case") as caught:
        read(tmp_path, WMH)
    assert "wmh.nii.gz" in str(caught.value)
