"""The page of a run: one file that holds all it shows, and needs no network and no script."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from jaxfer.report import figures, gallery, numbers, tables
from jaxfer.report.files import read_run
from jaxfer.report.records import Evaluation, Ranking, Run, in_order
from jaxfer.report.verdict import tiles, verdict

_MACHINE = ("versions", "devices")


@dataclass(frozen=True)
class Panel:
    """A figure with its title."""

    title: str
    remark: str
    png: bytes


def write_report(workdir: Path) -> Path:
    """Writes report.html of a run from the files in its folder, as far as the run went.

    Args:
        workdir: the folder of the run.

    Returns:
        The path of the page; it is replaced in one step, so that no half-written page is ever seen.

    Raises:
        UserError: the folder is not a run's, or a file in it cannot be read.
    """
    page = workdir / "report.html"
    unfinished = workdir / ".report.html.partial"
    unfinished.unlink(missing_ok=True)
    # Paths that are no UTF-8 hold halves of characters, which a page cannot.
    unfinished.write_text(_html(read_run(workdir)), "utf-8", errors="backslashreplace")
    os.replace(unfinished, page)
    return page


def _html(run: Run) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxfer.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "dice": numbers.dice_text,
        "points": numbers.points_text,
        "distance": numbers.distance_text,
        "score": numbers.score_text,
        "percent": numbers.percent_text,
        "dice_span": numbers.span_text,
        "points_span": lambda interval: numbers.span_text(interval, numbers.points_text),
        "counted": numbers.count_text,
        "method": tables.method_name,
        "metric": tables.metric_name,
        "head": tables.head_of,
        "data_uri": _data_uri,
    }
    return environment.get_template("template.html").render(_content(run))


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _content(run: Run) -> dict[str, Any]:
    """All that the template shows, by name; what the run has not made is None or empty."""
    evaluation, about = run.evaluation, run.about or {}
    return {
        "run": run,
        "target": run.ranking.target if run.ranking else run.config.get("target"),
        "verdict": verdict(run),
        "tiles": tiles(run),
        "missing": _missing(run),
        "split_rows": tables.flat(run.split or {}),
        "ranking": run.ranking,
        **_ranked(run.ranking),
        "path_rows": tables.path_rows(run.paths) if run.paths else (),
        "path_words": tables.path_words(run.paths) if run.paths else "",
        "scoring_seconds": run.scoring_seconds,
        "cost_words": tables.cost_words(run.cost) if run.cost else "",
        **(_evaluated(evaluation) if evaluation else {"evaluation": None, "gallery": None}),
        "method_panels": _method_panels(run),
        "source_panels": _source_panels(run),
        "training_galleries": gallery.training_galleries(run.risk_maps, run.weights),
        "bar_png": figures.colour_bar(),
        "config_rows": tables.flat(run.config),
        "machine_rows": tables.flat({k: v for k, v in about.items() if k in _MACHINE}),
        "leaf_rows": tables.leaf_rows(run.finetuning) if run.finetuning else (),
        "reading_rows": tables.reading_rows(run.finetuning) if run.finetuning else (),
    }


def _ranked(ranking: Ranking | None) -> dict[str, Any]:
    """What the template shows of a ranking beside itself, by name."""
    if ranking is None:
        return {"ranking_rows": ()}
    metrics, without = tables.scored_metrics(ranking)
    return {
        "ranking_rows": tables.ranking_rows(ranking),
        "modality": ranking.modality,
        "with_distances": any(s.modality_distance >= 0 for s in ranking.sources),
        "shown_metrics": metrics[: tables.MOST_SCORES],
        "all_metrics": metrics if len(metrics) > tables.MOST_SCORES else (),
        "missing_metrics": [(m, tables.why_missing(ranking, m)) for m in without],
    }


def _evaluated(evaluation: Evaluation) -> dict[str, Any]:
    """What the template shows of an evaluation, by name."""
    methods = tables.evaluated_methods(evaluation)
    gains = tables.shown_gains(evaluation)
    return {
        "evaluation": evaluation,
        "gains": gains,
        "methods": methods,
        "harm_rows": tables.harm_rows(evaluation),
        "pairs": [(g.over, g.under) for g in gains if {g.over, g.under} <= {*methods}],
        "patient_rows": tables.patient_rows(evaluation),
        "n_seeds": len({score.seed for score in evaluation.scores}),
        "patients_png": figures.patients_figure(
            tables.subject_dice(evaluation), methods, tables.shown_method(evaluation)
        ),
        "gains_png": figures.gains_figure(gains) if gains else None,
        "shown_method": tables.shown_method(evaluation),
        "undefined": tables.undefined_subjects(evaluation, tables.shown_method(evaluation)),
        "gallery": gallery.test_gallery(evaluation),
        "note_rows": tables.flat(evaluation.notes),
    }


def _missing(run: Run) -> tuple[str, ...]:
    """The parts of the page that the run has no files for."""
    parts = {
        "how the run was made (run.json)": run.about,
        "the split of the target's subjects (prepare)": run.split,
        "the ranking of the sources (select)": run.ranking,
        "the fine-tuning (finetune)": run.finetuning,
        "Dice per patient and the pictures (evaluate)": run.evaluation,
    }
    return tuple(words for words, part in parts.items() if part is None)


def _method_panels(run: Run) -> tuple[Panel, ...]:
    about = run.finetuning.methods if run.finetuning else {}
    return tuple(
        Panel(
            title=tables.method_name(method),
            remark=_start_and_loss(about.get(method, {})),
            png=figures.curves_figure(run.curves[method]),
        )
        for method in in_order(run.curves)
    )


def _start_and_loss(about: Mapping[str, Any]) -> str:
    parts = {"starts from": about.get("initial"), "minimises": about.get("loss")}
    return "; ".join(f"{verb} {words}" for verb, words in parts.items() if words)


def _source_panels(run: Run) -> tuple[Panel, ...]:
    return tuple(
        Panel(title=curve.name, remark="", png=figures.curves_figure((curve,)))
        for curve in run.source_curves
    )
