"""Scans that the run renders from label maps: made once, in the store, and told when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from jaxfer.config import default_config
from jaxfer.errors import UserError
from jaxfer.stages import prepare
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.run import Run
from jaxfer.tasks import Task
from tests.data.layouts import build


@pytest.fixture
def config(tmp_path: Path) -> ConfigDict:
    config = default_config()
    config.name = "heads"
    config.data.root = str(tmp_path / "data")
    config.datasets.heads = {
        "layout": "heads",
        "folder": "head_label_maps",
        "seed": 0,
        "skull_stripped": False,
    }
    config.target = "heads/all/t1/hippocampus"
    config.sources = ("heads/all/t2/hippocampus", "heads/all/flair/tissue")
    config.data.train_subjects = 1
    config.data.test_subjects = 1
    return config.lock()


def test_prepare_renders_splits_and_stores(config: ConfigDict, tmp_path: Path) -> None:
    folder = build.heads(tmp_path / "data", 4)
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    run = Run(config, tmp_path / "run", Console(quiet=True))
    prepare.run(run)
    found = Prepared.read(run)
    target = Task.parse(config.target)
    (train,), (test,) = found.cases(target, "train"), found.cases(target, "test")
    # Two boxes of 4 × 6 voxels, one slice less of each with every subject.
    assert (train.classes() == 1).sum() == 2 * 4 * 6 * (6 - int(train.stored.id[-2:]))
    assert found.synthetic(target)
    for source in map(Task.parse, config.sources):
        cases = found.cases(source, "train") + found.cases(source, "validation")
        assert test.stored.subject not in {c.stored.subject for c in cases}
        assert cases
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    scans = sorted((tmp_path / "run" / "store" / "heads" / "scans").rglob("*.nii.gz"))
    assert len(scans) == 4 * 4
    made = [file.stat().st_mtime_ns for file in scans]
    prepare.run(run)
    assert [file.stat().st_mtime_ns for file in scans] == made
    # As the store has them: hippocampus and white matter differ in T1.
    image, classes = train.image(), train.classes()
    assert abs(image[classes == 1].mean() - image[train.stored.labels() == 2].mean()) > 0.1
    assert np.isfinite(image).all()


def test_damaged_label_maps_are_told_all_at_once(config: ConfigDict, tmp_path: Path) -> None:
    folder = build.heads(tmp_path / "data", 3)
    for number in (1, 3):
        file = folder / f"training_seg_{number:02d}.nii.gz"
        file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(UserError) as caught:
        prepare.run(Run(config, tmp_path / "run", Console(quiet=True)))
    assert "training_seg_01" in str(caught.value)
    assert "training_seg_03" in str(caught.value)
    assert "training_seg_02" not in str(caught.value)


def test_a_missing_folder_says_what_to_download(config: ConfigDict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its folder is missing") as caught:
        prepare.run(Run(config, tmp_path / "run", Console(quiet=True)))
    assert "SynthSeg" in str(caught.value)
