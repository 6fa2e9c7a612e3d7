"""How data sets lie on disk: one file per layout, each with a function ``read``."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.layouts import msd, open_ms, phantom
from jaxfer.errors import Problem, UserError
from jaxfer.tasks import Dataset

LAYOUTS = {"msd": msd, "open_ms": open_ms, "phantom": phantom}


def folder_of(name: str, settings: ConfigDict, root: Path) -> Path:
    """The folder that a data set of the configuration lies in."""
    if settings.get("layout") not in LAYOUTS:
        raise UserError(
            f"config.datasets.{name}.layout: unknown layout",
            found=settings.get("layout"),
            allowed=", ".join(sorted(LAYOUTS)),
        )
    return root / settings.folder


def read_dataset(name: str, settings: ConfigDict, root: Path) -> tuple[Dataset, list[Problem]]:
    """Reads which cases a data set holds, and what is wrong with its files' names and lists.

    Args:
        name: key in ``config.datasets``; becomes the first part of the tasks' names.
        settings: its entry there: ``layout``, ``folder`` and what the layout needs.
        root: ``config.data.root``.

    Raises:
        UserError: the folder is missing; says what to download and where to put it.
    """
    folder = folder_of(name, settings, root)
    layout = LAYOUTS[settings.layout]
    if not folder.is_dir():
        raise UserError(
            f"dataset '{name}': its folder is missing",
            found=f"{folder} does not exist",
            allowed=layout.ABOUT,
            mend=f"download it and unpack it to {folder}, or name the folder that holds "
            f"'{settings.folder}' with --config.data.root=DIR",
        )
    return layout.read(name, folder, settings)
