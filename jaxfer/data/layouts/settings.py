"""What an entry of ``config.datasets`` may hold: checked whole, before any file is looked at."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from jaxfer.errors import Problem
from jaxfer.tasks import NAMES, wrong_name


@dataclass(frozen=True)
class Setting:
    """One field of an entry.

    Attributes:
        holds: whether an entry's value is fine.
        allowed: what is, in words.
        required: whether the entry must have it.
    """

    holds: Callable[[ConfigDict], bool]
    allowed: str
    required: bool = True


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def texts(value: Any) -> bool:
    """Whether a value is a tuple of texts, one or more, all different."""
    fine = isinstance(value, tuple) and all(_text(v) for v in value)
    return fine and 0 < len(set(value)) == len(value)


def names(value: Any) -> tuple[str, ...]:
    """A text, or several, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def one_of(field: str, *values: Any) -> Setting:
    """A field that has one of a few values."""
    listed = ", ".join(map(str, values))
    return Setting(lambda s: any(s[field] is v or s[field] == v for v in values), listed)


def _names_file(name: str) -> bool:
    """Whether an image may have the name in the store, where the label map has one too."""
    return not wrong_name(name) and name != "label"


COMMON = {
    "layout": Setting(lambda s: _text(s.layout), "a layout's name"),
    "folder": Setting(lambda s: _text(s.folder), "a folder's name"),
    "optional": Setting(lambda s: isinstance(s.optional, bool), "True or False", required=False),
}
MODALITY = Setting(
    lambda s: all(map(_names_file, names(s.modality))) and (_text(s.modality) or texts(s.modality)),
    "text, such as 't1', or one for each channel, in order, such as ('flair', 't1'); "
    f"{NAMES}, and not 'label'",
)
SKULL_STRIPPED = Setting(lambda s: isinstance(s.skull_stripped, bool), "True or False")
PROCESSING = one_of("images", "pre", "orig")
ROI = Setting(lambda s: _text(s.roi), "a name for the RoI of all labels", required=False)


def _fine(setting: Setting, entry: ConfigDict) -> bool:
    try:
        return bool(setting.holds(entry))
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def check(name: str, entry: ConfigDict, known: Mapping[str, Setting]) -> list[Problem]:
    """What is wrong with an entry: fields not allowed, missing or unknown."""
    problems = []
    known = {**COMMON, **known}
    for field, setting in known.items():
        if (setting.required or field in entry) and not _fine(setting, entry):
            where, found = f"config.datasets.{name}.{field}", entry.get(field)
            shown = repr(found.to_dict() if isinstance(found, ConfigDict) else found)
            problems.append(Problem("error", where, "not allowed", shown, setting.allowed))
    for field in sorted(entry.keys() - known.keys()):
        where = f"config.datasets.{name}.{field}"
        near = difflib.get_close_matches(field, known, 1) or sorted(known)
        problems.append(Problem("error", where, "unknown field", entry[field], ", ".join(near)))
    return problems
