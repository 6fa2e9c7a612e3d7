"""Verification before any work: every problem of every case, in one list."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from jaxfer.data.content import image_problems, label_problems
from jaxfer.data.nifti import Header, read_header, read_images
from jaxfer.errors import Problem, UserError
from jaxfer.tasks import NAMES, Case, Dataset, Image, wrong_name

AFFINE_TOLERANCE = 0.05
"""Largest distance, in voxels, between the same corner of two grids that count as one grid."""

SPACINGS = (0.01, 100.0)
"""Voxel sizes of scans, in mm; others are another unit's."""

_PAIR = "pair the files of one scan, or resample one to the other's grid"


def corner_distance(a: Header, b: Header) -> float:
    """Largest distance between the same corner of two grids of one shape, in voxels.

    A grid without an orientation is compared by its voxel sizes alone.
    """
    if a.oriented and b.oriented:
        first, second = a.affine, b.affine
    else:
        first, second = np.diag([*a.spacing, 1.0]), np.diag([*b.spacing, 1.0])
    corners = np.stack(np.meshgrid(*[[0, s - 1] for s in a.shape], indexing="ij"), -1)
    points = np.concatenate([corners.reshape(-1, 3), np.ones((8, 1))], axis=1)
    distance = np.linalg.norm(points @ (first - second).T, axis=1).max()
    return float(distance / min(a.spacing))


def sorted_problems(problems: Sequence[Problem]) -> list[Problem]:
    """Errors first, then by file."""
    return sorted(problems, key=lambda p: (p.severity, p.where, p.what))


def _grid(file: Image, header: Header, reference: Image, other: Header) -> list[Problem]:
    """Whether a file lies on the grid of the first of its case."""
    if header.shape != other.shape:
        return [
            Problem(
                "error",
                str(file),
                f"shape differs from that of {reference}",
                " × ".join(map(str, header.shape)),
                " × ".join(map(str, other.shape)),
                _PAIR,
            )
        ]
    if (distance := corner_distance(other, header)) > AFFINE_TOLERANCE:
        return [
            Problem(
                "error",
                str(file),
                f"affine differs from that of {reference}",
                f"a corner of the grid lies {distance:.3g} voxels away",
                f"at most {AFFINE_TOLERANCE} voxels",
                _PAIR,
            )
        ]
    if header.oriented != other.oriented:
        bare, whole = (file, reference) if other.oriented else (reference, file)
        return [
            Problem(
                "warning",
                str(bare),
                f"no orientation in its header; its voxels are taken to lie as those of {whole}",
                "neither qform nor sform",
                "the same axes and directions in every file of a case",
                "look at one case with its label map on top",
            )
        ]
    return []


def _spacing(file: Image, header: Header) -> list[Problem]:
    low, high = SPACINGS
    if all(low <= size <= high for size in header.spacing):
        return []
    return [
        Problem(
            "error",
            str(file),
            "voxel sizes that no scan has",
            " × ".join(f"{size:g}" for size in header.spacing) + " mm",
            f"{low:g} to {high:g} mm",
            "correct the voxel sizes or their unit (xyzt_units) in the header",
        )
    ]


def _problem(file: Image, error: UserError) -> Problem:
    what = error.what.removeprefix(f"{file.path}: ")
    return Problem("error", str(file), what, error.found, error.allowed, error.mend)


def _names(dataset: Dataset, cases: Sequence[Case]) -> list[Problem]:
    """Ids that are there twice, or that would not do as names of files."""
    problems = []
    for case, count in Counter(case.id for case in cases).items():
        if count > 1:
            problems.append(
                Problem(
                    "error",
                    f"dataset '{dataset.name}'",
                    f"case {case} is there more than once",
                    f"{count} times",
                    "once",
                    "move all but one elsewhere",
                )
            )
        if wrong_name(case):
            problems.append(
                Problem(
                    "error",
                    f"dataset '{dataset.name}'",
                    "a case's name cannot be that of a file",
                    repr(case),
                    NAMES,
                    "give its files another name",
                )
            )
    tables = {n for case in cases for n in (case.subject, case.site) if wrong_name(n)}
    for name in sorted(tables):
        where, what = f"dataset '{dataset.name}'", "the name of a subject or a site"
        problems.append(
            Problem("error", where, what, repr(name), NAMES, "give its files another name")
        )
    return problems


def _place(file: Path, folder: Path | None) -> list[Problem]:
    """Whether a file named inside the data set's folder lies there."""
    if folder is None or not file.is_relative_to(folder):
        return []
    if ".." in file.relative_to(folder).parts:
        what, mend = "its name leads out of the data set's folder", "name a file inside of it"
    elif not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        what = "a symbolic link that leaves the data set's folder"
        mend = "put the file itself there, or name the folder that the link leads into"
    else:
        return []
    found, allowed = os.path.realpath(file), f"a file inside {os.path.realpath(folder)}"
    return [Problem("error", str(file), what, found, allowed, mend)]


def _files(case: Case, modalities: Sequence[str]) -> list[Image]:
    """The files to look at: the images that the case has, then its label map."""
    images = [case.images[m] for m in modalities if m in case.images]
    return [*images, Image(case.label)] if case.label else images


def _headers(
    modalities: Sequence[str], folder: Path | None, case: Case
) -> tuple[list[Problem], list[Image]]:
    """What is wrong with the headers of a case, and the files whose content can be looked at."""
    problems: list[Problem] = []
    headers: dict[Image, Header] = {}
    for file in _files(case, modalities):
        outside = _place(file.path, folder)
        problems += outside
        if outside:
            continue
        try:
            headers[file] = read_header(file.path, file.channel)
        except UserError as error:
            problems.append(_problem(file, error))
    for index, (file, header) in enumerate(headers.items()):
        reference, other = next(iter(headers.items()))
        problems += _spacing(file, header)
        problems += _grid(file, header, reference, other) if index else []
    return problems, list(headers)


def _content(
    dataset: Dataset, case: Case, files: Sequence[Image]
) -> tuple[list[Problem], dict[Image, str]]:
    """What is wrong with the voxels of a case, and a hash of each image's."""
    problems: list[Problem] = []
    hashes: dict[Image, str] = {}
    by_path: dict[Path, dict[str, Image]] = {}
    for file in files:
        by_path.setdefault(file.path, {})[str(file)] = file
    for path, images in by_path.items():
        try:
            volumes = read_images(images)
        except UserError as error:
            problems.append(_problem(Image(path), error))
            continue
        for name, file in images.items():
            volume = volumes.pop(name)
            if file.path == case.label:
                problems += label_problems(file, volume, dataset)
            else:
                found = image_problems(file, volume, dataset)
                problems += found
                if not any(p.severity == "error" for p in found):
                    hashes[file] = hashlib.sha256(np.ascontiguousarray(volume.T).data).hexdigest()
    return problems, hashes


def _twins(found: Sequence[tuple[str, Image, str]]) -> list[Problem]:
    """Images of different cases with the same voxels, from (case, image, hash): one scan twice."""
    first: dict[str, tuple[str, Image]] = {}
    problems = []
    for case, file, digest in found:
        other, twin = first.setdefault(digest, (case, file))
        if other != case:
            problems.append(
                Problem(
                    "warning",
                    str(file),
                    f"the same voxels as {twin}",
                    f"cases {other} and {case}",
                    "an image of its own for every case",
                    "leave one of them out: the networks may be tested on what they were shown",
                )
            )
    return problems


def verify_cases(
    dataset: Dataset,
    cases: Iterable[Case],
    modalities: Sequence[str],
    *,
    folder: Path | None = None,
    workers: int = 1,
    on_case: Callable[[str], None] = lambda _: None,
) -> list[Problem]:
    """Checks the headers of all cases, then the content of their images and label maps.

    Args:
        dataset: declares the label values.
        cases: labelled cases; modalities that a case lacks are not looked at.
        modalities: which images to check.
        folder: of the data set; no file that is named inside of it may lie elsewhere.
        workers: how many cases at once; the result does not depend on it.
        on_case: called with the id of each case, in their order, when it has been read.

    Returns:
        Every problem, errors first; none of severity 'error' means that the cases can be used.
    """
    cases = tuple(cases)
    problems = _names(dataset, cases)
    hashes: list[tuple[str, Image, str]] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            readable = []
            for found, files in pool.map(partial(_headers, modalities, folder), cases):
                problems += found
                readable.append(files)
            contents = pool.map(partial(_content, dataset), cases, readable)
            for case, (found, own) in zip(cases, contents, strict=True):
                problems += found
                hashes += [(case.id, file, digest) for file, digest in own.items()]
                on_case(case.id)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return sorted_problems(problems + _twins(hashes))
