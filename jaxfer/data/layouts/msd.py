"""Medical Segmentation Decathlon: ``dataset.json``, ``imagesTr/``, ``labelsTr/``."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.layouts import brats
from jaxfer.data.layouts.cases import all_labels, by_name
from jaxfer.data.layouts.description import as_channels, channels, inside, read_description
from jaxfer.data.layouts.files import stem
from jaxfer.data.layouts.settings import MODALITY, ROI, SKULL_STRIPPED, names
from jaxfer.errors import Problem, UserError
from jaxfer.tasks import Case, Dataset

ABOUT = (
    "the Medical Segmentation Decathlon (medicaldecathlon.com, CC BY-SA 4.0), "
    "one TaskNN_Name folder with dataset.json, imagesTr and labelsTr"
)
SETTINGS = {"modality": MODALITY, "skull_stripped": SKULL_STRIPPED, "roi": ROI}


def _description(path: Path) -> dict:
    value = read_description(path, ABOUT)
    if not isinstance(value.get("training"), list) or not isinstance(value.get("labels"), dict):
        raise UserError(
            f"{path}: not a Decathlon description",
            found=f"keys {sorted(value)}",
            allowed='"labels": {"0": "background", …} and "training": [{"image", "label"}, …]',
        )
    return value


def _labels(path: Path, labels: dict) -> dict[int, str]:
    try:
        found = {int(value): str(name) for value, name in labels.items()}
    except ValueError:
        found = {}
    if 0 not in found or len(found) < 2:
        raise UserError(
            f"{path}: the labels are not coded as the Decathlon codes them",
            found=labels,
            allowed='whole numbers to names, such as {"0": "background", "1": "Anterior"}',
            mend="correct 'labels' in dataset.json",
        )
    return found


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:
    """Reads a Decathlon task of 3-D images, or of 4-D ones with a modality in each channel.

    Settings: ``modality``, one or one per channel (the description's own is often none, such as
    "MRI"), ``skull_stripped``, ``roi``.
    """
    path = folder / "dataset.json"
    description = _description(path)
    label_names = _labels(path, description["labels"])
    modality = names(settings.modality)
    problems = channels(path, description.get("modality"), modality)
    cases: dict[str, Case] = {}
    for entry in description["training"]:
        pair = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else ("", "")
        image, label = (inside(folder, file) for file in pair)
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
        case = str(stem(image.name))
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
        cases[case] = Case(case, case, "1", as_channels(image, modality), label)
    if not cases and not problems:
        problems.append(Problem("error", str(path), "no case is listed under 'training'"))
    roi = all_labels(settings.get("roi", name), label_names)
    called = str(description.get("name", folder.name))
    dataset = Dataset(
        name=name,
        cases=tuple(cases[c] for c in sorted(cases)),
        label_names=label_names,
        rois=by_name(roi),
        skull_stripped=bool(settings.skull_stripped),
        about=f"{called}: {ABOUT}",
        family=brats.FAMILY if "brats" in called.lower() else "",
    )
    return dataset, problems
