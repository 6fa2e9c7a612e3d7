"""Write what is rendered from a label map: images and labels, once, as NIfTI files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxfer.data.heads.anatomy import MODALITIES
from jaxfer.data.heads.render import render
from jaxfer.data.nifti import read_header, read_volume
from jaxfer.data.phantom.files import nifti_bytes, write_whole
from jaxfer.errors import UserError

# Raised whenever the same label map and seed give other images.
_VERSION = 1
_DESCRIPTION = "synthetic contrast on a real label map"


def files_of(label_map: Path, scans: Path, *, seed: int, brain: bool) -> dict[str, Path]:
    """Where the images of a label map, and its labels in their box, are to lie: ``seg`` and others.

    The folder's name tells all that they depend on, so that what lies there is never out of date.
    """
    about, subject = label_map.stat(), label_map.name.split(".")[0]
    what = "brain" if brain else "head"
    made_of = f"{about.st_size}-{about.st_mtime_ns}-{what}-seed{seed}-v{_VERSION}"
    folder = scans / subject / made_of
    return {name: folder / f"{subject}_{name}.nii.gz" for name in (*MODALITIES, "seg")}


def write_head(label_map: Path, scans: Path, *, seed: int, brain: bool) -> None:
    """Renders a label map, unless that has been done.

    Args:
        label_map: of a whole head, labels as `LABEL_NAMES`.
        scans: folder of all that is rendered.
        seed: of the data set.
        brain: set to 0 what is not brain or its fluid.

    Raises:
        UserError: the label map is damaged, or is none of a head.
    """
    files = files_of(label_map, scans, seed=seed, brain=brain)
    if all(file.is_file() for file in files.values()):
        return
    header, labels = read_header(label_map), read_volume(label_map)
    whole = np.rint(labels).astype(np.int32) if np.isfinite(labels).all() else None
    try:
        if whole is None or not np.array_equal(whole, labels):
            raise ValueError("values that are not whole numbers")
        voxel_mm, subject = float(np.mean(header.spacing)), label_map.name.split(".")[0]
        head = render(whole, seed=seed, subject=subject, brain=brain, voxel_mm=voxel_mm)
    except ValueError as error:
        raise UserError(
            f"{label_map}: not a label map of a head",
            found=str(error),
            allowed="FreeSurfer's numbers for the brain, 502 to 530 around it",
            mend="download it again, or take it out of the folder",
        ) from error
    affine = header.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(head.corner)
    files["seg"].parent.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        volume = head.labels if name == "seg" else head.images[name]
        write_whole(file, nifti_bytes(volume, affine, _DESCRIPTION))
