"""Which voxels are drawn: by class and subject in turns, never twice, always the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxfer.selection.cells import centres
from jaxfer.selection.draw import Sampling, draw_voxels, take_turns
from jaxfer.tasks import IGNORE


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 120))
def test_strata_take_turns_until_there_are_enough(sizes, total):
    sizes = np.array(sizes)
    taken = take_turns(sizes, total, np.random.default_rng(0))
    assert taken.sum() == min(total, sizes.sum())
    assert (taken <= sizes).all()
    # Whoever has some left has as many as anybody, but for the last, incomplete round.
    left = taken < sizes
    if left.any():
        assert taken.max() - taken[left].min() <= 1


def cases_of(make_case, *shapes):
    rng = np.random.default_rng(3)
    made = []
    for shape in shapes:
        classes = (rng.random(shape) < 0.05).astype(int)
        classes[rng.random(shape) < 0.1] = IGNORE
        made.append(make_case(classes, 2))
    return made


def drawn(cases, *, samples=40, repetitions=3, seed=(7,), **how):
    how = {"scale": (1, 1), "patch": (8, 8)} | how
    return draw_voxels(cases, sampling=Sampling(samples, repetitions, 0.1), seed=seed, **how)


@pytest.mark.parametrize("scale", [(1, 1), (2, 2), (4, 4), (2, 1), (1, 1, 1), (4, 2, 1), (2, 2, 2)])
def test_every_drawn_voxel_is_one_that_counts(make_case, scale):
    cases = cases_of(make_case, (20, 13, 4), (9, 8, 6))
    patch = (8, 8, 4)[: len(scale)]
    found = drawn(cases, scale=scale, patch=patch)
    assert found.scale == scale
    assert found.labels.shape == (3, 40)
    for k in range(3):
        pairs = zip(found.cases[k], found.voxels[k], strict=True)
        keys = [(int(number), *map(int, voxel)) for number, voxel in pairs]
        assert len(set(keys)) == len(keys)
        for (number, *voxel), label in zip(keys, found.labels[k], strict=True):
            classes = cases[number].classes()
            assert classes[tuple(voxel)] == label != IGNORE
            for n, p, s, at in zip(classes.shape, patch, scale, voxel, strict=False):
                assert centres(n, p, s)[at]
    assert (found.voxels[0] != found.voxels[1]).any()


def test_classes_and_subjects_have_equal_shares(make_case):
    cases = cases_of(make_case, (20, 20, 6), (20, 20, 3))
    found = drawn(cases)
    for k in range(3):
        strata = 2 * found.subjects[k] + found.labels[k]
        np.testing.assert_array_equal(np.bincount(strata), [10, 10, 10, 10])
    # Without the labels, a class has the share that it has.
    free = drawn(cases, samples=2000, by_class=False)
    assert (free.labels == 1).mean() == pytest.approx(0.055, abs=0.02)
    np.testing.assert_allclose(np.bincount(free.subjects[0]) / 2000, [0.5, 0.5], atol=0.01)


def test_the_sessions_of_a_subject_share_its_voxels(make_case):
    first, second, other = cases_of(make_case, (12, 12, 4), (12, 12, 4), (12, 12, 4))
    stored = dataclasses.replace(second.stored, subject=first.stored.subject)
    found = drawn([first, dataclasses.replace(second, stored=stored), other], samples=40)
    np.testing.assert_array_equal(found.subjects, np.where(found.cases == 2, 1, 0))
    np.testing.assert_array_equal(np.bincount(found.subjects[0]), [20, 20])
    assert set(found.cases[0]) == {0, 1, 2}


def test_the_same_seed_draws_the_same(make_case):
    cases = cases_of(make_case, (12, 12, 4))
    first, again, other = drawn(cases), drawn(cases), drawn(cases, seed=(8,))
    np.testing.assert_array_equal(first.voxels, again.voxels)
    assert (first.voxels != other.voxels).any()


def test_with_fewer_voxels_all_are_taken(make_case):
    (case,) = cases_of(make_case, (5, 4, 2))
    found = drawn([case], samples=1000)
    assert found.labels.shape == (3, case.counts.sum())
    assert (np.bincount(found.labels[0], minlength=2) == case.counts.sum(0)).all()
