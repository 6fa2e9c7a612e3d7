"""Which scores a configuration asks for."""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxfer.metrics.registry import METRICS, score_names


def chosen_metrics(named: tuple[str, ...]) -> tuple[str, ...]:
    """The metrics of ``select.metrics``, where 'all' stands for the whole registry."""
    return tuple(METRICS) if tuple(named) == ("all",) else tuple(named)


def chosen_scores(select: ConfigDict) -> tuple[str, ...]:
    """The names of the scores that the section ``select`` asks for, in their order."""
    return score_names(chosen_metrics(select.metrics), select.layers)
