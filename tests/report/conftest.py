"""Small but consistent folders of finished runs, with real image files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import nibabel
import numpy as np
import pytest

METHODS = ("scratch", "plain", "weighted")
WMH = 4
# Stored with x towards the patient's left, so that turning to RAS matters.
LAS = np.array([[-1.0, 0, 0, 12], [0, 1.25, 0, -15], [0, 0, 3, 0], [0, 0, 0, 1]])


def write_json(path: Path, record: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")


def write_volume(path: Path, values: np.ndarray, affine: np.ndarray = LAS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def head(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid with noise for a head, and a mask of a few lesions beside its middle."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1.15, 1.15, n) for n in shape), indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    folds = 0.12 * np.sin(14 * np.arctan2(y, x)) * (radius > 0.55)
    tissue = np.where(radius + folds > 0.75, 0.55, 1.0) + np.where(radius > 0.93, 0.8, 0.0)
    ventricles = ((np.abs(x) - 0.13) / 0.09) ** 2 + (y / 0.4) ** 2 + (z / 0.4) ** 2 < 1
    image = np.where(radius < 1, np.where(ventricles, 0.15, tissue), 0.0)
    lesions = np.zeros(shape, bool)
    for _ in range(9):
        centre = rng.uniform((-0.4, -0.5, -0.3), (0.4, 0.5, 0.3))
        size = rng.uniform(0.05, 0.16)
        distance = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
        lesions |= (distance < size) & ~ventricles
    image = image + 0.45 * lesions + 0.05 * rng.normal(size=shape) * (radius < 1)
    return (300 * np.clip(image, 0, None)).astype(np.int16), lesions


class FakeRun:
    """Writes the files of a run, stage by stage.

    Patients: p1 … p4 are ordinary, p5 has no lesion and none predicted, p6 is missed from scratch.
    """

    subjects = ("p1", "p2", "p3", "p4", "p5", "p6")
    dice: ClassVar[dict[str, tuple[float, ...]]] = {
        "scratch": (0.61, 0.52, 0.70, 0.44, math.nan, 0.0),
        "plain": (0.70, 0.66, 0.69, 0.58, math.nan, 0.35),
        "weighted": (0.74, 0.71, 0.73, 0.57, math.nan, 0.47),
    }

    def __init__(self, workdir: Path, shape: tuple[int, int, int] = (24, 28, 10)):
        self.workdir, self.shape = workdir, shape

    def started(self, *, synthetic: bool = True, name: str = "demo") -> FakeRun:
        config = {"name": name, "seed": 0, "target": "phantom/clinic/flair/wmh",
                  "sources": ["phantom/ageing/flair/tissue"],
                  "finetune": {"steps": 150, "learning_rate": 0.001}}  # fmt: skip
        write_json(self.workdir / "config.json", config)
        about = {"name": name, "created": "2026-11-22 13:40",
                 "versions": {"jaxfer": "0.1.0", "jax": "0.10.2"}, "devices": "cpu x 1",
                 "command": "python -m jaxfer.launch --config=configs/demo.py"}  # fmt: skip
        write_json(self.workdir / "run.json", about)
        write_json(self.workdir / "prepare/prepared.json", {"synthetic_target": synthetic})
        return self

    def prepared(self) -> FakeRun:
        split: dict[str, Any] = {"train": [f"t{i}" for i in range(8)], "validation": ["v1", "v2"],
                 "test": list(self.subjects)}  # fmt: skip
        split["subjects"] = {case: case for cases in split.values() for case in cases}
        write_json(self.workdir / "prepare/splits.json", {"target": split})
        problem = {"severity": "warning", "file": "t3_flair.nii.gz",
                   "problem": "the spacing differs", "found": "1.2 mm", "expected": "1 mm",
                   "mend": "resample"}  # fmt: skip
        write_json(self.workdir / "verify/verify.json", {"problems": [problem]})
        return self

    def selected(self, sources: list[dict[str, Any]] | None = None) -> FakeRun:
        record = {
            "target": "phantom/clinic/flair/wmh", "rank_by": "leep", "label_entropy": 0.0489,
            "n_voxels": 123456, "layers": ["decoder_0"],
            "notes": ["Scores are means over 8 training cases."],
            "metrics": {
                "nce": {"direction": "higher", "range": "[−H(Y), 0]",
                        "meaning": "minus the entropy of the target's labels, given the source's",
                        "reference": "ICCV 2019"},
                "leep": {"direction": "higher", "range": "[−H(Y), 0]",
                         "meaning": "mean log of the expected empirical prediction",
                         "reference": "ICML 2020, arXiv 2002.12462"},
                "h_score": {"direction": "higher", "range": "[0, C − 1]",
                            "meaning": "spread of the class means in whitened features",
                            "reference": "ICIP 2019"},
                "logme": {"direction": "higher", "range": "unbounded",
                          "meaning": "log evidence of a linear model on the features",
                          "reference": "ICML 2021"},
            },
            "sources": sources if sources is not None else _SOURCES,
        }  # fmt: skip
        write_json(self.workdir / "select/selection.json", record)
        return self

    def pretrained(self) -> FakeRun:
        for place, roi in enumerate(("tissue", "wmh", "csf")):
            folder = self.workdir / f"sources/phantom-ageing-flair-{roi}"
            task = {
                "dataset": "phantom",
                "site": "ageing",
                "modality": "flair",
                "roi": roi,
                "name": f"phantom/ageing/flair/{roi}",
            }
            write_json(folder / "card.json", {"task": task, "validation_dice": 0.8})
            _write_curve(folder / "metrics.jsonl", steps=200, seed=place)
        return self

    def finetuned(self) -> FakeRun:
        for place, method in enumerate(METHODS):
            for seed in (0, 1):
                folder = self.workdir / f"finetune/{method}/seed{seed}"
                _write_curve(folder / "metrics.jsonl", steps=150, seed=10 * place + seed)
        summary = {
            "source": "phantom/ageing/flair/tissue",
            "methods": {
                "scratch": {"initial": "random", "loss": "cross-entropy + Dice"},
                "plain": {"initial": "source", "loss": "cross-entropy + Dice"},
                "weighted": {"initial": "source", "loss": "risk-weighted cross-entropy + Dice",
                             "weights": "risk/configured"},
            },
            "steps": 150, "seeds": [0, 1],
            "risk": {"mode": "instance", "amplify": "exp", "normalise": "mean1", "leep": -0.0203,
                     "map_minimum": 0.9, "map_mean": 1.0, "map_maximum": 7.4},
        }  # fmt: skip
        write_json(self.workdir / "finetune/summary.json", summary)
        for case in ("t0", "t1"):
            _, lesions = head(self.shape, seed=40 + int(case[1:]))
            hard = 4 * _blurred(lesions)
            write_volume(self.workdir / f"risk/{case}_instance.nii.gz", hard.astype(np.float32))
            mild = 0.5 * _blurred(_blurred(lesions) > 0.1)
            write_volume(self.workdir / f"risk/{case}_positional.nii.gz", mild.astype(np.float32))
            made = self.workdir / f"risk/configured/{case}_weights.nii.gz"
            write_volume(made, np.exp(hard / 2).astype(np.float32))
        return self

    def evaluated(self) -> FakeRun:
        folder = self.workdir / "evaluate"
        folder.mkdir(parents=True)
        with (folder / "metrics.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, _COLUMNS)
            table.writeheader()
            for method in METHODS:
                for seed in (0, 1):
                    for subject, dice in zip(self.subjects, self.dice[method], strict=True):
                        table.writerow(_metrics_line(method, seed, subject, dice))
        write_json(folder / "summary.json", self._summary())
        write_json(folder / "labels.json", {"WMH": {"prediction": WMH, "reference": [WMH, 5]}})
        write_json(folder / "cases.json", [self._case(subject) for subject in self.subjects])
        return self

    def _summary(self) -> dict[str, Any]:
        gains = {}
        for over, under in (("weighted", "plain"), ("plain", "scratch"), ("weighted", "scratch")):
            gain = np.subtract(self.dice[over], self.dice[under])
            spread = 2 * np.nanstd(gain) / np.sqrt(5)
            mean = float(np.nanmean(gain))
            gains[f"{over} - {under}"] = {
                "mean": mean, "interval": [mean - spread, mean + spread],
                "per_subject": dict(zip(self.subjects, gain.tolist(), strict=True)),
            }  # fmt: skip
        methods = {
            method: {
                "dice_mean": float(np.nanmean(dice)),
                "dice_interval": [float(np.nanmean(dice)) - 0.1, float(np.nanmean(dice)) + 0.1],
                "hd95_mean_finite": 6.25, "n_cases": 6,
                "outcomes": {"scored": 8, "missed": 2, "spurious": 0, "both_empty": 2}
                if method == "scratch"
                else {"scored": 10, "missed": 0, "spurious": 0, "both_empty": 2},
            }
            for method, dice in self.dice.items()
        }  # fmt: skip
        return {"empty_mask_policy": "both empty: left out and counted; one empty: Dice 0, HD95 ∞",
                "methods": methods, "gain": gains, "label_values": {"WMH": WMH}}  # fmt: skip

    def _case(self, subject: str) -> dict[str, Any]:
        place = self.subjects.index(subject)
        image, lesions = head(self.shape, seed=place)
        lesions &= subject != "p5"
        truth = np.where(lesions, np.where(np.arange(self.shape[1])[None, :, None] % 2, 5, WMH), 0)
        write_volume(self.workdir / f"data/{subject}_flair.nii.gz", image)
        write_volume(self.workdir / f"data/{subject}_label.nii.gz", truth.astype(np.uint8))
        predictions: dict[str, dict[str, str]] = {}
        for method in METHODS:
            shift = 0 if subject == "p5" else METHODS.index("weighted") - METHODS.index(method)
            guess = WMH * np.roll(lesions, shift + place % 2, axis=0).astype(np.uint8)
            guess *= not (subject == "p6" and method == "scratch")
            for seed in (0, 1):
                file = f"evaluate/predictions/{method}/seed{seed}/{subject}.nii.gz"
                write_volume(self.workdir / file, guess)
                predictions.setdefault(method, {})[str(seed)] = file
        risk = f"evaluate/risk/{subject}.nii.gz"
        write_volume(self.workdir / risk, (5 * _blurred(lesions)).astype(np.float32))
        return {"case": f"{subject}_visit1", "subject": subject,
                "image": f"data/{subject}_flair.nii.gz", "label": f"data/{subject}_label.nii.gz",
                "predictions": predictions, "risk": risk,
                "harm": {method: {"file": f"evaluate/harm/{method}/{subject}_visit1.nii.gz",
                                  "worse": 100.0 + place, "better": 2000.5}
                         for method in ("plain", "weighted")}}  # fmt: skip

    def all(self) -> FakeRun:
        return self.started().prepared().selected().pretrained().finetuned().evaluated()


_COLUMNS = ("method", "seed", "case", "subject", "label", "dice", "hd95",
            "n_reference", "n_prediction", "outcome")  # fmt: skip


def _metrics_line(method: str, seed: int, subject: str, dice: float) -> dict[str, Any]:
    outcome, hd95, n = "scored", 12 * (1 - dice) + seed, 140
    if math.isnan(dice):
        outcome, hd95, n = "both_empty", math.nan, 0
    elif dice == 0:
        outcome, hd95 = "missed", math.inf
    else:
        dice += 0.01 if seed else -0.01
    return {"method": method, "seed": seed, "case": f"{subject}_visit1", "subject": subject,
            "label": "WMH", "dice": dice, "hd95": hd95, "n_reference": n,
            "n_prediction": 0 if outcome != "scored" else n, "outcome": outcome}  # fmt: skip


def source(rank: int | None, name: str, leep: float | None, **changes: Any) -> dict[str, Any]:
    """An entry of selection.json."""
    _, _, modality, roi = name.split("/")
    steps = [
        {"step": "modality", "kept": True, "reason": f"same modality as the target: {modality}"},
        {"step": "roi", "kept": True, "reason": "similarity in the upper half"},
    ]
    nce = None if leep is None else leep - 0.004
    entry = {"rank": rank, "source": name, "modality": modality, "roi": roi, "synthetic": True,
             "kept": rank is not None, "decisions": steps, "roi_similarity": 0.31, "roi_pairs": 12,
             "scores": {"leep": leep, "nce": nce, "h_score": 0.41, "logme": 1.2345},
             "roi_pairs_empty": 0, "validation_dice": 0.81, "flags": []}  # fmt: skip
    return {**entry, **changes}


_REMOVED = [{"step": "modality", "kept": False, "reason": "t1 is not the target's modality, flair"}]
_DISSIMILAR = [
    {"step": "modality", "kept": True, "reason": "same modality as the target: flair"},
    {"step": "roi", "kept": False, "reason": "RoI similarity 0.04 is below the median, 0.21"},
]
_SOURCES = [
    source(1, "phantom/ageing/flair/tissue", -0.0203, roi_pairs_empty=2),
    source(2, "phantom/ageing/flair/wmh", -0.0311,
           scores={"leep": -0.0311, "nce": -0.035, "h_score": 0.52, "logme": 1.31}),
    source(3, "phantom/young/flair/csf", None, roi_similarity=None, validation_dice=None,
           flags=["no score: fewer than two classes are present"]),
    source(None, "phantom/young/flair/skull", -0.0388, decisions=_DISSIMILAR, roi_similarity=0.04),
    source(None, "phantom/ageing/t1/tissue", -0.0402, decisions=_REMOVED),
]  # fmt: skip


def _write_curve(path: Path, *, steps: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    lines = [
        {"step": step, "loss": float(1.2 * math.exp(-step / 60) + 0.25 + 0.06 * rng.normal()),
         "learning_rate": 0.001}
        for step in range(0, steps, 2)
    ]  # fmt: skip
    lines.append({"step": steps, "validation_dice": 0.7})
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")


def _blurred(mask: np.ndarray) -> np.ndarray:
    """The mean over the 3 × 3 × 3 neighbours."""
    blurred = mask.astype(float)
    for axis in range(3):
        blurred = sum(np.roll(blurred, shift, axis) for shift in (-1, 0, 1)) / 3
    return blurred


@pytest.fixture
def fake_run(tmp_path: Path) -> FakeRun:
    """The writer of a run's files in an empty folder."""
    return FakeRun(tmp_path / "run")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has passed every stage; tests read it only."""
    return FakeRun(tmp_path_factory.mktemp("finished") / "run").all().workdir


@pytest.fixture
def entry() -> Callable[..., dict[str, Any]]:
    """The writer of one source's entry in selection.json."""
    return source


@pytest.fixture
def wide() -> Callable[[FakeRun], Path]:
    """The writer of a ranking with many scores, of two layers, over voxels and of samples."""

    def write(run: FakeRun) -> Path:
        layers, metrics = ["decoder_0", "encoder_2"], ["logme", "knn_accuracy", "sfda", "emms"]
        metrics += ["parc", "transrate", "gbc", "h_score", "f_otce", "ncti", "etran", "lda"]
        names = ["leep", "nce", *(f"{m}@{layer}" for m in metrics for layer in layers), "otce"]
        sampled = {"knn_accuracy", "sfda", "emms", "parc", "f_otce", "ncti", "etran"}
        record = {
            "target": "phantom/clinic/flair/wmh", "rank_by": "knn_accuracy@encoder_2",
            "label_entropy": 0.0489, "n_voxels": 123456, "layers": layers, "samples": 1000,
            "repetitions": 10, "notes": [],
            "metrics": {n: {"direction": "higher", "range": "[0, 1]", "meaning": f"what {n} means",
                            "reference": "somewhere"} for n in names},
            "sources": [],
        }  # fmt: skip
        for place in range(4):
            scores = {n: None if n == "otce" else 0.5 + 0.01 * place for n in names}
            of_samples = {n: 0.0123 for n in names if n.split("@")[0] in sampled}
            exact = [n for n in names if n not in of_samples and n != "otce"]
            changes = {
                "scores": scores,
                "standard_errors": of_samples,
                "intervals": {n: [0.41, 0.67] for n in exact},
                "balanced": dict.fromkeys(exact, 0.222),
                "reasons": {"otce": ["needs coefficients"]},
                "probability_best": 0.25,
            }
            name = f"phantom/site{place}/flair/white-matter"
            record["sources"].append(source(place + 1, name, 0.0, **changes))
        run.started()
        write_json(run.workdir / "select/selection.json", record)
        parts = {"forward": 1.25, "statistics": 0.5, "samples": 2.0}
        seconds = {one["source"]: parts for one in record["sources"]}
        write_json(run.workdir / "select/seconds.json", seconds)
        return run.workdir

    return write


@pytest.fixture
def with_paths() -> Callable[[Path], None]:
    """The writer of what a search for paths has found: a detour, a direct way, none."""

    def write(workdir: Path) -> None:
        a, b, c = (f"d/{site}/t1/x" for site in "abc")
        record = {"target": "d/t/flair/wmh", "alpha": 2.0, "beta": 0.5, "cost": "squares",
                  "paths": [
                      {"source": a, "path": [a, b], "legs": [0.3, 0.4], "cost": 0.25,
                       "direct": 0.6, "direct_cost": 0.36},
                      {"source": b, "path": [b], "legs": [0.4], "cost": 0.16,
                       "direct": 0.4, "direct_cost": 0.16},
                      {"source": c, "path": [], "legs": [], "cost": None,
                       "direct": None, "direct_cost": None},
                  ]}  # fmt: skip
        write_json(workdir / "select/paths.json", record)

    return write
