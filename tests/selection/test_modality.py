"""Images' distance: units, fields of view, missing summaries, and names that lie."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from jaxfer.data.phantom.sites import SITES
from jaxfer.data.phantom.subject import make_subject
from jaxfer.selection.modality import (
    QUANTILES,
    Intensities,
    contradictions,
    modality_distance,
    summaries,
    summarise,
)
from jaxfer.tasks import Task

MODALITIES = ("t1", "t2", "flair")


def volume(seed, shape=(20, 18, 12), gain=1.0, offset=0.0, power=2.0):
    values = np.random.default_rng(seed).gamma(power, 1.0, shape) * gain + offset
    return values.astype(np.float32)


def of(*volumes, stripped=False):
    return Intensities(np.stack([summarise(v, stripped) for v in volumes]), stripped)


def test_gain_offset_and_grid_do_not_matter_but_the_histogram_does():
    target = of(volume(0))
    same = of(volume(0, gain=30, offset=500))
    other = of(volume(1, shape=(30, 16, 20)))
    skewed = of(volume(2, power=0.3))
    assert modality_distance(same, target, 0).mean == pytest.approx(0, abs=1e-4)
    assert modality_distance(other, target, 0).mean < 0.05
    assert modality_distance(skewed, target, 0).mean > 0.2


def test_the_distance_is_wasserstein_1():
    def standardised(values):
        return ((values - values.mean()) / values.std()).ravel()

    a, b = volume(0), volume(3, power=0.5)
    expected = wasserstein_distance(standardised(a), standardised(b))
    assert modality_distance(of(a), of(b), 0).mean == pytest.approx(expected, abs=0.01)


def test_background_is_left_out_of_a_skull_stripped_scan():
    inside = volume(0, offset=1)
    padded = np.pad(inside, 10)
    assert modality_distance(of(padded, stripped=True), of(inside, stripped=True), 0).mean < 0.01
    assert modality_distance(of(padded), of(inside), 0).mean > 0.3


def test_a_summary_of_stored_cases(make_case):
    rng = np.random.default_rng(0)
    classes = np.zeros((8, 8, 6), np.uint8)
    images = [rng.normal(size=classes.shape) for _ in range(3)]
    found = summaries([make_case(classes, 2, image) for image in images], skull_stripped=False)
    assert found.quantiles.shape == (3, QUANTILES)
    assert (np.diff(found.quantiles, axis=1) >= 0).all()


def test_the_interval_is_over_subjects_of_both_tasks():
    a = of(*(volume(n, power=1 + 0.2 * n) for n in range(4)))
    b = of(*(volume(9 + n, power=2) for n in range(3)))
    found = modality_distance(a, b, 0)
    assert found.low < found.mean < found.high
    assert found.pairs == 12
    alone = modality_distance(a, of(volume(9)), 0)
    assert math.isnan(alone.low)
    assert not math.isnan(alone.mean)


def test_what_is_unknown_has_a_reason():
    target = of(volume(0))
    unknown = modality_distance(None, target, 0)
    assert math.isnan(unknown.mean)
    assert unknown.reason
    flat = modality_distance(of(np.ones((9, 9, 9), np.float32)), target, 0)
    assert math.isnan(flat.mean)
    assert "contrast" in flat.reason
    empty = of(np.zeros((9, 9, 9), np.float32), stripped=True)
    assert np.isnan(empty.quantiles).all()
    other_view = modality_distance(of(volume(1), stripped=True), target, 0)
    assert other_view.mean < 0.1
    assert math.isnan(other_view.comparable)
    assert "brains" in other_view.reason


@pytest.fixture(scope="module")
def scanned():
    """Two subjects of each site in each modality."""
    found = {}
    for site in ("ageing", "glioma", "clinic", "hospital"):
        subjects = [make_subject(SITES[site], seed=0, index=n) for n in (1, 2)]
        for m in MODALITIES:
            images = [s.images[m].astype(np.float32) for s in subjects]
            found[Task("phantom", site, m, "x")] = of(*images, stripped=True)
    return found


def test_honest_names_are_believed_and_lies_across_t2_are_told(scanned):
    assert contradictions(scanned, 0) == {}
    for truth, lie in (("t2", "t1"), ("t2", "flair"), ("t1", "t2"), ("flair", "t2")):
        known = dict(scanned)
        known[liar := Task("phantom", "glioma", lie, "y")] = scanned[
            Task("phantom", "glioma", truth, "x")
        ]
        told = contradictions(known, 0)
        assert list(told) == [liar]
        assert f"declared as {lie}, but its images look like" in told[liar]


def test_a_data_set_does_not_bear_witness_for_itself(scanned):
    # Both of its tasks lie, and each has the very images of the other.
    known = {t: own for t, own in scanned.items() if t.site != "glioma"}
    truth = scanned[Task("phantom", "glioma", "t2", "x")]
    liars = [Task("phantom", "glioma", "t1", roi) for roi in ("a", "b")]
    assert set(contradictions(known | dict.fromkeys(liars, truth), 0)) == set(liars)
    few = {task: own for task, own in known.items() if task.site == "clinic"}
    assert set(liars) <= set(contradictions(few | dict.fromkeys(liars, truth), 0))


def test_who_cannot_be_compared_is_not_accused(scanned):
    liar = Task("phantom", "glioma", "t1", "y")
    truth = scanned[Task("phantom", "glioma", "t2", "x")]
    others = {t: o for t, o in scanned.items() if t.site == "clinic"}
    assert contradictions(others | {liar: truth}, 0)
    assert contradictions(others | {liar: None}, 0) == {}
    assert contradictions(others | {liar: Intensities(truth.quantiles, False)}, 0) == {}
    only = {t: o for t, o in others.items() if t.modality != "t1"}
    assert contradictions(only | {liar: truth}, 0) == {}
