"""Speed of the store's build and of the sampler, on this machine.

    python benchmarks/data.py [--cases=6] [--rounds=5] [--workers=N]

The build stands against ``gzip -d`` of the same files into nothing, as many at once: in turn, so
that their ratio holds when the machine's speed drifts. The cases have the shape and the types of
BraTS (four images of 240 × 240 × 155 in int16, a label map in uint8, 1 mm), made from subjects of
the semi-synthetic collection; nothing is downloaded. Then the patches per second of the sampler
alone, at batch 16 of 192 × 160. Medians and ranges over the rounds; not a test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from absl import app, flags
from rich.console import Console
from rich.table import Table

from jaxfer.data.nifti import read_volume
from jaxfer.data.phantom.generate import LABEL_NAMES, write_collection
from jaxfer.data.preprocess import Preprocessing
from jaxfer.data.sampler import task_case, training_batches
from jaxfer.data.store import StoredCase, store_cases
from jaxfer.data.verify import verify_cases
from jaxfer.tasks import Case, Dataset, Image, RoI

_CASES = flags.DEFINE_integer("cases", 6, "Cases to build.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds of each row.", lower_bound=1)
_WORKERS = flags.DEFINE_integer(
    "workers", len(os.sched_getaffinity(0)), "Files or cases at once.", lower_bound=1
)

GRID = (240, 240, 155)
MODALITIES = ("flair", "t1", "t1ce", "t2")
BATCH, PATCH, BATCHES = 16, (192, 160), 40
BRATS = 1251
TUMOUR = RoI("whole_tumour", (("whole_tumour", (5, 6, 7)),))


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def at_1_mm(volume: np.ndarray) -> np.ndarray:
    """A 2 mm volume as the middle of the grid, every voxel eight times."""
    large = volume.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    grid = np.zeros(GRID, volume.dtype)
    into, out_of = [], []
    for have, want in zip(large.shape, GRID, strict=True):
        size = min(have, want)
        into.append(slice((want - size) // 2, (want - size) // 2 + size))
        out_of.append(slice((have - size) // 2, (have - size) // 2 + size))
    grid[tuple(into)] = large[tuple(out_of)]
    return grid


def make_cases(folder: Path, count: int) -> list[Case]:
    """BraTS-like cases, with noise that does not compress, as scans have it."""
    write_collection(
        folder / "made", seed=0, sites=("glioma",), subjects_per_site={"glioma": count}
    )
    cases = []
    for number, subject in enumerate(sorted((folder / "made" / "glioma").iterdir())):
        rng = np.random.default_rng(number)
        files = {}
        for modality in (*MODALITIES, "seg"):
            made = "t1" if modality == "t1ce" else modality
            volume = at_1_mm(read_volume(subject / f"{subject.name}_{made}.nii.gz"))
            if modality == "seg":
                volume = np.where(np.isin(volume, TUMOUR.classes[0][1]), volume, 0)
            else:
                noisy = 3000 * volume / volume.max() + rng.normal(0, 400, GRID)
                volume = np.where(volume != 0, np.maximum(noisy, 1), 0).astype(np.int16)
            files[modality] = folder / "raw" / f"{subject.name}_{modality}.nii"
            files[modality].parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(volume, np.diag([-1.0, -1.0, 1.0, 1.0])), files[modality])
        subprocess.run(["gzip", *files.values()], check=True)
        zipped = {k: f.with_name(f.name + ".gz") for k, f in files.items()}
        images = {m: Image(zipped[m]) for m in MODALITIES}
        cases.append(Case(subject.name, subject.name, "glioma", images, zipped["seg"]))
    return cases


def gunzip(cases: list[Case], workers: int) -> None:
    """``gzip -d`` of every file of the cases, the content thrown away."""
    files = [f for c in cases for f in (*(i.path for i in c.images.values()), c.label)]

    def one(file: Path) -> None:
        subprocess.run(["gzip", "-dc", file], stdout=subprocess.DEVNULL, check=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, files))


def build(cases: list[Case], folder: Path, workers: int) -> list[StoredCase]:
    """Everything stored anew."""
    how = Preprocessing((1.0, 1.0, 1.0), (0.5, 99.5), skull_stripped=True)
    return store_cases(cases, MODALITIES, how, folder, workers=workers)[0]


def patches(stored: list[StoredCase]) -> None:
    """Draws every batch of a short training."""
    cases = [task_case(case, "flair", TUMOUR, ()) for case in stored]
    for _ in training_batches(
        cases, patch=PATCH, batch_size=BATCH, foreground_patches=0.5, seed=0, steps=BATCHES
    ):
        pass


def spread(values: np.ndarray, form: str) -> str:
    low, middle, high = (format(v, form) for v in (values.min(), np.median(values), values.max()))
    return f"{middle} ({low} to {high})"


def main(_: list[str]) -> None:
    console, workers = Console(), _WORKERS.value
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = make_cases(folder, _CASES.value)
        dataset = Dataset("made", tuple(cases), LABEL_NAMES, {}, True, "made here")
        store = folder / "store"
        calls: dict[str, Callable[[], Any]] = {
            "gzip -d": partial(gunzip, cases, workers),
            "build the store": partial(build, cases, store, workers),
            "verify": partial(verify_cases, dataset, cases, MODALITIES, workers=workers),
        }
        times: dict[str, list[float]] = {what: [] for what in calls}
        for _round in range(_ROUNDS.value + 1):
            for what, call in calls.items():
                if call is not calls["verify"]:
                    shutil.rmtree(store, ignore_errors=True)
                times[what].append(seconds(call))
        table = Table(title=f"{len(cases)} BraTS-like cases, {workers} at once")
        for head in ("what", "s", "of gzip -d"):
            table.add_column(head, justify="right", no_wrap=True)
        reference = np.array(times["gzip -d"][1:])  # the first round warms the disk's cache
        for what, taken in times.items():
            own = np.array(taken[1:])
            table.add_row(what, spread(own, ".2f"), spread(own / reference, ".2f"))
        console.print(table)
        stored = build(cases, store, workers)
        size = sum(f.stat().st_size for f in store.rglob("*") if f.is_file()) / len(cases)
        console.print(
            f"{size / 2**20:.1f} MiB per case; {BRATS} cases: {BRATS * size / 1e9:.1f} GB"
        )
        drawn = BATCH * BATCHES / np.array([seconds(partial(patches, stored)) for _ in range(3)])
        console.print(f"sampler: {spread(drawn, ',.0f')} patches of {PATCH} per second")


if __name__ == "__main__":
    app.run(main)
