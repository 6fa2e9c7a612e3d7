"""Stage verify, and the start of prepare: what is wrong with the files, in one table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxfer.config import fingerprint
from jaxfer.data.verify import sorted_problems, verify_cases
from jaxfer.errors import Problem, UserError, raise_problems
from jaxfer.files import TEXT_OR_NULL
from jaxfer.report.terminal import problems_table
from jaxfer.stages.run import Run, read_json, write_json
from jaxfer.tasks import Case, Dataset

_VERSION = 1
"""Raised whenever the same files give other problems."""


@dataclass(frozen=True)
class Wanted:
    """What of a data set the run will read.

    Attributes:
        dataset: with its declared labels.
        folder: of the data set.
        cases: that some task uses.
        modalities: that some task uses.
        files: the cases' files as they are on disk, None if one of them cannot be found.
    """

    dataset: Dataset
    folder: Path
    cases: Sequence[Case]
    modalities: tuple[str, ...]
    files: Any

    @property
    def mark(self) -> str | None:
        """Equal just when a verification would find the same."""
        if self.files is None:
            return None
        declared = (self.dataset.label_names, self.dataset.skull_stripped)
        return fingerprint(_VERSION, declared, self.files, os.path.realpath(self.folder))


def workers(run: Run) -> int:
    """How many cases are read at once."""
    return run.config.workers or len(os.sched_getaffinity(0))


def _file(run: Run) -> Path:
    return run.workdir / "verify" / "verify.json"


def _entry(dataset: str, problem: Problem) -> dict[str, str | None]:
    found, expected = (None if v is None else str(v) for v in (problem.found, problem.allowed))
    return {
        "severity": problem.severity,
        "file": problem.where,
        "problem": problem.what,
        "found": found,
        "expected": expected,
        "mend": problem.mend,
        "dataset": dataset,
    }


def _before(run: Run) -> dict[str, tuple[str, list[Problem]]]:
    """What an earlier verification of this run found: by data set, its mark and the problems."""
    if not _file(run).is_file():
        return {}
    fields = ("severity", "file", "problem", "found", "expected", "mend")
    entry_fits = dict.fromkeys((*fields, "dataset"), TEXT_OR_NULL)
    record = read_json(_file(run), {"verified": {str: str}, "problems": [entry_fits]})
    known: dict[str, tuple[str, list[Problem]]] = {}
    for name, mark in record["verified"].items():
        own = [entry for entry in record["problems"] if entry["dataset"] == name]
        known[name] = (mark, [Problem(*(entry[field] for field in fields)) for entry in own])
    return known


def find_problems(
    run: Run, wanted: Mapping[str, Wanted], of_layouts: Sequence[Problem]
) -> list[Problem]:
    """Verifies the data sets, and writes all that is wrong with them to ``verify.json``.

    A data set that an earlier call of this run has verified, and whose files and declarations are
    as they were, is not read again.

    Args:
        run: the run.
        wanted: data sets by name.
        of_layouts: what is already known to be wrong with their names and lists.
    """
    before = _before(run)
    found: dict[str, list[Problem]] = {}
    for name, one in wanted.items():
        if name in before and before[name][0] == one.mark:
            found[name] = before[name][1]
    left = [name for name in wanted if name not in found]
    with run.progress("verifying", sum(len(wanted[name].cases) for name in left)) as advance:
        for name in left:
            one = wanted[name]
            found[name] = verify_cases(
                one.dataset,
                one.cases,
                one.modalities,
                folder=one.folder,
                workers=workers(run),
                on_case=lambda case: advance(note=case),
            )
    named = {id(p): name for name, problems in found.items() for p in problems}
    problems = sorted_problems([*of_layouts, *(p for own in found.values() for p in own)])
    write_json(
        _file(run),
        {
            "problems": [_entry(named.get(id(p), ""), p) for p in problems],
            "verified": {n: w.mark for n, w in wanted.items() if w.mark is not None},
        },
    )
    return problems


def tell(run: Run, problems: Sequence[Problem]) -> None:
    """Shows the problems: a table on a terminal, else a line each.

    Raises:
        UserError: one of them is an error.
    """
    errors = [p for p in problems if p.severity == "error"]
    if problems and run.console.is_terminal:
        run.console.print(problems_table(run.workdir))
        if errors:
            raise UserError(
                f"the data have {len(errors)} problem(s) that must be mended",
                found=f"those of the table; all of them also stand in {_file(run)}",
            )
    for problem in problems:
        if problem.severity == "warning" and not run.console.is_terminal:
            run.say(f"  warning: {problem}")
    raise_problems(problems, f"the data have problems, all of them in {_file(run)}")
