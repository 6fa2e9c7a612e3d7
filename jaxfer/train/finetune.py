"""From a source model to the start of a fine-tuning: which leaves come along, how pixels weigh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from flax import traverse_util
from jaxtyping import Float, UInt8
from scipy.ndimage import maximum_filter

from jaxfer.data.planes import in_plane
from jaxfer.data.sampler import TaskCase, class_frequencies, risk_of
from jaxfer.tasks import IGNORE
from jaxfer.train.methods import Method
from jaxfer.train.step import Loss, Params


@dataclass(frozen=True)
class Transferred:
    """Parameters to start from, and what became of every leaf, by path."""

    params: Params
    loaded: tuple[str, ...]
    remade: tuple[str, ...]
    unused: tuple[str, ...]


def transfer_params(
    source: Params, fresh: Params, *, keep_head: bool, perturb: float = 0.0
) -> Transferred:
    """The source's leaves wherever path and shape agree, fresh ones elsewhere.

    Networks that have been trained before can end up worse than ones that have not (Ash and Adams,
    "On Warm-Starting Neural Network Training", NeurIPS 2020, arXiv 1910.08475); their remedy is to
    shrink what comes along and to add noise to it. Here the noise is a network's random
    parameters, and both strengths are one share: 0 is the source, 1 a start from scratch.

    Args:
        source: the source model's parameters.
        fresh: newly initialised parameters of the target's network.
        keep_head: the classes are the same ones, so that the head may come along, and those of
            coarser levels.
        perturb: share of the fresh parameters in those that come along, 0 … 1.
    """
    theirs: Mapping = traverse_util.flatten_dict(source, sep="/")
    ours: Mapping = traverse_util.flatten_dict(fresh, sep="/")

    def fits(path: str) -> bool:
        same = path in theirs and theirs[path].shape == ours[path].shape
        return same and (keep_head or not path.startswith("head"))

    share = np.float32(perturb)
    params = {
        path: theirs[path] + share * (leaf - theirs[path]) if fits(path) else leaf
        for path, leaf in ours.items()
    }
    return Transferred(
        traverse_util.unflatten_dict(params, sep="/"),
        loaded=tuple(sorted(p for p in ours if fits(p))),
        remade=tuple(sorted(p for p in ours if not fits(p))),
        unused=tuple(sorted(p for p in theirs if p not in ours or not fits(p))),
    )


def frequency_weights(cases: Sequence[TaskCase], power: float = 0.5) -> tuple[float, ...]:
    """Inverse-frequency class weights to a power; 1 for a class that no case has.

    In few-shot training plain cross-entropy (power 0) loses a class now and then, and full inverse
    frequencies (1) over-segment; the square root did neither.
    """
    return tuple(float(f**-power) if f > 0 else 1.0 for f in class_frequencies(cases))


def distance(path: str, levels: int) -> int:
    """Levels from the finest output to a leaf: 0 for its head and decoder, 2(L−1) at most.

    Args:
        path: of the leaf, such as ``encoder_1/Conv_0/kernel``.
        levels: L, of the network.
    """
    part, _, level = path.split("/")[0].partition("_")
    return 2 * (levels - 1) - int(level) if part == "encoder" else int(level or 0)


def leaf_rates(
    moved: Transferred, method: Method, levels: int, factor: float
) -> tuple[tuple[str, float], ...]:
    """Factors on the learning rate of the leaves that came along; the others learn at full rate.

    Args:
        levels: of the network.
        factor: of the learning rate per level away from the output, for discriminative rates.
    """

    def rate(path: str) -> float:
        part = path.split("/")[0]
        if method.trains == "head":
            return float(part.startswith("head"))
        if method.trains == "decoder":
            return float(not part.startswith("encoder"))
        return factor ** distance(path, levels) if method.discriminative else 1.0

    return tuple((path, rate(path)) for path in moved.loaded if rate(path) != 1.0)


def _region(classes: UInt8[np.ndarray, "x y z"], loss: Loss, axes: tuple[int, ...]) -> np.ndarray:
    """The voxels of a volume that the cross-entropy sees."""
    valid = classes != IGNORE
    if loss.region == "all":
        return valid
    inside = valid & (classes > 0)
    if loss.region == "foreground_rim":
        sides = tuple(2 * loss.rim + 1 if axis in axes else 1 for axis in range(3))
        inside = valid & maximum_filter(inside, size=sides, mode="constant")
    return inside


def mean_weight(
    cases: Sequence[TaskCase],
    class_weights: tuple[float, ...],
    loss: Loss,
    dimensions: int = 2,
) -> float:
    """Mean, over the voxels of a region, of the weight that the cross-entropy gives them.

    Its inverse is the loss's ``scale``: with the mean weight at 1, the ratio of cross-entropy to
    Dice loss, and the effective learning rate, are the same for every map and denominator. Weights
    that the loss divides by their own sum are taken as those that it divides by the pixels. A map
    that softens labels weighs nothing.

    Args:
        dimensions: 2 or 3, of the network's images; a rim grows along their axes.
    """
    total, voxels = 0.0, 0
    factors: Float[np.ndarray, " c"] = np.asarray(class_weights)
    for case in cases:
        classes, risk = case.classes(), risk_of(replace(case, risk=None) if loss.soften else case)
        inside = _region(classes, loss, in_plane(case.plane) if dimensions == 2 else (0, 1, 2))
        size = case.foreground_fraction if loss.denominator == "foreground" else 1.0
        total += float((risk[inside] * factors[classes[inside]]).sum(dtype=np.float64)) / size
        counted = classes != IGNORE if loss.denominator == "foreground" else inside
        voxels += int(counted.sum())
    return total / voxels if total > 0 else 1.0
