"""Voxels per second of the training step and of selection, on this machine.

    python benchmarks/throughput.py [--rounds=7]

The step: forward, backward and update on random patches, over all local devices. Selection: the
forward pass alone, and with the statistics of every metric on top, in turn, so that their ratio
holds when the machine's speed drifts. Medians and ranges over the rounds; not a test.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from rich.console import Console
from rich.table import Table

from jaxfer.data.augment import Augmentation
from jaxfer.metrics import FeatureStatistics, LabelStatistics
from jaxfer.models.unet import UNet
from jaxfer.selection.score import accumulate
from jaxfer.train.loop import initial_params
from jaxfer.train.predict import forward
from jaxfer.train.schedule import Schedule
from jaxfer.train.step import Loss, TrainState, pmap_step, shard

_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed rounds of each row.", lower_bound=1)

CLASSES = 4
NETWORKS = (((8, 16, 32), (80, 96)), ((16, 32, 64), (128, 128)))
BATCH = 8


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of a call, its results on the device awaited."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def batch(patch: tuple[int, int]) -> dict[str, np.ndarray]:
    """A random batch as the sampler makes them."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(BATCH, *patch, 1)).astype(np.float32),
        "label": rng.integers(0, CLASSES, (BATCH, *patch)).astype(np.int32),
        "risk": np.ones((BATCH, *patch), np.float32),
        "foreground_fraction": np.full(BATCH, 0.1, np.float32),
        "index": np.arange(BATCH, dtype=np.int32),
        "weight": np.ones(BATCH, np.float32),
        "class_weights": np.ones((BATCH, CLASSES), np.float32),
    }


def training(model: UNet, patch: tuple[int, int], augmented: bool) -> Callable[[], Any]:
    """A call that makes one training step."""
    schedule = Schedule(1000, 1e-3, 0.05, 1e-4, 1.0)
    params = initial_params(model, patch, 0)
    devices = jax.local_device_count()
    step = pmap_step(
        model=model,
        schedule=schedule,
        loss=Loss(),
        augmentation=Augmentation((0,), 10.0, 0.1, intensity=0.2, noise=0.1) if augmented else None,
        devices=devices,
    )
    opt_state = schedule.optimizer().init(params)
    state = TrainState(jnp.zeros((), jnp.int32), params, opt_state, jax.random.key(0))
    data = shard(batch(patch), devices)

    def call() -> Any:
        nonlocal state
        state, metrics = step(state, data)
        return metrics

    return call


def selection(model: UNet, patch: tuple[int, int], scored: bool) -> Callable[[], Any]:
    """A call that runs a source over one batch of tiles, with or without the statistics."""
    params = initial_params(model, patch, 0)
    data = batch(patch)
    image, labels = jnp.asarray(data["image"]), jnp.asarray(data["label"])
    if not scored:
        return partial(forward, model, params, image)
    stats = (
        LabelStatistics.zeros(CLASSES, CLASSES),
        FeatureStatistics.zeros(CLASSES, model.widths[0]),
    )
    return partial(accumulate, model, "decoder_0", params, stats, image, labels)


def main(_: list[str]) -> None:
    table = Table(title=f"{jax.default_backend()}, {jax.local_device_count()} device(s)")
    for name in ("widths", "tile", "what", "ms (median)", "range", "voxels/s", "of bare forward"):
        table.add_column(name, justify="right", no_wrap=True)
    for widths, patch in NETWORKS:
        model = UNet(CLASSES, widths)
        calls = {
            "train step": training(model, patch, augmented=False),
            "train step, augmented": training(model, patch, augmented=True),
            "forward": selection(model, patch, scored=False),
            "forward + statistics": selection(model, patch, scored=True),
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            seconds(call)
        for _round in range(_ROUNDS.value):
            for name, call in calls.items():
                times[name].append(seconds(call))
        for name, taken in times.items():
            median = float(np.median(taken))
            ratios = np.array(taken) / np.array(times["forward"])
            table.add_row(
                "/".join(map(str, widths)),
                " × ".join(map(str, (BATCH, *patch))),
                name,
                f"{1e3 * median:.1f}",
                f"{1e3 * min(taken):.1f} to {1e3 * max(taken):.1f}",
                f"{BATCH * np.prod(patch) / median:,.0f}",
                f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})",
            )
    Console().print(table)


if __name__ == "__main__":
    app.run(main)
