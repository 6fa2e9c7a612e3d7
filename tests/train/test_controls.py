"""Controls: what each takes away from a map, and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxfer.tasks import IGNORE
from jaxfer.train.controls import controlled, spread

SHAPE = (6, 5, 4)


def case(seed):
    """Weights and class indices of a case, some of it ignored."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(np.uint8([0, 0, 0, 1, 2, IGNORE]), SHAPE)
    return rng.uniform(0.5, 9.0, SHAPE).astype(np.float32), classes


@given(st.integers(0, 1000), st.integers(0, 2**31))
def test_shuffled_keeps_the_weights_of_each_class_and_moves_them(seed, chance):
    weights, classes = case(seed)
    found = controlled(weights, classes, ("shuffled",), chance)
    for index in (0, 1, 2):
        own = classes == index
        np.testing.assert_array_equal(np.sort(found[own]), np.sort(weights[own]))
    assert not found[classes == IGNORE].any()
    assert (found != weights)[classes == 0].mean() > 0.5
    np.testing.assert_array_equal(found, controlled(weights, classes, ("shuffled",), chance))
    assert (found != controlled(weights, classes, ("shuffled",), chance + 1)).any()


def test_the_spread_is_that_within_classes():
    weights, classes = case(0)
    own = [weights[classes == index].astype(np.float64) for index in (0, 1, 2)]
    assert spread(weights, classes) == pytest.approx(np.mean([w.std() / w.mean() for w in own]))
    by_class = np.float32([1.0, 50.0, 0.0])[classes.clip(max=2)]
    assert spread(np.where(classes == IGNORE, 7.0, by_class).astype(np.float32), classes) == 0
    assert spread(3 * weights, classes) == pytest.approx(spread(weights, classes))
    moved = controlled(weights, classes, ("shuffled",), 0)
    assert spread(moved, classes) == pytest.approx(spread(weights, classes))
    assert spread(weights, np.full_like(classes, IGNORE)) == 0


def test_foreground_keeps_the_mean_of_both_regions_and_no_more():
    weights, classes = case(0)
    found = controlled(weights, classes, ("foreground",), 0)
    back, front = classes == 0, np.isin(classes, (1, 2))
    for region in (back, front):
        assert np.unique(found[region]).size == 1
        assert found[region][0] == pytest.approx(weights[region].mean(), rel=1e-6)
    assert found[back][0] != found[front][0]
    assert not found[classes == IGNORE].any()


def test_where_gives_every_class_the_mean_one_and_keeps_the_ratios_within():
    weights, classes = case(1)
    found = controlled(weights, classes, ("where",), 0)
    for index in (0, 1, 2):
        own = classes == index
        assert found[own].mean() == pytest.approx(1, rel=1e-6)
        ratio = found[own] / weights[own]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert not found[classes == IGNORE].any()
    nothing = controlled(np.zeros(SHAPE, np.float32), classes, ("where",), 0)
    np.testing.assert_array_equal(nothing, (classes != IGNORE).astype(np.float32))


def test_inverted_turns_the_order_and_keeps_the_range():
    weights, classes = case(2)
    weights[classes == IGNORE] = 1e6
    found = controlled(weights, classes, ("inverted",), 0)
    valid = classes != IGNORE
    assert (found[valid].min(), found[valid].max()) == pytest.approx(
        (weights[valid].min(), weights[valid].max()), rel=1e-5
    )
    np.testing.assert_array_equal(np.argsort(found[valid]), np.argsort(weights[valid])[::-1])
    assert not found[~valid].any()


def test_controls_follow_each_other_in_order():
    weights, classes = case(3)
    one = controlled(weights, classes, ("where", "shuffled"), 7)
    other = controlled(controlled(weights, classes, ("where",), 7), classes, ("shuffled",), 7)
    np.testing.assert_array_equal(one, other)
    # Shuffled within class, the class's mean stays: the order does not matter but for rounding.
    np.testing.assert_allclose(
        one, controlled(weights, classes, ("shuffled", "where"), 7), rtol=1e-5
    )


def test_without_a_control_only_ignored_pixels_change():
    weights, classes = case(4)
    found = controlled(weights, classes, (), 0)
    np.testing.assert_array_equal(found, np.where(classes == IGNORE, 0, weights))


def test_a_case_that_is_all_ignored_has_no_weight():
    weights = np.ones(SHAPE, np.float32)
    for name in ("shuffled", "foreground", "where", "inverted"):
        assert not controlled(weights, np.full(SHAPE, IGNORE, np.uint8), (name,), 0).any()


def test_an_unknown_control_is_refused():
    with pytest.raises(ValueError, match="'mirrored'"):
        controlled(*case(0), ("mirrored",), 0)
