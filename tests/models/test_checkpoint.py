"""Parameters on disk: the same bits back, or one error that says what is wrong."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxfer.errors import UserError
from jaxfer.models.checkpoint import load_params, save_params
from jaxfer.models.unet import UNet
from jaxfer.train.loop import initial_params

MODEL, PATCH = UNet(num_classes=2, widths=(2, 3)), (8, 8)


@pytest.fixture(scope="module")
def params():
    """Of the network's shapes, with every kind of finite float32 in them."""
    rng = np.random.default_rng(0)
    kinds = np.array([0.0, -0.0, 1e-45, 3.4e38, -1e-38], np.float32)

    def odd(leaf):
        values = rng.standard_normal(leaf.shape).astype(np.float32)
        return np.where(rng.random(leaf.shape) < 0.3, rng.choice(kinds, leaf.shape), values)

    return jax.tree.map(odd, jax.eval_shape(partial(initial_params, MODEL, PATCH, 0)))


@pytest.fixture
def folder(tmp_path, params) -> Path:
    save_params(tmp_path / "checkpoint", params)
    return tmp_path / "checkpoint"


def bits(params):
    return jax.tree.map(lambda leaf: np.asarray(leaf).view(np.uint32).tolist(), params)


def test_round_trip_keeps_every_bit(folder, params):
    assert bits(load_params(folder, MODEL, PATCH)) == bits(params)
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_saving_again_replaces(folder, params):
    other = jax.tree.map(lambda leaf: leaf + 1, params)
    save_params(folder, other)
    assert bits(load_params(folder, MODEL, PATCH)) == bits(other)


def test_an_interrupted_save_leaves_the_former_parameters(folder, params, monkeypatch):
    def interrupted(self, path, *args, **kwargs):
        path.mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ocp.StandardCheckpointer, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_params(folder, jax.tree.map(np.zeros_like, params))
    assert bits(load_params(folder, MODEL, PATCH)) == bits(params)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.*\n.*no checkpoint lies here"):
        load_params(tmp_path / "nowhere", MODEL, PATCH)


@pytest.mark.parametrize("how", ["emptied", "cut in half", "one bit flipped", "gone"])
def test_a_damaged_file_is_one_error_and_nothing_else(folder, capfd, how):
    file = max(folder.rglob("*"), key=lambda f: f.stat().st_size if f.is_file() else 0)
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 1])
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(
            {
                "emptied": b"",
                "cut in half": content[:middle],
                "one bit flipped": content[:middle] + flipped + content[middle + 1 :],
            }[how]
        )
    with pytest.raises(UserError, match="not those that were written") as caught:
        load_params(folder, MODEL, PATCH)
    assert "widths (2, 3) and 2 classes" in caught.value.allowed
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (UNet(num_classes=3, widths=(2, 3)), r"head/bias \(2,\), not \(3,\)"),
        (UNet(num_classes=2, widths=(2, 4)), r"encoder_1/Conv_0/kernel .* not \(3, 3, 2, 4\)"),
        (UNet(num_classes=2, widths=(2, 3, 4)), "decoder_1/Conv_0/kernel absent, .* in all"),
        (UNet(num_classes=2, widths=(2,)), "not absent"),
    ],
    ids=["classes", "widths", "deeper", "shallower"],
)
def test_another_network_is_one_error_that_names_the_leaves(folder, capfd, model, told):
    with pytest.raises(UserError, match=told):
        load_params(folder, model, PATCH)
    assert capfd.readouterr().err == ""
