"""nnU-Net's raw format: both versions of dataset.json, regions, the ignored label, channels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxfer.data.nifti import read_volume
from jaxfer.data.verify import verify_cases
from jaxfer.errors import UserError
from jaxfer.tasks import IGNORE, classes_of
from tests.data.layouts.build import nnunet, read

SETTINGS = {
    "layout": "nnunet",
    "folder": "Dataset007_Lesion",
    "modality": ("t1", "flair"),
    "skull_stripped": True,
}
SECOND = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "core": 1, "rim": 2, "cyst": 3},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
FIRST = {
    "name": "Lesion",
    "modality": {"0": "T1w", "1": "FLAIR"},
    "labels": {"0": "background", "1": "core", "2": "rim", "3": "cyst"},
    "numTraining": 2,
    "training": [{"image": "./imagesTr/b.nii.gz", "label": "./labelsTr/b.nii.gz"}],
}


@pytest.mark.parametrize("described", [FIRST, SECOND], ids=["v1", "v2"])
def test_both_versions(tmp_path: Path, described: dict) -> None:
    nnunet(tmp_path, described)
    dataset, problems = read(tmp_path, SETTINGS)
    assert problems == []
    assert [c.id for c in dataset.cases] == ["a_01", "b"]
    files = {m: i.path.name for m, i in dataset.cases[0].images.items()}
    assert files == {"t1": "a_01_0000.nii.gz", "flair": "a_01_0001.nii.gz"}
    assert dataset.label_names == {0: "background", 1: "core", 2: "rim", 3: "cyst"}
    assert dataset.roi("some").class_names == ("core", "rim", "cyst")
    assert dataset.roi("rim").classes == (("rim", (2,)),)
    assert dataset.ignore == ()
    assert verify_cases(dataset, dataset.cases, ("t1", "flair")) == []


def test_regions_are_rois_and_ignore_is_ignored(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    described = SECOND | {"labels": labels, "regions_class_order": [1, 2]}
    nnunet(tmp_path, described)
    dataset, problems = read(tmp_path, SETTINGS)
    assert problems == []
    assert dataset.roi("whole").classes == (("whole", (1, 2)),)
    assert dataset.roi("core").classes == (("core", (2,)),)
    assert dataset.ignore == (3,)
    assert dataset.roi("some").classes == (("1", (1,)), ("core", (2,)))
    assert verify_cases(dataset, dataset.cases, ("t1",)) == []
    truth = read_volume(dataset.cases[0].label)
    classes = classes_of(truth.astype(int), dataset.roi("whole"), dataset.ignore)
    np.testing.assert_array_equal(classes == IGNORE, truth == 3)
    np.testing.assert_array_equal(classes == 1, np.isin(truth, (1, 2)))
    with pytest.raises(UserError):
        dataset.roi("ignore")


def test_one_channel(tmp_path: Path) -> None:
    nnunet(tmp_path, SECOND | {"channel_names": {"0": "T2"}}, n=1)
    dataset, problems = read(tmp_path, SETTINGS, modality="t2")
    assert problems == []
    assert {m: i.channel for m, i in dataset.cases[0].images.items()} == {"t2": None}


def test_channels_that_the_configuration_lacks_or_mixes_up(tmp_path: Path) -> None:
    nnunet(tmp_path, SECOND)
    _, problems = read(tmp_path, SETTINGS, modality="t1")
    assert {p.severity for p in problems} == {"error", "warning"} - {"warning"}
    assert sum("channel of the configuration" in p.what for p in problems) == 2
    _, problems = read(tmp_path, SETTINGS, modality=("flair", "t1"))
    assert [p.what for p in problems] == [
        "channel 0 is 'T1', not 'flair'",
        "channel 1 is 'FLAIR', not 't1'",
    ]


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    folder = nnunet(tmp_path, SECOND, cases=("a", "b", "c"))
    (folder / "imagesTr" / "a_0001.nii.gz").unlink()
    (folder / "labelsTr" / "b.nii.gz").unlink()
    (folder / "labelsTr" / "._b.nii.gz").touch()
    dataset, problems = read(tmp_path, SETTINGS)
    assert all(p.severity == "warning" for p in problems)
    told = [p.what.split(":")[0] for p in problems]
    assert told == [
        "it announces 2 cases, 3 are there",
        "1 case(s) without flair",
        "1 case(s) without label map",
    ]
    assert [c.id for c in dataset.select("all", "flair")] == ["c"]


@pytest.mark.parametrize(
    "labels",
    [
        {"tumour": 1},
        {"background": 0},
        {"background": 0, "tumour": "one"},
        {"background": 0, "tumour": []},
        {"background": 0, "tumour": -1},
        {"background": 0, "tumour": True},
        {"0": "background", "1": "a", "2": "a"},
        {"0": "background", "x": "a"},
        ["background", "tumour"],
        None,
    ],
)
def test_bad_labels(tmp_path: Path, labels: object) -> None:
    folder = nnunet(tmp_path, SECOND | {"labels": labels})
    with pytest.raises(UserError, match="labels") as caught:
        read(tmp_path, SETTINGS)
    assert str(folder / "dataset.json") in caught.value.what


def test_other_kinds_of_files_and_missing_folders(tmp_path: Path) -> None:
    folder = nnunet(tmp_path, SECOND)
    (folder / "dataset.json").write_text(json.dumps(SECOND | {"file_ending": ".nrrd"}))
    with pytest.raises(UserError, match="not read") as caught:
        read(tmp_path, SETTINGS)
    assert ".nrrd" in caught.value.found
    (folder / "dataset.json").write_text(json.dumps(SECOND))
    (folder / "labelsTr").rename(folder / "labels")
    with pytest.raises(UserError, match="labelsTr: no such folder"):
        read(tmp_path, SETTINGS)
