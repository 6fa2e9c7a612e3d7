"""The passes of a source's network: over every voxel of the target, and over samples of its own.

One pass serves all layers, statistics and samples. LEEP looks a second time at the predictions that
were kept of it; the network runs a second time over all voxels only for LDA, whose classifier
is known after the first pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float32, Key

from jaxfer.data.sampler import TaskCase
from jaxfer.metrics import (
    ClassFeatureStatistics,
    LabelStatistics,
    Metric,
    PosteriorStatistics,
    PredictionStatistics,
    class_balanced,
    conditional_log_probs,
)
from jaxfer.selection.collect import Collector, Samples, Wanted, sample_source
from jaxfer.selection.draw import Draw, Sampling, draw_voxels
from jaxfer.selection.foreign import SourceModel
from jaxfer.selection.kept import Kept
from jaxfer.selection.network import Seconds, batches, network_outputs
from jaxfer.selection.sampled import wanted_of
from jaxfer.selection.statistics import (
    CaseStatistics,
    Classifiers,
    Posteriors,
    Predictions,
    Tables,
    add_posteriors,
    add_predictions,
    add_voxels,
    classifiers,
    together,
)
from jaxfer.train.predict import Patch

_TARGET, _OWN, _NOISE = range(3)
"""What a random number is for, part of its seed."""


@dataclass(frozen=True)
class Job:
    """What is asked of one source."""

    source: SourceModel
    cases: tuple[TaskCase, ...]
    cards: list[Metric]
    layers: tuple[str, ...]
    patch: Patch
    batch_size: int
    sampling: Sampling
    key: Key[Array, ""]
    own: Sequence[TaskCase] | str

    @property
    def sampled(self) -> list[Metric]:
        return [card for card in self.cards if card.finalise is None]

    def asks_for(self, *kinds: type[Any]) -> bool:
        """Whether a metric is made of one of these statistics."""
        of_cards = {kind for card in self.cards for kind in (card.statistics, card.second_pass)}
        return bool(of_cards & set(kinds))

    @property
    def exact_layers(self) -> tuple[str, ...]:
        """The layers whose moments are gathered."""
        moments = any(c.finalise is not None and c.needs == "features" for c in self.cards)
        return self.layers if moments else ()

    def seed(self, *what: int) -> list[int]:
        return [*map(int, np.asarray(jax.random.key_data(self.key)).reshape(-1)), *what]

    def draw(
        self, cases: Sequence[TaskCase], side: int, scale: tuple[int, ...], by_class: bool
    ) -> Draw:
        return draw_voxels(
            cases,
            scale=scale,
            patch=self.patch,
            sampling=self.sampling,
            seed=self.seed(side, *sorted(set(scale)), by_class),
            by_class=by_class,
        )

    def target_wanted(self) -> dict[str, Wanted]:
        if not self.sampled:
            return {}
        return wanted_of(
            self.sampled,
            self.layers,
            self.source.layers,
            len(self.patch),
            lambda scale, by_class: self.draw(self.cases, _TARGET, scale, by_class),
        )

    def noise(self, number: int) -> Float32[np.ndarray, "x y z"] | None:
        if not any(card.needs == "two predictions" for card in self.cards):
            return None
        rng = np.random.default_rng(self.seed(_NOISE, number))
        shape = self.cases[number].sliced_image().shape
        return rng.standard_normal(shape, np.float32) * np.float32(self.sampling.noise)


def over_voxels(
    job: Job, seconds: Seconds, scratch: Path | None, on_tiles: Callable[[int], None]
) -> tuple[tuple[CaseStatistics, ...], dict[str, Samples]]:
    """The statistics of every case, and the samples, from all passes."""
    with seconds.of("samples"):
        collector = Collector(job.target_wanted(), job.patch)
    layers = sorted({*job.exact_layers, *(job.layers if job.sampled else ())})
    second_look = job.asks_for(PredictionStatistics)
    found: list[CaseStatistics] = []
    with Kept(scratch, needed=second_look) as kept:
        for number, case in enumerate(job.cases):
            stats = _nothing(job)
            shape = case.sliced_image().shape
            for batch in batches(case, job.patch, job.batch_size, noise=job.noise(number)):
                outputs = network_outputs(job.source, batch, layers, seconds)
                with seconds.of("statistics"):
                    stats = add_voxels(*stats, outputs, batch.labels)
                    jax.block_until_ready(stats)
                    kept.write(number, outputs["log_probs"], batch.labels)
                with seconds.of("samples"):
                    collector.collect(number, shape, batch, outputs)
                on_tiles(len(batch.tiles))
            found.append(CaseStatistics(case.stored.id, *stats))
        with seconds.of("statistics"):
            predictions = _second_look(job, kept, found) if second_look else [None] * len(found)
    posteriors: list[Posteriors | None] = [None] * len(found)
    if job.asks_for(PosteriorStatistics):
        fitted = classifiers(together(found).features)
        posteriors = [_posteriors(job, n, fitted, seconds, on_tiles) for n in range(len(found))]
    cases = tuple(
        CaseStatistics(own.case, own.labels, own.features, of_predictions, of_posteriors)
        for own, of_predictions, of_posteriors in zip(found, predictions, posteriors, strict=True)
    )
    return cases, collector.samples()


def _nothing(job: Job) -> tuple[LabelStatistics, dict[str, ClassFeatureStatistics]]:
    """The statistics of no voxel."""
    num_classes, known = job.cases[0].roi.num_classes, job.source.layers
    return (
        LabelStatistics.zeros(num_classes, job.source.num_classes),
        {
            layer: ClassFeatureStatistics.zeros(num_classes, known[layer].channels)
            for layer in job.exact_layers
        },
    )


def _second_look(job: Job, kept: Kept, found: Sequence[CaseStatistics]) -> list[Predictions]:
    """LEEP's sums over each case, from the kept log-probabilities."""
    num_classes = job.cases[0].roi.num_classes
    table = together(list(found)).labels
    tables: Tables = (conditional_log_probs(table), conditional_log_probs(class_balanced(table)))
    zero = PredictionStatistics.zeros(num_classes)
    sums: list[Predictions] = [(zero, zero) for _ in found]
    for (number, labels), rows in zip(kept.labels, kept.rows(), strict=True):
        # Not `jnp.asarray`: a processor's compiled function reads them where they lie.
        sums[number] = add_predictions(sums[number], np.asarray(rows), labels, tables)
    return jax.block_until_ready(sums)


def _posteriors(
    job: Job,
    number: int,
    fitted: Classifiers,
    seconds: Seconds,
    on_tiles: Callable[[int], None],
) -> Posteriors:
    """LDA's sums over a case, from a second pass of the network."""
    zero = PosteriorStatistics.zeros(job.cases[0].roi.num_classes)
    sums: Posteriors = dict.fromkeys(fitted, (zero, zero))
    with seconds.of("statistics"):
        for batch in batches(job.cases[number], job.patch, job.batch_size):
            outputs = network_outputs(job.source, batch, list(fitted), Seconds())
            sums = add_posteriors(sums, outputs, batch.labels, fitted)
            on_tiles(len(batch.tiles))
        return jax.block_until_ready(sums)


def own_samples(job: Job) -> dict[str, Samples] | str:
    """The samples of the source's own voxels, or why there are none."""
    if not any(card.needs == "source samples" for card in job.cards):
        return {}
    if isinstance(job.own, str):
        return job.own
    known = job.source.layers
    scales = {known[layer].scale for layer in job.layers}
    draws = {scale: job.draw(job.own, _OWN, scale, True) for scale in scales}
    wanted = {layer: Wanted(layer, draws[known[layer].scale]) for layer in job.layers}
    return sample_source(job.source, job.own, wanted, patch=job.patch, batch_size=job.batch_size)
