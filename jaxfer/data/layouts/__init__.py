"""How data sets lie on disk: one file per layout.

Each has ``read``; ``ABOUT``, what to download; and ``SETTINGS``, the fields that its entry in
``config.datasets`` may hold beside those that every layout has.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.layouts import (
    brats,
    fets,
    heads,
    iseg,
    mrbrains,
    msd,
    nnunet,
    open_ms,
    phantom,
    table,
    wmh,
)
from jaxfer.data.layouts.settings import check
from jaxfer.errors import Problem, UserError, raise_problems
from jaxfer.tasks import LARGEST_LABEL, NAMES, Dataset, wrong_name

LAYOUTS = {
    "brats": brats,
    "fets": fets,
    "heads": heads,
    "iseg": iseg,
    "mrbrains": mrbrains,
    "msd": msd,
    "nnunet": nnunet,
    "open_ms": open_ms,
    "phantom": phantom,
    "table": table,
    "wmh": wmh,
}


def check_entries(datasets: ConfigDict) -> None:
    """Checks every entry of ``config.datasets``, used or not.

    Raises:
        UserError: settings are missing, unknown or not allowed; lists those of all entries.
    """
    problems: list[Problem] = []
    for name, entry in datasets.items():
        if entry.get("layout") in LAYOUTS:
            problems += check(name, entry, LAYOUTS[entry.layout].SETTINGS)
    raise_problems(problems, "the data sets' settings have problems")


def folder_of(name: str, settings: ConfigDict, root: Path) -> Path:
    """The folder that a data set of the configuration lies in.

    Raises:
        UserError: the layout is unknown, or it needs other settings; lists all of them.
    """
    if settings.get("layout") not in LAYOUTS:
        raise UserError(
            f"config.datasets.{name}.layout: unknown layout",
            found=settings.get("layout"),
            allowed=", ".join(sorted(LAYOUTS)),
        )
    problems = check(name, settings, LAYOUTS[settings.layout].SETTINGS)
    raise_problems(problems, f"dataset '{name}': its settings have problems")
    return root / settings.folder


def _declared(dataset: Dataset) -> list[Problem]:
    """Label values and names that a data set's files declare, and that cannot be used."""
    names = {*dataset.label_names.values(), *dataset.rois}
    where, mend = f"dataset '{dataset.name}'", "correct the data set's description"
    problems = [
        Problem("error", where, "the name of a label", repr(name), NAMES, mend)
        for name in sorted(names)
        if wrong_name(name)
    ]
    values = [v for v in dataset.label_names if not 0 <= v <= LARGEST_LABEL]
    if values:
        allowed = f"0 to {LARGEST_LABEL}"
        problems.append(Problem("error", where, "values of labels", values[:8], allowed, mend))
    return problems


def _missing(name: str, folder: Path, settings: ConfigDict) -> UserError:
    return UserError(
        f"dataset '{name}': its folder is missing",
        found=f"{folder} does not exist",
        allowed=LAYOUTS[settings.layout].ABOUT,
        mend=f"download it and unpack it to {folder}, or name the folder that holds "
        f"'{settings.folder}' with --config.data.root=DIR",
    )


def read_dataset(
    name: str, settings: ConfigDict, root: Path, scans: Path | None = None
) -> tuple[Dataset, list[Problem]]:
    """Reads which cases a data set holds, and what is wrong with its files' names and lists.

    Args:
        name: key in ``config.datasets``; becomes the first part of the tasks' names.
        settings: its entry there: ``layout``, ``folder`` and what the layout needs.
        root: ``config.data.root``.
        scans: folder of the scans that the run makes of label maps; None: the label maps' own.

    Raises:
        UserError: the folder is missing, and what to download and where to put it; it cannot be
            read; or it holds no usable case, and why.
    """
    folder = folder_of(name, settings, root)
    layout = LAYOUTS[settings.layout]
    try:
        if not folder.is_dir():
            raise _missing(name, folder, settings)
        if layout is heads:
            dataset, problems = heads.read(name, folder, settings, scans or folder)
        else:
            dataset, problems = layout.read(name, folder, settings)
    except OSError as error:
        raise UserError(
            f"dataset '{name}': its folder cannot be read",
            found=f"{type(error).__name__}: {error}",
            allowed=layout.ABOUT,
            mend="correct the permissions, or download it again",
        ) from error
    problems = [*problems, *_declared(dataset)]
    if not dataset.cases:
        raise_problems(problems, f"dataset '{name}': it holds no usable case")
    return dataset, problems
