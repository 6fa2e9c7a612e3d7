"""Measures per case, their means over subjects, gains between methods, and the intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxfer.evaluation import (
    CaseResult,
    collapsed,
    compare,
    harm,
    lost_classes,
    summarise,
    transfer_gains,
)
from jaxfer.metrics.intervals import bootstrap_mean_interval
from jaxfer.tasks import IGNORE

NAN, INF = math.nan, math.inf


def volumes():
    """One row of nine voxels: truth, and a prediction that misses, hits and spills."""
    truth = np.array([0, 1, 1, 1, 2, 2, 0, IGNORE, IGNORE], np.uint8)
    predicted = np.array([1, 1, 1, 0, 2, 0, 0, 1, 2], np.uint8)
    return predicted.reshape(9, 1, 1), truth.reshape(9, 1, 1)


def measured(predicted, truth, names=("core", "edema", "gone")):
    return compare(
        predicted,
        truth,
        names,
        spacing=(2.0, 1.0, 1.0),
        method="plain",
        seed=3,
        case="c",
        subject="s",
    )


def test_compare_by_hand():
    core, edema, gone = measured(*volumes())
    assert core.dice == pytest.approx(2 * 2 / (3 + 3))
    # From {0, 1, 2} to {1, 2, 3} and back: 0, 0 and 2 mm each way.
    assert core.hd95 == pytest.approx(np.percentile([0, 0, 2], 95))
    assert (core.n_reference, core.n_prediction, core.outcome) == (3, 3, "scored")
    assert edema.dice == pytest.approx(2 * 1 / (1 + 2))
    assert edema.hd95 == pytest.approx(np.percentile([0, 2], 95))
    assert (edema.n_reference, edema.n_prediction) == (2, 1)
    assert math.isnan(gone.dice)
    assert gone.outcome == "both_empty"
    for result in (core, edema, gone):
        assert (result.method, result.seed) == ("plain", 3)
        assert (result.case, result.subject) == ("c", "s")
    assert [r.label for r in (core, edema, gone)] == ["core", "edema", "gone"]


@pytest.mark.parametrize("value", [0, 1, 2, IGNORE])
def test_what_is_predicted_at_ignored_voxels_changes_nothing(value):
    predicted, truth = volumes()
    expected = measured(predicted, truth)
    predicted[truth == IGNORE] = value
    assert repr(measured(predicted, truth)) == repr(expected)


def test_the_rule_for_empty_masks():
    full, nothing = np.ones((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8)
    for predicted, truth, dice, hd95, outcome in (
        (nothing, full, 0.0, INF, "missed"),
        (full, nothing, 0.0, INF, "spurious"),
        (nothing, nothing, NAN, NAN, "both_empty"),
        (full, full, 1.0, 0.0, "scored"),
        (full, np.full_like(full, IGNORE), NAN, NAN, "both_empty"),
    ):
        (found,) = measured(predicted, truth, ("core",))
        assert found.outcome == outcome
        np.testing.assert_equal((found.dice, found.hd95), (dice, hd95))


def result(method, subject, dice, *, hd95=1.0, label="core", case="", seed=0, outcome="scored"):
    name = case or f"case of {subject}"
    return CaseResult(method, seed, name, subject, label, dice, hd95, 5, 5, outcome)


RESULTS = [
    # Subject a: two seeds, two classes, one of them not there. Subject b: two cases.
    result("scratch", "a", 0.2, hd95=4.0),
    result("scratch", "a", 0.4, hd95=2.0, seed=1),
    result("scratch", "a", NAN, hd95=NAN, label="edema", outcome="both_empty"),
    result("scratch", "a", 0.0, hd95=INF, label="edema", seed=1, outcome="spurious"),
    result("scratch", "b", 0.5, case="b1"),
    result("scratch", "b", 0.0, hd95=INF, case="b2", outcome="missed"),
    result("scratch", "c", NAN, hd95=NAN, outcome="both_empty"),
    result("plain", "a", 0.6, hd95=3.0),
    result("plain", "b", 0.75, case="b1"),
    result("plain", "c", 0.9),
    result("weighted", "a", 0.8),
]


def test_means_are_over_subjects():
    found = summarise(RESULTS, seed=0)["methods"]
    scratch = found["scratch"]
    assert scratch["dice_mean"] == pytest.approx(np.mean([0.2, 0.25]))  # a, b; c has none
    assert scratch["n_subjects"] == 2
    assert scratch["n_cases"] == 4
    assert scratch["dice_by_label"] == pytest.approx(
        {"core": np.mean([0.2, 0.4, 0.5, 0]), "edema": 0}
    )
    assert scratch["hd95_mean_finite"] == pytest.approx((4 + 2 + 1) / 3)
    assert scratch["n_hd95_finite"] == 3
    assert scratch["outcomes"] == {"scored": 3, "missed": 1, "spurious": 1, "both_empty": 2}
    assert found["plain"]["dice_mean"] == pytest.approx(0.75)
    assert found["plain"]["outcomes"]["missed"] == 0
    expected = bootstrap_mean_interval(np.array([0.2, 0.25]), seed=0)
    assert scratch["dice_interval"] == pytest.approx(list(expected))


def test_gains_are_paired_by_subject():
    found = summarise(RESULTS, seed=4)["gain"]
    assert list(found) == ["plain - scratch", "weighted - scratch", "weighted - plain"]
    first = found["plain - scratch"]
    assert first["per_subject"] == pytest.approx({"a": 0.6 - 0.2, "b": 0.75 - 0.25})
    assert first["mean"] == pytest.approx(0.45)
    expected = bootstrap_mean_interval(np.array([0.4, 0.5]), seed=4)
    assert first["interval"] == pytest.approx(list(expected))
    last = found["weighted - plain"]
    assert last["per_subject"] == pytest.approx({"a": 0.2})
    assert np.isnan(last["interval"]).all()


def test_nothing_that_can_be_measured():
    empty = [result(m, "a", NAN, hd95=NAN, outcome="both_empty") for m in ("scratch", "plain")]
    found = summarise(empty, seed=0)
    assert found["methods"]["plain"]["n_subjects"] == 0
    assert math.isnan(found["methods"]["plain"]["dice_mean"])
    assert math.isnan(found["methods"]["plain"]["hd95_mean_finite"])
    assert math.isnan(found["methods"]["plain"]["dice_by_label"]["core"])
    assert math.isnan(found["gain"]["plain - scratch"]["mean"])
    assert found["gain"]["plain - scratch"]["per_subject"] == {}
    assert summarise([], seed=0) == {"methods": {}, "gain": {}}


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_interval_against_the_exact_distribution_of_the_resampled_mean(level):
    # Of four ones among seven, a resampled sum is binomial: the exact quantiles are its own.
    values = np.array([0.0] * 3 + [1.0] * 4)
    tail = (1 - level) / 2
    expected = stats.binom(7, 4 / 7).ppf([tail, 1 - tail]) / 7
    for seed in range(3):
        found = bootstrap_mean_interval(values, seed=seed, level=level)
        assert found == pytest.approx(tuple(expected))


def test_interval_against_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=12)
    found = bootstrap_mean_interval(values, seed=0)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    spread = values.std() / np.sqrt(12)
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.06 * spread)


def test_interval_of_many_is_the_normal_one():
    values = np.random.default_rng(2).standard_normal(400)
    half = 1.96 * values.std() / 20
    found = bootstrap_mean_interval(values, seed=0)
    assert found == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06 * half)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 12), shift=st.floats(-5, 5))
def test_interval_moves_with_the_values_and_stays_between_them(seed, n, shift):
    values = np.random.default_rng(seed).standard_normal(n)
    low, high = bootstrap_mean_interval(values, seed=seed)
    least, most = values.min() - 1e-12, values.max() + 1e-12
    assert least <= low <= values.mean() <= high <= most
    moved = bootstrap_mean_interval(3 * values + shift, seed=seed)
    assert moved == pytest.approx((3 * low + shift, 3 * high + shift), abs=1e-9)
    assert bootstrap_mean_interval(values, seed=seed) == (low, high)


def test_no_interval_of_fewer_than_two():
    for values in (np.array([]), np.array([0.5])):
        assert np.isnan(bootstrap_mean_interval(values, seed=0)).all()
    assert bootstrap_mean_interval(np.array([0.5, 0.5]), seed=0) == (0.5, 0.5)


def network(dice, *, predicted=(5, 5, 5), method="plain", seed=0):
    """Results of one network: by class, the Dice of every case."""
    return [
        CaseResult(method, seed, f"c{i}", f"s{i}", label, d, 1.0, 5, n, "scored")
        for label, values in dice.items()
        for i, (d, n) in enumerate(zip(values, predicted, strict=True))
    ]


def test_a_class_is_lost_if_half_of_the_cases_miss_it():
    alone = {"core": (0.5, 0.5, 0.0)}
    assert lost_classes(network(alone, predicted=(5, 5, 0)), 0.1) == []
    assert lost_classes(network(alone, predicted=(5, 0, 0)), 0.1) == ["core"]
    nowhere = [replace(r, n_reference=0, n_prediction=0) for r in network(alone)]
    assert lost_classes(nowhere, 0.1) == []


def test_a_class_is_lost_if_it_is_under_the_bar_and_another_is_not():
    assert lost_classes(network({"core": (0.05,) * 3, "rim": (0.6,) * 3}), 0.1) == ["core"]
    assert lost_classes(network({"core": (0.05,) * 3, "rim": (0.06,) * 3}), 0.1) == []
    assert lost_classes(network({"core": (0.1,) * 3, "rim": (0.6,) * 3}), 0.1) == []
    assert lost_classes(network({"core": (0.05,) * 3}), 0.1) == []
    assert lost_classes(network({"core": (NAN,) * 3, "rim": (0.6,) * 3}), 0.1) == []


def test_collapsed_networks_are_counted_and_named():
    fine, bad = {"core": (0.5,) * 3}, {"core": (0.0,) * 3}
    results = (
        network(fine) + network(bad, seed=1, predicted=(0, 0, 0)) + network(fine, method="scratch")
    )
    found = collapsed(results, 0.1)["methods"]
    assert found["plain"] == {
        "networks": 2,
        "collapsed": [{"seed": 1, "classes": ["core"]}],
    }
    assert found["scratch"] == {"networks": 1, "collapsed": []}


@pytest.mark.parametrize(
    ("gains", "reading"),
    [
        ((0.1, 0.2, 0.1), "helps"),
        ((-0.1, -0.2, -0.1), "hurts"),
        ((-0.1, 0.2, 0.0), "cannot be told"),
        ((0.1, 0.2), "cannot be told"),
    ],
)
def test_transfer_is_judged_by_the_interval_over_subjects(gains, reading):
    n = (5,) * len(gains)
    scratch = network({"core": (0.5,) * len(gains)}, method="scratch", predicted=n)
    own = network({"core": tuple(0.5 + g for g in gains)}, predicted=n)
    found = transfer_gains(scratch + own, ["plain"], seed=0)["plain"]
    assert found["reading"] == reading
    assert found["mean"] == pytest.approx(np.mean(gains))
    assert found["below"] == sum(g < 0 for g in gains)
    assert found["per_subject"] == pytest.approx({f"s{i}": g for i, g in enumerate(gains)})


def test_harm_is_where_scratch_is_right_and_the_transferred_wrong():
    truth = np.uint8([[[1, 1, 0, 0, 2]]])
    scratch = np.uint8([[[1, 0, 0, 1, 1]]])
    moved = np.uint8([[[2, 1, 0, 1, 2]]])
    valid = np.array([[[True, True, True, True, False]]])
    assert harm(truth, [scratch], [moved], valid).ravel().tolist() == [1, -1, 0, 0, 0]
    assert harm(truth, [scratch, moved], [moved, moved], valid).ravel().tolist() == [
        0.5, -0.5, 0, 0, 0,
    ]  # fmt: skip
