"""MRBrainS13 and MRBrainS18: ageing brains, thick slices; some images are on another grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.layouts.cases import LABEL, by_folder, by_name, by_visit, case_of, merged, ordered
from jaxfer.data.layouts.files import entries, folders, is_named
from jaxfer.data.layouts.settings import PROCESSING, Setting, one_of
from jaxfer.errors import Problem
from jaxfer.tasks import Case, Dataset, RoI

ABOUT = (
    "MRBrainS13 (DataverseNL, doi:10.34894/645ZIN; NIfTI release) or MRBrainS18 (DataverseNL, "
    "doi:10.34894/E0U32Q), terms of use on their pages, as unpacked"
)
_MODALITIES = ("t1", "ir", "flair")
# What else lies there, T1_1mm in 2013, T1 and IR in 2018, is not on the grid of the labels.
_FILES_2013 = {"t1": "T1", "ir": "T1_IR", "flair": "T2_FLAIR"}
_FILES_2018 = {"t1": "reg_T1", "ir": "reg_IR", "flair": "FLAIR"}
_LABEL_FILES = {2013: ("LabelsForTraining", "LabelsForTesting"), 2018: ("segm",)}
SETTINGS = {
    "year": one_of("year", *_LABEL_FILES),
    "label_file": Setting(
        lambda s: s.label_file in _LABEL_FILES[s.year],
        "LabelsForTraining (eight structures) or LabelsForTesting (three tissues) in 2013, "
        "segm in 2018",
    ),
    "images": replace(PROCESSING, required=False),
}
_STRUCTURES = {
    0: "background",
    1: "cortical GM",
    2: "basal ganglia",
    3: "WM",
    4: "WM lesions",
    5: "extracerebral CSF",
    6: "ventricles",
    7: "cerebellum",
    8: "brain stem",
}
_IGNORED = {9: "infarction", 10: "other"}
_TISSUES = {0: "background", 1: "CSF", 2: "GM", 3: "WM"}
# Values of CSF, GM and WM in a label file.
_CODINGS = {
    "LabelsForTraining": (_STRUCTURES, ((5, 6), (1, 2), (3, 4))),
    "LabelsForTesting": (_TISSUES, ((1,), (2,), (3,))),
    "segm": (_STRUCTURES | _IGNORED, ((5, 6), (1, 2), (3, 4))),
}


def _rois(csf: tuple[int, ...], gm: tuple[int, ...], wm: tuple[int, ...]) -> dict[str, RoI]:
    """The challenges' three tissues, and brain matter; cerebellum and brain stem are in neither."""
    tissue = RoI("tissue", (("CSF", csf), ("GM", gm), ("WM", wm)))
    return by_name(tissue, merged("brain_matter", *gm, *wm))


def _cases(folder: Path, settings: ConfigDict, problems: list[Problem]) -> list[Case]:
    label = settings.label_file
    if settings.year == 2013:
        found = by_folder(folder, is_named(_FILES_2013 | {LABEL: label}), problems)
    else:
        found = by_visit(
            folder, settings.get("images", "pre"), is_named(_FILES_2018), label, problems
        )
    # Folder 1 of the training part and folder 1 of the test part are two people.
    return [
        case_of(f"{place.parent.name}-{name}", files, site="utrecht")
        for name, place, files in found
    ]


def _nothing(folder: Path) -> Problem:
    if any(p.suffix.lower() == ".mhd" for place in folders(folder) for p in entries(place)):
        what, mend = "it holds MetaImage files, which are not read", "download the NIfTI release"
        return Problem("error", str(folder), what, "*.mhd", ABOUT, mend)
    return Problem("error", str(folder), "no case", "no folder of images", ABOUT)


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:
    """Reads every numbered folder, of the training and of the test part.

    Settings: ``year``; ``label_file``, which decides what there is to segment; ``images``, of
    2018 alone, 'pre' (bias-corrected) or 'orig'.
    """
    problems: list[Problem] = []
    cases = _cases(folder, settings, problems)
    if not cases:
        problems.append(_nothing(folder))
    label_names, tissues = _CODINGS[settings.label_file]
    dataset = Dataset(
        name=name,
        cases=ordered(folder, cases, _MODALITIES, problems),
        label_names=label_names,
        rois=_rois(*tissues),
        skull_stripped=False,
        about=f"MRBrainS {settings.year}: {ABOUT}",
        ignore=tuple(v for v in _IGNORED if v in label_names),
    )
    return dataset, problems
