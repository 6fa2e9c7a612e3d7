"""The plan carried to other voxels: at its own samples it is the plan itself."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from jaxfer.metrics import carried_log_probs, carrier, f_otce

SIZES = {"num_source_classes": 3, "num_classes": 2}


@pytest.fixture
def sides():
    rng = np.random.default_rng(0)
    source_labels, labels = rng.integers(0, 3, 80), rng.integers(0, 2, 60)
    source = rng.normal(size=(80, 4)) + 2.0 * np.eye(4)[source_labels]
    target = rng.normal(size=(60, 4)) + 2.0 * np.eye(4)[labels] + 50.0
    return source.astype(np.float32), source_labels, target.astype(np.float32), labels


def plan_of(source, target, epsilon):
    """Sinkhorn in log space, float64, one potential after the other."""
    x, y = (np.float64(side) - np.float64(side).mean(0) for side in (source, target))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    log = -cost / (epsilon * cost.mean())
    f = np.zeros(len(x))
    for _ in range(20_000):
        g = -np.log(len(y)) - logsumexp(log + f[:, None], 0)
        f = -np.log(len(x)) - logsumexp(log + g[None], 1)
    return np.exp(log + f[:, None] + g[None])


@pytest.mark.parametrize("epsilon", [0.02, 0.1])
def test_the_plans_own_voxels_go_where_the_plan_takes_them(sides, epsilon) -> None:
    source, source_labels, target, labels = sides
    found = carrier(*sides, **SIZES, epsilon=epsilon, threshold=1e-6)
    assert bool(found.converged)
    plan = plan_of(source, target, epsilon)
    shares = np.stack([plan[source_labels == z].sum(0) for z in range(3)], 1) * len(target)
    probs = np.exp(carried_log_probs(found, target.reshape(4, 15, 4)))
    np.testing.assert_allclose(probs.reshape(-1, 3), shares, atol=2e-3)
    # Their table is that of F-OTCE.
    joint = np.stack([probs.reshape(-1, 3)[labels == c].sum(0) for c in range(2)]) / len(target)
    conditional = joint / joint.sum(0)
    score = f_otce(*sides, **SIZES, epsilon=epsilon, threshold=1e-6)
    assert (joint * np.log(conditional)).sum() == pytest.approx(float(score), abs=2e-3)


def test_voxels_that_do_not_count_offer_and_move_nothing(sides) -> None:
    source, source_labels, target, labels = sides
    expected = carried_log_probs(carrier(*sides, **SIZES, epsilon=0.1), target)
    more = np.concatenate([source, np.full((5, 4), np.nan, np.float32)])
    others = np.concatenate([target, np.full((3, 4), 1e4, np.float32)])
    found = carrier(
        more,
        np.concatenate([source_labels, np.zeros(5, int)]),
        others,
        np.concatenate([labels, np.zeros(3, int)]),
        **SIZES,
        epsilon=0.1,
        source_mask=np.arange(85) < 80,
        target_mask=np.arange(63) < 60,
    )
    np.testing.assert_allclose(carried_log_probs(found, target), expected, atol=1e-3)


def test_features_that_do_not_vary_give_every_voxel_the_shares_of_the_classes(sides) -> None:
    source, source_labels, target, labels = sides
    found = carrier(np.ones_like(source), source_labels, np.ones_like(target), labels, **SIZES)
    shares = np.bincount(source_labels, minlength=3) / len(source)
    np.testing.assert_allclose(
        np.exp(carried_log_probs(found, target)), np.tile(shares, (60, 1)), rtol=1e-5
    )


def test_jit_and_rows_that_are_not_whole_blocks(sides) -> None:
    plan = carrier(*sides, **SIZES, epsilon=0.1)
    many = np.random.default_rng(1).normal(size=(5000, 4)).astype(np.float32) + 50
    found = carried_log_probs(plan, many)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(carried_log_probs)(plan, many[:7]), found[:7], rtol=1e-4)
    np.testing.assert_array_equal(carried_log_probs(plan, many[2100:2101])[0], found[2100])
