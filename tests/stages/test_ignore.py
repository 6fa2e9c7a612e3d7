"""Ignored voxels: in no RoI mask of the shelf, in no validation Dice, in no statistic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from jaxfer.data.preprocess import field_of_view
from jaxfer.data.sampler import TaskCase, task_case
from jaxfer.data.store import StoredCase
from jaxfer.models.unet import UNet
from jaxfer.selection.roi import GRID, foreground_masks
from jaxfer.stages import training
from jaxfer.stages.run import Run
from jaxfer.tasks import IGNORE, RoI

LESION = RoI("lesion", (("lesion", (1,)),))


@pytest.fixture
def case(tmp_path: Path) -> TaskCase:
    """Half of the volume is background, an eighth lesion, the rest other pathology."""
    labels = np.zeros((8, 8, 4), np.uint8)
    labels[:4] = 2
    labels[:4, :2] = 1
    image = np.ones(labels.shape, np.float16)
    np.save(tmp_path / "label.npy", labels)
    np.save(tmp_path / "t1.npy", image)
    geometry = field_of_view(labels.shape, np.eye(4), (1.0, 1.0, 1.0))
    stored = StoredCase("a", "a", "s", tmp_path, geometry, {"label.npy": "", "t1.npy": ""})
    return task_case(stored, "t1", LESION, (2,))


def test_masks_on_the_shelf(case: TaskCase) -> None:
    (mask,) = foreground_masks([case.classes()])
    assert mask.mean() == 255 / 8
    assert mask.shape == (GRID**3,)


def test_counts_and_foreground(case: TaskCase) -> None:
    np.testing.assert_array_equal(case.counts.sum(0), [128, 32])
    assert case.foreground_fraction == 32 / 160
    assert (case.classes() == IGNORE).sum() == 96


@pytest.mark.parametrize("at_ignored", [0, 1])
def test_validation_dice(
    case: TaskCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_ignored: int
) -> None:
    guess = (case.classes() == 1).astype(int)
    guess[:4, 2:] = at_ignored
    guess[7] = 1  # 32 voxels of background that are taken for lesion
    probs = np.eye(2, dtype=np.float32)[guess]
    monkeypatch.setattr(training, "predict_volume", lambda *_, **__: probs)
    evaluate, data = {"overlap": 0.0, "batch_size": 1}, {"plane": "axial"}
    config = ConfigDict({"model": {"patch": (8, 8)}, "evaluate": evaluate, "data": data})
    run = Run(config, tmp_path, Console(quiet=True))
    model = UNet(num_classes=2, widths=(2, 4))
    found = training.validation_dice(run, model, {}, [case])
    assert found == {"lesion": pytest.approx(2 * 32 / (32 + 64))}
