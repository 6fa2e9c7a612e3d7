"""The main job from end to end, at toy size, and what its files say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from jaxfer.metrics import dice, hd95
from jaxfer.models.zoo import load_source


def _json(path: Path) -> dict:
    return json.loads(path.read_text())


def test_every_source_is_in_the_ranking_with_every_score(demo: Path) -> None:
    selection = _json(demo / "select" / "selection.json")
    config = _json(demo / "config.json")
    assert sorted(row["source"] for row in selection["sources"]) == sorted(config["sources"])
    for row in selection["sources"]:
        assert set(row["scores"]) == {"leep", "nce", "h_score@decoder_0", "logme@decoder_0"}
        assert all(np.isfinite(v) for v in row["scores"].values())
        assert row["decisions"]
        assert row["kept"] == all(d["kept"] for d in row["decisions"])
        assert (row["rank"] is not None) == row["kept"]
        assert -selection["label_entropy"] - 1e-9 <= row["scores"]["leep"] <= 0
    # flair is the target's modality: the other two sources of the toy run are dropped.
    assert [r["modality"] for r in selection["sources"] if r["kept"]] == ["flair"]
    with (demo / "select" / "selection.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [r["source"] for r in rows] == [r["source"] for r in selection["sources"]]
    assert float(rows[0]["leep"]) == selection["sources"][0]["scores"]["leep"]


def test_selection_counts_every_voxel_of_the_training_cases(demo: Path) -> None:
    selection = _json(demo / "select" / "selection.json")
    prepared = _json(demo / "prepare" / "prepared.json")
    train = prepared["splits"][selection["target"]]["train"]
    cases = prepared["datasets"]["phantom"]["cases"]
    stored = [np.load(Path(cases[c]["folder"]) / "label.npy").size for c in train]
    assert selection["n_voxels"] == sum(stored)


def test_splits_are_by_subject_and_no_source_saw_a_test_subject(demo: Path) -> None:
    splits = _json(demo / "prepare" / "splits.json")
    target = splits.pop("target")
    assert not set(target["train"]) & set(target["test"])
    for split in splits.values():
        assert not set(split["train"]) & set(split["validation"])
        assert not set(split["train"] + split["validation"]) & set(target["test"])


def test_the_measures_can_be_recomputed_from_the_written_niftis(demo: Path) -> None:
    cases = {c["case"]: c for c in _json(demo / "evaluate" / "cases.json")}
    labels = _json(demo / "evaluate" / "labels.json")
    with (demo / "evaluate" / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert {r["method"] for r in rows} == {"scratch", "plain", "plain_where"}
    assert len(rows) == 3 * len(cases) * len(labels)
    for row in rows:
        case = cases[row["case"]]
        written = nib.load(demo / case["predictions"][row["method"]][row["seed"]])
        truth, image = nib.load(case["label"]), nib.load(case["image"])
        np.testing.assert_array_equal(written.affine, image.affine)
        assert written.shape == image.shape
        coded = labels[row["label"]]
        mine = np.asarray(written.dataobj) == coded["prediction"]
        theirs = np.isin(np.asarray(truth.dataobj), coded["reference"])
        assert set(np.unique(np.asarray(written.dataobj))) <= {0, coded["prediction"]}
        assert float(row["dice"]) == pytest.approx(dice(mine, theirs), nan_ok=True)
        assert float(row["hd95"]) == pytest.approx(
            hd95(mine, theirs, image.header.get_zooms()[:3]), nan_ok=True
        )
        assert int(row["n_reference"]) == theirs.sum()
        assert int(row["n_prediction"]) == mine.sum()


def test_the_means_are_those_of_the_table(demo: Path) -> None:
    summary = _json(demo / "evaluate" / "summary.json")
    with (demo / "evaluate" / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    for method, found in summary["methods"].items():
        own = [float(r["dice"]) for r in rows if r["method"] == method]
        assert found["dice_mean"] == pytest.approx(np.nanmean(own))
        assert sum(found["outcomes"].values()) == len(own)
    gain = summary["gain"]["plain - scratch"]["mean"]
    means = {m: f["dice_mean"] for m, f in summary["methods"].items()}
    assert gain == pytest.approx(means["plain"] - means["scratch"])


def test_risk_maps_lie_on_the_scans_grids_for_training_cases_only(demo: Path) -> None:
    prepared = _json(demo / "prepare" / "prepared.json")
    target = _json(demo / "config.json")["target"]
    train = prepared["splits"][target]["train"]
    for mode in ("instance", "positional"):
        maps = sorted((demo / "risk").glob(f"*_{mode}.nii.gz"))
        assert [m.name for m in maps] == sorted(f"{c}_{mode}.nii.gz" for c in train)
        for case in train:
            risk = nib.load(demo / "risk" / f"{case}_{mode}.nii.gz")
            image = nib.load(
                prepared["datasets"]["phantom"]["cases"][case]["images"]["flair"]["path"]
            )
            np.testing.assert_array_equal(risk.affine, image.affine)
            assert risk.shape == image.shape
            values = risk.get_fdata()
            assert values.min() >= 0
            assert values.max() > 0


def test_what_a_method_makes_of_its_map_is_there_to_be_looked_at(demo: Path) -> None:
    methods = _json(demo / "finetune" / "summary.json")["methods"]
    assert {m for m, about in methods.items() if "weights" in about} == {"plain_where"}
    folder = demo / methods["plain_where"]["weights"]
    files = sorted(folder.glob("*.npy"))
    assert files
    spacing = _json(demo / "config.json")["data"]["spacing"]
    for file in files:
        shown = nib.load(file.with_suffix(".nii.gz"))
        case = file.name.removesuffix("_weights.npy")
        risk = nib.load(demo / "risk" / f"{case}_instance.nii.gz")
        np.testing.assert_array_equal(shown.affine, risk.affine)
        trained = np.load(file)
        values = shown.get_fdata()
        assert values.shape == risk.shape
        # Outside of the field of view that is trained on there is nothing, nor on its edge.
        inside = values[values > 0]
        per_voxel = np.prod(spacing) / np.prod(shown.header.get_zooms())
        assert 0.8 < inside.size / (per_voxel * trained.size) < 1
        assert inside.mean() == pytest.approx(trained.mean(), abs=1e-3)
        assert trained.min() <= inside.min() < inside.max() <= trained.max()


def test_every_method_had_the_same_budget(demo: Path) -> None:
    config = _json(demo / "config.json")
    steps = set()
    for method in config["finetune"]["methods"]:
        lines = (demo / "finetune" / method / "seed0" / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        steps.add(tuple(r["step"] for r in records))
        assert all(np.isfinite(r["loss"]) for r in records)
    assert steps == {(2, 4, 6)}


def test_a_source_loads_from_its_card_alone(demo: Path, tmp_path: Path) -> None:
    folder = next((demo / "sources").iterdir())
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    try:
        source = load_source(moved)
        assert source.card["task"]["name"].startswith("phantom/")
        assert source.masks.shape[0] == len(source.card["train_subjects"])
    finally:
        moved.rename(folder)


def test_the_report_says_that_the_subjects_are_synthetic(demo: Path) -> None:
    page = (demo / "report.html").read_text()
    assert "synthetic" in page.lower()
    assert "<script" not in page
    assert 'src="http' not in page
    # The tables and pictures of the run are there.
    assert page.count("data:image/png;base64") >= 4
    for case in _json(demo / "evaluate" / "cases.json"):
        assert case["case"] in page
