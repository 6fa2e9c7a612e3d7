"""MRBrainS13 and 18: which files share the labels' grid, two codings, ignored labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxfer.data.nifti import read_header, read_volume
from jaxfer.data.verify import verify_cases
from jaxfer.errors import UserError
from jaxfer.tasks import IGNORE, classes_of
from tests.data.layouts.build import mrbrains13, mrbrains18, read

OLD = {
    "layout": "mrbrains",
    "folder": "MRBrainS13DataNii",
    "year": 2013,
    "label_file": "LabelsForTraining",
}
NEW = {"layout": "mrbrains", "folder": "MRBrainS18", "year": 2018, "label_file": "segm"}
MODALITIES = ("t1", "ir", "flair")


def test_2013_takes_the_images_on_the_grid_of_the_labels(tmp_path: Path) -> None:
    mrbrains13(tmp_path)
    dataset, _ = read(tmp_path, OLD)
    case = dataset.select("utrecht", "flair")[0]
    assert {m: i.path.name for m, i in case.images.items()} == {
        "t1": "T1.nii",
        "ir": "T1_IR.nii",
        "flair": "T2_FLAIR.nii",
    }
    assert verify_cases(dataset, dataset.cases, MODALITIES) == []
    thick = read_header(case.images["t1"].path)
    assert thick.spacing == pytest.approx((0.958, 0.958, 3.0))
    fine = case.images["t1"].path.with_name("T1_1mm.nii")
    assert read_header(fine).shape != thick.shape, "the trap that the test is about is there"
    assert not dataset.skull_stripped


def test_2013_people_of_both_parts_have_the_same_numbers(tmp_path: Path) -> None:
    mrbrains13(tmp_path)
    dataset, (warning,) = read(tmp_path, OLD)
    assert [c.id for c in dataset.cases] == [
        "TestData-1",
        "TestData-2",
        "TrainingData-1",
        "TrainingData-2",
    ]
    assert len({c.subject for c in dataset.cases}) == 4
    assert "2 case(s) without label map" in warning.what
    assert [c.id for c in dataset.select("all", "t1")] == ["TrainingData-1", "TrainingData-2"]


def test_2013_both_codings_tell_the_same_tissues(tmp_path: Path) -> None:
    mrbrains13(tmp_path, (1,))
    fine, _ = read(tmp_path, OLD)
    coarse, _ = read(tmp_path, OLD, label_file="LabelsForTesting")
    assert len(fine.label_names) == 9
    assert coarse.label_names == {0: "background", 1: "CSF", 2: "GM", 3: "WM"}
    for roi in ("tissue", "brain_matter"):
        maps = [
            classes_of(read_volume(d.cases[-1].label).astype(int), d.roi(roi))
            for d in (fine, coarse)
        ]
        np.testing.assert_array_equal(*maps)
        assert set(np.unique(maps[0])) == set(range(fine.roi(roi).num_classes))
    assert fine.roi("brain stem").classes == (("brain stem", (8,)),)
    assert coarse.roi("tissue").classes == (("CSF", (1,)), ("GM", (2,)), ("WM", (3,)))
    assert fine.roi("tissue").classes == (("CSF", (5, 6)), ("GM", (1, 2)), ("WM", (3, 4)))


def test_2013_letter_case_of_folders_and_files(tmp_path: Path) -> None:
    folder = mrbrains13(tmp_path, (1,))
    (folder / "TrainingData").rename(folder / "trainingdata")
    place = folder / "trainingdata" / "1"
    (place / "LabelsForTraining.nii").rename(place / "labelsfortraining.NII")
    (place / "T1.nii").rename(place / "t1.nii")
    dataset, _ = read(tmp_path, OLD)
    (case,) = dataset.select("all", "t1")
    assert case.id == "trainingdata-1"


def test_2013_the_older_release_is_told_apart(tmp_path: Path) -> None:
    place = tmp_path / OLD["folder"] / "TrainingData" / "1"
    place.mkdir(parents=True)
    (place / "T1.mhd").write_text("ObjectType = Image\n")
    (place / "T1.raw").write_bytes(b"\0")
    with pytest.raises(UserError, match="MetaImage") as caught:
        read(tmp_path, OLD)
    assert "NIfTI release" in str(caught.value)


@pytest.mark.parametrize("images", ["pre", "orig"])
def test_2018_takes_the_registered_images(tmp_path: Path, images: str) -> None:
    mrbrains18(tmp_path)
    dataset, problems = read(tmp_path, NEW, images=images)
    assert problems == []
    assert [c.id for c in dataset.cases] == ["training-070", "training-1"]
    for modality, name in (("t1", "reg_T1"), ("ir", "reg_IR"), ("flair", "FLAIR")):
        file = dataset.cases[0].images[modality].path
        assert (file.parent.name, file.name) == (images, f"{name}.nii.gz")
    assert verify_cases(dataset, dataset.cases, MODALITIES) == []
    own = dataset.cases[0].images["t1"].path.with_name("T1.nii.gz")
    assert read_header(own).shape != read_header(dataset.cases[0].label).shape
    assert not dataset.skull_stripped


def test_2018_infarctions_and_others_are_ignored_not_background(tmp_path: Path) -> None:
    mrbrains18(tmp_path, ("7",))
    dataset, _ = read(tmp_path, NEW)
    assert dataset.ignore == (9, 10)
    truth = read_volume(dataset.cases[0].label).astype(int)
    assert {9, 10} <= set(np.unique(truth))
    classes = classes_of(truth, dataset.roi("tissue"), dataset.ignore)
    np.testing.assert_array_equal(classes == IGNORE, np.isin(truth, (9, 10)))
    for name in ("infarction", "other"):
        with pytest.raises(UserError) as caught:
            dataset.roi(name)
        assert name not in str(caught.value.allowed).split(", ")


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        (OLD, "year", 2015),
        (OLD, "label_file", "segm"),
        (NEW, "label_file", "LabelsForTesting"),
        (NEW, "images", "raw"),
        (NEW, "imagse", "pre"),
    ],
)
def test_settings(tmp_path: Path, settings: dict, field: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"config\.datasets\.some\.{field}"):
        read(tmp_path, settings, **{field: value})
