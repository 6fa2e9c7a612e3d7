"""The bootstrap over subjects is that of repeated subjects, paired across sources."""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.metrics import (
    FeatureStatistics,
    LabelStatistics,
    PredictionStatistics,
    conditional_log_probs,
    h_score_from_statistics,
    leep_from_statistics,
    leep_lower_bound,
    logme_from_statistics,
)
from jaxfer.metrics.balance import class_balanced
from jaxfer.metrics.class_statistics import ClassFeatureStatistics
from jaxfer.metrics.transrate import transrate_from_statistics
from jaxfer.metrics.uncertainty import bootstrap, interval, probability_best, subject_draws

CLASSES = 3
SUBJECTS, DRAWS = 5, 20


def balanced_h_score(stats):
    return h_score_from_statistics(class_balanced(stats).features())


def stack(parts):
    return jax.tree.map(lambda *x: jnp.stack(x), *parts)


def parts_of(kind, cases):
    if kind is ClassFeatureStatistics or kind is FeatureStatistics:
        return [kind.zeros(CLASSES, 6).update(*case[::2]) for case in cases]
    tables = [LabelStatistics.zeros(CLASSES, 4).update(*case[1:]) for case in cases]
    if kind is LabelStatistics:
        return tables
    table = conditional_log_probs(reduce(lambda a, b: a.merge(b), tables))
    return [PredictionStatistics.zeros(CLASSES).update(*case[1:], table) for case in cases]


@pytest.mark.parametrize(
    ("kind", "finalise"),
    [
        (FeatureStatistics, h_score_from_statistics),
        (FeatureStatistics, logme_from_statistics),
        (ClassFeatureStatistics, transrate_from_statistics),
        (ClassFeatureStatistics, balanced_h_score),
        (LabelStatistics, leep_lower_bound),
        (PredictionStatistics, leep_from_statistics),
    ],
    ids=lambda x: x.__name__,
)
def test_a_draw_is_the_score_of_its_subjects(kind, finalise, draw):
    parts = parts_of(kind, [draw(seed) for seed in range(SUBJECTS)])
    key = jax.random.key(3)
    weights = np.asarray(subject_draws(key, subjects=SUBJECTS, draws=DRAWS))
    found = bootstrap(stack(parts), finalise, key, DRAWS)
    assert found.shape == (DRAWS,)
    assert found.dtype == jnp.float32
    for i in (0, 7, 19):
        chosen = [part for part, times in zip(parts, weights[i], strict=True) for _ in range(times)]
        expected = float(finalise(reduce(lambda a, b: a.merge(b), chosen)))
        assert float(found[i]) == pytest.approx(expected, rel=1e-5)
    assert len(set(np.asarray(found).tolist())) > DRAWS // 2


def test_the_draws_are_subjects_with_replacement_and_belong_to_the_key():
    key = jax.random.key(0)
    weights = np.asarray(subject_draws(key, subjects=4, draws=4000))
    assert weights.shape == (4000, 4)
    assert (weights.sum(1) == 4).all()
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.06)
    np.testing.assert_allclose(weights.var(0), 4 * 1 / 4 * 3 / 4, atol=0.08)
    with jax.enable_x64(True):
        again = subject_draws(key, subjects=4, draws=4000)
    np.testing.assert_array_equal(again, weights)
    other = subject_draws(jax.random.key(1), subjects=4, draws=4000)
    assert (np.asarray(other) != weights).any()


def test_sources_share_their_draws(draw):
    cases = [draw(seed) for seed in range(SUBJECTS)]
    scaled = [case._replace(features=2 * case.features) for case in cases]
    key = jax.random.key(0)
    one, same = (
        bootstrap(stack(parts_of(FeatureStatistics, c)), h_score_from_statistics, key, DRAWS)
        for c in (cases, scaled)
    )
    np.testing.assert_allclose(one, same, 1e-5)  # invariant: any difference is of the draws
    low, high, _ = interval(one - same)
    assert max(abs(float(low)), abs(float(high))) < 1e-5 < float(one.std())


def test_a_draw_without_a_class_is_left_out_and_counted(draw):
    case = draw(0)
    labels = case.labels % 2
    first = FeatureStatistics.zeros(CLASSES, 6).update(case.features, labels)
    second = FeatureStatistics.zeros(CLASSES, 6).update(case.features, 0 * labels)
    key = jax.random.key(0)
    scores = bootstrap(stack([first, second]), h_score_from_statistics, key, 200)
    lost = np.asarray(subject_draws(key, subjects=2, draws=200))[:, 0] == 0
    np.testing.assert_array_equal(np.isnan(scores), lost)
    assert 30 < lost.sum() < 70
    found = interval(scores)
    assert float(found.undefined) == pytest.approx(lost.mean(), rel=1e-6)
    assert 0 < float(found.low) < float(found.high)


def test_one_subject_says_nothing(draw):
    parts = parts_of(FeatureStatistics, [draw(0)])
    scores = bootstrap(stack(parts), h_score_from_statistics, jax.random.key(0), DRAWS)
    assert np.isnan(scores).all()
    assert np.isnan(float(interval(scores).low))


def test_the_interval_is_the_percentiles():
    scores = np.random.default_rng(0).permutation(np.arange(101)).astype(np.float32)
    low, high, undefined = interval(scores, 0.9)
    assert (float(low), float(high), float(undefined)) == (
        pytest.approx(5, rel=1e-6),
        pytest.approx(95, rel=1e-6),
        0,
    )
    with pytest.raises(ValueError, match="level must be above 0 and below 1, found 95"):
        interval(scores, 95.0)


def test_probability_best_shares_ties_and_lets_the_missing_lose():
    nan = np.nan
    scores = np.array([[1, 2, nan, nan, 5], [3, 2, nan, -9, 4], [0, 2, nan, nan, 5]], np.float32)
    # Draws: the second; all three; nobody; the second; first and third.
    found = probability_best(scores)
    thirds = [1 / 3 + 1 / 2, 1 + 1 / 3 + 1, 1 / 3 + 1 / 2]
    np.testing.assert_allclose(found, np.array(thirds) / 4, 1e-6)
    lower = probability_best(np.array([[1.0, 2.0], [3.0, nan]], np.float32), sign=-1)
    np.testing.assert_allclose(lower, [1, 0])
    assert np.isnan(probability_best(np.full((2, 3), nan, np.float32))).all()
