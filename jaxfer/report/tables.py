"""The rows of the report's tables, computed from the records of a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxfer.report.numbers import ABSENT, count_text, dice_text
from jaxfer.report.records import (
    PUBLISHED_SHARE,
    CaseScore,
    Cost,
    Evaluation,
    Finetuning,
    Gain,
    Metric,
    Paths,
    Ranking,
    Source,
    in_order,
    risk_weighted,
)

METHOD_NAMES = {
    "scratch": "from scratch",
    "plain": "plain fine-tuning",
    "plain_where": "fine-tuning weighted by risk within classes",
    "weighted": "risk-weighted fine-tuning",
}
METRIC_NAMES = {
    "aggregate": "several scores together",
    "leep": "LEEP",
    "nce": "NCE",
    "h_score": "H-score",
    "regularized_h_score": "regularised H-score",
    "log_gbc": "log GBC",
    "logme": "LogME",
    "n_leep": "N-LEEP",
    "gbc": "GBC",
    "transrate": "TransRate",
    "lda": "LDA",
    "sfda": "SFDA",
    "etran": "ETran",
    "etran_energy": "ETran energy",
    "ncti": "NCTI",
    "ncti_ncc": "NCTI ncc",
    "ncti_seli": "NCTI seli",
    "ncti_vc": "NCTI vc",
    "parc": "PARC",
    "emms": "EMMS",
    "knn_accuracy": "kNN",
    "knn_balanced_accuracy": "kNN balanced",
    "pactran_dirichlet": "PACTran Dirichlet",
    "pactran_gamma": "PACTran Gamma",
    "pactran_gaussian": "PACTran Gaussian",
    "f_otce": "F-OTCE",
    "jc_otce": "JC-OTCE",
    "otce": "OTCE",
    "cc_fv": "CC-FV",
    "effective_invariance": "effective invariance",
    "hamming_distance": "Hamming distance",
}
MOST_METHODS = 3
"""Methods of which every pair is compared; of more, only what answers a question."""
MOST_SCORES = 4
"""Scores that stand beside the sources; more of them have a table of their own."""


@dataclass(frozen=True)
class RankingRow:
    """One source as it stands in the ranking, with the reasons that removed it, if any."""

    source: Source
    leads_in: frozenset[str]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class PatientRow:
    """One patient and label: Dice and HD95 by method, means over the patient's cases and seeds."""

    subject: str
    label: str
    n_reference: float
    dice: Mapping[str, float]
    hd95: Mapping[str, float]
    remarks: tuple[str, ...]

    def gain(self, over: str, under: str) -> float:
        """Dice of one method minus Dice of another; NaN when either is not defined."""
        return self.dice.get(over, math.nan) - self.dice.get(under, math.nan)


def method_name(method: str) -> str:
    """A fine-tuning method in words."""
    return METHOD_NAMES.get(method, method.replace("_", " "))


def metric_name(score: str) -> str:
    """A score as the field writes its metric, with the layer if it has one."""
    metric, _, layer = score.partition("@")
    name = METRIC_NAMES.get(metric, metric)
    return f"{name} of {layer}" if layer else name


def head_of(score: str, layers: Sequence[str]) -> tuple[str, str]:
    """A score as the head of a column: the metric, and the layer where there are several."""
    metric, _, layer = score.partition("@")
    return METRIC_NAMES.get(metric, metric), layer if len(layers) > 1 else ""


def scored_metrics(ranking: Ranking) -> tuple[tuple[Metric, ...], tuple[Metric, ...]]:
    """The metrics that some source has a score of, and those that none has."""

    def known(metric: Metric) -> bool:
        scores = (source.scores.get(metric.name, math.nan) for source in ranking.sources)
        return metric.name == ranking.rank_by or not all(math.isnan(score) for score in scores)

    return (
        tuple(metric for metric in ranking.metrics if known(metric)),
        tuple(metric for metric in ranking.metrics if not known(metric)),
    )


def why_missing(ranking: Ranking, metric: Metric) -> str:
    """Why no source has a score of this metric, in the words of the sources."""
    reasons = (reason for s in ranking.sources for reason in s.reasons.get(metric.name, ()))
    return "; ".join(dict.fromkeys(reasons)) or "no source has a score"


def cost_words(cost: Cost) -> str:
    """What choosing the source cost beside fine-tuning from each, as a sentence."""
    share = cost.share
    told = f"1/{1 / share:.3g} of the time" if share < 1 else f"{share:.3g} times as long"
    return (
        f"Scoring {count_text(cost.sources, 'source')} took {cost.selecting:.1f} s; fine-tuning "
        f"from each would take about {cost.sources} × {cost.one_finetuning:.1f} s. That is "
        f"{told}; published for an estimator of this kind: 1/{1 / PUBLISHED_SHARE:.0f} of it."
    )


def mean_defined(values: Iterable[float]) -> float:
    """The mean of the values that are not NaN; NaN when there is none, inf when one is inf."""
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def ranking_rows(ranking: Ranking) -> tuple[RankingRow, ...]:
    """The rows of the ranking; a source leads in the metrics where no ranked source is better."""
    ranked = [source for source in ranking.sources if source.rank is not None]
    leaders = {
        metric.name: _leaders(ranked, metric.name, lowest=metric.direction.startswith("low"))
        for metric in ranking.metrics
    }
    return tuple(
        RankingRow(
            source=source,
            leads_in=frozenset(name for name, best in leaders.items() if source.name in best),
            reasons=tuple(step.reason for step in source.decisions if not step.kept),
        )
        for source in ranking.sources
    )


def _leaders(sources: Sequence[Source], metric: str, *, lowest: bool) -> frozenset[str]:
    scores = {source.name: source.scores.get(metric, math.nan) for source in sources}
    defined = [score for score in scores.values() if not math.isnan(score)]
    if len(sources) < 2 or not defined:
        return frozenset()
    best = min(defined) if lowest else max(defined)
    return frozenset(name for name, score in scores.items() if score == best)


def evaluated_methods(evaluation: Evaluation) -> tuple[str, ...]:
    """The methods that were evaluated, in their order."""
    return in_order(score.method for score in evaluation.scores)


def shown_gains(evaluation: Evaluation) -> tuple[Gain, ...]:
    """The gains to show: all of them; of many methods those over scratch, plain, and a control."""
    if len(evaluated_methods(evaluation)) <= MOST_METHODS:
        return evaluation.gains
    return tuple(
        gain
        for gain in evaluation.gains
        if gain.under in ("scratch", "plain")
        or gain.over.startswith(f"{gain.under}_")
        or gain.under.startswith(f"{gain.over}_")
    )


def patient_rows(evaluation: Evaluation) -> tuple[PatientRow, ...]:
    """One row for each patient and label, in the order of the evaluation's table."""
    groups: dict[tuple[str, str], list[CaseScore]] = {}
    for score in evaluation.scores:
        groups.setdefault((score.subject, score.label), []).append(score)
    methods = evaluated_methods(evaluation)
    return tuple(
        PatientRow(
            subject=subject,
            label=label,
            n_reference=mean_defined(float(score.n_reference) for score in group),
            dice={m: mean_defined(s.dice for s in group if s.method == m) for m in methods},
            hd95={m: mean_defined(s.hd95 for s in group if s.method == m) for m in methods},
            remarks=_remarks(group, methods),
        )
        for (subject, label), group in groups.items()
    )


def _remarks(group: Sequence[CaseScore], methods: Sequence[str]) -> tuple[str, ...]:
    """What is not a plain score: a missed, a spurious or an absent structure, and for which method.

    A method is followed by its share of the patient's cases and seeds where it is not all of them.
    """
    totals = Counter(score.method for score in group)
    remarks = []
    for outcome in dict.fromkeys(s.outcome for s in group if s.outcome != "scored"):
        counts = Counter(score.method for score in group if score.outcome == outcome)
        words = outcome.replace("_", " ")
        if counts == totals:
            remarks.append(words)
            continue
        shares = (
            m if counts[m] == totals[m] else f"{m} ({counts[m]} of {totals[m]})"
            for m in methods
            if counts[m]
        )
        remarks.append(f"{words}: {', '.join(shares)}")
    return tuple(remarks)


def subject_dice(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Subject → method → Dice, the mean over the subject's cases, labels and seeds."""
    dice: dict[str, dict[str, list[float]]] = {}
    methods = evaluated_methods(evaluation)
    for score in evaluation.scores:
        by_method = dice.setdefault(score.subject, {method: [] for method in methods})
        by_method[score.method].append(score.dice)
    return {
        subject: {method: mean_defined(values) for method, values in by_method.items()}
        for subject, by_method in dice.items()
    }


def flat(record: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """A nested record as rows of dotted name and value, in its own order."""
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows.extend(flat(value, f"{name}."))
        else:
            rows.append((name, _plain(value)))
    return tuple(rows)


def _plain(value: object) -> str:
    """A value of a record in words: numbers to six digits, lists without brackets, null a dash."""
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def harm_rows(evaluation: Evaluation) -> tuple[tuple[str, float, float], ...]:
    """Of each method the voxels of all test cases that are worse, and better, than from scratch."""
    found = []
    for method in in_order(method for case in evaluation.cases for method in case.harm):
        counts = [case.harm[method] for case in evaluation.cases if method in case.harm]
        found.append((method, math.fsum(w for w, _ in counts), math.fsum(b for _, b in counts)))
    return tuple(found)


def reading_rows(finetuning: Finetuning) -> tuple[tuple[str, str], ...]:
    """The readings that a run used: what each method starts from and minimises, and its map."""
    methods = {
        method_name(method): "; ".join(f"{key}: {_plain(value)}" for key, value in about.items())
        for method, about in finetuning.methods.items()
    }
    return flat(methods) + flat(finetuning.risk, "risk.")


def leaf_rows(finetuning: Finetuning) -> tuple[tuple[str, str], ...]:
    """What became of the source's parameters: how many leaves of each fate, and which."""
    words = {
        "loaded": "loaded from the source",
        "remade": "made anew: the source has none of this shape, or for other classes",
        "unused": "of the source, not used",
    }
    return tuple(
        (words.get(fate, fate), f"{len(paths)}: {', '.join(paths)}" if paths else "none")
        for fate, paths in finetuning.leaves.items()
    )


def pictured(evaluation: Evaluation, method: str) -> tuple[tuple[str, str], ...]:
    """The patients to show: (place, subject) of the best, the median and the worst Dice.

    With an even number the lower of the two middle patients is the median. A patient whose Dice is
    nowhere defined has no place; with one or two patients there is no median.
    """
    dice = {subject: by_method[method] for subject, by_method in subject_dice(evaluation).items()}
    defined = [subject for subject, value in dice.items() if not math.isnan(value)]
    order = sorted(defined, key=lambda subject: -dice[subject])
    if not order:
        return ()
    if len(order) == 1:
        return (("only", order[0]),)
    if len(order) == 2:
        return (("best", order[0]), ("worst", order[1]))
    return (("best", order[0]), ("median", order[len(order) // 2]), ("worst", order[-1]))


def undefined_subjects(evaluation: Evaluation, method: str) -> tuple[str, ...]:
    """The subjects whose Dice is nowhere defined for a method."""
    dice = subject_dice(evaluation)
    return tuple(subject for subject in dice if math.isnan(dice[subject][method]))


def shown_method(evaluation: Evaluation) -> str:
    """The method whose predictions are shown: the risk-weighted one, or else the last."""
    methods = evaluated_methods(evaluation)
    return risk_weighted(methods) or methods[-1]


def path_rows(paths: Paths) -> tuple[tuple[str, str, str, str], ...]:
    """Of each start: the path, its legs, its cost and that of the direct way."""
    return tuple(
        (
            " → ".join((*found.sources, paths.target))
            if found.sources
            else f"{found.start}: no path, since distances are missing",
            " + ".join(map(dice_text, found.legs)) or ABSENT,
            dice_text(found.cost),
            dice_text(found.direct_cost),
        )
        for found in paths.found
    )


def path_words(paths: Paths) -> str:
    """What the numbers of the paths are."""
    costs = {"squares": "the sum of the squared legs", "largest": "the longest leg"}
    return (
        f"A leg is {paths.alpha:g} × the images' distance + {paths.beta:g} × (1 − SSIM of the "
        f"RoIs); a path costs {costs.get(paths.cost, paths.cost)}. Compare the costs from one "
        "start: what a start is worth is not in them."
    )
