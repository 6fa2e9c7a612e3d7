"""What a user can get wrong ends in one message, exit status 2, and nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.launching import Launch

DEMO = "--config=configs/demo.py:tiny"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--config is missing",)),
        (("--config=configs/nowhere.py",), ("cannot be read", "nowhere.py")),
        (("--config=configs/demo.py:huge",), ("no preset", "huge", "tiny")),
        ((DEMO, "--config.finetune.stepz=3"), ("config.finetune.stepz", "steps")),
        ((DEMO, "--config.finetune.steps=many"), ("config.finetune.steps", "many")),
        (
            (DEMO, "--config.finetune.steps=0", "--config.risk.mode=both"),
            ("config.finetune.steps", "config.risk.mode", "instance, positional"),
        ),
        ((DEMO, "--config.target=phantom/clinic/flair"), ("config.target", "dataset/site")),
        ((DEMO, "--config.target=phantom/clinic/pet/WMH"), ("pet", "flair")),
        ((DEMO, "--config.target=phantom/clinic/flair/spleen"), ("spleen", "WMH")),
        ((DEMO, "stray"), ("stray",)),
        ((DEMO, "--nonsense=1"), ("nonsense",)),
        ((DEMO, "--config.datasets.phantom.sites=('ageing','glioma','moon')"), ("moon", "glioma")),
        (
            ("--config=configs/hippocampus.py:tiny", "--config.data.root=nowhere"),
            ("Task04_Hippocampus", "CC BY-SA 4.0", "--config.data.root"),
        ),
        (
            ("--config=configs/open_ms.py:tiny", "--config.data.root=nowhere"),
            ("open_ms", "CC BY", "--config.data.root"),
        ),
    ],
)
def test_one_message(
    launch: Launch, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    workdir = tmp_path / "run"
    refused = launch(*arguments, f"--workdir={workdir}")
    assert refused.returncode == 2, refused.stderr
    assert "Traceback" not in refused.stderr
    for word in words:
        assert word in refused.stderr
    assert not list(workdir.rglob("*.npy"))


def _task(folder: Path, cases: int = 4) -> Path:
    """A small Decathlon task of whole cases."""
    root = folder / "data" / "Task04_Hippocampus"
    for sub in ("imagesTr", "labelsTr"):
        (root / sub).mkdir(parents=True)
    rng = np.random.default_rng(0)
    training = []
    for number in range(cases):
        name = f"hippocampus_{number:03d}.nii.gz"
        labels = np.zeros((12, 14, 10), np.uint8)
        labels[4:8, 3:7, 3:7], labels[4:8, 7:11, 3:7] = 1, 2
        image = rng.normal(100 + 20 * labels, 5).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), root / "imagesTr" / name)
        nib.save(nib.Nifti1Image(labels, np.eye(4)), root / "labelsTr" / name)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    (root / "dataset.json").write_text(
        json.dumps(
            {
                "name": "Hippocampus",
                "modality": {"0": "MRI"},
                "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
                "training": training,
            }
        )
    )
    return root


def _prepare(launch: Launch, folder: Path, workdir: Path) -> tuple[int, str]:
    done = launch(
        "--config=configs/hippocampus.py:tiny",
        f"--config.data.root={folder / 'data'}",
        "--config.sources=('phantom/ageing/t1/tissue',)",
        "--config.datasets.phantom.subjects=(1,1)",
        "--config.stages=('prepare',)",
        "--config.data.test_subjects=0",
        f"--workdir={workdir}",
    )
    return done.returncode, done.stderr


def test_whole_cases_are_prepared(launch: Launch, tmp_path: Path) -> None:
    _task(tmp_path)
    status, told = _prepare(launch, tmp_path, tmp_path / "run")
    assert status == 0, told


def test_a_patient_without_one_of_the_modalities_serves_the_others(
    launch: Launch, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for number in range(1, 6):
        patient = tmp_path / "data" / "open_ms" / f"patient{number:02d}"
        patient.mkdir(parents=True)
        lesion = np.zeros((12, 14, 10), np.uint8)
        lesion[4:7, 4:7, 4:7] = 1
        nib.save(nib.Nifti1Image(lesion, np.eye(4)), patient / "GOLD_STANDARD_N4.nii.gz")
        for kind in ("FLAIR", "T1")[: 1 if number == 1 else 2]:
            image = rng.normal(100 + 50 * lesion, 5).astype(np.float32)
            nib.save(nib.Nifti1Image(image, np.eye(4)), patient / f"{kind}_N4.nii.gz")
    done = launch(
        "--config=configs/open_ms.py:tiny",
        f"--config.data.root={tmp_path / 'data'}",
        "--config.target=open_ms/all/t1/lesion",
        "--config.sources=('open_ms/all/flair/lesion',)",
        "--config.stages=('prepare',)",
        f"--workdir={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    splits = json.loads((tmp_path / "run" / "prepare" / "splits.json").read_text())
    source = splits["open_ms/all/flair/lesion"]
    assert "patient01" in source["train"] + source["validation"]
    assert "patient01" not in splits["target"]["train"] + splits["target"]["test"]


def test_every_broken_case_is_in_one_message(launch: Launch, tmp_path: Path) -> None:
    root = _task(tmp_path, cases=6)
    (root / "imagesTr" / "hippocampus_000.nii.gz").unlink()
    images, labels = root / "imagesTr", root / "labelsTr"
    nib.save(
        nib.Nifti1Image(np.zeros((9, 9, 9), np.uint8), np.eye(4)),
        labels / "hippocampus_001.nii.gz",
    )
    moved = np.eye(4)
    moved[0, 3] = 5
    shifted = np.asarray(nib.load(labels / "hippocampus_002.nii.gz").dataobj)
    nib.save(nib.Nifti1Image(shifted, moved), labels / "hippocampus_002.nii.gz")
    unknown = shifted.copy()
    unknown[0, 0, 0] = 7
    nib.save(nib.Nifti1Image(unknown, np.eye(4)), labels / "hippocampus_003.nii.gz")
    spoilt = nib.load(images / "hippocampus_004.nii.gz").get_fdata(dtype=np.float32)
    spoilt[2, 2, 2] = np.nan
    nib.save(nib.Nifti1Image(spoilt, np.eye(4)), images / "hippocampus_004.nii.gz")
    status, told = _prepare(launch, tmp_path, tmp_path / "run")
    assert status == 2
    assert "Traceback" not in told
    for number, word in enumerate(("no such file", "shape", "affine", "7", "NaN")):
        assert any(f"hippocampus_00{number}" in line and word in line for line in told.split("\n"))
    assert not list((tmp_path / "run").rglob("*.npy"))
    # Mended, the same command goes on.
    shutil.rmtree(root)
    _task(tmp_path)
    assert _prepare(launch, tmp_path, tmp_path / "run")[0] == 0


def test_the_real_broken_pair(launch: Launch, real_data: Path, tmp_path: Path) -> None:
    root = _task(tmp_path)
    broken = real_data / "broken" / "shape_mismatch"
    shutil.copytree(broken, root, dirs_exist_ok=True)
    described = json.loads((root / "dataset.json").read_text())
    described["training"].append(
        {
            "image": "./imagesTr/hippocampus_118.nii.gz",
            "label": "./labelsTr/hippocampus_281.nii.gz",
        }
    )
    described["labels"] = {"0": "background", "1": "Anterior", "2": "Posterior"}
    (root / "dataset.json").write_text(json.dumps(described))
    # Enough training subjects to be sure that the pair is used.
    status, told = _prepare(launch, tmp_path, tmp_path / "run")
    assert status == 2
    assert "hippocampus_281" in told
    assert "512 × 512 × 94" in told
    assert "37 × 52 × 33" in told
