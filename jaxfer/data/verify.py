"""Verification before any work: every problem of every case, in one list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jaxfer.data.nifti import Header, read_header, read_volume
from jaxfer.errors import Problem, UserError
from jaxfer.tasks import Case, Dataset, Image

AFFINE_TOLERANCE = 0.05
"""Largest distance, in voxels, between the same corner of two grids that count as one grid."""


def corner_distance(a: Header, b: Header) -> float:
    """Largest distance between the same corner of two grids of one shape, in voxels."""
    corners = np.stack(np.meshgrid(*[[0, s - 1] for s in a.shape], indexing="ij"), -1)
    points = np.concatenate([corners.reshape(-1, 3), np.ones((8, 1))], axis=1)
    distance = np.linalg.norm(points @ (a.affine - b.affine).T, axis=1).max()
    return float(distance / min(a.spacing))


def _grids(headers: Mapping[Image, Header]) -> list[Problem]:
    """Whether the files of a case lie on the grid of the first of them."""
    problems: list[Problem] = []
    reference, *others = headers
    for file in others:
        mine, other = headers[file], headers[reference]
        if mine.shape != other.shape:
            problems.append(
                Problem(
                    "error",
                    str(file),
                    f"shape differs from that of {reference}",
                    " × ".join(map(str, mine.shape)),
                    " × ".join(map(str, other.shape)),
                    "pair the files of one scan, or resample one to the other's grid",
                )
            )
        elif (distance := corner_distance(other, mine)) > AFFINE_TOLERANCE:
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
    return problems


def _problem(file: Image, error: UserError) -> Problem:
    what = error.what.removeprefix(f"{file.path}: ")
    return Problem("error", str(file), what, error.found, error.allowed, error.mend)


def _image_content(file: Image) -> list[Problem]:
    try:
        image = read_volume(file.path, file.channel)
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
        return [
            Problem(
                "error",
                str(file),
                "every voxel has the same value",
                f"{image.flat[0]:g}",
                "more than one value",
                "export the image again, or leave the case out",
            )
        ]
    return []


def _label_content(file: Image, dataset: Dataset) -> list[Problem]:
    try:
        label = read_volume(file.path, file.channel)
    except UserError as error:
        return [_problem(file, error)]
    bad = ~np.isfinite(label) | (label != np.round(label))
    if bad.any():
        return [
            Problem(
                "error",
                str(file),
                "the label map holds values that are not whole numbers",
                _some(np.unique(label[bad])),
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
        return [
            Problem(
                "warning",
                str(file),
                "the label map is empty",
                "only 0",
                _declared(dataset),
                "nothing, if nothing is to be seen in the image",
            )
        ]
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
    """Checks the grids and the content of the cases' images and label maps.

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
        images = [case.images[m] for m in modalities if m in case.images]
        label = Image(case.label) if case.label else None
        headers: dict[Image, Header] = {}
        for file in [*images, label] if label else images:
            try:
                headers[file] = read_header(file.path, file.channel)
            except UserError as error:
                problems.append(_problem(file, error))
        if headers:
            problems += _grids(headers)
        for file in headers:
            content = _label_content(file, dataset) if file == label else _image_content(file)
            problems += content
        on_case(case.id)
    return problems
