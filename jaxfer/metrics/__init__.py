"""How well a source would transfer, and how well it segments: pure functions of arrays."""

from jaxfer.metrics.affinity import (
    Affinity,
    component_distances,
    histogram_distances,
    intensity_quantiles,
    mask_similarities,
    quantile_distances,
    task_affinity,
)
from jaxfer.metrics.balance import class_balanced
from jaxfer.metrics.card import Metric
from jaxfer.metrics.carried import Carrier, carried_log_probs, carrier
from jaxfer.metrics.cc_fv import CcFv, cc_fv
from jaxfer.metrics.class_order import ClassOrder, class_order
from jaxfer.metrics.class_statistics import ClassFeatureStatistics
from jaxfer.metrics.clouds import TransportScore
from jaxfer.metrics.crank import (
    Consistency,
    adapted_rand_error,
    effective_invariance,
    hamming_distance,
)
from jaxfer.metrics.emms import emms
from jaxfer.metrics.entropy import label_entropy
from jaxfer.metrics.etran import EtranTerms, etran_terms, etran_total
from jaxfer.metrics.gbc import gbc, gbc_from_statistics, log_gbc, log_gbc_from_statistics
from jaxfer.metrics.h_score import h_score, h_score_from_statistics
from jaxfer.metrics.jc_otce import jc_otce
from jaxfer.metrics.knn_accuracy import knn_accuracy
from jaxfer.metrics.lda import lda, lda_from_statistics
from jaxfer.metrics.leep import leep, leep_from_statistics, leep_lower_bound
from jaxfer.metrics.logme import logme, logme_from_statistics, logme_models
from jaxfer.metrics.n_leep import mixture_posteriors, n_leep
from jaxfer.metrics.nce import nce, nce_from_statistics
from jaxfer.metrics.ncti import NctiTerms, ncti_terms, ncti_total
from jaxfer.metrics.otce import OtceFit, f_otce, fit_otce, otce
from jaxfer.metrics.pactran import pactran_dirichlet, pactran_gamma
from jaxfer.metrics.pactran_gaussian import pactran_gaussian
from jaxfer.metrics.parc import parc
from jaxfer.metrics.posterior import LinearClassifier, PosteriorStatistics, linear_classifier
from jaxfer.metrics.prediction import (
    LOG_EEP_FLOOR,
    PredictionStatistics,
    conditional_log_probs,
    log_expected_prediction,
)
from jaxfer.metrics.registry import METRICS, OVER_VOXELS, metric, score_names, scored_by
from jaxfer.metrics.regularized_h_score import (
    ledoit_wolf_shrinkage,
    regularized_h_score,
    regularized_h_score_from_statistics,
)
from jaxfer.metrics.repeated import Pixels, RepeatedScore, repeated, stratified_sample
from jaxfer.metrics.score import Flag, Score
from jaxfer.metrics.segmentation import Outcome, dice, hd95, outcome
from jaxfer.metrics.sfda import sfda
from jaxfer.metrics.similarity import global_ssim
from jaxfer.metrics.statistics import FeatureStatistics, LabelStatistics
from jaxfer.metrics.transrate import transrate, transrate_from_statistics
from jaxfer.metrics.uncertainty import (
    Interval,
    bootstrap,
    interval,
    probability_best,
    subject_draws,
)

__all__ = [
    "LOG_EEP_FLOOR",
    "METRICS",
    "OVER_VOXELS",
    "Affinity",
    "Carrier",
    "CcFv",
    "ClassFeatureStatistics",
    "ClassOrder",
    "Consistency",
    "EtranTerms",
    "FeatureStatistics",
    "Flag",
    "Interval",
    "LabelStatistics",
    "LinearClassifier",
    "Metric",
    "NctiTerms",
    "OtceFit",
    "Outcome",
    "Pixels",
    "PosteriorStatistics",
    "PredictionStatistics",
    "RepeatedScore",
    "Score",
    "TransportScore",
    "adapted_rand_error",
    "bootstrap",
    "carried_log_probs",
    "carrier",
    "cc_fv",
    "class_balanced",
    "class_order",
    "component_distances",
    "conditional_log_probs",
    "dice",
    "effective_invariance",
    "emms",
    "etran_terms",
    "etran_total",
    "f_otce",
    "fit_otce",
    "gbc",
    "gbc_from_statistics",
    "global_ssim",
    "h_score",
    "h_score_from_statistics",
    "hamming_distance",
    "hd95",
    "histogram_distances",
    "intensity_quantiles",
    "interval",
    "jc_otce",
    "knn_accuracy",
    "label_entropy",
    "lda",
    "lda_from_statistics",
    "ledoit_wolf_shrinkage",
    "leep",
    "leep_from_statistics",
    "leep_lower_bound",
    "linear_classifier",
    "log_expected_prediction",
    "log_gbc",
    "log_gbc_from_statistics",
    "logme",
    "logme_from_statistics",
    "logme_models",
    "mask_similarities",
    "metric",
    "mixture_posteriors",
    "n_leep",
    "nce",
    "nce_from_statistics",
    "ncti_terms",
    "ncti_total",
    "otce",
    "outcome",
    "pactran_dirichlet",
    "pactran_gamma",
    "pactran_gaussian",
    "parc",
    "probability_best",
    "quantile_distances",
    "regularized_h_score",
    "regularized_h_score_from_statistics",
    "repeated",
    "score_names",
    "scored_by",
    "sfda",
    "stratified_sample",
    "subject_draws",
    "task_affinity",
    "transrate",
    "transrate_from_statistics",
]
