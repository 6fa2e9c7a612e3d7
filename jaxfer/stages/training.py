"""What the training stages share: from the configuration to one call of ``fit``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.augment import Augmentation
from jaxfer.data.sampler import TaskCase, training_batches
from jaxfer.models.levels import kernel_sides, network_strides
from jaxfer.models.unet import UNet
from jaxfer.train.finetune import mean_weight
from jaxfer.train.loop import fit
from jaxfer.train.schedule import Schedule
from jaxfer.train.step import Loss, Params


def network(config: ConfigDict, num_classes: int) -> UNet:
    """The U-Net that the configuration describes, 2-D or 3-D by the length of its patch."""
    settings, spacing = config.model, tuple(config.data.spacing)
    widths = tuple(settings.widths)
    strides = network_strides(settings.strides, len(settings.patch), len(widths), spacing)
    return UNet(
        num_classes=num_classes,
        widths=widths,
        strides=strides,
        kernels=kernel_sides(strides, spacing),
        conv_impl=settings.conv_impl,
        precision=settings.precision,
        remat=settings.remat,
    )


@dataclass(frozen=True)
class Objective:
    """What a training minimises: the loss, and how its cross-entropy weighs the classes."""

    loss: Loss
    class_weights: tuple[float, ...]
    scale: float


def objective(
    settings: ConfigDict,
    cases: Sequence[TaskCase],
    class_weights: tuple[float, ...],
    *,
    region: str = "all",
    denominator: str = "pixels",
) -> Objective:
    """An objective whose cross-entropy weighs the voxels of the cases with 1 on average."""
    scale = 1.0 / mean_weight(cases, class_weights, denominator, region)
    return Objective(
        Loss(region=region, denominator=denominator, dice_weight=settings.dice_weight),
        tuple(scale * weight for weight in class_weights),
        scale,
    )


def show_step(advance: Callable[..., None], name: str, _step: int, loss: float) -> None:
    """One more step on a progress bar, with the last known loss."""
    advance(note=f"{name} loss {loss:.3f}")


def train(
    config: ConfigDict,
    settings: ConfigDict,
    params: Params,
    cases: Sequence[TaskCase],
    minimised: Objective,
    *,
    model: UNet,
    seed: int,
    log: Path,
    on_step: Callable[[int, float], None],
) -> Params:
    """Trains a network on the cases as one section of the configuration says.

    Args:
        config: the whole; its ``model`` and ``augment`` are read.
        settings: ``config.pretrain`` or ``config.finetune``.
        params: to start from.
        minimised: the loss and its class weights.
        seed: of the order of the patches and of the augmentation.
        log: file of the records.
        on_step: called with the step and the last known loss.
    """
    batches = training_batches(
        cases,
        patch=tuple(config.model.patch),
        batch_size=settings.batch_size,
        foreground_patches=settings.foreground_patches,
        seed=seed,
        steps=settings.steps,
    )
    schedule = Schedule(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        clip_gradient=settings.clip_gradient,
    )
    return fit(
        params,
        batches,
        model=model,
        schedule=schedule,
        loss=minimised.loss,
        class_weights=minimised.class_weights,
        augmentation=Augmentation(**config.augment),
        seed=seed,
        log=log,
        log_every=settings.log_every,
        on_step=on_step,
    )
