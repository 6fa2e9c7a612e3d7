"""The maps of where transfer hurt: each test case's predictions against those from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxfer.data.nifti import read_volume, write_like
from jaxfer.evaluation import harm
from jaxfer.stages.run import Run
from jaxfer.tasks import IGNORE, RoI, classes_of


def write_harm_maps(
    run: Run,
    roi: RoI,
    ignore: tuple[int, ...],
    case: str,
    reference: Path,
    label: Path,
    predictions: Mapping[str, Mapping[str, str]],
    values: list[int],
) -> dict[str, dict[str, Any]]:
    """The maps of one test case, as NIfTI on its own grid.

    Args:
        case: its name.
        reference: file whose grid the maps have.
        label: file of the reference.
        predictions: files in the workdir, by method that starts from the source and "scratch",
            then by seed.
        values: of each class in a prediction.

    Returns:
        By method the map's file, and the voxels that are worse and better in the mean over seeds.
    """
    truth = classes_of(np.round(read_volume(label)).astype(np.int32), roi, ignore)
    valid, known = truth != IGNORE, np.array(values)
    expected = known[np.where(valid, truth, 0)]

    def read(method: str) -> list[np.ndarray]:
        files = (run.workdir / predictions[method][seed] for seed in predictions["scratch"])
        return [np.round(read_volume(file)).astype(known.dtype) for file in files]

    scratch, found = read("scratch"), {}
    for method in predictions:
        if method == "scratch":
            continue
        hurt = harm(expected, scratch, read(method), valid)
        file = run.workdir / "evaluate" / "harm" / method / f"{case}.nii.gz"
        write_like(file, hurt, reference)
        found[method] = {
            "file": str(file.relative_to(run.workdir)),
            "worse": float(hurt.clip(min=0).sum(dtype=np.float64)),
            "better": float(-hurt.clip(max=0).sum(dtype=np.float64)),
        }
    return found
