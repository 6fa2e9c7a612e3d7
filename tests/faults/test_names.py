"""Names from data: never out of the folder, never a formula, a tag or an escape sequence."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from rich.console import Console

from jaxfer.data.layouts import read_dataset
from jaxfer.data.layouts.files import folders
from jaxfer.data.verify import verify_cases
from jaxfer.errors import Problem, UserError, legible
from jaxfer.report.terminal import problems_table
from jaxfer.stages.run import Run
from jaxfer.tasks import Case, Dataset, Image, Task, wrong_name
from tests.data.layouts import build

BAD = [
    "",
    ".",
    "..",
    "../up",
    "a/b",
    "a\\b",
    "/etc",
    ".lock",
    ".new-1-a",
    "a\nb",
    "a\x00b",
    "\x1b[2J",
    "a\u202eb",
    "\udcff",
    " a",
    "a ",
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "n" * 121,
    "ü" * 61,
]
GOOD = ["a", "BraTS20_Training_001", "patient 07", "Ärztin", "a..b", "[bold]x[red]", "<b>&", "a=1"]


@pytest.mark.parametrize("name", BAD)
def test_bad_names(name: str) -> None:
    assert wrong_name(name)


@pytest.mark.parametrize("name", GOOD)
def test_good_names(name: str) -> None:
    assert not wrong_name(name)


@settings(derandomize=True, database=None)
@given(st.text(st.characters(codec=None)))
def test_a_good_name_is_one_part_of_a_path(name: str) -> None:
    if not wrong_name(name):
        inside = Path(os.path.normpath(Path("/store") / name))
        assert inside.parent == Path("/store")
        assert len(f".12345-{name}_positional.nii.gz".encode()) <= 255


def _dataset(**fields: object) -> Dataset:
    case = Case("a", "s", "1", {"t1": Image(Path("i.nii"))}, Path("l.nii"))
    return Dataset("d", (replace(case, **fields),), {0: "background", 1: "x"}, {}, True, "")


@pytest.mark.parametrize("field", ["id", "subject", "site"])
@pytest.mark.parametrize("name", BAD)
def test_verification_refuses_them(field: str, name: str) -> None:
    dataset = _dataset(**{field: name})
    found = verify_cases(dataset, dataset.cases, ("t1",))
    assert any("name" in p.what and p.severity == "error" and p.found == repr(name) for p in found)
    assert all(str(p).isprintable() for p in found)


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
@pytest.mark.parametrize("name", [n for n in BAD if "\udcff" not in n and n])
def test_names_of_labels(tmp_path: Path, layout: str, name: str) -> None:
    array = build.labels((1,))
    build.nifti(tmp_path / "d/imagesTr/a_0000.nii.gz", array)
    build.nifti(tmp_path / "d/labelsTr/a.nii.gz", array)
    labels = {"0": "background", "1": name} if layout == "msd" else {"background": 0, name: 1}
    pair = {"image": "imagesTr/a_0000.nii.gz", "label": "labelsTr/a.nii.gz"}
    description = {"labels": labels, "training": [pair]}
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(description))
    entry = {"layout": layout, "folder": "d", "modality": "t1", "skull_stripped": True}
    _, problems = read_dataset("d", ConfigDict(entry), tmp_path)
    told = [p for p in problems if p.what == "the name of a label"]
    assert [p.found for p in told] == [repr(name)]


def test_values_that_no_prediction_can_hold(tmp_path: Path) -> None:
    entry = {"layout": "table", "folder": ".", "file": "t.csv", "modality": "t1"}
    entry |= {"labels": {"x": 40_000}, "skull_stripped": True}
    (tmp_path / "t.csv").write_text("case,subject,site,label,t1\na,s,1,l.nii,i.nii\n")
    _, problems = read_dataset("d", ConfigDict(entry), tmp_path)
    assert [p.what for p in problems] == ["values of labels"]


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("name", ["..", ".x", "=1", "a\n", "n" * 300])
def test_tasks_become_folders(part: int, name: str) -> None:
    parts = ["d", "s", "t1", "x"]
    parts[part] = name
    with pytest.raises(UserError, match="not a task's name"):
        Task.parse("/".join(parts))


def test_folders_that_lead_back_to_themselves_are_not_walked(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"loop{number}").symlink_to(tmp_path)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "up").symlink_to("..")
    (tmp_path / "endless").symlink_to("endless")
    assert [p.name for p in folders(tmp_path)] == [tmp_path.name, "inner"]


def test_a_loop_of_links_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    loop = tmp_path / "i.nii"
    loop.symlink_to(loop)
    dataset = _dataset(images={"t1": Image(loop)}, label=loop)
    found = verify_cases(dataset, dataset.cases, ("t1",), folder=tmp_path)
    assert [p.severity for p in found] == ["error", "error"]


@settings(derandomize=True, database=None)
@given(st.text(st.characters(codec=None)))
def test_messages_hold_nothing_that_a_terminal_obeys(text: str) -> None:
    problem = Problem("error", text, text, text, text, text)
    assert str(problem).isprintable()
    error = UserError(text, found=text, allowed=text, mend=text, details=(text,))
    lines = str(error).split("\n")
    assert len(lines) == 4 + bool(text)
    assert all(line.isprintable() for line in lines)
    str(error).encode()


def test_what_is_fine_is_left_as_it_is() -> None:
    assert legible("θ − 1.5 mm → ∞ [bold] <b>") == "θ − 1.5 mm → ∞ [bold] <b>"
    assert legible("a\nb") == "a\\nb"
    assert legible("\x1b[2J") == "\\x1b[2J"
    assert len(legible("x" * 10**7)) < 3000
    assert "too large" in legible(10**5000)


def _terminal() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=True, color_system=None, width=200), out


def test_a_run_says_names_as_they_are(tmp_path: Path) -> None:
    console, out = _terminal()
    Run(ConfigDict(), tmp_path, console).say("case \x1b]0;title\x07 [red]x[/red] \udcff")
    assert out.getvalue() == "case \\x1b]0;title\\x07 [red]x[/red] \\udcff\n"


def test_progress_shows_no_escape_sequences(tmp_path: Path) -> None:
    console, out = _terminal()
    with Run(ConfigDict(), tmp_path, console).progress("[red]making", 2) as advance:
        advance(note="\x1b]0;title\x07\udcff")
    assert "\x1b]0" not in out.getvalue()
    assert "[red]making" in out.getvalue()


def test_the_table_of_problems_shows_no_escape_sequences(tmp_path: Path) -> None:
    entry = dict.fromkeys(("file", "problem", "found", "expected", "mend"), "\x1b]0;t\x07[b]x[/b]")
    record = {"problems": [entry | {"severity": "error"}]}
    (tmp_path / "verify").mkdir()
    (tmp_path / "verify" / "verify.json").write_text(json.dumps(record))
    console, out = _terminal()
    console.print(problems_table(tmp_path))
    assert "\x1b]0" not in out.getvalue()
    assert "[b]x[/b]" in out.getvalue()


def test_names_that_are_no_text_are_told_of(tmp_path: Path) -> None:
    case = os.fsencode(tmp_path) + b"/d/case\xff\xfe"
    os.makedirs(case)
    for end in (b"_t1.nii.gz", b"_seg.nii.gz"):
        whole = build.nifti(tmp_path / "whole.nii.gz", build.labels((1,)))
        with open(case + b"/case" + end, "wb") as file:
            file.write(whole.read_bytes())
    entry = {"layout": "brats", "folder": "d", "year": 2021}
    dataset, problems = read_dataset("d", ConfigDict(entry), tmp_path)
    found = [*problems, *verify_cases(dataset, dataset.cases, ("t1",), folder=tmp_path / "d")]
    assert any("cannot be that of a file" in p.what for p in found)
    assert all(str(p).isprintable() for p in found)
