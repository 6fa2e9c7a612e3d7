"""The tables that a run leaves on the terminal, from the same rows as the page."""

from __future__ import annotations

import os
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from jaxfer.errors import UserError, legible
from jaxfer.report.files import read_problems, read_run
from jaxfer.report.numbers import ABSENT, count_text, dice_text, points_text, score_text
from jaxfer.report.records import Evaluation
from jaxfer.report.tables import (
    MOST_METHODS,
    MOST_SCORES,
    evaluated_methods,
    head_of,
    path_rows,
    path_words,
    ranking_rows,
    scored_metrics,
    subject_dice,
)

# More patients than this are read on the page.
MOST_PATIENTS = 12
# More problems than this are read in the file.
MOST_PROBLEMS = 100
_ABOVE = {"higher": "yes", "lower": "below", "cannot be told": "cannot tell"}


def _text(words: str, style: str = "") -> Text:
    """Words for a cell: rich takes out neither escape sequences nor what turns the writing."""
    return Text(legible(words, keep="\n"), style)


def problems_table(workdir: Path) -> Table:
    """What verification found, errors first; paths from the folder that all files have in common.

    Args:
        workdir: the folder of a run.

    Returns:
        A table of two columns, so that long paths stay readable in a narrow window.

    Raises:
        UserError: nothing has been verified, or the file cannot be read.
    """
    problems = read_problems(workdir)
    if problems is None:
        raise _not_yet(workdir, "verify/verify.json", "verify")
    absolute = [p.file for p in problems if os.path.isabs(p.file)]
    common = os.path.commonpath([os.path.dirname(file) for file in absolute]) if absolute else ""
    title = f"Problems of the files in {common}" if common else "Problems of the data"
    table = Table(title=_text(title), title_justify="left", box=SIMPLE_HEAD)
    table.add_column("file", overflow="fold", ratio=2)
    table.add_column("problem", overflow="fold", ratio=3)
    for problem in problems[:MOST_PROBLEMS]:
        file = os.path.relpath(problem.file, common) if problem.file in absolute else problem.file
        severity = _text(problem.severity, style="red" if problem.severity == "error" else "yellow")
        words = [f": {problem.problem.replace(f'{common}/', '') if common else problem.problem}"]
        words += [
            f"\n{label}: {value}"
            for label, value in (
                ("found", problem.found),
                ("expected", problem.expected),
                ("mend", problem.mend),
            )
            if value
        ]
        table.add_row(_text(file), severity.append(_text("".join(words))))
    if len(problems) > MOST_PROBLEMS:
        more = f"… and {len(problems) - MOST_PROBLEMS} more in {workdir / 'verify/verify.json'}"
        table.add_row("", _text(more))
    return table


def ranking_table(workdir: Path) -> Table:
    """The ranking of the sources; those removed stand below the line with the reason.

    Args:
        workdir: the folder of a run.

    Returns:
        A table; the best score of each metric among the ranked sources is bold. Of many scores the
        one that ranks and the next ones; the others are in the files.

    Raises:
        UserError: the run has not ranked its sources, or a file cannot be read.
    """
    ranking = read_run(workdir).ranking
    if ranking is None:
        raise _not_yet(workdir, "select/selection.json", "select")
    metrics = scored_metrics(ranking)[0]
    shown, more = metrics[:MOST_SCORES], len(metrics) - MOST_SCORES
    table = Table(
        title=_text(f"Sources for {ranking.target}"),
        title_justify="left",
        box=SIMPLE_HEAD,
        caption=f"{count_text(more, 'more score')} in select/selection.csv" if more > 0 else None,
        caption_justify="left",
    )
    table.add_column("rank", justify="right")
    table.add_column("source", overflow="fold")
    for metric in shown:
        arrow = "↓" if metric.direction.startswith("low") else "↑"
        name, layer = head_of(metric.name, ranking.layers)
        head = "\n".join([f"{name} {arrow}", *([layer] if layer else [])])
        table.add_column(_text(head), justify="right", no_wrap=True)
    table.add_column("RoI ↑", justify="right", no_wrap=True)
    for row in ranking_rows(ranking):
        source = row.source
        removed = source.rank is None
        if removed and table.rows and not table.rows[-1].style:
            table.add_section()
        scores = [
            _text(
                score_text(source.scores.get(metric.name)),
                style="bold" if metric.name in row.leads_in else "",
            )
            for metric in shown
        ]
        table.add_row(
            _text("–" if removed else str(source.rank)),
            _text("\n".join([source.name, *(f"left out: {reason}" for reason in row.reasons)])),
            *scores,
            _text(dice_text(source.roi_similarity)),
            style="dim" if removed else None,
        )
    return table


def paths_table(workdir: Path) -> Table | None:
    """The cheapest path from each source, beside the direct way; None if none was looked for.

    Args:
        workdir: the folder of a run.

    Raises:
        UserError: a file cannot be read.
    """
    paths = read_run(workdir).paths
    if paths is None:
        return None
    table = Table(
        title=_text(f"Paths to {paths.target}"),
        title_justify="left",
        box=SIMPLE_HEAD,
        caption=_text(path_words(paths)),
        caption_justify="left",
    )
    table.add_column("path", overflow="fold")
    table.add_column("legs")
    for name in ("cost", "direct"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in path_rows(paths):
        table.add_row(*map(_text, row))
    return table


def dice_table(workdir: Path) -> Table:
    """Dice per patient, then the mean and its interval for each method and each gain.

    Args:
        workdir: the folder of a run.

    Returns:
        A table; with many patients only their means, and with many methods a row for each.

    Raises:
        UserError: the run has not been evaluated, or a file cannot be read.
    """
    evaluation = read_run(workdir).evaluation
    if evaluation is None:
        raise _not_yet(workdir, "evaluate/metrics.csv and evaluate/summary.json", "evaluate")
    methods = evaluated_methods(evaluation)
    if len(methods) > MOST_METHODS:
        return _by_method(evaluation)
    gains = {f"{gain.over} − {gain.under}": gain for gain in evaluation.gains}
    title = "Dice per patient, gains in Dice points"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("patient", overflow="fold")
    for name in (*methods, *gains):
        # At its underscores, or a name of a method is cut short where the terminal is narrow.
        table.add_column(_text(name.replace("_", "_\n")), justify="right")
    patients = subject_dice(evaluation)
    if len(patients) <= MOST_PATIENTS:
        for patient, dice in patients.items():
            changes = [gain.per_subject.get(patient) for gain in gains.values()]
            table.add_row(
                _text(patient),
                *(dice_text(dice[method]) for method in methods),
                *(points_text(change) for change in changes),
            )
        table.add_section()
    for name, values in _mean_rows(evaluation):
        table.add_row(name, *values)
    return table


def _by_method(evaluation: Evaluation) -> Table:
    """A row per method: the mean Dice over patients, its interval, the gain over scratch."""
    title = "Mean Dice over patients, gains in Dice points"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("method", overflow="fold")
    for name in ("Dice", "from", "to", "missed", "− scratch", "above 0?"):
        table.add_column(name, justify="right")
    gains = {gain.over: gain for gain in evaluation.gains if gain.under == "scratch"}
    for row in evaluation.methods:
        gain = gains.get(row.method)
        table.add_row(
            _text(row.method),
            dice_text(row.dice_mean),
            *map(dice_text, row.dice_interval),
            str(row.outcomes.get("missed", 0)),
            points_text(gain.mean) if gain else "",
            _ABOVE[gain.reading] if gain else "",
        )
    return table


def _mean_rows(evaluation: Evaluation) -> list[tuple[str, list[str]]]:
    """The mean of each column, its interval, and the counts that stand behind it."""
    summaries = {summary.method: summary for summary in evaluation.methods}
    known = [summaries.get(method) for method in evaluated_methods(evaluation)]
    gains = evaluation.gains
    return [
        (
            "mean",
            [dice_text(row.dice_mean if row else None) for row in known]
            + [points_text(gain.mean) for gain in gains],
        ),
        (
            "from",
            [dice_text(row.dice_interval[0] if row else None) for row in known]
            + [points_text(gain.interval[0]) for gain in gains],
        ),
        (
            "to",
            [dice_text(row.dice_interval[1] if row else None) for row in known]
            + [points_text(gain.interval[1]) for gain in gains],
        ),
        ("missed", [str(row.outcomes.get("missed", 0)) if row else ABSENT for row in known]),
        ("above 0?", [""] * len(known) + [_ABOVE[gain.reading] for gain in gains]),
    ]


def _not_yet(workdir: Path, file: str, stage: str) -> UserError:
    return UserError(
        f"{workdir} has no result of the {stage} stage",
        found=f"no {file}",
        allowed=f"a run that has passed {stage}",
        mend="run again with the same workdir: it goes on from where it stopped",
    )
