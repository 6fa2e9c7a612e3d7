"""The answer of a run in plain words, no bolder than its numbers allow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jaxfer.report.numbers import count_text, dice_text, points_text, score_text, span_text
from jaxfer.report.records import (
    FEWEST_SUBJECTS,
    RISK_WEIGHTED,
    Evaluation,
    Finetuning,
    Gain,
    Ranking,
    Run,
    Source,
)
from jaxfer.report.tables import method_name, metric_name, shown_method, undefined_subjects

FEW_SUBJECTS = 20


@dataclass(frozen=True)
class Tile:
    """One number of the run, large, with what it is above and what limits it below."""

    title: str
    value: str
    remark: str
    words: bool = False


def tiles(run: Run) -> tuple[Tile, ...]:
    """The numbers that answer the run's question: the best source, the gains, whom it hurt."""
    shown: list[Tile] = []
    ranked = [s for s in run.ranking.sources if s.rank is not None] if run.ranking else []
    if run.ranking and ranked:
        best, metric = min(ranked, key=lambda s: s.rank or 0), run.ranking.rank_by
        remark = f"{metric_name(metric)} {score_text(best.scores.get(metric))}"
        shown.append(Tile("best source", best.name, remark, words=True))
    for gain in run.evaluation.gains if run.evaluation else ():
        if gain.over in RISK_WEIGHTED and gain.under in ("plain", "scratch"):
            span = span_text(gain.interval, points_text)
            remark = f"Dice points, interval {span}" if span else "Dice points, no interval"
            told = ": cannot be told" if gain.reading == "cannot be told" else ""
            title = f"{gain.over} − {gain.under}"
            shown.append(Tile(title, points_text(gain.mean), remark + told))
            if gain.under == "scratch":
                remark = f"patients below scratch, {gain.over}"
                shown.append(Tile("negative transfer", f"{gain.below} of {gain.n}", remark))
    return tuple(shown)


def verdict(run: Run) -> tuple[str, ...]:
    """The sentences of the verdict: which source, did it help, for whom did it hurt, how sure."""
    sentences: list[str] = []
    if run.ranking is None:
        sentences.append("No source has been ranked yet.")
    else:
        sentences += _on_sources(run.ranking, run.finetuning)
    if run.evaluation is None:
        sentences.append(
            "Nothing has been evaluated yet, so whether the transfer helps is not known."
        )
    else:
        sentences += _on_methods(run.evaluation)
        sentences += _caution(run.evaluation)
    return tuple(sentences)


def _on_sources(ranking: Ranking, finetuning: Finetuning | None) -> list[str]:
    ranked = [source for source in ranking.sources if source.rank is not None]
    metric = metric_name(ranking.rank_by)
    shelf = len(ranking.sources)
    if not ranked:
        return ["No source was left to rank after modality and RoI analysis."]
    best = min(ranked, key=lambda source: source.rank or 0)
    sentences = _on_best(best, ranked, metric, ranking.rank_by, shelf)
    if finetuning and len(finetuning.path) > 1:
        along = " → ".join(finetuning.path)
        sentences.append(f"The fine-tuning started from a network trained along a path, {along}.")
    elif finetuning and finetuning.source and finetuning.source != best.name:
        sentences.append(f"The fine-tuning started from another source, {finetuning.source}.")
    return sentences


def _on_best(best: Source, ranked: list[Source], metric: str, key: str, shelf: int) -> list[str]:
    score = score_text(best.scores.get(key))
    if len(ranked) == 1:
        return [
            f"The one source left to start from is {best.name}.",
            f"Of {count_text(shelf, 'source')} no other was left after modality and RoI analysis, "
            f"so {metric} ({score}) had nothing to choose between.",
        ]
    if math.isnan(best.scores.get(key, math.nan)):
        return [f"No source has a {metric} score, so their order says nothing."]
    second = min((source for source in ranked if source is not best), key=lambda s: s.rank or 0)
    next_score = score_text(second.scores.get(key))
    tie = ", the same to the digits shown" if next_score == score else ""
    return [
        f"By {metric} the best source is {best.name}.",
        f"It scores {score}; the next, {second.name}, {next_score}{tie}. {len(ranked)} of "
        f"{count_text(shelf, 'source')} were left to rank after modality and RoI analysis.",
    ]


def _on_methods(evaluation: Evaluation) -> list[str]:
    means = {summary.method: summary.dice_mean for summary in evaluation.methods}
    n_subjects = len({score.subject for score in evaluation.scores})
    listed = _listed([f"{dice_text(dice)} {_with(method)}" for method, dice in means.items()])
    n_undefined = len(undefined_subjects(evaluation, shown_method(evaluation)))
    aside = f" ({n_undefined} of them without a defined Dice)" if n_undefined else ""
    subjects = count_text(n_subjects, "test subject")
    sentences = [f"On the {subjects}{aside} the mean Dice is {listed}."]
    gains = {(gain.over, gain.under): gain for gain in evaluation.gains}
    steps = [pair for pair in _steps(means) if pair in gains]
    sentences += [_on_gain(gains[pair]) for pair in steps or gains]
    sentences += _on_order(means, gains)
    sentences += _on_negative_transfer(evaluation)
    sentences += _on_source(evaluation)
    sentences += _on_collapse(evaluation)
    return sentences


def _on_gain(gain: Gain) -> str:
    over, under = _as_subject(gain.over), _as_subject(gain.under)
    span = span_text(gain.interval, points_text)
    mean = f"{points_text(gain.mean)} Dice points"
    if not span:
        return f"{_capital(over)} minus {under}: {mean}, with no interval to judge it by."
    if gain.reading == "cannot be told":
        few = f"only {count_text(gain.n, 'patient')} can be compared"
        wide = f"the 95 % interval over subjects ({span}) contains 0"
        why = few if gain.n < FEWEST_SUBJECTS else wide
        return f"Whether {over} beats {under} cannot be told: {mean} in the mean, but {why}."
    direction = "above" if gain.reading == "higher" else "below"
    size = f"{abs(100 * gain.mean):.1f} Dice points"
    return f"{_capital(over)} is {size} {direction} {under} (95 % interval over subjects {span})."


def _on_order(means: Mapping[str, float], gains: Mapping[tuple[str, str], Gain]) -> list[str]:
    """Whether weighted > plain > scratch, and whether every step of it is clear of chance."""
    weighted = [method for method in RISK_WEIGHTED if method in means]
    # Of two risk-weighted methods neither is the order's first.
    if len(weighted) != 1 or not {"plain", "scratch"} <= means.keys():
        return []
    steps, order = _steps(means), f"{weighted[0]} > plain > scratch"
    ordered = all(means[over] > means[under] for over, under in steps)
    clear = [pair in gains and gains[pair].reading == "higher" for pair in steps]
    if not ordered:
        return [f"The order {order} does not hold in these means."]
    if all(clear):
        return [f"The order {order} holds, each interval clear of 0."]
    return [
        f"The order {order} holds in the means, but not every step of it can be told from chance."
    ]


def _steps(methods: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The comparisons that a run is made for: what the risk adds, and what the source adds."""
    found = set(methods)
    weighted = tuple((method, "plain") for method in RISK_WEIGHTED if method in found)
    return *weighted, ("plain", "scratch")


def _on_negative_transfer(evaluation: Evaluation) -> list[str]:
    """In how many patients each fine-tuned method fell below training from scratch."""
    gains = [gain for gain in evaluation.gains if gain.under == "scratch" and gain.per_subject]
    if not gains:
        return []
    if not any(gain.below for gain in gains):
        names = " or ".join(method_name(gain.over) for gain in gains)
        return [f"No patient shows negative transfer, a Dice below scratch, after {names}."]
    parts = []
    for gain in gains:
        subject, lowest = gain.lowest
        worst = f" (worst: {subject}, {points_text(lowest)} points)" if gain.below else ""
        count = gain.below or "none"
        parts.append(f"{method_name(gain.over)} in {count} of {gain.n} patients{worst}")
    return [f"Negative transfer, Dice below scratch: {'; '.join(parts)}."]


def _on_source(evaluation: Evaluation) -> list[str]:
    """Whether to start from this source at all, as the intervals against scratch say it."""
    found: dict[str, list[str]] = {"hurts": [], "helps": [], "cannot be told": []}
    for method, reading in evaluation.transfer.items():
        found.setdefault(reading, []).append(method_name(method))
    sentences = []
    if found["hurts"]:
        sentences.append(f"This source would hurt: below scratch after {_listed(found['hurts'])}.")
    if found["helps"]:
        sentences.append(f"This source helps: above scratch after {_listed(found['helps'])}.")
    if found["cannot be told"]:
        methods = _listed(found["cannot be told"])
        sentences.append(f"Whether this source helps or hurts could not be told after {methods}.")
    return sentences


def _on_collapse(evaluation: Evaluation) -> list[str]:
    """The networks that have lost a class, by name: no mean tells of them."""
    if not evaluation.collapses:
        return []
    named = [
        f"{method_name(one.method)}, seed {one.seed} ({', '.join(one.classes)})"
        for one in evaluation.collapses
    ]
    number = count_text(evaluation.networks, "network")
    return [f"{len(named)} of {number} lost a class: {'; '.join(named)}."]


def _caution(evaluation: Evaluation) -> list[str]:
    subjects = {score.subject for score in evaluation.scores}
    seeds = {score.seed for score in evaluation.scores}
    sentences = []
    if len(subjects) < FEW_SUBJECTS:
        numbers = (
            f"{count_text(len(subjects), 'test subject')} and {count_text(len(seeds), 'seed')}"
        )
        sentences.append(f"{numbers} are few: read this as an indication, not as proof.")
    if all(math.isnan(summary.dice_mean) for summary in evaluation.methods):
        sentences.append("No Dice is defined here: every reference and prediction is empty.")
    return sentences


def _with(method: str) -> str:
    name = method_name(method)
    return name if method == "scratch" else f"after {name}"


def _as_subject(method: str) -> str:
    return "training from scratch" if method == "scratch" else method_name(method)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
