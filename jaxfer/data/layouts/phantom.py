"""The semi-synthetic collection, as ``jaxfer.data.phantom`` writes it."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.phantom.generate import LABEL_NAMES
from jaxfer.errors import Problem
from jaxfer.tasks import Case, Dataset, RoI

ABOUT = "the semi-synthetic collection that the prepare stage makes from the MNI152 templates"
_ROIS = (
    RoI("tissue", (("CSF", (1,)), ("GM", (2,)), ("WM", (3, 4)))),
    RoI("tumour", (("necrosis", (5,)), ("oedema", (6,)), ("enhancing", (7,)))),
    RoI("whole_tumour", (("whole_tumour", (5, 6, 7)),)),
)


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:
    """Reads ``<site>/<subject>/<subject>_{t1,t2,flair,seg}.nii.gz`` of the configured sites."""
    cases: list[Case] = []
    for site in settings.sites:
        for subject in sorted(p.name for p in (folder / site).iterdir() if p.is_dir()):
            stem = folder / site / subject / subject
            images = {m: Path(f"{stem}_{m}.nii.gz") for m in ("t1", "t2", "flair")}
            cases.append(Case(subject, subject, site, images, Path(f"{stem}_seg.nii.gz")))
    dataset = Dataset(
        name=name,
        cases=tuple(cases),
        label_names=LABEL_NAMES,
        rois={roi.name: roi for roi in _ROIS},
        skull_stripped=True,
        about=ABOUT,
        synthetic=True,
    )
    return dataset, []
