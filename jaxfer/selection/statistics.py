"""Additive statistics of one case, and what the passes over its voxels add to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from jaxfer.metrics import (
    ClassFeatureStatistics,
    ClassOrder,
    FeatureStatistics,
    LabelStatistics,
    LinearClassifier,
    Metric,
    PosteriorStatistics,
    PredictionStatistics,
    class_balanced,
    class_order,
    linear_classifier,
)
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.selection.network import Outputs
from jaxfer.tasks import IGNORE

Features = dict[str, ClassFeatureStatistics]
Classifiers = dict[str, tuple[LinearClassifier, LinearClassifier]]
Posteriors = dict[str, tuple[PosteriorStatistics, PosteriorStatistics]]
Predictions = tuple[PredictionStatistics, PredictionStatistics]
Tables = tuple[Float[Array, "c s"], Float[Array, "c s"]]


@dataclass(frozen=True)
class CaseStatistics:
    """What the metrics need of one case's voxels.

    Attributes:
        case: its name.
        labels: of the source's prediction.
        features: by layer; none if no metric asks for them.
        predictions: of LEEP's second pass: with the table of all voxels, and with that of a
            class-balanced target; None if no metric asks for them.
        posteriors: of LDA's second pass by layer, likewise two.
    """

    case: str
    labels: LabelStatistics
    features: Mapping[str, ClassFeatureStatistics]
    predictions: Predictions | None = None
    posteriors: Mapping[str, tuple[PosteriorStatistics, PosteriorStatistics]] | None = None

    def merge(self, other: CaseStatistics) -> CaseStatistics:
        """The statistics of both cases together."""
        predictions = posteriors = None
        if self.predictions and other.predictions:
            predictions = _both(self.predictions, other.predictions)
        if self.posteriors is not None and other.posteriors is not None:
            theirs = other.posteriors
            posteriors = {k: _both(own, theirs[k]) for k, own in self.posteriors.items()}
        return CaseStatistics(
            case=f"{self.case}, {other.case}",
            labels=self.labels.merge(other.labels),
            features={k: own.merge(other.features[k]) for k, own in self.features.items()},
            predictions=predictions,
            posteriors=posteriors,
        )

    def of(self, card: Metric, layer: str | None) -> Any:
        """Those that a metric's card asks for."""
        kind = card.second_pass or card.statistics
        if kind is PredictionStatistics:
            assert self.predictions is not None
            return self.predictions[0]
        if kind is LabelStatistics:
            return self.labels
        assert layer is not None
        if kind is PosteriorStatistics:
            assert self.posteriors is not None
            return self.posteriors[layer][0]
        own = self.features[layer]
        return own.features() if kind is FeatureStatistics else own

    def balanced(self, card: Metric, layer: str | None) -> Any:
        """The same of a target whose classes all have the same share of the voxels."""
        kind = card.second_pass or card.statistics
        if kind is PredictionStatistics:
            assert self.predictions is not None
            return class_balanced(self.predictions[1])
        if kind is LabelStatistics:
            return class_balanced(self.labels)
        assert layer is not None
        if kind is PosteriorStatistics:
            assert self.posteriors is not None
            return class_balanced(self.posteriors[layer][1])
        own = class_balanced(self.features[layer])
        return own.features() if kind is FeatureStatistics else own


def together(cases: list[CaseStatistics]) -> CaseStatistics:
    """The statistics of all cases."""
    return reduce(CaseStatistics.merge, cases)


def classifiers(features: Mapping[str, ClassFeatureStatistics]) -> Classifiers:
    """LDA's of every layer, and that of a class-balanced target."""
    return {
        layer: (linear_classifier(own), linear_classifier(class_balanced(own)))
        for layer, own in features.items()
    }


def add_voxels(
    labels_so_far: LabelStatistics,
    features_so_far: Features,
    outputs: Outputs,
    labels: UInt8[np.ndarray, " b *n"],
) -> tuple[LabelStatistics, Features]:
    """The statistics of the first pass with a batch added."""
    of_labels = _added(labels_so_far, outputs["log_probs"], labels)
    # The host knows the labels, and orders them faster; the same for all layers of a scale.
    orders: dict[tuple[int, ...], ClassOrder] = {}
    of_features = {}
    for layer, own in features_so_far.items():
        cells = outputs[layer].shape[:-1]
        if cells not in orders:
            orders[cells] = class_order(_at_cells(labels, cells), len(own.counts))
        of_features[layer] = _added(own, outputs[layer], labels, order=orders[cells])
    return of_labels, of_features


# Compiled one by one: together, what they share is kept in memory, and they take longer.
@compiled_in_float64()
def _added(
    so_far: Any,
    output: Float[Array, "b *cells d"],
    labels: UInt8[AnyArray, " b *n"],
    **order: ClassOrder,
) -> Any:
    safe, mask = _cells(labels, output)
    return so_far.update(output, safe, mask=mask, **order)


@compiled_in_float64()
def add_predictions(
    so_far: Predictions,
    log_probs: Float[AnyArray, "b *n s"],
    labels: UInt8[AnyArray, " b *n"],
    tables: Tables,
) -> Predictions:
    """The statistics of LEEP's second pass with a batch added."""
    safe, mask = _cells(labels, log_probs)
    both: PredictionStatistics
    # Mapped over the tables, the probabilities and the classes are made once.
    both = jax.vmap(lambda own, table: own.update(log_probs, safe, table, mask=mask))(
        *(jax.tree.map(lambda *x: jnp.stack(x), *pair) for pair in (so_far, tables))
    )
    plain, balanced = (jax.tree.map(lambda x, k=k: x[k], both) for k in range(2))
    return plain, balanced


@compiled_in_float64()
def add_posteriors(
    so_far: Posteriors,
    outputs: Outputs,
    labels: UInt8[AnyArray, " b *n"],
    fitted: Classifiers,
) -> Posteriors:
    """The statistics of LDA's second pass with a batch added."""
    found = {}
    for layer, own in so_far.items():
        safe, mask = _cells(labels, outputs[layer])
        plain, balanced = (
            one.update(outputs[layer], safe, classifier, mask=mask)
            for one, classifier in zip(own, fitted[layer], strict=True)
        )
        found[layer] = (plain, balanced)
    return found


def _cells(
    labels: UInt8[AnyArray, " b *n"], output: Float[AnyArray, "b *cells d"]
) -> tuple[UInt8[Array, " b *cells"], Bool[Array, " b *cells"]]:
    """The labels of an output's cells, of a valid class everywhere, and which of them count."""
    own = _at_cells(labels, output.shape[:-1])
    mask = own != IGNORE
    return jnp.where(mask, own, 0), mask


def _at_cells(labels: UInt8[AnyArray, " b *n"], cells: Sequence[int]) -> Any:
    """The label at the middle of each cell."""
    scales = [n // own for n, own in zip(labels.shape, cells, strict=True)]
    return labels[tuple(slice(scale // 2, None, scale) for scale in scales)]


def _both(a: Any, b: Any) -> Any:
    return tuple(own.merge(theirs) for own, theirs in zip(a, b, strict=True))
