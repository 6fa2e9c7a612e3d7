"""Intervals and p-values of agreement: exact small cases, null distributions, many scores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from jaxfer.metrics.agreement import MEASURES, kendall, over_targets, pearson, regret_at_1
from jaxfer.metrics.agreement_evidence import (
    agreement,
    bootstrap_agreement,
    holm,
    mean_performance,
    permutation_p_values,
)

NAN = np.nan


def study(seed=0, targets=4, sources=6, subjects=5):
    return np.random.default_rng(seed).random((targets, sources, subjects))


def test_the_truth_is_the_mean_over_a_targets_own_subjects():
    performance = study()
    performance[1, :, 3:] = NAN  # three subjects
    performance[2, 4] = NAN  # a source that was not tried
    truth = mean_performance(performance)
    np.testing.assert_allclose(truth[0], performance[0].mean(1))
    np.testing.assert_allclose(truth[1], performance[1, :, :3].mean(1))
    assert np.isnan(truth[2, 4])
    assert np.isnan(truth).sum() == 1


def test_sources_tested_on_different_subjects_raise():
    performance = study()
    performance[1, 2, 0] = NAN
    with pytest.raises(ValueError, match="the same subjects: 1 of 4 targets' are not"):
        mean_performance(performance)
    performance[1, 2, 0] = np.inf
    with pytest.raises(ValueError, match="1 values are infinite"):
        mean_performance(performance)


def test_nothing_drawn_is_the_value_itself():
    performance, scores = study(), np.random.default_rng(1).random((2, 4, 6))
    performance[0, 0] = NAN
    scores[1, 2, 3] = NAN
    truth = mean_performance(performance)
    for measure in MEASURES.values():
        found = bootstrap_agreement(measure, scores, performance, seed=0, draws=3, over=())
        expected = [over_targets(measure(own, truth)) for own in scores]
        np.testing.assert_allclose(found, np.tile(np.array(expected)[:, None], 3))


def test_two_targets_are_drawn_as_they_should():
    performance = np.zeros((2, 3, 1))
    performance[:, :, 0] = [[1, 2, 3], [3, 2, 1]]
    scores = np.tile([1.0, 2, 3], (1, 2, 1))  # τ = 1 and −1
    drawn = bootstrap_agreement(kendall, scores, performance, seed=0, draws=4000, over=("targets",))
    shares = [np.mean(np.isclose(drawn, v)) for v in (-1, 0, 1)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.03)


def test_draws_of_subjects_spread_as_the_mean_does():
    performance = study(3, targets=1, sources=2, subjects=40)
    scores = np.array([[[1.0, 0.0]]])  # takes the first: regret is the lead of the second
    performance[0, 1] += 5
    drawn = bootstrap_agreement(
        regret_at_1, scores, performance, seed=0, draws=4000, over=("subjects",)
    )
    lead = performance[0, 1] - performance[0, 0]
    assert drawn.mean() == pytest.approx(lead.mean(), abs=0.01)
    assert drawn.std() == pytest.approx(lead.std() / np.sqrt(40), rel=0.05)


def test_sources_are_the_same_for_every_target_and_a_pool_of_one_is_left_out():
    performance = np.tile(np.array([1.0, 2, 4])[None, :, None], (2, 1, 1))
    scores = np.tile([1.0, 2, 4], (1, 2, 1))
    drawn = bootstrap_agreement(pearson, scores, performance, seed=0, draws=2000, over=("sources",))
    assert np.isnan(drawn).mean() == pytest.approx(3 / 27, abs=0.03)  # all three the same
    np.testing.assert_allclose(drawn[~np.isnan(drawn)], 1)
    seen = []
    bootstrap_agreement(
        lambda s, a: (seen.append((s, a)), pearson(s, a))[1],
        scores,
        performance,
        seed=0,
        draws=50,
        over=("sources",),
    )
    ((own, truth),) = seen
    np.testing.assert_array_equal(own[:, 0], own[:, 1])
    np.testing.assert_array_equal(own, truth)


def test_scores_are_compared_on_the_same_draws():
    performance, scores = study(), np.random.default_rng(1).random((1, 4, 6))
    twice = np.concatenate([scores, 2 * scores + 1])
    drawn = bootstrap_agreement(pearson, twice, performance, seed=0, draws=50)
    np.testing.assert_allclose(drawn[0], drawn[1])
    assert drawn.std() > 0.01
    alone = bootstrap_agreement(pearson, scores, performance, seed=0, draws=50)
    np.testing.assert_array_equal(alone[0], drawn[0])


def test_blocks_change_nothing(monkeypatch):
    performance, scores = study(), np.random.default_rng(1).random((2, 4, 6))
    truth = mean_performance(performance)

    def found():
        drawn = bootstrap_agreement(kendall, scores, performance, seed=0, draws=20)
        return drawn, permutation_p_values(kendall, scores, truth, seed=0, permutations=20)

    whole = found()
    monkeypatch.setattr("jaxfer.metrics.agreement_evidence.AT_ONCE", 300)
    blocks = found()
    np.testing.assert_array_equal(whole[0], blocks[0])
    np.testing.assert_array_equal(whole[1], blocks[1])


def test_p_is_the_share_of_all_permutations():
    truth = np.array([[1.0, 2, 3, 4]])
    scores = np.array([[[1.0, 2, 4, 3]]])
    observed = scipy.stats.kendalltau(scores[0, 0], truth[0])[0]
    exact = np.mean(
        [
            scipy.stats.kendalltau(order, truth[0])[0] >= observed - 1e-9
            for order in itertools.permutations(scores[0, 0])
        ]
    )
    p = permutation_p_values(kendall, scores, truth, seed=0, permutations=8000)
    assert p.alone[0] == pytest.approx(exact, abs=0.015)
    assert p.maximum[0] == p.holm[0] == p.alone[0]


def test_one_order_in_all_targets_is_one_finding():
    truth = np.tile([1.0, 2, 3, 4], (20, 1))
    p = permutation_p_values(kendall, truth[None], truth, seed=0, permutations=4000)
    assert p.alone[0] == pytest.approx(1 / 24, abs=0.015)


def test_pools_without_some_sources_are_dealt_fairly():
    truth = np.array([[NAN, 1, 2, 3], [1, 2, 3, NAN]])
    scores = np.array([[[9, 1, 2, 3], [1, 2, 3, -9]]], float)
    seen = []

    def watch(s, a):
        seen.append(s)
        return kendall(s, a)

    permutation_p_values(watch, scores, truth, seed=0, permutations=3000)
    dealt = seen[-1]
    for target, pool in ((0, [1, 2, 3]), (1, [0, 1, 2])):
        own = dealt[:, target][:, pool]
        assert set(np.unique(own)) == {1, 2, 3}
        _, counts = np.unique(own, axis=0, return_counts=True)
        assert len(counts) == 6
        np.testing.assert_allclose(counts / 3000, 1 / 6, atol=0.03)


def test_under_the_null_p_values_are_uniform_and_the_corrected_ones_keep_their_word():
    rng = np.random.default_rng(0)
    alone, least_max, least_holm = [], [], []
    for i in range(100):
        truth, scores = rng.random((2, 7)), rng.random((8, 2, 7))
        p = permutation_p_values(pearson, scores, truth, seed=i, permutations=99)
        alone += [p.alone[0]]
        least_max.append(p.maximum.min())
        least_holm.append(p.holm.min())
        assert (p.maximum >= p.alone).all()
    assert scipy.stats.kstest(alone, "uniform").pvalue > 0.01
    assert np.mean(np.array(least_max) <= 0.1) == pytest.approx(0.1, abs=0.08)
    assert np.mean(np.array(least_holm) <= 0.1) <= 0.18


def test_a_copy_of_a_score_costs_the_maximum_nothing():
    truth = np.random.default_rng(3).random((3, 7))
    scores = truth[None] + 0.3 * np.random.default_rng(4).random((1, 3, 7))
    once = permutation_p_values(pearson, scores, truth, seed=0, permutations=999)
    many = permutation_p_values(pearson, np.repeat(scores, 10, 0), truth, seed=0, permutations=999)
    np.testing.assert_array_equal(many.maximum, once.maximum[0])
    np.testing.assert_allclose(many.holm, np.minimum(10 * once.alone[0], 1))


def test_lower_regret_is_evidence():
    truth = np.random.default_rng(5).random((6, 5))
    scores = np.stack([truth, -truth])
    p = permutation_p_values(
        regret_at_1, scores, truth, seed=0, permutations=999, lower_is_better=True
    )
    assert p.alone[0] < 0.05 < 0.9 < p.alone[1]


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.5, NAN, 0.6, 0.02])), [1, NAN, 1, 0.06])


def test_the_whole_table():
    performance = study(7, targets=5, sources=8)
    truth = mean_performance(performance)
    performance[3] = 0.5  # nothing to rank
    scores = {"oracle": truth.copy(), "flat": np.ones_like(truth), "chance": study(8, 5, 8)[..., 0]}
    scores["oracle"][0, 0] = NAN
    found = agreement(scores, performance, seed=0, draws=200, permutations=200)
    assert set(found) == {(name, m) for name in scores for m in MEASURES}
    best, flat = found["oracle", "kendall"], found["flat", "kendall"]
    assert best.value == pytest.approx(1)
    assert (best.missing, best.constant, best.undefined) == (1, 0, 1)
    assert best.p == best.p_max == pytest.approx(1 / 201)
    assert best.p_holm == pytest.approx(3 / 201)
    assert np.isnan(best.per_target[3])
    assert (flat.value, flat.low, flat.high, flat.p) == (0, 0, 0, 1)
    assert (flat.missing, flat.constant, flat.undefined) == (0, 4, 1)
    chance = found["chance", "pearson"]
    assert chance.low < chance.value < chance.high
    again = agreement(scores, performance, seed=0, draws=200, permutations=200)
    np.testing.assert_equal(tuple(chance), tuple(again["chance", "pearson"]))


def test_an_unknown_unit_raises():
    with pytest.raises(ValueError, match=r"targets, sources, subjects: found \['seeds'\]"):
        bootstrap_agreement(pearson, study()[None, :, :, 0], study(), seed=0, over=("seeds",))
