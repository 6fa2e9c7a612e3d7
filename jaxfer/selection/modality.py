"""Modality analysis in image space: how far apart are the intensities of two tasks' scans?

For when the names of modalities are missing or lie. A scan is summarised by the quantile function
of its standardised intensities, which is kept on the shelf beside the network: a selection then
needs no scan of the sources.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from jaxfer.data.sampler import TaskCase
from jaxfer.metrics.affinity import intensity_quantiles, quantile_distances
from jaxfer.selection.pairs import interval_over_subjects
from jaxfer.tasks import Task

VOXELS = 2**16
"""Voxels that a scan is summarised by, evenly spread over those that count."""

QUANTILES = 256

CLEAR = 2.0
"""How many times as far the declared modality must be for images to contradict it."""

LEAST = 0.1
"""By how many standard deviations it must be further away. T1 and FLAIR, whose histograms differ by
little more than two scanners' do, are so not told apart; T2 is told from both."""


@dataclass(frozen=True)
class Intensities:
    """The scans of a task, summarised.

    Attributes:
        quantiles: of each scan's standardised intensities; NaN for one without contrast.
        skull_stripped: whether only the brain counts; else the whole of what is stored.
    """

    quantiles: Float32[np.ndarray, "n q"]
    skull_stripped: bool


@dataclass(frozen=True)
class ModalityDistance:
    """How far two tasks' intensities are apart, in standard deviations; 0 for the same histogram.

    Attributes:
        mean: over all pairs of scans, Wasserstein-1; NaN without one.
        low, high: 95 % interval of the mean over subjects of both tasks; NaN with fewer than two
            on either side.
        pairs: how many.
        reason: why the mean is no sign of modality, or why there is none; '' if all is well.
    """

    mean: float
    low: float
    high: float
    pairs: int
    reason: str = ""

    @property
    def comparable(self) -> float:
        """The mean where it says something of modality, else NaN."""
        return math.nan if self.reason else self.mean


def summarise(image: Float[np.ndarray, "x y z"], skull_stripped: bool) -> Float32[np.ndarray, " q"]:
    """The quantile function of a stored scan's standardised intensities.

    Args:
        image: 0 outside the brain if skull-stripped.
        skull_stripped: leave out what is 0.
    """
    values = np.asarray(image, np.float32).ravel()
    inside: Bool[np.ndarray, " v"] = values != 0 if skull_stripped else np.ones(values.shape, bool)
    places = np.flatnonzero(inside)
    if not len(places):
        return np.full(QUANTILES, np.nan, np.float32)
    # As many voxels of every scan: one compilation for all.
    chosen = values[places[np.linspace(0, len(places) - 1, VOXELS).astype(int)]]
    return np.asarray(intensity_quantiles(chosen[None], quantiles=QUANTILES)[0], np.float32)


def summaries(cases: Sequence[TaskCase], *, skull_stripped: bool) -> Intensities:
    """The scans of stored cases, summarised."""
    found = [summarise(case.image(), skull_stripped) for case in cases]
    return Intensities(np.stack(found), skull_stripped)


def modality_distance(
    source: Intensities | None, target: Intensities, seed: int
) -> ModalityDistance:
    """The distance of a source's scans from the target's.

    SeqTran (arXiv 2410.06892) compares raw intensities by their principal components; here they are
    standardised, as their unit is arbitrary, and compared by histogram.

    Args:
        source: None: nothing is known of its scans.
        target: of the training subjects.
        seed: of the interval.
    """
    nothing = (math.nan, math.nan, math.nan, 0)
    if source is None:
        return ModalityDistance(*nothing, reason="nothing is kept of its scans' intensities")
    table = _table(source, target)
    usable = np.isfinite(table)
    if not usable.any():
        return ModalityDistance(*nothing, reason="no pair of scans with any contrast")
    low, high = interval_over_subjects(table[usable.any(1)][:, usable.any(0)], seed)
    reason = ""
    if source.skull_stripped != target.skull_stripped:
        reason = "brains are compared with what lies around them, too: no sign of modality"
    return ModalityDistance(float(table[usable].mean()), low, high, int(usable.sum()), reason)


def _table(a: Intensities, b: Intensities) -> Float[np.ndarray, "n m"]:
    return np.asarray(quantile_distances(a.quantiles, b.quantiles), np.float64)


def contradiction(
    own: Intensities | None,
    declared: str,
    others: Mapping[str, Sequence[Sequence[Intensities]]],
    seed: int,
) -> str:
    """Why the intensities of a task contradict its modality; '' if they do not, or who could tell.

    They do if the scans of another modality are nearer by far than those of the declared one: on
    average at most half as far, by 0.1 standard deviations, and nearer at all in 97.5 % of the
    bootstrap samples of the task's subjects.
    Histograms alone tell some modalities hardly apart: that nothing is said proves nothing. Of
    several sites the median counts, so that one that lies does not make the others liars.

    Args:
        own: of the task.
        declared: its modality.
        others: by declared modality, those of tasks on other scans, site by site.
        seed: of the bootstrap.
    """
    if own is None:
        return ""
    rows = {
        modality: np.median(
            [np.mean([_table(own, one).mean(1) for one in site], axis=0) for site in sites], axis=0
        )
        for modality, sites in others.items()
    }
    fit = {m: row for m, row in rows.items() if np.isfinite(row).all()}
    if declared not in fit or len(fit) < 2:
        return ""
    nearest = min((m for m in fit if m != declared), key=lambda m: float(fit[m].mean()))
    far, near = float(fit[declared].mean()), float(fit[nearest].mean())
    gaps = fit[declared] - fit[nearest]
    rng = np.random.default_rng(seed)
    draws = rng.choice(gaps, (1000, len(gaps))).mean(1)
    if far < max(CLEAR * near, near + LEAST) or np.percentile(draws, 2.5) <= 0:
        return ""
    return (
        f"declared as {declared}, but its images look like {nearest}: {near:.2f} standard "
        f"deviations from scans of other tasks on {nearest}, {far:.2f} from those on {declared}"
    )


def contradictions(known: Mapping[Task, Intensities | None], seed: int) -> dict[Task, str]:
    """The tasks whose images contradict their declared modality, and how.

    Each is compared with those of other scans alone, of another data set or site: what one data
    set calls by a wrong name, it calls so for all of its tasks.

    Args:
        known: of every source and of the target; None: nothing is known.
        seed: of the bootstrap.
    """
    found = {}
    for task, own in known.items():
        others: dict[str, dict[tuple[str, str], list[Intensities]]] = {}
        for other, theirs in known.items():
            site = (other.dataset, other.site)
            elsewhere = site != (task.dataset, task.site)
            if own and theirs and elsewhere and theirs.skull_stripped == own.skull_stripped:
                others.setdefault(other.modality, {}).setdefault(site, []).append(theirs)
        by_site = {modality: list(sites.values()) for modality, sites in others.items()}
        if told := contradiction(own, task.modality, by_site, seed):
            found[task] = told
    return found
