"""BraTS, adult glioma: one folder per case; suffixes and label values depend on the year."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.layouts.cases import LABEL, by_folder, by_name, case_of, merged, ordered
from jaxfer.data.layouts.files import ends_in
from jaxfer.data.layouts.settings import one_of
from jaxfer.errors import Problem
from jaxfer.tasks import Case, Dataset, RoI

ABOUT = (
    "the training data of a BraTS challenge (synapse.org, after registration; terms of the "
    "challenge): one folder per case with four images and a segmentation"
)
FAMILY = "BraTS"
"""Later years hold the patients of earlier ones, FeTS those of BraTS."""
MODALITIES = ("t1", "t1ce", "t2", "flair")

Suffixes = Mapping[str, tuple[str, ...]]
# 'segm': one case of BraTS 2020 (355) is spread with its mask under the name W39_…_Segm.nii.
UNDERSCORES = {m: (m,) for m in MODALITIES} | {LABEL: ("seg", "segm")}
_HYPHENS = {"t1": ("t1n",), "t1ce": ("t1c",), "t2": ("t2w",), "flair": ("t2f",), LABEL: ("seg",)}


@dataclass(frozen=True)
class Coding:
    """What the label values of a year mean."""

    label_names: Mapping[int, str]
    rois: Mapping[str, RoI]


def _coding(label_names: Mapping[int, str]) -> Coding:
    """The challenge's regions of a coding, WT and TC, and the classes of a tumour."""
    value = {name: v for v, name in label_names.items()}
    core, oedema, enhancing = 1, 2, value["ET"]
    classes = tuple((label_names[v], (v,)) for v in (core, oedema, enhancing))
    return Coding(
        label_names,
        by_name(
            merged("WT", core, oedema, enhancing),
            merged("TC", core, enhancing),
            RoI("tumour", classes),
        ),
    )


ET_IS_4 = _coding({0: "background", 1: "NCR", 2: "ED", 4: "ET"})
_ET_IS_3 = _coding({0: "background", 1: "NCR", 2: "ED", 3: "ET"})
# After surgery: 4 is the resection cavity, which belongs to no region of the tumour.
_POST_OPERATIVE = _coding({0: "background", 1: "NETC", 2: "SNFH", 3: "ET", 4: "RC"})
_YEARS: dict[int, tuple[Suffixes, Coding]] = {
    2019: (UNDERSCORES, ET_IS_4),
    2020: (UNDERSCORES, ET_IS_4),
    2021: (UNDERSCORES, ET_IS_4),
    2023: (_HYPHENS, _ET_IS_3),
    2024: (_HYPHENS, _POST_OPERATIVE),
}
SETTINGS = {"year": one_of("year", *_YEARS)}


def _case(name: str, files: Mapping[str, Path], year: int) -> Case:
    """The case with the subject and the site that its name tells."""
    if year == 2019 and (parts := re.fullmatch(r"(BraTS19_([^_]+)_.+)_\d+", name)):
        return case_of(name, files, subject=parts[1], site=parts[2])
    # The last number counts the scans of one person.
    if year >= 2023 and (parts := re.fullmatch(r"(.+)-\d+", name)):
        return case_of(name, files, subject=parts[1])
    return case_of(name, files)


def _other_names(folder: Path, year: int) -> Problem | None:
    """What to tell when the files are named as those of other years."""
    suffixes = _HYPHENS if _YEARS[year][0] is UNDERSCORES else UNDERSCORES
    if not any(by_folder(folder, ends_in(suffixes), [])):
        return None
    years = ", ".join(str(y) for y, (named, _) in _YEARS.items() if named is suffixes)
    endings = ", ".join(end for ends in _YEARS[year][0].values() for end in ends)
    what = f"its files are named as those of {years}, not of {year}"
    mend = "correct 'year' in config.datasets: it decides what the label values mean"
    return Problem("error", str(folder), what, None, f"names that end in {endings}", mend)


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:
    """Reads every case folder, at whatever depth.

    Settings: ``year``. The enhancing tumour is 4 until 2021 and 3 from 2023; in 2024 4 is the
    resection cavity. A value that the year does not know is an error of verification.
    """
    suffixes, coding = _YEARS[settings.year]
    problems: list[Problem] = []
    found = by_folder(folder, ends_in(suffixes), problems)
    cases = [_case(case, files, settings.year) for case, _, files in found]
    if not any(case.images for case in cases):
        cases = []
        known = Problem("error", str(folder), "no case", "no folder with such files", ABOUT)
        problems.append(_other_names(folder, settings.year) or known)
    dataset = Dataset(
        name=name,
        cases=ordered(folder, cases, MODALITIES, problems),
        label_names=coding.label_names,
        rois=coding.rois,
        skull_stripped=True,
        about=f"BraTS {settings.year}: {ABOUT}",
        family=FAMILY,
    )
    return dataset, problems
