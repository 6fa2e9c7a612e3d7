"""WMH 2017: white-matter hyperintensities on five scanners; other pathology is ignored."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.layouts.cases import by_visit, case_of, ordered
from jaxfer.data.layouts.files import is_named
from jaxfer.data.layouts.settings import PROCESSING
from jaxfer.errors import Problem
from jaxfer.tasks import Dataset

ABOUT = (
    "the WMH Segmentation Challenge of 2017 (DataverseNL, doi:10.34894/AECRSD, CC BY-NC 4.0): "
    "training/, and test/ if wanted, as unpacked"
)
# 3DT1 is on its own grid, not on that of FLAIR and the label map.
_FILES = {"t1": "T1", "flair": "FLAIR"}
_SITES = ("Utrecht", "Singapore", "GE3T", "GE1T5", "PETMR")
SETTINGS = {"images": PROCESSING}


def site_of(folder: str) -> str:
    """Site of a scanner's folder.

    One is called 'Philips_VU .PETMR_01.', and some unpackers lose the space or the last dot.
    """
    for site in _SITES:
        if site.lower() in folder.lower():
            return site
    return folder.strip(" .") or "unknown"


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:
    """Reads every subject of the training and of the test part, at whatever depth.

    Settings: ``images``, 'pre' (bias-corrected) or 'orig'.
    """
    problems: list[Problem] = []
    found = by_visit(folder, settings.images, is_named(_FILES), "wmh", problems)
    cases = [
        case_of(f"{site_of(place.parent.name)}-{n}", files, site=site_of(place.parent.name))
        for n, place, files in found
    ]
    if not cases:
        problems.append(
            Problem("error", str(folder), "no case", "no folder with wmh.nii.gz", ABOUT)
        )
    dataset = Dataset(
        name=name,
        cases=ordered(folder, cases, ("t1", "flair"), problems),
        label_names={0: "background", 1: "WMH", 2: "other pathology"},
        rois={},
        skull_stripped=False,
        about=ABOUT,
        ignore=(2,),
    )
    return dataset, problems
