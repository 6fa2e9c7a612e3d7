"""The training loop: batches in, parameters and a record out; it goes on where it was stopped."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfer import hosts
from jaxfer.data.augment import Augmentation
from jaxfer.data.sampler import Batch
from jaxfer.errors import Interrupted, UserError
from jaxfer.files import MOST_BYTES_OF_LOG, fits, parse_json, read_text
from jaxfer.models.unet import UNet
from jaxfer.train.checkpoints import Checkpoints, Writer
from jaxfer.train.schedule import Schedule
from jaxfer.train.step import Loss, Params, TrainState, pmap_step, replicate, served, shard


def initial_params(model: UNet, patch: tuple[int, ...], seed: int) -> Params:
    """Random parameters of a network with one input channel."""
    return model.init(jax.random.key(seed), jnp.zeros((1, *patch, 1)))["params"]


class Best(NamedTuple):
    """The parameters with the highest validation score so far."""

    score: np.ndarray
    step: np.ndarray
    params: Params


@dataclass(frozen=True)
class Validation:
    """How well parameters do on subjects that are not trained on.

    Attributes:
        every: steps between two looks; the last step always gets one.
        score: of parameters; higher is better.
    """

    every: int
    score: Callable[[Params], float]


@dataclass(frozen=True)
class Fade:
    """The weights of a map go over to weights by class alone, evenly over the first steps.

    Attributes:
        to: the class weights that are left, background first.
        over: steps after which nothing of the map is left.
    """

    to: tuple[float, ...]
    over: int

    def left(self, done: int) -> float:
        """The map's share of the weights after so many steps."""
        return max(0.0, 1.0 - done / self.over)


@dataclass(frozen=True)
class Upkeep:
    """What a training does beside its steps; none of it changes a number.

    Attributes:
        log: file of the records, as JSON lines.
        log_every: steps between records; the last step is always recorded. Only then, and for a
            checkpoint, does the host wait for the device.
        checkpoints: where unfinished work is saved, and taken up; None: nowhere.
        checkpoint_every: steps between them.
        on_step: called with the step and the last known loss.
        stop: why to stop, looked at after every step; empty: go on.
    """

    log: Path
    log_every: int = 10
    checkpoints: Checkpoints | None = None
    checkpoint_every: int = 50
    on_step: Callable[[int, float], None] = lambda _step, _loss: None
    stop: Callable[[], str] = lambda: ""


class _Held(NamedTuple):
    """All that decides what comes next: what a checkpoint holds."""

    state: TrainState
    best: Best | None


def _on_host(held: _Held) -> _Held:
    """As numpy arrays, the random key as its data."""
    raw = held.state._replace(key=jax.random.key_data(held.state.key))
    return jax.tree.map(np.asarray, held._replace(state=raw))


def _restored(held: _Held) -> TrainState:
    return held.state._replace(key=jax.random.wrap_key_data(jnp.asarray(held.state.key)))


def _lines(log: Path) -> list[str]:
    """The records of a training so far.

    Raises:
        UserError: the file is no such record.
    """
    try:
        return read_text(log, MOST_BYTES_OF_LOG).split("\n") if log.is_file() else []
    except ValueError as error:
        raise UserError(
            f"{log}: not the records of a training",
            found=str(error),
            mend="delete the folder that holds it; its training begins anew",
        ) from error


def _begin_log(log: Path, done: int) -> None:
    """Keeps the records of the steps that need not be done again."""
    log.parent.mkdir(parents=True, exist_ok=True)
    kept = []
    for line in _lines(log) if done else []:
        try:
            record = parse_json(line)
        except ValueError:
            continue  # cut off by the end of the process that wrote it
        if fits(record, {"step": int}) and record["step"] <= done:
            kept.append(line + "\n")
    temporary = log.with_name(f".{log.name}")
    temporary.write_text("".join(kept))
    temporary.replace(log)


def _fetch(metrics: dict[str, Any], first: int, step: int, schedule: Schedule) -> dict[str, Any]:
    """The numbers of a step, as a record.

    Raises:
        UserError: one of them is not finite, and no more steps may be skipped.
    """
    # Every device, here and on other hosts, holds the same number.
    own = {k: v.addressable_data(0) for k, v in metrics.items()}
    record: dict[str, Any] = {k: float(np.asarray(v).ravel()[0]) for k, v in own.items()}
    in_a_row = record.pop("skipped_in_a_row", 0)
    bad = [name for name, value in record.items() if not math.isfinite(value)]
    if (bad and not schedule.skip_nonfinite) or in_a_row > schedule.skip_nonfinite:
        section = "--config.pretrain and --config.finetune"
        raise UserError(
            f"training diverged between steps {first} and {step}",
            found=f"not finite: {', '.join(bad) or 'the gradient'}",
            mend=f"of {section}: a lower learning_rate or clip_gradient, more warmup, "
            "or skip_nonfinite to leave out single steps; the last checkpoint is whole",
        )
    return {k: None if k in bad else v for k, v in record.items()}


def _agreed(stop: str, meeting: bool) -> str:
    """Why to stop; several processes agree on it at the steps at which they meet."""
    if jax.process_count() == 1:
        return stop
    if not meeting or not hosts.any_of(bool(stop)):
        return ""
    return stop or "another process of this run is told to stop"


def _better(best: Best | None, validation: Validation, step: int, params: Params) -> Best:
    score = hosts.of_leader(validation.score(params) if hosts.leads() else None)
    # The first look always counts: a score may be NaN.
    if best is not None and best.step and not score > best.score:
        return best
    return Best(np.array(score), np.array(step), params)


def _weighed(
    batch: Batch, class_weights: np.ndarray, fade: Fade | None, done: int, loss: Loss
) -> dict[str, Any]:
    """The batch with what its classes weigh at a step."""
    size = len(batch["index"])
    weights = np.tile(class_weights, (size, 1))
    found = batch | {"weight": np.ones(size, np.float32), "class_weights": weights}
    if fade is None:
        return found
    left = fade.left(done)
    to = np.tile(np.asarray(fade.to, np.float32), (size, 1))
    if loss.denominator == "foreground":
        # They are meant per pixel, and will be divided by the foreground's share of the pixels.
        to = to * batch["foreground_fraction"][:, None]
    return found | {
        "class_weights": (left * weights).astype(np.float32),
        "plain_weights": ((1.0 - left) * to).astype(np.float32),
    }


def fit(
    params: Params,
    batches: Callable[[int], Iterator[Batch]],
    *,
    model: UNet,
    schedule: Schedule,
    loss: Loss,
    class_weights: Sequence[float],
    augmentation: Augmentation | None,
    seed: int,
    upkeep: Upkeep,
    validation: Validation | None = None,
    accumulate: int = 1,
    slabs: bool = False,
    fade: Fade | None = None,
) -> Params:
    """Trains for ``schedule.steps`` steps on all devices, from the last checkpoint if there is one.

    A training that was killed and taken up again gives the same bits as one that was not.

    Args:
        params: to start from; not changed.
        batches: from a number of steps done to the batches after them, up to the last step's.
        loss, augmentation, schedule: what is minimised, on which images, how.
        class_weights: factor on the cross-entropy of each class, background first.
        seed: of the augmentation.
        upkeep: records, checkpoints, when to stop.
        validation: chooses the parameters to return; None: those of the last step. With an
            average (``schedule.ema``), both are of the average.
        accumulate: parts that a device's share of a batch is taken in; of ``train_step``.
        slabs: the devices share every image, a slab each, in place of the images of a batch.
        fade: of the risk map; None: it stays.

    Raises:
        UserError: the loss or the gradient became non-finite; names the steps between which.
        Interrupted: ``upkeep.stop`` gave a reason; the last step is saved.
    """
    devices = jax.local_device_count()
    step = pmap_step(
        model=model,
        schedule=schedule,
        loss=loss,
        augmentation=augmentation,
        devices=devices,
        accumulate=accumulate,
        slabs=slabs,
    )
    params = jax.tree.map(jnp.asarray, params)
    opt_state = schedule.optimizer().init(params)
    average = jax.tree.map(jnp.zeros_like, params) if schedule.ema else None
    state = TrainState(jnp.zeros((), jnp.int32), params, opt_state, jax.random.key(seed), average)
    best = None if validation is None else Best(np.array(-math.inf), np.array(0), params)
    done = 0
    if upkeep.checkpoints is not None:
        held = _on_host(_Held(state, best))
        done, held = upkeep.checkpoints.restore(held) if hosts.leads() else (0, held)
        done, held = hosts.of_leader(done), hosts.arrays_of_leader(held)
        state, best = _restored(held), held.best
    weights = np.asarray(class_weights, np.float32)
    state = replicate(state, devices)
    rate, shown, first = schedule.rate(), math.nan, done + 1
    kept = upkeep.checkpoints if hosts.leads() else None
    log = upkeep.log if hosts.leads() else Path(os.devnull)
    if hosts.leads():
        _begin_log(log, done)
    with ExitStack() as stack:
        lines = stack.enter_context(log.open("a"))
        writer = stack.enter_context(Writer(kept)) if kept else None
        for number, batch in enumerate(batches(done), start=done + 1):
            full = _weighed(batch, weights, fade, number - 1, loss)
            state, metrics = step(state, shard(full, devices, accumulate, slabs=slabs))
            last = number == schedule.steps
            look_due = validation is not None and (last or number % validation.every == 0)
            record_due = last or look_due or number % upkeep.log_every == 0
            stop = _agreed(upkeep.stop(), number % upkeep.log_every == 0)
            save_due = writer is not None and (stop or number % upkeep.checkpoint_every == 0)
            if record_due or save_due:
                if not log.exists():
                    # What is open is written on to after it has gone.
                    raise FileNotFoundError(ENOENT, "No such file or directory", str(log))
                record = {"step": number} | _fetch(metrics, first, number, schedule)
                first = number + 1
            if record_due:
                record["learning_rate"] = float(rate(number - 1))
                shown = record["loss"] if record["loss"] is not None else shown
            if validation is not None and look_due:
                found = jax.tree.map(np.asarray, served(state, schedule.ema))
                best = _better(best, validation, number, found)
                record["best_validation"] = float(best.score)
            if record_due:
                lines.write(json.dumps(record) + "\n")
                lines.flush()
            if writer is not None and save_due:
                writer.save(number, _on_host(_Held(state, best)))
            if stop and not last:
                if writer is not None:
                    writer.wait()
                hosts.wait_for_all("the last checkpoint is whole")
                raise Interrupted(stop, f"training is saved after step {number}")
            upkeep.on_step(number, shown)
    found = served(state, schedule.ema) if best is None else best.params
    return jax.tree.map(np.asarray, found)
