"""The files of a run as plain records.

A file that is not there is None or empty: a run may have stopped early. A file that is broken is an
error that names it.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxfer.errors import UserError

METHODS = ("scratch", "plain", "weighted")
FEWEST_SUBJECTS = 3


@dataclass(frozen=True)
class Metric:
    """What a transferability metric means, as the selection recorded it."""

    name: str
    direction: str
    range: str
    meaning: str
    reference: str


@dataclass(frozen=True)
class Decision:
    """One step of the selection that kept or removed a source, and why."""

    step: str
    kept: bool
    reason: str


@dataclass(frozen=True)
class Source:
    """One source of the ranking; a score that is not available is NaN; rank is None if removed."""

    rank: int | None
    name: str
    modality: str
    roi: str
    synthetic: bool
    kept: bool
    decisions: tuple[Decision, ...]
    scores: Mapping[str, float]
    roi_similarity: float
    roi_pairs: int
    roi_pairs_empty: int
    validation_dice: float
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Ranking:
    """The outcome of the select stage: ranked sources first, removed ones after."""

    target: str
    rank_by: str
    label_entropy: float
    n_voxels: int
    layer: str
    notes: tuple[str, ...]
    metrics: tuple[Metric, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Curve:
    """A training curve: loss against optimiser step."""

    name: str
    steps: tuple[float, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Finetuning:
    """The outcome of the finetune stage: where each method started, what it minimised, the map."""

    source: str
    methods: Mapping[str, Mapping[str, Any]]
    steps: int
    seeds: tuple[int, ...]
    risk: Mapping[str, Any]


@dataclass(frozen=True)
class CaseScore:
    """One line of the evaluation: one method, seed, case and label; Dice in [0, 1], HD95 in mm."""

    method: str
    seed: int
    case: str
    subject: str
    label: str
    dice: float
    hd95: float
    n_reference: int
    n_prediction: int
    outcome: str


@dataclass(frozen=True)
class TestCase:
    """Where the image, truth, predictions (by method, by seed) and risk map of a test case lie."""

    __test__ = False

    case: str
    subject: str
    image: Path
    label: Path
    predictions: Mapping[str, Mapping[int, Path]]
    risk: Path | None


@dataclass(frozen=True)
class LabelValues:
    """A class's value in a prediction file, and its group's values in a reference file."""

    name: str
    prediction: int
    reference: tuple[int, ...]


@dataclass(frozen=True)
class MethodSummary:
    """One method over all test cases, with the counts behind its means."""

    method: str
    dice_mean: float
    dice_interval: tuple[float, float]
    hd95_mean_finite: float
    n_cases: int
    outcomes: Mapping[str, int]


@dataclass(frozen=True)
class Gain:
    """What one method gained over another, in Dice, over the patients where both are defined."""

    over: str
    under: str
    mean: float
    interval: tuple[float, float]
    per_subject: Mapping[str, float]

    @property
    def n(self) -> int:
        return len(self.per_subject)

    @property
    def below(self) -> int:
        """The number of patients for whom the first method is the worse one."""
        return sum(gain < 0 for gain in self.per_subject.values())

    @property
    def above(self) -> int:
        """The number of patients for whom the first method is the better one."""
        return sum(gain > 0 for gain in self.per_subject.values())

    @property
    def lowest(self) -> tuple[str, float]:
        """The patient with the smallest gain, and that gain."""
        return min(self.per_subject.items(), key=lambda item: item[1], default=("", math.nan))

    @property
    def reading(self) -> str:
        """What the interval allows to say: higher, lower, or that it cannot be told.

        An interval over one or two subjects is as narrow as chance makes it, and allows nothing.
        """
        low, high = self.interval
        if self.n < FEWEST_SUBJECTS:
            return "cannot be told"
        if low > 0:
            return "higher"
        return "lower" if high < 0 else "cannot be told"


@dataclass(frozen=True)
class Evaluation:
    """The outcome of the evaluate stage; what the summary adds in words stands in notes."""

    scores: tuple[CaseScore, ...]
    methods: tuple[MethodSummary, ...]
    gains: tuple[Gain, ...]
    notes: Mapping[str, Any]
    cases: tuple[TestCase, ...]
    labels: tuple[LabelValues, ...]


@dataclass(frozen=True)
class Problem:
    """One finding of the check of the input files."""

    severity: str
    file: str
    what: str
    found: str
    allowed: str
    mend: str


@dataclass(frozen=True)
class Run:
    """All that a run wrote, as far as it went."""

    workdir: Path
    config: Mapping[str, Any]
    about: Mapping[str, Any] | None
    prepared: Mapping[str, Any] | None
    split: Mapping[str, tuple[str, ...]] | None
    problems: tuple[Problem, ...] | None
    ranking: Ranking | None
    source_curves: tuple[Curve, ...]
    curves: Mapping[str, tuple[Curve, ...]]
    finetuning: Finetuning | None
    risk_maps: Mapping[str, Mapping[str, Path]]
    evaluation: Evaluation | None

    @property
    def name(self) -> str:
        return str((self.about or {}).get("name") or self.config.get("name") or self.workdir.name)

    @property
    def synthetic(self) -> bool:
        """Whether the target's subjects are simulated: said at the start or once they were made."""
        said, made = self.about or {}, self.prepared or {}
        return bool(said.get("synthetic") or made.get("synthetic_target"))


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
    return Run(
        workdir=workdir,
        config=_record(workdir / "config.json") or {},
        about=_record(workdir / "run.json"),
        prepared=_record(workdir / "prepare/prepared.json"),
        split=_split(workdir / "prepare/splits.json"),
        problems=_problems(workdir / "prepare/verify.json"),
        ranking=_ranking(workdir / "select/selection.json"),
        source_curves=_source_curves(workdir / "sources"),
        curves=_method_curves(workdir / "finetune"),
        finetuning=_finetuning(workdir / "finetune/summary.json"),
        risk_maps=_risk_maps(workdir / "risk"),
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


def number(value: float | str | None) -> float:
    """A number of a record; null is NaN."""
    return float("nan") if value is None else float(value)


def _json(path: Path) -> Any:
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def _record(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    with reading(path):
        return dict(_json(path))


def _split(path: Path) -> dict[str, tuple[str, ...]] | None:
    if not path.is_file():
        return None
    with reading(path):
        parts = _json(path)["target"]
        return {part: tuple(str(case) for case in cases) for part, cases in parts.items()}


def _problems(path: Path) -> tuple[Problem, ...] | None:
    if not path.is_file():
        return None
    fields = ("severity", "file", "what", "found", "allowed", "mend")
    with reading(path):
        return tuple(
            Problem(**{field: _words(entry.get(field)) for field in fields})
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
            rank_by=str(record["rank_by"]),
            label_entropy=number(record.get("label_entropy")),
            n_voxels=int(record["n_voxels"]),
            layer=_words(record.get("layer")),
            notes=tuple(str(note) for note in record.get("notes", ())),
            # The metric that ranks stands first wherever metrics are listed.
            metrics=tuple(sorted(metrics, key=lambda metric: metric.name != record["rank_by"])),
            sources=tuple(_source(entry) for entry in record["sources"]),
        )


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
        roi_similarity=number(entry.get("roi_similarity")),
        roi_pairs=int(entry.get("roi_pairs") or 0),
        roi_pairs_empty=int(entry.get("roi_pairs_empty") or 0),
        validation_dice=number(entry.get("validation_dice")),
        flags=tuple(str(flag) for flag in entry.get("flags", ())),
    )


def _curve(path: Path, name: str) -> Curve:
    """The lines of a metrics.jsonl that hold a loss."""
    with reading(path):
        text = path.read_text(encoding="utf-8")
        lines = [dict(json.loads(line)) for line in text.splitlines() if line.strip()]
        points = [(float(line["step"]), number(line["loss"])) for line in lines if "loss" in line]
    return Curve(name, tuple(step for step, _ in points), tuple(loss for _, loss in points))


def _source_curves(folder: Path) -> tuple[Curve, ...]:
    return tuple(
        _curve(path, _card_name(path.parent)) for path in sorted(folder.glob("*/metrics.jsonl"))
    )


def _card_name(folder: Path) -> str:
    """The name of the task on a source's card; without one, the folder's name."""
    card = folder / "card.json"
    if not card.is_file():
        return folder.name
    with reading(card):
        task = _json(card).get("task") or {}
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
        )


def _risk_maps(folder: Path) -> dict[str, dict[str, Path]]:
    """The stored maps of the training cases: case → reading (instance, positional) → file."""
    maps: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.nii.gz")):
        case, _, kind = path.name.removesuffix(".nii.gz").rpartition("_")
        if case and kind in ("instance", "positional"):
            maps.setdefault(case, {})[kind] = path
    return maps


def _evaluation(workdir: Path) -> Evaluation | None:
    folder = workdir / "evaluate"
    table, summary = folder / "metrics.csv", folder / "summary.json"
    if not (table.is_file() and summary.is_file()):
        return None
    with reading(summary):
        record = dict(_json(summary))
        methods, gains = record.pop("methods"), record.pop("gain", None) or {}
        method_summaries = tuple(_method_summary(m, methods[m]) for m in in_order(methods))
        # What the weighting adds stands first: the question that a run answers last.
        pairs = sorted(gains, key=lambda pair: pair != "weighted - plain")
        method_gains = tuple(_gain(pair, gains[pair]) for pair in pairs)
        if not methods:
            raise ValueError("it summarises no method")
    return Evaluation(
        scores=_case_scores(table),
        methods=method_summaries,
        gains=method_gains,
        notes=record,
        cases=_test_cases(folder / "cases.json", workdir),
        labels=_label_values(folder / "labels.json"),
    )


def in_order(methods: Iterable[str]) -> tuple[str, ...]:
    """Methods as they are always listed: scratch, plain, weighted, then any others by name."""
    return tuple(sorted(set(methods), key=lambda m: ((*METHODS, m).index(m), m)))


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
    with reading(path), path.open(newline="", encoding="utf-8") as table:
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
