"""The U-Net: its parts against their definitions, and what the rest of the program relies on."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.models.unet import InstanceNorm, UNet, Upsample, max_pool


@pytest.fixture
def image():
    return jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 12, 3)).astype(np.float32))


def test_instance_norm_is_per_image_and_channel(image):
    scale, bias = np.float32([1.0, 2.0, 0.5]), np.float32([0.0, -1.0, 3.0])
    params = {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}
    found = InstanceNorm().apply({"params": params}, image)
    x = np.asarray(image, np.float64)
    mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * scale + bias
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_instance_norm_of_a_constant_image_is_the_bias():
    params = {"scale": jnp.array([7.0]), "bias": jnp.array([0.25])}
    constant = jnp.full((1, 4, 4, 1), 1e4)
    found = InstanceNorm().apply({"params": params}, constant)
    np.testing.assert_allclose(found, np.full((1, 4, 4, 1), 0.25), rtol=1e-6)
    slope = jax.grad(lambda x: InstanceNorm().apply({"params": params}, x).sum())(constant)
    assert np.isfinite(slope).all()


def test_max_pool_and_its_gradient_are_those_of_the_library(image):
    def theirs(x):
        return nn.max_pool(x, (2, 2), (2, 2))

    np.testing.assert_array_equal(max_pool(image), theirs(image))
    weights = np.random.default_rng(1).standard_normal((2, 4, 6, 3)).astype(np.float32)
    ours, expected = (jax.grad(lambda x, f=f: (weights * f(x)).sum()) for f in (max_pool, theirs))
    np.testing.assert_array_equal(ours(image), expected(image))


def test_upsample_is_a_transposed_convolution_of_stride_two(image):
    layer = Upsample(5)
    params = layer.init(jax.random.key(0), image)["params"]
    kernel = np.asarray(params["Dense_0"]["kernel"], np.float64).reshape(3, 2, 2, 5)
    bias = np.arange(4 * 5, dtype=np.float32)
    params = {"Dense_0": {"kernel": params["Dense_0"]["kernel"], "bias": jnp.asarray(bias)}}
    expected = np.zeros((2, 16, 24, 5))
    for row in range(2):
        for column in range(2):
            offset = bias.reshape(2, 2, 5)[row, column]
            expected[:, row::2, column::2] = np.asarray(image) @ kernel[:, row, column] + offset
    np.testing.assert_allclose(layer.apply({"params": params}, image), expected, atol=1e-5)


def test_logits_are_the_head_of_the_finest_features():
    model = UNet(num_classes=3, widths=(2, 4, 6))
    image = jax.random.normal(jax.random.key(0), (2, 8, 16, 1))
    params = jax.jit(model.init)(jax.random.key(1), image)["params"]
    logits, features = jax.jit(model.apply)({"params": params}, image)
    assert {name: level.shape for name, level in features.items()} == {
        "encoder_0": (2, 8, 16, 2),
        "encoder_1": (2, 4, 8, 4),
        "encoder_2": (2, 2, 4, 6),
        "decoder_1": (2, 4, 8, 4),
        "decoder_0": (2, 8, 16, 2),
    }
    head = params["head"]
    expected = features["decoder_0"] @ head["kernel"] + head["bias"].reshape(1, 1, 1, 3)
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_every_leaf_is_used_and_images_do_not_mix():
    model = UNet(num_classes=2, widths=(2, 4))
    image = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    params = jax.jit(model.init)(jax.random.key(1), image)["params"]

    @jax.jit
    def forward(params, image):
        return model.apply({"params": params}, image)[0]

    def uneven(params):
        return (forward(params, image) ** 2 * jnp.array([1.0, 3.0])[None, None, None]).sum()

    slopes = jax.tree_util.tree_leaves_with_path(jax.grad(uneven)(params))
    assert [jax.tree_util.keystr(p) for p, s in slopes if not np.abs(s).max() > 0] == []
    together = forward(params, image)
    other = forward(params, image.at[1].set(100.0))
    np.testing.assert_array_equal(together[0], other[0])
    np.testing.assert_array_equal(together[2], other[2])
