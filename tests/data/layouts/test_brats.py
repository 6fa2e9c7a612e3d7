"""BraTS by year: suffixes, what 3 and 4 mean, misnamed files, people with several scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxfer.data.nifti import read_volume
from jaxfer.data.verify import verify_cases
from jaxfer.errors import UserError
from tests.data.layouts.build import FLAIR_T1_T2, brain_tumour, labels, nifti, read, table

HYPHENS = {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"}


def brats(year: int) -> dict:
    return {"layout": "brats", "folder": "BraTS", "year": year}


def test_2019_grades_are_folders_and_institutions_stand_in_the_names(tmp_path: Path) -> None:
    folder = tmp_path / "BraTS"
    brain_tumour(folder / "HGG", "BraTS19_CBICA_AAB_1", ending=".nii")
    brain_tumour(folder / "LGG", "BraTS19_TCIA09_141_1")
    table(folder / "name_mapping.csv", ("Grade", "BraTS_2019_subject_ID"), [])
    dataset, problems = read(tmp_path, brats(2019))
    assert problems == []
    assert [(c.subject, c.site) for c in dataset.cases] == [
        ("BraTS19_CBICA_AAB", "CBICA"),
        ("BraTS19_TCIA09_141", "TCIA09"),
    ]
    assert verify_cases(dataset, dataset.cases, FLAIR_T1_T2) == []


def test_2020_case_355_has_a_mask_of_another_name(tmp_path: Path) -> None:
    folder = tmp_path / "BraTS" / "MICCAI_BraTS2020_TrainingData"
    brain_tumour(folder, "BraTS20_Training_001", ending=".nii")
    odd = brain_tumour(folder, "BraTS20_Training_355", ending=".nii")
    (odd / "BraTS20_Training_355_seg.nii").rename(odd / "W39_1998.09.19_Segm.nii")
    for name in ("name_mapping.csv", "survival_info.csv"):
        (folder / name).write_text("Grade\n")
    dataset, problems = read(tmp_path, brats(2020))
    assert problems == []
    assert [c.id[-3:] for c in dataset.cases] == ["001", "355"]
    assert dataset.cases[1].label == odd / "W39_1998.09.19_Segm.nii"
    assert verify_cases(dataset, dataset.cases, FLAIR_T1_T2) == []


def test_two_masks_in_a_case_are_not_chosen_from(tmp_path: Path) -> None:
    folder = brain_tumour(tmp_path / "BraTS", "BraTS20_Training_355", ending=".nii")
    nifti(folder / "W39_1998.09.19_Segm.nii", labels((1,)).astype(np.uint8))
    _, (problem,) = read(tmp_path, brats(2020))
    assert problem.severity == "error"
    assert problem.where == str(folder)
    assert problem.found == "BraTS20_Training_355_seg.nii, W39_1998.09.19_Segm.nii"


def test_2021_folders_that_are_named_like_files(tmp_path: Path) -> None:
    folder = brain_tumour(tmp_path / "BraTS", "BraTS2021_00495", ending=".nii")
    for kind, inner in (("flair", "00000057_brain_flair.nii"), ("seg", "00000057_final_seg.nii")):
        file = folder / f"BraTS2021_00495_{kind}.nii"
        file.rename(folder / "aside")
        file.mkdir()
        (folder / "aside").rename(file / inner)
        (file / f"._{inner}").touch()
    other = brain_tumour(tmp_path / "BraTS", "BraTS2021_00621")
    other.rename(other.with_name("BraTS2021_00621.nii"))
    dataset, problems = read(tmp_path, brats(2021))
    assert problems == []
    assert [c.id for c in dataset.cases] == ["BraTS2021_00495", "BraTS2021_00621"]
    first = dataset.cases[0]
    assert first.images["flair"].path.name == "00000057_brain_flair.nii"
    assert first.images["t1"].path.name == "BraTS2021_00495_t1.nii"
    assert verify_cases(dataset, [first], FLAIR_T1_T2) == []


def test_2023_hyphens_and_people_with_several_scans(tmp_path: Path) -> None:
    folder = tmp_path / "BraTS" / "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData"
    for name in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"):
        brain_tumour(folder, name, suffixes=HYPHENS, values=(1, 3, 2))
    dataset, problems = read(tmp_path, brats(2023))
    assert problems == []
    assert [c.subject for c in dataset.cases] == ["BraTS-GLI-00005"] * 2 + ["BraTS-GLI-00006"]
    assert sorted(dataset.cases[0].images) == ["flair", "t1", "t1ce", "t2"]
    assert dataset.cases[0].images["t1"].path.name == "BraTS-GLI-00005-000-t1n.nii.gz"
    assert dataset.cases[0].images["t2"].path.name == "BraTS-GLI-00005-000-t2w.nii.gz"
    assert verify_cases(dataset, dataset.cases, FLAIR_T1_T2) == []


@pytest.mark.parametrize(
    ("year", "enhancing", "whole", "core"),
    [
        (2019, 4, (1, 2, 4), (1, 4)),
        (2020, 4, (1, 2, 4), (1, 4)),
        (2021, 4, (1, 2, 4), (1, 4)),
        (2023, 3, (1, 2, 3), (1, 3)),
        (2024, 3, (1, 2, 3), (1, 3)),
    ],
)
def test_regions_by_year(
    tmp_path: Path, year: int, enhancing: int, whole: tuple, core: tuple
) -> None:
    suffixes = HYPHENS if year >= 2023 else None
    brain_tumour(tmp_path / "BraTS", "BraTS-GLI-00005-000", suffixes=suffixes, values=(1, 2))
    dataset, _ = read(tmp_path, brats(year))
    assert dataset.roi("ET").classes == (("ET", (enhancing,)),)
    assert dataset.roi("WT").classes == (("WT", whole),)
    assert dataset.roi("TC").classes == (("TC", core),)
    assert [v for _, v in dataset.roi("tumour").classes] == [(1,), (2,), (enhancing,)]


def test_2024_has_a_resection_cavity_outside_of_the_tumour(tmp_path: Path) -> None:
    brain_tumour(tmp_path / "BraTS", "BraTS-GLI-02063-100", suffixes=HYPHENS, values=(4, 1, 3, 2))
    dataset, problems = read(tmp_path, brats(2024))
    assert problems == []
    assert verify_cases(dataset, dataset.cases, FLAIR_T1_T2) == []
    assert dataset.roi("RC").classes == (("RC", (4,)),)
    assert dataset.roi("SNFH").classes == (("SNFH", (2,)),)
    assert dataset.roi("tumour").class_names == ("NETC", "SNFH", "ET")
    assert 4 in read_volume(dataset.cases[0].label)
    assert all(4 not in values for n in ("WT", "TC") for _, values in dataset.roi(n).classes)


@pytest.mark.parametrize(
    ("year", "value", "suffixes"), [(2021, 3, None), (2023, 4, HYPHENS)], ids=["3", "4"]
)
def test_a_value_of_another_year_is_never_mapped_by_guess(
    tmp_path: Path, year: int, value: int, suffixes: dict | None
) -> None:
    brain_tumour(tmp_path / "BraTS", "a-1", values=(1, value, 2), suffixes=suffixes)
    dataset, _ = read(tmp_path, brats(year))
    (problem,) = verify_cases(dataset, dataset.cases, ("flair",))
    assert problem.severity == "error"
    assert problem.found == str(value)


@pytest.mark.parametrize(("year", "suffixes"), [(2021, HYPHENS), (2023, None)])
def test_files_of_another_year_are_told(tmp_path: Path, year: int, suffixes: dict | None) -> None:
    brain_tumour(tmp_path / "BraTS", "a-1", suffixes=suffixes)
    with pytest.raises(UserError, match=f"not of {year}") as caught:
        read(tmp_path, brats(year))
    assert "'year'" in str(caught.value)


def test_names_in_other_letter_case_and_debris(tmp_path: Path) -> None:
    capital = {k: f"_{k.upper()}" for k in (*FLAIR_T1_T2, "seg")}
    folder = brain_tumour(tmp_path / "BraTS", "BRATS20_Training_001", suffixes=capital)
    for file in list(folder.iterdir()):
        (folder / f"._{file.name}").touch()
        file.rename(folder / file.name.replace(".nii.gz", ".NII.GZ"))
    dataset, problems = read(tmp_path, brats(2020))
    assert problems == []
    assert sorted(dataset.cases[0].images) == sorted(FLAIR_T1_T2)
    assert dataset.cases[0].label


def test_what_cases_lack_is_told_and_serves_the_rest(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        brain_tumour(tmp_path / "BraTS", f"BraTS20_Training_{number:03d}")
    (tmp_path / "BraTS/BraTS20_Training_002/BraTS20_Training_002_t1ce.nii.gz").unlink()
    (tmp_path / "BraTS/BraTS20_Training_003/BraTS20_Training_003_seg.nii.gz").unlink()
    dataset, problems = read(tmp_path, brats(2020))
    assert [(p.severity, p.found) for p in problems] == [
        ("warning", "BraTS20_Training_002"),
        ("warning", "BraTS20_Training_003"),
    ]
    assert "t1ce" in problems[0].what
    assert [c.id[-3:] for c in dataset.select("all", "t1ce")] == ["001"]
    assert [c.id[-3:] for c in dataset.select("all", "t1")] == ["001", "002"]


def test_a_case_that_lies_there_twice(tmp_path: Path) -> None:
    for part in ("HGG", "LGG"):
        brain_tumour(tmp_path / "BraTS" / part, "BraTS19_CBICA_AAB_1")
    dataset, (problem,) = read(tmp_path, brats(2019))
    assert problem.severity == "error"
    assert problem.found == "2 × BraTS19_CBICA_AAB_1"
    assert len(dataset.cases) == 1
