"""Precomputed outputs of a case, on the grid of its scan: read, verified, brought to the store's.

A case's outputs are one file ``<case>.npz`` with an array for each output, or a NIfTI file
``<case>_<output>.nii.gz`` for each; four axes, channels last.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from zipfile import BadZipFile

import nibabel as nib
import numpy as np
from jaxtyping import Float32, Shaped
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage
from numpy.lib.npyio import NpzFile
from scipy.special import log_softmax, logsumexp

from jaxfer.data.nifti import Header, read_header, read_images
from jaxfer.data.preprocess import Geometry, image_to_working
from jaxfer.data.verify import AFFINE_TOLERANCE, corner_distance
from jaxfer.errors import Problem, UserError
from jaxfer.files import opened
from jaxfer.tasks import Image

OUTPUT = "output"
"""Name of the array that holds the network's prediction; the others have names of layers."""

LOGITS, LOG_PROBABILITIES = "logits", "log_probabilities"
"""What a prediction may be."""

TOLERANCE = 0.01
"""How far from 1 the probabilities of a voxel may sum: float16 rounds them by less."""

UNREADABLE = (
    *(ImageFileError, BadZipFile, zlib.error, MemoryError, RuntimeError),
    *(OSError, EOFError, ValueError, KeyError),
)
"""What damaged files raise, and encrypted ones."""

_MEND = "write the file again as docs/foreign-sources.md shows"


@dataclass(frozen=True)
class Expected:
    """What the files of a source hold.

    Attributes:
        folder: of the files.
        kind: of the prediction, ``LOGITS`` or ``LOG_PROBABILITIES``.
        channels: of each output by its name; those of the prediction are the classes.
    """

    folder: Path
    kind: str
    channels: Mapping[str, int]


@contextmanager
def arrays_of(file: Path) -> Iterator[NpzFile]:
    """The arrays of an .npz file, each read when it is asked for."""
    with opened(file) as stream:
        found = np.load(stream, allow_pickle=False)
        if not isinstance(found, NpzFile):
            raise ValueError("a single array, no .npz file")
        with found:
            yield found


def _error(file: Path, what: str, found: object, allowed: object) -> Problem:
    return Problem("error", str(file), what, found, allowed, _MEND)


def _file(folder: Path, case: str, name: str) -> Path:
    """The file that holds an output, which need not be there."""
    names = (f"{case}.npz", f"{case}_{name}.nii.gz", f"{case}_{name}.nii")
    return next((folder / n for n in names if (folder / n).is_file()), folder / names[0])


def _array(file: Path, name: str) -> Shaped[np.ndarray, ...] | Problem:
    """The array as it stands in the file, or what is wrong with it."""
    if not file.is_file():
        case = file.stem
        return _error(file, "no such file", None, f"{case}.npz, or {case}_{name}.nii.gz")
    try:
        if file.suffix == ".npz":
            with arrays_of(file) as arrays:
                if name not in arrays.files:
                    found = ", ".join(arrays.files) or "no array"
                    return _error(file, f"has no array '{name}'", found, name)
                return arrays[name]
        read_header(file, 0)  # refuses what the file cannot hold before nibabel looks at it
        shape = cast(SpatialImage, nib.load(file)).shape
        channels = shape[3] if len(shape) == 4 else 1
        images = read_images({str(k): Image(file, k) for k in range(channels)})
        return np.stack(list(images.values()), axis=-1)
    except UserError as error:
        return _error(file, error.what.removeprefix(f"{file}: "), error.found, error.allowed)
    except UNREADABLE as error:
        found = f"{type(error).__name__}: {str(error)[:200]}"
        return _error(file, "not a readable file of outputs", found, "a whole .npz or NIfTI file")


def _elsewhere(file: Path, header: Header) -> list[Problem]:
    """A NIfTI file says where its voxels lie, and that is where the scan's lie."""
    if file.suffix == ".npz":
        return []
    own = read_header(file, 0)
    apart = corner_distance(header, own)
    if not (own.oriented and header.oriented) or apart <= AFFINE_TOLERANCE:
        return []
    what, allowed = "lies elsewhere in space than its scan", f"at most {AFFINE_TOLERANCE} voxels"
    return [_error(file, what, f"corners {apart:.3g} voxels apart", allowed)]


def output_problems(expected: Expected, case: str, header: Header) -> list[Problem]:
    """What is wrong with the outputs of a case, at most one line for each of them.

    Args:
        expected: what the card announces.
        case: its id.
        header: of its scan, on whose grid the outputs lie.
    """
    problems: list[Problem] = []
    for name, channels in expected.channels.items():
        file = _file(expected.folder, case, name)
        array = _array(file, name)
        if isinstance(array, Problem):
            problems.append(array)
            if not file.is_file():
                break
            continue
        problems += _of_array(expected, file, name, channels, header, array)[:1]
    return problems


def _of_array(
    expected: Expected,
    file: Path,
    name: str,
    channels: int,
    header: Header,
    array: Shaped[np.ndarray, ...],
) -> list[Problem]:
    shown = f"shape {' × '.join(map(str, array.shape))}"
    if array.dtype.kind != "f":
        return [_error(file, f"'{name}' holds no floating-point numbers", array.dtype, "float16")]
    if array.ndim != 4 or array.shape[:3] != header.shape:
        allowed = f"{' × '.join(map(str, header.shape))} × {channels}, the grid of the scan"
        return [_error(file, f"'{name}' is not on the grid of its scan", shown, allowed)]
    if array.shape[3] != channels:
        what = f"'{name}' has not the channels that the card announces"
        return [_error(file, what, array.shape[3], channels)]
    if not np.isfinite(array).all():
        found = f"{int((~np.isfinite(array)).sum())} of {array.size}"
        what = f"'{name}' has values that are NaN or infinite"
        return [_error(file, what, found, "finite numbers")]
    if name == OUTPUT and expected.kind == LOG_PROBABILITIES:
        sums = np.exp(logsumexp(array.astype(np.float32), axis=-1))
        wrong = np.abs(sums - 1) > TOLERANCE
        if wrong.any():
            found = f"{sums.min():.3g} … {sums.max():.3g}, wrong at {int(wrong.sum())} voxels"
            allowed = f"1 ± {TOLERANCE}; or 'outputs': '{LOGITS}' in the card"
            return [_error(file, "the probabilities do not sum to 1", found, allowed)]
    return _elsewhere(file, header)


def read_outputs(
    expected: Expected, case: str, geometry: Geometry
) -> dict[str, Float32[np.ndarray, "x y z d"]]:
    """The verified outputs of a case on the working grid, the prediction as log-probabilities.

    Interpolation is linear, of log-probabilities too, which are normalised afterwards.

    Raises:
        UserError: a file has changed since it was verified.
    """
    found = {}
    for name in expected.channels:
        file = _file(expected.folder, case, name)
        array = _array(file, name)
        if isinstance(array, Problem) or array.shape[:3] != geometry.shape:
            raise UserError(
                f"{file}: changed since it was verified",
                mend="leave the folder as it is while a run reads it, and start again",
            )
        values = array.astype(np.float32)
        if name == OUTPUT:
            values = log_softmax(values, axis=-1)
        moved = [image_to_working(values[..., k], geometry) for k in range(values.shape[-1])]
        values = np.stack(moved, axis=-1)
        found[name] = log_softmax(values, axis=-1) if name == OUTPUT else values
    return found
