"""Data sets whose scans the run makes itself: where they lie, and making them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from jaxfer.data.heads.generate import write_head
from jaxfer.data.layouts import folder_of
from jaxfer.data.layouts.heads import label_maps
from jaxfer.data.phantom.generate import write_collection
from jaxfer.errors import Problem, UserError, raise_problems
from jaxfer.stages.run import Run

_WHOLE, _SCANS = "phantom", "heads"
"""Layouts of which the run makes all, or the scans from label maps that were downloaded."""


def made(run: Run, names: Sequence[str]) -> list[str]:
    """Those data sets whose scans are there only once the run has made them.

    The folder of one that is made whole is there afterwards.
    """
    found = [n for n in names if run.config.datasets[n].layout in (_WHOLE, _SCANS)]
    for name in found:
        if run.config.datasets[name].layout == _WHOLE:
            holds_files(run, name).mkdir(parents=True, exist_ok=True)
    return found


def root(run: Run, name: str) -> Path:
    """The folder that a data set's own folder is named from."""
    whole = run.config.datasets[name].layout == _WHOLE
    return run.cache if whole else Path(run.config.data.root)


def scans_of(run: Run, name: str) -> Path:
    """The folder of the scans that are made of label maps."""
    return run.cache / name / "scans"


def holds_files(run: Run, name: str) -> Path:
    """The folder that all files of a data set's cases lie in."""
    settings = run.config.datasets[name]
    if settings.layout == _SCANS:
        return scans_of(run, name)
    return folder_of(name, settings, root(run, name))


def make(run: Run, names: Sequence[str], workers: int) -> None:
    """Makes what is missing of the data sets of these names.

    Raises:
        UserError: label maps are damaged, or none of heads; lists all of them.
    """
    for name in names:
        if run.config.datasets[name].layout == _WHOLE:
            _collect(run, name)
        else:
            _render(run, name, workers)


def _note(advance: Callable[..., None], case: str) -> None:
    advance(note=case)


def _collect(run: Run, name: str) -> None:
    settings = run.config.datasets[name]
    counts = dict(zip(settings.sites, settings.subjects, strict=True))
    with run.progress(f"making {name}", sum(counts.values())) as advance:
        write_collection(
            folder_of(name, settings, root(run, name)),
            seed=settings.seed,
            sites=tuple(counts),
            subjects_per_site=counts,
            on_case=partial(_note, advance),
        )


def _render(run: Run, name: str, workers: int) -> None:
    settings, scans = run.config.datasets[name], scans_of(run, name)

    def one(label_map: Path) -> list[Problem]:
        try:
            write_head(label_map, scans, seed=settings.seed, brain=settings.skull_stripped)
        except UserError as error:
            what = error.what.removeprefix(f"{label_map}: ")
            found, allowed, mend = error.found, error.allowed, error.mend
            return [Problem("error", str(label_map), what, found, allowed, mend)]
        return []

    found = label_maps(folder_of(name, settings, root(run, name)))
    problems: list[Problem] = []
    with (
        run.progress(f"rendering {name}", len(found)) as advance,
        ThreadPoolExecutor(workers) as of,
    ):
        for label_map, wrong in zip(found, of.map(one, found), strict=True):
            problems += wrong
            _note(advance, label_map.name)
    raise_problems(problems, f"dataset '{name}': label maps cannot be used")
