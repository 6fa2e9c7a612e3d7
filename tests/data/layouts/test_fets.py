"""FeTS 2021 and 2022: institutions from tables whose columns and ids differ by year."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxfer.data.nifti import read_volume
from jaxfer.data.verify import verify_cases
from jaxfer.errors import UserError
from jaxfer.tasks import Dataset, Task
from tests.data.layouts.build import brain_tumour, fets2021, fets2022, read, table

FETS = {
    "layout": "fets",
    "folder": "MICCAI_FeTS2021_TrainingData",
    "partition": "partitioning_1.csv",
}
FETS22 = FETS | {"folder": "MICCAI_FeTS2022_TrainingData"}
COLUMNS = ("Subject_ID", "Partition_ID")


def ids(dataset: Dataset, task: str) -> list[str]:
    """The numbers of the cases that a task's name selects."""
    named = Task.parse(task)
    assert dataset.roi(named.roi)
    return [c.id.split("_")[-1] for c in dataset.select(named.site, named.modality)]


def test_a_download_loads_as_it_is(tmp_path: Path) -> None:
    # 149 is one of the gaps in the ids: nothing counts on numbers that follow each other.
    fets2021(tmp_path, {"01": (1, 369), "16": (148, 150)})
    dataset, problems = read(tmp_path, FETS)
    assert problems == []
    assert ids(dataset, "fets2021/01/t2/ET") == ["001", "369"]
    assert ids(dataset, "fets2021/16/flair/WT") == ["148", "150"]
    assert ids(dataset, "fets2021/all/t1ce/TC") == ["001", "148", "150", "369"]
    assert {c.site for c in dataset.cases} == {"01", "16"}
    assert verify_cases(dataset, dataset.cases, ("flair", "t1", "t1ce", "t2")) == []
    assert dataset.skull_stripped


def test_regions_are_those_of_the_challenge(tmp_path: Path) -> None:
    fets2021(tmp_path, {"01": (1,)})
    dataset, _ = read(tmp_path, FETS)
    assert dataset.label_names == {0: "background", 1: "NCR", 2: "ED", 4: "ET"}
    assert dataset.roi("WT").classes == (("WT", (1, 2, 4)),)
    assert dataset.roi("TC").classes == (("TC", (1, 4)),)
    assert dataset.roi("ET").classes == (("ET", (4,)),)
    assert dataset.roi("tumour").classes == (("NCR", (1,)), ("ED", (2,)), ("ET", (4,)))


def test_columns_are_read_by_name_and_institutions_as_numbers(tmp_path: Path) -> None:
    fets2022(tmp_path, {1: (0, 2), 18: (1666,)})
    dataset, problems = read(tmp_path, FETS22)
    assert problems == []
    assert {c.id: c.site for c in dataset.cases} == {
        "FeTS2022_00000": "01",
        "FeTS2022_00002": "01",
        "FeTS2022_01666": "18",
    }
    assert [c.subject for c in dataset.cases] == [c.id for c in dataset.cases]


def test_the_other_partitions(tmp_path: Path) -> None:
    fets2021(tmp_path, {"01": (1, 2), "16": (3,)})
    parts, problems = read(tmp_path, FETS, partition="Partitioning_2.csv")
    assert problems == []
    assert [c.site for c in parts.cases] == ["01", "02", "03"]
    # Counts from 0, and its columns stand the other way round.
    small, problems = read(tmp_path, FETS, partition="small_split.csv")
    assert problems == []
    assert [c.site for c in small.cases] == ["00"] * 3
    none, problems = read(tmp_path, FETS, partition="")
    assert problems == []
    assert [c.site for c in none.cases] == ["1"] * 3


def test_tables_as_spreadsheets_save_them(tmp_path: Path) -> None:
    folder = fets2021(tmp_path, {"01": (1, 2)})
    rows = "FeTS21_Training_001, 3 \r\n\r\nfets21_training_002,04\r\n"
    text = "\ufeffsubject_id , PARTITION_ID\r\n" + rows
    (folder / "partitioning_1.csv").write_bytes(text.encode())
    dataset, problems = read(tmp_path, FETS)
    assert problems == []
    assert [c.site for c in dataset.cases] == ["03", "04"]


def test_unpacked_into_a_folder_of_its_own_name_and_without_compression(tmp_path: Path) -> None:
    folder = fets2021(tmp_path / "MICCAI_FeTS2021_TrainingData", {"01": (1,)}, ending=".nii")
    (folder.parent / "__MACOSX" / "FeTS21_Training_001").mkdir(parents=True)
    dataset, problems = read(tmp_path, FETS)
    assert problems == []
    assert ids(dataset, "some/01/t2/ET") == ["001"]


def test_variants_of_the_suffixes(tmp_path: Path) -> None:
    names = {k: f"_brain_{k}" for k in ("flair", "t1", "t1ce", "t2")} | {"seg": "_final_seg"}
    brain_tumour(tmp_path / "MICCAI_FeTS2022_TrainingData", "FeTS2022_00003", suffixes=names)
    dataset, problems = read(tmp_path, FETS22, partition="")
    assert problems == []
    assert sorted(dataset.cases[0].images) == ["flair", "t1", "t1ce", "t2"]
    assert dataset.cases[0].images["t1"].path.name == "FeTS2022_00003_brain_t1.nii.gz"
    assert read_volume(dataset.cases[0].label).max() == 4


def test_cases_and_table_that_do_not_agree(tmp_path: Path) -> None:
    folder = fets2021(tmp_path, {"01": (1, 2)})
    rows = [("FeTS21_Training_002", "01"), ("FeTS21_Training_009", "07")]
    table(folder / "partitioning_1.csv", COLUMNS, rows)
    dataset, (unlisted, absent) = read(tmp_path, FETS)
    assert unlisted.severity == absent.severity == "warning"
    assert unlisted.found == "FeTS21_Training_001"
    assert "'unknown'" in unlisted.what
    assert absent.found == "fets21_training_009"
    assert [c.site for c in dataset.cases] == ["unknown", "01"]

    table(folder / "partitioning_1.csv", COLUMNS, [("FeTS2022_00001", "1")])
    _, problems = read(tmp_path, FETS)
    assert problems[0].severity == "error", "the table of another year gives no site at all"


def test_validation_cases_have_no_institution_and_no_labels(tmp_path: Path) -> None:
    folder = fets2021(tmp_path, {"01": (1,)})
    brain_tumour(folder, "FeTS21_Validation_001", labelled=False)
    rows = [("FeTS21_Training_001", "01"), ("FeTS21_Validation_001", "-1")]
    table(folder / "partitioning_1.csv", COLUMNS, rows)
    dataset, (warning,) = read(tmp_path, FETS)
    assert "1 case(s) without label map" in warning.what
    assert warning.found == "FeTS21_Validation_001"
    assert [c.site for c in dataset.cases] == ["01", "unknown"]
    assert ids(dataset, "some/all/t1/WT") == ["001"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "columns"),
        ("Subject_ID,Institution\na,1\n", "columns"),
        ("Subject_ID;Partition_ID\na;1\n", "columns"),
        ("Subject_ID,Partition_ID\nFeTS21_Training_001,north\n", "without subject or institution"),
        ("Subject_ID,Partition_ID\n,3\n", "without subject or institution"),
        ("Subject_ID,Partition_ID\nFeTS21_Training_001\n", "without subject or institution"),
        ("Subject_ID,Partition_ID\na,1\na,2\n", "two institutions"),
        ("Subject_ID,Partition_ID\n\xff", "readable"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, words: str) -> None:
    path = fets2021(tmp_path, {"01": (1,)}) / "partitioning_1.csv"
    path.write_bytes(text.encode("latin1"))
    _, problems = read(tmp_path, FETS)
    assert problems[0].severity == "error"
    assert problems[0].where == str(path)
    assert words in problems[0].what


def test_a_missing_table_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    (fets2021(tmp_path, {"01": (1,)}) / "partitioning_1.csv").unlink()
    _, (problem,) = read(tmp_path, FETS)
    assert problem.severity == "error"
    assert problem.where.endswith("partitioning_1.csv")
    assert "'partition' to ''" in problem.mend


def test_a_folder_without_cases(tmp_path: Path) -> None:
    (tmp_path / FETS["folder"] / "docs").mkdir(parents=True)
    with pytest.raises(UserError, match="no usable case"):
        read(tmp_path, FETS)
