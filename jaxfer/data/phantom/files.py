"""Files of collections that are computed: whole or absent, with the same bytes every time."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Int16, UInt8


def nifti_bytes(
    volume: Int16[np.ndarray, "x y z"] | UInt8[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    description: str,
) -> bytes:
    """The volume as the bytes of a .nii.gz file, which hold no date and no name.

    Args:
        volume: labels or intensities.
        affine: voxel to mm.
        description: up to 79 letters for the header.
    """
    image = nib.Nifti1Image(volume, affine)
    image.set_sform(affine, code="aligned")
    image.set_qform(affine, code="aligned")
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def write_whole(file: Path, content: bytes) -> None:
    """Writes under a temporary name, then renames: a file is either whole or absent."""
    partial = file.with_name(f".{os.getpid()}-{file.name}.partial")
    partial.write_bytes(content)
    partial.replace(file)
