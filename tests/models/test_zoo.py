"""The shelf: a source model comes back whole from its folder alone, or not at all."""

from __future__ import annotations

import json
import shutil
from functools import partial

import jax
import numpy as np
import pytest

from jaxfer.errors import UserError
from jaxfer.models.unet import UNet
from jaxfer.models.zoo import load_source, read_card, save_source
from jaxfer.train.loop import initial_params

CARD = {
    "task": {"dataset": "d", "site": "s", "modality": "t2", "roi": "r", "name": "d/s/t2/r"},
    "class_names": ["core", "edema"],
    "modality": "t2",
    "spacing": [1.0, 1.0, 2.5],
    "patch": [8, 12],
    "widths": [2, 3],
    "validation_dice": 0.75,
    "synthetic": False,
    "fingerprint": "abc",
    "seed": 7,
}
MASKS = np.random.default_rng(0).integers(256, size=(3, 27), dtype=np.uint8)


@pytest.fixture(scope="module")
def params():
    model = UNet(num_classes=3, widths=(2, 3))
    shapes = jax.eval_shape(partial(initial_params, model, (8, 12), 0))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, params):
    folder = tmp_path_factory.mktemp("shelf") / "d-s-t2-r"
    save_source(folder, params, CARD, MASKS)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of its own, elsewhere."""
    return shutil.copytree(saved, tmp_path / "moved")


def rewrite(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))


def test_a_copied_folder_is_all_that_is_needed(folder, params):
    source = load_source(folder)
    assert source.card == CARD | {"masks_size": 27, "masks_kind": "fractions"}
    assert source.model == UNet(3, (2, 3), strides=((2, 2),), kernels=((3, 3), (3, 3)))
    np.testing.assert_array_equal(source.masks, MASKS)
    assert jax.tree.structure(source.params) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, source.params, params)
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.json",
        "checkpoint",
        "masks.npy",
    ]


def test_how_a_network_is_computed_is_for_the_caller_to_say(folder):
    how = {"conv_impl": "native", "precision": "bfloat16"}
    assert load_source(folder, **how).model == load_source(folder).model.clone(**how)


def test_a_network_in_3_d_comes_back_with_its_strides(tmp_path):
    model = UNet(3, (2, 3), strides=((2, 2, 1),), kernels=((3, 3, 1), (3, 3, 3)))
    shapes = jax.eval_shape(partial(initial_params, model, (8, 12, 3), 0))
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    levels = {"strides": [[2, 2, 1]], "kernels": [[3, 3, 1], [3, 3, 3]]}
    save_source(tmp_path / "3d", params, CARD | {"patch": [8, 12, 3]} | levels, MASKS)
    source = load_source(tmp_path / "3d")
    assert source.model == model
    jax.tree.map(np.testing.assert_array_equal, source.params, params)
    rewrite(tmp_path / "3d", patch=[8, 11, 3])
    with pytest.raises(UserError, match="patch: "):
        load_source(tmp_path / "3d")
    rewrite(tmp_path / "3d", patch=[8, 12])
    with pytest.raises(UserError, match="strides: "):
        load_source(tmp_path / "3d")


def test_saving_again_replaces_all(folder, params):
    other = jax.tree.map(lambda leaf: leaf + 1, params)
    save_source(folder, other, CARD | {"validation_dice": None}, ~MASKS[:2])
    source = load_source(folder)
    jax.tree.map(np.testing.assert_array_equal, source.params, other)
    np.testing.assert_array_equal(source.masks, ~MASKS[:2])
    assert source.card["validation_dice"] is None


def test_an_interrupted_save_is_no_source(folder, monkeypatch, params):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_source(folder, params, CARD, MASKS)
    assert read_card(folder) is None


def test_nothing_on_the_shelf(folder):
    shutil.rmtree(folder)
    assert read_card(folder) is None
    with pytest.raises(UserError, match="no source model lies here"):
        load_source(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe{}", b"[]", b"3", b"null", b'"task"', b"{}", b'{"task": {}}'],
)
def test_a_card_that_is_none(folder, content):
    (folder / "card.json").write_bytes(content)
    with pytest.raises(UserError, match=r"card\.json"):
        read_card(folder)


@pytest.mark.parametrize("key", sorted({*CARD, "masks_size"} - {"seed"}))
def test_a_missing_key_is_named(folder, key):
    card = json.loads((folder / "card.json").read_text())
    del card[key]
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=f"no {key}"):
        load_source(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task", "d/s/t2/r"),
        ("class_names", []),
        ("class_names", "core"),
        ("class_names", [1, 2]),
        ("modality", None),
        ("spacing", [1.0, 1.0]),
        ("spacing", 1.0),
        ("patch", [8, 13]),
        ("patch", [8]),
        ("patch", [0, 8]),
        ("patch", "8x12"),
        ("patch", [8, 8, 9]),
        ("strides", [[2, 2], [2, 2]]),
        ("strides", [[2, 2, 2]]),
        ("kernels", [[3, 3]]),
        ("kernels", "3x3"),
        ("widths", []),
        ("widths", [2, 0]),
        ("widths", [2.0, 3.0]),
        ("widths", [True, True]),
        ("widths", 2),
        ("validation_dice", "good"),
        ("validation_dice", 75),
        ("synthetic", "no"),
        ("masks_size", None),
        ("masks_size", -27),
        ("fingerprint", 3),
        ("path", "d/s/t2/r"),
        ("strides", [[2, 2, 1]]),
        ("kernels", [[3, 3], [3, 2]]),
    ],
)
def test_a_wrong_value_is_named(folder, key, value):
    rewrite(folder, **{key: value})
    with pytest.raises(UserError, match=f"{key}: "):
        load_source(folder)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("widths", [2, 4], "encoder_1/Conv_0/kernel"),
        ("widths", [2, 3, 4], "decoder_1/Conv_0/kernel absent"),
        ("class_names", ["core"], "head/bias"),
    ],
)
def test_a_card_of_another_network(folder, key, value, told):
    rewrite(folder, **{key: value})
    with pytest.raises(UserError, match=told):
        load_source(folder)


@pytest.mark.parametrize("size", [24, 33, 10_000])
def test_masks_of_another_size(folder, size):
    rewrite(folder, masks_size=size)
    with pytest.raises(UserError, match=r"masks\.npy"):
        load_source(folder)


@pytest.mark.parametrize("left", [0, 3, 64, 130])
def test_masks_cut_short(folder, left):
    file = folder / "masks.npy"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(UserError, match=r"masks\.npy"):
        load_source(folder)


def test_masks_in_bits_of_older_shelves(folder):
    bits = np.random.default_rng(2).random((3, 27)) < 0.3  # not whole bytes
    np.save(folder / "masks.npy", np.packbits(bits, axis=1))
    with pytest.raises(UserError, match=r"masks\.npy"):
        load_source(folder)
    card = json.loads((folder / "card.json").read_text())
    del card["masks_kind"]
    (folder / "card.json").write_text(json.dumps(card))
    masks = load_source(folder).masks
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, np.where(bits, 255, 0))
    rewrite(folder, masks_size=33)
    with pytest.raises(UserError, match=r"masks\.npy"):
        load_source(folder)


def test_masks_that_are_no_memberships(folder):
    np.save(folder / "masks.npy", np.zeros((3, 4), np.float32))
    with pytest.raises(UserError, match=r"masks\.npy"):
        load_source(folder)
    (folder / "masks.npy").unlink()
    with pytest.raises(UserError, match=r"masks\.npy"):
        load_source(folder)


def test_a_checkpoint_that_is_gone(folder):
    shutil.rmtree(folder / "checkpoint")
    with pytest.raises(UserError, match="checkpoint"):
        load_source(folder)


def test_intensities_come_back_and_old_cards_have_none(tmp_path, params):
    kept = np.linspace(-2, 3, 12, dtype=np.float32).reshape(2, 6)
    save_source(tmp_path / "new", params, CARD, MASKS, kept)
    np.testing.assert_array_equal(load_source(tmp_path / "new").intensities, kept)
    save_source(tmp_path / "new", params, CARD, MASKS)
    assert load_source(tmp_path / "new").intensities is None
    save_source(tmp_path / "new", params, CARD, MASKS, kept)
    for wrong in (kept[:, :3], kept.astype(np.float64), kept * np.inf, kept[0]):
        np.save(tmp_path / "new" / "intensities.npy", wrong)
        with pytest.raises(UserError, match=r"intensities\.npy"):
            load_source(tmp_path / "new")
    (tmp_path / "new" / "intensities.npy").unlink()
    with pytest.raises(UserError, match=r"intensities\.npy"):
        load_source(tmp_path / "new")
