"""The U-Net: its parts against their definitions, and what the rest of the program relies on."""

from __future__ import annotations

from functools import partial

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


def test_features_of_every_level():
    model = UNet(num_classes=3, widths=(2, 4, 6))
    image = jax.ShapeDtypeStruct((2, 8, 16, 1), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(1), image)
    logits, features = jax.eval_shape(model.apply, params, image)
    assert logits.shape == (2, 8, 16, 3)
    assert {name: level.shape for name, level in features.items()} == {
        "encoder_0": (2, 8, 16, 2),
        "encoder_1": (2, 4, 8, 4),
        "encoder_2": (2, 2, 4, 6),
        "decoder_1": (2, 4, 8, 4),
        "decoder_0": (2, 8, 16, 2),
    }


def test_head_leaves_and_images():
    model = UNet(num_classes=2, widths=(2, 3))
    image = jax.random.normal(jax.random.key(0), (3, 4, 4, 1))
    params = model.init(jax.random.key(1), image)["params"]

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def forward(params, image):
        logits, features = model.apply({"params": params}, image)
        uneven = jnp.array([1.0, 3.0]).reshape(1, 1, 1, 2)
        return (logits**2 * uneven).sum(), (logits, features["decoder_0"])

    (_, (logits, finest)), slopes = forward(params, image)
    head = params["head"]
    expected = finest @ head["kernel"] + head["bias"].reshape(1, 1, 1, 2)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    unused = [
        jax.tree_util.keystr(path)
        for path, slope in jax.tree_util.tree_leaves_with_path(slopes)
        if not np.abs(slope).max() > 0
    ]
    assert unused == []
    (_, (other, _)), _ = forward(params, image.at[1].set(100.0))
    np.testing.assert_array_equal(other[0], logits[0])
    np.testing.assert_array_equal(other[2], logits[2])
    assert np.abs(other[1] - logits[1]).max() > 0.1
    # The finest level sees the image past the coarser ones too.
    cut = params | {"upsample_0": jax.tree.map(jnp.zeros_like, params["upsample_0"])}
    (_, (past, _)), _ = forward(cut, image)
    assert np.abs(past[1] - past[0]).max() > 0.1
