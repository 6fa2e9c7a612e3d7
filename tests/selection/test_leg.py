"""Distances of tasks: by hand, symmetric, and none where something is missing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxfer.selection.leg import Place, leg
from jaxfer.selection.modality import Intensities

HOW = {"alpha": 2.0, "beta": 3.0, "k1": 0.01, "k2": 0.03}


def place(*masks, quantiles=((0.0, 1.0),), stripped=True):
    known = Intensities(np.array(quantiles, np.float32), stripped)
    return Place(np.array(masks, np.uint8), known)


def ssim(a, b):
    a, b = np.array(a) / 255, np.array(b) / 255
    c1, c2 = 0.01**2, 0.03**2
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    up = (2 * a.mean() * b.mean() + c1) * (2 * covariance + c2)
    return up / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (a.var() + b.var() + c2))


def test_the_distance_and_its_parts_by_hand():
    a = place([255, 0, 0, 51], [0, 0, 255, 0], quantiles=[[-1, 1], [-2, 2]])
    b = place([255, 255, 0, 0], quantiles=[[-1, 2]])
    found = leg(a, b, **HOW)
    similarity = np.mean([ssim(m, [255, 255, 0, 0]) for m in ([255, 0, 0, 51], [0, 0, 255, 0])])
    assert found.label_similarity == pytest.approx(similarity, abs=1e-5)
    # |−1+1| and |1−2|, |−2+1| and |2−2|: half a standard deviation either way.
    assert found.image_distance == pytest.approx(0.5)
    assert found.distance == pytest.approx(2 * 0.5 + 3 * (1 - similarity), abs=1e-5)
    assert found.reason == ""
    assert leg(b, a, **HOW).distance == pytest.approx(found.distance, abs=1e-6)


def test_the_same_task_is_at_no_distance():
    one = place([255, 0, 0, 51])
    assert leg(one, one, **HOW).distance == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Place(np.uint8([[255, 0]]), None), "nothing is kept"),
        (place([255, 0], stripped=False), "brains"),
        (place([0, 0]), "label maps"),
        (place([255, 0], quantiles=[[math.nan, math.nan]]), "contrast"),
    ],
)
def test_without_a_distance_there_is_a_reason(other, reason):
    found = leg(place([255, 0]), other, **HOW)
    assert math.isnan(found.distance)
    assert reason in found.reason
