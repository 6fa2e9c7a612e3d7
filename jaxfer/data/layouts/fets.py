"""FeTS 2021 and 2022: BraTS cases, and tables that tell which institution each is from."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.layouts.brats import ET_IS_4, FAMILY, MODALITIES, UNDERSCORES
from jaxfer.data.layouts.cases import by_folder, case_of, ordered, some
from jaxfer.data.layouts.files import ends_in, entries, folders
from jaxfer.data.layouts.settings import Setting
from jaxfer.errors import Problem
from jaxfer.files import read_text
from jaxfer.tasks import Case, Dataset

ABOUT = (
    "the training data of the FeTS challenge 2021 or 2022 (synapse.org, after registration; terms "
    "of the challenge): MICCAI_FeTS2021_TrainingData or MICCAI_FeTS2022_TrainingData, as unpacked"
)
SETTINGS = {
    "partition": Setting(
        lambda s: isinstance(s.partition, str) and "/" not in s.partition,
        "the name of a table in the folder, such as 'partitioning_1.csv'; '' = one site, '1'",
    )
}
_COLUMNS = ("subject_id", "partition_id")
_UNKNOWN = "unknown"
"""Site of the cases of partition −1, and of those that the table does not list."""


def _table(folder: Path, name: str) -> Path | None:
    places = (e for place in folders(folder, 1) for e in entries(place))
    return next((e for e in places if e.name.lower() == name.lower()), None)


def _institution(text: str) -> str | None:
    """'1' and '01' are one institution; None: no number."""
    try:
        number = int(text)
    except ValueError:
        return None
    return f"{number:02d}" if number >= 0 else _UNKNOWN


def _rows(path: Path, problems: list[Problem]) -> Sequence[Mapping[str, str]]:
    """The table's rows by the names of its columns, whose order differs from year to year."""
    try:
        table = csv.reader(io.StringIO(read_text(path), newline=""))
        head = [column.strip().lower() for column in next(table, [])]
        rows = [dict(zip(head, (v.strip() for v in row), strict=False)) for row in table if row]
    except (OSError, ValueError, csv.Error) as error:
        what = "not a readable table"
        problems.append(Problem("error", str(path), what, str(error), "comma-separated text"))
        return []
    if any(head.count(column) != 1 for column in _COLUMNS):
        what, mend = "its columns are not those of a partition", "download the table again"
        found, allowed = ", ".join(head), "Subject_ID and Partition_ID, in any order"
        problems.append(Problem("error", str(path), what, found, allowed, mend))
        return []
    return rows


def institutions(path: Path, problems: list[Problem]) -> dict[str, str]:
    """Site of every subject of a partition table; the subjects' names in lower case.

    Args:
        path: of the table.
        problems: is added to.
    """
    sites: dict[str, str] = {}
    for row in _rows(path, problems):
        subject, text = (row.get(column, "") for column in _COLUMNS)
        site = _institution(text)
        if not subject or site is None:
            what, allowed = "a row without subject or institution", "a name and a whole number"
            problems.append(Problem("error", str(path), what, dict(row), allowed))
        elif sites.setdefault(subject.lower(), site) != site:
            what, found = "a subject of two institutions", f"{subject}: {sites[subject.lower()]}"
            problems.append(Problem("error", str(path), what, f"{found} and {site}", "one"))
    return sites


def _with_sites(path: Path, cases: Sequence[Case], problems: list[Problem]) -> list[Case]:
    before = len(problems)
    sites = institutions(path, problems)
    sound = len(problems) == before
    unlisted = [c.id for c in cases if c.id.lower() not in sites]
    if unlisted and sound:
        severity = "error" if len(unlisted) == len(cases) else "warning"
        what = f"it does not list {len(unlisted)} case(s): their site is '{_UNKNOWN}'"
        mend = "take the table of this very download"
        problems.append(
            Problem(severity, str(path), what, some(unlisted), "every case's folder", mend)
        )
    absent = sorted(sites.keys() - {c.id.lower() for c in cases})
    if absent and sound:
        what = f"{len(absent)} of its subjects have no folder"
        problems.append(
            Problem("warning", str(path), what, some(absent), "a folder each", "unpack it again")
        )
    return [replace(c, site=sites.get(c.id.lower(), _UNKNOWN)) for c in cases]


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:
    """Reads every case folder; the sites are the institutions of the partition table.

    Settings: ``partition``. Sites are numbers of two digits at least, '01'; a number is not the
    same institution in 2021 and in 2022.
    """
    problems: list[Problem] = []
    found = by_folder(folder, ends_in(UNDERSCORES), problems)
    cases = [case_of(case, files) for case, _, files in found]
    if not cases:
        problems.append(Problem("error", str(folder), "no case", "no folder of images", ABOUT))
    elif settings.partition:
        path = _table(folder, settings.partition)
        if path is None:
            mend = "download it, or set 'partition' to '' if the sites do not matter"
            where = str(folder / settings.partition)
            problems.append(Problem("error", where, "no such table", None, ABOUT, mend))
        else:
            cases = _with_sites(path, cases, problems)
    dataset = Dataset(
        name=name,
        cases=ordered(folder, cases, MODALITIES, problems),
        label_names=ET_IS_4.label_names,
        rois=ET_IS_4.rois,
        skull_stripped=True,
        about=ABOUT,
        family=FAMILY,
    )
    return dataset, problems
