"""The semi-synthetic collection, as ``jaxfer.data.phantom`` writes it."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.layouts.settings import Setting, texts
from jaxfer.data.phantom.generate import LABEL_NAMES
from jaxfer.errors import Problem
from jaxfer.tasks import Case, Dataset, Image, RoI

ABOUT = "the semi-synthetic collection that the prepare stage makes from the MNI152 templates"
SETTINGS = {
    "sites": Setting(lambda s: texts(s.sites), "names of sites, such as ('ageing', 'clinic')"),
    "subjects": Setting(
        lambda s: len(s.subjects) == len(s.sites) and all(_whole(n, 1) for n in s.subjects),
        "one number of subjects per site, 1 or more",
    ),
    "seed": Setting(lambda s: _whole(s.seed, 0), "a whole number, 0 or more"),
}
_ROIS = (
    RoI("tissue", (("CSF", (1,)), ("GM", (2,)), ("WM", (3, 4)))),
    RoI("tumour", (("necrosis", (5,)), ("oedema", (6,)), ("enhancing", (7,)))),
    RoI("whole_tumour", (("whole_tumour", (5, 6, 7)),)),
)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and value >= least


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:
    """Reads ``<site>/<subject>/<subject>_{t1,t2,flair,seg}.nii.gz`` of the configured subjects.

    The folder may hold more of them: runs that share it may ask for different numbers.
    """
    cases: list[Case] = []
    for site, count in zip(settings.sites, settings.subjects, strict=True):
        for subject in (f"{site}-{number:03d}" for number in range(1, count + 1)):
            stem = folder / site / subject / subject
            images = {m: Image(Path(f"{stem}_{m}.nii.gz")) for m in ("t1", "t2", "flair")}
            cases.append(Case(subject, subject, site, images, Path(f"{stem}_seg.nii.gz")))
    dataset = Dataset(
        name=name,
        cases=tuple(sorted(cases, key=lambda c: c.id)),
        label_names=LABEL_NAMES,
        rois={roi.name: roi for roi in _ROIS},
        skull_stripped=True,
        about=ABOUT,
        synthetic=True,
    )
    return dataset, []
