"""The U-Net: its parts against their definitions, and what the rest of the program relies on."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.models.unet import UNet


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


VOLUME = ((2, 2, 1), (2, 2, 2))
MODELS = {
    "2-D": (UNet(2, (2, 3)), (2, 8, 6, 1)),
    "3-D": (UNet(2, (2, 3)), (1, 4, 6, 4, 1)),
    "anisotropic": (
        UNet(2, (2, 3, 4), VOLUME, ((3, 3, 1), (3, 3, 3), (3, 3, 3))),
        (1, 8, 4, 2, 1),
    ),
}


def of(name):
    model, shape = MODELS[name]
    image = jax.random.normal(jax.random.key(0), shape)
    return model, image, jax.jit(model.init)(jax.random.key(1), image)["params"]


def slopes(model, params, image):
    @jax.jit
    @jax.grad
    def gradient(params):
        logits, _ = model.apply({"params": params}, image)
        return (jax.nn.log_softmax(logits)[..., 0] * image[..., 0]).mean()

    return gradient(params)


def close(found, expected, atol):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=atol), found, expected)


def test_features_of_every_level_of_a_volume():
    model, image, params = of("anisotropic")
    logits, features = jax.eval_shape(model.apply, {"params": params}, image)
    assert logits.shape == (1, 8, 4, 2, 2)
    assert {name: level.shape[1:] for name, level in features.items()} == {
        "encoder_0": (8, 4, 2, 2),
        "encoder_1": (4, 2, 2, 3),
        "encoder_2": (2, 1, 1, 4),
        "decoder_1": (4, 2, 2, 3),
        "decoder_0": (8, 4, 2, 2),
    }
    kernels = {k: v["Conv_0"]["kernel"].shape for k, v in params.items() if "Conv_0" in v}
    assert kernels == {
        "encoder_0": (3, 3, 1, 1, 2),
        "encoder_1": (3, 3, 3, 2, 3),
        "encoder_2": (3, 3, 3, 3, 4),
        "decoder_1": (3, 3, 3, 6, 3),
        "decoder_0": (3, 3, 1, 4, 2),
    }


def test_the_leaves_of_two_dimensions_are_those_of_the_shelf():
    """Their names and shapes are on disk: another name or order orphans every source model."""
    _, _, params = of("2-D")
    found = jax.tree_util.tree_leaves_with_path(params)
    blocks = {"encoder_0": (1, 2), "encoder_1": (2, 3), "decoder_0": (4, 2)}
    expected = {
        "head/bias": (2,),
        "head/kernel": (2, 2),
        "upsample_0/Dense_0/bias": (8,),
        "upsample_0/Dense_0/kernel": (3, 8),
    }
    for name, (inputs, width) in blocks.items():
        for number, first in enumerate((inputs, width)):
            expected[f"{name}/Conv_{number}/kernel"] = (3, 3, first, width)
            expected[f"{name}/InstanceNorm_{number}/scale"] = (width,)
            expected[f"{name}/InstanceNorm_{number}/bias"] = (width,)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in found]
    assert {n: leaf.shape for n, (_, leaf) in zip(names, found, strict=True)} == expected


@pytest.mark.parametrize("name", list(MODELS))
def test_formulations_share_parameters_outputs_and_gradients(name):
    model, image, params = of(name)
    native, shifted = (model.clone(conv_impl=i) for i in ("native", "shifted"))
    close(*(jax.jit(m.apply)({"params": params}, image)[0] for m in (native, shifted)), 1e-4)
    close(*(slopes(m, params, image) for m in (native, shifted)), 1e-4)


def test_rematerialisation_changes_nothing():
    model, image, params = of("2-D")
    again = model.clone(remat=True)
    assert jax.tree.structure(params) == jax.tree.structure(
        jax.eval_shape(again.init, jax.random.key(1), image)["params"]
    )
    close(slopes(again, params, image), slopes(model, params, image), 1e-6)
    jaxpr = str(jax.make_jaxpr(lambda p: again.apply({"params": p}, image)[0])(params))
    assert "remat" in jaxpr or "checkpoint" in jaxpr


def test_bfloat16_computes_narrow_and_answers_wide():
    model, image, params = of("3-D")
    logits, features = model.clone(precision="bfloat16").apply({"params": params}, image)
    assert logits.dtype == jnp.float32
    assert features["decoder_0"].dtype == jnp.bfloat16
    expected, _ = model.apply({"params": params}, image)
    assert 0 < np.abs(logits - expected).max() < 0.1
    wide = jax.eval_shape(model.clone(precision="bfloat16").init, jax.random.key(0), image)
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {jnp.dtype("float32")}


def test_auto_is_float32_on_a_cpu_and_bfloat16_elsewhere(monkeypatch):
    model, image, params = of("2-D")

    def dtype():
        return jax.eval_shape(model.apply, {"params": params}, image)[1]["encoder_0"].dtype

    assert dtype() == jnp.float32
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert dtype() == jnp.bfloat16


def test_deep_supervision_gives_logits_of_coarser_levels():
    model = UNet(2, (2, 3, 4), deep_supervision=True)
    image = jax.ShapeDtypeStruct((1, 8, 12, 1), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image)
    _, features = jax.eval_shape(model.apply, params, image)
    assert features["logits_1"].shape == (1, 4, 6, 2)
    assert set(params["params"]) >= {"head", "head_1"}
    assert "logits_0" not in features
