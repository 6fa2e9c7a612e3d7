"""Installed peers of the metrics: scikit-learn, POT, transformer-ranker."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import ot
import torch
from sklearn.metrics import mutual_info_score
from sklearn.neighbors import KNeighborsClassifier
from transformer_ranker.estimators import HScore, LogME
from voxels import CLASSES, draw, halves

Told = dict[str, Any]


def prepare(threads: int, **_: object) -> None:
    torch.set_num_threads(threads)


def versions() -> dict[str, str]:
    names = ("scikit-learn", "POT", "transformer-ranker", "torch")
    return {name: version(name) for name in names}


def ranker(metric: str, size: int) -> Callable[[], Told]:
    """An estimator of transformer-ranker, all voxels at once."""
    voxels = draw(size)
    features, labels = torch.tensor(voxels.features), torch.tensor(voxels.labels).long()

    def job() -> Told:
        estimator = {"h_score": HScore, "logme": LogME}[metric]()
        return {"scores": [float(estimator.fit(embeddings=features, labels=labels))]}

    return job


def nce(size: int) -> Callable[[], Told]:
    """−H(Y|Z) from scikit-learn's mutual information."""
    voxels = draw(size)

    def job() -> Told:
        shares = np.bincount(voxels.labels) / size
        known = mutual_info_score(voxels.labels, voxels.log_probs.argmax(1))
        return {"scores": [float(known + (shares * np.log(shares)).sum())]}

    return job


def neighbours(size: int, k: int) -> Callable[[], Told]:
    """Leave-one-out accuracy from scikit-learn's neighbours, brute force as wide features need."""
    voxels = draw(size)

    def job() -> Told:
        fitted = KNeighborsClassifier(k, algorithm="brute").fit(voxels.features, voxels.labels)
        votes = voxels.labels[fitted.kneighbors(return_distance=False)]
        counts = np.stack([(votes == c).sum(1) for c in range(CLASSES)], 1)
        most = counts == counts.max(1, keepdims=True)
        own = most[np.arange(size), voxels.labels] / most.sum(1)
        return {"scores": [float(own.mean())]}

    return job


def transport(size: int) -> Callable[[], Told]:
    """The entropy of POT's exact plan."""
    source, target = halves(size)

    def job() -> Told:
        cost = ot.dist(source.features.astype(np.float64), target.features.astype(np.float64))
        mass = np.full(size, 1 / size)
        plan = ot.emd(mass, mass, cost, numItermax=10**8)
        rows, columns = np.nonzero(plan)
        joint = np.zeros((CLASSES, CLASSES))
        np.add.at(joint, (source.labels[rows], target.labels[columns]), plan[rows, columns])
        conditional = joint / joint.sum(1, keepdims=True)
        return {"scores": [-float((joint * np.log(np.where(joint > 0, conditional, 1))).sum())]}

    return job


JOBS = {"ranker": ranker, "nce": nce, "neighbours": neighbours, "transport": transport}
