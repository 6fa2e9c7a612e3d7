"""Writes docs/results/selection.md and its figure from the tables of a study.

    python docs/make_selection.py FOLDER

FOLDER holds results.csv and scores.csv as the stage 'study' wrote them; they are copied beside the
page, so that every number can be recomputed. What counts as a finding is fixed in this file and in
jaxfer/metrics/claims.py: claims (a) to (c) of "Finding the Most Transferable Tasks for Brain Image
Segmentation" (arXiv 2301.00934), each with its rule.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from page_parts import lines_of, number, provenance, span, table
from selection_tables import COSTS, METHOD, Study, mean_of, read_study

from jaxfer.metrics.agreement import (
    MEASURES,
    over_targets,
    regret_at_1,
    rel_at,
    spearman,
)
from jaxfer.metrics.agreement_evidence import Evidence, agreement, mean_performance
from jaxfer.metrics.baselines import static_mean_rank
from jaxfer.metrics.claims import Claim, difference, judged, lift, reliability, within
from jaxfer.metrics.registry import METRICS

ROI = "roi_ssim"

RESULTS = Path(__file__).parent / "results"
SHOWN = ("spearman", "kendall", "weighted_kendall", "rel_at_1", "regret_at_1")
BASELINES = (
    *("static_mean_rank", "same_modality", "validation_dice", "source_subjects"),
    *("zero_shot_dice", ROI, "knn_accuracy"),
)
SEED = 0


def with_baselines(study: Study) -> dict[str, np.ndarray]:
    """The study's scores and the one baseline that its truth makes: the others' static list."""
    truth = mean_performance(study.performance)
    rows, columns = np.indices(truth.shape)
    known = {
        "target": rows.ravel().astype(str),
        "source": columns.ravel().astype(str),
        "performance": truth.ravel(),
    }
    static = static_mean_rank(known).reshape(truth.shape)
    varied = {n: v for n, v in study.scores.items() if np.isfinite(v).any()}
    return {**varied, "static_mean_rank": static}


def is_metric(score: str) -> bool:
    """Whether a score is one of the registry's metrics, which the claims are about."""
    return score.partition("@")[0] in METRICS and score.partition("@")[0] != "knn_accuracy"


def is_baseline(score: str) -> bool:
    """Whether anyone could rank by a score without a metric of transferability."""
    return score.partition("@")[0] in BASELINES


def kept_by_roi(study: Study, among: np.ndarray) -> np.ndarray:
    """The half of the sources whose RoI is most similar to the target's, at least three."""
    truth = mean_performance(study.performance)
    there = among & ~np.isnan(truth)
    similarity = np.where(there, np.nan_to_num(study.scores[ROI], nan=-np.inf), -np.inf)
    keep = np.maximum(3, np.ceil(there.sum(1) / 2)).astype(int)
    limit = -np.sort(-similarity, axis=1)[np.arange(len(keep)), keep - 1]
    return there & (similarity >= limit[:, None])


def claims(study: Study, *, draws: int = 1000) -> dict[str, Claim]:
    """The claims of the paper, each as a number that is above 0 if it is right."""
    same, roi = study.same_modality, study.same_roi
    everywhere = np.ones_like(same)
    stacked = np.stack([v for n, v in study.scores.items() if is_metric(n)])
    filters = {
        "modality": same,
        "RoI": kept_by_roi(study, everywhere),
        "modality, then RoI": kept_by_roi(study, same),
    }
    statistics = {
        "(a) same modality, other RoI − same RoI, other modality: Dice": difference(
            same & ~roi, roi & ~same
        ),
        "(b) RoI similarity (SSIM) within the target's modality: Spearman": within(
            spearman, study.scores[ROI], same
        ),
    } | {
        f"(c) filter by {name} − random subsets of its size: Spearman of the metrics": lift(
            spearman, stacked, kept, seed=SEED
        )
        for name, kept in filters.items()
    }
    return {
        name: judged(statistic, study.performance, seed=SEED, draws=draws)
        for name, statistic in statistics.items()
    }


def at_random(study: Study, draws: int = 2000) -> dict[str, float]:
    """What choosing by chance gives, by measure."""
    truth = mean_performance(study.performance)
    scores = np.random.default_rng(SEED).random((draws, *truth.shape))
    repeated = np.broadcast_to(truth, scores.shape)
    of_choice = {
        "rel_at_1": rel_at(scores, repeated, k=1),
        "regret_at_1": regret_at_1(scores, repeated),
    }
    means = {name: float(np.nanmean(over_targets(values))) for name, values in of_choice.items()}
    return {name: means.get(name, 0.0) for name in SHOWN}


_HEAD = """\
# How well can the source be chosen beforehand?

Made by `python docs/make_selection.py FOLDER` from [results.csv](selection_results.csv) and
[scores.csv](selection_scores.csv). {cells} fine-tunings of {sources} sources on {targets} targets,
method `{method}`, and {scratch} from scratch. Within a target, then the mean over the targets;
intervals are 95 % percentile intervals of {draws:,} bootstrap draws of targets, sources and
subjects; {few}p-values are of {permutations:,} permutations, corrected for all scores of the table
by Holm. The truth of a target is the mean Dice over few-shot subsets, pre-trainings and seeds that
all sources share.

{provenance}
**The rule**, written before any number was seen: a claim holds if its interval lies above 0, does
not hold if it lies below, and cannot be told otherwise, nor if more than 5 % of the draws are mute.

"""


def _truth_table(study: Study) -> str:
    truth = mean_performance(study.performance)
    rows = []
    for t, target in enumerate(study.targets):
        spread, noise, one, whole = reliability(study.replicates[t])
        known = truth[t][~np.isnan(truth[t])]
        rows.append(
            [
                f"`{target}`",
                str(len(known)),
                str(study.replicates[t].shape[1]),
                number(study.scratch[t], ".3f"),
                f"{known.min():.3f} to {known.max():.3f}",
                number(100 * spread, ".1f"),
                number(100 * noise, ".1f"),
                f"{number(one, '.2f')} / {number(whole, '.2f')}",
                f"{int((known < study.scratch[t]).sum())}",
                f"{100 * study.collapsed[t]:.0f} %",
            ]
        )
    head = [
        *("target", "sources", "replicates", "scratch", "worst to best source"),
        *("SD of sources", "SD of one run", "reliability one / mean", "below scratch", "collapsed"),
    ]
    return table(head, rows)


def _claims_table(found: Mapping[str, Claim]) -> str:
    rows = [
        [
            name,
            number(c.value, "+.3f"),
            span(c.low, c.high, "+.3f"),
            ", ".join(number(v, "+.2f") for v in c.per_target),
            f"**{c.verdict}**"
            + (f" ({c.undefined_draws:.0%} of the draws say nothing)" if c.undefined_draws else ""),
        ]
        for name, c in found.items()
    ]
    return table(["claim, as a number", "mean", "95 % interval", "by target", "verdict"], rows)


def _scores_table(
    found: Mapping[tuple[str, str], Evidence],
    chance: Mapping[str, float],
    single: Mapping[str, float],
) -> str:
    names = sorted({name for name, _ in found}, key=lambda n: -_last(found[n, "spearman"].value))
    rows = []
    for name in names:
        own = {measure: found[name, measure] for measure in SHOWN}
        first = own["spearman"]
        missing = f" ({first.missing} missing)" if first.missing else ""
        constant = f" (constant on {first.constant})" if first.constant else ""
        rows.append(
            [
                (f"*{name}*" if is_baseline(name) else name) + missing + constant,
                number(first.value),
                span(first.low, first.high),
                number(first.p_holm, ".3f"),
                number(own["kendall"].value),
                number(own["weighted_kendall"].value),
                number(own["rel_at_1"].value, ".3f"),
                number(100 * own["regret_at_1"].value, ".1f"),
                ", ".join(map(number, first.per_target)),
                number(single.get(name, math.nan)),
            ]
        )
    rows.append(
        ["*random*", "+0.00", "–", "–", "+0.00", "+0.00", number(chance["rel_at_1"], ".3f"),
         number(100 * chance["regret_at_1"], ".1f"), "–", "–"]
    )  # fmt: skip
    head = [
        *("score", "Spearman", "95 % interval", "p (Holm)", "Kendall τ-b", "weighted τ", "Rel@1"),
        *("regret@1, Dice points", "Spearman by target", "of one few-shot set"),
    ]
    return table(head, rows)


def _last(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def of_one_set(study: Study) -> dict[str, float]:
    """Mean Spearman within single few-shot subsets and pre-trainings, targets weighing alike."""
    found: dict[str, list[float]] = defaultdict(list)
    for scores, truth in study.of_groups:
        for name, values in scores.items():
            found[name].append(float(spearman(values, truth)))
    return {name: mean_of(values) for name, values in found.items()}


def _cost(study: Study) -> str:
    if not {*COSTS} <= study.costs.keys():
        return "The study's tables hold no times.\n"
    selecting, tuning = (study.costs[name] for name in COSTS)
    return (
        f"Scoring a source takes {selecting:.1f} s on average, one fine-tuning from it "
        f"{tuning:.1f} s: 1/{tuning / selecting:.0f} of the time. The published figure of an "
        "estimator of this kind is 1/67 (Tan et al., ICIP 2023, by its abstract).\n"
    )


def _figure(study: Study, found: Mapping[tuple[str, str], Evidence]) -> Figure:
    names = sorted({name for name, _ in found}, key=lambda n: _last(found[n, "spearman"].value))
    figure = Figure(figsize=(9.0, 1.2 + 0.19 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    for place, name in enumerate(names):
        own = found[name, "spearman"]
        colour = "#d55e00" if is_baseline(name) else "#0072b2"
        left.plot([own.low, own.high], [place, place], color=colour, lw=1.2)
        left.plot([own.value], [place], "o", color=colour, ms=4)
    left.axvline(0, color="#c9ced6", lw=0.8, zorder=0)
    left.set_yticks(range(len(names)), names, fontsize=7)
    left.set_xlabel("Spearman within a target; orange: trivial baselines")
    truth = mean_performance(study.performance)
    for t in range(len(study.targets)):
        right.plot(np.full(truth.shape[1], t), truth[t], "o", ms=3, color="#0072b2", alpha=0.6)
        right.plot([t - 0.25, t + 0.25], [study.scratch[t]] * 2, color="#1b1f24", lw=1.2)
    short = [t.replace("/", "\n") for t in study.targets]
    right.set_xticks(range(len(study.targets)), short, fontsize=7)
    right.set_xlim(-0.6, len(study.targets) - 0.4)
    right.set_ylabel("Dice by source; line: from scratch")
    return figure


def page(
    study: Study, provenance: str = "", rows: int = 0, scratch: int = 0, *, draws: int = 1000
) -> tuple[str, Figure]:
    """The page and its figure."""
    scores = with_baselines(study)
    measures = {name: MEASURES[name] for name in SHOWN}
    found = agreement(
        scores,
        study.performance,
        seed=SEED,
        measures=measures,
        draws=draws,
        permutations=5 * draws,
    )
    text = _HEAD.format(
        provenance=provenance,
        cells=rows,
        scratch=scratch,
        draws=draws,
        permutations=5 * draws,
        sources=len(study.sources),
        targets=len(study.targets),
        method=METHOD,
        few=f"with {len(study.targets)} targets they are too narrow; "
        if len(study.targets) < 10
        else "",
    )
    if study.left_out:
        text += "Left out:\n" + "".join(f"* {line}\n" for line in study.left_out) + "\n"
    text += f"""## The claims

{_claims_table(claims(study, draws=draws))}
The same task is the RoI of the same name. The RoI filter keeps the more similar half, at least
three sources. The metrics are all of the table that need the network, kNN apart.

## How much there is to choose

{_truth_table(study)}
Reliability: ICC(C,1) of one fine-tuning and ICC(C,k) of the mean over all, by subset, pre-training
and seed. Standard deviations in Dice points.

## How well each score ranks

![Agreement of every score, and the truth](selection.png)

{_scores_table(found, at_random(study), of_one_set(study))}
Slanted: trivial baselines. The last column is the mean over single few-shot subsets and
pre-trainings, which is what a user meets.

## What choosing costs

{_cost(study)}"""
    return text, _figure(study, found)


def main(folder: Path, results: Path = RESULTS, *, draws: int = 1000) -> None:
    """Writes the page, its figure and the tables beside it."""
    lines = [r for r in lines_of(folder / "results.csv") if r["method"] in (METHOD, "scratch")]
    keys = ("target", "shots", "subset", "source", "pretraining", "method", "seed")
    cells = {tuple(r[k] for k in keys) for r in lines}
    scratch = sum(cell[3] == "" for cell in cells)
    text, figure = page(
        read_study(folder), provenance(folder), len(cells) - scratch, scratch, draws=draws
    )
    results.mkdir(parents=True, exist_ok=True)
    for name in ("results", "scores"):
        shutil.copy(folder / f"{name}.csv", results / f"selection_{name}.csv")
    figure.savefig(results / "selection.png", dpi=130)
    (results / "selection.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
