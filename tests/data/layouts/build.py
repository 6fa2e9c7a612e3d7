"""Archives as their publishers lay them out, with tiny heads: names, headers, types and quirks."""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from ml_collections import ConfigDict

from jaxfer.data.layouts import read_dataset
from jaxfer.errors import Problem
from jaxfer.tasks import Dataset

SHAPE = (14, 16, 10)
FLAIR_T1_T2 = ("flair", "t1", "t1ce", "t2")


def read(root: Path, settings: dict, **changes: object) -> tuple[Dataset, list[Problem]]:
    """The data set of an entry of config.datasets, under the name 'some'."""
    return read_dataset("some", ConfigDict(settings | changes), root)


def labels(values: Sequence[int], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A label map with every value in a shell of a ball, the first one inside."""
    axes = [(np.arange(n) - (n - 1) / 2) / n for n in shape]
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    result = np.zeros(shape, np.int16)
    for value, radius in zip(values[::-1], np.linspace(0.35, 0.15, len(values)), strict=True):
        result[distance < radius] = value
    return result


def scan(
    truth: np.ndarray, *, seed: int = 0, stripped: bool = True, zeros: float = 0.45
) -> np.ndarray:
    """An image in which the labels can be seen; exactly 0 outside of the brain if stripped."""
    rng = np.random.default_rng(seed)
    axes = [(np.arange(n) - (n - 1) / 2) / n for n in truth.shape]
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    values = rng.normal(400, 40, truth.shape) + 300 * (np.unique(truth, return_inverse=True)[1])
    outside = 0 if stripped else rng.integers(1, 30, truth.shape)
    return np.where(distance < zeros, values, outside).astype(np.int16)


def nifti(
    path: Path,
    array: np.ndarray,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    origin: Sequence[float] = (0.0, 0.0, 0.0),
) -> Path:
    """A NIfTI file, gzipped or not as its name says."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def analyze(path: Path, array: np.ndarray) -> Path:
    """An Analyze 7.5 pair: 1 mm voxels, no orientation, a fourth axis of length 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = nib.AnalyzeHeader()
    header.set_data_dtype(array.dtype)
    image = nib.AnalyzeImage(array[..., None], None, header)
    image.header.set_zooms((1.0, 1.0, 1.0, 0.0))
    nib.save(image, path)
    return path


def table(path: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as lines:
        csv.writer(lines).writerows([head, *rows])
    return path


def brain_tumour(
    folder: Path,
    name: str,
    *,
    ending: str = ".nii.gz",
    values: Sequence[int] = (1, 4, 2),
    suffixes: Mapping[str, str] | None = None,
    seed: int = 0,
    shape: tuple[int, ...] = SHAPE,
    spacing: float = 1.0,
    labelled: bool = True,
) -> Path:
    """A case folder of BraTS or FeTS: LPS grid, int16 images, uint8 segmentation."""
    named = suffixes or {k: f"_{k}" for k in (*FLAIR_T1_T2, "seg")}
    truth = labels(values, shape)
    grid = {"spacing": (-spacing, -spacing, spacing), "origin": (0.0, 239.0, 0.0)}
    for number, modality in enumerate(FLAIR_T1_T2):
        image = scan(truth, seed=10 * seed + number + zlib.crc32(name.encode()))
        nifti(folder / name / f"{name}{named[modality]}{ending}", image, **grid)
    if labelled:
        path = folder / name / f"{name}{named['seg']}{ending}"
        nifti(path, truth.astype(np.uint8), **grid)
    return folder / name


def fets2021(root: Path, sites: Mapping[str, Sequence[int]], **how: object) -> Path:
    """MICCAI_FeTS2021_TrainingData: subjects by institution, ids with gaps, two partitions."""
    folder = root / "MICCAI_FeTS2021_TrainingData"
    rows = []
    for site, numbers in sites.items():
        for number in numbers:
            name = f"FeTS21_Training_{number:03d}"
            brain_tumour(folder, name, seed=number, **how)
            rows.append((name, site))
    table(folder / "partitioning_1.csv", ("Subject_ID", "Partition_ID"), sorted(rows))
    parts = [(name, f"{i + 1:02d}") for i, (name, _) in enumerate(sorted(rows))]
    table(folder / "partitioning_2.csv", ("Subject_ID", "Partition_ID"), parts)
    first = [(0, name) for name, _ in sorted(rows)]
    table(folder / "small_split.csv", ("Partition_ID", "Subject_ID"), first)
    (folder / "README.md").write_text("FeTS")
    (folder / ".DS_Store").write_bytes(b"\0")
    return folder


def fets2022(root: Path, sites: Mapping[int, Sequence[int]]) -> Path:
    """MICCAI_FeTS2022_TrainingData: the columns the other way round, institutions unpadded."""
    folder = root / "MICCAI_FeTS2022_TrainingData"
    rows = []
    for site, numbers in sites.items():
        for number in numbers:
            brain_tumour(folder, f"FeTS2022_{number:05d}", seed=number)
            rows.append((site, f"FeTS2022_{number:05d}"))
    table(folder / "partitioning_1.csv", ("Partition_ID", "Subject_ID"), rows)
    return folder


def iseg(
    root: Path,
    year: int = 2017,
    *,
    values: Sequence[int] = (250, 150, 10),
    subjects: Sequence[int] = (1, 2, 10),
    shape: tuple[int, ...] = SHAPE,
) -> Path:
    """iSeg-YEAR-Training: Analyze pairs in one folder."""
    folder = root / f"iSeg-{year}-Training"
    for number in subjects:
        truth = labels(values, shape)
        for seed, modality in enumerate(("T1", "T2")):
            image = scan(truth, seed=2 * number + seed)
            analyze(folder / f"subject-{number}-{modality}.hdr", image)
        analyze(folder / f"subject-{number}-label.hdr", truth.astype(np.uint8))
    return folder


THICK = (0.958, 0.958, 3.0)
STRUCTURES = (3, 4, 6, 2, 8, 7, 1, 5)


def mrbrains13(root: Path, numbers: Sequence[int] = (1, 2)) -> Path:
    """MRBrainS13: five people to train on, test images under the same numbers."""
    folder = root / "MRBrainS13DataNii"
    tissues = np.array([0, 2, 2, 3, 3, 1, 1, 0, 0], np.uint8)
    for number in numbers:
        truth = labels(STRUCTURES)
        for offset, part in ((0, "TrainingData"), (100, "TestData")):
            place = folder / part / str(number)
            for seed, name in enumerate(("T1", "T1_IR", "T2_FLAIR"), offset + 10 * number):
                own = scan(truth, seed=seed, stripped=False)
                nifti(place / f"{name}.nii", own, THICK)
            fine = scan(labels((1,), (14, 16, 30)), stripped=False)
            nifti(place / "T1_1mm.nii", fine, (0.958, 0.958, 1.0))
        place = folder / "TrainingData" / str(number)
        nifti(place / "LabelsForTraining.nii", truth.astype(np.uint8), THICK)
        nifti(place / "LabelsForTesting.nii", tissues[truth], THICK)
    return folder


def mrbrains18(root: Path, names: Sequence[str] = ("1", "070")) -> Path:
    """MRBrainS18: pre and orig, images on the FLAIR grid and on their own."""
    folder = root / "MRBrainS18"
    for name in names:
        truth = labels((*STRUCTURES, 9, 10))
        place = folder / "training" / name
        for inner in ("pre", "orig"):
            for seed, image in enumerate(("FLAIR", "reg_IR", "reg_T1")):
                file = place / inner / f"{image}.nii.gz"
                own = scan(truth, seed=zlib.crc32(name.encode()) + seed, stripped=False)
                nifti(file, own, THICK)
            for image in ("IR", "T1"):
                own = scan(labels((1,), (12, 12, 30)), stripped=False)
                nifti(place / inner / f"{image}.nii.gz", own)
        nifti(place / "orig" / "T1_mask.nii.gz", labels((1,)).astype(np.uint8))
        (place / "orig" / "reg_3DT1_to_FLAIR.txt").write_text("0\n")
        nifti(place / "segm.nii.gz", truth.astype(np.uint8), THICK)
    return folder


WMH_SITES = (
    "training/Utrecht",
    "training/Singapore",
    "training/Amsterdam/GE3T",
    "test/Amsterdam/GE1T5",
    "test/Amsterdam/Philips_VU .PETMR_01.",
)


def wmh(
    root: Path,
    sites: Sequence[str] = WMH_SITES,
    number: int = 1,
    *,
    shape: tuple[int, ...] = SHAPE,
    values: Sequence[int] = (1, 2),
) -> Path:
    """WMH 2017: sites at different depths, float32 masks with other pathology, thick slices."""
    folder = root / "WMH"
    for at, site in enumerate(sites):
        for subject in range(50 * at, 50 * at + number):
            place = folder / site / str(subject)
            truth = labels(values, shape)
            for inner in ("pre", "orig"):
                for seed, name in enumerate(("T1", "FLAIR")):
                    image = scan(truth, seed=2 * subject + seed, stripped=False)
                    nifti(place / inner / f"{name}.nii.gz", image, (1.0, 1.0, 3.0))
                own = scan(labels((1,), (12, 12, 30)), stripped=False)
                nifti(place / inner / "3DT1.nii.gz", own)
            nifti(place / "orig" / "3DT1_mask.nii.gz", labels((1,), (12, 12, 30)))
            (place / "orig" / "reg_3DT1_to_FLAIR.txt").write_text("0\n")
            nifti(place / "wmh.nii.gz", truth.astype(np.float32), (1.0, 1.0, 3.0))
    second = folder / "additional_annotations" / "observer_o3" / "training" / "Utrecht" / "0"
    nifti(second / "result.nii.gz", labels(values, shape).astype(np.float32), (1.0, 1.0, 3.0))
    return folder


def brain_tumour_task(root: Path, cases: int = 2) -> Path:
    """Task01_BrainTumour: four channels in one file, and what macOS leaves in the archive."""
    folder = root / "Task01_BrainTumour"
    training = []
    for number in range(cases):
        name = f"BRATS_{number + 1:03d}.nii.gz"
        truth = labels((3, 2, 1))
        channels = [scan(truth, seed=4 * number + c).astype(np.float32) for c in range(4)]
        nifti(folder / "imagesTr" / name, np.stack(channels, -1))
        nifti(folder / "labelsTr" / name, truth.astype(np.float32))
        for part in ("imagesTr", "labelsTr"):
            (folder / part / f"._{name}").write_bytes(b"\0\5\x16\7")
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    described = {
        "name": "BRATS",
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {
            "0": "background",
            "1": "edema",
            "2": "non-enhancing tumor",
            "3": "enhancing tumour",
        },
        "numTraining": cases,
        "training": training,
        "test": ["./imagesTs/BRATS_485.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    (folder / "._dataset.json").write_bytes(b"\0\5\x16\7")
    return folder


def nnunet(
    root: Path,
    described: dict,
    cases: Sequence[str] = ("a_01", "b"),
    n: int = 2,
    name: str = "Dataset007_Lesion",
) -> Path:
    """nnUNet_raw/DatasetNNN_Name: one file per channel."""
    folder = root / name
    for number, case in enumerate(cases):
        truth = labels((2, 1, 3))
        for channel in range(n):
            file = folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz"
            nifti(file, scan(truth, seed=9 * number + channel))
        nifti(folder / "labelsTr" / f"{case}.nii.gz", truth.astype(np.uint8))
    nifti(folder / "imagesTs" / "test_0000.nii.gz", scan(labels((1,))))
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def own_scans(root: Path, cases: int = 3, values: Sequence[int] = (1, 2)) -> Path:
    """A folder of one's own, with a table as a spreadsheet saves it."""
    folder = root / "mine"
    rows = []
    for number in range(cases):
        truth = labels(values)
        image = nifti(folder / "scans" / f"p{number} t1.nii.gz", scan(truth, seed=number))
        flair = nifti(folder / "scans" / f"p{number} flair.nii", scan(truth, seed=number + 50))
        mask = nifti(folder / "masks" / f"p{number}.nii.gz", truth.astype(np.uint8))
        files = [str(file.relative_to(folder)) for file in (image, flair, mask)]
        rows.append((f"p{number}-v1", f"p{number}", "north" if number % 2 else "south", *files))
    head = ("case", "subject", "site", "t1", "flair", "label")
    table(folder / "cases.csv", head, rows)
    text = (folder / "cases.csv").read_text()
    (folder / "cases.csv").write_text("﻿" + text, encoding="utf-8")
    return folder


def heads(root: Path, number: int, *, shape: tuple[int, ...] = (40, 44, 36)) -> Path:
    """Label maps of heads, skin outside and hippocampi inside, in FreeSurfer's axes."""
    folder = root / "head_label_maps"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.tsv").write_text("value\tstructure\n")
    for index in range(number):
        values = labels((511, 515, 24, 3, 2), shape)
        x, y, z = (n // 2 for n in shape)
        values[x - 8 : x - 4, y : y + 6, z - 2 + index : z + 3] = 17
        values[x + 4 : x + 8, y : y + 6, z - 2 + index : z + 3] = 53
        values[x - 2 : x + 2, y - 6 : y - 2, z : z + 4] = 4
        values[x - 2, y - 6 : y - 2, z] = 136
        affine = np.array([[-1, 0, 0, 20], [0, 0, 1, -18], [0, -1, 0, 22], [0, 0, 0, 1.0]])
        kind = np.float32 if index == 0 else np.int32
        image = nib.Nifti1Image(values.astype(kind), affine)
        nib.save(image, folder / f"training_seg_{index + 1:02d}.nii.gz")
    return folder
