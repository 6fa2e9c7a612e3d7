"""The Medical Segmentation Decathlon: its description, 3-D and 4-D images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from jaxfer.data.nifti import read_volume
from jaxfer.data.store import Preprocessing, store_case
from jaxfer.data.verify import verify_cases
from jaxfer.errors import UserError
from jaxfer.tasks import Image
from tests.data.layouts.build import brain_tumour_task, read

MSD = {"layout": "msd", "folder": "Task", "modality": "t1", "skull_stripped": True}
LABELS = {"0": "background", "1": "Anterior", "2": "Posterior"}


def entry(name: str) -> dict[str, str]:
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}


@pytest.fixture
def describe(tmp_path: Path) -> Callable[..., Path]:
    """Writes a dataset.json."""

    def write(training: object, labels: object = None, **other: object) -> Path:
        path = tmp_path / "Task" / "dataset.json"
        path.parent.mkdir(exist_ok=True)
        value = {"training": training, "labels": LABELS if labels is None else labels, **other}
        path.write_text(json.dumps(value))
        return path

    return write


def test_cases_labels_and_roi(tmp_path: Path, describe: Callable) -> None:
    describe([entry("b_2"), entry("a.1")], labels={"2": "Posterior", "0": "bg", "1": "Anterior"})
    dataset, problems = read(tmp_path, MSD)
    assert problems == []
    assert [c.id for c in dataset.cases] == ["a.1", "b_2"]
    case = dataset.cases[1]
    assert case.subject == "b_2"
    assert case.images == {"t1": Image(tmp_path / "Task/imagesTr/b_2.nii.gz")}
    assert case.label == tmp_path / "Task/labelsTr/b_2.nii.gz"
    assert dataset.label_names == {0: "bg", 1: "Anterior", 2: "Posterior"}
    assert dataset.roi("some").classes == (("Anterior", (1,)), ("Posterior", (2,)))
    assert dataset.roi("Posterior").classes == (("Posterior", (2,)),)
    assert dataset.skull_stripped
    assert not dataset.synthetic
    assert read(tmp_path, MSD, roi="whole", skull_stripped=False)[0].roi("whole").num_classes == 3
    assert not read(tmp_path, MSD, skull_stripped=False)[0].skull_stripped


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '{"training": []}',
        '{"labels": {"0": "background"}, "training": {}}',
        '{"labels": ["background"], "training": []}',
        "[" * 100_000,
        "\xff\xfe",
    ],
)
def test_bad_descriptions(tmp_path: Path, text: str) -> None:
    path = tmp_path / "Task" / "dataset.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError) as caught:
        read(tmp_path, MSD)
    assert str(path) in caught.value.what
    assert caught.value.found


def test_without_description(tmp_path: Path) -> None:
    (tmp_path / "Task").mkdir()
    with pytest.raises(UserError, match=r"dataset\.json: no such file") as caught:
        read(tmp_path, MSD)
    assert "medicaldecathlon" in caught.value.allowed


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "tumour": 1},
        {"0": "background", "1.5": "half"},
        {"0": "background", "one": "tumour"},
        {"1": "tumour", "2": "oedema"},
        {"0": "background"},
        {},
    ],
)
def test_labels_must_be_coded_as_the_decathlon_does(
    tmp_path: Path, describe: Callable, labels: dict
) -> None:
    path = describe([entry("a")], labels)
    with pytest.raises(UserError, match="labels") as caught:
        read(tmp_path, MSD)
    assert str(path) in caught.value.what
    assert caught.value.found == labels
    assert '"0": "background"' in caught.value.allowed


@pytest.mark.parametrize(
    "name",
    [
        "../other/a.nii.gz",
        "imagesTr/../../a.nii.gz",
        "/etc/a.nii.gz",
        "",
        ".",
        "imagesTr/..nii.gz",
        "imagesTr/...nii.gz",
        "imagesTr/.nii.gz",
        "imagesTr/._a.nii.gz",
        "imagesTr/a.txt",
        "imagesTr/a\0.nii.gz",
        3,
        None,
        ["imagesTr/a.nii.gz"],
    ],
)
@pytest.mark.parametrize("key", ["image", "label"])
def test_entries_name_images_inside_the_folder(
    tmp_path: Path, describe: Callable, name: object, key: str
) -> None:
    path = describe([entry("good"), entry("bad") | {key: name}])
    dataset, (problem,) = read(tmp_path, MSD)
    assert [c.id for c in dataset.cases] == ["good"]
    assert problem.severity == "error"
    assert problem.where == str(path)
    assert problem.found == entry("bad") | {key: name}
    assert "./imagesTr/" in problem.allowed


def test_every_bad_entry_is_listed(tmp_path: Path, describe: Callable) -> None:
    describe([entry("a"), "imagesTr/b.nii.gz", {"image": "./imagesTr/c.nii.gz"}, None, entry("a")])
    dataset, problems = read(tmp_path, MSD)
    assert len(dataset.cases) == 1
    assert [p.severity for p in problems] == ["error"] * 4
    assert [p.what for p in problems].count("a case is listed twice") == 1
    (twice,) = [p for p in problems if p.what == "a case is listed twice"]
    assert twice.found == "a"
    assert twice.mend


@pytest.mark.parametrize("training", [[], [{"image": "/a", "label": "/b"}]])
def test_without_usable_case(tmp_path: Path, describe: Callable, training: list) -> None:
    path = describe(training)
    with pytest.raises(UserError, match="no usable case") as caught:
        read(tmp_path, MSD)
    assert str(path) in str(caught.value)
    assert "'training'" in str(caught.value)


def test_every_missing_file_is_listed_once(tmp_path: Path, describe: Callable) -> None:
    describe([entry("a"), entry("b")])
    dataset, problems = read(tmp_path, MSD)
    problems += verify_cases(dataset, dataset.cases, ("t1",))
    assert sorted(p.where for p in problems) == sorted(
        str(tmp_path / "Task" / folder / f"{name}.nii.gz")
        for folder in ("imagesTr", "labelsTr")
        for name in ("a", "b")
    )
    assert all("no such file" in p.what and p.mend for p in problems)


BRATS = {
    "layout": "msd",
    "folder": "Task01_BrainTumour",
    "modality": ("flair", "t1", "t1ce", "t2"),
    "skull_stripped": True,
}


def test_channels_of_a_4d_image_are_modalities(tmp_path: Path) -> None:
    brain_tumour_task(tmp_path)
    dataset, problems = read(tmp_path, BRATS)
    assert problems == []
    assert [c.id for c in dataset.cases] == ["BRATS_001", "BRATS_002"]
    images = dataset.cases[1].images
    assert {m: i.channel for m, i in images.items()} == {"flair": 0, "t1": 1, "t1ce": 2, "t2": 3}
    assert verify_cases(dataset, dataset.cases, BRATS["modality"]) == []
    whole = np.asarray(nib.load(images["t2"].path).dataobj)
    for modality, image in images.items():
        mine = read_volume(image.path, image.channel)
        np.testing.assert_array_equal(mine, whole[..., BRATS["modality"].index(modality)])


def test_the_store_holds_the_channel_that_was_asked_for(tmp_path: Path) -> None:
    brain_tumour_task(tmp_path, cases=1)
    (case,) = read(tmp_path, BRATS)[0].cases
    how = Preprocessing((1.0, 1.0, 1.0), (0.0, 100.0), skull_stripped=True)
    stored, _ = store_case(case, ("t1", "t2"), how, tmp_path / "store" / case.id)
    for modality in ("t1", "t2"):
        image = case.images[modality]
        raw = read_volume(image.path, image.channel)[stored.geometry.window]
        expected = (raw - raw[raw != 0].mean()) / raw[raw != 0].std()
        kept = np.asarray(stored.image(modality), np.float32)
        np.testing.assert_allclose(kept[raw != 0], expected[raw != 0], atol=5e-3)


def test_a_file_without_the_channel_is_told(tmp_path: Path) -> None:
    folder = brain_tumour_task(tmp_path)
    flat = np.zeros((14, 16, 10, 3), np.float32)
    flat[5] = 1
    nib.save(nib.Nifti1Image(flat, np.eye(4)), folder / "imagesTr" / "BRATS_002.nii.gz")
    dataset, _ = read(tmp_path, BRATS)
    problems = verify_cases(dataset, dataset.cases, BRATS["modality"])
    assert problems
    assert all("BRATS_002" in p.where for p in problems)
    assert any("channel 3" in p.where + p.what for p in problems)


@pytest.mark.parametrize(
    ("modality", "words"),
    [
        ("flair", "numbers of channels"),
        (("flair", "t1"), "numbers of channels"),
        (("t1", "flair", "t1ce", "t2"), "channel 0 is 'FLAIR', not 't1'"),
        (("flair", "t1", "t2", "t1ce"), "channel 2 is 't1gd', not 't2'"),
    ],
)
def test_modalities_that_contradict_the_description(
    tmp_path: Path, modality: object, words: str
) -> None:
    brain_tumour_task(tmp_path)
    _, problems = read(tmp_path, BRATS, modality=modality)
    assert problems[0].severity == "error"
    assert words in problems[0].what
    assert "'modality'" in problems[0].mend


def test_names_that_are_no_modality_contradict_nothing(tmp_path: Path, describe: Callable) -> None:
    describe([entry("a")], modality={"0": "MRI"})
    assert read(tmp_path, MSD)[1] == []
    assert read(tmp_path, MSD, modality="pet")[1] == []
