"""Convolution: every formulation against the definition, and against one another."""

from __future__ import annotations

from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.models import convolution
from jaxfer.models.convolution import Convolution, Upsample, convolve, max_pool

# Image, kernel: odd sizes, wide and narrow layers, kernels flat along an axis or beyond the image.
SHAPES = [
    ((2, 5, 7, 1), (3, 3, 1, 4)),
    ((2, 6, 5, 20), (3, 3, 20, 3)),
    ((1, 5, 4, 3), (1, 3, 3, 18)),
    ((3, 6, 4, 5), (3, 5, 5, 7)),
    ((2, 3, 5, 4, 1), (3, 3, 3, 1, 4)),
    ((1, 4, 5, 3, 2), (3, 3, 3, 2, 5)),
    ((1, 3, 4, 5, 20), (3, 3, 3, 20, 2)),
    ((2, 3, 5, 4, 2), (1, 3, 3, 2, 3)),
    ((1, 5, 4, 3, 2), (3, 3, 1, 2, 3)),
    ((1, 1, 4, 3, 2), (5, 1, 3, 2, 3)),
    ((2, 6, 4, 3, 2), (5, 3, 3, 2, 3)),
    ((2, 4, 2, 1, 4), (3, 5, 3, 4, 2)),
]


def draw(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def oracle(x, kernel):
    """The definition, tap by tap, in float64."""
    sides = kernel.shape[:-2]
    edges = [(0, 0), *((k // 2, k // 2) for k in sides), (0, 0)]
    padded = np.pad(x.astype(np.float64), edges)
    total = np.zeros((*x.shape[:-1], kernel.shape[-1]))
    for tap in product(*map(range, sides)):
        part = tuple(slice(t, t + n) for t, n in zip(tap, x.shape[1:-1], strict=True))
        total += padded[(slice(None), *part)] @ kernel[tap].astype(np.float64)
    return total


@pytest.fixture(params=["per tap", "per plane"])
def size(request, monkeypatch):
    """Both formulations of the kernel's gradient, the one for large planes too."""
    if request.param == "per plane":
        monkeypatch.setattr(convolution, "_FEW_PIXELS", 0)


@pytest.mark.parametrize(("image", "kernel"), SHAPES, ids=str)
@pytest.mark.parametrize("implementation", ["native", "shifted"])
def test_convolution_is_its_definition(image, kernel, implementation):
    x, k = draw(image, kernel)
    found = convolve(jnp.asarray(x), jnp.asarray(k), implementation)
    np.testing.assert_allclose(found, oracle(x, k), atol=2e-5)


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize(("image", "kernel"), SHAPES, ids=str)
def test_gradients_are_those_of_the_definition(image, kernel):
    """Of <slope, convolution>, which is bilinear: difference quotients are exact."""
    x, k, slope, dx, dk = draw(image, kernel, (*image[:-1], kernel[-1]), image, kernel)

    @jax.jit
    def gradients(x, k):
        return jax.vjp(lambda x, k: convolve(x, k, "shifted"), x, k)[1](jnp.asarray(slope))

    of_x, of_k = gradients(jnp.asarray(x), jnp.asarray(k))
    assert of_x.shape == image
    assert of_k.shape == kernel
    for found, direction, change in [
        (of_x, dx, oracle(dx, k)),
        (of_k, dk, oracle(x, dk)),
    ]:
        expected = (change * slope).sum()
        scale = np.sqrt(np.square(direction).sum() * np.square(found).sum())
        assert abs((np.asarray(found, np.float64) * direction).sum() - expected) < 1e-5 * scale
    native = jax.vjp(lambda x, k: convolve(x, k, "native"), jnp.asarray(x), jnp.asarray(k))[1]
    for found, expected in zip((of_x, of_k), native(jnp.asarray(slope)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize(
    ("image", "kernel"),
    [((2, 300, 4, 3, 2), (3, 3, 3, 2, 5)), ((1, 6, 5, 4, 20), (5, 3, 3, 20, 18))],
    ids=["narrow", "wide"],
)
def test_bfloat16_sums_have_float32s_digits(image, kernel):
    """Of many planes, and volumes: only what is stored is rounded, by half of 2⁻⁷ at most."""
    x, k, slope = draw(image, kernel, (*image[:-1], kernel[-1]))
    rounded = [jnp.asarray(1 + abs(values), jnp.bfloat16) for values in (x, k, slope)]

    def forms(dtype):
        x, k, slope = (values.astype(dtype) for values in rounded)
        y, back = jax.vjp(lambda x, k: convolve(x, k, "shifted"), x, k)
        return y, *back(slope)

    for found, expected in zip(forms(jnp.bfloat16), forms(jnp.float32), strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(found, np.float32), expected, rtol=0.51 * 2**-7)


def test_auto_is_shifted_on_a_cpu_and_native_elsewhere(monkeypatch):
    x, k = map(jnp.asarray, draw((1, 3, 3, 3, 2), (3, 3, 3, 2, 2)))

    def loops():
        return "while" in jax.jit(lambda x, k: convolve(x, k)).lower(x, k).as_text()

    assert loops()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not loops()


@pytest.mark.parametrize(
    ("image", "kernel", "implementation", "told"),
    [
        ((1, 4, 4, 1), (2, 3, 1, 1), "auto", "odd sides"),
        ((1, 4, 4, 1), (3, 3, 3, 1, 1), "auto", "as many"),
        ((1, 4, 1), (3, 1, 1), "auto", "two or three"),
        ((1, 4, 4, 1), (3, 3, 1, 1), "fast", "auto, native, shifted"),
    ],
)
def test_what_cannot_be_convolved_is_told(image, kernel, implementation, told):
    with pytest.raises(ValueError, match=told):
        convolve(jnp.zeros(image), jnp.zeros(kernel), implementation)


@pytest.mark.parametrize("implementation", ["native", "shifted"])
def test_an_image_and_a_kernel_of_two_types_are_told(implementation):
    x, kernel = jnp.zeros((1, 4, 4, 4, 2), jnp.bfloat16), jnp.zeros((3, 3, 3, 2, 3), jnp.float32)
    with pytest.raises(ValueError, match="kernel of float32 on an array of bfloat16"):
        convolve(x, kernel, implementation)


def test_the_parameters_are_the_librarys():
    x = jnp.asarray(draw((1, 4, 5, 2))[0])
    ours, theirs = Convolution(3, (3, 3)), nn.Conv(3, (3, 3), use_bias=False)
    params = theirs.init(jax.random.key(3), x)
    jax.tree.map(np.testing.assert_array_equal, ours.init(jax.random.key(3), x), params)
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), atol=1e-5)


@pytest.mark.parametrize("strides", [(2, 2), (2, 1), (2, 2, 1), (1, 3, 2)])
def test_max_pool_and_its_gradient_are_those_of_the_library(strides):
    shape = (2, *(12 if s == 3 else 4 * s for s in strides), 3)
    x, weights = draw(shape, (2, *(n // s for n, s in zip(shape[1:-1], strides, strict=True)), 3))

    def theirs(x):
        return nn.max_pool(x, strides, strides)

    def ours(x):
        return max_pool(x, strides)

    x = jnp.asarray(x)
    np.testing.assert_array_equal(ours(x), theirs(x))
    found, expected = (jax.grad(lambda x, f=f: (weights * f(x)).sum())(x) for f in (ours, theirs))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("strides", [(2, 2), (2, 2, 2), (2, 1, 3)])
def test_upsample_is_a_transposed_convolution(strides):
    sides = (4, 6, 3)[: len(strides)]
    (image,) = draw((2, *sides, 3))
    layer = Upsample(5, strides)
    kernel = layer.init(jax.random.key(0), jnp.asarray(image))["params"]["Dense_0"]["kernel"]
    bias = np.arange(kernel.shape[1], dtype=np.float32)
    found = layer.apply(
        {"params": {"Dense_0": {"kernel": kernel, "bias": jnp.asarray(bias)}}}, jnp.asarray(image)
    )
    own = np.asarray(kernel, np.float64).reshape(3, *strides, 5)
    expected = np.zeros((2, *(n * s for n, s in zip(sides, strides, strict=True)), 5))
    for offset in product(*map(range, strides)):
        places = tuple(slice(o, None, s) for o, s in zip(offset, strides, strict=True))
        shift = bias.reshape(*strides, 5)[offset]
        expected[(slice(None), *places)] = image @ own[(slice(None), *offset)] + shift
    np.testing.assert_allclose(found, expected, atol=1e-5)
