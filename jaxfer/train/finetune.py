"""From a source model to the start of a fine-tuning: which leaves come along, how pixels weigh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flax import traverse_util
from jaxtyping import Float

from jaxfer.data.sampler import TaskCase, class_frequencies, risk_of
from jaxfer.tasks import IGNORE
from jaxfer.train.step import Params


@dataclass(frozen=True)
class Transferred:
    """Parameters to start from, and what became of every leaf, by path."""

    params: Params
    loaded: tuple[str, ...]
    remade: tuple[str, ...]
    unused: tuple[str, ...]


def transfer_params(source: Params, fresh: Params, *, keep_head: bool) -> Transferred:
    """The source's leaves wherever path and shape agree, fresh ones elsewhere.

    Args:
        source: the source model's parameters.
        fresh: newly initialised parameters of the target's network.
        keep_head: the classes are the same ones, so that the head may come along.
    """
    theirs: Mapping = traverse_util.flatten_dict(source, sep="/")
    ours: Mapping = traverse_util.flatten_dict(fresh, sep="/")

    def fits(path: str) -> bool:
        same = path in theirs and theirs[path].shape == ours[path].shape
        return same and (keep_head or not path.startswith("head/"))

    params = {path: theirs[path] if fits(path) else leaf for path, leaf in ours.items()}
    return Transferred(
        traverse_util.unflatten_dict(params, sep="/"),
        loaded=tuple(sorted(p for p in ours if fits(p))),
        remade=tuple(sorted(p for p in ours if not fits(p))),
        unused=tuple(sorted(p for p in theirs if p not in ours or not fits(p))),
    )


def frequency_weights(cases: Sequence[TaskCase]) -> tuple[float, ...]:
    """Square-root inverse-frequency class weights; 1 for a class that no case has.

    In few-shot training plain cross-entropy loses a class now and then, and full inverse
    frequencies over-segment; the square root did neither.
    """
    frequencies = class_frequencies(cases)
    return tuple(float(1.0 / np.sqrt(f)) if f > 0 else 1.0 for f in frequencies)


def mean_weight(
    cases: Sequence[TaskCase],
    class_weights: tuple[float, ...],
    denominator: str,
    region: str = "all",
) -> float:
    """Mean, over the voxels of a region, of the weight that the cross-entropy gives them.

    Its inverse is the loss's ``scale``: with the mean weight at 1, the ratio of cross-entropy to
    Dice loss, and the effective learning rate, are the same for every map and denominator.
    """
    total, voxels = 0.0, 0
    factors: Float[np.ndarray, " c"] = np.asarray(class_weights)
    for case in cases:
        classes, risk = case.classes(), risk_of(case)
        valid = classes != IGNORE
        inside = valid & (classes > 0) if region == "foreground" else valid
        size = case.foreground_fraction if denominator == "foreground" else 1.0
        total += float((risk[inside] * factors[classes[inside]]).sum(dtype=np.float64)) / size
        voxels += int((inside if denominator == "pixels" else valid).sum())
    return total / voxels if total > 0 else 1.0
