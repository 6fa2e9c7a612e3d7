"""Stage study: every cell of a grid of fine-tunings, by as many launches as share its workdir."""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import jax

from jaxfer.config import fingerprint, plain, validate
from jaxfer.errors import Interrupted, UserError
from jaxfer.evaluation import CaseResult
from jaxfer.models.zoo import Source
from jaxfer.stages.evaluate import measured, measures_table, predicted_classes
from jaxfer.stages.finetune import finetune_one, finetuning_mark, mark_of_others
from jaxfer.stages.lock import Busy, locked
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.pretrain import source_mark
from jaxfer.stages.risk import mean_spread
from jaxfer.stages.run import Run, open_run, read_json, write_json, write_text
from jaxfer.stages.study_scores import write_scores
from jaxfer.stages.study_tables import CELL_RECORD, cell_folder, group_folder, write_tables
from jaxfer.stages.training import source_at
from jaxfer.study.cells import Cell, Group, cells_of, grid, groups
from jaxfer.study.settings import group_config, settings_mark
from jaxfer.tasks import Task
from jaxfer.train.methods import METHODS

RunStages = Callable[[Run, Sequence[str]], None]
OnStep = Callable[[int, float], None]

_PAUSE = 1.0
"""Seconds between two looks at what other launches have not finished."""


@dataclass(frozen=True)
class _Ready:
    """A group whose sources are trained and scored.

    Attributes:
        run: with the group's configuration and workdir.
        marks: by cell, a fingerprint of all that decides its measures. A source without data has
            no cells.
    """

    group: Group
    run: Run
    prepared: Prepared
    sources: Mapping[Task, Source]
    marks: Mapping[Cell, str]

    def source(self, cell: Cell) -> Source | None:
        return self.sources[cell.source] if cell.source else None

    @property
    def tested(self) -> tuple[str, ...]:
        """The cases that its cells are measured on."""
        cases = self.prepared.cases(self.group.target, "test")
        return tuple(case.stored.id for case in cases)


def _link_sources(run: Run, shelf: Path) -> None:
    """Groups share the networks that their settings make the same: a folder for each mark."""
    prepared = Prepared.read(run)
    run.shelf.mkdir(exist_ok=True)
    for task in map(Task.parse, run.config.sources):
        if task.name in prepared.unavailable:
            continue
        folder = shelf / f"{task.slug}-{source_mark(run, prepared, task)}"
        folder.mkdir(parents=True, exist_ok=True)
        link, made = run.shelf / task.slug, run.shelf / f".{os.getpid()}-{task.slug}"
        made.unlink(missing_ok=True)
        made.symlink_to(os.path.relpath(folder, run.shelf))
        made.replace(link)


def _readied(study: Run, group: Group, run_stages: RunStages) -> _Ready:
    """Prepares, pre-trains and scores a group's sources, as far as that is not done.

    Raises:
        Busy: another launch is at it.
    """
    config = group_config(study.config, group, os.path.realpath(study.cache))
    folder, command = group_folder(study, group), f"the study of {study.workdir}"
    with open_run(config, folder, study.console, command, study.interruption) as run:
        study.say(f"group {group.slug}")
        run_stages(run, ("prepare",))
        _link_sources(run, study.workdir / "shelf")
        run_stages(run, ("pretrain", "select"))
        prepared = Prepared.read(run)
        sources = {
            task: source_at(run, run.shelf / task.slug)
            for task in map(Task.parse, config.sources)
            if task.name not in prepared.unavailable
        }
        write_scores(run, prepared, sources, settings_mark(config))
    return _Ready(group, run, prepared, sources, _marks(run, prepared, sources, study, group))


def _marks(
    run: Run, prepared: Prepared, sources: Mapping[Task, Source], study: Run, group: Group
) -> dict[Cell, str]:
    train, test = (prepared.cases(group.target, part) for part in ("train", "test"))
    tested = [(case.stored.id, case.content) for case in test]

    def of_method(cell: Cell) -> str:
        source = sources[cell.source] if cell.source else None
        others = mark_of_others(run, source, METHODS[cell.method]) if source else ""
        return finetuning_mark(run, train, source, cell.method, others)

    return {
        cell: fingerprint(
            of_method(cell),
            cell.seed,
            plain(run.config.evaluate),
            tested,
        )
        for cell in cells_of(study.config, group)
        if cell.source is None or cell.source in sources
    }


def _is_done(folder: Path, mark: str) -> bool:
    record = folder / "done.json"
    return record.is_file() and read_json(record, CELL_RECORD)["fingerprint"] == mark


def _measures(ready: _Ready, cell: Cell, work: Path, on_step: OnStep) -> list[CaseResult]:
    """Fine-tunes one cell and measures its network on the test subjects."""
    run, prepared, target = ready.run, ready.prepared, ready.group.target
    source, name, seed = ready.source(cell), cell.method, cell.seed
    params = finetune_one(run, prepared, source, name, seed, work, on_step)
    results: list[CaseResult] = []
    for case in prepared.cases(target, "test"):
        predicted = predicted_classes(run, params, case)
        results += measured(prepared, target, case, predicted, method=name, seed=seed)
        run.interruption.check()
    return results


def _map_spread(ready: _Ready, cell: Cell, work: Path) -> float | None:
    """How far the weights of a class lie apart in the map that a cell's method heeds."""
    use = METHODS[cell.method].risk
    if use is None or cell.source is None:
        return None
    return mean_spread(ready.prepared.cases(ready.group.target, "train"), work / "risk" / use.name)


def _do(study: Run, ready: _Ready, cell: Cell, on_step: OnStep) -> None:
    """One cell, unless it is done.

    Raises:
        Busy: another launch is at it.
    """
    folder, mark = cell_folder(study, cell), ready.marks[cell]
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, say=study.say):
        if _is_done(folder, mark):
            return
        (folder / "done.json").unlink(missing_ok=True)
        work, start = folder / "work", time.monotonic()
        work.mkdir(exist_ok=True)
        write_text(folder / "metrics.csv", measures_table(_measures(ready, cell, work, on_step)))
        record = {
            "fingerprint": mark,
            "settings": settings_mark(ready.run.config),
            "seconds": round(time.monotonic() - start, 2),
            "map_spread": _map_spread(ready, cell, work),
        }
        write_json(folder / "done.json", record)
        shutil.rmtree(work)


def _renew(study: Run, ready: _Ready) -> None:
    """Marks what is done as done with today's settings too, where they decide nothing of it: a
    field that has come since, or that the cell's method does not read."""
    settings = settings_mark(ready.run.config)
    for cell, mark in ready.marks.items():
        folder = cell_folder(study, cell)
        if not _is_done(folder, mark):
            continue
        if read_json(folder / "done.json", CELL_RECORD)["settings"] == settings:
            continue
        with suppress(Busy), locked(folder, say=study.say):
            if _is_done(folder, mark):
                record = read_json(folder / "done.json", CELL_RECORD)
                write_json(folder / "done.json", record | {"settings": settings})


def _left(study: Run, ready: _Ready) -> list[Cell]:
    """The cells of a group that neither this launch nor another has done."""
    marks = ready.marks.items()
    return [cell for cell, mark in marks if not _is_done(cell_folder(study, cell), mark)]


def _work_on(study: Run, ready: _Ready) -> bool:
    """Does the cells of a group that no other launch is at; whether the group is done then."""
    _renew(study, ready)
    left = _left(study, ready)
    with study.progress(ready.group.slug, len(ready.marks), stops=False) as advance:
        advance(len(ready.marks) - len(left))
        for cell in left:
            study.interruption.check()

            def on_step(step: int, loss: float, cell: Cell = cell) -> None:
                start = cell.source.name if cell.source else "no source"
                advance(0, note=f"{cell.method}, {start}: step {step}, loss {loss:.3f}")

            try:
                _do(study, ready, cell, on_step)
            except Busy:
                continue
            advance()
    return not _left(study, ready)


def _check(study: Run) -> None:
    """Raises for what would end the study only after hours."""
    if jax.process_count() > 1:
        raise UserError(
            "a study is shared by launches, not by the processes of one",
            found=f"--processes={jax.process_count()}",
            mend="start the same command several times without --coordinator: launch/study.sh",
        )
    for group in groups(study.config):
        try:
            validate(group_config(study.config, group, str(study.cache)))
        except UserError as error:
            raise UserError(f"group {group.slug} of the study", details=[str(error)]) from error


def _same_tested(ready: _Ready, tested: dict[Task, tuple[str, ...]]) -> None:
    """Raises if a target's cells would be measured on different subjects."""
    if tested.setdefault(ready.group.target, ready.tested) != ready.tested:
        raise UserError(
            f"group {ready.group.slug} of the study is tested on other cases than those before it",
            found=f"{len(ready.tested)} cases",
            allowed="the same ones for all shots and subsets of a target",
            mend="fewer --config.data.test_subjects or --config.study.shots",
        )


def _told(study: Run, since: float, before: int) -> str:
    """How far the study is, and how long it still takes at the pace of all its launches."""
    cells = grid(study.config)
    done = sum((cell_folder(study, cell) / "done.json").is_file() for cell in cells)
    told = f"{done} of {len(cells)} cells done"
    if done in (before, len(cells)):
        return told
    minutes = (time.monotonic() - since) / (done - before) * (len(cells) - done) / 60
    return f"{told}, about {minutes:.0f} minutes left"


def _forget_compilations() -> None:
    """Of a group that is done: every compiled function takes memory, and memory maps, of which
    Linux gives a process 65,530; what the next group needs again is on the disk."""
    jax.clear_caches()
    gc.collect()


def run(study: Run, run_stages: RunStages) -> str:
    """Goes through all groups and their cells until each is done, by this launch or another.

    Args:
        study: its workdir is shared by all launches of the study.
        run_stages: runs stages of a group, which is an ordinary run.
    """
    _check(study)
    since, (_, before) = time.monotonic(), write_tables(study)
    waiting, ready = groups(study.config), dict[Group, _Ready]()
    tested: dict[Task, tuple[str, ...]] = {}
    left_out: set[str] = set()
    try:
        while waiting:
            for group in tuple(waiting):
                study.interruption.check()
                try:
                    own = ready.get(group) or _readied(study, group, run_stages)
                except Busy:
                    continue
                _same_tested(own, tested)
                left_out |= {*own.prepared.unavailable}
                ready[group] = own
                if _work_on(study, own):
                    waiting.remove(group)
                    del ready[group]
                    _forget_compilations()
                    write_tables(study)
                    study.say(f"  {_told(study, since, before)}")
            if waiting:
                time.sleep(_PAUSE)
    except Interrupted:
        write_tables(study)
        raise
    lines, cells = write_tables(study)
    without = f"; without data: {', '.join(sorted(left_out))}" if left_out else ""
    return f"{cells} cells, {lines} lines in {study.workdir / 'results.csv'}{without}"
