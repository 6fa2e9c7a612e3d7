"""The main job in 3-D, from end to end: uneven strides, layers of two resolutions, both maps."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

from jaxfer.metrics import nce
from jaxfer.models.zoo import load_source
from jaxfer.train.predict import forward, read_tile, tiles
from tests.launching import Launch

PATCH = (16, 16, 12)
LAYERS = ("decoder_0", "encoder_1")
SETTINGS = (
    "--config=configs/demo.py:tiny",
    "--config.sources=('phantom/ageing/flair/tissue',)",
    f"--config.model.patch={PATCH}",
    "--config.model.widths=(4,6,8)",
    "--config.model.strides=('2x2x1','2x2x2')",
    "--config.model.deep_supervision=True",
    "--config.model.conv_impl=native",
    "--config.select.metrics=('leep','nce','h_score')",
    f"--config.select.layers={LAYERS}",
    "--config.risk.mode=positional",
    "--config.finetune.methods=('scratch','weighted')",
)


def _json(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def finished(demo: Path, launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run in 3-D, which shares the store of the one in 2-D."""
    workdir = tmp_path_factory.mktemp("runs") / "three"
    done = launch(*SETTINGS, f"--config.data.cache={demo / 'store'}", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr[-3000:]
    return workdir


def test_the_network_is_in_3_d(finished: Path) -> None:
    (card,) = (_json(path) for path in (finished / "sources").glob("*/card.json"))
    assert (card["patch"], card["strides"]) == ([*PATCH], [[2, 2, 1], [2, 2, 2]])
    assert card["deep_supervision"]
    leaves = _json(finished / "finetune" / "summary.json")["leaves"]
    assert leaves["remade"] == ["head/bias", "head/kernel", "head_1/bias", "head_1/kernel"]
    assert "decoder_1/Conv_0/kernel" in leaves["loaded"]


def test_selection_counts_every_voxel(finished: Path) -> None:
    selection = _json(finished / "select" / "selection.json")
    (row,) = selection["sources"]
    assert len(row["scores"]) == 4
    assert all(np.isfinite(value) for value in row["scores"].values())
    prepared = _json(finished / "prepare" / "prepared.json")
    cases = prepared["datasets"]["phantom"]["cases"]
    wanted = _json(finished / "evaluate" / "labels.json")["WMH"]["reference"]
    source = load_source(next((finished / "sources").iterdir()))
    predicted, labels = [], []
    for case in prepared["splits"][selection["target"]]["train"]:
        folder = Path(cases[case]["folder"])
        image = np.load(folder / "flair.npy")
        guess = np.full(image.shape, -1)
        # Where tiles overlap, a voxel is the first one's.
        for tile in reversed(tiles(image.shape, PATCH, 0.0)):
            batch = read_tile(image, tile, PATCH, 0).astype(np.float32)[None, ..., None]
            own = forward(source.model, source.params, jnp.asarray(batch))[0][0].argmax(-1)
            place = tuple(slice(s, s + p) for s, p in zip(tile.start, PATCH, strict=True))
            guess[place] = np.asarray(own)[tuple(map(slice, guess[place].shape))]
        predicted.append(guess.reshape(-1))
        labels.append(np.isin(np.load(folder / "label.npy"), wanted).reshape(-1).astype(int))
    hard, truth = np.concatenate(predicted), np.concatenate(labels)
    assert selection["n_voxels"] == hard.size
    number = source.model.num_classes
    expected = nce(hard, truth, num_source_classes=number, num_classes=2)
    assert row["scores"]["nce"] == pytest.approx(float(expected), rel=1e-4)


def test_maps_and_predictions_lie_on_the_files_grids(finished: Path) -> None:
    prepared = _json(finished / "prepare" / "prepared.json")["datasets"]["phantom"]["cases"]
    for path in sorted((finished / "risk").glob("*.nii.gz")):
        case, mode = path.name.removesuffix(".nii.gz").rsplit("_", 1)
        image, risk = nib.load(prepared[case]["images"]["flair"]["path"]), nib.load(path)
        np.testing.assert_array_equal(risk.affine, image.affine)
        assert risk.shape == image.shape
        assert mode in ("instance", "positional")
        assert 0 <= risk.get_fdata().min() < risk.get_fdata().max()
    cases = {case["case"]: case for case in _json(finished / "evaluate" / "cases.json")}
    with (finished / "evaluate" / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert {row["method"] for row in rows} == {"scratch", "weighted"}
    for row in rows:
        case = cases[row["case"]]
        written = nib.load(finished / case["predictions"][row["method"]][row["seed"]])
        image = nib.load(case["image"])
        np.testing.assert_array_equal(written.affine, image.affine)
        assert written.shape == image.shape
        assert (np.asarray(written.dataobj) > 0).sum() == int(row["n_prediction"])
    assert (finished / "report.html").is_file()


def test_a_shelf_of_networks_in_2_d_is_refused(
    finished: Path, demo: Path, launch: Launch, tmp_path: Path
) -> None:
    refused = launch(
        *SETTINGS,
        f"--config.data.cache={demo / 'store'}",
        f"--config.shelf={demo / 'sources'}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert "a 2-D network, and this run's are 3-D" in refused.stderr
    assert not (tmp_path / "run" / "select").exists()
