"""Verification before any work: every problem of every case, in one list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxfer.data.nifti import Header, read_header, read_volume
from jaxfer.errors import Problem, UserError
from jaxfer.tasks import Case, Dataset

AFFINE_TOLERANCE = 0.05
"""Largest distance, in voxels, between the same corner of two grids that count as one grid."""


def corner_distance(a: Header, b: Header) -> float:
    """Largest distance between the same corner of two grids of one shape, in voxels."""
    corners = np.stack(np.meshgrid(*[[0, s - 1] for s in a.shape[:3]], indexing="ij"), -1)
    points = np.concatenate([corners.reshape(-1, 3), np.ones((8, 1))], axis=1)
    distance = np.linalg.norm(points @ (a.affine - b.affine).T, axis=1).max()
    return float(distance / min(a.spacing[:3]))


def _grid(case: Case, modalities: Sequence[str]) -> tuple[list[Problem], bool]:
    """Problems of a case's headers; whether its files are worth reading on."""
    files = [case.images[m] for m in modalities] + ([case.label] if case.label else [])
    headers: dict[Path, Header] = {}
    problems: list[Problem] = []
    for file in files:
        try:
            headers[file] = read_header(file)
        except UserError as error:
            problems.append(_problem(file, error))
    if problems:
        return problems, False
    reference = files[0]
    for file in files[1:]:
        mine, other = headers[file].shape, headers[reference].shape
        if mine != other:
            problems.append(
                Problem(
                    "error",
                    str(file),
                    f"shape differs from that of {reference}",
                    " × ".join(map(str, mine)),
                    " × ".join(map(str, other)),
                    "pair the files of one scan, or resample one to the other's grid",
                )
            )
        elif (distance := corner_distance(headers[reference], headers[file])) > AFFINE_TOLERANCE:
            problems.append(
                Problem(
                    "error",
                    str(file),
                    f"affine differs from that of {reference}",
                    f"a corner of the grid lies {distance:.3g} voxels away",
                    f"at most {AFFINE_TOLERANCE} voxels",
                    "pair the files of one scan, or resample one to the other's grid",
                )
            )
    return problems, not problems


def _problem(file: Path, error: UserError) -> Problem:
    what = error.what.removeprefix(f"{file}: ")
    return Problem("error", str(file), what, error.found, error.allowed, error.mend)


def _image_content(file: Path) -> list[Problem]:
    try:
        image = read_volume(file)
    except UserError as error:
        return [_problem(file, error)]
    bad = int(image.size - np.isfinite(image).sum())
    if bad:
        return [
            Problem(
                "error",
                str(file),
                "the image holds NaN or infinite values",
                f"{bad} voxels",
                "finite numbers",
                "repair the image, or leave the case out",
            )
        ]
    if image.min() == image.max():
        return [Problem("error", str(file), "every voxel has the same value", image.flat[0])]
    return []


def _label_content(file: Path, dataset: Dataset) -> list[Problem]:
    try:
        label = read_volume(file)
    except UserError as error:
        return [_problem(file, error)]
    if not np.isfinite(label).all() or not np.array_equal(label, np.round(label)):
        return [
            Problem(
                "error",
                str(file),
                "the label map holds values that are not whole numbers",
                _some(np.unique(label[np.isfinite(label)])),
                _declared(dataset),
                "export the labels without interpolation",
            )
        ]
    values = np.unique(label).astype(int)
    unknown = [int(v) for v in values if v not in dataset.label_names]
    if unknown:
        return [
            Problem(
                "error",
                str(file),
                "label values that nobody declared",
                _some(np.array(unknown)),
                _declared(dataset),
                "correct the label map, or declare the values where the data set does",
            )
        ]
    if values.tolist() == [0]:
        return [Problem("warning", str(file), "the label map is empty", "only 0")]
    return []


def _some(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:g}" for v in values[:8])
    return shown + (f", … ({len(values)} values)" if len(values) > 8 else "")


def _declared(dataset: Dataset) -> str:
    return ", ".join(f"{v} {n}" for v, n in sorted(dataset.label_names.items()))


def verify_cases(
    dataset: Dataset,
    cases: Iterable[Case],
    modalities: Sequence[str],
    on_case: Callable[[str], None] = lambda _: None,
) -> list[Problem]:
    """Checks the headers, then the content, of the cases' images and label maps.

    Args:
        dataset: declares the label values.
        cases: labelled cases; modalities that a case lacks are not looked at.
        modalities: which images to check.
        on_case: called with the id of each case when it has been read.

    Returns:
        Every problem; none of severity 'error' means that the cases can be used.
    """
    problems: list[Problem] = []
    for case in cases:
        present = [m for m in modalities if m in case.images]
        found, readable = _grid(case, present)
        problems += found
        if readable:
            for modality in present:
                problems += _image_content(case.images[modality])
            if case.label:
                problems += _label_content(case.label, dataset)
        on_case(case.id)
    return problems
