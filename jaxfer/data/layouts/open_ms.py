"""The Ljubljana multiple-sclerosis patients in MNI space: one folder per patient."""

from __future__ import annotations

import re
from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.layouts.cases import LABEL, case_of
from jaxfer.data.layouts.files import entries, images, one_of_each
from jaxfer.data.layouts.settings import Setting
from jaxfer.errors import Problem
from jaxfer.tasks import Case, Dataset, RoI

ABOUT = (
    "'3D MR image database of multiple sclerosis patients with white matter lesion "
    "segmentations' (Laboratory of Imaging Technologies, University of Ljubljana, CC BY), in the "
    "MNI-space version of open_ms_data (cross_sectional/MNI): folders patientNN with "
    "FLAIR_*.nii.gz, T1_*, T2_*, T1POST_* and GOLD_STANDARD_*"
)
SETTINGS: dict[str, Setting] = {}
_KINDS = {"FLAIR": "flair", "T1": "t1", "T1POST": "t1ce", "T2": "t2", "GOLD": LABEL}


def _kind(name: str) -> str | None:
    """What a file's name begins with tells what it is."""
    return _KINDS.get(re.split(r"[_.]", name)[0].upper())


def _unused(folder: Path, patients: list[str], what: str) -> Problem:
    return Problem(
        "warning",
        str(folder),
        f"{len(patients)} patient(s) without {what} are not used",
        ", ".join(patients),
        "patients with both images and mask",
        "download their other files to use them",
    )


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:  # noqa: ARG001
    """Reads every ``patientNN`` folder; patients without images or mask are counted, not used."""
    problems: list[Problem] = []
    cases: list[Case] = []
    unused: dict[str, list[str]] = {}
    for patient in entries(folder):
        if not patient.is_dir():
            continue
        case = case_of(
            patient.name,
            one_of_each(images(patient, _kind), patient, problems),
            site="ljubljana",
        )
        if case.label is None:
            unused.setdefault("consensus mask (GOLD_STANDARD_*)", []).append(case.id)
        elif not case.images:
            unused.setdefault("images", []).append(case.id)
        else:
            cases.append(case)
    problems += [_unused(folder, patients, what) for what, patients in unused.items()]
    if not cases:
        counts = "; ".join(f"{len(p)} without {what}" for what, p in unused.items())
        problems.append(
            Problem("error", str(folder), "no usable patient", counts or "no folder", ABOUT)
        )
    dataset = Dataset(
        name=name,
        cases=tuple(cases),
        label_names={0: "background", 1: "lesion"},
        rois={"lesion": RoI("lesion", (("lesion", (1,)),))},
        skull_stripped=True,
        about=ABOUT,
    )
    return dataset, problems
