"""The worker that runs this project; see ``worker.py``."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from worker import CLASSES, asked, serve

SETTINGS = asked()
if SETTINGS["threads"] == 1:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import jaxlib  # noqa: E402
import numpy as np  # noqa: E402

from jaxfer.models.unet import UNet  # noqa: E402
from jaxfer.train.predict import predict_volume  # noqa: E402
from jaxfer.train.schedule import Schedule  # noqa: E402
from jaxfer.train.step import Loss, TrainState, train_step  # noqa: E402


def training(widths: list[int], shape: list[int]) -> Callable[[], None]:
    """One training step."""
    model, rng = UNet(CLASSES, tuple(widths)), np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(*shape, 1)).astype(np.float32),
        "label": rng.integers(0, CLASSES, shape).astype(np.int32),
        "risk": np.ones(shape, np.float32),
        "foreground_fraction": np.full(shape[0], 0.1, np.float32),
        "index": np.arange(shape[0], dtype=np.int32),
        "weight": np.ones(shape[0], np.float32),
        "class_weights": np.ones((shape[0], CLASSES), np.float32),
    }
    on_device = jax.device_put(batch)
    optimizer = Schedule(1000, 1e-3, 0.05, 1e-4, 1.0).optimizer()
    params = jax.jit(model.init)(jax.random.key(0), on_device["image"][:1])["params"]
    start = jnp.zeros((), jnp.int32)
    state = TrainState(start, params, optimizer.init(params), jax.random.key(0))
    step = partial(train_step, model=model, optimizer=optimizer, loss=Loss(), augmentation=None)
    compiled = jax.jit(step, donate_argnums=0)

    def job() -> None:
        nonlocal state
        state, metrics = compiled(state, on_device)
        jax.block_until_ready(metrics)

    return job


def inference(widths: list[int], volume: list[int], patch: list[int], batch: int):
    """A whole volume by overlapping tiles."""
    model = UNet(CLASSES, tuple(widths))
    image = np.random.default_rng(0).normal(size=volume).astype(np.float32)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *patch, 1)))["params"]
    how = {"patch": tuple(patch), "overlap": 0.5, "batch_size": batch}
    return lambda: predict_volume(model, params, image, **how)


MAKE = {"train": training, "infer": inference}

serve(
    {name: MAKE[kind](*arguments) for name, (kind, *arguments) in SETTINGS["jobs"].items()},
    {"jax": jax.__version__, "jaxlib": jaxlib.__version__},
)
