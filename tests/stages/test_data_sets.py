"""The configurations of the downloads, on archives built as the originals are."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from jaxfer.config import validate
from jaxfer.data.layouts import read_dataset
from jaxfer.errors import UserError
from jaxfer.metrics import dice, hd95
from jaxfer.stages import prepare
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.run import Run
from jaxfer.tasks import IGNORE, Task
from tests.data.layouts import build
from tests.launching import ROOT, Launch

NNUNET = {
    "channel_names": {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"},
    "labels": {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3},
    "numTraining": 4,
    "file_ending": ".nii.gz",
}
LARGE = {"shape": (48, 48, 20), "number": 4}


def nnunet(root: Path) -> None:
    build.nnunet(root, NNUNET, ("a", "b", "c", "d"), 4, "Dataset001_BrainTumour")


def brats(root: Path) -> None:
    for number in range(4):
        build.brain_tumour(root / "BraTS2021", f"BraTS2021_{number:05d}", seed=number)


def mrbrains(root: Path) -> None:
    build.mrbrains18(root, ("1", "4", "5", "070"))
    build.mrbrains13(root, (1, 2))


ARCHIVES = {
    "brats": brats,
    "fets": lambda root: build.fets2021(
        root, {f"{site:02d}": range(4 * site, 4 * site + 4) for site in (1, 4, 5, 6, 13, 16)}
    ),
    "iseg": lambda root: build.iseg(root, 2019, subjects=(1, 2, 3, 10)),
    "mrbrains": mrbrains,
    "msd": lambda root: build.brain_tumour_task(root, cases=4),
    "nnunet": nnunet,
    "table": lambda root: build.own_scans(root, cases=8, values=(1,)),
    "wmh": lambda root: build.wmh(root, number=4),
}


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def presets(name: str) -> list[str]:
    own = [*loaded(name).TRANSFERS]
    return ["", *own, *(f"{preset},tiny" for preset in own)]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every archive."""
    root = tmp_path_factory.mktemp("data")
    for make in ARCHIVES.values():
        make(root)
    (root / "phantom").mkdir()
    return root


@pytest.mark.parametrize("name", ARCHIVES)
def test_every_task_of_every_preset_is_in_the_archive(archives: Path, name: str) -> None:
    module = loaded(name)
    assert {"modalities", "rois"} <= set(module.TRANSFERS)
    datasets = {
        key: read_dataset(key, settings, archives)
        for key, settings in module.get_config().datasets.items()
    }
    assert not [p for _, problems in datasets.values() for p in problems if p.severity == "error"]
    for preset in presets(name):
        config = module.get_config(preset)
        validate(config)
        assert config.name == "-".join([name, *preset.split(",")]).strip("-")
        for task in map(Task.parse, (config.target, *config.sources)):
            dataset, _ = datasets[task.dataset]
            assert dataset.roi(task.roi).num_classes > 1
            assert dataset.select(task.site, task.modality)


@pytest.mark.parametrize("name", ARCHIVES)
def test_presets_are_about_what_they_are_called(name: str) -> None:
    for preset, (target, sources) in loaded(name).TRANSFERS.items():
        mine = Task.parse(target)
        for theirs in map(Task.parse, sources):
            same = theirs.dataset == mine.dataset
            if preset == "modalities":
                assert same
                assert (theirs.site, theirs.roi) == (mine.site, mine.roi)
                assert theirs.modality != mine.modality
            elif preset == "rois":
                assert theirs.modality == mine.modality
                assert (theirs.dataset, theirs.roi) != (mine.dataset, mine.roi)
            else:
                assert preset == "sites"
                assert theirs.roi == mine.roi
                assert (theirs.dataset, theirs.site) != (mine.dataset, mine.site)


def prepared(name: str, root: Path, workdir: Path) -> tuple[ConfigDict, Prepared]:
    """What prepare makes of few subjects at the full resolution; nothing is synthetic."""
    config = loaded(name).get_config("modalities,tiny")
    with config.unlocked():
        config.data.spacing = loaded(name).get_config().data.spacing
        config.data.root = str(root)
        config.sources = tuple(s for s in config.sources if not s.startswith("phantom"))
    run = Run(config, workdir, Console(quiet=True))
    prepare.run(run)
    return config, Prepared.read(run)


@pytest.mark.parametrize("name", ARCHIVES)
def test_prepare_takes_the_archive_as_it_is(archives: Path, tmp_path: Path, name: str) -> None:
    config, found = prepared(name, archives, tmp_path)
    target = Task.parse(config.target)
    assert not found.unavailable
    tested = {c.stored.subject for c in found.cases(target, "test")}
    assert len(tested) == 2
    for source in map(Task.parse, config.sources):
        cases = found.cases(source, "train") + found.cases(source, "validation")
        assert cases
        assert not tested & {c.stored.subject for c in cases}
    for case in found.cases(target, "train"):
        assert case.image().shape == case.classes().shape
        present = set(np.unique(case.classes()))
        assert {0, 1} <= present
        ignored = np.isin(case.stored.labels(), found.ignore(target))
        np.testing.assert_array_equal(case.classes() == IGNORE, ignored)
        assert case.counts.sum() == (~ignored).sum()


def test_what_is_ignored_on_disk_stays_apart_in_the_store(archives: Path, tmp_path: Path) -> None:
    for name, values in (("wmh", (2,)), ("mrbrains", (9, 10))):
        config, found = prepared(name, archives, tmp_path / name)
        target = Task.parse(config.target)
        assert found.ignore(target) == values
        for case in found.cases(target, "train"):
            assert set(values) <= set(np.unique(case.stored.labels()))


def ranking(workdir: Path) -> dict:
    return json.loads((workdir / "select" / "selection.json").read_text())


def measures(workdir: Path) -> list[dict[str, str]]:
    with (workdir / "evaluate" / "metrics.csv").open() as lines:
        return list(csv.DictReader(lines))


def test_the_main_job_on_fets(launch: Launch, tmp_path: Path) -> None:
    build.fets2021(tmp_path, {"01": (1, 2, 3), "16": (4, 5, 6, 7)}, shape=(40, 48, 31), spacing=5.0)
    done = launch(
        "--config=configs/fets.py:tiny",
        f"--config.data.root={tmp_path}",
        "--config.sources=('fets2021/01/t1ce/ET',)",
        f"--workdir={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "report.html").is_file()
    assert [r["rank"] for r in ranking(tmp_path / "run")["sources"]] == [1]
    rows = measures(tmp_path / "run")
    assert {r["method"] for r in rows} == {"scratch", "plain", "plain_where"}
    assert {r["label"] for r in rows} == {"ET"}
    assert {r["subject"][-3:] for r in rows} <= {"004", "005", "006", "007"}


def test_the_main_job_on_wmh_leaves_other_pathology_out(launch: Launch, tmp_path: Path) -> None:
    build.wmh(tmp_path, ("training/Utrecht", "training/Amsterdam/GE3T"), **LARGE)
    done = launch(
        "--config=configs/wmh.py:sites,tiny",
        f"--config.data.root={tmp_path}",
        "--config.sources=('wmh/Utrecht/flair/WMH',)",
        "--config.finetune.methods=('plain',)",
        "--config.select.metrics=('leep',)",
        f"--workdir={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    workdir = tmp_path / "run"
    record = json.loads((workdir / "prepare" / "prepared.json").read_text())
    splits = record["splits"]["wmh/GE3T/flair/WMH"]
    stored = record["datasets"]["wmh"]["cases"]
    labels = [np.load(Path(stored[c]["folder"]) / "label.npy") for c in splits["train"]]
    assert all((volume == 2).any() for volume in labels)
    # The statistics count every other voxel.
    assert ranking(workdir)["n_voxels"] == sum(int((v != 2).sum()) for v in labels)
    # The measures are those of the challenge: label 2 out of both volumes.
    cases = {c["case"]: c for c in json.loads((workdir / "evaluate" / "cases.json").read_text())}
    for row in measures(workdir):
        case = cases[row["case"]]
        truth = np.asarray(nib.load(case["label"]).dataobj)
        file = nib.load(workdir / case["predictions"][row["method"]][row["seed"]])
        mine = (np.asarray(file.dataobj) == 1) & (truth != 2)
        assert float(row["dice"]) == pytest.approx(dice(mine, truth == 1), nan_ok=True)
        spacing = (1.0, 1.0, 3.0)
        assert float(row["hd95"]) == pytest.approx(hd95(mine, truth == 1, spacing), nan_ok=True)
        assert int(row["n_reference"]) == (truth == 1).sum()
        assert int(row["n_prediction"]) == mine.sum()


@pytest.mark.parametrize(("other", "warned"), [("brats", True), ("nnunet", False)])
def test_data_sets_that_may_share_people_are_told(
    archives: Path, tmp_path: Path, other: str, warned: bool
) -> None:
    config = loaded("fets").get_config("sites,tiny")
    with config.unlocked():
        config.data.root = str(archives)
        config.datasets[other] = loaded(other).get_config().datasets[other]
        config.sources = (f"{other}/all/flair/{'WT' if warned else 'edema'}",)
    output = io.StringIO()
    prepare.run(Run(config, tmp_path, Console(file=output)))
    told = f"'{other}' and the target's 'fets2021' may hold the same people"
    assert (told in output.getvalue()) == warned


def test_settings_of_every_data_set_are_checked_before_any_file(tmp_path: Path) -> None:
    config = loaded("wmh").get_config("tiny")
    with config.unlocked():
        config.datasets.wmh.images = "raw"
        config.datasets.phantom.sead = 1
    with pytest.raises(UserError) as caught:
        prepare.run(Run(config, tmp_path, Console(quiet=True)))
    for field in ("wmh.images", "phantom.sead"):
        assert f"config.datasets.{field}" in str(caught.value)
