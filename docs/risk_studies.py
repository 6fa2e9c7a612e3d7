"""The studies behind a table of the risk page: their lines as one, and how each was made."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from page_parts import lines_of, provenance

from jaxfer.config.overrides import Override

Line = Mapping[str, str]

SETTINGS = ("steps", "learning_rate", "perturb")
"""Fields of the section ``finetune`` that stand in every line: those of different ones are never
compared."""
_CELL = ("target", "shots", "subset", "source", "pretraining", "method", "seed", "subject")


@dataclass(frozen=True)
class Studies:
    """A table of results.

    Attributes:
        lines: those of the study's results.csv, each with its ``SETTINGS``.
        told: of each study, how it was made.
    """

    lines: tuple[Line, ...]
    told: tuple[str, ...]

    @property
    def words(self) -> str:
        """How they were made, a paragraph each, to unfold."""
        paragraphs = "\n".join(self.told)
        return f"<details><summary>How each was run</summary>\n\n{paragraphs}\n</details>\n"


def settings_of(line: Line) -> tuple[str, ...]:
    """The settings that a line's fine-tuning was done with."""
    return tuple(line[name] for name in SETTINGS)


def _settings(config: Mapping[str, Any], target: str) -> dict[str, str]:
    own = {f"finetune.{name}": config["finetune"][name] for name in SETTINGS}
    overrides = map(Override.parse, config["study"]["overrides"])
    own |= {found.field: found.value for found in overrides if found.target == target}
    return {name: f"{own[f'finetune.{name}']:g}" for name in SETTINGS}


def read_studies(folder: Path, name: str) -> Studies:
    """A study's workdir, or the folder of an earlier page with its table of this name."""
    earlier = folder / f"risk_{name}.csv"
    if earlier.is_file():
        told = json.loads((folder / "risk_studies.json").read_text(encoding="utf-8"))
        return Studies(tuple(lines_of(earlier)), tuple(told[name]))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    lines = [line | _settings(config, line["target"]) for line in lines_of(folder / "results.csv")]
    return Studies(tuple(lines), (provenance(folder),))


def joined(studies: Sequence[Studies]) -> Studies:
    """The lines of all; where two are of one fine-tuning with the same settings, the later one."""
    found: dict[tuple[Any, ...], Line] = {}
    for line in (line for own in studies for line in own.lines):
        key = (settings_of(line), *(line[k] for k in _CELL))
        found.pop(key, None)
        found[key] = line
    told = dict.fromkeys(words for own in studies for words in own.told)
    return Studies(tuple(found.values()), tuple(told))


def of_last_settings(studies: Studies) -> Studies:
    """Without the lines of a target whose settings are not those of its last line: what was trained
    otherwise is no match for the rest."""
    last = {line["target"]: settings_of(line) for line in studies.lines}
    kept = [line for line in studies.lines if settings_of(line) == last[line["target"]]]
    return Studies(tuple(kept), studies.told)


def write_table(lines: Iterable[Line], file: Path) -> None:
    """The lines as comma-separated values."""
    found = list(lines)
    with file.open("w", newline="", encoding="utf-8") as written:
        rows = csv.DictWriter(written, list(found[0]))
        rows.writeheader()
        rows.writerows(found)
