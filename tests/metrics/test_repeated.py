"""Repeated samples: balanced strata, the draw's key, mean and standard error."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxfer.metrics.otce import f_otce
from jaxfer.metrics.repeated import Pixels, repeated, stratified_sample

N = 400


def pixels(seed=0, shares=(0.94, 0.05, 0.01)):
    """Pixels of two subjects, one of them with nearly all, and of classes of unequal size."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, N, p=shares)
    subjects = (rng.random(N) < 0.2).astype(np.int32)
    values = (rng.standard_normal((N, 2)) + labels[:, None]).astype(np.float32)
    return Pixels(values, labels, subjects, rng.random(N) < 0.9)


def strata(group, places):
    return np.unique(3 * group.subjects[places] + group.labels[places], return_counts=True)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000))
def test_strata_share_a_sample_as_far_as_they_go(seed):
    group = pixels(seed)
    places, inside = stratified_sample(
        jax.random.key(seed), group.labels, group.subjects, num_pixels=60, mask=group.mask
    )
    places = np.asarray(places)
    assert np.asarray(inside).all()
    assert len(set(places.tolist())) == 60
    assert group.mask[places].all()
    names, found = strata(group, places)
    possible = dict(zip(*strata(group, np.flatnonzero(group.mask)), strict=True))
    assert set(names) == set(possible)
    for name, number in zip(names, found, strict=True):
        assert number == possible[name] or number >= found.max() - 1


def test_every_pixel_of_a_stratum_has_its_chance():
    labels, subjects = np.repeat([0, 1], 10), np.zeros(20, np.int32)
    keys = jax.random.split(jax.random.key(0), 2000)
    sample = jax.vmap(lambda k: stratified_sample(k, labels, subjects, num_pixels=4)[0])
    drawn = np.bincount(np.asarray(sample(keys)).ravel(), minlength=20)
    # 400 expected of each pixel, with a standard deviation below 18.
    assert np.abs(drawn - 400).max() < 90


def test_too_few_pixels_are_all_taken_once():
    group = pixels()
    places, inside = stratified_sample(
        jax.random.key(1), group.labels, group.subjects, num_pixels=N + 50, mask=group.mask
    )
    taken = np.asarray(places)[np.asarray(inside)]
    np.testing.assert_array_equal(np.sort(taken), np.flatnonzero(group.mask))
    assert places.shape == (N + 50,)


def test_mean_and_standard_error_of_the_repetitions():
    group = pixels(2)
    samples = []

    def metric(sample):
        samples.append(sample)
        return sample.values[:, 0].mean()

    found = repeated(metric, [group], key=jax.random.key(0), repeats=5, num_pixels=20)
    expected = [sample.values[:, 0].mean() for sample in samples]
    np.testing.assert_allclose(found.scores, expected, 1e-6)
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-6)
    assert found.standard_error == pytest.approx(np.std(expected, ddof=1) / 5**0.5, rel=1e-6)
    assert (found.n_undefined, found.n_pixels) == (0, 20)
    assert len({float(x) for x in found.scores}) == 5
    again = repeated(metric, [group], key=jax.random.key(0), repeats=5, num_pixels=20)
    np.testing.assert_array_equal(again.scores, found.scores)
    other = repeated(metric, [group], key=jax.random.key(1), repeats=5, num_pixels=20)
    assert (other.scores != found.scores).all()


def test_undefined_repetitions_are_counted():
    values = iter([1.0, float("nan"), 3.0])
    found = repeated(lambda _: next(values), [pixels()], key=jax.random.key(0), repeats=3)
    assert (found.mean, found.standard_error, found.n_undefined) == (2.0, 1.0, 1)
    never = repeated(lambda _: float("nan"), [pixels()], key=jax.random.key(0), repeats=2)
    assert np.isnan([never.mean, never.standard_error]).all()
    assert never.n_undefined == 2
    once = repeated(lambda _: 4.0, [pixels()], key=jax.random.key(0), repeats=1)
    assert once.mean == 4.0
    assert np.isnan(once.standard_error)


def test_f_otce_of_repeated_samples():
    source, target = pixels(3), pixels(4)

    def metric(s, t):
        return f_otce(
            s.values,
            s.labels,
            t.values,
            t.labels,
            num_source_classes=3,
            num_classes=3,
            source_mask=s.mask,
            target_mask=t.mask,
        )

    found = repeated(metric, (source, target), key=jax.random.key(0), repeats=4, num_pixels=64)
    assert -np.log(3) < found.mean < 0
    assert 0 < found.standard_error < 0.1


def test_misuse_raises():
    group, key = pixels(), jax.random.key(0)
    with pytest.raises(ValueError, match="found 0 and 10"):
        repeated(lambda: 0.0, [], key=key)
    with pytest.raises(ValueError, match="found 1 and 0"):
        repeated(lambda _: 0.0, [group], key=key, repeats=0)
    with pytest.raises(ValueError, match="num_pixels be at least 1"):
        stratified_sample(key, group.labels, group.subjects, num_pixels=0)
