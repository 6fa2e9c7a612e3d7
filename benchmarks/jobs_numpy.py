"""The metrics as they are usually published: float64 numpy, all voxels at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from scipy.special import softmax
from voxels import CLASSES, FEATURES, SOURCES, Voxels, draw

MIN_VARIANCE, EPSILON = 1e-4, 1e-4


def nce(voxels: Voxels) -> float:
    pairs = voxels.labels * SOURCES + voxels.log_probs.argmax(1)
    joint = np.bincount(pairs, minlength=CLASSES * SOURCES).reshape(CLASSES, SOURCES)
    joint = joint / joint.sum()
    conditional = joint / joint.sum(0)
    return float((joint * np.log(np.where(joint > 0, conditional, 1))).sum())


def leep(voxels: Voxels) -> float:
    probs = np.exp(voxels.log_probs.astype(np.float64))
    joint = np.stack([probs[voxels.labels == c].sum(0) for c in range(CLASSES)])
    expected = probs @ (joint / joint.sum(0)).T
    return float(np.log(expected[np.arange(len(probs)), voxels.labels]).mean())


def class_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([features[labels == c].mean(0) for c in range(CLASSES)])


def h_score(voxels: Voxels) -> float:
    features = voxels.features.astype(np.float64)
    between = class_means(features, voxels.labels)[voxels.labels]
    inverse = np.linalg.pinv(np.cov(features, rowvar=False), rcond=1e-15)
    return float(np.trace(inverse @ np.cov(between, rowvar=False)))


def regularized_h_score(voxels: Voxels) -> float:
    features = voxels.features.astype(np.float64)
    features -= features.mean(0)
    n, d = features.shape
    covariance = features.T @ features / n
    scale = np.trace(covariance) / d
    squares = features**2
    error = ((squares.T @ squares).sum() / n - (covariance**2).sum()) / n
    distance = ((covariance - scale * np.eye(d)) ** 2).sum()
    a = min(error / distance, 1)
    between = class_means(features, voxels.labels)[voxels.labels]
    shrunken = (1 - a) * covariance + a * scale * np.eye(d)
    spread = np.cov(between, rowvar=False, bias=True)
    return float(np.trace(np.linalg.pinv(shrunken) @ ((1 - a) * spread)))


def logme(voxels: Voxels) -> float:
    features = voxels.features.astype(np.float64)
    n, d = features.shape
    # Of FᵀF, as in the authors' code: with more voxels than features that is the fast form.
    power, directions = np.linalg.eigh(features.T @ features)
    left = features @ directions / np.sqrt(power)
    evidence = []
    for c in range(CLASSES):
        target = (voxels.labels == c).astype(np.float64)
        along = (left.T @ target) ** 2
        rest = max((target**2).sum() - along.sum(), 0)
        alpha = beta = 1.0
        for _round in range(11):
            ratio = alpha / beta
            gamma = (power / (power + ratio)).sum()
            weights = (power * along / (power + ratio) ** 2).sum()
            residual = (along / (1 + power / ratio) ** 2).sum() + rest
            alpha, beta = gamma / (weights + 1e-5), (n - gamma) / (residual + 1e-5)
            if abs(alpha / beta - ratio) / ratio <= 1e-3:
                break
        whole = d * np.log(alpha) + n * np.log(beta) - np.log(alpha + beta * power).sum()
        evidence.append((whole - beta * residual - alpha * weights - n * np.log(2 * np.pi)) / 2)
    return float(np.mean(evidence) / n)


def transrate(voxels: Voxels) -> float:
    features = voxels.features.astype(np.float64)
    features -= features.mean(0)

    def rate(rows: np.ndarray) -> float:
        n, d = rows.shape
        return np.linalg.slogdet(np.eye(d) + rows.T @ rows / (n * EPSILON))[1] / 2

    own = [features[voxels.labels == c] for c in range(CLASSES)]
    return float(rate(features) - sum(len(rows) / len(features) * rate(rows) for rows in own))


def gbc(voxels: Voxels) -> float:
    features = voxels.features.astype(np.float64)
    own = [features[voxels.labels == c] for c in range(CLASSES)]
    means = [rows.mean(0) for rows in own]
    variances = [max(rows.var(0).mean(), MIN_VARIANCE) for rows in own]
    total = 0.0
    for i in range(CLASSES):
        for j in set(range(CLASSES)) - {i}:
            common = (variances[i] + variances[j]) / 2
            apart = ((means[i] - means[j]) ** 2).sum() / common / 8
            unlike = np.log(common / np.sqrt(variances[i] * variances[j]))
            total -= np.exp(-apart - FEATURES * unlike / 2)
    return float(total)


def lda(voxels: Voxels) -> float:
    features = voxels.features.astype(np.float64)
    features -= features.mean(0)
    n, d = features.shape
    means = class_means(features, voxels.labels)
    shares = np.bincount(voxels.labels, minlength=CLASSES) / n
    residual = features - means[voxels.labels]
    within = residual.T @ residual / n
    between = (shares[:, None] * means).T @ means
    a = max(np.exp(-5 * np.linalg.eigvalsh(within)[-1]), 1e-10)
    within, between = ((1 - a) * m + a * np.trace(m) / d * np.eye(d) for m in (within, between))
    _, directions = scipy.linalg.eigh(between, within)
    centres = means @ directions
    evidence = features @ directions @ centres.T + np.log(shares) - (centres**2).sum(1) / 2
    return float(softmax(evidence, 1)[np.arange(n), voxels.labels].mean())


METRICS: dict[str, Callable[[Voxels], float]] = {
    "nce": nce,
    "leep": leep,
    "h_score": h_score,
    "regularized_h_score": regularized_h_score,
    "logme": logme,
    "transrate": transrate,
    "gbc": gbc,
    "lda": lda,
}


def score(metrics: list[str], size: int) -> Callable[[], dict[str, Any]]:
    """Metrics of `size` voxels, one after the other."""
    voxels = draw(size)
    return lambda: {"scores": [METRICS[name](voxels) for name in metrics]}


def prepare(**_: object) -> None:
    """NumPy's threads are set by the environment."""


def versions() -> dict[str, str]:
    return {"numpy": np.__version__, "scipy": scipy.__version__}


JOBS = {"score": score}
