"""Claims: the rule, differences and lifts by hand, and reliability against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from jaxfer.metrics.agreement import spearman
from jaxfer.metrics.claims import difference, judged, lift, reliability, verdict, within

NAN = np.nan


def all_of(performance):
    truth = performance.mean(-1)
    return truth, np.arange(truth.shape[0]), np.arange(truth.shape[1])


def test_the_rule():
    assert verdict(0.001, 0.2) == "holds"
    assert verdict(-0.2, -0.001) == "does not hold"
    assert verdict(-0.1, 0.1) == verdict(0.0, 0.1) == verdict(NAN, NAN) == "cannot be told"
    assert verdict(0.1, 0.2, undefined=0.06) == verdict(0.1, 0.2, NAN) == "cannot be told"


def test_a_difference_by_hand():
    performance = np.array([[0.5, 0.7, 0.2, 0.4], [0.9, 0.1, 0.3, NAN]])[..., None]
    first = np.array([[True, True, False, False], [True, False, False, True]])
    second = np.array([[False, False, True, True], [False] * 4])
    value = difference(first, second)(*all_of(performance))
    np.testing.assert_allclose(value, [0.6 - 0.3, NAN])


def test_small_pools_say_nothing():
    performance = np.random.default_rng(0).random((1, 6, 1))
    truth, rows, columns = all_of(performance)
    pool = np.array([[True, True, False, False, False, False]])
    assert np.isnan(within(spearman, truth, pool)(truth, rows, columns)).all()
    pool[0, 2] = True
    np.testing.assert_allclose(within(spearman, truth, pool)(truth, rows, columns), [1])
    # One source that was drawn three times is one.
    again = np.array([0, 0, 0, 1, 1, 3])
    drawn = within(spearman, truth, pool)(truth[:, again], rows, again)
    assert np.isnan(drawn).all()


def test_a_filter_that_helps_lifts_and_one_that_does_not_does_not():
    rng = np.random.default_rng(0)
    truth = rng.random((3, 12))
    kept = np.zeros((3, 12), bool)
    kept[:, :6] = True
    # Within what is kept the score is right, elsewhere it is backwards.
    scores = np.where(kept, truth, -truth)[None]
    rows, columns = np.arange(3), np.arange(12)
    value = lift(spearman, scores, kept, seed=0, subsets=200)(truth, rows, columns)
    assert (value > 0.5).all()
    perfect = lift(spearman, truth[None], kept, seed=0)(truth, rows, columns)
    np.testing.assert_allclose(perfect, 0, atol=1e-12)
    nothing = lift(spearman, scores, np.ones_like(kept), seed=0)(truth, rows, columns)
    assert np.isnan(nothing).all()


def test_random_subsets_have_the_size_of_the_filter_and_the_targets_own_sources():
    truth = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, NAN, NAN]])
    kept = np.array([[True, True, True, False, False, True, True]])
    seen = []

    def measure(scores, inside):
        seen.append(inside)
        return spearman(scores, inside)

    lift(measure, np.nan_to_num(truth)[None], kept, seed=0)(truth, np.arange(1), np.arange(7))
    with_filter, at_random = seen
    assert (~np.isnan(with_filter)).sum() == 3
    assert ((~np.isnan(at_random)).sum(-1) == 3).all()
    assert np.isnan(at_random[..., 5:]).all()
    assert len(np.unique(np.isnan(at_random).reshape(-1, 7), axis=0)) > 3


def test_an_effect_is_found_and_nothing_is_not():
    rng = np.random.default_rng(1)
    first = np.zeros((4, 10), bool)
    first[:, :5] = True
    noise = 0.02 * rng.normal(size=(4, 10, 8))
    nothing = judged(difference(first, ~first), 0.5 + noise, seed=0, draws=300)
    assert nothing.verdict == "cannot be told"
    assert nothing.low < nothing.value < nothing.high
    there = judged(
        difference(first, ~first), 0.5 + noise + 0.1 * first[..., None], seed=0, draws=300
    )
    assert there.verdict == "holds"
    assert there.value == pytest.approx(nothing.value + 0.1)
    assert there.per_target == pytest.approx([v + 0.1 for v in nothing.per_target])
    back = judged(
        difference(~first, first), 0.5 + noise + 0.1 * first[..., None], seed=0, draws=300
    )
    assert back.verdict == "does not hold"


def test_reliability_by_its_mean_squares():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(7, 1)) + rng.normal(size=(1, 5)) + 0.5 * rng.normal(size=(7, 5))
    spread, noise, one, whole = reliability(table)
    # Cronbach's alpha is ICC(C,k).
    alpha = 5 / 4 * (1 - table.var(0, ddof=1).sum() / table.sum(1).var(ddof=1))
    assert whole == pytest.approx(alpha)
    # Spearman and Brown: of one from that of the mean.
    assert one == pytest.approx(whole / (5 - 4 * whole))
    assert spread == pytest.approx(table.mean(1).std(ddof=1))
    assert 0.3 < noise < 0.7
    with_holes = np.vstack([table, np.full((1, 5), NAN)])
    assert reliability(with_holes) == pytest.approx(reliability(table))
    assert np.isnan(reliability(table[:1])).all()
    assert reliability(np.arange(4.0)[:, None] + np.zeros((4, 3)))[2:] == (1, 1)
