"""What is fresh is skipped, what is stale is done again, what is another run is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.launching import Launch

CONFIG = "--config=configs/demo.py:tiny"
STAGES = ("prepare", "pretrain", "select", "finetune", "evaluate", "report")


@pytest.fixture
def copy(demo: Path, tmp_path: Path) -> Path:
    """The finished run, to be changed; its stored cases stay where they are."""
    workdir = tmp_path / "copy"
    shutil.copytree(demo, workdir, ignore=shutil.ignore_patterns("store"))
    (workdir / "store").symlink_to(demo / "store")
    return workdir


def _told(stdout: str, stage: str) -> list[str]:
    return [line for line in stdout.splitlines() if line.startswith(stage)]


def test_a_second_launch_skips_everything(launch: Launch, demo: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in demo.rglob("*.n*") if p.is_file()}
    again = launch(CONFIG, f"--workdir={demo}")
    assert again.returncode == 0, again.stderr
    for stage in STAGES:
        assert "fresh" in _told(again.stdout, stage)[0]
    assert {p: p.stat().st_mtime_ns for p in demo.rglob("*.n*") if p.is_file()} == before


def test_a_changed_setting_makes_its_stage_and_the_later_ones_stale(
    launch: Launch, copy: Path
) -> None:
    again = launch(CONFIG, f"--workdir={copy}", "--config.finetune.steps=4")
    assert again.returncode == 0, again.stderr
    for stage in ("prepare", "pretrain", "select"):
        assert "fresh" in _told(again.stdout, stage)[0]
    for stage in ("finetune", "evaluate", "report"):
        assert "stale" in _told(again.stdout, stage)[0]
    log = (copy / "finetune" / "plain" / "seed0" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [2, 4]


def test_part_of_the_job(launch: Launch, copy: Path) -> None:
    shutil.rmtree(copy / "select")
    again = launch(CONFIG, f"--workdir={copy}", "--config.stages=('select',)")
    assert again.returncode == 0, again.stderr
    assert (copy / "select" / "selection.json").is_file()
    assert not _told(again.stdout, "prepare")


def test_a_half_done_pretraining_goes_on(launch: Launch, copy: Path) -> None:
    kept = copy / "sources" / "phantom-ageing-t1-tissue"
    before = (kept / "card.json").stat().st_mtime_ns
    lost = copy / "sources" / "phantom-ageing-t2-tissue"
    (lost / "card.json").unlink()
    (copy / "pretrain" / "done.json").unlink()
    again = launch(CONFIG, f"--workdir={copy}", "--config.stages=('pretrain',)")
    assert again.returncode == 0, again.stderr
    assert "1 source model(s) trained, 2 already on the shelf" in again.stdout
    assert (kept / "card.json").stat().st_mtime_ns == before
    assert (lost / "card.json").is_file()


def test_a_moved_run_keeps_its_sources_and_a_changed_scan_renews_those_that_saw_it(
    launch: Launch, demo: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "moved"
    shutil.copytree(demo, workdir)
    again = launch(CONFIG, f"--workdir={workdir}", "--config.stages=('prepare','pretrain')")
    assert again.returncode == 0, again.stderr
    assert "0 source model(s) trained, 3 already on the shelf" in again.stdout
    splits = json.loads((workdir / "prepare" / "splits.json").read_text())
    case = splits["phantom/ageing/t1/tissue"]["train"][0]
    prepared = json.loads((workdir / "prepare" / "prepared.json").read_text())
    image = Path(prepared["datasets"]["phantom"]["cases"][case]["images"]["t1"]["path"])
    assert workdir in image.parents
    scan = nib.load(image)
    brighter = scan.get_fdata(dtype=np.float32) ** 1.5
    nib.save(nib.Nifti1Image(brighter, scan.affine, scan.header), image)
    again = launch(CONFIG, f"--workdir={workdir}", "--config.stages=('prepare','pretrain')")
    assert again.returncode == 0, again.stderr
    assert "source phantom/ageing/t1/tissue" in again.stdout
    saw = [name for name, split in splits.items() if "/t1/" in name and case in split["train"]]
    assert f"{len(saw)} source model(s) trained, {3 - len(saw)} already" in again.stdout


def test_a_stage_without_its_inputs_says_which(launch: Launch, tmp_path: Path) -> None:
    refused = launch(CONFIG, f"--workdir={tmp_path / 'new'}", "--config.stages=('select',)")
    assert refused.returncode == 2
    assert "'prepare'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_another_run_is_refused_and_nothing_is_overwritten(launch: Launch, copy: Path) -> None:
    before = (copy / "config.json").read_bytes()
    refused = launch(CONFIG, f"--workdir={copy}", "--config.data.train_subjects=1")
    assert refused.returncode == 2
    for word in ("another run", "config.data.train_subjects: 2 there, 1 now", "--workdir"):
        assert word in refused.stderr
    assert (copy / "config.json").read_bytes() == before


def test_a_folder_of_other_files_is_refused(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    refused = launch(CONFIG, f"--workdir={tmp_path}")
    assert refused.returncode == 2
    assert "not the workdir of a run" in refused.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]
