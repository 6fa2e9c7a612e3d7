"""How well a source would transfer, and how well it segments: pure functions of arrays."""

from jaxfer.metrics.entropy import label_entropy
from jaxfer.metrics.h_score import h_score, h_score_from_statistics
from jaxfer.metrics.leep import leep, leep_from_statistics, leep_lower_bound
from jaxfer.metrics.logme import logme, logme_from_statistics
from jaxfer.metrics.nce import nce, nce_from_statistics
from jaxfer.metrics.prediction import (
    LOG_EEP_FLOOR,
    PredictionStatistics,
    conditional_log_probs,
    log_expected_prediction,
)
from jaxfer.metrics.registry import METRICS, Metric, metric
from jaxfer.metrics.score import Flag, Score
from jaxfer.metrics.segmentation import Outcome, dice, hd95, outcome
from jaxfer.metrics.similarity import global_ssim
from jaxfer.metrics.statistics import FeatureStatistics, LabelStatistics

__all__ = [
    "LOG_EEP_FLOOR",
    "METRICS",
    "FeatureStatistics",
    "Flag",
    "LabelStatistics",
    "Metric",
    "Outcome",
    "PredictionStatistics",
    "Score",
    "conditional_log_probs",
    "dice",
    "global_ssim",
    "h_score",
    "h_score_from_statistics",
    "hd95",
    "label_entropy",
    "leep",
    "leep_from_statistics",
    "leep_lower_bound",
    "log_expected_prediction",
    "logme",
    "logme_from_statistics",
    "metric",
    "nce",
    "nce_from_statistics",
    "outcome",
]
