"""Images cut into slabs, one on each device: outputs and gradients are those of whole images."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.models.convolution import convolve
from jaxfer.models.slabs import divides_into, own_slab, whole, with_neighbours
from jaxfer.models.unet import UNet
from jaxfer.train.loop import initial_params

AXIS = "slabs"


def on_devices(function, devices):
    """Every device is given the same arguments; each one's result."""
    mapped = jax.pmap(function, axis_name=AXIS, devices=jax.local_devices()[:devices])
    return lambda *arguments: mapped(
        *jax.tree.map(lambda x: jnp.broadcast_to(x, (devices, *x.shape)), arguments)
    )


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("devices", [2, 4])
def test_slabs_and_their_neighbours(devices):
    image = np.arange(2 * 8 * 3, dtype=np.float32).reshape(2, 8, 3, 1) + 1
    back = on_devices(lambda x: whole(own_slab(x, AXIS), AXIS), devices)(image)
    np.testing.assert_array_equal(back, np.broadcast_to(image, (devices, *image.shape)))
    found = on_devices(lambda x: with_neighbours(own_slab(x, AXIS), 2, AXIS), devices)(image)
    padded = np.pad(image, [(0, 0), (2, 2), (0, 0), (0, 0)])
    size = 8 // devices
    for number, wide in enumerate(found):
        np.testing.assert_array_equal(wide, padded[:, number * size : (number + 1) * size + 4])


@pytest.mark.parametrize("implementation", ["native", "shifted"])
@pytest.mark.parametrize(
    ("sides", "inputs", "outputs"),
    [((3, 3), 2, 3), ((5, 3), 17, 4), ((3, 3, 3), 1, 2), ((3, 1, 3), 20, 18), ((5, 3, 3), 4, 18)],
)
def test_a_border_of_zeros_is_no_border(implementation, sides, inputs, outputs, monkeypatch):
    monkeypatch.setattr("jaxfer.models.convolution._FEW_PIXELS", 0)
    rng = np.random.default_rng(0)
    shape, reach = (2, *(5, 6, 4)[: len(sides)], inputs), sides[0] // 2
    x = normal(rng, *shape)
    kernel, slope = normal(rng, *sides, inputs, outputs), normal(rng, *shape[:-1], outputs)
    edges = [(0, 0), (reach, reach), *[(0, 0)] * len(sides)]

    def form(bordered, x, kernel):
        return convolve(x, kernel, implementation, bordered=bordered)

    expected, back = jax.vjp(partial(form, False), x, kernel)
    found, back_bordered = jax.vjp(partial(form, True), jnp.pad(x, edges), kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    (dx, dkernel), (dwide, dkernel_bordered) = back(slope), back_bordered(slope)
    inside = dwide[:, reach : dwide.shape[1] - reach]
    np.testing.assert_allclose(inside, dx, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dkernel_bordered, dkernel, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", ["native", "shifted"])
def test_gradients_reach_the_border(implementation):
    """The planes beyond the edge are another device's: theirs must be right too."""
    rng = np.random.default_rng(1)
    x, slope = normal(rng, 1, 6, 4, 3, 2), normal(rng, 1, 4, 4, 3, 3)
    kernel = normal(rng, 3, 3, 3, 2, 3)
    _, back = jax.vjp(lambda x: convolve(x, kernel, implementation, bordered=True), x)
    _, inside = jax.vjp(lambda x: convolve(x, kernel, "native")[:, 1:-1], x)
    np.testing.assert_allclose(back(slope)[0], inside(slope)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("patch", "devices", "settings"),
    [
        ((16, 4), 4, {"deep_supervision": True}),
        ((8, 4, 6), 2, {"kernels": ((1, 3, 3), (3, 3, 3)), "strides": ((1, 2, 2),)}),
        ((8, 4, 4), 4, {"remat": True, "conv_impl": "native"}),
    ],
    ids=["2-D", "3-D, anisotropic", "3-D, native"],
)
def test_a_network_in_slabs_is_the_network(patch, devices, settings):
    levels = len(settings.get("kernels", (0, 0)))
    model = UNet(num_classes=2, widths=(2, 3, 4)[:levels], **settings)
    params = initial_params(model, patch, 0)
    rng = np.random.default_rng(0)
    image = normal(rng, 2, *patch, 1)

    def outputs(model, params, image):
        logits, features = model.apply({"params": params}, image)
        return {"logits": logits} | features

    def loss(model, params, image):
        found = outputs(model, params, image)
        return sum((jnp.sin(x * (k + 1)) * x).sum() for k, x in enumerate(found.values()))

    cut = model.clone(slabs=AXIS)
    expected = outputs(model, params, image)
    found = on_devices(partial(outputs, cut), devices)(params, image)
    for name, values in expected.items():
        for own in found[name]:
            np.testing.assert_allclose(own, values, rtol=2e-4, atol=2e-5, err_msg=name)
    gradient = jax.grad(partial(loss, model))(params, image)
    parts = on_devices(jax.grad(partial(loss, cut)), devices)(params, image)
    # Each device's loss is the whole one: the parts hold it as often as there are devices.
    together = jax.tree.map(lambda x: x.sum(0) / devices, parts)
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5 * largest),
        together,
        gradient,
    )


def test_slabs_are_of_one_size_at_every_level():
    assert divides_into(64, 2, ((2, 2, 2),) * 2)
    assert divides_into(8, 4, ((2, 2),))
    assert not divides_into(8, 4, ((2, 2), (2, 2)))
    assert divides_into(8, 4, ((1, 2, 2), (2, 2, 2)))
    assert not divides_into(9, 2, ())
