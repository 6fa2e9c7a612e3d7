"""The loop: it learns, it records, it stops when it diverges, and it repeats itself to the bit."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
from functools import partial

import jax
import numpy as np
import pytest

from jaxfer.data.augment import Augmentation
from jaxfer.errors import Interrupted, UserError
from jaxfer.models.unet import UNet
from jaxfer.train import loop
from jaxfer.train.checkpoints import Checkpoints
from jaxfer.train.loop import Fade, Upkeep, Validation, fit, initial_params
from jaxfer.train.predict import forward
from jaxfer.train.schedule import Schedule
from jaxfer.train.step import Loss, pmap_step

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


def batches(image, steps, size=4, spoilt=()):
    """From the steps done to the batches after them; those of the spoilt steps hold NaN."""
    pixels, label = image

    def batch(number):
        bad = np.nan if number + 1 in spoilt else 1.0
        return {
            "image": np.tile(bad * pixels[None, ..., None], (size, 1, 1, 1)).astype(np.float32),
            "label": np.tile(label, (size, 1, 1)),
            "risk": np.ones((size, SIDE, SIDE), np.float32),
            "foreground_fraction": np.full(size, 0.2, np.float32),
            "index": np.arange(number * size, (number + 1) * size, dtype=np.int32),
        }

    return lambda done: (batch(number) for number in range(done, steps))


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
    }
    fields = {f.name for f in dataclasses.fields(Upkeep)}
    upkeep = {"log_every": 25} | {k: v for k, v in changes.items() if k in fields}
    settings |= {k: v for k, v in changes.items() if k not in fields}
    return fit(params, drawn, upkeep=Upkeep(log, **upkeep), **settings)


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


class Watched:
    """A number on a device, that can be had in the loop's one way, which is noted."""

    def __init__(self, value, note):
        self.value, self.note = value, note

    def addressable_data(self, index):
        self.note()
        return self.value.addressable_data(index)


@pytest.mark.parametrize("saved", [False, True])
def test_numbers_are_fetched_for_records_and_checkpoints_alone(
    params, image, tmp_path, monkeypatch, saved
):
    fetched = set()

    def watched_step(**settings):
        step, numbers = pmap_step(**settings), itertools.count(1)

        def watched(state, batch):
            state, metrics = step(state, batch)
            note = partial(fetched.add, next(numbers))
            return state, {name: Watched(value, note) for name, value in metrics.items()}

        return watched

    monkeypatch.setattr(loop, "pmap_step", watched_step)
    schedule = dataclasses.replace(SCHEDULE, steps=8)
    kept = {"checkpoints": Checkpoints(tmp_path / "steps", 2, "a"), "checkpoint_every": 5}
    changes = {"schedule": schedule, "log_every": 3} | (kept if saved else {})
    train(params, batches(image, 8), tmp_path / "log", **changes)
    assert fetched == {3, 6, 8} | ({5} if saved else set())


def test_a_batch_that_does_not_divide_is_shared_by_slabs(params, image, tmp_path):
    short = {"augmentation": None, "log_every": 5}
    found = train(params, batches(image, 5, size=3), tmp_path / "a", slabs=True, **short)
    expected = train(params, batches(image, 5, size=4), tmp_path / "b", **short)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, expected
    )
    with pytest.raises(UserError, match="does not divide over the devices"):
        train(params, batches(image, 5, size=3), tmp_path / "c", **short)


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


def test_stops_where_it_diverges_and_keeps_the_last_good_state(params, image, tmp_path):
    log, kept = tmp_path / "metrics.jsonl", Checkpoints(tmp_path / "steps", keep=2, mark="")
    with pytest.raises(UserError, match="between steps 5 and 6") as caught:
        train(
            params,
            batches(image, 9, spoilt=(5,)),
            log,
            log_every=3,
            checkpoints=kept,
            checkpoint_every=2,
        )
    assert "loss" in caught.value.found
    assert "gradient_norm" in caught.value.found
    assert "learning_rate" in caught.value.mend
    assert [line["step"] for line in records(log)] == [3]
    assert kept.steps() == [2, 4]


def test_skips_single_steps_when_allowed_and_counts_them(params, image, tmp_path):
    log = tmp_path / "metrics.jsonl"
    lenient = dataclasses.replace(SCHEDULE, skip_nonfinite=1)
    found = train(params, batches(image, 9, spoilt=(5, 7)), log, log_every=1, schedule=lenient)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert [line["skipped"] for line in records(log)] == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    assert [line["step"] for line in records(log) if line["loss"] is None] == [5, 7]
    with pytest.raises(UserError, match="between steps 6 and 6"):
        train(params, batches(image, 9, spoilt=(5, 6)), log, log_every=1, schedule=lenient)


def test_a_batch_that_does_not_divide(params, image, tmp_path):
    with pytest.raises(UserError, match="batch of 6, 4 local devices"):
        train(params, batches(image, 2, size=6), tmp_path / "log")


class Killed(BaseException):
    """The end of a process that nothing catches."""


def _kill_at(step):
    def on_step(number, _):
        if number == step:
            raise Killed

    return on_step


def _interrupt_at(step):
    count = itertools.count(1)
    return lambda: "SIGTERM" if next(count) == step else ""


def _assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("moments", [(1,), (4,), (6, 7), (10,), (3, 5, 11)])
def test_killed_and_taken_up_it_gives_the_same_bits(params, image, tmp_path, moments, validated):
    schedule = dataclasses.replace(SCHEDULE, steps=12)
    looks = Validation(5, lambda p: -float(np.square(jax.tree.leaves(p)[0]).sum()))
    common = {"schedule": schedule, "log_every": 2, "validation": looks if validated else None}
    whole = train(params, batches(image, 12), tmp_path / "whole", **common)
    kept = Checkpoints(tmp_path / "steps", keep=2, mark="a")
    common |= {"checkpoints": kept, "checkpoint_every": 3}
    for moment in moments:
        with pytest.raises(Killed):
            train(params, batches(image, 12), tmp_path / "cut", on_step=_kill_at(moment), **common)
    trained = []
    again = train(
        params,
        batches(image, 12),
        tmp_path / "cut",
        on_step=lambda number, _: trained.append(number),
        **common,
    )
    _assert_same(again, whole)
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()
    assert trained == list(range(max(moments) // 3 * 3 + 1, 13))
    assert len(kept.steps()) <= 2


def test_told_to_stop_it_saves_the_step_and_goes_on_after_it(params, image, tmp_path):
    schedule = dataclasses.replace(SCHEDULE, steps=12)
    whole = train(params, batches(image, 12), tmp_path / "whole", schedule=schedule)
    common = {"schedule": schedule, "checkpoints": Checkpoints(tmp_path / "steps", 2, "a")}
    with pytest.raises(Interrupted, match="SIGTERM; training is saved after step 7"):
        train(params, batches(image, 12), tmp_path / "cut", stop=_interrupt_at(7), **common)
    trained = []
    again = train(
        params,
        batches(image, 12),
        tmp_path / "cut",
        on_step=lambda number, _: trained.append(number),
        **common,
    )
    _assert_same(again, whole)
    assert trained == [8, 9, 10, 11, 12]


def test_returns_the_parameters_that_validate_best(params, image, tmp_path):
    seen = []

    def score(found):
        seen.append(jax.tree.map(np.array, found))
        return [0.1, 0.7, math.nan, 0.6][len(seen) - 1]

    log = tmp_path / "log"
    schedule = dataclasses.replace(SCHEDULE, steps=10)
    found = train(
        params, batches(image, 10), log, schedule=schedule, validation=Validation(3, score)
    )
    assert len(seen) == 4
    _assert_same(found, seen[1])
    assert [r["best_validation"] for r in records(log)] == [0.1, 0.7, 0.7, 0.7]


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


def test_a_folder_that_vanishes_ends_the_training(params, image, tmp_path):
    log = tmp_path / "run" / "metrics.jsonl"

    def vanish(number, _):
        if number == 3:
            shutil.rmtree(log.parent)

    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        train(params, batches(image, 9), log, log_every=2, on_step=vanish)
    assert not log.parent.exists()


def test_the_average_of_the_parameters_has_no_bias(params, image, tmp_path):
    schedule = dataclasses.replace(SCHEDULE, steps=4, ema=0.6)
    trail = []
    looks = Validation(1, lambda p: trail.append(jax.tree.map(np.array, p)) or 0.0)
    without = dataclasses.replace(schedule, ema=0.0)
    train(params, batches(image, 4), tmp_path / "a", schedule=without, validation=looks)
    found = train(params, batches(image, 4), tmp_path / "b", schedule=schedule)
    weights = 0.4 * 0.6 ** np.arange(3, -1, -1)
    weights /= weights.sum()
    expected = jax.tree.map(
        lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)), *trail
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected
    )
    # What is validated is what is served.
    averages = []
    looks = Validation(4, lambda p: averages.append(jax.tree.map(np.array, p)) or 0.0)
    chosen = train(params, batches(image, 4), tmp_path / "c", schedule=schedule, validation=looks)
    _assert_same(averages[0], found)
    _assert_same(chosen, found)


def test_killed_and_taken_up_the_average_the_pull_and_the_fade_go_on(params, image, tmp_path):
    paths = ("encoder_0/Conv_0/kernel",)
    schedule = dataclasses.replace(
        SCHEDULE, steps=12, ema=0.9, decay="poly", pull=0.5, pulled=paths, rates=((paths[0], 0.5),)
    )
    common = {"schedule": schedule, "log_every": 2, "fade": Fade((1.0, 3.0), 10)}
    whole = train(params, batches(image, 12), tmp_path / "whole", **common)
    common |= {"checkpoints": Checkpoints(tmp_path / "steps", 2, "a"), "checkpoint_every": 3}
    with pytest.raises(Killed):
        train(params, batches(image, 12), tmp_path / "cut", on_step=_kill_at(7), **common)
    again = train(params, batches(image, 12), tmp_path / "cut", **common)
    _assert_same(again, whole)
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_fading_map_ends_as_the_weights_that_it_fades_to(params, image, tmp_path):
    def mapped(steps, risk):
        def drawn(done):
            for batch in batches(image, steps)(done):
                yield batch | {"risk": np.full_like(batch["risk"], risk)}

        return drawn

    one = dataclasses.replace(SCHEDULE, steps=1)
    for denominator in ("pixels", "foreground"):
        loss = Loss(denominator=denominator)

        def first(log, risk, weights, own=loss, **changes):
            train(
                params,
                mapped(1, risk),
                tmp_path / log,
                schedule=one,
                loss=own,
                class_weights=weights,
                augmentation=None,
                **changes,
            )
            return records(tmp_path / log)[0]["cross_entropy"]

        plain = first("plain", 1.0, (1.0, 2.0), Loss())
        whole = first("whole", 5.0, (0.3, 0.3))
        assert first("begins", 5.0, (0.3, 0.3), fade=Fade((1.0, 2.0), 8)) == pytest.approx(whole)
        # Fade.left(0) of a fade that is over at once is nothing: the plain weights alone.
        gone = Fade((1.0, 2.0), 1)
        assert gone.left(0) == 1
        assert gone.left(1) == gone.left(5) == 0
        ended = first("ended", 5.0, (0.0, 0.0), fade=_Half((1.0, 2.0), 1))
        assert ended == pytest.approx(0.5 * plain, rel=1e-5)


class _Half(Fade):
    """Half of the map is left at every step."""

    def left(self, _done):
        return 0.5
