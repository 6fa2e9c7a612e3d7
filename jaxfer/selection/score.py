"""Scores of a source over every voxel of the target's training cases, batch by batch.

One pass of the network: the statistics are updated on the device and the features are forgotten.
The log-probabilities alone are kept, in a temporary file, for the second pass that LEEP needs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Integer, Key, UInt8

from jaxfer.data.planes import slices_last
from jaxfer.data.sampler import TaskCase
from jaxfer.metrics import (
    METRICS,
    ClassFeatureStatistics,
    FeatureStatistics,
    LabelStatistics,
    Metric,
    PredictionStatistics,
    Score,
    bootstrap,
    class_balanced,
    conditional_log_probs,
)
from jaxfer.metrics.precision import compiled_in_float64
from jaxfer.models.unet import UNet
from jaxfer.models.zoo import Source
from jaxfer.tasks import IGNORE
from jaxfer.train.predict import Tile, forward, read_tile, tile_batches, tiles


@dataclass(frozen=True)
class CaseStatistics:
    """What the metrics need of one case's voxels."""

    case: str
    labels: LabelStatistics
    features: ClassFeatureStatistics
    predictions: PredictionStatistics
    balanced_predictions: PredictionStatistics

    def merge(self, other: CaseStatistics) -> CaseStatistics:
        """The statistics of both cases together."""
        return CaseStatistics(
            case=f"{self.case}, {other.case}",
            labels=self.labels.merge(other.labels),
            features=self.features.merge(other.features),
            predictions=self.predictions.merge(other.predictions),
            balanced_predictions=self.balanced_predictions.merge(other.balanced_predictions),
        )

    def of(self, card: Metric, *, balanced: bool = False) -> Any:
        """Those that a metric's card asks for; balanced ones still as they were gathered."""
        kind = card.second_pass or card.statistics
        if kind is PredictionStatistics:
            return self.balanced_predictions if balanced else self.predictions
        if kind is FeatureStatistics and not balanced:
            return self.features.features()
        return self.labels if kind is LabelStatistics else self.features


@dataclass(frozen=True)
class SourceScores:
    """One source's scores over all voxels.

    Attributes:
        scores: by metric.
        balanced: as if every class of the target had the same share of the voxels.
        draws: scores of bootstrap samples of the subjects, the same samples for every source.
        cases: the statistics that all of them came from.
    """

    scores: dict[str, Score]
    balanced: dict[str, Score]
    draws: dict[str, Float[Array, " draws"]]
    cases: tuple[CaseStatistics, ...]


def _score(stats: CaseStatistics, card: Metric, *, balanced: bool) -> Score:
    own = stats.of(card, balanced=balanced)
    if balanced:
        own = class_balanced(own)
        if card.statistics is FeatureStatistics:
            own = own.features()
    if card.finalise is None:
        raise ValueError(f"metric {card.name!r} needs samples; only statistics are kept here")
    return card.finalise(own)


def _draws(
    cases: Sequence[CaseStatistics], subjects: Sequence[str], card: Metric, key: Key[Array, ""]
) -> Float[Array, " draws"]:
    """Scores of bootstrap samples of the subjects; a subject's cases stay together."""
    of_subjects: dict[str, CaseStatistics] = {}
    for stats, subject in zip(cases, subjects, strict=True):
        known = of_subjects.get(subject)
        of_subjects[subject] = stats if known is None else known.merge(stats)
    rows = [stats.of(card) for stats in of_subjects.values()]
    with jax.enable_x64(True):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    assert card.finalise is not None
    return bootstrap(stacked, card.finalise, key)


@compiled_in_float64("model", "layer")
def accumulate(
    model: UNet,
    layer: str,
    params: Any,
    stats: tuple[LabelStatistics, ClassFeatureStatistics],
    image: Float[Array, "b h w 1"],
    labels: Integer[Array, "b h w"],
) -> tuple[tuple[LabelStatistics, ClassFeatureStatistics], Float[Array, "b h w s"]]:
    log_probs, features = forward(model, params, image)
    mask = labels != IGNORE
    safe = jnp.where(mask, labels, 0)
    of_labels, of_features = stats
    updated = (
        of_labels.update(log_probs, safe, mask=mask),
        of_features.update(features[layer], safe, mask=mask),
    )
    return updated, log_probs


def _owned(
    classes: np.ndarray, chosen: list[Tile], places: list[Tile], patch: tuple[int, int], rows: int
) -> UInt8[np.ndarray, "b h w"]:
    """The labels of a batch's tiles, each voxel in one tile only, ignored elsewhere."""
    firsts = [sorted({t.start[axis] for t in places}) for axis in range(2)]
    labels = np.full((rows, *patch), IGNORE, np.uint8)
    for row, tile in enumerate(chosen):
        labels[row] = read_tile(classes, tile, patch, IGNORE)
        for axis in range(2):
            earlier = [s for s in firsts[axis] if s < tile.start[axis]]
            seen = max(earlier[-1] + patch[axis] - tile.start[axis], 0) if earlier else 0
            np.moveaxis(labels[row], axis, 0)[:seen] = IGNORE
    return labels


def _batches(
    case: TaskCase, patch: tuple[int, int], batch_size: int
) -> Iterator[tuple[int, Float32[np.ndarray, "b h w 1"], UInt8[np.ndarray, "b h w"]]]:
    image, classes = (slices_last(a, case.plane) for a in (case.image(), case.classes()))
    places = tiles(image.shape, patch, 0.0)
    for chosen, batch in tile_batches(image, places, patch, batch_size):
        yield len(chosen), batch, _owned(classes, chosen, places, patch, batch_size)


def _second_pass(
    log_probs: np.ndarray, kept: Sequence[np.ndarray], log_conditional: Float[Array, "c s"]
) -> PredictionStatistics:
    """LEEP's sums over one case, from its kept log-probabilities."""
    stats = PredictionStatistics.zeros(log_conditional.shape[0])
    for labels, rows in zip(kept, log_probs, strict=True):
        mask: Bool[np.ndarray, "b h w"] = labels != IGNORE
        safe = np.where(mask, labels, 0)
        stats = stats.update(np.asarray(rows), safe, log_conditional, mask=mask)
    return stats


def score_source(
    source: Source,
    cases: Sequence[TaskCase],
    *,
    metrics: Sequence[str],
    layer: str,
    patch: tuple[int, int],
    batch_size: int,
    key: Key[Array, ""],
    scratch: Path | None = None,
    on_tiles: Callable[[int], None] = lambda _: None,
) -> SourceScores:
    """Every metric of a source over every voxel of the cases.

    Args:
        source: its network runs in inference mode on the target's images.
        cases: of the target's training subjects; all of one RoI.
        metrics: names in the registry's ``OVER_VOXELS``.
        layer: of the network, at full resolution, whose output the feature metrics look at.
        patch: pixels of a tile; every voxel counts in exactly one tile.
        batch_size: tiles per call of the network; changes nothing but the speed.
        key: of the bootstrap over the subjects; one key for all sources compares them in pairs.
        scratch: folder for the log-probabilities between the passes (4 bytes per voxel and source
            class, deleted afterwards); None: the system's.
        on_tiles: called with the number of tiles after each batch.
    """
    num_classes, num_source_classes = cases[0].roi.num_classes, source.model.num_classes
    first: list[tuple[LabelStatistics, ClassFeatureStatistics]] = []
    kept: list[list[np.ndarray]] = []
    with tempfile.NamedTemporaryFile(dir=scratch, suffix=".log_probs") as file:
        for case in cases:
            stats = (
                LabelStatistics.zeros(num_classes, num_source_classes),
                ClassFeatureStatistics.zeros(num_classes, source.model.widths[0]),
            )
            kept.append([])
            for number, image, labels in _batches(case, patch, batch_size):
                stats, log_probs = accumulate(
                    source.model,
                    layer,
                    source.params,
                    stats,
                    jnp.asarray(image),
                    jnp.asarray(labels),
                )
                np.asarray(log_probs, np.float32).tofile(file)
                kept[-1].append(labels)
                on_tiles(number)
            first.append(stats)
        file.flush()
        table = reduce(lambda a, b: a.merge(b), (labels for labels, _ in first))
        tables = (conditional_log_probs(table), conditional_log_probs(class_balanced(table)))
        shape = (sum(map(len, kept)), batch_size, *patch, num_source_classes)
        rows = np.memmap(file.name, np.float32, "r", shape=shape)
        ends = np.cumsum([len(labels) for labels in kept])
        of_cases = tuple(
            CaseStatistics(
                case.stored.id,
                *stats,
                *(_second_pass(rows[end - len(own) : end], own, t) for t in tables),
            )
            for case, stats, own, end in zip(cases, first, kept, ends, strict=True)
        )
    together = reduce(CaseStatistics.merge, of_cases)
    cards = {name: METRICS[name] for name in metrics}
    subjects = [case.stored.subject for case in cases]
    return SourceScores(
        scores={name: _score(together, card, balanced=False) for name, card in cards.items()},
        balanced={name: _score(together, card, balanced=True) for name, card in cards.items()},
        draws={name: _draws(of_cases, subjects, card, key) for name, card in cards.items()},
        cases=of_cases,
    )
