"""Risk maps of the metrics that see features: −log of the true class's posterior, pixel by pixel.

Each fits what its metric fits, ``gbc`` with covariances of another form, to the statistics of the
training cases' features, and asks it of every pixel how surely it knows the label:

* ``lda``: Gaussian classes of one shrunk covariance. The LDA score is the mean of the posterior.
* ``gbc``: Gaussian classes of a diagonal covariance each, in the features as they are. The metric
  projects more than 64 features on principal components, and unless told otherwise takes a
  spherical covariance for each class.
* ``logme``: the predictive distributions N(μ_c, s_c²) of its Bayesian linear models, one for each
  class against the rest. Among the labels that say "this class and no other", the density of that
  of class c is larger than that of no class by exp((2 μ_c − 1) / (2 s_c²)): the posterior is the
  softmax of these exponents. A pixel where the evidence lies far from any label has its risk too,
  and the prior is in the models. Those of a rare class have so little noise that the risk of all
  its pixels is the largest: give it class-balanced statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Integer

from jaxfer.metrics import ClassFeatureStatistics, logme_models
from jaxfer.train.risk_map import FLOOR

Exponents = Callable[[Float64[np.ndarray, "m d"]], Float64[np.ndarray, "m c"]]
"""Logarithms of each class's share in the posterior, up to a constant of the row."""

METRICS = ("lda", "gbc", "logme")

_ROWS = 2**16
_ROUNDING = 1e-12
"""Of the mean squared feature: a variance that float32 features cannot have but by rounding."""
_LEAST_VARIANCE = 1e-6
"""Of the mean variance: a feature that is constant within a class would decide everything."""


def posterior_risk(
    features: Float[np.ndarray, "*n d"],
    labels: Integer[np.ndarray, "*n"],
    stats: ClassFeatureStatistics,
    valid: Bool[np.ndarray, "*n"],
    metric: str,
) -> Float32[np.ndarray, "*n"]:
    """−log P(y|f) of the true label at every pixel, in nats; 0 where not valid.

    Args:
        features: of the frozen source.
        labels: target classes; read where valid.
        stats: of the features of the training cases; class-balanced ones give equal priors.
        valid: pixels that are not ignored.
        metric: "lda", "gbc" or "logme".
    """
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r}: one of {METRICS}")
    inside, truth = features[valid], labels[valid].astype(np.int64)
    exponents = (
        _linear_exponents(stats) if metric == "logme" else _gaussian_exponents(stats, metric)
    )
    found = np.zeros(valid.shape, np.float32)
    found[valid] = np.concatenate([np.zeros(0), *_blocks(inside, truth, exponents)])
    return found


def _blocks(
    features: Float[np.ndarray, "n d"], truth: Integer[np.ndarray, " n"], exponents: Exponents
) -> Iterator[Float64[np.ndarray, " m"]]:
    """The risk of some rows after the other, for less memory."""
    for start in range(0, len(truth), _ROWS):
        joint = exponents(np.asarray(features[start : start + _ROWS], np.float64))
        own = np.take_along_axis(joint, truth[start : start + _ROWS, None], axis=1)[:, 0]
        largest = joint.max(1)
        total = largest + np.log(np.exp(joint - largest[:, None]).sum(1))
        yield np.clip(total - own, 0.0, -np.log(FLOOR))


def _gaussian_exponents(stats: ClassFeatureStatistics, metric: str) -> Exponents:
    """log P(c) + log p(f|c), up to what all classes share."""
    counts = np.asarray(stats.counts, np.float64)
    with np.errstate(divide="ignore"):
        log_priors = np.log(counts / counts.sum())
    means = np.asarray(stats.means, np.float64)
    roots = np.linalg.cholesky(_covariances(stats, metric))
    log_roots = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(1)
    whitened = np.linalg.inv(roots)

    def exponents(rows: Float64[np.ndarray, "m d"]) -> Float64[np.ndarray, "m c"]:
        distances = [
            (((rows - mean) @ inverse.T) ** 2).sum(1)
            for mean, inverse in zip(means, whitened, strict=True)
        ]
        return log_priors - log_roots - 0.5 * np.stack(distances, axis=1)

    return exponents


def _linear_exponents(stats: ClassFeatureStatistics) -> Exponents:
    """(2 μ_c − 1) / (2 s_c²); −∞ for a class that is absent."""
    models = logme_models(stats.features())
    weights, directions, spread, noise, present = map(np.asarray, models)
    if not np.isfinite(noise[present]).all():  # features of zeros: there is no model but the shares
        with np.errstate(divide="ignore"):
            shares = np.log(np.asarray(stats.counts) / np.asarray(stats.counts).sum())
        return lambda rows: np.broadcast_to(shares, (len(rows), len(shares)))

    def exponents(rows: Float64[np.ndarray, "m d"]) -> Float64[np.ndarray, "m c"]:
        variances = 1 / noise + (rows @ directions) ** 2 @ spread.T
        return np.where(present, (2 * rows @ weights.T - 1) / (2 * variances), -np.inf)

    return exponents


def _covariances(stats: ClassFeatureStatistics, metric: str) -> Float64[np.ndarray, "c d d"]:
    """Positive definite, one per class; of ``lda`` the same one, shrunk as its metric does."""
    counts, scatters = (np.asarray(x, np.float64) for x in (stats.counts, stats.scatters))
    within, identity = scatters.sum(0) / counts.sum(), np.eye(scatters.shape[-1])
    # Features that differ by rounding alone tell nothing apart.
    rounding = _ROUNDING * float((np.asarray(stats.means, np.float64) ** 2).mean())
    variance = max(float(np.trace(within)) / len(identity), rounding) or 1.0
    if metric == "lda":
        strength = max(np.exp(-5.0 * np.linalg.eigvalsh(within)[-1]), 1e-10)
        shrunk = (1.0 - strength) * within + strength * variance * identity
        return np.broadcast_to(shrunk, scatters.shape)
    own = scatters / np.maximum(counts, 1.0)[:, None, None]
    return (own * identity) + _LEAST_VARIANCE * variance * identity
