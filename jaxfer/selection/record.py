"""What the ranking tells of every source, as a record and as a line of a table."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxfer.metrics import interval, probability_best, scored_by
from jaxfer.selection.aggregate import AGGREGATE
from jaxfer.selection.foreign import Foreign, SourceModel
from jaxfer.selection.found import Found
from jaxfer.selection.modality import ModalityDistance
from jaxfer.selection.rank import Candidate
from jaxfer.selection.roi import RoiSimilarity
from jaxfer.selection.score import SourceScores


@dataclasses.dataclass(frozen=True)
class Scored:
    """A source with all that was measured of it."""

    source: SourceModel
    found: SourceScores
    similarity: RoiSimilarity
    distance: ModalityDistance


def about_scores(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each score means, by its name."""
    found = {}
    for name in names:
        card, layer = scored_by(name)
        found[name] = {
            "metric": card.name,
            "layer": layer,
            "direction": card.direction,
            "range": card.range,
            "meaning": card.meaning,
            "reference": card.reference,
            "over": "every voxel" if card.finalise else "samples",
            "pool_dependent": card.pool_dependent,
        }
    return found


def chances_of_best(draws: Float[np.ndarray, "s k"] | None, sources: int, sign: int) -> list[float]:
    """For each source, the share of the bootstrap samples of the subjects in which it is best; of a
    score of sampled voxels, the share of their repetitions."""
    if draws is None:
        return [float("nan")] * sources
    return [float(share) for share in probability_best(draws, sign)]


Reasons = frozenset[tuple[str, str]]
"""Scores' names, each with something to know of it."""


def reasons_of(scores: Mapping[str, Found]) -> Reasons:
    """What is to know of the scores of a source."""
    return frozenset((name, reason) for name, own in scores.items() for reason in own.reasons)


def common_reasons(sources: Sequence[Reasons]) -> Reasons:
    """What holds for all of several sources, and so says nothing of one of them."""
    return frozenset.intersection(*sources) if len(sources) > 1 else frozenset()


def told(reasons: Reasons, names: Sequence[str]) -> list[str]:
    """Each reason once, with the scores that it concerns; metrics alone where it is all layers.

    Args:
        names: of all scores, in their order.
    """
    lines = []
    for reason in sorted({reason for _, reason in reasons}):
        concerned = [name for name in names if (name, reason) in reasons]
        words = []
        for metric in dict.fromkeys(name.partition("@")[0] for name in concerned):
            of_all = [name for name in names if name.partition("@")[0] == metric]
            of_these = [name for name in concerned if name in of_all]
            words += [metric] if of_these == of_all else of_these
        lines.append(f"{', '.join(words)}: {reason}")
    return lines


def row(candidate: Candidate, scored: Scored | None, chance: float | None) -> dict[str, Any]:
    """The record of a source; what could not be measured is null or empty."""
    found = scored.found.scores if scored else {}
    exact = {name: own for name, own in found.items() if own.draws is not None}
    sampled = {name: own for name, own in found.items() if own.repetitions is not None}
    spans = {name: interval(own.draws) for name, own in exact.items() if own.draws is not None}
    return {
        "rank": candidate.rank,
        "source": candidate.task.name,
        "outputs_only": bool(scored and isinstance(scored.source, Foreign)),
        "modality": candidate.task.modality,
        "roi": candidate.task.roi,
        "synthetic": scored.source.card["synthetic"] if scored else None,
        "kept": candidate.kept,
        "decisions": [
            {"step": d.step, "kept": d.kept, "reason": d.reason} for d in candidate.decisions
        ],
        "scores": dict(candidate.scores),
        "intervals": {name: [float(s.low), float(s.high)] for name, s in spans.items()},
        "balanced": {name: own.balanced for name, own in exact.items()},
        "standard_errors": {name: own.standard_error for name, own in sampled.items()},
        "reasons": {name: list(own.reasons) for name, own in found.items() if own.reasons},
        "probability_best": chance,
        "roi_similarity": candidate.roi_similarity,
        "roi_similarity_interval": [scored.similarity.low, scored.similarity.high]
        if scored
        else None,
        "roi_pairs": scored.similarity.pairs if scored else 0,
        "roi_pairs_empty": scored.similarity.empty if scored else 0,
        "modality_distance": scored.distance.mean if scored else None,
        "modality_distance_interval": [scored.distance.low, scored.distance.high]
        if scored
        else None,
        "modality_pairs": scored.distance.pairs if scored else 0,
        "validation_dice": scored.source.card["validation_dice"] if scored else None,
        "flags": list(candidate.flags),
    }


def table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """The records as a table of comma-separated values, a column for every number."""
    columns = {
        "rank": lambda r: r["rank"],
        "source": lambda r: r["source"],
        "modality": lambda r: r["modality"],
        "roi": lambda r: r["roi"],
        "kept": lambda r: r["kept"],
    }

    def number(kind: str, name: str, place: int | None = None) -> Any:
        def read(record: Mapping[str, Any]) -> Any:
            value = record[kind].get(name)
            return value if value is None or place is None else value[place]

        return read

    exact = [name for name in names if scored_by(name)[0].finalise is not None]
    sampled = [name for name in names if name not in exact]
    columns |= {name: number("scores", name) for name in names}
    for name in exact:
        columns |= {
            f"{name}_low": number("intervals", name, 0),
            f"{name}_high": number("intervals", name, 1),
            f"{name}_balanced": number("balanced", name),
        }
    columns |= {f"{name}_standard_error": number("standard_errors", name) for name in sampled}
    if any(AGGREGATE in record["scores"] for record in rows):
        columns[AGGREGATE] = number("scores", AGGREGATE)
    columns |= {
        "probability_best": lambda r: r["probability_best"],
        "roi_similarity": lambda r: r["roi_similarity"],
        "modality_distance": lambda r: r["modality_distance"],
        "modality_distance_low": lambda r: (r["modality_distance_interval"] or (None, None))[0],
        "modality_distance_high": lambda r: (r["modality_distance_interval"] or (None, None))[1],
        "validation_dice": lambda r: r["validation_dice"],
        "reasons": lambda r: "; ".join(f"{d['step']}: {d['reason']}" for d in r["decisions"]),
        "flags": lambda r: "; ".join(r["flags"]),
    }
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(columns)
    lines.writerows([read(record) for read in columns.values()] for record in rows)
    return text.getvalue()
