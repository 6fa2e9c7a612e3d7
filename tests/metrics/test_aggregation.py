"""Several scores as one: places by hand, ties, missing scores, and what the pool changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, zscore

from jaxfer.metrics.aggregation import borda, mean_z

NAN = np.nan
MUST = np.array([False, False])


def test_places_by_hand():
    scores = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 4.0, 3.0, 2.0]])
    np.testing.assert_allclose(borda(scores, MUST), np.array([3 + 0, 2 + 3, 1 + 2, 0 + 1]) / 6)


def test_equal_scores_share_a_place():
    np.testing.assert_allclose(borda(np.array([[2.0, 2.0, 1.0]]), MUST[:1]), [0.75, 0.75, 0])


def test_what_must_be_there_counts_as_the_worst():
    scores = np.array([[NAN, 1.0, 2.0, NAN]])
    np.testing.assert_allclose(borda(scores, MUST[:1]), np.array([0.5, 2, 3, 0.5]) / 3)
    z = mean_z(scores, MUST[:1])
    np.testing.assert_allclose(z, [-1, -1, 1, -1])


def test_what_may_be_unknown_counts_neither_for_nor_against():
    scores = np.array([[NAN, 1.0, 2.0, 4.0], [0.0, 1.0, 2.0, 3.0]])
    neutral = np.array([True, False])
    np.testing.assert_allclose(
        borda(scores, neutral), np.mean([[0.5, 0, 0.5, 1], [0, 1 / 3, 2 / 3, 1]], axis=0)
    )
    first = np.array([0, *zscore([1.0, 2.0, 4.0])])
    np.testing.assert_allclose(mean_z(scores, neutral), (first + zscore(scores[1])) / 2)


@given(st.integers(2, 7), st.integers(1, 4), st.integers(0, 10_000))
@settings(max_examples=40)
def test_against_scipy(sources, number, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (5, number, sources)).astype(float)
    none = np.zeros(number, bool)
    places = (rankdata(scores, axis=-1) - 1) / (sources - 1)
    np.testing.assert_allclose(borda(scores, none), places.mean(-2), atol=1e-12)
    spread = scores.std(-1, keepdims=True)
    z = (scores - scores.mean(-1, keepdims=True)) / np.where(spread > 0, spread, 1)
    np.testing.assert_allclose(mean_z(scores, none), z.mean(-2), atol=1e-9)


def test_units_do_not_matter():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 6))
    other = scores * np.array([[1e6], [1e-3]]) + np.array([[-4.0], [7.0]])
    for how in (borda, mean_z):
        np.testing.assert_allclose(how(scores, MUST), how(other, MUST), atol=1e-6)


def test_another_pool_has_other_values():
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert borda(scores, MUST)[0] == borda(scores, MUST)[1]
    assert mean_z(scores[:, :2] * [[1.0], [1.0]], MUST)[0] == pytest.approx(0)


def test_one_source_and_constant_scores():
    np.testing.assert_array_equal(borda(np.array([[2.0], [NAN]]), MUST), [0.5])
    np.testing.assert_array_equal(mean_z(np.array([[2.0, 2.0]]), MUST[:1]), [0, 0])
    np.testing.assert_array_equal(mean_z(np.array([[0.1] * 3]), MUST[:1]), [0, 0, 0])
    np.testing.assert_array_equal(borda(np.full((1, 3), NAN), MUST[:1]), [0.5] * 3)
    np.testing.assert_array_equal(mean_z(np.full((1, 3), NAN), MUST[:1]), [0] * 3)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="each of 1 scores"):
        borda(np.ones((1, 3)), MUST)
    with pytest.raises(ValueError, match="finite"):
        mean_z(np.array([[1.0, np.inf]]), MUST[:1])
