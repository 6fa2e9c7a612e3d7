"""Reading and writing of NIfTI images; whatever a file has wrong becomes a ``UserError``."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from jaxtyping import Float64, Shaped
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from jaxfer.errors import UserError

MAX_VOXELS = 2**30
"""A header that announces more is refused before anything is allocated (a 1024³ grid)."""

_UNREADABLE = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)


@dataclass(frozen=True)
class Header:
    """What a header says: grid and affine (voxel index to mm, RAS+)."""

    shape: tuple[int, int, int]
    affine: Float64[np.ndarray, "4 4"]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels in mm; from the affine, which a header may contradict."""
        x, y, z = (float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: not a readable NIfTI image",
        found=f"{type(error).__name__}: {str(error)[:200]}",
        allowed="a whole .nii or .nii.gz file",
        mend="download or unpack the file again",
    )


def _open(path: Path) -> SpatialImage:
    try:
        image = cast(SpatialImage, nib.load(path))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file, or no access to it",
            mend="unpack the download again, or name another data folder",
        ) from error
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    voxels = math.prod(int(s) for s in image.shape)
    if voxels > MAX_VOXELS or voxels <= 0:
        raise UserError(
            f"{path}: the header announces an absurd grid",
            found=" × ".join(str(s) for s in image.shape),
            allowed=f"1 to {MAX_VOXELS} voxels",
            mend="download or unpack the file again",
        )
    return image


def _grid(path: Path, image: SpatialImage, channel: int | None) -> tuple[int, int, int]:
    """The three axes of an image, or of a channel of it; trailing axes of length 1 are dropped."""
    shape = [int(s) for s in image.shape]
    if channel is not None:
        if len(shape) != 4 or channel >= shape[3]:
            raise UserError(
                f"{path}: it has no channel {channel}",
                found=f"shape {' × '.join(map(str, shape))}",
                allowed=f"four axes, the last of length {channel + 1} or more",
                mend="name as many modalities as the file has channels, in their order",
            )
        shape.pop()
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3 or image.get_data_dtype().kind not in "fiu":
        raise UserError(
            f"{path}: not a 3-D image of real numbers",
            found=f"shape {' × '.join(map(str, shape))}, type {image.get_data_dtype()}",
            allowed="three axes",
            mend="split the file into 3-D images of whole or floating-point numbers",
        )
    return shape[0], shape[1], shape[2]


def read_header(path: Path, channel: int | None = None) -> Header:
    """Grid, affine and voxel sizes of a 3-D image, or of a channel of a 4-D one."""
    image = _open(path)
    shape = _grid(path, image, channel)
    affine = np.asarray(image.affine, np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError(
            f"{path}: the affine does not place the voxels in space",
            found=affine.round(6).tolist(),
            allowed="finite numbers, no axis of length 0",
            mend="write the image again with its voxel sizes and directions",
        )
    return Header(shape, affine)


def _voxels(path: Path, image: SpatialImage) -> np.ndarray:
    if not path.name.endswith(".nii.gz"):
        return np.asanyarray(image.dataobj)
    with gzip.open(path) as stream:
        array = np.asanyarray(cast(nib.Nifti1Image, image).from_stream(stream).dataobj)
        # The checksum stands behind the last voxel; most damage shows nowhere else.
        while stream.read(2**20):
            pass
    return array


def read_volume(path: Path, channel: int | None = None) -> Shaped[np.ndarray, "x y z"]:
    """The voxels of a 3-D image, scaled as its header says; trailing axes of length 1 are dropped.

    With a channel, those of one volume of a 4-D image. Floating-point files come as float32,
    whole-number files without scaling in their own type.
    """
    image = _open(path)
    shape = _grid(path, image, channel)
    try:
        array = _voxels(path, image)
        array = (array if channel is None else array[..., channel]).reshape(shape)
    except (*_UNREADABLE, MemoryError) as error:
        raise _unreadable(path, error) from error
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            array = array.astype(np.float32)
    return array


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
