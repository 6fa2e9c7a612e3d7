"""Tiny NIfTI files, cases, data sets and stored cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from jaxfer.data.preprocess import field_of_view
from jaxfer.data.store import StoredCase
from jaxfer.tasks import Case, Dataset, Image, RoI

LABEL_NAMES = {0: "background", 1: "core", 2: "rim"}


@pytest.fixture
def write_nifti(tmp_path: Path) -> Callable[..., Path]:
    """Writes an array as it is, with the affine in the forms whose codes are not 0."""

    def write(
        name: str,
        array: np.ndarray,
        affine: np.ndarray | None = None,
        *,
        sform: int = 1,
        qform: int = 1,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(array, np.eye(4) if affine is None else affine)
        image.set_qform(image.affine, code=qform)
        image.set_sform(image.affine, code=sform)
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, path)
        return path

    return write


@pytest.fixture
def make_case(write_nifti: Callable[..., Path]) -> Callable[..., Case]:
    """A subject: noise in a ball of exact zeros, and in its middle a core with a rim."""

    def make(
        name: str,
        shape: tuple[int, int, int] = (14, 16, 12),
        *,
        modalities: Sequence[str] = ("t1",),
        affine: np.ndarray | None = None,
        seed: int = 0,
    ) -> Case:
        rng = np.random.default_rng(seed)
        axes = [(np.arange(n) - (n - 1) / 2) / n for n in shape]
        distance = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
        labels = np.where(distance < 0.2, 1, np.where(distance < 0.3, 2, 0)).astype(np.uint8)
        images = {}
        for modality in modalities:
            values = np.where(distance < 0.4, rng.normal(100, 20, shape), 0).astype(np.float32)
            file = write_nifti(f"{name}_{modality}.nii.gz", values, affine)
            images[modality] = Image(file)
        label = write_nifti(f"{name}_seg.nii.gz", labels, affine)
        return Case(name, name, "here", images, label)

    return make


@pytest.fixture
def dataset_of() -> Callable[..., Dataset]:
    """A skull-stripped data set of the cases, with the labels core and rim."""

    def make(*cases: Case) -> Dataset:
        lesion = RoI("lesion", (("core", (1,)), ("rim", (2,))))
        return Dataset("tiny", tuple(cases), LABEL_NAMES, {"lesion": lesion}, True, "made here")

    return make


@pytest.fixture
def put_in_store(tmp_path: Path) -> Callable[..., StoredCase]:
    """Arrays as a stored case with the modality t1."""

    def put(name: str, image: np.ndarray, labels: np.ndarray) -> StoredCase:
        folder = tmp_path / "store" / name
        folder.mkdir(parents=True)
        np.save(folder / "t1.npy", np.asfortranarray(image, np.float16))
        np.save(folder / "label.npy", np.asfortranarray(labels))
        geometry = field_of_view(image.shape, np.eye(4), (1.0, 1.0, 1.0))
        return StoredCase(name, name, "here", folder, geometry, {})

    return put
