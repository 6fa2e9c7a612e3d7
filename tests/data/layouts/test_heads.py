"""Label maps of heads: which there are, what their RoIs hold, where their scans are to lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxfer.data.layouts import read_dataset
from jaxfer.errors import UserError
from tests.data.layouts import build

HEADS = {"layout": "heads", "folder": "head_label_maps", "seed": 3, "skull_stripped": False}


def test_a_subject_per_label_map(tmp_path: Path) -> None:
    folder = build.heads(tmp_path, 2)
    (folder / "._training_seg_03.nii.gz").touch()
    dataset, problems = build.read(tmp_path, HEADS)
    assert problems == []
    assert [(c.id, c.subject, c.site) for c in dataset.cases] == [
        (f"training_seg_0{n}", f"training_seg_0{n}", "1") for n in (1, 2)
    ]
    assert set(dataset.cases[0].images) == {"t1", "t2", "flair"}
    assert dataset.synthetic
    assert not dataset.skull_stripped


def test_scans_lie_apart_from_the_label_maps_and_follow_their_settings(tmp_path: Path) -> None:
    folder = build.heads(tmp_path, 1)

    def labels(**changes: object) -> Path:
        settings = build.ConfigDict(HEADS | changes)
        dataset, _ = read_dataset("some", settings, tmp_path, tmp_path / "store")
        return dataset.cases[0].label

    places = {labels(), labels(seed=4), labels(skull_stripped=True)}
    assert len(places) == 3
    assert all((tmp_path / "store") in place.parents for place in places)
    assert labels() in places
    build.heads(tmp_path, 1, shape=(42, 44, 36))
    assert labels() not in places
    assert sorted(p.name for p in folder.iterdir()) == ["labels.tsv", "training_seg_01.nii.gz"]


def test_rois(tmp_path: Path) -> None:
    build.heads(tmp_path, 1)
    dataset, _ = build.read(tmp_path, HEADS)
    classes = {name: dict(roi.classes) for name, roi in dataset.rois.items()}
    assert classes["hippocampus"] == {"hippocampus": (17, 53)}
    assert classes["amygdala"] == {"amygdala": (18, 54)}
    assert classes["putamen"] == {"putamen": (12, 51)}
    assert set(classes["ventricles"]["ventricles"]) == {4, 5, 43, 44, 136, 137, 163, 164}
    assert classes["thalamus_caudate"] == {"thalamus": (10, 49), "caudate": (11, 50)}
    tissue = classes["tissue"]
    assert list(tissue) == ["CSF", "GM", "WM"]
    values = [value for own in tissue.values() for value in own]
    assert len(set(values)) == len(values)
    assert {24, 4, 14} <= set(tissue["CSF"])
    assert {3, 42, 17, 10} <= set(tissue["GM"])
    assert {2, 41, 16} <= set(tissue["WM"])
    assert dataset.roi("left_thalamus").classes == (("left_thalamus", (10,)),)


def test_every_label_of_the_publishers_list_is_known(real_data: Path) -> None:
    lines = (real_data / "head_label_maps" / "labels.tsv").read_text().splitlines()[1:]
    dataset, _ = build.read(real_data, HEADS)
    assert {int(line.split("\t")[0]) for line in lines} == set(dataset.label_names)
    assert len(dataset.cases) == 8


def test_two_files_for_one_subject_and_none_are_errors(tmp_path: Path) -> None:
    folder = build.heads(tmp_path, 1)
    (folder / "training_seg_01.nii").write_bytes(b"")
    _, (problem,) = build.read(tmp_path, HEADS)
    assert problem.severity == "error"
    assert "training_seg_01" in problem.found
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(UserError, match="no usable case"):
        build.read(tmp_path, HEADS)
