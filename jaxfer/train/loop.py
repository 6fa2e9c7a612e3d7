"""The training loop: batches in, parameters and a record of the losses out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfer.data.augment import Augmentation
from jaxfer.data.sampler import Batch
from jaxfer.errors import UserError
from jaxfer.models.unet import UNet
from jaxfer.train.step import Loss, Params, TrainState, pmap_step, shard


@dataclass(frozen=True)
class Schedule:
    """AdamW: linear warm-up, then cosine decay to 0; gradients clipped to a global norm."""

    steps: int
    learning_rate: float
    warmup: float
    weight_decay: float
    clip_gradient: float

    def rate(self) -> optax.Schedule:
        """The learning rate at each step."""
        warm = min(max(1, round(self.warmup * self.steps)), max(self.steps - 1, 1))
        if self.steps <= 1:
            return optax.constant_schedule(self.learning_rate)
        return optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, warm, self.steps)

    def optimizer(self) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(self.clip_gradient),
            optax.adamw(self.rate(), weight_decay=self.weight_decay),
        )


def initial_params(model: UNet, patch: tuple[int, int], seed: int) -> Params:
    """Random parameters of a network with one input channel."""
    return model.init(jax.random.key(seed), jnp.zeros((1, *patch, 1)))["params"]


def _check(record: dict[str, float], first: int) -> None:
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
        seed: of the augmentation.
        log: records of ``step``, losses, gradient norm and learning rate, as JSON lines.
        log_every: steps between records; the last step is always recorded. Only then does the
            host wait for the device.
        on_step: called with the step and the last known loss.

    Raises:
        UserError: the loss or the gradient became non-finite; names the steps between which.
    """
    optimizer = schedule.optimizer()
    devices = jax.local_device_count()
    step = pmap_step(
        model=model,
        optimizer=optimizer,
        loss=loss,
        augmentation=augmentation,
        key=jax.random.key(seed),
        devices=devices,
    )
    # The step gives its state's buffers away; the caller keeps its own.
    params = jax.tree.map(jnp.array, params)
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    rate, shown, first = schedule.rate(), math.nan, 1
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as lines:
        for number, batch in enumerate(batches, start=1):
            full = batch | {"weight": np.ones(len(batch["index"]), np.float32)}
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
