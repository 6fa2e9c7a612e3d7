"""What a study knows of a group's sources before it fine-tunes them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from jaxfer.data.sampler import TaskCase
from jaxfer.evaluation import mean_over_subjects
from jaxfer.files import NUMBER_OR_NULL
from jaxfer.models.zoo import Source
from jaxfer.selection.roi import SIMILARITIES, foreground_masks, roi_similarity
from jaxfer.stages.evaluate import measured, predicted_classes
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.run import Run, read_json, write_json
from jaxfer.study.tables import ScoreRow, scores_of_record
from jaxfer.tasks import Task

_RECORD = {
    "select": str,
    "settings": str,
    "rows": [
        {"source": str, "score": str} | dict.fromkeys(("value", "low", "high"), NUMBER_OR_NULL)
    ],
}


def _zero_shot(run: Run, prepared: Prepared, source: Source, cases: list[TaskCase]) -> float:
    """Mean Dice of the source's own prediction on the target's training subjects; NaN unless its
    classes have the target's names."""
    target = Task.parse(run.config.target)
    if tuple(source.card["class_names"]) != cases[0].roi.class_names:
        return math.nan
    results = [
        result
        for case in cases
        for result in measured(
            prepared,
            target,
            case,
            predicted_classes(run, source.params, case),
            method="zero-shot",
            seed=0,
        )
    ]
    return mean_over_subjects(results)


def _baselines(
    run: Run, prepared: Prepared, task: Task, source: Source, cases: list[TaskCase]
) -> list[ScoreRow]:
    """What anyone could rank by without a metric of transferability."""
    target, select = Task.parse(run.config.target), run.config.select
    rows = [
        ScoreRow(task.name, "source_subjects", float(len(source.card["train_subjects"]))),
        ScoreRow(task.name, "same_modality", float(task.modality == target.modality)),
        ScoreRow(task.name, "zero_shot_dice", _zero_shot(run, prepared, source, cases)),
    ]
    masks = foreground_masks([case.classes() for case in cases])
    for kind in SIMILARITIES:
        found = roi_similarity(
            source.masks,
            masks,
            k1=select.ssim_k1,
            k2=select.ssim_k2,
            kind=kind,
            seed=run.config.seed,
        )
        name = f"roi_{kind}"
        rows.append(ScoreRow(task.name, name, found.mean, found.low, found.high))
    return rows


def write_scores(
    run: Run, prepared: Prepared, sources: Mapping[Task, Source], settings: str
) -> None:
    """Writes ``scores.json`` of a group whose selection is done, unless it is there already.

    Args:
        run: of the group.
        prepared: its data.
        sources: its source models.
        settings: a mark of the settings that decide the group's numbers.
    """
    folder, file = run.workdir / "select", run.workdir / "scores.json"
    mark = read_json(folder / "done.json", {"fingerprint": str})["fingerprint"]
    if file.is_file():
        before = read_json(file, _RECORD)
        if (before["select"], before["settings"]) == (mark, settings):
            return
    cases = prepared.cases(Task.parse(run.config.target), "train")
    selection = read_json(folder / "selection.json", {"sources": [dict]})
    seconds = read_json(folder / "seconds.json", {str: {str: (int, float)}})
    rows = []
    with run.progress("baselines", len(sources)) as advance:
        for record in selection["sources"]:
            task = Task.parse(record["source"])
            if task not in sources:
                continue
            rows += scores_of_record(record)
            rows += _baselines(run, prepared, task, sources[task], cases)
            spent = sum(seconds[task.name].values())
            rows.append(ScoreRow(task.name, "selection_seconds", spent))
            advance(note=task.name)
    told = [dataclasses.asdict(row) for row in rows]
    write_json(file, {"select": mark, "settings": settings, "rows": told})


def read_scores(folder: Path, settings: str) -> list[ScoreRow]:
    """The scores of a group with these settings; none if it has not come to them yet."""
    file = folder / "scores.json"
    record = read_json(file, _RECORD) if file.is_file() else None
    if record is None or record["settings"] != settings:
        return []

    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    return [
        ScoreRow(r["source"], r["score"], number(r["value"]), number(r["low"]), number(r["high"]))
        for r in record["rows"]
    ]
