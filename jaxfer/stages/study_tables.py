"""The tables of a study, from the records of its groups and cells."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from jaxfer.errors import UserError
from jaxfer.evaluation import CaseResult
from jaxfer.files import read_text
from jaxfer.stages.run import Run, read_json, write_text
from jaxfer.stages.study_scores import read_scores
from jaxfer.study.cells import Cell, Group, cells_of, groups
from jaxfer.study.settings import group_config, settings_mark
from jaxfer.study.tables import (
    RESULTS,
    SCORES,
    ScoreRow,
    read_measures,
    result_rows,
    score_rows,
    table,
)

CELL_RECORD = {"fingerprint": str, "settings": str, "seconds": (int, float)}


def group_folder(study: Run, group: Group) -> Path:
    """The workdir of a group."""
    return study.workdir / "groups" / group.slug


def cell_folder(study: Run, cell: Cell) -> Path:
    """The folder of a cell."""
    return study.workdir / "cells" / cell.slug


def _read_cell(folder: Path) -> list[CaseResult]:
    file = folder / "metrics.csv"
    try:
        return read_measures(read_text(file))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file}: not the measures of a cell",
            found=f"{type(error).__name__}: {error}",
            mend=f"delete {folder}; the cell is then done again",
        ) from error


def write_tables(study: Run) -> tuple[int, int]:
    """Writes ``results.csv`` and ``scores.csv`` of all that is done with today's settings.

    Returns:
        Lines of the results, and the cells that they are of.
    """
    config, bar = study.config, study.config.evaluate.collapse_dice
    results: list[tuple[Any, ...]] = []
    scores: list[tuple[Any, ...]] = []
    done = 0
    for group in groups(config):
        mark = settings_mark(group_config(config, group, str(study.cache)))
        seconds: dict[str, list[float]] = defaultdict(list)
        for cell in cells_of(config, group):
            folder = cell_folder(study, cell)
            if not (folder / "done.json").is_file():
                continue
            record = read_json(folder / "done.json", CELL_RECORD)
            if record["settings"] != mark:
                continue
            apart = record.get("map_spread")  # none in records of before it was written down
            spread = math.nan if apart is None else float(apart)
            results += result_rows(config.name, cell, _read_cell(folder), bar, spread)
            done += 1
            if cell.source:
                seconds[cell.source.name].append(record["seconds"])
        spent = [ScoreRow(s, "finetune_seconds", float(np.mean(v))) for s, v in seconds.items()]
        scores += score_rows(group, [*read_scores(group_folder(study, group), mark), *spent])
    write_text(study.workdir / "results.csv", table(RESULTS, results))
    write_text(study.workdir / "scores.csv", table(SCORES, scores))
    return len(results), done
