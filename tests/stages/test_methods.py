"""Methods of fine-tuning in a run: their maps, their marks, what the evaluation tells of them."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from jaxfer.data.sampler import TaskCase
from jaxfer.errors import UserError
from jaxfer.models.checkpoint import load_params
from jaxfer.models.unet import UNet
from jaxfer.models.zoo import load_source
from jaxfer.stages.finetune import finetune_one, sources_of_map
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.recipe import finetuning_mark
from jaxfer.stages.risk import weights_for
from jaxfer.stages.run import Run
from jaxfer.tasks import Task
from jaxfer.train.methods import MapUse
from tests.launching import Launch

METHODS = (
    *("scratch", "plain", "linear_probe", "l2_sp"),
    *("weighted_other", "plain_where_all", "plain_where_shuffled"),
    *("plain_softened", "risk_sampled"),
)
SETTINGS = (
    "--config=configs/demo.py:tiny",
    f"--config.finetune.methods={METHODS}",
    "--config.data.train_subjects=1",
    "--config.data.validation_subjects=1",
    "--config.pretrain.steps=60",  # sources that know something: their maps vary
    "--config.finetune.validate_every=3",
    "--config.finetune.ema=0.5",
    "--config.finetune.seeds=(0,1)",
)


def _json(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def finished(demo: Path, launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "methods"
    done = launch(
        *SETTINGS,
        f"--config.data.cache={demo / 'store'}",
        f"--config.shelf={workdir / 'sources'}",
        f"--workdir={workdir}",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return workdir


def test_every_method_is_trained_and_validated(finished: Path) -> None:
    summary = _json(finished / "finetune" / "summary.json")
    assert tuple(summary["methods"]) == METHODS
    for method in METHODS:
        lines = (finished / "finetune" / method / "seed0" / "metrics.jsonl").read_text()
        records = [json.loads(line) for line in lines.splitlines()]
        assert [r["step"] for r in records if "best_validation" in r] == [3, 6]
    splits = _json(finished / "prepare" / "splits.json")
    target = splits.pop("target")
    chosen_by = set(target["validation"])
    assert len(chosen_by) == 1
    assert not chosen_by & {*target["train"], *target["test"]}


def test_every_use_of_a_map_trains_another_network(finished: Path) -> None:
    model, found = UNet(num_classes=2, widths=(4, 8)), {}
    for method in METHODS:
        folder = finished / "finetune" / method / "seed0" / "checkpoint"
        params = load_params(folder, model, (32, 32))
        found[method] = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params))
    assert len(set(found.values())) == len(METHODS)


def test_a_linear_probe_keeps_the_sources_leaves(finished: Path) -> None:
    summary = _json(finished / "finetune" / "summary.json")
    model = UNet(num_classes=2, widths=(4, 8))
    paths = [
        finished / "finetune" / method / "seed0" / "checkpoint"
        for method in ("linear_probe", "plain")
    ]
    probe, plain = (load_params(path, model, (32, 32)) for path in paths)
    shelf = Path(_json(finished / "config.json")["shelf"])
    theirs = load_source(shelf / summary["source"].replace("/", "-")).params
    kernel = theirs["encoder_0"]["Conv_0"]["kernel"]
    np.testing.assert_allclose(probe["encoder_0"]["Conv_0"]["kernel"], kernel, rtol=1e-6)
    assert np.abs(plain["encoder_0"]["Conv_0"]["kernel"] - kernel).max() > 1e-5


def test_the_maps_are_what_their_methods_ask_for(finished: Path) -> None:
    folder = finished / "risk"
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {
        "configured",
        "all_sources-where",
        "other_source",
        "where-shuffled",
        "normalise=none-amplify=exp-gain=-1.0-clip=1.0",
        "normalise=none-amplify=identity",
    }
    (own,) = (folder / "configured").iterdir()
    other = np.load(folder / "other_source" / own.name)
    assert (np.load(own) != other).mean() > 0.5
    everyones = np.load(folder / "all_sources-where" / own.name)
    assert everyones.mean() == pytest.approx(1, rel=1e-4)
    assert (everyones != np.load(own)).mean() > 0.5
    where = np.load(folder / "where-shuffled" / own.name)
    labels = np.sort(np.unique(np.round(where, 5)))
    assert where.mean() == pytest.approx(1, rel=1e-4)
    assert len(labels) > 10


def test_where_transfer_hurt_can_be_recomputed_from_the_written_predictions(
    finished: Path,
) -> None:
    for case in _json(finished / "evaluate" / "cases.json"):
        truth = np.asarray(nib.load(case["label"]).dataobj)
        coded = _json(finished / "evaluate" / "labels.json")["WMH"]
        lesion = np.isin(truth, coded["reference"])
        for method, found in case["harm"].items():
            total = np.zeros(truth.shape)
            for seed in ("0", "1"):
                own, scratch = (
                    np.asarray(nib.load(finished / case["predictions"][m][seed]).dataobj) > 0
                    for m in (method, "scratch")
                )
                total += (own != lesion) & (scratch == lesion)
                total -= (own == lesion) & (scratch != lesion)
            written = nib.load(finished / found["file"])
            np.testing.assert_allclose(written.get_fdata(), total / 2)
            np.testing.assert_array_equal(written.affine, nib.load(case["image"]).affine)
            assert found["worse"] == pytest.approx(total.clip(min=0).sum() / 2)
            assert found["better"] == pytest.approx(-total.clip(max=0).sum() / 2)
        assert set(case["harm"]) == {*METHODS} - {"scratch"}


def test_the_summary_tells_of_transfer_and_of_lost_classes(finished: Path) -> None:
    summary = _json(finished / "evaluate" / "summary.json")
    assert set(summary["transfer"]) == {*METHODS} - {"scratch"}
    for method, found in summary["transfer"].items():
        mean = summary["methods"][method]["dice_mean"] - summary["methods"]["scratch"]["dice_mean"]
        assert found["mean"] == pytest.approx(mean)
    collapse = summary["collapse"]["methods"]
    assert all(own["networks"] == 2 for own in collapse.values())
    page = (finished / "report.html").read_text()
    assert "this source helps or hurts could not be told" in page
    assert "encoder_0/Conv_0/kernel" in page


def test_one_fine_tuning_alone_is_that_of_the_stage(finished: Path, tmp_path: Path) -> None:
    run, prepared, cases = _opened(finished)
    summary = _json(finished / "finetune" / "summary.json")
    source = load_source(run.shelf / summary["source"].replace("/", "-"))
    for name, use in (("plain_where_shuffled", "where-shuffled"), ("scratch", "")):
        own = source if use else None
        folder = tmp_path / name
        params = finetune_one(run, prepared, own, name, 0, folder, lambda *_: None)
        done = _json(finished / "finetune" / name / "seed0" / "done.json")
        assert finetuning_mark(run, cases, own, name) == done["fingerprint"]
        model = UNet(num_classes=2, widths=(4, 8))
        there = load_params(finished / "finetune" / name / "seed0" / "checkpoint", model, (32, 32))
        # The stage ran on one device, this on four: the same to rounding.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), params, there)
        made = sorted(folder.glob(f"risk/{use}/*.npy")) if use else []
        for file in made:
            np.testing.assert_array_equal(
                np.load(file), np.load(finished / "risk" / use / file.name)
            )
        assert len(made) == (1 if use else 0)


def _opened(finished: Path) -> tuple[Run, Prepared, list[TaskCase]]:
    """The finished run as its stages see it, and the target's training cases."""
    config = ConfigDict(_tuples(_json(finished / "config.json")))
    run = Run(config, finished, Console(quiet=True))
    prepared = Prepared.read(run)
    return run, prepared, prepared.cases(Task.parse(config.target), "train")


def _tuples(value: object) -> object:
    """A record's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {key: _tuples(own) for key, own in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def test_a_setting_of_one_method_leaves_the_others_fresh(finished: Path, launch: Launch) -> None:
    config = _json(finished / "config.json")
    again = launch(
        *SETTINGS,
        f"--config.data.cache={config['data']['cache']}",
        f"--config.shelf={config['shelf']}",
        f"--workdir={finished}",
        "--config.stages=('finetune',)",
        "--config.finetune.l2_sp=0.5",
    )
    assert again.returncode == 0, again.stderr[-3000:]
    assert "2 of 18 fine-tunings done now" in again.stdout


def test_validation_subjects_must_be_asked_for(launch: Launch, tmp_path: Path) -> None:
    refused = launch(
        "--config=configs/demo.py:tiny",
        "--config.finetune.validate_every=3",
        f"--workdir={tmp_path / 'run'}",
    )
    assert refused.returncode == 2
    assert "there is no validation subject of the target" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_the_map_of_all_sources_is_the_mean_of_theirs_in_nats(
    finished: Path, tmp_path: Path
) -> None:
    run, prepared, cases = _opened(finished)
    chosen = Task.parse(_json(finished / "finetune" / "summary.json")["source"])
    tasks = sources_of_map(run, chosen, MapUse(whose="all"))
    assert len(set(tasks)) == len(tasks) >= 3
    assert chosen in tasks
    in_nats = MapUse(settings=(("normalise", "none"), ("amplify", "identity")))
    sources = [load_source(run.shelf / task.slug) for task in tasks]
    mean, *each = (
        np.load(weights_for(run, prepared, own, cases, [in_nats], tmp_path / str(k))[0][0])
        for k, own in enumerate([sources, *([one] for one in sources)])
    )
    np.testing.assert_allclose(mean, np.mean(each, axis=0), rtol=1e-5)
    assert np.std(each, axis=0).max() > 0.01


def test_the_map_of_a_transport_plan_needs_the_sources_own_scans(
    finished: Path, tmp_path: Path
) -> None:
    run, prepared, cases = _opened(finished)
    task = Task.parse(_json(finished / "finetune" / "summary.json")["source"])
    source = load_source(run.shelf / task.slug)
    nats = (("normalise", "none"), ("amplify", "identity"), ("samples", 60))
    uses = [MapUse(settings=(("metric", metric), *nats)) for metric in ("otce", "leep")]
    (carried,), (own,) = weights_for(run, prepared, [source], cases, uses, tmp_path)
    carried, own = np.load(carried), np.load(own)
    assert np.isfinite(carried).all()
    # −log P of the labels: less on average than what the classes' shares alone leave, which is
    # what a plan that took voxels anywhere would give. The network has learned a little.
    classes = cases[0].classes()
    shares = np.bincount(classes[classes != 255]) / (classes != 255).sum()
    assert carried.min() >= 0
    assert carried[classes != 255].mean() < 0.995 * -(shares * np.log(shares)).sum()
    assert (carried != own).mean() > 0.5
    absent = Prepared({**prepared.record, "unavailable": {task.name: "no such folder"}})
    with pytest.raises(UserError, match="no such folder"):
        weights_for(run, absent, [source], cases, uses[:1], tmp_path)
