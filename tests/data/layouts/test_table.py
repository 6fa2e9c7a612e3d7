"""One's own scans by a table: names, paths, labels, groups, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxfer.data.verify import verify_cases
from jaxfer.errors import UserError
from tests.data.layouts.build import own_scans, read, table

TABLE = {
    "layout": "table",
    "folder": "mine",
    "file": "cases.csv",
    "modality": ("t1", "flair"),
    "labels": {"core": 1, "rim": 2},
    "skull_stripped": True,
}
HEAD = ("case", "subject", "site", "t1", "flair", "label")
ROW = ("a", "p", "north", "scans/p0 t1.nii.gz", "scans/p0 flair.nii", "masks/p0.nii.gz")


def test_a_table_as_a_spreadsheet_saves_it(tmp_path: Path) -> None:
    own_scans(tmp_path)
    dataset, problems = read(tmp_path, TABLE)
    assert problems == []
    assert [(c.id, c.subject, c.site) for c in dataset.cases] == [
        ("p0-v1", "p0", "south"),
        ("p1-v1", "p1", "north"),
        ("p2-v1", "p2", "south"),
    ]
    assert [c.id for c in dataset.select("south", "flair")] == ["p0-v1", "p2-v1"]
    assert dataset.cases[0].images["t1"].path.name == "p0 t1.nii.gz"
    assert verify_cases(dataset, dataset.cases, ("t1", "flair")) == []
    assert dataset.roi("some").classes == (("core", (1,)), ("rim", (2,)))
    assert dataset.roi("rim").classes == (("rim", (2,)),)


def test_groups_and_ignored_labels(tmp_path: Path) -> None:
    own_scans(tmp_path)
    labels = {"core": 1, "rim": 2, "cyst": 5}
    more = {"labels": labels, "rois": {"whole": ("core", "rim")}, "ignore": ("cyst",), "roi": "all"}
    dataset, _ = read(tmp_path, TABLE, **more)
    assert dataset.roi("whole").classes == (("whole", (1, 2)),)
    assert dataset.roi("all").class_names == ("core", "rim")
    assert dataset.ignore == (5,)


def test_an_ignored_label_is_in_no_group(tmp_path: Path) -> None:
    own_scans(tmp_path)
    with pytest.raises(UserError, match=r"some\.rois"):
        read(tmp_path, TABLE, rois={"whole": ("core", "rim")}, ignore=("rim",))


def test_columns_in_any_order_empty_cells_and_others(tmp_path: Path) -> None:
    folder = own_scans(tmp_path)
    rows = [
        ("71", "masks/p0.nii.gz", "a", " scans/p0 t1.nii.gz ", "", "p", "here"),
        ("65", "", "b", "scans/p1 t1.nii.gz", "scans/p1 flair.nii", "q", "here"),
        (),
    ]
    table(folder / "cases.csv", ("age", "label", "case", "t1", "flair", "subject", "site"), rows)
    dataset, problems = read(tmp_path, TABLE)
    assert [(p.severity, p.found) for p in problems] == [("warning", "a"), ("warning", "b")]
    assert [c.id for c in dataset.select("all", "t1")] == ["a"]
    assert set(dataset.cases[0].images) == {"t1"}


@pytest.mark.parametrize(
    "path",
    [
        "../elsewhere/a.nii.gz",
        "/elsewhere/a.nii.gz",
        "scans/../../a.nii.gz",
        "scans/a.txt",
        "scans",
        "scans/._a.nii.gz",
    ],
)
def test_paths_stay_in_the_folder(tmp_path: Path, path: str) -> None:
    folder = own_scans(tmp_path)
    table(folder / "cases.csv", HEAD, [ROW, ("b", *ROW[1:3], path, *ROW[4:])])
    _, problems = read(tmp_path, TABLE)
    assert problems[0].severity == "error"
    assert problems[0].found == path


@pytest.mark.parametrize(
    "row",
    [
        ("", *ROW[1:]),
        ("b", "", *ROW[2:]),
        ("b", "p", "", *ROW[3:]),
        ("../b", *ROW[1:]),
        ("b/c", *ROW[1:]),
        (".b", *ROW[1:]),
        ("b\\c", *ROW[1:]),
    ],
)
def test_rows_without_a_usable_name(tmp_path: Path, row: tuple[str, ...]) -> None:
    folder = own_scans(tmp_path)
    table(folder / "cases.csv", HEAD, [ROW, row])
    dataset, problems = read(tmp_path, TABLE)
    assert [p.severity for p in problems] == ["error"]
    assert [c.id for c in dataset.cases] == ["a"]


def test_a_case_that_is_listed_twice(tmp_path: Path) -> None:
    folder = own_scans(tmp_path)
    table(folder / "cases.csv", HEAD, [ROW, ROW])
    dataset, (problem,) = read(tmp_path, TABLE)
    assert problem.severity == "error"
    assert problem.found == "2 × a"
    assert len(dataset.cases) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "columns"),
        ("case;subject;site;t1;flair;label\n", "columns"),
        ("case,subject,site,t1,label\n", "columns"),
        ("case,case,subject,site,t1,flair,label\n", "columns"),
        ("case,subject,site,t1,flair,label\n", "no usable row"),
        ("\xff\xfe", "readable"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, words: str) -> None:
    path = own_scans(tmp_path) / "cases.csv"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=words) as caught:
        read(tmp_path, TABLE)
    assert str(path) in str(caught.value)


def test_a_missing_table(tmp_path: Path) -> None:
    (own_scans(tmp_path) / "cases.csv").unlink()
    with pytest.raises(UserError, match="no such table"):
        read(tmp_path, TABLE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file", ""),
        ("file", "../cases.csv"),
        ("modality", ()),
        ("modality", ("t1", "t1")),
        ("labels", {}),
        ("labels", {"core": 0}),
        ("labels", {"core": 1, "rim": 1}),
        ("labels", {"core": "1"}),
        ("labels", 1),
        ("rois", {"whole": ("core", "cyst")}),
        ("rois", {"whole": ()}),
        ("ignore", ("cyst",)),
        ("ignore", ("core", "rim")),
        ("skull_stripped", 1),
        ("skul_stripped", True),
    ],
)
def test_settings(tmp_path: Path, field: str, value: object) -> None:
    own_scans(tmp_path)
    with pytest.raises(UserError, match=rf"config\.datasets\.some\.{field}"):
        read(tmp_path, TABLE, **{field: value})
