"""Every voxel in one tile, and every cell for one voxel: against a walk over the voxels."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.metrics import h_score, logme
from jaxfer.models.layers import layers_of
from jaxfer.models.unet import UNet
from jaxfer.models.zoo import Source
from jaxfer.selection.cells import centres, owned_labels, owners
from jaxfer.selection.draw import Sampling
from jaxfer.selection.score import score_source
from jaxfer.tasks import IGNORE
from jaxfer.train.predict import forward, read_tile, starts, tiles

CLASSES, WIDTHS = 3, (3, 4, 5)


class Kind(NamedTuple):
    """A network, the tiles it sees, and how coarse its levels are, by hand."""

    patch: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    scales: tuple[tuple[int, ...], ...]
    shapes: tuple[tuple[int, int, int], ...]

    def scale(self, layer):
        return self.scales[int(layer[-1])]

    def place(self, tile, inside):
        """The voxel of the volume at a pixel of a tile."""
        return (*(s + i for s, i in zip(tile.start, inside, strict=True)), tile.z)[:3]


SLICES = Kind((8, 8), (), ((1, 1), (2, 2), (4, 4)), ((13, 9, 2), (8, 17, 3)))
UNEVEN = Kind((8, 6), ((2, 1), (2, 3)), ((1, 1), (2, 1), (4, 3)), ((13, 9, 2), (8, 17, 3)))
VOLUMES = Kind((8, 8, 4), (), ((1, 1, 1), (2, 2, 2), (4, 4, 4)), ((13, 9, 5), (8, 7, 6)))
THICK = Kind(
    (8, 6, 4), ((2, 2, 1), (2, 3, 2)), ((1, 1, 1), (2, 2, 1), (4, 6, 2)), ((13, 9, 5), (8, 7, 3))
)
KINDS = pytest.mark.parametrize(
    "kind", [SLICES, UNEVEN, VOLUMES, THICK], ids=["slices", "uneven", "volumes", "thick"]
)


@pytest.mark.parametrize(("size", "patch"), [(5, 8), (8, 8), (9, 8), (21, 8), (24, 8), (40, 12)])
def test_a_pixel_belongs_to_the_first_tile_that_covers_it(size, patch):
    first = starts(size, patch, 0.0)
    expected = [min(s for s in first if s <= i < s + patch) for i in range(size)]
    np.testing.assert_array_equal(owners(size, patch), expected)


@pytest.mark.parametrize("shape", [(5, 8, 2), (9, 21, 3), (16, 8, 1), (9, 5, 13)])
@pytest.mark.parametrize("patch", [(8, 8), (8, 4, 6)])
def test_a_volume_is_put_together_again_from_its_tiles(shape, patch):
    classes = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    seen = np.zeros(shape, int)
    for tile in tiles(shape, patch, 0.0):
        labels = owned_labels(classes, tile, patch)
        assert labels.shape == patch
        for inside in np.argwhere(labels != IGNORE):
            place = SLICES.place(tile, inside)
            assert classes[place] == labels[tuple(inside)]
            seen[place] += 1
    np.testing.assert_array_equal(seen, 1)


def unet(kind):
    return UNet(num_classes=2, widths=WIDTHS, strides=kind.strides)


@KINDS
def test_the_layers_of_a_network_are_those_it_returns(kind):
    model = unet(kind)
    image = jax.ShapeDtypeStruct((1, *kind.patch, 1), jnp.float32)
    _, features = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image)
    known = layers_of(WIDTHS, len(kind.patch), kind.strides)
    assert known.keys() == features.keys()
    for name, (scale, channels) in known.items():
        assert scale == kind.scale(name)
        cells = (p // s for p, s in zip(kind.patch, scale, strict=True))
        assert features[name].shape == (1, *cells, channels)


def network(kind):
    model = unet(kind)
    image, rng = jax.ShapeDtypeStruct((1, *kind.patch, 1), jnp.float32), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(1), image)["params"]
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.4, s.shape), s.dtype), shapes)
    return Source({"patch": kind.patch}, model, params, np.zeros((1, 8), np.uint8))


def walk(kind, source, case, layer):
    """Features, labels and places of all cells of a layer, voxel by voxel."""
    image, classes = np.asarray(case.image(), np.float32), case.classes()
    every, scale = tiles(image.shape, kind.patch, 0.0), kind.scale(layer)
    features, labels, voxels = [], [], []
    for number, tile in enumerate(every):
        pixels = read_tile(image, tile, kind.patch, 0.0)[None, ..., None]
        found = np.asarray(forward(source.model, source.params, jnp.asarray(pixels))[1][layer])[0]
        for cell in np.ndindex(found.shape[:-1]):
            inside = [c * s + s // 2 for c, s in zip(cell, scale, strict=True)]
            voxel = kind.place(tile, inside)
            earlier = [
                t
                for t in every[:number]
                if t.z == tile.z
                and all(0 <= v - s < p for v, s, p in zip(voxel, t.start, kind.patch, strict=False))
            ]
            if any(v >= n for v, n in zip(voxel, image.shape, strict=True)) or earlier:
                continue
            if classes[voxel] != IGNORE:
                features.append(found[cell])
                labels.append(int(classes[voxel]))
                voxels.append(voxel)
    return np.array(features), np.array(labels), voxels


def cases_of(kind, make_case):
    made = []
    for seed, shape in enumerate(kind.shapes):
        rng = np.random.default_rng(seed)
        classes = rng.integers(0, CLASSES, shape)
        image = rng.standard_normal(shape) + classes
        classes[rng.random(shape) < 0.1] = IGNORE
        made.append(make_case(classes, CLASSES, image))
    return made


@KINDS
def test_layers_of_any_resolution_are_scored_in_one_pass(kind, make_case):
    source, cases = network(kind), cases_of(kind, make_case)
    layers = ("decoder_0", "encoder_1", "encoder_2")
    told: list[int] = []
    found = score_source(
        source,
        cases,
        metrics=("h_score", "logme", "sfda"),
        layers=layers,
        patch=kind.patch,
        batch_size=5,
        sampling=Sampling(samples=10**6, repetitions=1, noise=0.1),
        key=jax.random.key(0),
        on_tiles=told.append,
    )
    assert sum(told) == sum(len(tiles(case.image().shape, kind.patch, 0.0)) for case in cases)
    assert list(found.scores) == [f"{m}@{x}" for m in ("h_score", "logme", "sfda") for x in layers]
    for layer in layers:
        parts = [walk(kind, source, case, layer) for case in cases]
        features = np.concatenate([p[0] for p in parts])
        labels = np.concatenate([p[1] for p in parts])
        for name, metric in (("h_score", h_score), ("logme", logme)):
            own, expected = found.scores[f"{name}@{layer}"], metric(features, labels, num_classes=3)
            assert float(own) == pytest.approx(float(expected), rel=2e-4), (name, layer)
            assert own.n_used == len(labels)
        # Asked for more voxels than there are, the sample is the same cells, each of them once.
        sampled = found.samples[layer]
        places = [
            (int(case), *map(int, voxel))
            for case, voxel in zip(sampled.draw.cases[0], sampled.draw.voxels[0], strict=True)
        ]
        walked = [(n, *voxel) for n, part in enumerate(parts) for voxel in part[2]]
        assert sorted(places) == sorted(walked)
        of_place = dict(zip(walked, features, strict=True))
        expected = np.stack([of_place[place] for place in places])
        np.testing.assert_allclose(sampled.values[0], expected, rtol=1e-4, atol=1e-5)
        of_label = dict(zip(walked, labels, strict=True))
        assert [of_label[place] for place in places] == list(sampled.draw.labels[0])


def test_a_cell_stands_for_the_voxel_at_its_centre():
    np.testing.assert_array_equal(np.flatnonzero(centres(16, 8, 4)), [2, 6, 10, 14])
    # The second tile of 13 pixels starts at 5: its cells are 5-8 and 9-12, of which 5-7 are owned.
    np.testing.assert_array_equal(np.flatnonzero(centres(13, 8, 4)), [2, 6, 11])
    np.testing.assert_array_equal(centres(13, 8, 1), np.ones(13, bool))
