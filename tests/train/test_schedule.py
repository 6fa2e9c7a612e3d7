"""The optimizer: what decays, which leaves move, and where they are pulled to."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfer.train.schedule import Schedule

SCHEDULE = Schedule(steps=10, learning_rate=0.1, warmup=0.0, weight_decay=0.01, clip_gradient=1.0)


@pytest.fixture
def params():
    return {"encoder_0": {"kernel": jnp.ones(3)}, "head": {"kernel": 2 * jnp.ones(2)}}


def walk(schedule, params, gradient, steps=3):
    """The parameters after some steps along one gradient."""
    optimizer = schedule.optimizer()
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def gradient_of(params, encoder=1.0, head=1.0):
    return {
        "encoder_0": jax.tree.map(lambda x: encoder * jnp.ones_like(x), params["encoder_0"]),
        "head": jax.tree.map(lambda x: head * jnp.ones_like(x), params["head"]),
    }


def test_poly_rises_then_falls_as_a_power():
    rate = replace(SCHEDULE, steps=100, warmup=0.1, decay="poly").rate()
    found = [float(rate(k)) for k in range(101)]
    rising = [0.1 * k / 10 for k in range(10)]
    falling = [0.1 * (1 - k / 90) ** 0.9 for k in range(91)]
    np.testing.assert_allclose(found, rising + falling, rtol=1e-5, atol=1e-8)


def test_factors_of_one_are_adamw(params):
    expected = walk(SCHEDULE, params, gradient_of(params))
    found = walk(replace(SCHEDULE, rates=(("head/kernel", 1.0),)), params, gradient_of(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_a_frozen_leaf_keeps_its_bits_and_its_gradient_does_not_count(params):
    frozen = replace(SCHEDULE, rates=(("encoder_0/kernel", 0.0),))
    found = walk(frozen, params, gradient_of(params, encoder=np.inf))
    np.testing.assert_array_equal(found["encoder_0"]["kernel"], params["encoder_0"]["kernel"])
    # As if the leaf were not there: neither its decay nor the clipping of its gradient.
    alone = walk(SCHEDULE, {"head": params["head"]}, {"head": gradient_of(params)["head"]})
    np.testing.assert_allclose(found["head"]["kernel"], alone["head"]["kernel"], rtol=1e-6)


def test_a_leafs_factor_scales_its_way(params):
    slow = replace(SCHEDULE, rates=(("encoder_0/kernel", 0.25),))
    whole = walk(SCHEDULE, params, gradient_of(params), steps=2)
    found = walk(slow, params, gradient_of(params), steps=2)
    way = params["encoder_0"]["kernel"] - whole["encoder_0"]["kernel"]
    own = params["encoder_0"]["kernel"] - found["encoder_0"]["kernel"]
    np.testing.assert_allclose(own, 0.25 * way, rtol=1e-2)
    np.testing.assert_allclose(found["head"]["kernel"], whole["head"]["kernel"], rtol=1e-6)


def test_pulled_leaves_return_to_where_they_started_and_others_decay(params):
    pulled = replace(SCHEDULE, learning_rate=0.5, steps=1, pull=0.5, pulled=("encoder_0/kernel",))
    optimizer = pulled.optimizer()
    state = optimizer.init(params)
    moved = jax.tree.map(lambda x: x + 1.0, params)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, moved)
    np.testing.assert_allclose(updates["encoder_0"]["kernel"], -0.5 * 0.5 * 1.0, rtol=1e-6)
    np.testing.assert_allclose(updates["head"]["kernel"], -0.5 * 0.01 * 3.0, rtol=1e-6)
    still, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
    assert not np.asarray(still["encoder_0"]["kernel"]).any()
