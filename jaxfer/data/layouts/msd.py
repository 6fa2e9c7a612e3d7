"""Medical Segmentation Decathlon: ``dataset.json``, ``imagesTr/``, ``labelsTr/``."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

from ml_collections import ConfigDict

from jaxfer.errors import Problem, UserError
from jaxfer.tasks import Case, Dataset, Image, RoI

ABOUT = (
    "the Medical Segmentation Decathlon (medicaldecathlon.com, CC BY-SA 4.0), "
    "one TaskNN_Name folder with dataset.json, imagesTr and labelsTr"
)
SETTINGS = {
    "modality": (lambda s: isinstance(s.modality, str) and s.modality != "", "text, such as 't1'"),
    "skull_stripped": (lambda s: isinstance(s.skull_stripped, bool), "True or False"),
}
_IMAGE = re.compile(r"([^.].*)\.nii(\.gz)?")


def _description(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file", allowed=ABOUT) from error
    except (OSError, ValueError, RecursionError) as error:
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
        names = {int(value): str(name) for value, name in labels.items()}
    except ValueError:
        names = {}
    if 0 not in names or len(names) < 2:
        raise UserError(
            f"{path}: the labels are not coded as the Decathlon codes them",
            found=labels,
            allowed='whole numbers to names, such as {"0": "background", "1": "Anterior"}',
            mend="correct 'labels' in dataset.json",
        )
    return names


def _inside(folder: Path, name: object) -> Path | None:
    """The image that an entry names, or nothing: it is none, or leaves the data set's folder."""
    if not isinstance(name, str) or not name.isprintable():
        return None
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not _IMAGE.fullmatch(pure.name):
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
        if case in cases:
            problems.append(
                Problem(
                    "error",
                    str(path),
                    "a case is listed twice",
                    case,
                    "one entry of 'training' per case",
                    "take one of the entries out of dataset.json",
                )
            )
        cases[case] = Case(case, case, "1", {settings.modality: Image(image)}, label)
    if not cases and not problems:
        problems.append(Problem("error", str(path), "no case is listed under 'training'"))
    roi = settings.get("roi", name)
    group = RoI(roi, tuple((n, (v,)) for v, n in sorted(label_names.items()) if v != 0))
    dataset = Dataset(
        name=name,
        cases=tuple(cases[c] for c in sorted(cases)),
        label_names=label_names,
        rois={roi: group},
        skull_stripped=bool(settings.skull_stripped),
        about=f"{description.get('name', folder.name)}: {ABOUT}",
    )
    return dataset, problems
