"""Nearest voxels: proposals that float32 can decide, and those that it cannot, by brute force."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.metrics.neighbours import nearest_votes, smallest

CLASSES = 3


def brute(points, labels, k, groups):
    """Votes by class, by sorting; equal distances must be equal numbers."""
    votes = np.zeros((len(points), CLASSES))
    for i in range(len(points)):
        others = groups != groups[i]
        distances, voters = ((points[others] - points[i]) ** 2).sum(1), labels[others]
        last = np.sort(distances)[k - 1]
        nearer, level = distances < last, distances == last
        share = (k - nearer.sum()) / level.sum()
        for c in range(CLASSES):
            votes[i, c] = (voters[nearer] == c).sum() + share * (voters[level] == c).sum()
    return votes


def found(points, labels, k, groups, max_entries=2**14):
    with jax.enable_x64(True):
        classes = jnp.asarray(np.eye(CLASSES)[labels])
        return nearest_votes(
            jnp.asarray(points), classes, jnp.asarray(groups), k=k, max_entries=max_entries
        )


def crowd(rng, size):
    """Voxels that lie apart, as close together as float32 can just tell, closer, and upon one
    another."""
    apart = rng.integers(-64, 64, (size, 3))
    just = np.array([0, 2**10, 0]) + rng.integers(0, 32, (size, 3)) / 16
    close = np.array([2**12, 0, 0]) + rng.integers(0, 6, (size // 2, 3)) / 16
    points = np.concatenate([apart, just, close])
    return points - points.mean(0).round(), rng.integers(0, CLASSES, len(points))


@pytest.mark.parametrize("k", [1, 5])
def test_votes_are_those_of_brute_force_whatever_float32_can_tell(k):
    points, labels = crowd(np.random.default_rng(k), 500)
    for groups in (np.arange(len(points)), np.arange(len(points)) % 7):
        votes, voters = found(points, labels, k, groups)
        np.testing.assert_allclose(votes, brute(points, labels, k, groups), atol=1e-9)
        assert (np.asarray(voters) == k).all()


def test_the_unit_changes_nothing_even_beyond_float32():
    points, labels = crowd(np.random.default_rng(2), 60)
    expected, _ = found(points, labels, 5, np.arange(len(points)))
    for unit in (2.0**-90, 2.0**90):
        votes, _ = found(unit * points, labels, 5, np.arange(len(points)))
        np.testing.assert_array_equal(votes, expected)


def test_voxels_without_a_class_have_no_vote():
    points, labels = crowd(np.random.default_rng(3), 600)
    kept = np.random.default_rng(4).random(len(points)) < 0.5
    with jax.enable_x64(True):
        classes = jnp.asarray(np.eye(CLASSES)[labels] * kept[:, None])
        groups = jnp.arange(len(points))
        votes, _ = nearest_votes(jnp.asarray(points), classes, groups, k=5, max_entries=2**14)
    expected = brute(points[kept], labels[kept], 5, np.arange(kept.sum()))
    np.testing.assert_allclose(np.asarray(votes)[kept], expected, atol=1e-9)


@pytest.mark.parametrize(("number", "k"), [(7, 7), (300, 4), (1000, 9), (1000, 31), (1000, 40)])
def test_the_smallest_of_long_rows(number, k):
    values = np.random.default_rng(number).integers(0, 200, (20, number)).astype(np.float32)
    values[:5, k // 2 :] = np.inf
    least, places = map(np.asarray, smallest(jnp.asarray(values), k))
    np.testing.assert_array_equal(least, np.sort(values, 1)[:, :k])
    finite = np.isfinite(least)
    np.testing.assert_array_equal(np.take_along_axis(values, places, 1)[finite], least[finite])
    assert all(len(set(row[ok])) == ok.sum() for row, ok in zip(places, finite, strict=True))
