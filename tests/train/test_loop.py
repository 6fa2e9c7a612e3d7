"""The loop: it learns, it records, it stops when it diverges, and it repeats itself to the bit."""

from __future__ import annotations

import json
import math

import jax
import numpy as np
import pytest

from jaxfer.data.augment import Augmentation
from jaxfer.errors import UserError
from jaxfer.models.unet import UNet
from jaxfer.train.loop import fit, initial_params
from jaxfer.train.predict import forward
from jaxfer.train.schedule import Schedule
from jaxfer.train.step import Loss

SIDE = 8
MODEL = UNet(num_classes=2, widths=(3,))
SCHEDULE = Schedule(steps=60, learning_rate=0.03, warmup=0.1, weight_decay=1e-4, clip_gradient=1.0)
AUGMENTATION = Augmentation(flip=(0,), rotation=5.0, scale=0.05, intensity=0.1, noise=0.05)


@pytest.fixture(scope="module")
def image():
    """A noisy square, and where it is."""
    rng = np.random.default_rng(0)
    label = np.zeros((SIDE, SIDE), np.int32)
    label[2:5, 3:7] = 1
    return label + 0.3 * rng.standard_normal((SIDE, SIDE)), label


def batches(image, steps, size=4):
    pixels, label = image
    for number in range(steps):
        yield {
            "image": np.tile(pixels[None, ..., None], (size, 1, 1, 1)).astype(np.float32),
            "label": np.tile(label, (size, 1, 1)),
            "risk": np.ones((size, SIDE, SIDE), np.float32),
            "foreground_fraction": np.full(size, 0.2, np.float32),
            "index": np.arange(number * size, (number + 1) * size, dtype=np.int32),
        }


@pytest.fixture(scope="module")
def params():
    return initial_params(MODEL, (SIDE, SIDE), 1)


def train(params, drawn, log, **changes):
    settings = {
        "model": MODEL,
        "schedule": SCHEDULE,
        "loss": Loss(),
        "class_weights": (1.0, 2.0),
        "augmentation": AUGMENTATION,
        "seed": 0,
        "log": log,
        "log_every": 25,
        "on_step": lambda _, __: None,
    }
    return fit(params, drawn, **(settings | changes))


def records(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_learns_one_image_by_heart_and_records_the_way(params, image, tmp_path):
    log, told = tmp_path / "new" / "metrics.jsonl", []
    kept = jax.tree.map(np.array, params)
    found = train(params, batches(image, 60), log, on_step=lambda *told_: told.append(told_))
    log_probs, _ = forward(MODEL, found, image[0][None, ..., None].astype(np.float32))
    np.testing.assert_array_equal(np.asarray(log_probs).argmax(-1)[0], image[1])
    lines = records(log)
    assert [line["step"] for line in lines] == [25, 50, 60]
    assert lines[-1]["loss"] < 0.3 * lines[0]["loss"]
    for line in lines:
        assert line["loss"] == pytest.approx(line["cross_entropy"] + line["dice_loss"], rel=1e-5)
        assert line["gradient_norm"] > 0
        assert line["learning_rate"] == pytest.approx(float(SCHEDULE.rate()(line["step"] - 1)))
    assert [number for number, _ in told] == list(range(1, 61))
    assert all(math.isnan(loss) for _, loss in told[:24])
    assert [loss for _, loss in told[24:]] == (
        [lines[0]["loss"]] * 25 + [lines[1]["loss"]] * 10 + [lines[2]["loss"]]
    )
    jax.tree.map(np.testing.assert_array_equal, params, kept)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))


def test_the_same_seed_gives_the_same_bits(params, image, tmp_path):
    def short(start, log, **changes):
        return train(start, batches(image, 6), tmp_path / log, log_every=2, **changes)

    first = short(params, "a")
    again = short(jax.tree.map(np.asarray, params), "b")  # as an earlier fit returns them
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    for change in ({"seed": 1}, {"class_weights": (1.0, 1.0)}):
        other = short(params, "c", **change)
        differences = jax.tree.map(lambda x, y: np.abs(x - y).max(), first, other)
        assert max(jax.tree.leaves(differences)) > 1e-5, change


@pytest.mark.parametrize("spoilt", ["image", "risk"])
def test_stops_where_it_diverges(params, image, tmp_path, spoilt):
    def drawn():
        for number, batch in enumerate(batches(image, 9), start=1):
            if number == 5:
                batch[spoilt] = np.full_like(batch[spoilt], np.nan)
            yield batch

    log = tmp_path / "metrics.jsonl"
    with pytest.raises(UserError, match="between steps 4 and 6") as caught:
        train(params, drawn(), log, log_every=3)
    assert "loss" in caught.value.found
    assert "gradient_norm" in caught.value.found
    assert [line["step"] for line in records(log)] == [3]


def test_a_batch_that_does_not_divide(params, image, tmp_path):
    with pytest.raises(UserError, match="batch of 6, 4 local devices"):
        train(params, batches(image, 2, size=6), tmp_path / "log")


@pytest.mark.parametrize(
    ("steps", "warmup"), [(1, 0.5), (2, 0.0), (10, 0.3), (100, 0.05), (4, 1.0)]
)
def test_the_learning_rate_rises_then_falls_to_zero(steps, warmup):
    rate = Schedule(steps, 0.5, float(warmup), 0.0, 1.0).rate()
    if steps == 1:
        assert float(rate(0)) == 0.5
        return
    warm = min(max(1, round(warmup * steps)), steps - 1)
    rising = [0.5 * k / warm for k in range(warm)]
    falling = [0.25 * (1 + math.cos(math.pi * k / (steps - warm))) for k in range(steps - warm + 1)]
    found = [float(rate(k)) for k in range(steps + 1)]
    np.testing.assert_allclose(found, rising + falling, atol=1e-7)
