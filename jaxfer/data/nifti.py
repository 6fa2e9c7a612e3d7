"""Reading and writing of NIfTI and Analyze images; whatever is wrong becomes a ``UserError``."""

from __future__ import annotations

import io
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from errno import ENAMETOOLONG, ENOENT, ENOTDIR
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float64, Shaped
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError, SpatialImage
from nibabel.volumeutils import apply_read_scaling

from jaxfer.data.gzipped import LARGEST_RATIO, head, inflate
from jaxfer.errors import UserError
from jaxfer.files import check_regular, opened
from jaxfer.tasks import Image

MAX_VOXELS = 2**30
"""Of a file: a header that announces more is refused before anything is allocated."""

MAX_VOXELS_OF_IMAGE = 2**27
"""Of one image (a 512³ grid)."""

MAX_BYTES = 2**29
"""Of the numbers that are read from one file at once, as they are stored."""

_HEADERS = (348, 540)
"""Bytes of an Analyze or NIfTI-1 header, and of a NIfTI-2 header."""

_UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    OverflowError,
    zlib.error,
)
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
    if not _compressed(path):
        with suppress(OSError, ValueError), opened(path) as file:
            if file.read(2) == b"\x1f\x8b":
                mend = "its content is gzip-compressed: add .gz to its name, or unpack it"
    return UserError(
        f"{path}: not a readable NIfTI image",
        found=found,
        allowed="a whole .nii or .nii.gz file, or a pair of .hdr and .img",
        mend=mend,
    )


def _pair(path: Path) -> tuple[Path, Path]:
    """The files that hold the header and the voxels; one file may hold both."""
    plain = path.with_suffix("") if _compressed(path) else path
    kind, ending = plain.suffix, path.suffix if _compressed(path) else ""
    if kind.lower() not in (".hdr", ".img"):
        return path, path
    endings = (".HDR", ".IMG") if kind.isupper() else (".hdr", ".img")
    header, voxels = (plain.with_suffix(e + ending) for e in endings)
    return header, voxels


def _half(path: Path) -> Path | None:
    """The file that is missing to a file of a .hdr and .img pair."""
    pair = _pair(path)
    absent = [file for file in pair if not os.path.lexists(file)]
    return absent[0] if len(absent) == 1 and pair[0] != pair[1] else None


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
    return path.suffix.lower() == ".gz"


class _AnalyzeImage(nib.AnalyzeImage):
    """Analyze as SPM scales it; the matrix that SPM may have put beside it is not read."""

    header_class = nib.Spm2AnalyzeImage.header_class


def _header_bytes(file: Path) -> bytes:
    """The header without the extensions behind it, which nothing here needs."""
    longest = max(_HEADERS)
    if _compressed(file):
        raw = head(file, longest)
    else:
        with opened(file) as lines:
            raw = lines.read(longest)
    wanted = 540 if nib.Nifti2Header.may_contain_header(raw) else 348
    if len(raw) < wanted:
        raise EOFError(f"{len(raw)} bytes, fewer than a header has")
    return raw[:wanted] + bytes(4)


def _kind(raw: bytes, single: bool) -> type[SpatialImage]:
    """Which of the formats a header is of; nibabel knows many more, and would guess them."""
    magic = b"n+" if single else b"ni"
    if nib.Nifti2Header.may_contain_header(raw) and raw[4:6] == magic:
        return nib.Nifti2Image if single else nib.Nifti2Pair
    if nib.Nifti1Header.may_contain_header(raw) and raw[344:346] == magic:
        return nib.Nifti1Image if single else nib.Nifti1Pair
    if not single and nib.AnalyzeHeader.may_contain_header(raw):
        return _AnalyzeImage
    raise ImageFileError("its first bytes are not those of such a file")


def _proxy(image: SpatialImage) -> ArrayProxy:
    if not isinstance(image.dataobj, ArrayProxy):
        raise ImageFileError(f"{type(image).__name__}, which is none of these formats")
    return image.dataobj


def _described(path: Path) -> tuple[SpatialImage, Path]:
    """The image as its header describes it, and the file that holds its voxels."""
    header, voxels = _pair(path)
    raw = _header_bytes(header)
    kind = _kind(raw, header == voxels)
    holder = FileHolder(fileobj=io.BytesIO(raw))
    files = dict.fromkeys(("header", "image"), holder)
    image = kind.from_file_map(files)
    smallest = len(raw) if header == voxels else 0
    if not smallest <= _proxy(image).offset <= voxels.stat().st_size * LARGEST_RATIO:
        raise HeaderDataError(f"the voxels are to begin at byte {_proxy(image).offset}")
    return image, voxels


def _open(path: Path) -> tuple[SpatialImage, Path]:
    """The image without its voxels, which are known to be as many as their file can hold."""
    try:
        with np.errstate(all="ignore"):
            image, file = _described(path)
        check_regular(file)
        proxy, held = _proxy(image), file.stat().st_size
    except _UNREADABLE as error:
        absent = isinstance(error, OSError) and error.errno in (ENOENT, ENOTDIR, ENAMETOOLONG)
        raise (_missing(path) if absent else _unreadable(path, _told(error))) from error
    voxels = math.prod(int(s) for s in image.shape)
    if voxels > MAX_VOXELS or voxels <= 0 or min(image.shape) < 0:
        raise _absurd(path, image.shape, MAX_VOXELS)
    announced = int(proxy.offset) + voxels * proxy.dtype.itemsize
    most = held * LARGEST_RATIO if _compressed(file) else held
    if announced > most:
        raise _unreadable(
            path, f"{held} bytes in the file, which cannot hold the {announced} that are announced"
        )
    return image, file


def _absurd(path: Path, shape: Sequence[int], most: int) -> UserError:
    return UserError(
        f"{path}: the header announces an absurd grid",
        found=" × ".join(str(s) for s in shape),
        allowed=f"1 to {most} voxels",
        mend="download or unpack the file again",
    )


def _is_real(kind: np.dtype) -> bool:
    """Whole or floating-point numbers; those of 80 and 128 bits mean another thing everywhere."""
    return kind.kind in "fiu" and kind.itemsize <= 8


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
    if len(shape) != 3 or not _is_real(image.get_data_dtype()):
        raise UserError(
            f"{path}: not a 3-D image of real numbers",
            found=f"shape {' × '.join(map(str, shape))}, type {image.get_data_dtype()}",
            allowed="three axes",
            mend="split the file into 3-D images of whole or floating-point numbers",
        )
    if math.prod(shape) > MAX_VOXELS_OF_IMAGE:
        raise _absurd(path, shape, MAX_VOXELS_OF_IMAGE)
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
    image, _ = _open(path)
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
    image: SpatialImage, file: Path, first: int, channels: int, shape: tuple[int, int, int]
) -> Shaped[np.ndarray, "x y z c"]:
    """The numbers in the file, not scaled yet, of some channels in a row."""
    proxy = _proxy(image)
    each = math.prod(shape) * proxy.dtype.itemsize
    start, size = int(proxy.offset) + first * each, channels * each
    if size > MAX_BYTES:
        raise ValueError(f"{size} bytes are to be read at once, more than {MAX_BYTES}")
    if _compressed(file):
        whole = int(proxy.offset) + math.prod(image.shape) * proxy.dtype.itemsize
        content = inflate(file, start, size, whole)
    else:
        with opened(file) as stored:
            content = np.fromfile(stored, np.uint8, size, offset=start)
    return content.view(proxy.dtype).reshape(*shape, channels, order="F")


def _scaled(image: SpatialImage, array: Shaped[np.ndarray, ...]) -> Shaped[np.ndarray, ...]:
    proxy = _proxy(image)
    slope, inter = np.float64(proxy.slope), np.float64(proxy.inter)
    if (slope, inter) == (1, 0) and (array.dtype.kind != "f" or array.dtype == np.float32):
        return array
    scaled = np.empty(array.shape, np.float32, order="F")
    # What float32 cannot hold becomes infinite, which verification tells of.
    with np.errstate(over="ignore", invalid="ignore"):
        for z in range(array.shape[2]):  # slice by slice: the wider numbers between take memory
            scaled[..., z] = apply_read_scaling(array[..., z], slope, inter)
    return scaled


def _read(path: Path, channels: Mapping[str, int | None]) -> dict[str, np.ndarray]:
    """Some channels of one file, which is read once."""
    image, file = _open(path)
    wanted = {name: channel or 0 for name, channel in channels.items()}
    shapes = [_grid(path, image, channel) for channel in channels.values()]
    first, last = min(wanted.values()), max(wanted.values())
    try:
        stored = _stored_numbers(image, file, first, last - first + 1, shapes[0])
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
    model, _ = _open(reference)
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
