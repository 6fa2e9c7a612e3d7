"""Metrics of sampled voxels: a score for every repetition, and the terms of those of the pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from jaxfer.metrics import Metric, Score
from jaxfer.models.layers import Layer
from jaxfer.selection.collect import Samples, Wanted
from jaxfer.selection.draw import Draw

UNDISTURBED, DISTURBED = "undisturbed", "disturbed"


def wanted_of(
    cards: Sequence[Metric],
    layers: Sequence[str],
    known: Mapping[str, Layer],
    axes: int,
    draw: Callable[[tuple[int, ...], bool], Draw],
) -> dict[str, Wanted]:
    """The samples of the target's voxels that these metrics need, by the name of the output.

    Args:
        cards: of metrics that need samples.
        layers: that are asked for.
        known: all layers of the source.
        axes: of a tile, 2 or 3.
        draw: the voxels for a scale, by class or not; asked once for each that is needed.
    """
    kinds, pixel = {card.needs for card in cards}, (1,) * axes
    outputs: dict[str, tuple[str, tuple[int, ...], bool]] = {}
    if "probabilities" in kinds:
        outputs["log_probs"] = ("log_probs", pixel, True)
    if kinds & {"features", "source samples", "several images", "several sources"}:
        outputs |= {layer: (layer, known[layer].scale, True) for layer in layers}
    if "two predictions" in kinds:
        outputs[UNDISTURBED] = ("log_probs", pixel, False)
        outputs[DISTURBED] = ("disturbed", pixel, False)
    draws = {how: draw(*how) for how in sorted({(s, by) for _, s, by in outputs.values()})}
    return {name: Wanted(output, draws[s, by]) for name, (output, s, by) in outputs.items()}


def unavailable(
    card: Metric,
    layer: str | None,
    target: Mapping[str, Samples],
    own: Mapping[str, Samples] | str,
) -> str | None:
    """Why there is nothing to compute this metric of; None if there is."""
    if card.name == "otce":
        return "needs coefficients fitted to auxiliary tasks of known accuracy; f_otce needs none"
    if card.needs == "source samples":
        if isinstance(own, str):
            return own
        assert layer is not None
        if not own[layer].draw.labels.size:
            return "none of the source's own voxels can be drawn"
    samples = [target[layer]] if layer else list(target.values())
    if not all(of_output.draw.labels.size for of_output in samples):
        return "none of the target's voxels can be drawn"
    if card.by_subject and len(np.unique(samples[0].draw.subjects)) < 2:
        return "compares voxels of different subjects, and there is one"
    return None


def scores_of(
    card: Metric,
    layer: str | None,
    target: Mapping[str, Samples],
    own: Mapping[str, Samples] | str,
    *,
    layers: Sequence[str],
    num_classes: int,
    num_source_classes: int,
) -> list[Any]:
    """What the metric's function makes of each repetition; of several sources, its terms."""
    compute = card.terms or card.compute
    found: list[Any] = []
    first = next(iter(target.values()))
    for k in range(len(first.values)):
        if card.needs == "two predictions":
            found.append(_consistency(card, target, k, num_source_classes))
        elif card.needs == "several images":
            images = [_by_image(target[name], k) for name in layers]
            values, labels, masks = zip(*images, strict=True)
            found.append(compute(values, labels, num_classes=num_classes, masks=masks))
        elif card.needs == "source samples":
            assert layer is not None
            assert not isinstance(own, str)
            found.append(
                compute(
                    own[layer].values[k],
                    own[layer].draw.labels[k],
                    target[layer].values[k],
                    target[layer].draw.labels[k],
                    num_source_classes=num_source_classes,
                    num_classes=num_classes,
                )
            )
        else:
            samples = target[layer or "log_probs"]
            told = {"subjects": samples.draw.subjects[k]} if card.by_subject else {}
            labels = samples.draw.labels[k]
            found.append(compute(samples.values[k], labels, num_classes=num_classes, **told))
    return found


def plain_score(result: Any) -> Score:
    """The score in a metric's result, which may hold more."""
    return result if isinstance(result, Score) else result.score


def _consistency(
    card: Metric, target: Mapping[str, Samples], k: int, num_source_classes: int
) -> Any:
    first, second = target[UNDISTURBED].values[k], target[DISTURBED].values[k]
    if card.name == "hamming_distance":
        decisions = (first.argmax(-1), second.argmax(-1))
        readable = np.isfinite(first).all(-1) & np.isfinite(second).all(-1)
        return card.compute(*decisions, num_classes=num_source_classes, mask=readable)
    return card.compute(first, second)


def _by_image(
    samples: Samples, k: int
) -> tuple[Float32[np.ndarray, "i v d"], UInt8[np.ndarray, "i v"], Bool[np.ndarray, "i v"]]:
    """The samples of a repetition by case, filled up to what any repetition has of any case."""
    cases = samples.draw.cases
    number = cases.max() + 1
    most = max(np.bincount(row, minlength=number).max() for row in cases)
    values = np.zeros((number, most, samples.values.shape[-1]), np.float32)
    labels, mask = np.zeros((number, most), np.uint8), np.zeros((number, most), bool)
    for image in range(number):
        own = np.flatnonzero(cases[k] == image)
        values[image, : len(own)] = samples.values[k, own]
        labels[image, : len(own)] = samples.draw.labels[k, own]
        mask[image, : len(own)] = True
    return values, labels, mask
