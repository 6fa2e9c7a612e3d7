"""What a run has left behind, as plain records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RISK_WEIGHTED = ("plain_where", "weighted")
"""The methods that answer whether heeding the risk helps: the first of them that a run has."""
METHODS = ("scratch", "plain", *RISK_WEIGHTED)
FEWEST_SUBJECTS = 3


@dataclass(frozen=True)
class Metric:
    """What a score means, as the selection recorded it; `name` holds the layer, if it has one."""

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
    balanced: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    standard_errors: Mapping[str, float]
    reasons: Mapping[str, tuple[str, ...]]
    probability_best: float
    roi_similarity: float
    roi_pairs: int
    roi_pairs_empty: int
    modality_distance: float
    modality_interval: tuple[float, float]
    validation_dice: float
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Ranking:
    """The outcome of the select stage: ranked sources first, removed ones after."""

    target: str
    modality: str
    rank_by: str
    label_entropy: float
    n_voxels: int
    layers: tuple[str, ...]
    repetitions: int
    samples: int
    notes: tuple[str, ...]
    metrics: tuple[Metric, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class SourcePath:
    """The cheapest path from a source to the target; without sources: none leads there."""

    start: str
    sources: tuple[str, ...]
    legs: tuple[float, ...]
    cost: float
    direct_cost: float


@dataclass(frozen=True)
class Paths:
    """What the search for paths has found: one from each source, and what they cost by."""

    target: str
    cost: str
    alpha: float
    beta: float
    found: tuple[SourcePath, ...]


@dataclass(frozen=True)
class Curve:
    """A training curve: loss against optimiser step."""

    name: str
    steps: tuple[float, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Finetuning:
    """The outcome of the finetune stage: where each method started, what it minimised, the map.

    `path` are the sources whose networks were trained one after the other, the last one `source`;
    `leaves` are the paths of the parameters that were loaded, re-made, and left unused.
    """

    source: str
    methods: Mapping[str, Mapping[str, Any]]
    steps: int
    seeds: tuple[int, ...]
    risk: Mapping[str, Any]
    leaves: Mapping[str, tuple[str, ...]]
    path: tuple[str, ...] = ()


PUBLISHED_SHARE = 1 / 67
"""Of the time of fine-tuning, for choosing by an estimator: what its authors' abstract claims (Tan
et al., "Transferability-guided cross-domain cross-task transfer learning", ICIP 2023)."""


@dataclass(frozen=True)
class Cost:
    """What it took to score all sources, beside fine-tuning from each of them, in seconds."""

    sources: int
    selecting: float
    one_finetuning: float

    @property
    def finetuning(self) -> float:
        """From every source, once."""
        return self.sources * self.one_finetuning

    @property
    def share(self) -> float:
        """Of the latter that the former took."""
        return self.selecting / self.finetuning


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
    """Where the image, truth, predictions (by method, by seed) and risk map of a test case lie.

    Of an image file with several volumes, the channel was used. `harm` are the voxels of each
    method that starts from the source which are worse, and better, than from scratch.
    """

    __test__ = False

    case: str
    subject: str
    image: Path
    label: Path
    predictions: Mapping[str, Mapping[int, Path]]
    risk: Path | None
    channel: int = 0
    harm: Mapping[str, tuple[float, float]] = field(default_factory=dict)


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
class Collapse:
    """A network that has lost classes."""

    method: str
    seed: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """The outcome of the evaluate stage; what the summary adds in words stands in notes.

    `transfer` says of each method that starts from the source whether it "helps" or "hurts"
    against training from scratch, or that it "cannot be told"; `networks` counts those that were
    evaluated.
    """

    scores: tuple[CaseScore, ...]
    methods: tuple[MethodSummary, ...]
    gains: tuple[Gain, ...]
    notes: Mapping[str, Any]
    cases: tuple[TestCase, ...]
    labels: tuple[LabelValues, ...]
    transfer: Mapping[str, str] = field(default_factory=dict)
    collapses: tuple[Collapse, ...] = ()
    networks: int = 0


@dataclass(frozen=True)
class Problem:
    """One finding of the check of the input files."""

    severity: str
    file: str
    problem: str
    found: str
    expected: str
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
    paths: Paths | None
    scoring_seconds: Mapping[str, float]
    finetuning_seconds: float
    source_curves: tuple[Curve, ...]
    curves: Mapping[str, tuple[Curve, ...]]
    finetuning: Finetuning | None
    risk_maps: Mapping[str, Mapping[str, Path]]
    weights: Mapping[str, Mapping[str, Path]]
    evaluation: Evaluation | None

    @property
    def name(self) -> str:
        return str((self.about or {}).get("name") or self.config.get("name") or self.workdir.name)

    @property
    def cost(self) -> Cost | None:
        """What choosing the source cost; None as long as either side has not been measured."""
        selecting, number = math.fsum(self.scoring_seconds.values()), len(self.scored_sources)
        if not (number and selecting > 0 and self.finetuning_seconds > 0):
            return None
        return Cost(number, selecting, self.finetuning_seconds)

    @property
    def scored_sources(self) -> tuple[Source, ...]:
        """The sources that have any score."""
        sources = self.ranking.sources if self.ranking else ()
        return tuple(s for s in sources if not all(math.isnan(v) for v in s.scores.values()))

    @property
    def synthetic(self) -> bool:
        """Whether the target's subjects do not exist."""
        return bool((self.prepared or {}).get("synthetic_target"))


def in_order(methods: Iterable[str]) -> tuple[str, ...]:
    """Methods as they are always listed: scratch, plain, the risk-weighted, then others by name."""
    return tuple(sorted(set(methods), key=lambda m: ((*METHODS, m).index(m), m)))


def risk_weighted(methods: Iterable[str]) -> str | None:
    """The risk-weighted method among these."""
    found = set(methods)
    return next((m for m in RISK_WEIGHTED if m in found), None)
