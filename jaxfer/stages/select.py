"""Stage select: modality analysis, RoI analysis and the metrics; the ranking with its reasons."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax
import numpy as np

from jaxfer.config import chosen_metrics, chosen_scores
from jaxfer.data.sampler import TaskCase
from jaxfer.errors import Problem, raise_problems
from jaxfer.metrics import label_entropy, scored_by
from jaxfer.models.layers import layers_of
from jaxfer.models.levels import Levels, network_strides
from jaxfer.models.zoo import Source, load_source, read_card
from jaxfer.selection.draw import Sampling
from jaxfer.selection.pool import with_pool_scores
from jaxfer.selection.rank import Candidate, Decision, filter_modality, filter_roi, rank
from jaxfer.selection.record import (
    Scored,
    about_scores,
    chances_of_best,
    common_reasons,
    reasons_of,
    row,
    table,
    told,
)
from jaxfer.selection.roi import GRID, foreground_masks, roi_similarity
from jaxfer.selection.score import SourceScores, passes, score_source
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.run import Run, write_json
from jaxfer.tasks import Task
from jaxfer.train.predict import tiles

_WEAK = 0.3
"""Validation Dice under which a source is said to have failed its own training."""


def _shelf(run: Run, prepared: Prepared) -> dict[Task, Source]:
    """The source models, as far as they are there; all of them fit for what is asked."""
    shelf = {}
    for name in run.config.sources:
        task = Task.parse(name)
        if task.name in prepared.unavailable and read_card(run.shelf / task.slug) is None:
            continue
        shelf[task] = load_source(run.shelf / task.slug)
    problems = []
    for task, source in shelf.items():
        folder, model = run.shelf / task.slug, source.model
        known = layers_of(model.widths, len(source.card["patch"]), model.strides)
        problems += [
            Problem("error", f"{folder}", "has no such layer", layer, ", ".join(known))
            for layer in run.config.select.layers
            if layer not in known
        ]
        if source.masks.shape[1] != GRID**3:
            what = "its masks lie on another grid than RoI analysis compares"
            found, allowed = f"{source.masks.shape[1]} voxels", f"{GRID**3}"
            mend = "delete the folder; the stage 'pretrain' makes it again"
            problems.append(Problem("error", f"{folder}", what, found, allowed, mend))
    raise_problems(problems, "source models do not fit this selection")
    return shelf


def _own_cases(run: Run, prepared: Prepared, task: Task, source: Source) -> list[TaskCase] | str:
    """The training cases of a source, or why its network cannot be shown them."""
    if task.name in prepared.unavailable:
        return f"the source's own voxels are not at hand: {prepared.unavailable[task.name]}"
    here, there = list(run.config.data.spacing), list(source.card["spacing"])
    if here != there:
        return f"the source's own voxels are stored at {here} mm, it was trained at {there} mm"
    names = list(prepared.roi(task).class_names)
    if names != list(source.card["class_names"]):
        return f"the source's own labels are {names} now, those of its training were others"
    return prepared.cases(task, "train")


def _score(run: Run, target_cases: list[TaskCase], prepared: Prepared) -> dict[Task, Scored]:
    config, select = run.config, run.config.select
    metrics = chosen_metrics(select.metrics)
    masks = foreground_masks([case.classes() for case in target_cases])
    shelf = _shelf(run, prepared)
    number = sum(
        len(tiles(case.sliced_image().shape, tuple(source.card["patch"]), 0.0))
        for source in shelf.values()
        for case in target_cases
    )
    found: dict[Task, SourceScores] = {}
    folder = run.workdir / "select"
    folder.mkdir(exist_ok=True)
    with run.progress("scoring", number * passes(metrics)) as advance:
        for task, source in shelf.items():
            found[task] = score_source(
                source,
                target_cases,
                metrics=metrics,
                layers=tuple(select.layers),
                patch=tuple(source.card["patch"]),
                batch_size=config.evaluate.batch_size,
                sampling=Sampling(select.samples, select.repetitions, select.noise),
                key=jax.random.key(config.seed),
                own=_own_cases(run, prepared, task, source),
                scratch=folder,
                on_tiles=partial(advance, note=task.name),
            )
    found = with_pool_scores(found, chosen_scores(select))
    return {
        task: Scored(
            source,
            found[task],
            roi_similarity(
                source.masks,
                masks,
                k1=select.ssim_k1,
                k2=select.ssim_k2,
                kind=select.roi_similarity,
                seed=config.seed,
            ),
        )
        for task, source in shelf.items()
    }


def _flags(scored: Scored, spacing: tuple[float, ...], plane: str, strides: Levels) -> list[str]:
    """What a reader should know of a source, beside its scores."""
    card = scored.source.card
    flags = []
    own = card["validation_dice"]
    if own is None:
        flags.append("no validation subject: how well it does its own task is unknown")
    elif own < _WEAK:
        flags.append(f"failed its own training: validation Dice {own:.2f}, under {_WEAK}")
    if tuple(card["spacing"]) != spacing:
        flags.append(f"trained at {card['spacing']} mm, the target's grid is {list(spacing)} mm")
    if (trained := scored.source.card.get("plane", "axial")) != plane:
        flags.append(f"trained on {trained} slices, the run's are {plane}")
    if scored.source.model.strides != strides:
        theirs, ours = (
            ", ".join("x".join(map(str, s)) for s in step)
            for step in (scored.source.model.strides, strides)
        )
        flags.append(
            f"trained with strides {theirs}, the run's are {ours}: other cells in coarser layers"
        )
    if card.get("masks_kind", "bits") == "bits":
        flags.append("its masks are from before small lesions were kept on the common grid")
    if scored.similarity.empty:
        flags.append(f"{scored.similarity.empty} pair(s) of label maps with an empty mask left out")
    return flags


def _candidates(
    run: Run, scored: dict[Task, Scored], prepared: Prepared
) -> tuple[list[Candidate], list[str]]:
    """The sources, and notes on all of their scores."""
    names = chosen_scores(run.config.select)
    reasons = {task: reasons_of(own.found.scores) for task, own in scored.items()}
    common = common_reasons(list(reasons.values()))
    model, spacing = run.config.model, tuple(run.config.data.spacing)
    strides = network_strides(model.strides, len(model.patch), len(model.widths), spacing)
    candidates = []
    for task in map(Task.parse, run.config.sources):
        if task in scored:
            own = scored[task]
            scores = {name: float(own.found.scores[name]) for name in names}
            known = _flags(own, spacing, run.config.data.plane, strides)
            flags = (*known, *told(reasons[task] - common, names))
            candidates.append(Candidate(task, scores, own.similarity.mean, flags=flags))
        else:
            left_out = Decision("availability", False, prepared.unavailable[task.name])
            nothing = dict.fromkeys(names, math.nan)
            candidates.append(Candidate(task, nothing, math.nan, decisions=(left_out,)))
    return candidates, told(common, names)


def run(run: Run) -> str:
    """Scores every source on the shelf and writes ``selection.json`` and ``selection.csv``."""
    config, select = run.config, run.config.select
    prepared = Prepared.read(run)
    target = Task.parse(config.target)
    target_cases = prepared.cases(target, "train")
    scored = _score(run, target_cases, prepared)
    candidates, of_all = _candidates(run, scored, prepared)
    left_out = [c for c in candidates if not c.kept]
    candidates = [c for c in candidates if c.kept]
    candidates, notes = filter_modality(candidates, target.modality, select.modality)
    notes += of_all
    candidates = filter_roi(candidates, select.roi_keep)
    by, names = select.rank_by, chosen_scores(select)
    sign = scored_by(by)[0].sign
    ranked = rank(candidates, by, higher_is_better=sign > 0) + left_out
    shortlist = [c for c in ranked if c.rank is not None]
    chances = chances_of_best([scored[c.task].found.scores[by] for c in shortlist], sign)
    of_rank = dict(enumerate(chances))
    rows = [row(c, scored.get(c.task), of_rank.get(i)) for i, c in enumerate(ranked)]
    counts = np.sum([case.counts.sum(0) for case in target_cases], axis=0)
    if (counts[1:] == 0).any():
        classes = prepared.roi(target).class_names
        absent = ", ".join(n for n, c in zip(classes, counts[1:], strict=True) if c == 0)
        notes.append(f"no training subject of the target has the class(es) {absent}")
    folder = run.workdir / "select"
    write_json(
        folder / "selection.json",
        {
            "target": target.name,
            "rank_by": by,
            "roi_similarity": select.roi_similarity,
            "label_entropy": float(label_entropy(counts)),
            "n_voxels": int(counts.sum()),
            "layers": list(select.layers),
            "samples": select.samples,
            "repetitions": select.repetitions,
            "pool": [task.name for task in scored],
            "notes": notes,
            "metrics": about_scores(names),
            "sources": rows,
        },
    )
    (folder / "selection.csv").write_text(table(rows, names))
    # Apart from the rest, which is the same whenever it is done again.
    seconds = {t.name: dataclasses.asdict(own.found.seconds) for t, own in scored.items()}
    write_json(folder / "seconds.json", seconds)
    if not shortlist:
        return "no source could be ranked"
    best = shortlist[0]
    return (
        f"{len(rows)} sources, {len(shortlist)} on the shortlist; best by {by}: "
        f"{best.task.name} ({best.scores[by]:.4f})"
    )
