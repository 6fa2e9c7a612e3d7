"""Agreement measures: scipy row by row, values by hand, ties, gaps, and what has no order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxfer.metrics.agreement import (
    MEASURES,
    kendall,
    over_targets,
    pearson,
    pool_of,
    regret_at_1,
    rel_at,
    spearman,
    weighted_kendall,
)

NAN = np.nan
ORACLES = {
    "pearson": scipy.stats.pearsonr,
    "spearman": scipy.stats.spearmanr,
    "kendall": scipy.stats.kendalltau,
    "weighted_kendall": scipy.stats.weightedtau,
}
CORRELATIONS = sorted(ORACLES)


def row(*values):
    return np.array(values, float)


def of(name, scores, truth):
    return float(MEASURES[name](row(*scores), row(*truth)))


@pytest.mark.parametrize("name", CORRELATIONS)
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([2, 4, 1000]))
def test_is_scipys_with_ties_and_missing_scores(name, seed, levels):
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=(2, 3, 8)).astype(float)
    truth = rng.integers(levels, size=(2, 3, 8)) / 7
    scores[rng.random(scores.shape) < 0.1] = NAN
    truth[rng.random(truth.shape) < 0.1] = NAN
    found = MEASURES[name](scores, truth)
    for place in np.ndindex(2, 3):
        s, a = scores[place], truth[place]
        if len(set(a[~np.isnan(a)])) < 2:
            assert np.isnan(found[place])
            continue
        both = ~np.isnan(s) & ~np.isnan(a)
        s, a = s[both], a[both]
        if len(set(s)) < 2 or len(set(a)) < 2:
            assert found[place] == 0
        else:
            assert found[place] == pytest.approx(ORACLES[name](s, a)[0], abs=1e-12)


def test_by_hand():
    scores, truth = (4, 3, 1, 2), (4, 2, 3, 1)  # of 6 pairs 4 agree and 2 do not
    assert of("kendall", scores, truth) == pytest.approx(2 / 6)
    assert of("spearman", scores, truth) == pytest.approx(1 - 6 * (1 + 4 + 1) / (4 * 15))
    # Places by truth 0 2 1 3, weights 1, 1/3, 1/2, 1/4; pairs (1, 2) and (2, 3) disagree.
    by_truth = 1 - 2 * ((1 / 3 + 1 / 2) + (1 / 2 + 1 / 4)) / (3 * (1 + 1 / 3 + 1 / 2 + 1 / 4))
    by_score = 1 - 2 * ((1 / 2 + 1 / 4) + (1 / 4 + 1 / 3)) / (3 * (1 + 1 / 2 + 1 / 4 + 1 / 3))
    assert of("weighted_kendall", scores, truth) == pytest.approx((by_truth + by_score) / 2)
    assert of("pearson", (1, 2, 3), (1, 3, 2)) == pytest.approx(0.5)


def test_tau_b_of_ties_by_hand():
    # Pairs: one ties in the scores, one in the truth, one agrees.
    assert of("kendall", (1, 1, 2), (1, 2, 2)) == pytest.approx(1 / 2)


def test_the_first_places_count_most():
    truth = (5, 4, 3, 2, 1)
    wrong_at_the_top, wrong_below = (4, 5, 3, 2, 1), (5, 4, 3, 1, 2)
    assert of("kendall", wrong_at_the_top, truth) == of("kendall", wrong_below, truth)
    assert of("weighted_kendall", wrong_at_the_top, truth) < of(
        "weighted_kendall", wrong_below, truth
    )


@pytest.mark.parametrize("name", CORRELATIONS)
def test_constant_scores_are_nought_and_a_constant_truth_is_nothing(name):
    assert of(name, (2, 2, 2), (1, 2, 3)) == 0
    assert of(name, (0.1, 0.1, 0.1), (1, 2, 3)) == 0
    assert of(name, (1, NAN, NAN), (1, 2, 3)) == 0
    assert of(name, (NAN, NAN, NAN), (1, 2, 3)) == 0
    assert np.isnan(of(name, (1, 2, 3), (2, 2, 2)))
    assert np.isnan(of(name, (1, 2, 3), (NAN, 2, NAN)))
    assert np.isnan(of(name, (), ()))


@pytest.mark.parametrize("name", CORRELATIONS)
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_any_scale(name, scale):
    assert of(name, (1 * scale, 2 * scale, 3 * scale), (1, 2, 3)) == pytest.approx(1)


@pytest.mark.parametrize("name", sorted(MEASURES))
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_sources_is_of_no_consequence(name, seed):
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(4, size=(2, 6)).astype(float)
    scores[rng.random(6) < 0.2] = NAN
    order = rng.permutation(6)
    once, again = MEASURES[name](scores, truth), MEASURES[name](scores[order], truth[order])
    np.testing.assert_allclose(once, again, atol=1e-12)


@pytest.mark.parametrize("name", CORRELATIONS)
def test_turned_scores_turn_the_sign(name):
    rng = np.random.default_rng(1)
    scores, truth = rng.random((2, 5, 9))
    if name == "weighted_kendall":  # the other end of the list then counts most: bounds alone
        assert (np.abs(weighted_kendall(scores, truth)) <= 1).all()
        np.testing.assert_allclose(weighted_kendall(-truth, truth), -1)
    else:
        np.testing.assert_allclose(MEASURES[name](-scores, truth), -MEASURES[name](scores, truth))


def expected_best(scores, truth, k):
    """The mean over every order of the sources in which the scores never rise."""
    ranked = [-np.inf if np.isnan(s) else s for s in scores]
    orders = [
        order
        for order in itertools.permutations(range(len(truth)))
        if all(ranked[i] >= ranked[j] for i, j in itertools.pairwise(order))
    ]
    return np.mean([max(truth[i] for i in order[:k]) for order in orders])


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 7))
def test_the_best_of_the_first_is_the_mean_over_all_tie_breaks(seed, k):
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(3, size=5).astype(float), 0.1 + rng.integers(4, size=5) / 5
    scores[rng.random(5) < 0.2] = NAN
    expected = expected_best(scores, truth, k)
    assert rel_at(scores, truth, k=k) == pytest.approx(expected / truth.max())
    if k == 1:
        assert regret_at_1(scores, truth) == pytest.approx(truth.max() - expected)


def test_the_choice_by_hand():
    truth = (0.8, 0.6, 0.4, 0.2)
    assert of("rel_at_1", (1, 3, 2, 0), truth) == pytest.approx(0.75)
    assert of("regret_at_1", (1, 3, 2, 0), truth) == pytest.approx(0.2)
    assert of("rel_at_3", (1, 3, 2, 0), truth) == 1
    assert of("regret_at_1", (1, 1, 1, 1), truth) == pytest.approx(0.3)
    # A source without a score is not taken, and that it was the best one is a loss.
    assert of("regret_at_1", (NAN, 3, 2, 0), truth) == pytest.approx(0.2)
    # A source without a truth is not there.
    assert of("regret_at_1", (9, 3, 2, 0), (NAN, *truth[1:])) == 0
    assert np.isnan(of("rel_at_1", (1, 2), (-0.1, 0)))
    assert np.isnan(of("regret_at_1", (1, 2), (0.3, NAN)))
    with pytest.raises(ValueError, match="k must be at least 1, found 0"):
        rel_at(row(1, 2), row(1, 2), k=0)


def test_pools_are_counted():
    scores = np.array([[1, 2, NAN, 4], [1, 1, 1, NAN], [1, 2, 3, 4], [NAN, 2, 3, 4]])
    truth = np.array([[1, 2, 3, NAN], [1, 2, 3, 4], [5, 5, 5, 5], [1, 2, 2, 2]], float)
    pool = pool_of(scores, truth)
    assert pool.sources.tolist() == [3, 4, 4, 4]
    assert pool.missing.tolist() == [1, 1, 0, 1]
    assert pool.constant.tolist() == [False, True, True, True]
    assert pool.undefined.tolist() == [False, False, True, False]


def test_targets_weigh_alike_and_the_undefined_do_not():
    np.testing.assert_allclose(over_targets(np.array([[1, 0, NAN], [NAN] * 3])), [0.5, NAN])


@pytest.mark.parametrize("measure", [pearson, spearman, kendall, regret_at_1])
def test_what_is_no_number_raises(measure):
    with pytest.raises(ValueError, match="scores must be finite, or NaN where missing: 1 are"):
        measure(row(1, np.inf, 2), row(1, 2, 3))
    with pytest.raises(ValueError, match="truth must be finite"):
        measure(row(1, 2, 3), row(1, -np.inf, 3))
