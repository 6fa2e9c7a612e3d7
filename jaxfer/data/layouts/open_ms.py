"""The Ljubljana multiple-sclerosis patients in MNI space: one folder per patient."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.errors import Problem
from jaxfer.tasks import Case, Dataset, RoI

ABOUT = (
    "'3D MR image database of multiple sclerosis patients with white matter lesion "
    "segmentations' (Laboratory of Imaging Technologies, University of Ljubljana, CC BY), in the "
    "MNI-space version of open_ms_data (cross_sectional/MNI): folders patientNN with "
    "FLAIR_*.nii.gz, T1_*, T2_*, T1POST_* and GOLD_STANDARD_*"
)
_MODALITIES = {"FLAIR": "flair", "T1": "t1", "T1POST": "t1ce", "T2": "t2"}


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:  # noqa: ARG001
    """Reads every ``patientNN`` folder; patients without images are reported, not used."""
    problems: list[Problem] = []
    cases: list[Case] = []
    for patient in sorted(p for p in folder.iterdir() if p.is_dir() and p.name[:1] not in "._"):
        found: dict[str, list[Path]] = {}
        for file in sorted(patient.iterdir()):
            if file.name.endswith((".nii", ".nii.gz")) and file.name[:1] not in "._":
                found.setdefault(file.name.split("_")[0].upper(), []).append(file)
        for kind, files in found.items():
            if len(files) > 1 and kind in _MODALITIES:
                problems.append(
                    Problem("error", str(patient), f"several {kind} images", len(files), 1)
                )
        labels = found.get("GOLD", [])
        images = {_MODALITIES[k]: v[0] for k, v in found.items() if k in _MODALITIES}
        if not images or not labels:
            missing = "images" if labels else "consensus mask (GOLD_STANDARD_*)"
            problems.append(
                Problem(
                    "warning",
                    str(patient),
                    f"the patient has no {missing} and is not used",
                    ", ".join(f.name for v in found.values() for f in v) or "no NIfTI file",
                    mend="download the patient's other files to use it",
                )
            )
            continue
        cases.append(Case(patient.name, patient.name, "ljubljana", images, labels[0]))
    if not cases:
        problems.append(Problem("error", str(folder), "no usable patient", allowed=ABOUT))
    dataset = Dataset(
        name=name,
        cases=tuple(cases),
        label_names={0: "background", 1: "lesion"},
        rois={"lesion": RoI("lesion", (("lesion", (1,)),))},
        skull_stripped=True,
        about=ABOUT,
    )
    return dataset, problems
