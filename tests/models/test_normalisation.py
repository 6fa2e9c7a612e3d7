"""Instance norm and leaky ReLU: values and gradients against the formula in float64."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.models.normalisation import InstanceNorm, normalise

SCALE, BIAS = np.float32([1.0, 2.0, -0.5]), np.float32([0.0, -1.0, 3.0])


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def formula(x, scale, bias, slope):
    axes = tuple(range(1, x.ndim - 1))
    shape = (1,) * (x.ndim - 1) + (-1,)
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    z = (x - mean) / jnp.sqrt(variance + 1e-5) * scale.reshape(shape) + bias.reshape(shape)
    return nn.leaky_relu(z, slope)


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (2, 3, 4, 5, 3)])
@pytest.mark.parametrize("slope", [1.0, 0.01])
def test_values_and_gradients_are_those_of_the_formula(shape, slope):
    x, given = draw(*shape) * 3 + 5, draw(*shape[::-1]).reshape(shape)
    narrow = map(jnp.asarray, (x, SCALE, BIAS))
    found, back = jax.vjp(lambda *a: normalise(*a, slope, 1e-5), *narrow)
    with jax.enable_x64(True):
        wide = [jnp.asarray(a, jnp.float64) for a in (x, SCALE, BIAS)]
        expected, slopes = jax.vjp(lambda *a: formula(*a, slope), *wide)
        expected_slopes = [np.asarray(s) for s in slopes(jnp.asarray(given, jnp.float64))]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for ours, theirs in zip(back(jnp.asarray(given)), expected_slopes, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_a_bright_image_keeps_its_digits():
    x = draw(1, 32, 32, 1) + 1e4
    found = InstanceNorm().apply(
        {"params": {"scale": jnp.ones(1), "bias": jnp.zeros(1)}}, jnp.asarray(x)
    )
    wide = x.astype(np.float64)
    np.testing.assert_allclose(found, (wide - wide.mean()) / wide.std(), atol=2e-2)


def test_a_constant_image_gives_the_bias():
    params = {"scale": jnp.array([7.0]), "bias": jnp.array([0.25])}
    constant = jnp.full((1, 4, 4, 1), 1e4)
    found = InstanceNorm().apply({"params": params}, constant)
    np.testing.assert_allclose(found, np.full((1, 4, 4, 1), 0.25), rtol=1e-6)
    slope = jax.grad(lambda x: InstanceNorm().apply({"params": params}, x).sum())(constant)
    assert np.isfinite(slope).all()


def test_sums_are_in_float32_whatever_the_input():
    x = draw(1, 64, 64, 3) + 20
    params = {"params": {"scale": jnp.asarray(SCALE), "bias": jnp.asarray(BIAS)}}
    found = InstanceNorm().apply(params, jnp.asarray(x, jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    rounded = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32)
    expected = InstanceNorm().apply(params, jnp.asarray(rounded))
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, rtol=1e-2, atol=1e-2)
