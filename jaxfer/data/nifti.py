"""Reading and writing of NIfTI and Analyze images; whatever is wrong becomes a ``UserError``."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from jaxtyping import Float64, Shaped
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from nibabel.volumeutils import apply_read_scaling

from jaxfer.data.gzipped import LARGEST_RATIO, inflate
from jaxfer.errors import UserError
from jaxfer.tasks import Image

MAX_VOXELS = 2**30
"""A header that announces more is refused before anything is allocated (a 1024³ grid)."""

_UNREADABLE = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, KeyError, zlib.error)
_MM = {1: 1000.0, 3: 0.001}
"""Millimetres in NIfTI's codes of length, metre and micron; all else is taken for millimetres."""


@dataclass(frozen=True)
class Header:
    """What a header says: grid and affine (voxel index to mm, RAS+).

    Attributes:
        shape: voxels per axis.
        affine: the voxel sizes alone, about the origin, where the header has no orientation.
        oriented: the header says how the axes lie in the patient. Analyze's cannot, and a NIfTI
            header with both codes 0 does not.
    """

    shape: tuple[int, int, int]
    affine: Float64[np.ndarray, "4 4"]
    oriented: bool = True

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels in mm; from the affine, which a header may contradict."""
        x, y, z = (float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z


def _unreadable(path: Path, found: str) -> UserError:
    mend = "download or unpack the file again"
    if not _compressed(path) and path.is_file():
        with path.open("rb") as file:
            if file.read(2) == b"\x1f\x8b":
                mend = "its content is gzip-compressed: add .gz to its name, or unpack it"
    return UserError(
        f"{path}: not a readable NIfTI image",
        found=found,
        allowed="a whole .nii or .nii.gz file, or a pair of .hdr and .img",
        mend=mend,
    )


def _half(path: Path) -> Path | None:
    """The file that is missing to a file of a .hdr and .img pair."""
    other = {".hdr": ".img", ".img": ".hdr"}.get(path.suffix.lower())
    absent = path.with_suffix(other) if other and path.exists() else None
    return absent if absent and not absent.exists() else None


def _missing(path: Path) -> UserError:
    if half := _half(path):
        return UserError(
            f"{path}: the other file of the pair is missing",
            found=f"no {half.name} beside it",
            allowed="NAME.hdr beside NAME.img",
            mend="unpack the download again",
        )
    return UserError(
        f"{path}: no such file, or no access to it",
        mend="unpack the download again, or name another data folder",
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def _compressed(path: Path) -> bool:
    return path.suffix.lower() in (".gz", ".mgz")


def _voxel_file(image: SpatialImage) -> Path:
    """The file that holds the voxels: of a pair, the other one than the header's."""
    return Path(str(image.file_map["image"].filename))


def _proxy(image: SpatialImage) -> ArrayProxy:
    if not isinstance(image.dataobj, ArrayProxy):
        raise ImageFileError(f"{type(image).__name__}, which is none of these formats")
    return image.dataobj


def _open(path: Path) -> SpatialImage:
    """The image without its voxels; they are known to be as many as the file can hold."""
    try:
        image = cast(SpatialImage, nib.load(path))
        proxy, file = _proxy(image), _voxel_file(image)
        held = file.stat().st_size
    except FileNotFoundError as error:
        raise _missing(path) from error
    except _UNREADABLE as error:
        raise (_missing(path) if _half(path) else _unreadable(path, _told(error))) from error
    voxels = math.prod(int(s) for s in image.shape)
    if voxels > MAX_VOXELS or voxels <= 0:
        raise UserError(
            f"{path}: the header announces an absurd grid",
            found=" × ".join(str(s) for s in image.shape),
            allowed=f"1 to {MAX_VOXELS} voxels",
            mend="download or unpack the file again",
        )
    announced = int(proxy.offset) + voxels * proxy.dtype.itemsize
    most = held * LARGEST_RATIO if _compressed(file) else held
    if announced > most:
        raise _unreadable(
            path, f"{held} bytes in the file, which cannot hold the {announced} that are announced"
        )
    return image


def _grid(path: Path, image: SpatialImage, channel: int | None) -> tuple[int, int, int]:
    """The three axes of an image, or of one of its channels; trailing axes of 1 are dropped."""
    shape = [int(s) for s in image.shape]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if channel is not None and len(shape) in (3, 4):
        channels = shape.pop() if len(shape) == 4 else 1
        if not 0 <= channel < channels:
            raise UserError(
                f"{path}: it has no such channel",
                found=f"channel {channel}",
                allowed=f"0 to {channels - 1}",
                mend="correct the description of the data set, or download the file again",
            )
    if len(shape) != 3 or image.get_data_dtype().kind not in "fiu":
        raise UserError(
            f"{path}: not a 3-D image of real numbers",
            found=f"shape {' × '.join(map(str, shape))}, type {image.get_data_dtype()}",
            allowed="three axes",
            mend="split the file into 3-D images of whole or floating-point numbers",
        )
    return shape[0], shape[1], shape[2]


def _oriented(image: SpatialImage) -> bool:
    header = image.header
    if isinstance(header, nib.Nifti1Header):
        return bool(header["qform_code"] > 0 or header["sform_code"] > 0)
    return not isinstance(header, nib.AnalyzeHeader)


def _affine(image: SpatialImage) -> Float64[np.ndarray, "4 4"]:
    """Voxel index to mm."""
    header = image.header
    if not _oriented(image):
        sizes = [float(size) for size in header.get_zooms()[:3]]
        affine = np.diag([*sizes, 1.0])
    else:
        affine = np.array(image.affine, np.float64)
    if isinstance(header, nib.Nifti1Header):
        affine[:3] *= _MM.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


def read_header(path: Path, channel: int | None = None) -> Header:
    """Grid, affine and voxel sizes of an image, without its voxels.

    Args:
        path: .nii, .nii.gz, or either file of a .hdr and .img pair.
        channel: index along the fourth axis; None: the file holds one image.

    Raises:
        UserError: the header is damaged, absurd, or announces more than the file can hold.
    """
    image = _open(path)
    shape = _grid(path, image, channel)
    affine = _affine(image)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError(
            f"{path}: the affine does not place the voxels in space",
            found=affine.round(6).tolist(),
            allowed="finite numbers, no axis of length 0",
            mend="write the image again with its voxel sizes and directions",
        )
    return Header(shape, affine, _oriented(image))


def _stored_numbers(
    image: SpatialImage, first: int, channels: int, shape: tuple[int, int, int]
) -> Shaped[np.ndarray, "x y z c"]:
    """The numbers in the file, not scaled yet, of some channels in a row."""
    proxy, file = _proxy(image), _voxel_file(image)
    each = math.prod(shape) * proxy.dtype.itemsize
    start, size = int(proxy.offset) + first * each, channels * each
    if _compressed(file):
        content = inflate(file, start, size)
    else:
        content = np.fromfile(file, np.uint8, size, offset=start)
    return content.view(proxy.dtype).reshape(*shape, channels, order="F")


def _scaled(image: SpatialImage, array: Shaped[np.ndarray, ...]) -> Shaped[np.ndarray, ...]:
    proxy = _proxy(image)
    array = apply_read_scaling(array, np.float64(proxy.slope), np.float64(proxy.inter))
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            return array.astype(np.float32, copy=False)
    return array


def _read(path: Path, channels: Mapping[str, int | None]) -> dict[str, np.ndarray]:
    """Some channels of one file, which is read once."""
    image = _open(path)
    wanted = {name: channel or 0 for name, channel in channels.items()}
    shapes = [_grid(path, image, channel) for channel in channels.values()]
    first, last = min(wanted.values()), max(wanted.values())
    try:
        stored = _stored_numbers(image, first, last - first + 1, shapes[0])
        return {name: _scaled(image, stored[..., c - first]) for name, c in wanted.items()}
    except (*_UNREADABLE, MemoryError) as error:
        raise _unreadable(path, _told(error)) from error


def read_volume(path: Path, channel: int | None = None) -> Shaped[np.ndarray, "x y z"]:
    """The voxels of an image, scaled as its header says; trailing axes of length 1 are dropped.

    Floating-point files come as float32, whole-number files without scaling in their own type;
    the first axis is the contiguous one.

    Args:
        path: .nii, .nii.gz, or either file of a .hdr and .img pair.
        channel: index along the fourth axis, of which no other is kept; None: the file holds one
            image.

    Raises:
        UserError: the file is damaged anywhere, or does not hold such an image.
    """
    return _read(path, {"": channel})[""]


def read_images(images: Mapping[str, Image]) -> dict[str, np.ndarray]:
    """The voxels of several images, as ``read_volume`` gives them; each file is read once."""
    files: dict[Path, dict[str, int | None]] = {}
    for name, image in images.items():
        files.setdefault(image.path, {})[name] = image.channel
    found: dict[str, np.ndarray] = {}
    for path, channels in files.items():
        found |= _read(path, channels)
    return {name: found[name] for name in images}


def write_like(path: Path, array: Shaped[np.ndarray, "x y z"], reference: Path) -> None:
    """Writes an image with the affine, the codes and the units of another file's header.

    The file appears whole or not at all: it is written under a temporary name, then renamed.
    """
    model = _open(reference)
    header = nib.Nifti1Header.from_header(model.header, check=False)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header["cal_min"], header["cal_max"] = 0, 0
    header["descrip"] = b"jaxfer"
    image = nib.Nifti1Image(array, model.affine, header)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        nib.save(image, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
