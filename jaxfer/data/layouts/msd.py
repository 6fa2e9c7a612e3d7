"""Medical Segmentation Decathlon: ``dataset.json``, ``imagesTr/``, ``labelsTr/``."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

from ml_collections import ConfigDict

from jaxfer.errors import Problem, UserError
from jaxfer.tasks import Case, Dataset, RoI

ABOUT = (
    "the Medical Segmentation Decathlon (medicaldecathlon.com, CC BY-SA 4.0), "
    "one TaskNN_Name folder with dataset.json, imagesTr and labelsTr"
)


def _description(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file", allowed=ABOUT) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable JSON file", found=str(error)[:200]) from error
    listed = value.get("training") if isinstance(value, dict) else None
    labels = value.get("labels") if isinstance(value, dict) else None
    if not isinstance(listed, list) or not isinstance(labels, dict):
        raise UserError(
            f"{path}: not a Decathlon description",
            found=f"keys {sorted(value) if isinstance(value, dict) else type(value).__name__}",
            allowed='"labels": {"0": "background", …} and "training": [{"image", "label"}, …]',
        )
    return value


def _labels(path: Path, labels: dict) -> dict[int, str]:
    try:
        return {int(value): str(name) for value, name in labels.items()}
    except ValueError as error:
        raise UserError(
            f"{path}: the labels are not coded as the Decathlon codes them",
            found=labels,
            allowed='whole numbers to names, such as {"0": "background", "1": "Anterior"}',
        ) from error


def _inside(folder: Path, name: object) -> Path | None:
    """The file that an entry names, or nothing if the name leaves the data set's folder."""
    pure = PurePosixPath(str(name))
    if not isinstance(name, str) or pure.is_absolute() or ".." in pure.parts:
        return None
    return folder / pure


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:
    """Reads a Decathlon task of 3-D images with one modality.

    Settings: ``modality`` (the description's own is often no modality, such as "MRI"),
    ``skull_stripped``.
    """
    path = folder / "dataset.json"
    description = _description(path)
    label_names = _labels(path, description["labels"])
    problems: list[Problem] = []
    cases: dict[str, Case] = {}
    for entry in description["training"]:
        names = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else ("", "")
        image, label = (_inside(folder, n) for n in names)
        if image is None or label is None:
            problems.append(
                Problem(
                    "error",
                    str(path),
                    "an entry of 'training' does not name two files inside the folder",
                    entry,
                    '{"image": "./imagesTr/NAME.nii.gz", "label": "./labelsTr/NAME.nii.gz"}',
                )
            )
            continue
        case = re.sub(r"\.nii(\.gz)?$", "", image.name)
        for file in (image, label):
            if not file.is_file():
                problems.append(
                    Problem(
                        "error",
                        str(file),
                        "no such file",
                        f"case {case} of dataset.json lacks it",
                        mend="unpack the archive again, or take the entry out of dataset.json",
                    )
                )
        if case in cases:
            problems.append(Problem("error", str(path), "a case is listed twice", case))
        cases[case] = Case(case, case, "1", {settings.modality: image}, label)
    if not cases and not problems:
        problems.append(Problem("error", str(path), "no case is listed under 'training'"))
    names = [n for v, n in sorted(label_names.items()) if v != 0]
    values = [v for v in sorted(label_names) if v != 0]
    roi = settings.get("roi", name)
    group = RoI(roi, tuple((n, (v,)) for n, v in zip(names, values, strict=True)))
    dataset = Dataset(
        name=name,
        cases=tuple(cases[c] for c in sorted(cases)),
        label_names=label_names,
        rois={roi: group},
        skull_stripped=bool(settings.skull_stripped),
        about=f"{description.get('name', folder.name)}: {ABOUT}",
    )
    return dataset, problems
