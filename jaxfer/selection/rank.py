"""The framework: modality filter, RoI filter, a metric; and why every source is where it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from jaxfer.tasks import Task


@dataclass(frozen=True)
class Decision:
    """What one step of the framework said of a source."""

    step: str
    kept: bool
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A source with everything that the ranking looks at.

    Attributes:
        task: what the source was trained for.
        scores: by metric, oriented as the metric is; NaN where it could not be computed.
        roi_similarity: mean SSIM of the RoIs; NaN if no pair of masks could be compared.
        decisions: of the framework's steps, in order.
        rank: 1 for the best of those that survived; None for a dropped source.
        flags: what a reader should know of it.
        roi_known: whether there are label maps of its training; without, RoI analysis keeps it.
        modality_distance: of its images from the target's; NaN where nothing can be said.
        why: what the score that ranks is made of.
    """

    task: Task
    scores: Mapping[str, float]
    roi_similarity: float
    decisions: tuple[Decision, ...] = ()
    rank: int | None = None
    flags: tuple[str, ...] = field(default=())
    roi_known: bool = True
    modality_distance: float = math.nan
    why: str = ""

    @property
    def kept(self) -> bool:
        return all(d.kept for d in self.decisions)


def _decide(candidate: Candidate, step: str, kept: bool, reason: str) -> Candidate:
    return replace(candidate, decisions=(*candidate.decisions, Decision(step, kept, reason)))


def filter_modality(
    candidates: Sequence[Candidate], modality: str, mode: str
) -> tuple[list[Candidate], list[str]]:
    """Drops the sources of another modality; if that were all of them, none.

    Args:
        candidates: all that are at hand.
        modality: the target's.
        mode: 'hard' goes by the declared names; 'soft' and 'none' keep all, and in the former the
            images' distance has a say in the ranking.

    Returns:
        The candidates with this step's decision, and notes for the reader.
    """
    if mode == "none":
        reason = "not filtered (select.modality = none)"
        return [_decide(c, "modality", True, reason) for c in candidates], []
    if mode == "soft":
        return [_decide(c, "modality", True, _distance(c)) for c in candidates], []
    same = [c.task.modality == modality for c in candidates]
    if not any(same):
        reason = f"no source has the target's modality {modality}: not filtered"
        return [_decide(c, "modality", True, reason) for c in candidates], [reason]
    decided = [
        _decide(c, "modality", True, f"same modality as the target: {modality}")
        if fits
        else _decide(
            c, "modality", False, f"modality {c.task.modality}, the target's is {modality}"
        )
        for c, fits in zip(candidates, same, strict=True)
    ]
    return decided, []


def _distance(candidate: Candidate) -> str:
    if math.isnan(candidate.modality_distance):
        return "not filtered; how far its images are from the target's is unknown"
    return (
        f"not filtered; its images are {candidate.modality_distance:.3f} standard deviations from "
        "the target's, which counts in the ranking"
    )


def filter_roi(candidates: Sequence[Candidate], keep: int) -> list[Candidate]:
    """Keeps the sources with the most similar RoIs among those that are still there.

    Args:
        candidates: after the modality filter.
        keep: how many; 0 keeps all. Equals of the last one kept are kept too. A source without a
            similarity counts as the least similar; one whose RoI is unknown is kept beside them.
    """
    left = sorted(-_comparable(c.roi_similarity) for c in candidates if c.kept and c.roi_known)
    limit = math.inf if keep == 0 or len(left) <= keep else left[keep - 1]
    decided = []
    for c in candidates:
        if not c.kept:
            decided.append(c)
            continue
        if not c.roi_known:
            reason = "label maps of its training are unknown: kept without a comparison"
            decided.append(_decide(c, "roi", True, reason))
            continue
        shown = f"RoI similarity {c.roi_similarity:.3f}"
        if math.isnan(c.roi_similarity):
            shown = "no pair of label maps could be compared"
        if -_comparable(c.roi_similarity) <= limit:
            decided.append(_decide(c, "roi", True, shown))
        else:
            reason = f"{shown}: not among the {keep} most similar"
            decided.append(_decide(c, "roi", False, reason))
    return decided


def _comparable(score: float) -> float:
    """Higher is better, and what is not there comes last."""
    return -math.inf if math.isnan(score) else score


def rank(
    candidates: Sequence[Candidate], metric: str, *, higher_is_better: bool = True
) -> list[Candidate]:
    """Orders the survivors by a metric, best first; the dropped ones follow, by the same metric.

    Equal scores share the better rank; a missing score ranks last and is flagged.
    """
    sign = 1.0 if higher_is_better else -1.0

    def key(c: Candidate) -> float:
        return -_comparable(sign * c.scores[metric])

    kept = sorted((c for c in candidates if c.kept), key=key)
    ranked = []
    for c in kept:
        place = 1 + sum(key(other) < key(c) for other in kept)
        flags = c.flags
        if math.isnan(c.scores[metric]):
            flags = (*flags, f"no {metric} score: ranked last")
        elif sum(key(other) == key(c) for other in kept) > 1:
            flags = (*flags, f"shares its {metric} score with another source")
        told = "no score" if math.isnan(c.scores[metric]) else f"{c.scores[metric]:.4g}"
        reason = f"rank {place} of {len(kept)} by {metric}: {told}"
        decided = _decide(c, "rank", True, f"{reason} ({c.why})" if c.why else reason)
        ranked.append(replace(decided, rank=place, flags=flags))
    dropped = sorted((c for c in candidates if not c.kept), key=key)
    return [*ranked, *dropped]
