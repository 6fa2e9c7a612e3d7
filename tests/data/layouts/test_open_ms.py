"""The Ljubljana patients: what is found, what is not used, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jaxfer.errors import UserError
from jaxfer.tasks import Image
from tests.data.layouts.build import read

OPEN_MS = {"layout": "open_ms", "folder": "patients"}


@pytest.fixture
def patient(tmp_path: Path) -> Callable[..., Path]:
    """Makes a patient's folder with empty files of these names."""

    def make(number: int, *names: str) -> Path:
        folder = tmp_path / "patients" / f"patient{number:02d}"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
        return folder

    return make


def test_modalities_and_debris(tmp_path: Path, patient: Callable) -> None:
    images = ("FLAIR_N4.nii.gz", "T1_x.nii.gz", "T1POST_x.nii.gz", "t2_x.nii")
    debris = ("._FLAIR_N4.nii.gz", ".DS_Store", "notes.txt", "FLAIR_N4.json", "brainmask.nii.gz")
    folder = patient(7, *images, *debris, "GOLD_STANDARD_N4.nii.gz")
    patient(3, "T1.nii.gz", "GOLD_STANDARD.nii.gz")
    (tmp_path / "patients" / ".git").mkdir()
    (tmp_path / "patients" / "__MACOSX").mkdir()
    (tmp_path / "patients" / "README").touch()
    dataset, problems = read(tmp_path, OPEN_MS)
    assert problems == []
    assert [c.id for c in dataset.cases] == ["patient03", "patient07"]
    assert dict(dataset.cases[1].images) == {
        "flair": Image(folder / "FLAIR_N4.nii.gz"),
        "t1": Image(folder / "T1_x.nii.gz"),
        "t1ce": Image(folder / "T1POST_x.nii.gz"),
        "t2": Image(folder / "t2_x.nii"),
    }
    assert dataset.cases[1].label == folder / "GOLD_STANDARD_N4.nii.gz"
    assert dataset.cases[1].site == "ljubljana"
    assert set(dataset.cases[0].images) == {"t1"}
    assert dataset.label_names == {0: "background", 1: "lesion"}
    assert dataset.skull_stripped


def test_unused_patients_are_one_warning_per_kind(tmp_path: Path, patient: Callable) -> None:
    patient(1, "FLAIR_a.nii.gz", "GOLD_a.nii.gz")
    for number in (2, 3, 4):
        patient(number, "GOLD_a.nii.gz")
    patient(5, "FLAIR_a.nii.gz")
    patient(6)
    dataset, problems = read(tmp_path, OPEN_MS)
    assert [c.id for c in dataset.cases] == ["patient01"]
    assert [p.severity for p in problems] == ["warning", "warning"]
    found = {p.what: p.found for p in problems}
    assert found == {
        "3 patient(s) without images are not used": "patient02, patient03, patient04",
        "2 patient(s) without consensus mask (GOLD_STANDARD_*) are not used": (
            "patient05, patient06"
        ),
    }
    assert all(p.where == str(tmp_path / "patients") and p.mend for p in problems)


@pytest.mark.parametrize("kind", ["FLAIR", "GOLD"])
def test_several_files_of_a_kind_are_an_error(tmp_path: Path, patient: Callable, kind: str) -> None:
    folder = patient(1, "FLAIR_a.nii", "GOLD_a.nii", f"{kind}_b.nii.gz")
    _, (problem,) = read(tmp_path, OPEN_MS)
    assert problem.severity == "error"
    assert problem.where == str(folder)
    assert problem.found == f"{kind}_a.nii, {kind}_b.nii.gz"


def test_without_usable_patient(tmp_path: Path, patient: Callable) -> None:
    patient(1, "GOLD_a.nii.gz")
    with pytest.raises(UserError, match="no usable patient") as caught:
        read(tmp_path, OPEN_MS)
    assert "1 without images" in str(caught.value)
    assert "Ljubljana" in str(caught.value)
