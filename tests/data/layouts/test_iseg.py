"""iSeg: Analyze pairs, two codings, people without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxfer.data.nifti import read_header, read_volume
from jaxfer.data.verify import verify_cases
from jaxfer.errors import UserError
from tests.data.layouts.build import SHAPE, analyze, iseg, labels, read

ISEG = {"layout": "iseg", "folder": "iSeg-2017-Training"}
ISEG19 = {"layout": "iseg", "folder": "iSeg-2019-Training"}


def test_pairs_are_read_without_their_fourth_axis(tmp_path: Path) -> None:
    iseg(tmp_path)
    dataset, problems = read(tmp_path, ISEG)
    assert problems == []
    assert [c.id for c in dataset.cases] == ["subject-1", "subject-10", "subject-2"]
    assert {m: i.path.name for m, i in dataset.cases[1].images.items()} == {
        "t1": "subject-10-T1.hdr",
        "t2": "subject-10-T2.hdr",
    }
    assert verify_cases(dataset, dataset.cases, ("t1", "t2")) == []
    header = read_header(dataset.cases[0].images["t1"].path)
    assert header.shape == SHAPE
    assert header.spacing == (1.0, 1.0, 1.0)
    truth = read_volume(dataset.cases[0].label)
    np.testing.assert_array_equal(truth, labels((250, 150, 10)))


def test_an_axis_of_length_1_that_is_not_trailing_stays(tmp_path: Path) -> None:
    thin = np.arange(20, dtype=np.int16).reshape(4, 1, 5)
    header = read_header(analyze(tmp_path / "thin.hdr", thin))
    assert header.shape == (4, 1, 5)


@pytest.mark.parametrize(
    ("settings", "year", "values"),
    [(ISEG, 2017, (250, 150, 10)), (ISEG19, 2019, (250, 150, 10)), (ISEG19, 2019, (3, 2, 1))],
)
def test_either_coding(
    tmp_path: Path, settings: dict, year: int, values: tuple[int, int, int]
) -> None:
    iseg(tmp_path, year, values=values)
    dataset, problems = read(tmp_path, settings)
    assert problems == []
    wm, gm, csf = values
    assert dataset.label_names == {0: "background", csf: "CSF", gm: "GM", wm: "WM"}
    assert dataset.roi("tissue").classes == (("CSF", (csf,)), ("GM", (gm,)), ("WM", (wm,)))
    assert dataset.roi("brain_matter").classes == (("brain_matter", (gm, wm)),)
    assert dataset.roi("WM").classes == (("WM", (wm,)),)
    assert verify_cases(dataset, dataset.cases, ("t1",)) == []


@pytest.mark.parametrize("values", [(250, 150, 1), (4, 2, 1), (150, 10, 2), (255, 150, 10)])
def test_other_values_are_refused(tmp_path: Path, values: tuple[int, int, int]) -> None:
    iseg(tmp_path, values=values, subjects=(1,))
    dataset, (problem,) = read(tmp_path, ISEG)
    assert problem.severity == "error"
    assert "neither coding" in problem.what
    assert problem.where.endswith("subject-1-label.hdr")
    assert str(max(values)) in problem.found
    assert len(dataset.cases) == 1


def test_codings_do_not_mix(tmp_path: Path) -> None:
    folder = iseg(tmp_path, subjects=(1, 2))
    analyze(folder / "subject-2-label.hdr", labels((3, 2, 1)).astype(np.uint8))
    dataset, problems = read(tmp_path, ISEG)
    assert problems == []
    (problem,) = verify_cases(dataset, dataset.cases, ("t1",))
    assert problem.where.endswith("subject-2-label.hdr")
    assert problem.found == "1, 2, 3"


def test_an_empty_or_unreadable_label_map_does_not_decide_the_coding(tmp_path: Path) -> None:
    folder = iseg(tmp_path, values=(3, 2, 1), subjects=(1, 2, 3))
    analyze(folder / "subject-1-label.hdr", np.zeros(SHAPE, np.uint8))
    (folder / "subject-2-label.hdr").write_bytes(b"nothing")
    assert read(tmp_path, ISEG)[0].roi("WM").classes == (("WM", (3,)),)


def test_a_folder_nested_twice_and_people_without_labels(tmp_path: Path) -> None:
    iseg(tmp_path / "iSeg-2017-Training")
    folder = tmp_path / "iSeg-2017-Training" / "iSeg-2017-Testing"
    for number in (11, 12):
        for name in ("T1", "T2"):
            analyze(folder / f"subject-{number}-{name}.hdr", labels((1,)))
    dataset, (warning,) = read(tmp_path, ISEG)
    assert "2 case(s) without label map" in warning.what
    assert warning.found == "subject-11, subject-12"
    assert [c.id for c in dataset.select("all", "t2")] == ["subject-1", "subject-10", "subject-2"]


def test_a_header_without_its_voxels_is_one_problem(tmp_path: Path) -> None:
    folder = iseg(tmp_path, subjects=(1, 2))
    (folder / "subject-2-T2.img").unlink()
    dataset, _ = read(tmp_path, ISEG)
    (problem,) = verify_cases(dataset, dataset.cases, ("t1", "t2"))
    assert "subject-2-T2" in problem.where


def test_a_folder_without_subjects(tmp_path: Path) -> None:
    (tmp_path / ISEG["folder"]).mkdir()
    with pytest.raises(UserError, match="no usable case"):
        read(tmp_path, ISEG)
