"""Paths through sources: against brute force, ties, legs that are not there."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxfer.config.rules import PATH_COSTS
from jaxfer.config.validate import MOST_ON_PATH
from jaxfer.selection.path import COSTS, INTERMEDIATES, cheapest_path, path_cost

NAN = math.nan


def table(values):
    return np.array(values, np.float64)


def test_costs_of_legs_by_hand():
    assert path_cost((0.3, 0.4), "squares") == pytest.approx(0.25)
    assert path_cost((0.3, 0.4), "largest") == 0.4
    assert path_cost((0.5,), "squares") == pytest.approx(0.25)


def test_the_configuration_knows_the_same_costs_and_lengths():
    assert PATH_COSTS == COSTS
    assert MOST_ON_PATH == INTERMEDIATES + 1


@pytest.mark.parametrize(
    ("middle", "squares", "largest"),
    [
        # Of the way from 0 to the target at 1: on the sphere's inside, outside it, far off.
        ((0.5, 0.4), True, True),
        ((0.5, 0.6), False, True),
        ((0.5, 1.2), False, False),
    ],
)
def test_a_detour_pays_where_its_legs_are_short(middle, squares, largest):
    first, second = math.dist((0, 0), middle), math.dist(middle, (1, 0))
    between = table([[0, first], [first, 0]])
    to_target = table([1, second])
    for kind, pays in (("squares", squares), ("largest", largest)):
        found = cheapest_path(0, between, to_target, kind)
        assert found.sources == ((0, 1) if pays else (0,))
        assert found.legs == ((first, second) if pays else (1.0,))


def test_two_intermediates_at_most():
    # Four places on a line, the target behind them: by squares every stop would pay.
    between = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
    found = cheapest_path(0, between, 4 - np.arange(4.0), "squares")
    assert len(found.sources) == 3
    assert sorted(found.legs) == [1, 1, 2]
    assert found.cost == 6


def test_of_equals_the_shortest_then_the_first_wins():
    ones = np.ones((4, 4))
    assert cheapest_path(0, ones, np.ones(4), "largest").sources == (0,)
    between = table([[0, 1, 1], [1, 0, 9], [1, 9, 0]])
    for kind in COSTS:
        assert cheapest_path(0, between, table([5, 1, 1]), kind).sources == (0, 1)


def test_legs_that_are_not_there_are_not_walked():
    between = table([[0, 1, NAN], [NAN, 0, NAN], [NAN, NAN, 0]])
    assert cheapest_path(0, between, table([NAN, 2, 1]), "squares").sources == (0, 1)
    # One way only, as to a source that cannot be trained on.
    assert cheapest_path(1, between, table([1, NAN, 1]), "squares") is None
    assert cheapest_path(2, between, table([1, 1, 1]), "squares").sources == (2,)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 6), kind=st.sampled_from(COSTS))
def test_no_other_path_is_cheaper(seed, n, kind):
    rng = np.random.default_rng(seed)
    between, to_target = rng.random((n, n)), rng.random(n)
    between[rng.random((n, n)) < 0.2] = NAN
    to_target[rng.random(n) < 0.2] = NAN
    best = {}
    for number in (1, 2, 3):
        for nodes in itertools.product(range(n), repeat=number):
            if len(set(nodes)) < number:
                continue
            legs = [between[nodes[i], nodes[i + 1]] for i in range(number - 1)]
            legs = np.array([*legs, to_target[nodes[-1]]])
            cost = np.max(legs) if kind == "largest" else np.sum(legs**2)
            if not np.isnan(cost):
                best[nodes[0]] = min(best.get(nodes[0], math.inf), cost)
    free = math.inf
    for start in range(n):
        found = cheapest_path(start, between, to_target, kind)
        if start not in best:
            assert found is None
            continue
        assert found.cost == pytest.approx(best[start])
        assert found.cost == pytest.approx(path_cost(found.legs, kind))
        assert len(found.legs) == len(found.sources) <= 3
        free = min(free, found.cost)
    # With a free start nothing is cheaper than the direct way of the nearest.
    if best:
        nearest = np.nanmin(to_target)
        assert free == pytest.approx(path_cost([nearest], kind))
