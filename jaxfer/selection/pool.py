"""Scores that depend on the pool: a source's terms on the scale of those of all sources."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from jaxfer.metrics import scored_by
from jaxfer.selection.found import at, missing, over_repetitions
from jaxfer.selection.score import SourceScores

Name = TypeVar("Name")


def with_pool_scores(
    sources: Mapping[Name, SourceScores], names: Sequence[str]
) -> dict[Name, SourceScores]:
    """The sources with their scores that depend on the pool, repetition by repetition.

    The pool is all sources that were scored, those that a filter drops later too: another list of
    sources has other scores.

    Args:
        sources: every one with the terms of the same voxels.
        names: of all scores, in the order in which they are to stand.
    """
    pooled = [name for name in names if scored_by(name)[0].pool_dependent]
    found = {source: dict(own.scores) for source, own in sources.items()}
    for name in pooled:
        pool = {source: own.terms[name] for source, own in sources.items() if name in own.terms}
        if len(pool) < 2:
            for source in pool:
                found[source][name] = missing("compares sources, and there is one")
            continue
        compute = scored_by(name)[0].compute
        totals: list[Any] = [compute(list(of_all)) for of_all in zip(*pool.values(), strict=True)]
        for place, source in enumerate(pool):
            found[source][name] = over_repetitions([at(total, place) for total in totals])
    return {
        source: dataclasses.replace(own, scores={name: found[source][name] for name in names})
        for source, own in sources.items()
    }
