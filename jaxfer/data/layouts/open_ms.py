"""The Ljubljana multiple-sclerosis patients in MNI space: one folder per patient."""

from __future__ import annotations

import re
from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.errors import Problem
from jaxfer.tasks import Case, Dataset, Image, RoI

ABOUT = (
    "'3D MR image database of multiple sclerosis patients with white matter lesion "
    "segmentations' (Laboratory of Imaging Technologies, University of Ljubljana, CC BY), in the "
    "MNI-space version of open_ms_data (cross_sectional/MNI): folders patientNN with "
    "FLAIR_*.nii.gz, T1_*, T2_*, T1POST_* and GOLD_STANDARD_*"
)
SETTINGS: dict = {}
_MODALITIES = {"FLAIR": "flair", "T1": "t1", "T1POST": "t1ce", "T2": "t2"}
_LABEL = "GOLD"


def _files(patient: Path) -> dict[str, list[Path]]:
    """The patient's images and masks by what their names begin with."""
    found: dict[str, list[Path]] = {}
    for file in sorted(patient.iterdir()):
        kind = re.split(r"[_.]", file.name)[0].upper()
        if file.name.endswith((".nii", ".nii.gz")) and kind in (*_MODALITIES, _LABEL):
            found.setdefault(kind, []).append(file)
    return found


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
    for patient in sorted(p for p in folder.iterdir() if p.is_dir() and p.name[:1] not in "._"):
        found = _files(patient)
        for kind, files in found.items():
            if len(files) > 1:
                problems.append(
                    Problem(
                        "error",
                        str(patient),
                        f"several {kind}_* files",
                        ", ".join(f.name for f in files),
                        "one",
                        "move the others elsewhere",
                    )
                )
        images = {_MODALITIES[k]: Image(v[0]) for k, v in found.items() if k != _LABEL}
        if _LABEL not in found:
            unused.setdefault("consensus mask (GOLD_STANDARD_*)", []).append(patient.name)
        elif not images:
            unused.setdefault("images", []).append(patient.name)
        else:
            label = found[_LABEL][0]
            cases.append(Case(patient.name, patient.name, "ljubljana", images, label))
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
