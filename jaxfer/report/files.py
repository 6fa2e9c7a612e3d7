"""Reading a run's folder.

A file that is not there is None or empty: a run may have stopped early. A file that is broken is an
error that names it.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxfer.errors import UserError
from jaxfer.files import MOST_BYTES_OF_LOG, parse_json, read_json, read_text
from jaxfer.report.numbers import number
from jaxfer.report.records import (
    CaseScore,
    Collapse,
    Curve,
    Decision,
    Evaluation,
    Finetuning,
    Gain,
    LabelValues,
    MethodSummary,
    Metric,
    Paths,
    Problem,
    Ranking,
    Run,
    Source,
    SourcePath,
    TestCase,
    in_order,
    risk_weighted,
)


def read_run(workdir: Path) -> Run:
    """Reads the files of a run.

    Args:
        workdir: the folder that the run wrote.

    Returns:
        The records; a stage that has not run is None or empty.

    Raises:
        UserError: the folder is not a run's, or a file in it cannot be read.
    """
    if not (workdir / "config.json").is_file():
        raise UserError(
            f"{workdir} is not the folder of a run",
            found="no config.json in it",
            allowed="a folder that a run has written",
            mend="name the workdir of a run",
        )
    finetuning = _finetuning(workdir / "finetune/summary.json")
    return Run(
        workdir=workdir,
        config=_record(workdir / "config.json") or {},
        about=_record(workdir / "run.json"),
        prepared=_record(workdir / "prepare/prepared.json"),
        split=_split(workdir / "prepare/splits.json"),
        problems=read_problems(workdir),
        ranking=_ranking(workdir / "select/selection.json"),
        paths=_paths(workdir / "select/paths.json"),
        scoring_seconds=_scoring_seconds(workdir / "select/seconds.json"),
        finetuning_seconds=_finetuning_seconds(workdir / "finetune"),
        source_curves=_source_curves(workdir / "sources"),
        curves=_method_curves(workdir / "finetune"),
        finetuning=finetuning,
        risk_maps=_risk_maps(workdir / "risk"),
        weights=_weights(workdir, finetuning) if finetuning else {},
        evaluation=_evaluation(workdir),
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong while a file is read into a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{path} cannot be read",
            found=f"{type(error).__name__}: {error}",
            allowed="the file as its stage wrote it",
            mend="remove the file and run again: the stage that writes it is then redone",
        ) from error


def _json(path: Path) -> Any:
    with reading(path):
        return read_json(path)


def _record(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    with reading(path):
        return dict(_json(path))


def _split(path: Path) -> dict[str, tuple[str, ...]] | None:
    """The target's cases by part; parts without a case are left out."""
    if not path.is_file():
        return None
    with reading(path):
        parts = _json(path)["target"]
        return {
            part: tuple(str(case) for case in parts[part])
            for part in ("train", "validation", "test")
            if parts.get(part)
        }


def read_problems(workdir: Path) -> tuple[Problem, ...] | None:
    """What verification found in the files of the data sets, or None if none has run."""
    path = workdir / "verify/verify.json"
    if not path.is_file():
        return None
    fields = ("severity", "file", "problem", "found", "expected", "mend")
    with reading(path):
        return tuple(
            Problem(*(_words(entry.get(field)) for field in fields))
            for entry in _json(path)["problems"]
        )


def _words(value: object) -> str:
    return "" if value is None else str(value)


def _ranking(path: Path) -> Ranking | None:
    if not path.is_file():
        return None
    with reading(path):
        record = _json(path)
        metrics = tuple(
            Metric(
                name=str(name),
                direction=str(about.get("direction", "")),
                range=str(about.get("range", "")),
                meaning=str(about.get("meaning", "")),
                reference=str(about.get("reference", "")),
            )
            for name, about in record["metrics"].items()
        )
        return Ranking(
            target=str(record["target"]),
            modality=str(record.get("modality", "hard")),
            rank_by=str(record["rank_by"]),
            label_entropy=number(record.get("label_entropy")),
            n_voxels=int(record["n_voxels"]),
            layers=tuple(str(layer) for layer in record.get("layers", ())),
            repetitions=int(record.get("repetitions") or 0),
            samples=int(record.get("samples") or 0),
            notes=tuple(str(note) for note in record.get("notes", ())),
            # The metric that ranks stands first wherever metrics are listed.
            metrics=tuple(sorted(metrics, key=lambda metric: metric.name != record["rank_by"])),
            sources=tuple(_source(entry) for entry in record["sources"]),
        )


def _paths(path: Path) -> Paths | None:
    if not path.is_file():
        return None
    with reading(path):
        record = _json(path)
        found = tuple(
            SourcePath(
                start=str(entry["source"]),
                sources=tuple(str(name) for name in entry["path"]),
                legs=tuple(number(leg) for leg in entry["legs"]),
                cost=number(entry["cost"]),
                direct_cost=number(entry["direct_cost"]),
            )
            for entry in record["paths"]
        )
        alpha, beta = number(record["alpha"]), number(record["beta"])
        return Paths(str(record["target"]), str(record["cost"]), alpha, beta, found)


def _scoring_seconds(path: Path) -> dict[str, float]:
    """Where the time of scoring all sources went, in seconds."""
    sums: dict[str, float] = {}
    with reading(path):
        for of_source in (_record(path) or {}).values():
            for part, seconds in of_source.items():
                sums[str(part)] = sums.get(str(part), 0.0) + number(seconds)
    return sums


def _finetuning_seconds(folder: Path) -> float:
    """Of one fine-tuning, the mean over those that were timed; NaN without any."""
    summary = _finetuning(folder / "summary.json")
    if summary is None:
        return math.nan
    found = []
    for path in sorted(folder.glob("*/seed*/seconds.json")):
        with reading(path):
            found.append(number((_record(path) or {}).get("per_step")))
    timed = [seconds * summary.steps for seconds in found if not math.isnan(seconds)]
    return math.fsum(timed) / len(timed) if timed else math.nan


def _source(entry: Mapping[str, Any]) -> Source:
    return Source(
        rank=None if entry["rank"] is None else int(entry["rank"]),
        name=str(entry["source"]),
        modality=_words(entry.get("modality")),
        roi=_words(entry.get("roi")),
        synthetic=bool(entry.get("synthetic", False)),
        kept=bool(entry["kept"]),
        decisions=tuple(
            Decision(str(step["step"]), bool(step["kept"]), str(step["reason"]))
            for step in entry.get("decisions", ())
        ),
        scores={str(name): number(score) for name, score in entry["scores"].items()},
        balanced={str(k): number(v) for k, v in entry.get("balanced", {}).items()},
        intervals={
            str(k): (number(low), number(high))
            for k, (low, high) in entry.get("intervals", {}).items()
        },
        standard_errors={str(k): number(v) for k, v in entry.get("standard_errors", {}).items()},
        reasons={
            str(name): tuple(str(reason) for reason in reasons)
            for name, reasons in entry.get("reasons", {}).items()
        },
        probability_best=number(entry.get("probability_best")),
        roi_similarity=number(entry.get("roi_similarity")),
        roi_pairs=int(entry.get("roi_pairs") or 0),
        roi_pairs_empty=int(entry.get("roi_pairs_empty") or 0),
        modality_distance=number(entry.get("modality_distance")),
        modality_interval=_interval(entry.get("modality_distance_interval")),
        validation_dice=number(entry.get("validation_dice")),
        flags=tuple(str(flag) for flag in entry.get("flags", ())),
    )


def _curve(path: Path, name: str) -> Curve:
    """The lines of a metrics.jsonl that hold a loss."""
    with reading(path):
        text = read_text(path, MOST_BYTES_OF_LOG)
        lines = [dict(parse_json(line)) for line in text.split("\n") if line.strip()]
        points = [(float(line["step"]), number(line["loss"])) for line in lines if "loss" in line]
    return Curve(name, tuple(step for step, _ in points), tuple(loss for _, loss in points))


def _source_curves(folder: Path) -> tuple[Curve, ...]:
    """Of the sources, then of those that were trained along a path."""
    logs = (*sorted(folder.glob("*/metrics.jsonl")), *sorted(folder.glob("along/**/metrics.jsonl")))
    return tuple(_curve(path, _card_name(path.parent)) for path in logs)


def _card_name(folder: Path) -> str:
    """The name of the task on a source's card, or its path; without a card, the folder's name."""
    card = folder / "card.json"
    if not card.is_file():
        return folder.name
    with reading(card):
        record = _json(card)
        if record.get("path"):
            return " → ".join(map(str, record["path"]))
        task = record.get("task") or {}
        parts = [str(task[key]) for key in ("dataset", "site", "modality", "roi") if task.get(key)]
        return str(task.get("name") or "/".join(parts) or folder.name)


def _method_curves(folder: Path) -> dict[str, tuple[Curve, ...]]:
    curves: dict[str, list[tuple[int, Curve]]] = {}
    for path in folder.glob("*/seed*/metrics.jsonl"):
        with reading(path):
            seed = int(path.parent.name.removeprefix("seed"))
        curve = _curve(path, f"seed {seed}")
        curves.setdefault(path.parent.parent.name, []).append((seed, curve))
    return {
        method: tuple(curve for _, curve in sorted(seeds, key=lambda item: item[0]))
        for method, seeds in sorted(curves.items())
    }


def _finetuning(path: Path) -> Finetuning | None:
    if not path.is_file():
        return None
    with reading(path):
        record = _json(path)
        return Finetuning(
            source=_words(record.get("source")),
            methods={str(method): dict(about) for method, about in record["methods"].items()},
            steps=int(record["steps"]),
            seeds=tuple(int(seed) for seed in record["seeds"]),
            risk=dict(record.get("risk") or {}),
            path=tuple(_words(name) for name in record.get("path") or ()),
            leaves={
                str(fate): tuple(str(path) for path in paths)
                for fate, paths in (record.get("leaves") or {}).items()
            },
        )


def _risk_maps(folder: Path) -> dict[str, dict[str, Path]]:
    """The stored maps of the training cases: case → reading (instance, positional) → file."""
    maps: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.nii.gz")):
        case, _, kind = path.name.removesuffix(".nii.gz").rpartition("_")
        if case and kind in ("instance", "positional"):
            maps.setdefault(case, {})[kind] = path
    return maps


def _weights(workdir: Path, finetuning: Finetuning) -> dict[str, dict[str, Path]]:
    """What the methods made of a map: methods → case → file; those that made the same, once."""
    found: dict[str, dict[str, Path]] = {}
    folders = {m: str(about.get("weights") or "") for m, about in finetuning.methods.items()}
    for folder in dict.fromkeys(filter(None, folders.values())):
        files = sorted((workdir / folder).glob("*_weights.nii.gz"))
        if files:
            methods = ", ".join(method for method, own in folders.items() if own == folder)
            found[methods] = {file.name.removesuffix("_weights.nii.gz"): file for file in files}
    return found


def _evaluation(workdir: Path) -> Evaluation | None:
    folder = workdir / "evaluate"
    table, summary = folder / "metrics.csv", folder / "summary.json"
    if not (table.is_file() and summary.is_file()):
        return None
    with reading(summary):
        record = dict(_json(summary))
        methods, gains = record.pop("methods"), record.pop("gain", None) or {}
        transfer = record.pop("transfer", None) or {}
        collapse = record.pop("collapse", None) or {"methods": {}}
        method_summaries = tuple(_method_summary(m, methods[m]) for m in in_order(methods))
        # What the weighting adds stands first: the question that a run answers last.
        question = f"{risk_weighted(methods)} - plain"
        pairs = sorted(gains, key=lambda pair: pair != question)
        method_gains = tuple(_gain(pair, gains[pair]) for pair in pairs)
        readings = {str(method): str(about["reading"]) for method, about in transfer.items()}
        networks = sum(int(about["networks"]) for about in collapse["methods"].values())
        collapses = tuple(
            Collapse(str(method), int(one["seed"]), tuple(str(name) for name in one["classes"]))
            for method, about in collapse["methods"].items()
            for one in about["collapsed"]
        )
        if not methods:
            raise ValueError("it summarises no method")
    return Evaluation(
        scores=_case_scores(table),
        methods=method_summaries,
        gains=method_gains,
        notes=record,
        cases=_test_cases(folder / "cases.json", workdir),
        labels=_label_values(folder / "labels.json"),
        transfer=readings,
        collapses=collapses,
        networks=networks,
    )


def _method_summary(method: str, entry: Mapping[str, Any]) -> MethodSummary:
    outcomes = entry.get("outcomes") or {}
    return MethodSummary(
        method=method,
        dice_mean=number(entry.get("dice_mean")),
        dice_interval=_interval(entry.get("dice_interval")),
        hd95_mean_finite=number(entry.get("hd95_mean_finite")),
        n_cases=int(entry.get("n_cases") or 0),
        outcomes={str(name): int(count) for name, count in outcomes.items()},
    )


def _gain(pair: str, entry: Mapping[str, Any]) -> Gain:
    over, dash, under = pair.partition(" - ")
    if not dash:
        raise ValueError(f"gain of {pair!r}: expected 'one - other'")
    gains = {str(s): number(value) for s, value in (entry.get("per_subject") or {}).items()}
    return Gain(
        over=over,
        under=under,
        mean=number(entry.get("mean")),
        interval=_interval(entry.get("interval")),
        per_subject={s: value for s, value in gains.items() if not math.isnan(value)},
    )


def _interval(ends: Sequence[float | None] | None) -> tuple[float, float]:
    low, high = ends or (None, None)
    return number(low), number(high)


def _case_scores(path: Path) -> tuple[CaseScore, ...]:
    with reading(path):
        table = io.StringIO(read_text(path, MOST_BYTES_OF_LOG), newline="")
        scores = tuple(
            CaseScore(
                method=row["method"],
                seed=int(row["seed"]),
                case=row["case"],
                subject=row["subject"],
                label=row["label"],
                dice=float(row["dice"]),
                hd95=float(row["hd95"]),
                n_reference=int(row["n_reference"]),
                n_prediction=int(row["n_prediction"]),
                outcome=row["outcome"],
            )
            for row in csv.DictReader(table)
        )
        if not scores:
            raise ValueError("it holds no score")
        return scores


def _test_cases(path: Path, workdir: Path) -> tuple[TestCase, ...]:
    if not path.is_file():
        return ()
    with reading(path):
        return tuple(
            TestCase(
                case=str(entry["case"]),
                subject=str(entry["subject"]),
                image=workdir / entry["image"],
                label=workdir / entry["label"],
                predictions={
                    method: {int(seed): workdir / file for seed, file in seeds.items()}
                    for method, seeds in entry["predictions"].items()
                },
                risk=workdir / entry["risk"] if entry.get("risk") else None,
                channel=int(entry.get("channel") or 0),
                harm={
                    str(method): (float(about["worse"]), float(about["better"]))
                    for method, about in (entry.get("harm") or {}).items()
                },
            )
            for entry in _json(path)
        )


def _label_values(path: Path) -> tuple[LabelValues, ...]:
    if not path.is_file():
        return ()
    with reading(path):
        return tuple(
            LabelValues(
                str(name), int(values["prediction"]), tuple(int(v) for v in values["reference"])
            )
            for name, values in _json(path).items()
        )
