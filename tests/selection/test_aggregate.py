"""Several scores as one ranking: what counts, who is in the pool, and that each is told why."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxfer.selection.aggregate import AGGREGATE, Aggregate
from jaxfer.selection.found import Found
from jaxfer.selection.rank import Candidate, filter_modality, rank
from jaxfer.tasks import Task

NAN = math.nan


def candidate(name, leep, hamming, *, modality="t2", distance=NAN):
    scores = {"leep": leep, "hamming_distance": hamming}
    return Candidate(Task("d", name, modality, "r"), scores, 0.5, modality_distance=distance)


def places(found):
    return {c.task.site: c.rank for c in found}


def both(how="borda", modality="hard"):
    return Aggregate.of("leep+hamming_distance", how, modality)


def test_one_score_stays_what_it_is():
    alone = Aggregate.of("hamming_distance", "borda", "hard")
    assert (alone.rank_by, alone.sign) == ("hamming_distance", -1)
    given = [candidate("a", 1.0, 2.0)]
    assert alone.over(given) == given


@pytest.mark.parametrize("how", ["borda", "zscore"])
def test_each_score_counts_in_its_own_direction(how):
    # Of the Hamming distance, lower is better.
    given = [candidate("a", 3.0, 0.1), candidate("b", 2.0, 0.2), candidate("c", 1.0, 0.3)]
    aggregate = both(how)
    assert (aggregate.rank_by, aggregate.sign) == (AGGREGATE, 1)
    found = rank(aggregate.over(given), AGGREGATE)
    assert places(found) == {"a": 1, "b": 2, "c": 3}
    turned = [candidate("a", 3.0, 0.3), candidate("b", 2.0, 0.2), candidate("c", 1.0, 0.1)]
    found = rank(aggregate.over(turned), AGGREGATE)
    assert places(found) == {"a": 1, "b": 1, "c": 1}
    assert all("shares" in " ".join(c.flags) for c in found)


def test_each_source_is_told_its_place_by_every_score():
    given = [candidate("a", 3.0, 0.2), candidate("b", NAN, 0.1)]
    first, second = rank(both().over(given), AGGREGATE)
    assert "(leep: 1 of 1; hamming_distance: 2 of 2)" in first.decisions[-1].reason
    assert "(leep: missing; hamming_distance: 1 of 2)" in second.decisions[-1].reason
    assert "no leep score: counts as the worst by it" in second.flags


def test_one_without_any_score_has_no_aggregate():
    given = [candidate("a", NAN, NAN, distance=0.0), candidate("b", 1.0, 0.1, distance=0.5)]
    found = rank(both(modality="soft").over(given), AGGREGATE)
    assert [c.task.site for c in found] == ["b", "a"]
    assert math.isnan(found[1].scores[AGGREGATE])


def test_the_pool_is_the_shortlist():
    given = [candidate("a", 3.0, 0.1), candidate("b", 2.0, 0.2), candidate("z", 9.0, 0.0)]
    dropped = [*given[:2], candidate("z", 9.0, 0.0, modality="t1")]
    values = {}
    for kind, pool in (("all", given), ("filtered", dropped)):
        kept, _ = filter_modality(pool, "t2", "hard")
        values[kind] = {c.task.site: c.scores[AGGREGATE] for c in both().over(kept)}
    assert values["all"]["a"] == 0.5
    assert values["filtered"]["a"] == 1.0
    assert math.isnan(values["filtered"]["z"])


def test_softly_the_distance_is_one_more_score():
    soft = Aggregate.of("leep", "borda", "soft")
    given = [candidate("a", 3.0, 0, distance=0.9), candidate("b", 2.0, 0, distance=0.1)]
    assert soft.names == ("leep", "modality_distance")
    a, b = soft.over(given)
    assert (a.scores[AGGREGATE], b.scores[AGGREGATE]) == (0.5, 0.5)
    third = candidate("c", 1.0, 0, distance=NAN)
    found = {c.task.site: c for c in soft.over([*given, third])}
    assert found["c"].scores[AGGREGATE] == 0.25
    assert "unknown" in found["c"].why
    assert found["c"].flags == ()


def test_chances_follow_the_aggregate_of_every_draw():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2, 3, 200))
    given = [candidate(n, *draws[:, s].mean(-1)) for s, n in enumerate("abc")]
    found = [
        {
            "leep": Found(0.0, draws=draws[0, s]),
            "hamming_distance": Found(0.0, draws=draws[1, s]),
        }
        for s in range(3)
    ]
    rows = both("zscore").draws(given, found)
    z = [(d - d.mean(0)) / d.std(0) for d in draws]
    np.testing.assert_allclose(rows, (z[0] - z[1]) / 2, atol=1e-9)
    alone = Aggregate.of("leep", "borda", "hard").draws(given, found)
    np.testing.assert_array_equal(alone, draws[0])


def test_scores_without_draws_stay_what_they_are_in_those_of_others():
    given = [candidate("a", 1.0, 5.0), candidate("b", 2.0, 4.0)]
    found = [
        {"leep": Found(0.0, draws=np.array([0.0, 9.0])), "hamming_distance": Found(5.0)},
        {"leep": Found(0.0, draws=np.array([5.0, 5.0])), "hamming_distance": Found(4.0)},
    ]
    np.testing.assert_allclose(both().draws(given, found), [[0, 0.5], [1, 0.5]])
    sampled = [
        {"leep": Found(1.0, repetitions=np.array([1.0, 2.0])), "hamming_distance": Found(5.0)}
        for _ in given
    ]
    assert both().draws(given, sampled).shape == (2, 2)
    nothing = [{"leep": Found(1.0), "hamming_distance": Found(1.0)} for _ in given]
    assert both().draws(given, nothing) is None


def test_what_it_means_is_told():
    about = both(modality="soft").about
    assert about["pool_dependent"]
    assert "leep, hamming_distance, modality_distance" in about["meaning"]
