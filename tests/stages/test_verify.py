"""The verify stage as a user sees it: a table or lines, verify.json, exit status 2 for errors."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from jaxfer.config import default_config
from jaxfer.errors import Problem, UserError
from jaxfer.stages import verify as stage
from jaxfer.stages.run import Run, write_json
from jaxfer.stages.verify import Wanted, tell
from jaxfer.tasks import Case, Dataset, Image
from tests.data.layouts import build
from tests.launching import Launch

STAGE = ("--config=configs/brats.py:tiny", "--config.stages=('verify',)")
KEYS = {"severity", "file", "problem", "found", "expected", "mend", "dataset"}


def tumours(root: Path, count: int = 5) -> Path:
    for number in range(count):
        build.brain_tumour(root / "BraTS2021", f"BraTS2021_{number:05d}", seed=number)
    return root / "BraTS2021"


def relabel(file: Path, value: int) -> None:
    image = nib.load(file)
    labels = np.asarray(image.dataobj).copy()
    labels[:] = 0
    labels[4, 4, 4] = value
    nib.save(nib.Nifti1Image(labels, image.affine), file)


def test_errors_stop_and_warnings_do_not(launch: Launch, tmp_path: Path) -> None:
    folder, workdir = tumours(tmp_path / "data"), tmp_path / "run"
    command = (*STAGE, f"--config.data.root={tmp_path / 'data'}", f"--workdir={workdir}")
    cut = folder / "BraTS2021_00001" / "BraTS2021_00001_flair.nii.gz"
    unknown = folder / "BraTS2021_00002" / "BraTS2021_00002_seg.nii.gz"
    empty = folder / "BraTS2021_00003" / "BraTS2021_00003_seg.nii.gz"
    whole = cut.read_bytes()
    cut.write_bytes(whole[:-30])
    relabel(unknown, 3)
    relabel(empty, 0)
    refused = launch(*command)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    record = json.loads((workdir / "verify" / "verify.json").read_text())
    problems = record["problems"]
    assert [(p["severity"], p["file"]) for p in problems] == [
        ("error", str(cut)),
        ("error", str(unknown)),
        ("warning", str(empty)),
    ]
    assert all(set(p) == KEYS and all(p.values()) for p in problems)
    for problem in problems[:2]:
        (line,) = [row for row in refused.stderr.splitlines() if problem["file"] in row]
        assert all(problem[key] in line for key in ("problem", "found", "expected", "mend"))
    assert str(workdir / "verify" / "verify.json") in refused.stderr
    assert not (workdir / "verify" / "done.json").exists()
    assert not list(workdir.rglob("*.npy"))

    cut.write_bytes(whole)
    relabel(unknown, 4)
    passed = launch(*command)
    assert passed.returncode == 0, passed.stderr
    assert f"warning: {empty}: the label map is empty" in passed.stdout
    assert "1 warning(s)" in passed.stdout
    assert not (workdir / "prepare").exists()
    assert not list(workdir.rglob("*.npy"))
    again = launch(*command)
    assert "fresh" in again.stdout


def run_of(workdir: Path, terminal: bool, width: int) -> tuple[Run, io.StringIO]:
    told = io.StringIO()
    console = Console(file=told, force_terminal=terminal, width=width, color_system=None)
    return Run(default_config(), workdir, console), told


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("severity", ["error", "warning"])
def test_a_table_on_a_terminal_whose_paths_are_whole(
    tmp_path: Path, width: int, severity: str
) -> None:
    problems = [
        Problem(
            severity,
            f"/scans/of/many/people/BraTS2021_{n:05d}/a_rather_long_name_of_{n}_flair.nii.gz",
            f"shape differs from that of /scans/of/many/people/BraTS2021_{n:05d}/t1.nii.gz",
            "[1] 2 × 3",
            "4 × 5",
            "pair the files",
        )
        for n in range(3)
    ]
    entries = [
        {"severity": p.severity, "file": p.where, "problem": p.what, "found": p.found}
        | {"expected": p.allowed, "mend": p.mend, "dataset": "d"}
        for p in problems
    ]
    write_json(tmp_path / "verify" / "verify.json", {"problems": entries, "verified": {}})
    run, told = run_of(tmp_path, terminal=True, width=width)
    if severity == "error":
        with pytest.raises(UserError, match="3 problem"):
            tell(run, problems)
    else:
        tell(run, problems)
    text = told.getvalue()
    assert "/scans/of/many/people" in text
    assert max(map(len, text.splitlines())) <= width
    (head,) = [line for line in text.splitlines() if line.split() == ["file", "problem"]]
    joined = "".join(line[: head.index("problem")].strip() for line in text.splitlines())
    for n in range(3):
        assert f"BraTS2021_{n:05d}/a_rather_long_name_of_{n}_flair.nii.gz" in joined
    for word in (severity, "found: [1] 2 × 3", "expected: 4 × 5", "mend: pair the files"):
        assert word in text
    assert "…" not in text


def test_what_was_verified_is_read_again_only_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = build.nifti(tmp_path / "scans" / "a.nii.gz", build.scan(build.labels((1,))))
    dataset = Dataset("d", (), {0: "background"}, {}, False, "made here")
    case = Case("a", "a", "1", {"t1": Image(file)}, None)
    run, _ = run_of(tmp_path, terminal=False, width=80)
    other = Problem("warning", "dataset.json", "odd", "1", "2", "mend it")
    read: list[str] = []

    def noted(*how: object, **more: object) -> list[Problem]:
        read.append("read")
        return [Problem("warning", str(file), "a problem", "3", None, "mend it")]

    monkeypatch.setattr(stage, "verify_cases", noted)

    def found(files: object, names: dict[int, str]) -> list[Problem]:
        one = Wanted(replace(dataset, label_names=names), tmp_path, [case], ("t1",), files)
        return stage.find_problems(run, {"d": one}, [other])

    first = found([1, 2], {0: "background"})
    assert [p.where for p in first] == [str(file), "dataset.json"]
    assert found([1, 2], {0: "background"}) == first
    assert len(read) == 1
    for files, names in (([1, 3], {0: "background"}), ([1, 3], {0: "b"}), (None, {0: "b"})):
        found(files, names)
        found(files, names)
    assert len(read) == 1 + 1 + 1 + 2, "files that cannot be found are looked for again"
