"""Every metric by name; its card tells what it needs, which way it points, what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from jaxfer.metrics.card import Metric
from jaxfer.metrics.cc_fv import CARD as CC_FV
from jaxfer.metrics.crank import EFFECTIVE_INVARIANCE, HAMMING
from jaxfer.metrics.emms import CARD as EMMS
from jaxfer.metrics.etran import CARD as ETRAN_ENERGY
from jaxfer.metrics.etran import TOTAL_CARD as ETRAN
from jaxfer.metrics.gbc import CARD as GBC
from jaxfer.metrics.gbc import LOG_CARD as LOG_GBC
from jaxfer.metrics.h_score import CARD as H_SCORE
from jaxfer.metrics.jc_otce import JC_OTCE
from jaxfer.metrics.knn_accuracy import BALANCED_CARD as BALANCED_KNN
from jaxfer.metrics.knn_accuracy import CARD as KNN
from jaxfer.metrics.lda import CARD as LDA
from jaxfer.metrics.leep import CARD as LEEP
from jaxfer.metrics.logme import CARD as LOGME
from jaxfer.metrics.n_leep import CARD as N_LEEP
from jaxfer.metrics.nce import CARD as NCE
from jaxfer.metrics.ncti import NCC_CARD as NCTI_NCC
from jaxfer.metrics.ncti import SELI_CARD as NCTI_SELI
from jaxfer.metrics.ncti import TOTAL_CARD as NCTI
from jaxfer.metrics.ncti import VC_CARD as NCTI_VC
from jaxfer.metrics.otce import F_OTCE, OTCE
from jaxfer.metrics.pactran import DIRICHLET_CARD as PACTRAN_DIRICHLET
from jaxfer.metrics.pactran import GAMMA_CARD as PACTRAN_GAMMA
from jaxfer.metrics.pactran_gaussian import GAUSSIAN_CARD as PACTRAN_GAUSSIAN
from jaxfer.metrics.parc import CARD as PARC
from jaxfer.metrics.regularized_h_score import CARD as REGULARIZED_H_SCORE
from jaxfer.metrics.sfda import CARD as SFDA
from jaxfer.metrics.transrate import CARD as TRANSRATE

_CARDS = (
    LEEP,
    NCE,
    N_LEEP,
    H_SCORE,
    REGULARIZED_H_SCORE,
    LOGME,
    TRANSRATE,
    GBC,
    LOG_GBC,
    LDA,
    SFDA,
    ETRAN_ENERGY,
    ETRAN,
    NCTI_NCC,
    NCTI_SELI,
    NCTI_VC,
    NCTI,
    PARC,
    EMMS,
    KNN,
    BALANCED_KNN,
    PACTRAN_DIRICHLET,
    PACTRAN_GAMMA,
    PACTRAN_GAUSSIAN,
    F_OTCE,
    JC_OTCE,
    OTCE,
    CC_FV,
    EFFECTIVE_INVARIANCE,
    HAMMING,
)

METRICS: Mapping[str, Metric] = MappingProxyType({card.name: card for card in _CARDS})


OVER_VOXELS = tuple(name for name, card in METRICS.items() if card.finalise is not None)
"""Metrics of additive statistics over every voxel; the others need samples in memory."""


def score_names(metrics: Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
    """The names of the scores of metrics: ``metric@layer`` where there is one for each layer."""
    return tuple(
        name
        for metric in metrics
        for name in (
            [f"{metric}@{layer}" for layer in layers] if METRICS[metric].of_one_layer else [metric]
        )
    )


def scored_by(name: str) -> tuple[Metric, str | None]:
    """The metric and the layer of a score's name; no layer where the metric has none of its own."""
    of, _, layer = name.partition("@")
    return metric(of), layer or None


def metric(name: str) -> Metric:
    """The card of a metric.

    Raises:
        ValueError: no metric has this name; the text lists those that exist.
    """
    if name not in METRICS:
        raise ValueError(f"no metric is called {name!r}: known are {', '.join(sorted(METRICS))}")
    return METRICS[name]
