"""Prediction over volumes: every voxel once, in its place, whatever the tiles."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxfer.models.unet import UNet
from jaxfer.train import predict as predict_module
from jaxfer.train.predict import forward, predict_volume, read_tile, starts, tile_batches, tiles

AWKWARD = [(5, 7, 3), (8, 8, 1), (9, 8, 2), (3, 20, 2), (17, 1, 2), (8, 30, 1)]


class EachPixel(UNet):
    """Tells the foreground's log-odds from the pixel itself."""

    def __call__(self, image):
        return jnp.concatenate([jnp.zeros_like(image), image], -1), {}


class WholeTile(UNet):
    """One answer for all pixels of a tile, from its sum."""

    def __call__(self, image):
        axes = tuple(range(1, image.ndim - 1))
        odds = jnp.broadcast_to(image.sum(axes, keepdims=True), image.shape)
        return jnp.concatenate([jnp.zeros_like(image), odds], -1), {}


PIXELS, TILES = EachPixel(num_classes=2, widths=(1,)), WholeTile(num_classes=2, widths=(1,))


def draw(shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float16)


def predict(model, image, *, params=None, patch=(8, 8), overlap=0.5, batch_size=3, **kwargs):
    return predict_volume(
        model,
        {} if params is None else params,
        image,
        patch=patch,
        overlap=overlap,
        batch_size=batch_size,
        **kwargs,
    )


@pytest.fixture(scope="module")
def trained():
    model = UNet(num_classes=3, widths=(2, 3))
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]


@settings(max_examples=200)
@given(size=st.integers(1, 300), patch=st.integers(1, 96), overlap=st.floats(0, 0.95))
def test_tiles_along_an_axis_cover_it_and_stay_inside(size, patch, overlap):
    found = starts(size, patch, overlap)
    covered = {first + k for first in found for k in range(patch)}
    assert covered >= set(range(size))
    assert found[0] == 0
    if size <= patch:
        assert found == [0]
    else:
        assert found[-1] + patch == size
        assert all(a < b for a, b in pairwise(found))
        widest = max(b - a for a, b in pairwise(found))
        assert widest <= max(np.ceil(patch * (1 - overlap)), 1)


@pytest.mark.parametrize("shape", AWKWARD)
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_every_voxel_gets_the_answer_for_itself(shape, overlap):
    image = draw(shape)
    probs = predict(PIXELS, image, overlap=overlap)
    foreground = 1 / (1 + np.exp(-image.astype(np.float64)))
    np.testing.assert_allclose(probs[..., 1], foreground, rtol=1e-5)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-6)


def test_overlapping_tiles_are_blended_by_a_bump():
    image = draw((8, 13, 1))
    probs = predict(TILES, image, overlap=0.5)
    bump = np.exp(-0.5 * ((np.arange(8) - 3.5) / 1.0) ** 2)
    bump = np.maximum(np.outer(bump, bump), 1e-3)
    total, mass = np.zeros((8, 13)), np.zeros((8, 13))
    for first in (0, 2, 5):
        tile = image[:, first : first + 8, 0].astype(np.float64)
        total[:, first : first + 8] += bump / (1 + np.exp(-tile.sum()))
        mass[:, first : first + 8] += bump
    np.testing.assert_allclose(probs[..., 0, 1], total / mass, rtol=1e-4)


def test_a_constant_network_gives_a_constant_map(trained):
    model, params = trained
    shares = np.float32([0.7, 0.2, 0.1])
    head = {"kernel": jnp.zeros_like(params["head"]["kernel"]), "bias": jnp.log(shares)}
    probs = predict(model, draw((11, 5, 2)), params=params | {"head": head})
    np.testing.assert_allclose(probs, np.broadcast_to(shares, probs.shape), rtol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8, 3), (5, 8, 2), (3, 2, 1)])
def test_one_tile_for_a_slice_is_a_plain_forward_pass(trained, shape):
    model, params = trained
    image = draw(shape)
    padded = np.zeros((shape[2], 8, 8, 1), np.float32)
    padded[:, : shape[0], : shape[1], 0] = np.moveaxis(image, 2, 0)
    log_probs, _ = forward(model, params, jnp.asarray(padded))
    expected = np.exp(np.moveaxis(log_probs, 0, 2))[: shape[0], : shape[1]]
    probs = predict(model, image, params=params)
    np.testing.assert_allclose(probs, expected, rtol=1e-5)


def test_the_batch_size_changes_nothing(trained):
    model, params = trained
    image = draw((13, 9, 3))
    reference = predict(model, image, params=params, batch_size=1)
    number = len(tiles(image.shape, (8, 8), 0.5))
    for batch_size in (4, number, number + 3):
        found = predict(model, image, params=params, batch_size=batch_size)
        np.testing.assert_allclose(found, reference, rtol=1e-5, atol=1e-7)


class Corner(UNet):
    """Tells the log-odds from the pixel and its place in the tile: not symmetric."""

    def __call__(self, image):
        places = jnp.arange(image[0, ..., 0].size).reshape(1, *image.shape[1:-1], 1) / 50
        return jnp.concatenate([jnp.zeros_like(image), image * places], -1), {}


def brute_force(image, patch, overlap, mirror):
    """Each voxel's blended mean over the tiles that see it, in float64, one tile at a time."""
    axes = len(patch)
    total, mass = np.zeros(image.shape), np.zeros(image.shape)
    places = np.arange(np.prod(patch)).reshape(patch) / 50
    grids = np.meshgrid(*map(np.arange, patch), indexing="ij")
    squares = [((g - (p - 1) / 2) / p) ** 2 for g, p in zip(grids, patch, strict=True)]
    bump = np.exp(-32 * sum(squares))
    flips = [f for f in np.ndindex(*(2,) * axes) if mirror or not any(f)]
    for first in np.ndindex(*image.shape[:axes]):
        per_axis = [starts(n, p, overlap) for n, p in zip(image.shape, patch, strict=False)]
        if not all(f in found for f, found in zip(first, per_axis, strict=True)):
            continue
        for z in range(image.shape[2]) if axes == 2 else [None]:
            own = tuple(slice(f, f + p) for f, p in zip(first, patch, strict=True))
            own = own if z is None else (*own, z)
            tile = np.zeros(patch)
            inside = tuple(map(slice, image[own].shape))
            tile[inside] = image[own]
            probs = np.zeros(patch)
            for flip in flips:
                turned = tuple(a for a in range(axes) if flip[a])
                odds = np.flip(tile, turned) * places
                probs += np.flip(1 / (1 + np.exp(-odds)), turned) / len(flips)
            weights = np.maximum(bump, 1e-3)[inside]
            total[own] += weights * probs[inside]
            mass[own] += weights
    return total / mass


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(
    ("shape", "patch"),
    [((9, 8, 2), (8, 6)), ((9, 5, 7), (4, 6, 4)), ((4, 4, 9), (4, 4, 4)), ((3, 2, 2), (4, 4, 4))],
)
def test_prediction_is_the_brute_force_blend(shape, patch, mirror):
    model, image = Corner(num_classes=2, widths=(1,)), draw(shape)
    found = [
        predict(model, image, patch=patch, batch_size=size, mirror=mirror) for size in (1, 3, 50)
    ]
    expected = brute_force(image.astype(np.float64), patch, 0.5, mirror)
    np.testing.assert_allclose(found[0][..., 1], expected, rtol=1e-4)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-6)


def test_mirroring_makes_a_symmetric_network_of_any(trained):
    model, params = trained
    image = draw((8, 8, 1))
    straight = predict(model, image, params=params, mirror=True)
    turned = predict(model, np.flip(image, 0), params=params, mirror=True)
    np.testing.assert_allclose(np.flip(turned, 0), straight, rtol=1e-5)
    assert np.abs(predict(model, image, params=params) - straight).max() > 1e-3


def test_batches_are_dispatched_before_an_earlier_one_is_fetched(monkeypatch):
    order: list[str] = []
    answer = predict_module._outputs

    def dispatch(*args):
        order.append("dispatch")
        return answer(*args)

    monkeypatch.setattr(predict_module, "_outputs", dispatch)
    slices = 4 * jax.local_device_count()
    predict(PIXELS, draw((8, 8, slices)), batch_size=1, on_tiles=lambda _: order.append("blend"))
    assert order[:2] == ["dispatch", "dispatch"]
    waiting = np.cumsum([1 if step == "dispatch" else -1 for step in order])
    assert waiting.max() == 3
    assert waiting[-1] == 0


def test_every_tile_is_told_once():
    told: list[int] = []
    image = draw((13, 9, 3))
    devices = jax.local_device_count()
    predict(PIXELS, image, batch_size=devices + 1, on_tiles=told.append)
    assert sum(told) == len(tiles(image.shape, (8, 8), 0.5))
    # Every device has as many.
    assert set(told[:-1]) == {2 * devices}


@pytest.mark.parametrize(("shape", "patch"), [((13, 9, 3), (8, 8)), ((9, 8, 11), (8, 8, 8))])
@pytest.mark.parametrize("layer", ["", "decoder_0"])
def test_devices_share_the_tiles_and_change_nothing(monkeypatch, shape, patch, layer):
    model = UNet(num_classes=3, widths=(2, 3))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *patch, 1)))["params"]
    seen: list[int] = []
    answer = predict_module._outputs

    def watch(*args):
        found = answer(*args)
        seen.append(len(found.sharding.device_set))
        return found

    monkeypatch.setattr(predict_module, "_outputs", watch)
    image, local = draw(shape), jax.local_devices()
    every = len(tiles(shape, patch, 0.5))
    found = []
    for number in (1, 2, 4):
        monkeypatch.setattr(jax, "local_devices", lambda number=number: local[:number])
        seen.clear()
        found.append(predict(model, image, params=params, patch=patch, batch_size=3, layer=layer))
        assert set(seen) == {min(number, every)}
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5, atol=1e-6)


def test_batches_are_filled_up_with_zeros_and_tiles_with_their_outside():
    image = draw((5, 3, 5)) + 10
    places = tiles(image.shape, (4, 4), 0.0)
    batches = list(tile_batches(image, places, (4, 4), 4))
    assert [len(chosen) for chosen, _ in batches] == [4, 4, 2]
    assert [tile for chosen, _ in batches for tile in chosen] == places
    assert all(batch.shape == (4, 4, 4, 1) for _, batch in batches)
    assert not batches[-1][1][2:].any()
    tile = read_tile(image, places[1], (4, 4), 7.0)
    np.testing.assert_array_equal(tile[:, :3], image[1:5, :, 0])
    np.testing.assert_array_equal(tile[:, 3], 7)


@pytest.mark.parametrize(("plane", "normal"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
def test_another_plane_is_the_turned_volume(plane, normal):
    image = draw((5, 9, 7))
    found = predict(TILES, image, plane=plane)
    turned = predict(TILES, np.moveaxis(image, normal, 2))
    np.testing.assert_array_equal(found, np.moveaxis(turned, 2, normal))
    assert (np.abs(found - predict(TILES, image)).max() > 0.1) == (plane != "axial")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_features_of_a_layer_are_those_of_the_network(trained, batch_size):
    model, params = trained
    image = draw((8, 8, 3))
    found = predict(model, image, params=params, layer="decoder_0", batch_size=batch_size)
    for z in range(3):
        _, features = forward(model, params, image[None, ..., z, None])
        np.testing.assert_allclose(
            found[:, :, z], np.asarray(features["decoder_0"])[0], rtol=1e-4, atol=1e-5
        )
    assert found.shape[-1] == model.widths[0]
