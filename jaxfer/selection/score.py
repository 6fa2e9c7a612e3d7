"""All scores of a source: of every voxel of the target's training cases, and of samples of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxfer.data.sampler import TaskCase
from jaxfer.metrics import (
    Metric,
    PosteriorStatistics,
    bootstrap,
    metric,
    score_names,
    scored_by,
)
from jaxfer.selection.collect import Samples
from jaxfer.selection.draw import Sampling
from jaxfer.selection.foreign import SourceModel, lacking
from jaxfer.selection.found import Found, missing, over_repetitions
from jaxfer.selection.network import Seconds
from jaxfer.selection.passes import Job, over_voxels, own_samples
from jaxfer.selection.sampled import plain_score, scores_of, unavailable
from jaxfer.selection.statistics import CaseStatistics, together
from jaxfer.train.predict import Patch


@dataclass(frozen=True)
class SourceScores:
    """One source's scores.

    Attributes:
        scores: by name, those that depend on the pool excepted.
        cases: the statistics that those over every voxel came from.
        terms: of the scores that depend on the pool, for each repetition.
        samples: the sampled rows of the target's voxels, by output; K · N · D numbers each.
        own: those of the source's own voxels.
        seconds: where the time went.
    """

    scores: dict[str, Found]
    cases: tuple[CaseStatistics, ...]
    terms: dict[str, list[Any]] = field(default_factory=dict)
    samples: dict[str, Samples] = field(default_factory=dict)
    own: dict[str, Samples] = field(default_factory=dict)
    seconds: Seconds = field(default_factory=Seconds)


def passes(metrics: Sequence[str]) -> int:
    """How often the network sees every voxel."""
    return 2 if any(metric(name).second_pass is PosteriorStatistics for name in metrics) else 1


def score_source(
    source: SourceModel,
    cases: Sequence[TaskCase],
    *,
    metrics: Sequence[str],
    layers: Sequence[str],
    patch: Patch,
    batch_size: int,
    sampling: Sampling,
    key: Key[Array, ""],
    own: Sequence[TaskCase] | str = "no voxels of the source's own are at hand",
    scratch: Path | None = None,
    on_tiles: Callable[[int], None] = lambda _: None,
) -> SourceScores:
    """Every score of a source for the metrics and layers.

    Args:
        source: its network runs in inference mode on the target's images, or its files are read.
        cases: of the target's training subjects; all of one RoI.
        metrics: names in the registry.
        layers: of the network, whose features are looked at.
        patch: sides of a tile, of slices or in 3-D; every voxel counts in exactly one tile.
        batch_size: tiles per call of the network; changes nothing but the speed.
        sampling: for the metrics that cannot see every voxel.
        key: of the bootstrap over the subjects and of the samples; one key for all sources compares
            them in pairs.
        own: the source's training cases, for the metrics that compare its voxels with the target's;
            or why there are none.
        scratch: folder for the log-probabilities between the passes (4 bytes per voxel and source
            class, deleted afterwards); None: the system's.
        on_tiles: called with the number of tiles after each batch; `passes` times over all tiles.

    Raises:
        UserError: the log-probabilities cannot be written.
    """
    names = score_names(metrics, layers)
    absent = {name: lacking(source, *scored_by(name), layers) for name in names}
    cards = [metric(m) for m in dict.fromkeys(scored_by(n)[0].name for n in names if not absent[n])]
    known = tuple(layer for layer in layers if layer in source.layers)
    job = Job(source, tuple(cases), cards, known, patch, batch_size, sampling, key, own)
    seconds = Seconds()
    statistics, samples = over_voxels(job, seconds, scratch, on_tiles)
    with seconds.of("samples"):
        of_own = own_samples(job)
    subjects = [case.stored.subject for case in cases]
    of_all = together(list(statistics))
    scores: dict[str, Found] = {}
    terms: dict[str, list[Any]] = {}
    for name in names:
        card, layer = scored_by(name)
        if reason := absent[name]:
            scores[name] = missing(reason)
            continue
        if card.finalise is not None:
            with seconds.of("statistics"):
                scores[name] = _exact(statistics, of_all, subjects, card, layer, key)
            continue
        with seconds.of("samples"):
            reason = unavailable(card, layer, samples, of_own)
            if reason is not None:
                scores[name] = missing(reason)
                continue
            found = scores_of(
                card,
                layer,
                samples,
                of_own,
                layers=known,
                num_classes=cases[0].roi.num_classes,
                num_source_classes=source.num_classes,
            )
            if card.pool_dependent:
                terms[name] = jax.device_get(found)
            else:
                scores[name] = over_repetitions([plain_score(result) for result in found])
    return SourceScores(
        scores, statistics, terms, samples, of_own if isinstance(of_own, dict) else {}, seconds
    )


def _exact(
    cases: Sequence[CaseStatistics],
    of_all: CaseStatistics,
    subjects: Sequence[str],
    card: Metric,
    layer: str | None,
    key: Key[Array, ""],
) -> Found:
    """A score over every voxel, with those of bootstrap samples of the subjects."""
    assert card.finalise is not None
    score = card.finalise(of_all.of(card, layer))
    of_subjects: dict[str, Any] = {}
    for stats, subject in zip(cases, subjects, strict=True):
        own = stats.of(card, layer)
        # A subject's cases stay together.
        of_subjects[subject] = of_subjects[subject].merge(own) if subject in of_subjects else own
    with jax.enable_x64(True):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *of_subjects.values())
    return Found(
        float(score),
        score.reasons,
        n_used=float(score.n_used),
        n_invalid=float(score.n_invalid),
        balanced=float(card.finalise(of_all.balanced(card, layer))),
        draws=np.asarray(bootstrap(stacked, card.finalise, key)),
    )
