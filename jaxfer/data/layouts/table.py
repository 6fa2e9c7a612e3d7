"""Any data set, by a table: a row for each case, with the paths of its images."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.layouts.cases import LABEL, all_labels, by_name, case_of, ordered
from jaxfer.data.layouts.description import inside
from jaxfer.data.layouts.settings import MODALITY, ROI, SKULL_STRIPPED, Setting, names
from jaxfer.errors import Problem, UserError
from jaxfer.files import read_text
from jaxfer.tasks import NAMES, Case, Dataset, RoI, wrong_name

ABOUT = (
    "your own scans: a folder with a table (comma-separated) of the columns case, subject, site, "
    "label, and one for each modality, which hold the files' paths from the folder on"
)
_COLUMNS = ("case", "subject", "site", "label")


def _label_values(labels: Mapping[str, int]) -> bool:
    values = [v for v in labels.values() if type(v) is int and v > 0]
    return 0 < len(values) == len(labels) == len(set(values))


SETTINGS = {
    "file": Setting(
        lambda s: isinstance(s.file, str) and s.file != "" and "/" not in s.file,
        "the table's name, such as 'cases.csv'",
    ),
    "modality": MODALITY,
    "labels": Setting(
        lambda s: _label_values(s.labels.to_dict()),
        "names to label values, such as {'core': 1, 'rim': 2}; 0 is the background",
    ),
    "rois": Setting(
        lambda s: all(
            len(names(g)) > 0 and set(names(g)) <= set(s.labels) - set(s.get("ignore", ()))
            for g in s.rois.values()
        ),
        "names to labels that are one class together, none of them ignored, such as "
        "{'whole': ('core', 'rim')}",
        required=False,
    ),
    "ignore": Setting(
        lambda s: isinstance(s.ignore, tuple) and set(s.ignore) < set(s.labels),
        "names of labels, not all of them, that are neither background nor anything to learn",
        required=False,
    ),
    "skull_stripped": SKULL_STRIPPED,
    "roi": ROI,
}


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows by column.

    Raises:
        UserError: the table is not readable, or lacks a column.
    """
    try:
        table = csv.reader(io.StringIO(read_text(path), newline=""))
        head = [column.strip() for column in next(table, [])]
        rows = [[v.strip() for v in row] for row in table if any(v.strip() for v in row)]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such table", allowed=ABOUT) from error
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a readable table", found=str(error), allowed=ABOUT) from error
    missing = [c for c in columns if head.count(c) != 1]
    if missing:
        raise UserError(
            f"{path}: the table's columns",
            found=", ".join(head),
            allowed=f"once each: {', '.join(columns)}",
            mend="save it as comma-separated text, or correct 'modality' in config.datasets",
        )
    if longer := [number for number, row in enumerate(rows, 1) if any(row[len(head) :])]:
        raise UserError(
            f"{path}: rows with more cells than the table has columns",
            found=f"row {longer[0]} below the head, {len(longer)} in all",
            allowed=f"{len(head)} cells",
            mend="put text that holds a comma in quotation marks",
        )
    return [dict(zip(head, row + [""] * len(head), strict=False)) for row in rows]


def _case(
    where: Path, row: Mapping[str, str], modality: tuple[str, ...], problems: list[Problem]
) -> Case | None:
    empty = [column for column in ("case", "subject", "site") if not row[column]]
    name = row["case"]
    if empty or wrong_name(name):
        what, allowed = "a row without a usable name", f"case, subject and site; {NAMES}"
        problems.append(Problem("error", str(where), what, dict(row), allowed))
        return None
    files = {}
    for column in (*modality, "label"):
        if not row[column]:
            continue
        file = inside(where.parent, row[column])
        if file is None:
            what, allowed = f"{name}: a path that is not used", "images below the table's folder"
            problems.append(Problem("error", str(where), what, row[column], allowed))
        else:
            files[LABEL if column == "label" else column] = file
    return case_of(name, files, subject=row["subject"], site=row["site"])


def read(name: str, folder: Path, settings: ConfigDict) -> tuple[Dataset, list[Problem]]:
    """Reads the rows of a table; an empty path is a modality, or a label map, that is not there.

    Settings: ``file``, ``modality`` (the columns to read), ``labels``, ``rois``, ``ignore``,
    ``skull_stripped``, ``roi``.
    """
    path = folder / settings.file
    modality = names(settings.modality)
    problems: list[Problem] = []
    found = [_case(path, row, modality, problems) for row in _rows(path, (*_COLUMNS, *modality))]
    cases = [case for case in found if case is not None]
    if not cases:
        problems.append(Problem("error", str(path), "no usable row", None, ABOUT))
    values = settings.labels.to_dict()
    ignore = tuple(values[n] for n in settings.get("ignore", ()))
    label_names = {0: "background"} | {v: n for n, v in values.items()}
    groups = {
        group: tuple(values[n] for n in names(members))
        for group, members in settings.get("rois", {}).items()
    }
    everything = all_labels(settings.get("roi", name), label_names, ignore)
    dataset = Dataset(
        name=name,
        cases=ordered(path, cases, modality, problems),
        label_names=label_names,
        rois=by_name(everything, *(RoI(n, ((n, v),)) for n, v in groups.items())),
        skull_stripped=bool(settings.skull_stripped),
        about=ABOUT,
        ignore=ignore,
    )
    return dataset, problems
