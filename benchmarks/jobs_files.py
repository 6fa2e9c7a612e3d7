"""Building the store, and ``gzip -d`` of the same files into nothing.

Cases like those of BraTS: four images of 240 × 240 × 155 in int16 and a label map in uint8 at 1 mm,
with noise that does not compress, as scans have it; or small ones. Whichever process comes first
makes the files, the others find them.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np

from jaxfer.data.preprocess import Preprocessing
from jaxfer.data.store import store_cases
from jaxfer.tasks import Case, Image

MODALITIES = ("flair", "t1", "t1ce", "t2")
_scratch, _workers = Path(), 1


def prepare(threads: int, scratch: str, **_: object) -> None:
    global _scratch, _workers
    _scratch, _workers = Path(scratch), threads


def versions() -> dict[str, str]:
    gzip = subprocess.run(["gzip", "--version"], check=True, capture_output=True, text=True)
    return {"nibabel": nib.__version__, "gzip": gzip.stdout.split("\n")[0].split()[-1]}


def _volume(shape: list[int], rng: np.random.Generator, label: bool) -> np.ndarray:
    """A ball of tissue with noise, or three shells of labels inside it; 0 around."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    radius = np.sqrt(sum(axis**2 for axis in axes))
    if label:
        return np.digitize(-radius, [-0.4, -0.3, -0.2]).astype(np.uint8)
    tissue = np.maximum(1500 * (1.5 - radius) + rng.normal(0, 400, shape), 1)
    return np.where(radius < 0.8, tissue, 0).astype(np.int16)


def made_cases(shape: list[int], number: int) -> list[Case]:
    """The cases, their files written unless they are there."""
    folder, cases = _scratch / ("x".join(map(str, shape))), []
    folder.mkdir(exist_ok=True)

    def write(number: int) -> None:
        rng = np.random.default_rng(number)
        for name in (*MODALITIES, "seg"):
            file = folder / f"{number}_{name}.nii"
            if not file.with_name(f"{file.name}.gz").exists():
                image = nib.Nifti1Image(_volume(shape, rng, name == "seg"), np.diag([-1, -1, 1, 1]))
                nib.save(image, file)
                subprocess.run(["gzip", "-f", file], check=True)

    with ThreadPoolExecutor(_workers) as pool:
        list(pool.map(write, range(number)))
    for case in range(number):
        images = {m: Image(folder / f"{case}_{m}.nii.gz") for m in MODALITIES}
        cases.append(Case(f"{case}", f"{case}", "site", images, folder / f"{case}_seg.nii.gz"))
    return cases


def store(shape: list[int], cases: int) -> Callable[[], None]:
    """Everything stored anew."""
    made, folder = made_cases(shape, cases), _scratch / "store"
    how = Preprocessing((1.0, 1.0, 1.0), (0.5, 99.5), skull_stripped=True)

    def job() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        store_cases(made, MODALITIES, how, folder, workers=_workers)

    return job


def gunzip(shape: list[int], cases: int) -> Callable[[], None]:
    """``gzip -d`` of every file of the cases, as many at once, the content thrown away."""
    made = made_cases(shape, cases)
    files = [f for c in made for f in (*(i.path for i in c.images.values()), c.label)]

    def one(file: Path) -> None:
        subprocess.run(["gzip", "-dc", file], stdout=subprocess.DEVNULL, check=True)

    def job() -> None:
        with ThreadPoolExecutor(_workers) as pool:
            list(pool.map(one, files))

    return job


JOBS = {"store": store, "gunzip": gunzip}
