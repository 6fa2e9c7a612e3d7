"""iSeg-2017 and iSeg-2019: infant brains at six months, as Analyze pairs in one folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jaxfer.data.layouts.cases import LABEL, by_name, case_of, merged, ordered
from jaxfer.data.layouts.files import Kinds, folders, images, one_of_each
from jaxfer.data.layouts.settings import Setting
from jaxfer.data.nifti import read_volume
from jaxfer.errors import Problem, UserError
from jaxfer.tasks import Case, Dataset, RoI

ABOUT = (
    "the training data of iSeg-2017 (iseg2017.web.unc.edu) or iSeg-2019 (iseg2019.web.unc.edu), "
    "after registration; terms of the challenge: subject-N-T1, -T2 and -label, .hdr and .img"
)
SETTINGS: dict[str, Setting] = {}
_NAME = re.compile(r"(subject[-_]\d+)[-_](T1|T2|label)", re.IGNORECASE)
_TISSUES = ("CSF", "GM", "WM")
_CODINGS = ((10, 150, 250), (1, 2, 3))
"""Values of the tissues: 2017's, and those that some of the releases of 2019 have."""


def _by_case(folder: Path) -> dict[str, Kinds]:
    """The images of a folder by case and kind."""
    by_case: dict[str, Kinds] = {}
    for name, files in images(folder, lambda n: n if _NAME.fullmatch(n) else None).items():
        parts = _NAME.fullmatch(name)
        assert parts
        kind = LABEL if parts[2].lower() == "label" else parts[2].lower()
        case = parts[1].lower().replace("_", "-")
        by_case.setdefault(case, {}).setdefault(kind, []).extend(files)
    return by_case


def _coding(cases: Sequence[Case], problems: list[Problem]) -> tuple[int, ...]:
    """The values of the tissues, from the first label map that tells them.

    The years' codings are not documented well enough to go by the year. That the other label maps
    keep to it is for verification to find out.
    """
    for case in cases:
        try:
            values = np.unique(read_volume(case.label)).tolist() if case.label else []
        except UserError:
            continue
        fitting = [coding for coding in _CODINGS if {0, *coding} >= set(values)]
        if len(fitting) == 1:
            return fitting[0]
        if not fitting:
            found = ", ".join(f"{v:g}" for v in values[:8])
            what = "the label values are of neither coding of iSeg"
            allowed = "exactly 0, 10, 150, 250, or exactly 0, 1, 2, 3"
            problems.append(Problem("error", str(case.label), what, found, allowed))
            break
    return _CODINGS[0]


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:  # noqa: ARG001
    """Reads every subject in the folder, or in folders in it: some archives nest it twice."""
    problems: list[Problem] = []
    cases: list[Case] = []
    for place in folders(folder):
        for case, found in _by_case(place).items():
            cases.append(case_of(case, one_of_each(found, place, problems)))
    if not cases:
        problems.append(Problem("error", str(folder), "no case", "no subject-N-T1", ABOUT))
    whole = ordered(folder, cases, ("t1", "t2"), problems)
    csf, gm, wm = _coding(whole, problems)
    tissues = tuple((n, (v,)) for n, v in zip(_TISSUES, (csf, gm, wm), strict=True))
    dataset = Dataset(
        name=name,
        cases=whole,
        label_names={0: "background", csf: "CSF", gm: "GM", wm: "WM"},
        rois=by_name(RoI("tissue", tissues), merged("brain_matter", gm, wm)),
        skull_stripped=True,
        about=ABOUT,
        family="iSeg",
    )
    return dataset, problems
