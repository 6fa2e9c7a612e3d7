"""What the layouts with a ``dataset.json`` share: reading it, paths in it, names of channels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jaxfer.data.layouts.files import stem
from jaxfer.errors import Problem, UserError
from jaxfer.files import read_json
from jaxfer.tasks import Image

_CALLED = {
    "t1": ("t1", "t1w", "t1n"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1post"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f", "t2flair"),
}
"""How data sets call the modalities, in lower case, without - and _."""


def read_description(path: Path, about: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: there is none, or it is not readable.
    """
    try:
        value = read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file", allowed=about) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable JSON file", found=str(error)[:200]) from error
    if not isinstance(value, dict):
        raise UserError(
            f"{path}: not a description of a data set",
            found=f"a JSON {type(value).__name__}",
            allowed=about,
        )
    return value


def inside(folder: Path, name: object) -> Path | None:
    """The image that a list names, or nothing: it is none, or leaves the data set's folder."""
    if not isinstance(name, str) or not name.isprintable():
        return None
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or stem(pure.name) is None:
        return None
    return folder / pure


def channels(path: Path, declared: object, modality: Sequence[str]) -> list[Problem]:
    """Whether the configured modalities can be the channels that a description declares.

    Args:
        path: of the description.
        declared: its channels, such as {"0": "FLAIR", "1": "T1w"}; others say nothing.
        modality: of the configuration, in the order of the channels.
    """
    if not isinstance(declared, Mapping) or not declared:
        return []
    mend = "correct 'modality' in config.datasets: one for each channel, in order"
    if len(declared) != len(modality):
        what = "it declares other numbers of channels than the configuration"
        return [Problem("error", str(path), what, dict(declared), modality, mend)]
    problems = []
    for index, mine in enumerate(modality):
        theirs = str(declared.get(str(index), ""))
        key = re.sub(r"[-_ ]", "", theirs.lower())
        known = next((m for m, names in _CALLED.items() if key in names), mine)
        if known != mine and mine in _CALLED:
            what = f"channel {index} is '{theirs}', not '{mine}'"
            problems.append(Problem("error", str(path), what, dict(declared), known, mend))
    return problems


def as_channels(path: Path, modality: Sequence[str]) -> dict[str, Image]:
    """The images in one file: it is the only one, or holds one per channel."""
    if len(modality) == 1:
        return {modality[0]: Image(path)}
    return {name: Image(path, channel) for channel, name in enumerate(modality)}
