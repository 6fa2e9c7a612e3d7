"""How data sets lie on disk: one file per layout.

Each has ``read``; ``ABOUT``, what to download; and ``SETTINGS``, the fields that its entry in
``config.datasets`` needs, each with a test of the entry and what is allowed.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.layouts import msd, open_ms, phantom
from jaxfer.errors import Problem, UserError, raise_problems
from jaxfer.tasks import Dataset

LAYOUTS = {"msd": msd, "open_ms": open_ms, "phantom": phantom}
_FOLDER = (lambda s: isinstance(s.folder, str) and s.folder != "", "a folder's name")


def _check(name: str, settings: ConfigDict) -> None:
    problems = []
    for field, (holds, allowed) in {"folder": _FOLDER, **LAYOUTS[settings.layout].SETTINGS}.items():
        try:
            fine = holds(settings)
        except (AttributeError, TypeError):
            fine = False
        if not fine:
            where, found = f"config.datasets.{name}.{field}", settings.get(field)
            problems.append(Problem("error", where, "not allowed", repr(found), allowed))
    raise_problems(problems, f"dataset '{name}': its settings have problems")


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
    _check(name, settings)
    return root / settings.folder


def _missing(name: str, folder: Path, settings: ConfigDict) -> UserError:
    return UserError(
        f"dataset '{name}': its folder is missing",
        found=f"{folder} does not exist",
        allowed=LAYOUTS[settings.layout].ABOUT,
        mend=f"download it and unpack it to {folder}, or name the folder that holds "
        f"'{settings.folder}' with --config.data.root=DIR",
    )


def read_dataset(name: str, settings: ConfigDict, root: Path) -> tuple[Dataset, list[Problem]]:
    """Reads which cases a data set holds, and what is wrong with its files' names and lists.

    Args:
        name: key in ``config.datasets``; becomes the first part of the tasks' names.
        settings: its entry there: ``layout``, ``folder`` and what the layout needs.
        root: ``config.data.root``.

    Raises:
        UserError: the folder is missing, and what to download and where to put it; it cannot be
            read; or it holds no usable case, and why.
    """
    folder = folder_of(name, settings, root)
    layout = LAYOUTS[settings.layout]
    try:
        if not folder.is_dir():
            raise _missing(name, folder, settings)
        dataset, problems = layout.read(name, folder, settings)
    except OSError as error:
        raise UserError(
            f"dataset '{name}': its folder cannot be read",
            found=f"{type(error).__name__}: {error}",
            allowed=layout.ABOUT,
            mend="correct the permissions, or download it again",
        ) from error
    if not dataset.cases:
        raise_problems(problems, f"dataset '{name}': it holds no usable case")
    return dataset, problems
