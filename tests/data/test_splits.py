"""Splits: whole subjects, nested, the same every time, and a test set that shots do not move."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxfer.data.splits import source_split, target_split
from jaxfer.errors import UserError
from jaxfer.tasks import Case

seeds = st.integers(0, 2**31 - 1)


def cases_of(visits: Sequence[int]) -> list[Case]:
    """One subject per number, with that many cases."""
    return [
        Case(f"s{subject:02d}-{visit}", f"s{subject:02d}", "here", {}, None)
        for subject, number in enumerate(visits)
        for visit in range(number)
    ]


visits = st.lists(st.integers(1, 3), min_size=2, max_size=12)


def subjects(ids: Sequence[str]) -> list[str]:
    """Subjects of the cases, in order."""
    return list(dict.fromkeys(i.split("-")[0] for i in ids))


@settings(deadline=None)
@given(visits, seeds, st.data())
def test_target_splits_are_by_subject_and_complete(
    visits: list[int], seed: int, data: st.DataObject
) -> None:
    cases = cases_of(visits)
    shots = data.draw(st.integers(1, len(visits) - 1))
    tested = data.draw(st.integers(0, len(visits)))
    split = target_split(cases, seed=seed, train_subjects=shots, test_subjects=tested)
    train, test = subjects(split["train"]), subjects(split["test"])
    assert len(train) == shots
    assert len(test) == min(tested or len(visits), len(visits) - shots)
    assert not set(train) & set(test)
    assert split["validation"] == []
    for part, names in (("train", train), ("test", test)):
        assert sorted(split[part]) == sorted(c.id for c in cases if c.subject in names)
    if not tested:
        assert sorted(split["train"] + split["test"]) == sorted(c.id for c in cases)


@settings(deadline=None)
@given(visits, seeds, st.randoms(use_true_random=False))
def test_target_splits_depend_on_the_seed_and_the_subjects_alone(
    visits: list[int], seed: int, random: object
) -> None:
    cases = cases_of(visits)
    first = target_split(cases, seed=seed, train_subjects=1, test_subjects=0)
    random.shuffle(cases)
    again = target_split(cases, seed=seed, train_subjects=1, test_subjects=0)
    for part in first:
        assert subjects(again[part]) == subjects(first[part])


@settings(deadline=None)
@given(visits, seeds)
def test_more_shots_keep_the_earlier_ones(visits: list[int], seed: int) -> None:
    cases = cases_of(visits)
    trained: list[str] = []
    for shots in range(1, len(visits)):
        split = target_split(cases, seed=seed, train_subjects=shots, test_subjects=0)
        assert split["train"][: len(trained)] == trained
        trained = split["train"]


@settings(deadline=None)
@given(visits, seeds, st.data())
def test_shots_do_not_change_who_is_tested_as_long_as_enough_are_left(
    visits: list[int], seed: int, data: st.DataObject
) -> None:
    cases = cases_of(visits)
    tested = data.draw(st.integers(1, len(visits) - 1))
    few = target_split(cases, seed=seed, train_subjects=1, test_subjects=tested)
    for shots in range(1, len(visits)):
        split = target_split(cases, seed=seed, train_subjects=shots, test_subjects=tested)
        if shots + tested <= len(visits):
            assert split["test"] == few["test"]
        else:
            assert split["test"] == few["test"][: len(split["test"])]


def test_seeds_give_different_splits() -> None:
    cases = cases_of([1] * 10)
    orders = {
        tuple(target_split(cases, seed=s, train_subjects=3, test_subjects=0)["train"])
        for s in range(20)
    }
    assert len(orders) > 10


@pytest.mark.parametrize(("number", "shots"), [(1, 1), (3, 3), (3, 7)])
def test_somebody_must_be_left_to_test_on(number: int, shots: int) -> None:
    with pytest.raises(UserError, match=r"config\.data\.train_subjects") as caught:
        target_split(cases_of([2] * number), seed=0, train_subjects=shots, test_subjects=0)
    assert f"{shots} of {number} subject(s)" in caught.value.found
    assert ("1 to 2" if number == 3 else "more subjects") in caught.value.allowed
    assert "--config.data.train_subjects" in caught.value.mend


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=12),
    seeds,
    st.floats(0.01, 0.99),
)
def test_source_splits_train_and_hold_out_whole_subjects(
    visits: list[int], seed: int, fraction: float
) -> None:
    cases = cases_of(visits)
    split = source_split(cases, seed=seed, validation_fraction=fraction)
    train, held = subjects(split["train"]), subjects(split["validation"])
    assert train
    assert not set(train) & set(held)
    assert sorted(split["train"] + split["validation"]) == sorted(c.id for c in cases)
    assert split["test"] == []
    if len(visits) > 1:
        assert held
        assert len(held) == min(max(1, round(fraction * len(visits))), len(visits) - 1)
    assert split == source_split(cases, seed=seed, validation_fraction=fraction)
