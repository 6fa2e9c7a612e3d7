"""The stage select in this process: what its files say, and what it refuses."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import rankdata

from configs.demo import get_config
from jaxfer.config import chosen_scores, validate
from jaxfer.errors import UserError
from jaxfer.report.files import read_run
from jaxfer.stages import select
from jaxfer.stages.finetune import chosen_source, starting_source
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.run import Run


@pytest.fixture
def again(demo: Path, tmp_path: Path) -> Callable[..., Run]:
    """The finished toy run, its selection asked for otherwise; the original stays as it is."""
    workdir = tmp_path / "copy"
    shutil.copytree(demo, workdir, ignore=shutil.ignore_patterns("store", "finetune", "evaluate"))
    (workdir / "store").symlink_to(demo / "store")

    def run(**changes: object) -> Run:
        config = get_config("tiny")
        config.select.update(changes)
        return Run(config, workdir, Console(quiet=True))

    return run


def _leep(run: Run) -> dict[str, float]:
    record = json.loads((run.workdir / "select" / "selection.json").read_text())
    return {row["source"]: row["scores"]["leep"] for row in record["sources"]}


def test_sources_are_computed_in_the_runs_precision(again: Callable[..., Run]) -> None:
    run = again()
    wide = _leep(run)
    run.config.model.precision, run.config.model.conv_impl = "bfloat16", "native"
    select.run(run)
    narrow = _leep(run)
    for source, leep in wide.items():
        assert narrow[source] != leep
        assert narrow[source] == pytest.approx(leep, rel=0.05)
    model = starting_source(run, Prepared.read(run)).model
    assert (model.precision, model.conv_impl) == ("bfloat16", "native")


def test_layers_and_samples_stand_in_the_files(again: Callable[..., Run]) -> None:
    run = again(
        metrics=("leep", "logme", "sfda", "f_otce", "ncti", "otce"),
        layers=("encoder_1", "decoder_0"),
        rank_by="ncti@encoder_1",
        modality="none",
        roi_keep=0,
        samples=50,
        repetitions=3,
    )
    validate(run.config)
    told = select.run(run)
    assert "best by ncti@encoder_1" in told
    names = chosen_scores(run.config.select)
    record = json.loads((run.workdir / "select" / "selection.json").read_text())
    assert tuple(record["metrics"]) == names
    assert record["layers"] == ["encoder_1", "decoder_0"]
    assert record["metrics"]["logme@encoder_1"]["over"] == "every voxel"
    assert record["metrics"]["sfda@decoder_0"]["over"] == "samples"
    assert record["metrics"]["ncti@decoder_0"]["pool_dependent"]
    assert sorted(record["pool"]) == sorted(run.config.sources)
    exact = {"leep", "logme@encoder_1", "logme@decoder_0"}
    for row in record["sources"]:
        assert {k for k, v in row["scores"].items() if v is None} == {
            "otce@encoder_1",
            "otce@decoder_0",
        }
        assert set(row["intervals"]) == set(row["balanced"]) == exact
        missing = {"otce@encoder_1", "otce@decoder_0"}
        assert set(row["standard_errors"]) == set(names) - exact - missing
        assert all(v >= 0 for v in row["standard_errors"].values())
        assert "coefficients" in row["reasons"]["otce@decoder_0"][0]
    seconds = json.loads((run.workdir / "select" / "seconds.json").read_text())
    assert seconds.keys() == {row["source"] for row in record["sources"]}
    assert all(part > 0 for parts in seconds.values() for part in parts.values())
    scores = [row["scores"]["ncti@encoder_1"] for row in record["sources"]]
    assert scores == sorted(scores, reverse=True)
    # Said once of all sources, not of each.
    assert any(note.startswith("otce: needs coefficients") for note in record["notes"])
    assert sum(row["probability_best"] for row in record["sources"]) == pytest.approx(1)
    with (run.workdir / "select" / "selection.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert float(rows[0]["ncti@encoder_1"]) == scores[0]
    error = record["sources"][0]["standard_errors"]["sfda@decoder_0"]
    assert float(rows[0]["sfda@decoder_0_standard_error"]) == error
    assert rows[0]["otce@decoder_0"] in ("", "nan")
    assert math.isfinite(float(rows[0]["logme@encoder_1_low"]))
    assert list((run.workdir / "select").glob("*.log_probs")) == []


def test_a_source_whose_data_have_gone_is_scored_but_not_by_its_voxels(
    again: Callable[..., Run],
) -> None:
    run = again(metrics=("leep", "f_otce"), samples=20, repetitions=2)
    path = run.workdir / "prepare" / "prepared.json"
    prepared = json.loads(path.read_text())
    gone = run.config.sources[0]
    prepared["unavailable"][gone] = "its data are not there"
    path.write_text(json.dumps(prepared))
    select.run(run)
    record = json.loads((run.workdir / "select" / "selection.json").read_text())
    (row,) = (row for row in record["sources"] if row["source"] == gone)
    assert row["scores"]["leep"] is not None
    assert row["scores"]["f_otce@decoder_0"] is None
    (reason,) = row["reasons"]["f_otce@decoder_0"]
    assert reason == "the source's own voxels are not at hand: its data are not there"
    assert any(reason in flag for flag in row["flags"])


def test_rois_are_compared_as_asked(again: Callable[..., Run]) -> None:
    run = again(metrics=("leep",), rank_by="leep", roi_similarity="ssim_shape")
    folder = sorted((run.workdir / "sources").iterdir())[0]
    card = json.loads((folder / "card.json").read_text())
    found = {}
    for kind in ("ssim", "ssim_shape"):
        run.config.select.roi_similarity = kind
        select.run(run)
        record = json.loads((run.workdir / "select" / "selection.json").read_text())
        assert record["roi_similarity"] == kind
        for row in record["sources"]:
            low, high = row["roi_similarity_interval"]
            assert low is None or low <= row["roi_similarity"] <= high
        found[kind] = [r["roi_similarity"] for r in record["sources"]]
        assert not any("small lesions" in flag for r in record["sources"] for flag in r["flags"])
    assert sorted(found["ssim"]) != sorted(found["ssim_shape"])
    bits = np.packbits(np.load(folder / "masks.npy") > 127, axis=1)
    np.save(folder / "masks.npy", bits)
    (folder / "card.json").write_text(json.dumps(card | {"masks_kind": "bits"}))
    select.run(run)
    record = json.loads((run.workdir / "select" / "selection.json").read_text())
    flagged = [
        r["source"] for r in record["sources"] if any("small lesions" in f for f in r["flags"])
    ]
    assert flagged == [card["task"]["name"]]


def test_what_does_not_fit_on_the_shelf_is_told_at_once(again: Callable[..., Run]) -> None:
    run = again(layers=("encoder_2",), rank_by="leep")
    folder = sorted((run.workdir / "sources").iterdir())[0]
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"masks_size": 4096}))
    np.save(folder / "masks.npy", np.ones((2, 4096), np.uint8))
    before = (run.workdir / "select" / "selection.json").read_bytes()
    with pytest.raises(UserError) as told:
        select.run(run)
    message = str(told.value)
    assert "has no such layer; found encoder_2; allowed encoder_0, encoder_1, decoder_0" in message
    assert f"{folder}: its masks lie on another grid" in message
    assert "found 4096 voxels; allowed 262144" in message
    assert message.count("encoder_2") == len(run.config.sources)
    assert (run.workdir / "select" / "selection.json").read_bytes() == before


def test_several_scores_and_the_images_rank_together(again: Callable[..., Run]) -> None:
    run = again(
        metrics=("leep", "logme", "hamming_distance"),
        rank_by="leep+hamming_distance",
        modality="soft",
        roi_keep=0,
        samples=20,
        repetitions=2,
    )
    validate(run.config)
    assert "best by aggregate" in select.run(run)
    record = json.loads((run.workdir / "select" / "selection.json").read_text())
    assert record["rank_by"] == "aggregate"
    meaning = record["metrics"]["aggregate"]["meaning"]
    assert "leep, hamming_distance, modality_distance" in meaning
    rows = record["sources"]
    assert all(row["kept"] for row in rows)
    oriented = [
        [sign * row["scores"].get(name, row.get(name)) for row in rows]
        for name, sign in (("leep", 1), ("hamming_distance", -1), ("modality_distance", -1))
    ]
    expected = np.mean([(rankdata(own) - 1) / 2 for own in oriented], axis=0)
    found = [row["scores"]["aggregate"] for row in rows]
    np.testing.assert_allclose(found, expected)
    assert found == sorted(found, reverse=True)
    assert sum(row["probability_best"] for row in rows) == pytest.approx(1)
    for row in rows:
        assert row["decisions"][-1]["step"] == "rank"
        assert "modality_distance: " in row["decisions"][-1]["reason"]
        low, high = row["modality_distance_interval"]
        assert low <= row["modality_distance"] <= high
    # The target is FLAIR: of the toy run's sources its own modality is nearest.
    by_modality = {row["modality"]: row["modality_distance"] for row in rows}
    assert min(by_modality, key=by_modality.get) != "t2"
    with (run.workdir / "select" / "selection.csv").open() as lines:
        table = list(csv.DictReader(lines))
    assert [float(row["aggregate"]) for row in table] == found
    assert float(table[0]["modality_distance"]) == rows[0]["modality_distance"]
    # Fine-tuning follows this ranking, and the page reads it.
    assert chosen_source(run).name == rows[0]["source"]
    assert read_run(run.workdir).ranking.metrics[0].name == "aggregate"


def test_images_that_are_not_known_or_lie_are_flagged(again: Callable[..., Run]) -> None:
    run = again(metrics=("leep",), modality="soft", roi_keep=0)
    folder = sorted((run.workdir / "sources").iterdir())[0]
    card = json.loads((folder / "card.json").read_text())
    size = card.pop("intensities_size")
    (folder / "card.json").write_text(json.dumps(card))
    select.run(run)
    record = json.loads((run.workdir / "select" / "selection.json").read_text())
    (row,) = (r for r in record["sources"] if r["source"] == card["task"]["name"])
    assert row["modality_distance"] is None
    assert row["kept"]
    assert any("nothing is kept of its scans' intensities" in flag for flag in row["flags"])
    assert "counts neither for nor against" in row["decisions"][-1]["reason"]
    (folder / "card.json").write_text(json.dumps(card | {"intensities_size": size}))
    (folder / "intensities.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"intensities\.npy"):
        select.run(run)
