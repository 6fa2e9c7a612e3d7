"""Deep supervision: coarser decoder levels have their share of the loss, and of the gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.models.unet import UNet
from jaxfer.tasks import IGNORE
from jaxfer.train.finetune import distance, transfer_params
from jaxfer.train.loop import initial_params
from jaxfer.train.step import Loss, supervised_losses

CLASSES = 3


def made(sides, *, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, (2, *sides)).astype(np.int32)
    label[:, 0] = IGNORE
    return {
        "label": jnp.asarray(label),
        "risk": jnp.asarray(rng.uniform(0.5, 2.0, (2, *sides)).astype(np.float32)),
        "class_weights": jnp.asarray(np.float32([[0.5, 1.0, 2.0]] * 2)),
        "foreground_fraction": jnp.asarray(np.float32([0.3, 0.6])),
    }


def logits_of(sides, *, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((2, *sides, CLASSES)).astype(np.float32)


def mean_ce(logits, label, risk, class_weights):
    """By hand in float64: the mean over the valid cells of an image of weight × −log softmax."""
    found = []
    for own, classes, risks in zip(logits.astype(np.float64), label, risk, strict=True):
        total, cells = 0.0, 0
        for place in np.ndindex(classes.shape):
            if classes[place] == IGNORE:
                continue
            right = own[place][classes[place]] - np.log(np.exp(own[place]).sum())
            total -= risks[place] * class_weights[classes[place]] * right
            cells += 1
        found.append(total / cells)
    return np.array(found)


@pytest.mark.parametrize(
    ("sides", "steps"),
    [((8, 12), [(2, 2), (4, 4)]), ((4, 8, 8), [(1, 2, 2), (2, 4, 4)])],
    ids=["2-D", "3-D, anisotropic"],
)
def test_every_level_counts_half_of_the_one_above(sides, steps):
    batch, loss = made(sides), Loss(dice_weight=0.0)
    outputs = [logits_of(sides, seed=1)]
    expected = [mean_ce(outputs[0], batch["label"], batch["risk"], [0.5, 1.0, 2.0])]
    for number, step in enumerate(steps, start=2):
        cells = (slice(None), *(slice(None, None, s) for s in step))
        label, risk = np.asarray(batch["label"])[cells], np.asarray(batch["risk"])[cells]
        outputs.append(logits_of(label.shape[1:], seed=number))
        expected.append(mean_ce(outputs[-1], label, risk, [0.5, 1.0, 2.0]))
    features = {f"logits_{k}": jnp.asarray(v) for k, v in enumerate(outputs) if k}
    found = supervised_losses(loss, jnp.asarray(outputs[0]), features, batch)
    wanted = (4 * expected[0] + 2 * expected[1] + expected[2]) / 7
    np.testing.assert_allclose(found["cross_entropy"][0], wanted, rtol=2e-5)
    np.testing.assert_array_equal(found["cross_entropy"][1], 1.0)


def test_without_coarser_logits_it_is_the_loss_of_the_output():
    batch, logits = made((8, 8)), jnp.asarray(logits_of((8, 8), seed=1))
    alone = supervised_losses(Loss(), logits, {"decoder_1": logits}, batch)
    again = supervised_losses(Loss(), logits, {"logits_1": logits}, batch)
    for name, (value, used) in alone.items():
        np.testing.assert_allclose(again[name][0], value, rtol=1e-6)
        np.testing.assert_array_equal(used, 1.0)


def test_an_image_without_a_valid_cell_has_no_loss_at_any_level():
    batch = made((8, 8)) | {"label": jnp.full((2, 8, 8), IGNORE)}
    features = {"logits_1": jnp.asarray(logits_of((4, 4), seed=2)) * jnp.nan}
    found = supervised_losses(Loss(), jnp.asarray(logits_of((8, 8), seed=1)), features, batch)
    for value, used in found.values():
        np.testing.assert_array_equal(value, 0.0)
        np.testing.assert_array_equal(used, 0.0)


def test_the_coarser_heads_learn():
    model = UNet(CLASSES, (2, 3, 4), deep_supervision=True)
    params, batch = initial_params(model, (8, 12), 0), made((8, 12))
    image = jnp.asarray(np.random.default_rng(5).standard_normal((2, 8, 12, 1)), jnp.float32)

    def total(params):
        logits, features = model.apply({"params": params}, image)
        parts = supervised_losses(Loss(), logits, features, batch)
        return sum(value.sum() for value, _ in parts.values())

    gradient = jax.grad(total)(params)
    assert float(jnp.abs(gradient["head_1"]["kernel"]).max()) > 1e-4
    assert float(jnp.abs(gradient["head"]["kernel"]).max()) > 1e-4


def test_coarser_heads_come_along_only_with_the_head():
    deep, flat = (UNet(CLASSES, (2, 3, 4), deep_supervision=on) for on in (True, False))
    ours, theirs = initial_params(deep, (8, 8), 0), initial_params(deep, (8, 8), 1)
    heads = ("head/bias", "head/kernel", "head_1/bias", "head_1/kernel")
    assert transfer_params(theirs, ours, keep_head=False).remade == heads
    assert transfer_params(theirs, ours, keep_head=True).remade == ()
    without = initial_params(flat, (8, 8), 1)
    assert transfer_params(without, ours, keep_head=True).remade == heads[2:]
    assert transfer_params(theirs, without, keep_head=True).unused == heads[2:]
    assert distance("head/kernel", 3) == 0
    assert distance("head_1/kernel", 3) == distance("decoder_1/Conv_0/kernel", 3) == 1
