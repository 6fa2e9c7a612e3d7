"""Which voxels stand for all where a metric cannot see all: K repetitions of N of them.

The draw looks at labels and tiles alone, so that every source is asked for the same voxels and
sources are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from jaxfer.data.sampler import TaskCase
from jaxfer.selection.cells import centres
from jaxfer.tasks import IGNORE
from jaxfer.train.predict import Patch


@dataclass(frozen=True)
class Sampling:
    """How the metrics that need samples are computed.

    Attributes:
        samples: N, voxels of a repetition, over all cases.
        repetitions: K.
        noise: standard deviation of what is added to the image for a second prediction; images
            have unit variance inside the brain.
    """

    samples: int
    repetitions: int
    noise: float


@dataclass(frozen=True)
class Draw:
    """K repetitions of N voxels; fewer where there are not so many.

    Attributes:
        scale: of the layers whose cells the voxels are the centres of, along each axis of a tile.
        cases: number of the case that each voxel is of.
        voxels: its place in that case's volume.
        labels: its class.
        subjects: number of the person.
    """

    scale: tuple[int, ...]
    cases: Int[np.ndarray, "k n"]
    voxels: Int[np.ndarray, "k n 3"]
    labels: UInt8[np.ndarray, "k n"]
    subjects: Int[np.ndarray, "k n"]


def draw_voxels(
    cases: Sequence[TaskCase],
    *,
    scale: tuple[int, ...],
    patch: Patch,
    sampling: Sampling,
    seed: Sequence[int],
    by_class: bool = True,
) -> Draw:
    """Draws voxels without replacement, each repetition by itself.

    Strata take turns, each giving a random voxel, until the repetition is full: one that runs out
    leaves its turns to the others. So every class of every subject has the same share as far as it
    has voxels, whatever the size of a lesion.

    Args:
        cases: with labels.
        scale: of the layer; its cells' centres are what can be drawn.
        patch: sides of a tile, which decides where cells lie.
        sampling: N and K.
        seed: the same for every source.
        by_class: strata are the classes of each subject; False: the subjects, for metrics that
            must not know the target's labels.
    """
    rng = np.random.default_rng(tuple(seed))
    people = {s: i for i, s in enumerate(dict.fromkeys(case.stored.subject for case in cases))}
    sizes: dict[tuple[int, int], list[int]] = {}
    for number, case in enumerate(cases):
        subject = people[case.stored.subject]
        for stratum, places in _strata(case, scale, patch, by_class):
            sizes.setdefault((subject, stratum), [0] * len(cases))[number] = len(places)
    keys = sorted(sizes)
    totals = np.array([sum(sizes[key]) for key in keys], np.int64)
    chosen = []
    for _ in range(sampling.repetitions):
        taken = take_turns(totals, sampling.samples, rng)
        pairs = zip(totals, taken, strict=True)
        chosen.append([rng.choice(size, own, replace=False) for size, own in pairs])
    n = min(sampling.samples, int(totals.sum()))
    shape = (sampling.repetitions, n)
    found = {name: np.zeros(shape, np.int64) for name in ("case", "place", "label", "subject")}
    filled = np.zeros(sampling.repetitions, np.int64)
    for number, case in enumerate(cases):
        subject, classes = people[case.stored.subject], case.sliced_classes().reshape(-1)
        for stratum, places in _strata(case, scale, patch, by_class):
            index = keys.index((subject, stratum))
            before = sum(sizes[subject, stratum][:number])
            for k, of_strata in enumerate(chosen):
                own = of_strata[index] - before
                here = places[own[(own >= 0) & (own < len(places))]]
                window = slice(filled[k], filled[k] + len(here))
                found["case"][k, window], found["subject"][k, window] = number, subject
                found["place"][k, window], found["label"][k, window] = here, classes[here]
                filled[k] += len(here)
    shapes = [case.sliced_image().shape for case in cases]
    voxels = np.zeros((*shape, 3), np.int64)
    for number, volume in enumerate(shapes):
        inside = found["case"] == number
        voxels[inside] = np.stack(np.unravel_index(found["place"][inside], volume), axis=-1)
    return Draw(scale, found["case"], voxels, found["label"].astype(np.uint8), found["subject"])


def take_turns(
    sizes: Int[np.ndarray, " s"], total: int, rng: np.random.Generator
) -> Int[np.ndarray, " s"]:
    """How many each stratum gives when they take turns until there are ``total``."""
    taken = np.zeros_like(sizes)
    left = min(total, int(sizes.sum()))
    while left:
        willing = np.flatnonzero(sizes > taken)
        turns = min(int((sizes - taken)[willing].min()), left // len(willing))
        if turns == 0:
            willing, turns = rng.choice(willing, left, replace=False), 1
        taken[willing] += turns
        left -= turns * len(willing)
    return taken


def _strata(
    case: TaskCase, scale: tuple[int, ...], patch: Patch, by_class: bool
) -> Iterator[tuple[int, Int[np.ndarray, " v"]]]:
    """The places of each stratum's voxels in the flattened volume, in order."""
    classes = case.sliced_classes()
    sides = zip(classes.shape, patch, scale, strict=False)
    central = reduce(np.logical_and.outer, [centres(n, p, s) for n, p, s in sides])
    everywhere = central.reshape(*central.shape, *(1,) * (classes.ndim - central.ndim))
    flat: Shaped[np.ndarray, " v"] = np.where(everywhere, classes, IGNORE).reshape(-1)
    if not by_class:
        yield 0, np.flatnonzero(flat != IGNORE)
        return
    for label in range(case.roi.num_classes):
        yield label, np.flatnonzero(flat == label)
