"""The brain that every subject is made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage

TEMPLATE_FILE = Path(__file__).parent / "mni152_2mm.nii.gz"
NOTICE_FILE = Path(__file__).parent / "MNI-COPYING.txt"
VOXEL_MM = 2.0
CHANNELS = ("t1", "t2", "mask", "csf", "gm", "wm")

# A point inside the lateral ventricle, in MNI mm, and how deep in the brain the ventricles lie.
_IN_VENTRICLE_MM = (6, 2, 16)
_VENTRICLE_DEPTH_MM = 12


@dataclass(frozen=True)
class Template:
    """The MNI ICBM152 2009 brain on a 2 mm grid.

    Attributes:
        t1: T1-weighted intensity, 0 to 100.
        t2: T2-weighted intensity, 0 to 105.
        mask: 1 in the brain, 0 outside.
        tissues: probabilities of cerebrospinal fluid, grey and white matter, summing to 1.
        ventricles: 1 in the lateral and third ventricles, 0 elsewhere.
        t1_means, t2_means: the intensity of every tissue where it is pure.
        affine: voxel to MNI mm.

    Outside the brain, intensities and tissues go on as in its nearest voxel, so that interpolation
    at its border does not mix the background in.
    """

    t1: Float32[np.ndarray, "x y z"]
    t2: Float32[np.ndarray, "x y z"]
    mask: Float32[np.ndarray, "x y z"]
    tissues: Float32[np.ndarray, "3 x y z"]
    ventricles: Float32[np.ndarray, "x y z"]
    t1_means: Float32[np.ndarray, " tissues"]
    t2_means: Float32[np.ndarray, " tissues"]
    affine: Float[np.ndarray, "4 4"]


def _ventricles(
    csf: Float32[np.ndarray, "x y z"],
    mask: Float32[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
) -> Float32[np.ndarray, "x y z"]:
    depth_mm = ndimage.distance_transform_edt(mask > 0) * VOXEL_MM
    pieces, _ = ndimage.label((csf > 0.4) & (depth_mm > _VENTRICLE_DEPTH_MM))
    seed = tuple(((np.array(_IN_VENTRICLE_MM) - affine[:3, 3]) / VOXEL_MM).astype(int))
    return (pieces == pieces[seed]).astype(np.float32)


def _without_ependymal_grey(
    tissues: Float32[np.ndarray, "3 x y z"], ventricles: Float32[np.ndarray, "x y z"]
) -> Float32[np.ndarray, "3 x y z"]:
    """The tissues with the ventricles bordering on white matter where they do in the body.

    A voxel that the ventricle and white matter share is as bright as grey matter, and the maps call
    it so. Beside the ventricles, grey matter where both others are present is taken for a mixture.
    """
    csf, gm, wm = tissues
    beside = ndimage.binary_dilation(ventricles > 0, iterations=2)
    mixture = np.where(beside, np.clip(20 * csf * wm, 0, 1), 0) * gm
    to_csf = csf / np.maximum(csf + wm, 1e-6)
    return np.stack(
        [csf + mixture * to_csf, gm - mixture, wm + mixture * (1 - to_csf)], dtype=np.float32
    )


@cache
def load_template() -> Template:
    """The template that the package ships, written by make_template.py."""
    image = nib.Nifti1Image.from_filename(TEMPLATE_FILE)
    t1, t2, mask, *tissues = np.moveaxis(np.asarray(image.dataobj, dtype=np.float32), -1, 0)
    probabilities = np.stack(tissues) / np.maximum(np.sum(tissues, axis=0), 1)
    ventricles = _ventricles(probabilities[0], mask, image.affine)
    bordering = _without_ependymal_grey(probabilities, ventricles)
    nearest = tuple(
        ndimage.distance_transform_edt(mask == 0, return_distances=False, return_indices=True)
    )
    pure = [map_ > 0.9 for map_ in probabilities]
    return Template(
        t1=t1[nearest],
        t2=t2[nearest],
        mask=mask,
        tissues=bordering[:, *nearest],
        ventricles=ventricles,
        t1_means=np.array([np.median(t1[where]) for where in pure], np.float32),
        t2_means=np.array([np.median(t2[where]) for where in pure], np.float32),
        affine=image.affine,
    )
