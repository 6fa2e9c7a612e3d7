"""One training step: pure, then mapped over the local devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from jaxfer.data.augment import Augmentation, augment_patch
from jaxfer.errors import UserError
from jaxfer.models.unet import Features, UNet
from jaxfer.tasks import IGNORE
from jaxfer.train.losses import map_weighted_cross_entropy, tversky
from jaxfer.train.schedule import Schedule

Params = Any
DeviceBatch = dict[str, Array]


class TrainState(NamedTuple):
    """What a step reads and changes; the key, of the augmentation, stays as it is.

    The average is Σ (1 − d) d^(n−k) params_k over the n steps done, d the schedule's ``ema``; its
    weights sum to 1 − d^n. None where there is no average.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    key: Key[Array, ""]
    average: Params | None = None


def served(state: TrainState, ema: float) -> Params:
    """The parameters to predict with: the average, its bias to zero corrected, or the last ones."""
    if state.average is None:
        return state.params
    mass = 1.0 - ema ** np.asarray(state.step, np.float64)
    return jax.tree.map(lambda leaf: (np.asarray(leaf) / mass).astype(leaf.dtype), state.average)


@dataclass(frozen=True)
class Loss:
    """What of the loss is compiled in; how pixels weigh is data (``risk``, ``class_weights``).

    Attributes:
        region, denominator, rim, focal, hardest: of ``map_weighted_cross_entropy``.
        dice_weight: of the soft Dice loss beside the cross-entropy.
        missed: of ``tversky``, which with ½ is the soft Dice loss.
        soften: above 0 the map does not weigh: it is what the source gives the label, and so much
            of what it does not give goes from the label to the other classes.
    """

    region: str = "all"
    denominator: str = "pixels"
    dice_weight: float = 1.0
    rim: int = 0
    focal: float = 0.0
    hardest: float = 1.0
    missed: float = 0.5
    soften: float = 0.0


def example_losses(
    loss: Loss, logits: Float[Array, "b *s c"], batch: DeviceBatch
) -> dict[str, tuple[Float[Array, " b"], Float[Array, " b"]]]:
    """Each part of the loss as (sum, normaliser) per image.

    A pixel's weight in the cross-entropy is its risk times its image's weight for its class, plus
    the weight for its class that needs no map (``plain_weights``) where the batch has such. Where
    labels are softened, its weight is that for its class alone.
    """
    labels = batch["label"]
    valid = labels != IGNORE
    classes = jnp.where(valid, labels, 0)
    weights = jax.vmap(jnp.take)(batch["class_weights"], classes)
    doubt = loss.soften * (1.0 - batch["risk"]) if loss.soften else None
    if not loss.soften:
        weights *= batch["risk"]
    if "plain_weights" in batch:
        weights += jax.vmap(jnp.take)(batch["plain_weights"], classes)
    cross_entropy = map_weighted_cross_entropy(
        logits,
        labels,
        weights,
        valid,
        region=loss.region,
        denominator=loss.denominator,
        foreground_fraction=batch["foreground_fraction"],
        rim=loss.rim,
        focal=loss.focal,
        hardest=loss.hardest,
        doubt=doubt,
    )
    overlap = tversky(logits, labels, valid, missed=loss.missed)
    return {"cross_entropy": cross_entropy, "dice_loss": overlap}


def supervised_losses(
    loss: Loss, logits: Float[Array, "b *s c"], features: Features, batch: DeviceBatch
) -> dict[str, tuple[Float[Array, " b"], Float[Array, " b"]]]:
    """Each part of the loss as (sum, normaliser) per image, over every level that has logits.

    Level k counts 2^−k, the finest is 0, and the shares sum to 1 (deep supervision as in nnU-Net,
    Isensee et al., 2021). A coarse cell has the label and the risk of its first pixel, and a rim is
    counted in cells. An image without a valid cell at a level has no loss there.
    """
    outputs = [logits]
    while (name := f"logits_{len(outputs)}") in features:
        outputs.append(features[name])
    shares = [2.0**-level for level in range(len(outputs))]
    found = example_losses(loss, logits, batch)
    sums = {name: value * shares[0] for name, (value, _) in found.items()}
    for share, coarse in zip(shares[1:], outputs[1:], strict=True):
        sides = zip(logits.shape[1:-1], coarse.shape[1:-1], strict=True)
        cells = (slice(None), *(slice(None, None, fine // side) for fine, side in sides))
        own = batch | {name: batch[name][cells] for name in ("label", "risk")}
        for name, (value, _) in example_losses(loss, coarse, own).items():
            sums[name] += value * share
    return {name: (sums[name] / sum(shares), used) for name, (_, used) in found.items()}


def _augmented(batch: DeviceBatch, key: Key[Array, ""], how: Augmentation) -> DeviceBatch:
    # A patch's key comes from its place in the whole order, not in the device's share, so that
    # the number of devices changes nothing.
    keys = jax.vmap(partial(jax.random.fold_in, key))(batch["index"])
    image, label, risk = jax.vmap(lambda k, *arrays: augment_patch(k, how, *arrays))(
        keys, batch["image"], batch["label"], batch["risk"]
    )
    return batch | {"image": image, "label": label, "risk": risk}


def _over_parts(
    sums: Callable[[Params, DeviceBatch], Any], params: Params, batch: DeviceBatch, parts: int
) -> Any:
    """The sums over the parts of a batch, one part after the other."""
    if parts == 1:
        return sums(params, batch)
    cut = jax.tree.map(lambda x: x.reshape(parts, len(x) // parts, *x.shape[1:]), batch)
    shapes = jax.eval_shape(sums, params, jax.tree.map(lambda x: x[0], cut))

    def add(total: Any, part: DeviceBatch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, sums(params, part)), None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, shapes), cut)[0]


def train_step(
    state: TrainState,
    batch: DeviceBatch,
    *,
    model: UNet,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    augmentation: Augmentation | None,
    accumulate: int = 1,
    ema: float = 0.0,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Gradient of the loss over the whole batch, and one update.

    The gradient is psum(gradient of the local sum) / psum(local normaliser): the new parameters do
    not depend on how many devices share the batch. Differentiating through the psum instead would
    give another factor.

    Args:
        batch: this device's share: ``image``, ``label``, ``risk``, ``foreground_fraction``,
            ``index``; ``class_weights`` [b c], maybe ``plain_weights`` [b c]; and ``weight`` [b],
            0 for images that only fill the batch up.
        accumulate: parts that this share passes the network in, one after the other, for less
            memory; it must divide by them. Sums and normalisers add up, so that the new parameters
            are the same to rounding.
        ema: decay of the state's average, if it has one.
        axis_name: of the mapped devices; None on one device.

    Returns:
        The new state, and the loss, its parts and the gradient's norm over the whole batch.
    """
    if augmentation is not None:
        batch = _augmented(batch, state.key, augmentation)

    def local_sums(
        params: Params, batch: DeviceBatch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        outputs: Any = model.apply({"params": params}, batch["image"])
        logits, features = outputs
        parts = supervised_losses(loss, logits, features, batch)
        used = batch["weight"] * parts["cross_entropy"][1]
        sums = {name: (used * value).sum() for name, (value, _) in parts.items()}
        total = sums["cross_entropy"] + loss.dice_weight * sums["dice_loss"]
        return total, sums | {"loss": total, "examples": used.sum()}

    gradient, sums = _over_parts(
        jax.grad(local_sums, has_aux=True), state.params, batch, accumulate
    )
    if axis_name is not None:
        gradient, sums = jax.lax.psum((gradient, sums), axis_name)
    examples = jnp.maximum(sums.pop("examples"), 1.0)
    gradient = jax.tree.map(lambda g: g / examples, gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {name: value / examples for name, value in sums.items()}
    metrics["gradient_norm"] = optax.tree.norm(gradient)
    if isinstance(opt_state, optax.ApplyIfFiniteState):
        metrics["skipped"] = opt_state.total_notfinite.astype(jnp.float32)
        metrics["skipped_in_a_row"] = opt_state.notfinite_count.astype(jnp.float32)
    average = state.average
    if average is not None:
        average = jax.tree.map(lambda a, p: ema * a + (1.0 - ema) * p, average, params)
    return TrainState(state.step + 1, params, opt_state, state.key, average), metrics


def shard(
    batch: dict[str, Any], devices: int, accumulate: int = 1, *, slabs: bool = False
) -> dict[str, Any]:
    """Splits the leading axis over the devices.

    Args:
        accumulate: parts that each device's share will be taken in.
        slabs: every device gets the whole batch, of ``pmap_step`` with slabs.

    Raises:
        UserError: the batch does not divide by the number of devices, times that of the parts.
    """
    if slabs:
        whole = shard(batch, 1, accumulate)
        return {k: np.broadcast_to(v, (devices, *v.shape[1:])) for k, v in whole.items()}
    size, cuts = len(batch["index"]), devices * accumulate
    if size % cuts:
        parts = f", {accumulate} parts each (accumulate)" if accumulate > 1 else ""
        raise UserError(
            "the batch does not divide over the devices",
            found=f"batch of {size}, {devices} local devices{parts}",
            allowed=f"a multiple of {cuts}",
            mend=f"--config.pretrain.batch_size and --config.finetune.batch_size, "
            f"such as {cuts * -(-size // cuts)}",
        )
    return {k: v.reshape(devices, size // devices, *v.shape[1:]) for k, v in batch.items()}


def replicate(state: TrainState, devices: int) -> TrainState:
    """A copy of the state on each local device, placed as the mapped step gives it back.

    The step takes a state on one device too, but is then compiled a second time for the next one.
    """
    mesh = Mesh(np.array(jax.local_devices()[:devices]), ("batch",))
    # Placed without a copy, the caller's buffers would be given away by the step.
    copied = jax.tree.map(lambda leaf: leaf.copy(), state)
    return jax.device_put(copied, NamedSharding(mesh, PartitionSpec()))


@lru_cache
def pmap_step(
    *,
    model: UNet,
    schedule: Schedule,
    loss: Loss,
    augmentation: Augmentation | None,
    devices: int,
    accumulate: int = 1,
    slabs: bool = False,
) -> Callable[[TrainState, DeviceBatch], tuple[TrainState, dict[str, Float[Array, ""]]]]:
    """The step over all local devices: the state is replicated, the batch comes from ``shard``.

    With ``slabs`` each has the whole batch, and its network computes a slab of every image. The
    loss is then the same on all devices: each finds the part of its gradient that comes through
    its slab as often as there are devices, and so are the images counted.

    Compiled once for all trainings that share these arguments and the shape of the batches. With
    several processes it runs over the devices of all of them, each feeding its own.
    """
    step = partial(
        train_step,
        model=model.clone(slabs="batch") if slabs else model,
        optimizer=schedule.optimizer(),
        loss=loss,
        augmentation=augmentation,
        accumulate=accumulate,
        ema=schedule.ema,
        axis_name="batch",
    )
    return jax.pmap(
        step,
        axis_name="batch",
        in_axes=(None, 0),
        out_axes=(None, 0),
        devices=None if jax.process_count() > 1 else jax.local_devices()[:devices],
        donate_argnums=(0,),
    )
