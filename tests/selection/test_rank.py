"""The framework: who stays, who goes, in which order, and that each is told why."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from jaxfer.selection.rank import Candidate, filter_modality, filter_roi, rank
from jaxfer.tasks import Task

NAN = math.nan


def candidate(name, *, modality="t2", score=0.0, similarity=0.5, **scores):
    return Candidate(Task("d", name, modality, "r"), {"leep": score} | scores, similarity)


def names(candidates):
    return [c.task.site for c in candidates]


def kept(candidates):
    return [c.task.site for c in candidates if c.kept]


def test_only_sources_of_the_targets_modality_stay():
    given = [candidate("a"), candidate("b", modality="t1"), candidate("c")]
    found, notes = filter_modality(given, "t2", "hard")
    assert names(found) == ["a", "b", "c"]
    assert kept(found) == ["a", "c"]
    assert notes == []
    assert [d.step for c in found for d in c.decisions] == ["modality"] * 3
    assert "t1" in found[1].decisions[0].reason
    assert "t2" in found[1].decisions[0].reason
    assert all(c.decisions == () for c in given)


def test_if_no_source_has_the_modality_none_is_dropped_and_it_is_said():
    found, notes = filter_modality([candidate("a"), candidate("b")], "flair", "hard")
    assert kept(found) == ["a", "b"]
    assert len(notes) == 1
    assert "flair" in notes[0]
    assert all(notes[0] == c.decisions[0].reason for c in found)


def test_the_modality_filter_can_be_off():
    found, notes = filter_modality([candidate("a", modality="t1"), candidate("b")], "t2", "none")
    assert kept(found) == ["a", "b"]
    assert notes == []
    assert "none" in found[0].decisions[0].reason


def test_softly_nobody_goes_and_the_distance_is_told():
    given = [candidate("a", modality="t1"), candidate("b")]
    given[0] = replace(given[0], modality_distance=0.25)
    found, notes = filter_modality(given, "t2", "soft")
    assert kept(found) == ["a", "b"]
    assert notes == []
    assert "0.250" in found[0].decisions[0].reason
    assert "unknown" in found[1].decisions[0].reason


def test_every_source_is_told_its_place():
    given = [candidate(n, score=s) for n, s in zip("abc", (-0.3, -0.1, NAN), strict=True)]
    found = rank(given, "leep")
    assert [c.decisions[-1].step for c in found] == ["rank"] * 3
    assert [c.decisions[-1].reason for c in found] == [
        "rank 1 of 3 by leep: -0.1",
        "rank 2 of 3 by leep: -0.3",
        "rank 3 of 3 by leep: no score",
    ]
    (explained,) = rank([replace(given[0], why="because")], "leep")
    assert explained.decisions[-1].reason.endswith("(because)")


def test_the_most_similar_rois_stay():
    given = [candidate(n, similarity=s) for n, s in zip("abcd", (0.1, 0.9, -0.3, 0.4), strict=True)]
    found = filter_roi(given, 2)
    assert names(found) == ["a", "b", "c", "d"]
    assert kept(found) == ["b", "d"]
    assert "0.100" in found[0].decisions[0].reason
    assert "not among the 2" in found[0].decisions[0].reason
    assert "not among" not in found[1].decisions[0].reason


def test_equals_of_the_last_kept_stay_too():
    given = [candidate(n, similarity=s) for n, s in zip("abcd", (0.5, 0.9, 0.5, 0.4), strict=True)]
    assert kept(filter_roi(given, 2)) == ["a", "b", "c"]
    assert kept(filter_roi(given, 1)) == ["b"]


@pytest.mark.parametrize("keep", [0, 4, 9])
def test_all_rois_stay(keep):
    given = [candidate(n, similarity=s) for n, s in zip("abcd", (0.5, NAN, 0.5, 0.4), strict=True)]
    found = filter_roi(given, keep)
    assert kept(found) == ["a", "b", "c", "d"]
    assert "no pair" in found[1].decisions[0].reason


def test_a_source_without_similarity_is_the_least_similar():
    given = [candidate(n, similarity=s) for n, s in zip("abc", (NAN, -0.9, NAN), strict=True)]
    found = filter_roi(given, 1)
    assert kept(found) == ["b"]
    assert "no pair" in found[0].decisions[0].reason
    assert kept(filter_roi(given, 2)) == ["a", "b", "c"]


def test_the_roi_filter_counts_only_those_that_are_left():
    given = [
        candidate("a", similarity=0.99, modality="t1"),
        candidate("b", similarity=0.2),
        candidate("c", similarity=0.1),
    ]
    found = filter_roi(filter_modality(given, "t2", "hard")[0], 1)
    assert kept(found) == ["b"]
    assert [len(c.decisions) for c in found] == [1, 2, 2]


def test_ranked_by_the_metric_best_first():
    given = [candidate(n, score=s, nce=-s) for n, s in zip("abc", (-0.3, -0.1, -0.2), strict=True)]
    found = rank(given, "leep")
    assert names(found) == ["b", "c", "a"]
    assert [c.rank for c in found] == [1, 2, 3]
    assert all(c.flags == () for c in found)
    assert names(rank(given, "nce")) == ["a", "c", "b"]
    assert names(rank(given, "leep", higher_is_better=False)) == ["a", "c", "b"]


@pytest.mark.parametrize("higher", [True, False])
def test_equals_share_the_better_rank_and_are_flagged(higher):
    given = [candidate(n, score=s) for n, s in zip("abcd", (1.0, 2.0, 1.0, 0.0), strict=True)]
    found = rank(given, "leep", higher_is_better=higher)
    assert names(found) == (["b", "a", "c", "d"] if higher else ["d", "a", "c", "b"])
    assert [c.rank for c in found] == [1, 2, 2, 4]
    assert ["shares" in " ".join(c.flags) for c in found] == [False, True, True, False]


@pytest.mark.parametrize("higher", [True, False])
def test_a_missing_score_comes_last_and_is_flagged(higher):
    given = [candidate(n, score=s) for n, s in zip("abcd", (NAN, -5.0, NAN, 5.0), strict=True)]
    found = rank(given, "leep", higher_is_better=higher)
    assert names(found)[2:] == ["a", "c"]
    assert [c.rank for c in found] == [1, 2, 3, 3]
    assert ["no leep score" in " ".join(c.flags) for c in found] == [False, False, True, True]


def test_the_dropped_follow_without_a_rank_in_the_order_of_the_metric():
    given = [
        candidate("a", score=9.0, modality="t1"),
        candidate("b", score=1.0),
        candidate("c", score=10.0, modality="t1"),
        candidate("d", score=2.0),
    ]
    found = rank(filter_modality(given, "t2", "hard")[0], "leep")
    assert names(found) == ["d", "b", "c", "a"]
    assert [c.rank for c in found] == [1, 2, None, None]


def test_flags_that_were_there_stay():
    given = Candidate(Task("d", "a", "t2", "r"), {"leep": NAN}, 0.5, flags=("weak",))
    (found,) = rank([given], "leep")
    assert found.flags[0] == "weak"
    assert len(found.flags) == 2


def test_nobody():
    assert filter_roi([], 3) == []
    assert rank([], "leep") == []
