"""What the training stages share: from the configuration to one call of ``fit``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.augment import Augmentation
from jaxfer.data.sampler import TaskCase, training_batches
from jaxfer.models.unet import UNet
from jaxfer.train.finetune import mean_weight
from jaxfer.train.loop import Schedule, fit
from jaxfer.train.step import Loss, Params


def network(config: ConfigDict, num_classes: int) -> UNet:
    return UNet(num_classes=num_classes, widths=tuple(config.model.widths))


def scaled_loss(
    settings: ConfigDict,
    cases: Sequence[TaskCase],
    class_weights: tuple[float, ...],
    *,
    region: str = "all",
    denominator: str = "pixels",
) -> Loss:
    """A loss whose cross-entropy weighs every voxel of the cases with 1 on average."""
    return Loss(
        class_weights=class_weights,
        region=region,
        denominator=denominator,
        scale=1.0 / mean_weight(cases, class_weights, denominator, region),
        dice_weight=settings.dice_weight,
    )


def train(
    config: ConfigDict,
    settings: ConfigDict,
    params: Params,
    cases: Sequence[TaskCase],
    loss: Loss,
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
        loss: what is minimised.
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
        loss=loss,
        augmentation=Augmentation(**config.augment),
        seed=seed,
        log=log,
        log_every=settings.log_every,
        on_step=on_step,
    )
