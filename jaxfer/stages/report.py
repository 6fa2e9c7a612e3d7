"""Stage report: the page, and the tables for the terminal."""

from __future__ import annotations

from typing import Any

from jaxfer.report.files import read_run
from jaxfer.report.page import write_report
from jaxfer.report.tables import cost_words
from jaxfer.report.terminal import dice_table, paths_table, ranking_table
from jaxfer.stages.run import Run, read_json


def inputs(run: Run) -> Any:
    """Fingerprints of everything that has been done so far."""
    records = sorted(run.workdir.glob("*/done.json"))
    marks = {p.parent.name: read_json(p, {"fingerprint": str})["fingerprint"] for p in records}
    marks.pop("report", None)
    return marks | {"page": (run.workdir / "report.html").is_file()}


def run(run: Run) -> str:
    """Writes ``report.html`` from the files of the run."""
    return f"written to {write_report(run.workdir)}"


def show_tables(run: Run) -> None:
    """The ranking and the Dice table on the terminal, as far as they exist."""
    if (run.workdir / "select" / "selection.json").is_file():
        run.console.print(ranking_table(run.workdir))
        if (paths := paths_table(run.workdir)) is not None:
            run.console.print(paths)
        if cost := read_run(run.workdir).cost:
            run.say(cost_words(cost))
    if (run.workdir / "evaluate" / "metrics.csv").is_file():
        run.console.print(dice_table(run.workdir))
    page = run.workdir / "report.html"
    if page.is_file():
        run.say(f"report: {page}")
