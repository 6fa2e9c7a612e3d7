"""Stage select: modality analysis, RoI analysis and the metrics; the ranking with its reasons."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxfer.config import chosen_metrics
from jaxfer.data.planes import slices_last
from jaxfer.data.sampler import TaskCase
from jaxfer.metrics import METRICS, interval, label_entropy, probability_best
from jaxfer.models.zoo import Source, load_source, read_card
from jaxfer.selection.rank import Candidate, Decision, filter_modality, filter_roi, rank
from jaxfer.selection.roi import RoiSimilarity, foreground_masks, roi_similarity
from jaxfer.selection.score import SourceScores, score_source
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.run import Run, write_json
from jaxfer.tasks import Task
from jaxfer.train.predict import tiles

_WEAK = 0.3
"""Validation Dice under which a source is said to have failed its own training."""


@dataclass(frozen=True)
class _Scored:
    source: Source
    found: SourceScores
    similarity: RoiSimilarity


def _flags(
    scored: _Scored, spacing: tuple[float, ...], plane: str, metrics: tuple[str, ...]
) -> list[str]:
    card = scored.source.card
    flags = []
    own = card["validation_dice"]
    if own is None:
        flags.append("no validation subject: how well it does its own task is unknown")
    elif own < _WEAK:
        flags.append(f"failed its own training: validation Dice {own:.2f}, under {_WEAK}")
    if tuple(card["spacing"]) != spacing:
        flags.append(f"trained at {card['spacing']} mm, the target's grid is {list(spacing)} mm")
    trained = card.get("plane", "axial")
    if trained != plane:
        flags.append(f"trained on {trained} slices, the run's are {plane}")
    if scored.similarity.empty:
        flags.append(f"{scored.similarity.empty} pair(s) of label maps with an empty mask left out")
    for name in metrics:
        score = scored.found.scores[name]
        if score.reasons:
            flags.append(f"{name}: {', '.join(score.reasons)}")
    return flags


def _score(run: Run, target_cases: list[TaskCase], prepared: Prepared) -> dict[Task, _Scored]:
    config = run.config
    masks = foreground_masks([case.classes() for case in target_cases])
    shelf = {}
    for name in config.sources:
        task = Task.parse(name)
        if task.name in prepared.unavailable and read_card(run.shelf / task.slug) is None:
            continue
        shelf[task] = load_source(run.shelf / task.slug)
    number = sum(
        len(tiles(slices_last(case.image(), case.plane).shape, tuple(source.card["patch"]), 0.0))
        for source in shelf.values()
        for case in target_cases
    )
    scored = {}
    folder = run.workdir / "select"
    folder.mkdir(exist_ok=True)
    with run.progress("scoring", number) as advance:
        for task, source in shelf.items():
            found = score_source(
                source,
                target_cases,
                metrics=chosen_metrics(config.select.metrics),
                layer=config.select.layer,
                patch=tuple(source.card["patch"]),
                batch_size=config.evaluate.batch_size,
                key=jax.random.key(config.seed),
                scratch=folder,
                on_tiles=partial(advance, note=task.name),
            )
            similarity = roi_similarity(
                source.masks, masks, k1=config.select.ssim_k1, k2=config.select.ssim_k2
            )
            scored[task] = _Scored(source, found, similarity)
    return scored


def _candidates(run: Run, scored: dict[Task, _Scored], prepared: Prepared) -> list[Candidate]:
    metrics = chosen_metrics(run.config.select.metrics)
    spacing = tuple(run.config.data.spacing)
    candidates = []
    for name in run.config.sources:
        task = Task.parse(name)
        if task in scored:
            found = scored[task]
            candidates.append(
                Candidate(
                    task,
                    {metric: float(found.found.scores[metric]) for metric in metrics},
                    found.similarity.mean,
                    flags=tuple(_flags(found, spacing, run.config.data.plane, metrics)),
                )
            )
        else:
            why = prepared.unavailable[task.name]
            candidates.append(
                Candidate(
                    task,
                    dict.fromkeys(metrics, math.nan),
                    math.nan,
                    decisions=(Decision("availability", False, why),),
                )
            )
    return candidates


def _best_of_draws(ranked: list[Candidate], scored: dict[Task, _Scored], by: str) -> list[float]:
    """For each source on the shortlist, the share of the bootstrap samples in which it is best."""
    draws = [np.asarray(scored[c.task].found.draws[by]) for c in ranked if c.rank is not None]
    if not draws:
        return []
    return [float(p) for p in probability_best(np.stack(draws), METRICS[by].sign)]


def _intervals(found: SourceScores) -> dict[str, list[float]]:
    spans = {name: interval(draws) for name, draws in found.draws.items()}
    return {name: [float(span.low), float(span.high)] for name, span in spans.items()}


def _row(candidate: Candidate, found: _Scored | None, probability: float | None) -> dict[str, Any]:
    return {
        "rank": candidate.rank,
        "source": candidate.task.name,
        "modality": candidate.task.modality,
        "roi": candidate.task.roi,
        "synthetic": found.source.card["synthetic"] if found else None,
        "kept": candidate.kept,
        "decisions": [
            {"step": d.step, "kept": d.kept, "reason": d.reason} for d in candidate.decisions
        ],
        "scores": dict(candidate.scores),
        "intervals": _intervals(found.found) if found else {},
        "balanced": {k: float(v) for k, v in found.found.balanced.items()} if found else {},
        "probability_best": probability,
        "roi_similarity": candidate.roi_similarity,
        "roi_pairs": found.similarity.pairs if found else 0,
        "roi_pairs_empty": found.similarity.empty if found else 0,
        "validation_dice": found.source.card["validation_dice"] if found else None,
        "flags": list(candidate.flags),
    }


def _csv(rows: list[dict[str, Any]], metrics: tuple[str, ...]) -> str:
    text = io.StringIO()
    spans = [f"{name}_{end}" for name in metrics for end in ("low", "high")]
    balanced = [f"{name}_balanced" for name in metrics]
    head = ("rank", "source", "modality", "roi", "kept", *metrics, *spans, *balanced)
    head += ("probability_best", "roi_similarity")
    table = csv.writer(text)
    table.writerow([*head, "validation_dice", "reasons", "flags"])
    for row in rows:
        flat = row | row["scores"]
        for name in metrics:
            low, high = row["intervals"].get(name, (None, None))
            flat |= {f"{name}_low": low, f"{name}_high": high}
            flat[f"{name}_balanced"] = row["balanced"].get(name)
        reasons = "; ".join(f"{d['step']}: {d['reason']}" for d in row["decisions"])
        own = row["validation_dice"]
        table.writerow([*(flat[h] for h in head), own, reasons, "; ".join(row["flags"])])
    return text.getvalue()


def run(run: Run) -> str:
    """Scores every source on the shelf and writes ``selection.json`` and ``selection.csv``."""
    config = run.config
    prepared = Prepared.read(run)
    target = Task.parse(config.target)
    target_cases = prepared.cases(target, "train")
    scored = _score(run, target_cases, prepared)
    metrics = chosen_metrics(config.select.metrics)
    candidates = _candidates(run, scored, prepared)
    left_out = [c for c in candidates if not c.kept]
    candidates = [c for c in candidates if c.kept]
    candidates, notes = filter_modality(candidates, target.modality, config.select.modality)
    candidates = filter_roi(candidates, config.select.roi_keep)
    by = config.select.rank_by
    ranked = rank(candidates, by, higher_is_better=METRICS[by].sign > 0) + left_out
    chances = dict(enumerate(_best_of_draws(ranked, scored, by)))
    rows = [_row(c, scored.get(c.task), chances.get(i)) for i, c in enumerate(ranked)]
    counts = np.sum([case.counts.sum(0) for case in target_cases], axis=0)
    if (counts[1:] == 0).any():
        names = prepared.roi(target).class_names
        absent = ", ".join(n for n, c in zip(names, counts[1:], strict=True) if c == 0)
        notes.append(f"no training subject of the target has the class(es) {absent}")
    folder = run.workdir / "select"
    write_json(
        folder / "selection.json",
        {
            "target": target.name,
            "rank_by": by,
            "label_entropy": float(label_entropy(counts)),
            "n_voxels": int(counts.sum()),
            "layer": config.select.layer,
            "notes": notes,
            "metrics": {
                name: {
                    "direction": METRICS[name].direction,
                    "range": METRICS[name].range,
                    "meaning": METRICS[name].meaning,
                    "reference": METRICS[name].reference,
                }
                for name in metrics
            },
            "sources": rows,
        },
    )
    (folder / "selection.csv").write_text(_csv(rows, metrics))
    if not ranked or ranked[0].rank is None:
        return "no source could be ranked"
    best = ranked[0]
    kept = sum(c.rank is not None for c in ranked)
    return (
        f"{len(rows)} sources, {kept} on the shortlist; best by {by}: "
        f"{best.task.name} ({best.scores[by]:.4f})"
    )
