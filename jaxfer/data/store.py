"""The store: every case once, on the working grid, as memory-mapped arrays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Shaped

from jaxfer.data import preprocess
from jaxfer.data.nifti import read_header, read_volume
from jaxfer.data.preprocess import Geometry
from jaxfer.tasks import Case

_MARGIN = 2
"""Working voxels kept around the brain."""

_VERSION = 2
"""Raised whenever the same files and settings give other arrays."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every case before a network sees it.

    Attributes:
        spacing: mm, of the working grid.
        percentiles: at which intensities are clipped, inside the brain.
        skull_stripped: the brain is where the image is not 0; else the whole image counts as brain.
    """

    spacing: tuple[float, float, float]
    percentiles: tuple[float, float]
    skull_stripped: bool


@dataclass(frozen=True)
class StoredCase:
    """A case in the store; its arrays are memory-mapped, axes R, A, S, axial slices contiguous.

    Attributes:
        content: file of each array → hash of its bytes.
    """

    id: str
    subject: str
    site: str
    folder: Path
    geometry: Geometry
    content: Mapping[str, str]

    def image(self, modality: str) -> Float16[np.ndarray, "x y z"]:
        return np.load(self.folder / f"{modality}.npy", mmap_mode="r")

    @classmethod
    def read(cls, case: str, subject: str, site: str, folder: Path) -> StoredCase:
        """A case that lies in the store."""
        return _stored(case, subject, site, folder, json.loads((folder / "case.json").read_text()))

    def labels(self) -> Shaped[np.ndarray, "x y z"]:
        """Label values as the data set declares them."""
        return np.load(self.folder / "label.npy", mmap_mode="r")


def _present(case: Case, modalities: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(m for m in modalities if m in case.images)


def case_fingerprint(case: Case, modalities: tuple[str, ...], how: Preprocessing) -> dict:
    """What decides a stored case: its files as they are on disk, and the preprocessing."""
    present = _present(case, modalities)
    files = [case.images[m].path for m in present] + ([case.label] if case.label else [])
    stats = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return {
        "files": [list(s) for s in stats],
        "modalities": list(present),
        "channels": [case.images[m].channel for m in present],
        "preprocessing": json.loads(json.dumps(dataclasses.asdict(how))),
    }


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()


def _smallest_type(labels: np.ndarray) -> np.ndarray:
    small = labels.min(initial=0) >= 0 and labels.max(initial=0) < 256
    return labels.astype(np.uint8 if small else np.int32)


def _write(case: Case, modalities: tuple[str, ...], how: Preprocessing, folder: Path) -> Geometry:
    first = case.images[modalities[0]]
    header = read_header(first.path, first.channel)
    images = {m: read_volume(case.images[m].path, case.images[m].channel) for m in modalities}
    whole = preprocess.field_of_view(header.shape, header.affine, how.spacing)
    if how.skull_stripped:
        brain = np.zeros(header.shape, bool)
        for image in images.values():
            brain |= image != 0
    else:
        brain = np.ones(header.shape, bool)
    inside = preprocess.mask_to_working(brain, whole)
    start, shape = preprocess.bounding_box(inside, _MARGIN)
    geometry = dataclasses.replace(whole, start=start, crop_shape=shape)
    inside = inside[geometry.window]
    for modality, image in images.items():
        working = preprocess.image_to_working(image, whole)[geometry.window]
        values = preprocess.normalise(working, inside, how.percentiles)
        np.save(folder / f"{modality}.npy", np.asfortranarray(values, np.float16))
    if case.label:
        labels = np.round(read_volume(case.label)).astype(np.int32)
        working = preprocess.labels_to_working(labels, whole)[geometry.window]
        np.save(folder / "label.npy", np.asfortranarray(_smallest_type(working)))
    return geometry


def store_case(
    case: Case, modalities: tuple[str, ...], how: Preprocessing, folder: Path
) -> tuple[StoredCase, bool]:
    """Puts a case into the store unless it lies there already, whole and unchanged.

    Args:
        case: verified.
        modalities: which of its images to store, as far as it has them.
        how: the preprocessing.
        folder: of this case in the store; written under a temporary name, then renamed.

    Returns:
        The stored case, and whether it had to be made.
    """
    made_of = case_fingerprint(case, modalities, how)
    known = _known(folder)
    if (known.get("made_of"), known.get("version")) == (made_of, _VERSION):
        return _stored(case.id, case.subject, case.site, folder, known), False
    temporary = folder.with_name(f".{os.getpid()}-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        geometry = _write(case, _present(case, modalities), how, temporary)
        known = {
            "version": _VERSION,
            "made_of": made_of,
            "arrays": {f.name: _content(f) for f in sorted(temporary.iterdir())},
            "geometry": dataclasses.asdict(geometry),
        }
        (temporary / "case.json").write_text(json.dumps(known, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _stored(case.id, case.subject, case.site, folder, known), True


def _known(folder: Path) -> dict:
    """The record of a case that lies whole in the store; nothing of another."""
    try:
        known = json.loads((folder / "case.json").read_text())
        whole = all((folder / name).is_file() for name in known["arrays"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return known if whole else {}


def _stored(case: str, subject: str, site: str, folder: Path, known: dict) -> StoredCase:
    fields: dict[str, Any] = {
        key: tuple(tuple(v) if isinstance(v, (list, tuple)) else v for v in values)
        for key, values in known["geometry"].items()
    }
    return StoredCase(case, subject, site, folder, Geometry(**fields), known["arrays"])
