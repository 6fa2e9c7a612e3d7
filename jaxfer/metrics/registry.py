"""Every metric by name; its card tells what it needs, which way it points, what it means."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from jaxfer.metrics.card import Metric
from jaxfer.metrics.h_score import CARD as H_SCORE
from jaxfer.metrics.leep import CARD as LEEP
from jaxfer.metrics.logme import CARD as LOGME
from jaxfer.metrics.nce import CARD as NCE

_CARDS = (LEEP, NCE, H_SCORE, LOGME)

METRICS: Mapping[str, Metric] = MappingProxyType({card.name: card for card in _CARDS})


def metric(name: str) -> Metric:
    """The card of a metric.

    Raises:
        ValueError: no metric has this name; the text lists those that exist.
    """
    if name not in METRICS:
        raise ValueError(f"no metric is called {name!r}: known are {', '.join(sorted(METRICS))}")
    return METRICS[name]
