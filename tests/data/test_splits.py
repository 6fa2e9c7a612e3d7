"""Splits: whole subjects, nested, the same every time, and a test set that shots do not move."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxfer.data.splits import kept_split, source_split, target_split, written_split
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


@given(visits, seeds)
def test_more_shots_keep_the_earlier_ones(visits: list[int], seed: int) -> None:
    cases = cases_of(visits)
    trained: list[str] = []
    for shots in range(1, len(visits)):
        split = target_split(cases, seed=seed, train_subjects=shots, test_subjects=0)
        assert split["train"][: len(trained)] == trained
        trained = split["train"]


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


@given(seeds, st.integers(0, 3), st.sampled_from([0, 4]), st.sampled_from([0, 3]))
def test_validation_subjects_are_in_no_other_part_and_shots_do_not_move_them(
    seed: int, subset: int, tested: int, folds: int
) -> None:
    cases, found = cases_of([1, 2] * 6), set()
    how = {"seed": seed, "subset": subset, "test_subjects": tested, "folds": folds}
    for shots in (1, 2, 4):
        split = target_split(cases, train_subjects=shots, validation_subjects=2, **how)
        without = target_split(cases, train_subjects=shots, **how)
        parts = {part: set(subjects(ids)) for part, ids in split.items()}
        assert len(parts["validation"]) == 2
        assert sum(map(len, parts.values())) == len(set.union(*parts.values()))
        assert split["train"] == without["train"]
        assert parts["test"] == set(subjects(without["test"])) - parts["validation"]
        assert parts["test"]
        found.add(tuple(split["validation"]))
    if tested or folds:
        assert len(found) == 1 or subset


def test_validation_subjects_must_be_left() -> None:
    with pytest.raises(UserError, match=r"config\.data\.validation_subjects") as caught:
        target_split(
            cases_of([1] * 6), seed=0, train_subjects=3, test_subjects=2, validation_subjects=2
        )
    assert caught.value.allowed == "0 to 1"


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


@given(visits, seeds, st.data())
def test_every_subject_is_tested_on_in_one_fold(
    visits: list[int], seed: int, data: st.DataObject
) -> None:
    cases = cases_of(visits)
    folds = data.draw(st.integers(2, len(visits)))
    subset = data.draw(st.integers(0, 3))
    tested: list[str] = []
    for fold in range(folds):
        split = target_split(
            cases,
            seed=seed,
            train_subjects=1,
            test_subjects=0,
            subset=subset,
            folds=folds,
            fold=fold,
        )
        own = subjects(split["test"])
        assert len(own) in (len(visits) // folds, -(-len(visits) // folds))
        assert not set(own) & set(subjects(split["train"]))
        assert sorted(split["test"]) == sorted(c.id for c in cases if c.subject in own)
        tested += own
    assert sorted(tested) == sorted({c.subject for c in cases})


@given(visits, seeds, st.integers(0, 2**31 - 1), st.data())
def test_subsets_nest_for_every_seed_of_theirs(
    visits: list[int], seed: int, subset: int, data: st.DataObject
) -> None:
    cases = cases_of(visits)
    folds = data.draw(st.sampled_from([0, *range(2, len(visits) + 1)]))
    tested = data.draw(st.integers(0, len(visits) - 1))
    chosen: set[str] = set()
    for shots in range(1, len(visits) - -(-len(visits) // max(folds, len(visits))) + 1):
        try:
            split = target_split(
                cases,
                seed=seed,
                train_subjects=shots,
                test_subjects=tested,
                subset=subset,
                folds=folds,
            )
        except UserError:
            assert folds
            assert shots > len(visits) - -(-len(visits) // folds)
            break
        train = set(subjects(split["train"]))
        assert len(train) == shots
        assert chosen <= train
        assert not train & set(subjects(split["test"]))
        chosen = train


def test_another_subset_is_another_choice_and_leaves_the_test_alone() -> None:
    cases = cases_of([1] * 12)
    for changes in ({"test_subjects": 4}, {"test_subjects": 0, "folds": 3, "fold": 1}):
        of_seed = [
            target_split(cases, seed=5, train_subjects=3, subset=subset, **changes)
            for subset in range(12)
        ]
        assert all(split["test"] == of_seed[0]["test"] for split in of_seed)
        assert len({frozenset(split["train"]) for split in of_seed}) > 8
    # The first choice is the one of the splits' own order.
    split = target_split(cases, seed=5, train_subjects=8, test_subjects=4)
    few = target_split(cases, seed=5, train_subjects=3, test_subjects=4)
    assert few["train"] == split["train"][:3]


def test_folds_that_cannot_be() -> None:
    cases = cases_of([1] * 4)
    with pytest.raises(UserError, match=r"config\.data\.folds") as caught:
        target_split(cases, seed=0, train_subjects=1, test_subjects=0, folds=5)
    assert "5 folds of 4" in caught.value.found
    with pytest.raises(UserError, match=r"config\.data\.train_subjects") as caught:
        target_split(cases, seed=0, train_subjects=3, test_subjects=0, folds=2)
    assert caught.value.allowed == "1 to 2"
    split = target_split(cases, seed=0, train_subjects=2, test_subjects=0, folds=2, fold=1)
    assert (len(split["train"]), len(split["test"])) == (2, 2)
    split = target_split(cases, seed=0, train_subjects=2, test_subjects=1, folds=2, fold=1)
    assert (len(split["train"]), len(split["test"])) == (2, 1)


def kept(written: object, cases: Sequence[Case]) -> tuple[dict, list]:
    return kept_split(json.loads(json.dumps(written)), cases, task="a/b/c/d", where="splits.json")


@pytest.fixture
def written() -> dict:
    """Of five subjects with two cases each: two to train on, one to test on, two unused."""
    cases = cases_of([2] * 5)
    split = target_split(cases, seed=1, train_subjects=2, test_subjects=1)
    return dict(written_split(split, cases))


def test_a_written_split_is_kept_as_it_is(written: dict) -> None:
    split, notes = kept(written, cases_of([2] * 5)[::-1])
    assert split == {part: written[part] for part in ("train", "validation", "test")}
    assert notes == []


def test_cases_that_appeared_are_told_and_not_used(written: dict) -> None:
    split, (note,) = kept(written, [*cases_of([2] * 5), *cases_of([0] * 5 + [1])])
    assert split["train"] == written["train"]
    assert split["test"] == written["test"]
    assert note.severity == "warning"
    assert "appeared" in note.what
    assert note.found == "s05-0"
    assert "delete splits.json" in note.mend


def test_cases_that_vanished_are_told_as_long_as_their_subject_is_there(written: dict) -> None:
    lost = written["train"][1]
    split, (note,) = kept(written, [c for c in cases_of([2] * 5) if c.id != lost])
    assert split["train"] == [i for i in written["train"] if i != lost]
    assert "vanished" in note.what
    assert note.found == lost
    # Of a subject that the split does not use, every case may vanish.
    used = {i.split("-")[0] for part in ("train", "test") for i in written[part]}
    split, (note,) = kept(written, [c for c in cases_of([2] * 5) if c.subject in used])
    assert split["train"] == written["train"]
    assert len(note.found.split(", ")) == 4


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_needed_subject_that_is_gone_is_an_error(written: dict, part: str) -> None:
    gone = written[part][0].split("-")[0]
    with pytest.raises(UserError, match=r"splits\.json: subjects of a/b/c/d are gone") as caught:
        kept(written, [c for c in cases_of([2] * 5) if c.subject != gone])
    assert caught.value.found == gone
    assert "put their files back" in caught.value.mend


def test_a_subject_in_two_parts_is_an_error(written: dict) -> None:
    one, other = written["train"][:2]
    assert one.split("-")[0] == other.split("-")[0]
    torn = written | {"train": [one], "test": [*written["test"], other]}
    with pytest.raises(UserError, match="two parts") as caught:
        kept(torn, cases_of([2] * 5))
    assert caught.value.found == one.split("-")[0]
    # The same, where the file did not know yet that both are of one subject.
    cases = [replace(c, subject="same") for c in cases_of([2] * 5)]
    with pytest.raises(UserError, match="two parts"):
        kept(written, cases)


@pytest.mark.parametrize(
    "change",
    [
        {"train": None},
        {"train": "s01-0"},
        {"test": [1]},
        {"subjects": {"s01-0": 3}},
        {"subjects": []},
    ],
)
def test_what_is_not_a_split_is_refused(written: dict, change: dict) -> None:
    with pytest.raises(UserError, match="not a split"):
        kept(written | change, cases_of([2] * 5))
    with pytest.raises(UserError, match="not a split"):
        kept([], cases_of([2] * 5))
