"""The training loop: batches in, parameters and a record of the losses out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxfer.data.augment import Augmentation
from jaxfer.data.sampler import Batch
from jaxfer.errors import UserError
from jaxfer.models.unet import UNet
from jaxfer.train.step import Loss, Params, TrainState, pmap_step, replicate, shard


def initial_params(model: UNet, patch: tuple[int, ...], seed: int) -> Params:
    """Random parameters of a network with one input channel."""
    return model.init(jax.random.key(seed), jnp.zeros((1, *patch, 1)))["params"]


def _check(record: dict[str, int | float], first: int) -> None:
    bad = [name for name, value in record.items() if not math.isfinite(value)]
    if bad:
        raise UserError(
            f"training diverged between steps {first} and {int(record['step'])}",
            found=f"not finite: {', '.join(bad)}",
            mend="a lower learning_rate or clip_gradient; see --config.pretrain or .finetune",
        )


def fit(
    params: Params,
    batches: Iterator[Batch],
    *,
    model: UNet,
    schedule: Schedule,
    loss: Loss,
    class_weights: Sequence[float],
    augmentation: Augmentation | None,
    seed: int,
    log: Path,
    log_every: int,
    on_step: Callable[[int, float], None],
) -> Params:
    """Trains for ``schedule.steps`` steps on all local devices.

    Args:
        params: to start from; not changed.
        batches: as many as there are steps.
        loss, augmentation, schedule: what is minimised, on which images, how.
        class_weights: factor on the cross-entropy of each class, background first.
        seed: of the augmentation.
        log: records of ``step``, losses, gradient norm and learning rate, as JSON lines.
        log_every: steps between records; the last step is always recorded. Only then does the
            host wait for the device.
        on_step: called with the step and the last known loss.

    Raises:
        UserError: the loss or the gradient became non-finite; names the steps between which.
    """
    devices = jax.local_device_count()
    step = pmap_step(
        model=model, schedule=schedule, loss=loss, augmentation=augmentation, devices=devices
    )
    params = jax.tree.map(jnp.asarray, params)
    opt_state = schedule.optimizer().init(params)
    state = TrainState(jnp.zeros((), jnp.int32), params, opt_state, jax.random.key(seed))
    weights = np.asarray(class_weights, np.float32)
    state = replicate(state, devices)
    rate, shown, first = schedule.rate(), math.nan, 1
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as lines:
        for number, batch in enumerate(batches, start=1):
            size = len(batch["index"])
            full = batch | {
                "weight": np.ones(size, np.float32),
                "class_weights": np.tile(weights, (size, 1)),
            }
            state, metrics = step(state, shard(full, devices))
            if number % log_every == 0 or number == schedule.steps:
                record = {"step": number} | {k: float(v[0]) for k, v in metrics.items()}
                record["learning_rate"] = float(rate(number - 1))
                _check(record, first)
                lines.write(json.dumps(record) + "\n")
                lines.flush()
                shown, first = record["loss"], number + 1
            on_step(number, shown)
    return jax.tree.map(np.asarray, state.params)
