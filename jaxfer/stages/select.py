"""Stage select: modality analysis, RoI analysis and the metrics; the ranking with its reasons."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxfer.config import chosen_metrics, chosen_scores
from jaxfer.data.nifti import read_header
from jaxfer.data.sampler import TaskCase
from jaxfer.errors import Problem, raise_problems
from jaxfer.metrics import label_entropy
from jaxfer.models.levels import Levels, network_strides
from jaxfer.models.zoo import Source, read_card
from jaxfer.selection.aggregate import AGGREGATE, Aggregate
from jaxfer.selection.draw import Sampling
from jaxfer.selection.foreign import Foreign, SourceModel, read_foreign
from jaxfer.selection.leg import Place
from jaxfer.selection.modality import (
    Intensities,
    contradictions,
    modality_distance,
    summaries,
)
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
from jaxfer.selection.roi import GRID, RoiSimilarity, foreground_masks, roi_similarity
from jaxfer.selection.score import SourceScores, passes, score_source
from jaxfer.stages.own_cases import own_cases
from jaxfer.stages.paths import write_paths
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.risk import write_instance_maps
from jaxfer.stages.run import Run, write_json
from jaxfer.stages.training import source_at
from jaxfer.tasks import Task
from jaxfer.train.predict import tiles

_DISTANCE = "its images' distance from the target's is no help: {}"
_WEAK = 0.3
"""Validation Dice under which a source is said to have failed its own training."""


def inputs(run: Run) -> Any:
    """The files of foreign sources, as they are on disk."""
    folders = map(Path, run.config.foreign)
    files = [file for folder in folders for file in sorted(folder.glob("*")) if file.is_file()]
    return [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files] or None


def _foreign(
    run: Run, prepared: Prepared, cases: list[TaskCase]
) -> tuple[list[Foreign], list[Problem]]:
    """The sources that are known by their outputs, and what is wrong with these."""
    target, folders = Task.parse(run.config.target), [Path(f) for f in run.config.foreign]
    images = {case.stored.id: prepared.files(target, case.stored.id)[0] for case in cases}
    headers = {case: read_header(image.path, image.channel) for case, image in images.items()}
    axes = len(run.config.model.patch)
    return read_foreign(folders, headers, (target.name, *run.config.sources), axes)


def _shelf(run: Run, prepared: Prepared, cases: list[TaskCase]) -> dict[Task, SourceModel]:
    """The source models, as far as they are there; all of them fit for what is asked."""
    shelf: dict[Task, Source] = {}
    for name in run.config.sources:
        task = Task.parse(name)
        if task.name in prepared.unavailable and read_card(run.shelf / task.slug) is None:
            continue
        shelf[task] = source_at(run, run.shelf / task.slug)
    foreign, problems = _foreign(run, prepared, cases)
    for task, source in shelf.items():
        folder, known = run.shelf / task.slug, source.layers
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
    return {**shelf, **{source.task: source for source in foreign}}


def _patch(run: Run, source: SourceModel) -> tuple[Any, ...]:
    """The tiles that a source is scored in; to outputs in files, all are alike."""
    foreign = isinstance(source, Foreign)
    return tuple(run.config.model.patch if foreign else source.card["patch"])


def _maps(run: Run, task: Task) -> Path:
    """Folder of the risk maps of a foreign source."""
    return run.workdir / "select" / "risk" / task.slug


def _intensities(source: SourceModel) -> Intensities | None:
    """What is kept of the scans that a source was trained on."""
    if isinstance(source, Foreign) or source.intensities is None:
        return None
    return Intensities(source.intensities, bool(source.card["preprocessing"]["skull_stripped"]))


def _score(
    run: Run, target_cases: list[TaskCase], prepared: Prepared, images: Intensities
) -> dict[Task, Scored]:
    """What is measured of every source on the shelf."""
    config, select = run.config, run.config.select
    metrics = chosen_metrics(select.metrics)
    masks = foreground_masks([case.classes() for case in target_cases])
    shelf = _shelf(run, prepared, target_cases)
    number = sum(
        len(tiles(case.sliced_image().shape, _patch(run, source), 0.0))
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
                patch=_patch(run, source),
                batch_size=config.evaluate.batch_size,
                sampling=Sampling(select.samples, select.repetitions, select.noise),
                key=jax.random.key(config.seed),
                own=own_cases(run, prepared, task, source),
                scratch=folder,
                on_tiles=partial(advance, note=task.name),
            )
    found = with_pool_scores(found, chosen_scores(select))
    return {
        task: Scored(
            source,
            found[task],
            RoiSimilarity(math.nan, 0, 0, math.nan, math.nan)
            if source.masks is None
            else roi_similarity(
                source.masks,
                masks,
                k1=select.ssim_k1,
                k2=select.ssim_k2,
                kind=select.roi_similarity,
                seed=config.seed,
            ),
            modality_distance(_intensities(source), images, config.seed),
        )
        for task, source in shelf.items()
    }


def _of_target(run: Run, prepared: Prepared, cases: list[TaskCase]) -> Intensities:
    """The target's scans, summarised."""
    stripped = prepared.preprocessing(Task.parse(run.config.target))["skull_stripped"]
    return summaries(cases, skull_stripped=bool(stripped))


def _flags_of_network(
    source: Source, spacing: tuple[float, ...], plane: str, strides: Levels
) -> list[str]:
    """Where a source was trained otherwise than the run would train it."""
    card, flags = source.card, []
    if tuple(card["spacing"]) != spacing:
        flags.append(f"trained at {card['spacing']} mm, the target's grid is {list(spacing)} mm")
    if (trained := card.get("plane", "axial")) != plane:
        flags.append(f"trained on {trained} slices, the run's are {plane}")
    if source.model.strides != strides:
        theirs, ours = (
            ", ".join("x".join(map(str, s)) for s in step)
            for step in (source.model.strides, strides)
        )
        flags.append(
            f"trained with strides {theirs}, the run's are {ours}: other cells in coarser layers"
        )
    if card.get("masks_kind", "bits") == "bits":
        flags.append("its masks are from before small lesions were kept on the common grid")
    return flags


def _flags(scored: Scored, spacing: tuple[float, ...], plane: str, strides: Levels) -> list[str]:
    """What a reader should know of a source, beside its scores."""
    card = scored.source.card
    flags = [_DISTANCE.format(scored.distance.reason)] if scored.distance.reason else []
    own = card["validation_dice"]
    if own is None:
        flags.append("no validation subject: how well it does its own task is unknown")
    elif own < _WEAK:
        flags.append(f"failed its own training: validation Dice {own:.2f}, under {_WEAK}")
    source = scored.source
    if isinstance(source, Foreign):
        flags.append("known by its outputs alone: cannot be fine-tuned here")
    else:
        flags += _flags_of_network(source, spacing, plane, strides)
    if scored.similarity.empty:
        flags.append(f"{scored.similarity.empty} pair(s) of label maps with an empty mask left out")
    return flags


def _candidates(
    run: Run, scored: dict[Task, Scored], prepared: Prepared, images: Intensities
) -> tuple[list[Candidate], list[str]]:
    """The sources, and notes on all of their scores and on the target's images."""
    names = chosen_scores(run.config.select)
    reasons = {task: reasons_of(own.found.scores) for task, own in scored.items()}
    common = common_reasons(list(reasons.values()))
    model, spacing = run.config.model, tuple(run.config.data.spacing)
    strides = network_strides(model.strides, len(model.patch), len(model.widths), spacing)
    target = Task.parse(run.config.target)
    known = {task: _intensities(own.source) for task, own in scored.items()} | {target: images}
    contradicted = contradictions(known, run.config.seed)
    candidates = []
    foreign = [task for task, own in scored.items() if isinstance(own.source, Foreign)]
    for task in (*map(Task.parse, run.config.sources), *foreign):
        if task in scored:
            own = scored[task]
            scores = {name: float(own.found.scores[name]) for name in names}
            flags = (
                *_flags(own, spacing, run.config.data.plane, strides),
                *([contradicted[task]] if task in contradicted else []),
                *told(reasons[task] - common, names),
            )
            candidates.append(
                Candidate(
                    task,
                    scores,
                    own.similarity.mean,
                    flags=flags,
                    roi_known=own.source.masks is not None,
                    modality_distance=own.distance.comparable,
                )
            )
        else:
            left_out = Decision("availability", False, prepared.unavailable[task.name])
            nothing = dict.fromkeys(names, math.nan)
            candidates.append(Candidate(task, nothing, math.nan, decisions=(left_out,)))
    notes = told(common, names)
    if target in contradicted:
        notes.append(f"the target is {contradicted[target]}")
    return candidates, notes


def _note_on_best(shortlist: list[Candidate], scored: dict[Task, Scored], by: str) -> list[str]:
    """Which source 'best' stands for, where that is not the first of the ranking."""
    ranked = [c for c in shortlist if not math.isnan(c.scores[by])]
    if not ranked or not isinstance(scored[ranked[0].task].source, Foreign):
        return []
    first = f"{ranked[0].task.name} is first, but known by its outputs alone"
    own = [c for c in ranked if not isinstance(scored[c.task].source, Foreign)]
    if not own:
        return [f"{first}, as are all that were ranked: there is none to fine-tune here"]
    return [f"{first}: the best that can be fine-tuned is {own[0].task.name}, rank {own[0].rank}"]


def run(run: Run) -> str:
    """Scores every source on the shelf and writes ``selection.json`` and ``selection.csv``."""
    config, select = run.config, run.config.select
    prepared = Prepared.read(run)
    target = Task.parse(config.target)
    target_cases = prepared.cases(target, "train")
    images = _of_target(run, prepared, target_cases)
    scored = _score(run, target_cases, prepared, images)
    candidates, of_all = _candidates(run, scored, prepared, images)
    left_out = [c for c in candidates if not c.kept]
    candidates = [c for c in candidates if c.kept]
    candidates, notes = filter_modality(candidates, target.modality, select.modality)
    notes += of_all
    candidates = filter_roi(candidates, select.roi_keep)
    aggregate = Aggregate.of(select.rank_by, select.aggregate, select.modality)
    by, names = aggregate.rank_by, chosen_scores(select)
    candidates = aggregate.over(candidates)
    ranked = rank(candidates, by, higher_is_better=aggregate.sign > 0) + left_out
    shortlist = [c for c in ranked if c.rank is not None]
    notes += _note_on_best(shortlist, scored, by)
    draws = aggregate.draws(shortlist, [scored[c.task].found.scores for c in shortlist])
    chances = chances_of_best(draws, len(shortlist), aggregate.sign)
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
            "modality": select.modality,
            "metrics": about_scores(names) | ({by: aggregate.about} if by == AGGREGATE else {}),
            "sources": rows,
        },
    )
    (folder / "selection.csv").write_text(table(rows, names))
    (folder / "paths.json").unlink(missing_ok=True)
    if select.paths:
        masks = foreground_masks([case.classes() for case in target_cases])
        own_networks = {t: s.source for t, s in scored.items() if isinstance(s.source, Source)}
        write_paths(run, prepared, own_networks, Place(masks, images))
    for task, own in scored.items():
        if isinstance(own.source, Foreign):
            write_instance_maps(prepared, target, own.source, target_cases, _maps(run, task))
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
