"""Sources known by their outputs, in a run: ranked beside the others, mapped, never fine-tuned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from configs.demo import get_config
from jaxfer.config import default_config, validate
from jaxfer.data.preprocess import Preprocessing, restore
from jaxfer.data.sampler import task_case
from jaxfer.data.store import store_case
from jaxfer.errors import UserError
from jaxfer.models.unet import UNet
from jaxfer.models.zoo import Source
from jaxfer.selection.foreign import read_foreign
from jaxfer.stages import select
from jaxfer.stages.finetune import chosen_source
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.risk import make_risk_maps, source_log_probs, write_instance_maps
from jaxfer.stages.run import Run
from jaxfer.tasks import Case, Image, RoI, Task
from jaxfer.train.loop import initial_params

NAME = "lab/all/flair/lesion"
CARD = {
    "kind": "outputs",
    "task": NAME,
    "class_names": ["lesion"],
    "outputs": "logits",
    "layers": {"decoder_0": 2},
}


@pytest.fixture
def again(demo: Path, tmp_path: Path) -> Callable[..., Run]:
    """The finished toy run, with a source that knows the target's own labels."""
    workdir, folder = tmp_path / "copy", tmp_path / "outputs"
    shutil.copytree(demo, workdir, ignore=shutil.ignore_patterns("store", "finetune", "evaluate"))
    (workdir / "store").symlink_to(demo / "store")
    folder.mkdir()
    record = json.loads((workdir / "prepare" / "prepared.json").read_text())
    target = get_config("tiny").target
    for case in record["splits"][target]["train"]:
        files = record["datasets"]["phantom"]["cases"][case]
        values = record["datasets"]["phantom"]["rois"]["WMH"][0][1]
        lesion = np.isin(np.asarray(nib.load(files["label"]).dataobj), values)
        logits = np.stack([~lesion, lesion], axis=-1).astype(np.float32) * 8
        np.savez_compressed(folder / f"{case}.npz", output=logits, decoder_0=logits)
    (folder / "card.json").write_text(json.dumps(CARD))

    def run(**changes: object) -> Run:
        config = get_config("tiny")
        with config.unlocked():
            config.foreign = (str(folder),)
            config.select.metrics = ("leep", "logme")
            config.select.update(changes)
        validate(config)
        return Run(config, workdir, Console(quiet=True))

    return run


def test_the_best_is_ranked_mapped_and_not_fine_tuned(again: Callable[..., Run]) -> None:
    run = again(modality="none")
    assert f"best by leep: {NAME}" in select.run(run)
    record = json.loads((run.workdir / "select" / "selection.json").read_text())
    assert record["sources"][0]["source"] == NAME
    first, *others = record["sources"]
    assert first["rank"] == 1
    assert first["outputs_only"]
    assert not any(row["outputs_only"] for row in others)
    assert any("RoI" not in d["reason"] and "unknown" in d["reason"] for d in first["decisions"])
    assert any("cannot be fine-tuned" in flag for flag in first["flags"])
    assert first["intervals"].keys() == first["scores"].keys() == {"leep", "logme@decoder_0"}
    best = next(row["source"] for row in others if row["rank"] is not None)
    assert any(NAME in note and best in note for note in record["notes"])
    assert chosen_source(run).name == best
    maps = sorted((run.workdir / "select" / "risk" / NAME.replace("/", "-")).iterdir())
    cases = json.loads((run.workdir / "prepare" / "prepared.json").read_text())
    assert len(maps) == len(cases["splits"][run.config.target]["train"])
    assert np.isfinite(nib.load(maps[0]).get_fdata()).all()


def test_no_network_on_the_shortlist_is_told(again: Callable[..., Run]) -> None:
    run = again()
    run.config.sources = ()
    validate(run.config)
    select.run(run)
    with pytest.raises(UserError, match="there is none to fine-tune") as told:
        chosen_source(run)
    assert NAME in str(told.value)


def test_its_name_is_refused_for_fine_tuning(again: Callable[..., Run]) -> None:
    config = again().config
    config.finetune.source = NAME
    with pytest.raises(UserError, match="known by their outputs alone and cannot be fine-tuned"):
        validate(config)


def test_all_that_is_wrong_is_told_and_nothing_written(again: Callable[..., Run]) -> None:
    run = again()
    folder = Path(run.config.foreign[0])
    before = (run.workdir / "select" / "selection.json").read_bytes()
    first, second = sorted(folder.glob("*.npz"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:1000])
    marks = select.inputs(run)
    with pytest.raises(UserError) as told:
        select.run(run)
    message = str(told.value)
    assert f"{first}: no such file" in message
    assert f"{second}: not a readable file of outputs" in message
    assert (run.workdir / "select" / "selection.json").read_bytes() == before
    assert not (run.workdir / "select" / "risk").exists()
    second.unlink()
    assert select.inputs(run) != marks


def test_risk_maps_are_those_of_the_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task, roi = Task("mine", "all", "t2", "thing"), RoI("thing", (("thing", (1,)),))
    how = Preprocessing((0.0, 0.0, 0.0), (0.0, 100.0), True, precision="float32")
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    cases, files = [], {}
    for name in ("a", "b"):
        labels = np.zeros((18, 17, 5), np.uint8)
        labels[5:9, 6:11, 1:4] = 1
        scan = rng.standard_normal(labels.shape).astype(np.float32) + labels
        scan[:3] = scan[-2:] = 0
        paths = [tmp_path / f"{name}{end}.nii.gz" for end in ("", "_label")]
        for path, array in zip(paths, (scan, labels), strict=True):
            nib.save(nib.Nifti1Image(array, affine), path)
        case = Case(name, name, "site", {"t2": Image(paths[0])}, paths[1])
        stored, _ = store_case(case, ("t2",), how, tmp_path / "store" / name)
        cases.append(task_case(stored, "t2", roi, ()))
        image = {"path": str(paths[0]), "channel": None}
        files[name] = {"images": {"t2": image}, "label": str(paths[1])}
    prepared = Prepared({"datasets": {"mine": {"cases": files}}})
    config = default_config()
    config.target = task.name
    run = Run(config, tmp_path, Console(quiet=True))
    model = UNet(num_classes=2, widths=(4, 8))
    params = initial_params(model, (16, 16), 0)
    native = Source({"patch": [16, 16]}, model, params, np.zeros((1, 8), np.uint8))
    record = make_risk_maps(run, prepared, native, cases, on_case=lambda _: None)
    folder = tmp_path / "outputs"
    folder.mkdir()
    for case in cases:
        found = source_log_probs(run, native, case.image())
        whole = [restore(found[..., k], case.stored.geometry, 0.0) for k in range(2)]
        np.savez(folder / f"{case.stored.id}.npz", output=np.stack(whole, axis=-1))
    (folder / "card.json").write_text(json.dumps(CARD | {"layers": {}}))
    headers = {name: select.read_header(prepared.files(task, name)[0].path) for name in files}
    (source,), problems = read_foreign([folder], headers, (), 2)
    assert problems == []
    write_instance_maps(prepared, task, source, cases, tmp_path / "maps")
    for name in files:
        theirs = nib.load(tmp_path / "maps" / f"{name}_instance.nii.gz")
        own = nib.load(tmp_path / "risk" / f"{name}_instance.nii.gz")
        np.testing.assert_allclose(theirs.get_fdata(), own.get_fdata(), atol=2e-5)
        np.testing.assert_array_equal(theirs.affine, own.affine)
    assert own.get_fdata().std() > 0.01
    assert record["leep"] < 0
