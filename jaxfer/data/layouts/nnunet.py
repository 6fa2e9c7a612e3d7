"""nnU-Net's raw data: ``imagesTr/CASE_0000.nii.gz``, one file per channel, ``labelsTr``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.layouts import brats
from jaxfer.data.layouts.cases import LABEL, all_labels, by_name, case_of, ordered
from jaxfer.data.layouts.description import channels, read_description
from jaxfer.data.layouts.files import Kinds, entries, images, one_of_each, stem
from jaxfer.data.layouts.settings import MODALITY, ROI, SKULL_STRIPPED, names
from jaxfer.errors import Problem, UserError
from jaxfer.tasks import Case, Dataset, RoI

ABOUT = (
    "a data set in nnU-Net's raw format (nnUNet_raw/DatasetNNN_Name or TaskNNN_Name): "
    "dataset.json, imagesTr/CASE_0000.nii.gz with a number for each channel, labelsTr/CASE.nii.gz"
)
SETTINGS = {"modality": MODALITY, "skull_stripped": SKULL_STRIPPED, "roi": ROI}
_ALLOWED = '{"background": 0, "tumour": 1, "whole": [1, 2], …}, or {"0": "background", …}'
_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class _Labels:
    """Names of the values, the regions, and the ignored values."""

    names: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]]
    ignore: tuple[int, ...]


def _values(value: object) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else [value]
    if not listed or not all(type(v) is int and v >= 0 for v in listed):
        raise ValueError(f"{value} is no label value")
    return tuple(sorted(set(listed)))


def _groups(labels: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """Label values by name. The first version codes them the other way round."""
    if "0" in labels:
        return {str(name): (int(value),) for value, name in labels.items()}
    return {str(name): _values(value) for name, value in labels.items()}


def _labels(path: Path, labels: object) -> _Labels:
    try:
        groups = _groups(labels) if isinstance(labels, Mapping) else {}
    except ValueError:
        groups = {}
    if isinstance(labels, Mapping) and len(groups) < len(labels):
        groups = {}  # two values of one name
    backgrounds = [n for n, values in groups.items() if values == (0,)]
    if len(backgrounds) != 1 or len(groups) < 2:
        raise UserError(
            f"{path}: the labels are not coded as nnU-Net codes them",
            found=labels,
            allowed=_ALLOWED,
            mend="correct 'labels' in dataset.json",
        )
    known = {v: str(v) for values in groups.values() for v in values}
    known |= {values[0]: name for name, values in groups.items() if len(values) == 1}
    regions = {name: values for name, values in groups.items() if len(values) > 1}
    return _Labels(known, regions, groups.get("ignore", ()))


def _ending(path: Path, ending: object) -> None:
    if ending is not None and stem(f"case{ending}") is None:
        raise UserError(
            f"{path}: files of this kind are not read",
            found=f'"file_ending": {ending!r}',
            allowed=".nii.gz, .nii",
            mend="convert the images, and correct 'file_ending'",
        )


def _folder(folder: Path, name: str) -> Path:
    found = [e for e in entries(folder) if e.is_dir() and e.name.lower() == name.lower()]
    if not found:
        raise UserError(f"{folder / name}: no such folder", allowed=ABOUT)
    return found[0]


def _cases(folder: Path, modality: Sequence[str], problems: list[Problem]) -> list[Case]:
    by_case: dict[str, Kinds] = {}
    odd: list[Path] = []
    train = _folder(folder, "imagesTr")
    for name, files in images(train, lambda n: n).items():
        parts = _CHANNEL.fullmatch(name)
        if parts and int(parts[2]) < len(modality):
            kinds = by_case.setdefault(parts[1], {})
            kinds.setdefault(modality[int(parts[2])], []).extend(files)
        else:
            odd += files
    for file in odd:
        what, allowed = "its name has no channel of the configuration", "CASE_0000, CASE_0001, …"
        mend = f"'modality' names {len(modality)} channel(s)"
        problems.append(Problem("error", str(file), what, file.name, allowed, mend))
    label_folder = _folder(folder, "labelsTr")
    for name, files in images(label_folder, lambda n: n).items():
        by_case.setdefault(name, {}).setdefault(LABEL, []).extend(files)
    return [case_of(case, one_of_each(kinds, folder, problems)) for case, kinds in by_case.items()]


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:
    """Reads the training cases of either version of ``dataset.json``.

    Regions (lists of label values) become RoIs of one class; the label ``ignore`` is ignored.

    Settings: ``modality``, one or one per channel; ``skull_stripped``; ``roi``.
    """
    path = folder / "dataset.json"
    description = read_description(path, ABOUT)
    labels = _labels(path, description.get("labels"))
    _ending(path, description.get("file_ending"))
    modality = names(settings.modality)
    declared = description.get("channel_names", description.get("modality"))
    problems = channels(path, declared, modality)
    cases = _cases(folder, modality, problems)
    expected = description.get("numTraining")
    if isinstance(expected, int) and expected != len(cases):
        what = f"it announces {expected} cases, {len(cases)} are there"
        problems.append(Problem("warning", str(path), what, mend="unpack the download again"))
    called = str(description.get("name", folder.name))
    everything = all_labels(settings.get("roi", name), labels.names, labels.ignore)
    regions = [RoI(n, ((n, values),)) for n, values in labels.regions.items()]
    dataset = Dataset(
        name=name,
        cases=ordered(folder, cases, modality, problems),
        label_names=labels.names,
        rois=by_name(everything, *regions),
        skull_stripped=bool(settings.skull_stripped),
        about=f"{called}: {ABOUT}",
        family=brats.FAMILY if "brats" in called.lower() else "",
        ignore=labels.ignore,
    )
    return dataset, problems
