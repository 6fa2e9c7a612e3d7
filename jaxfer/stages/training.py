"""What the training stages share: from the configuration to one call of ``fit``."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxfer import hosts
from jaxfer.config import plain
from jaxfer.data.augment import Augmentation
from jaxfer.data.planes import AXES, in_plane
from jaxfer.data.sampler import TaskCase, training_batches
from jaxfer.metrics import dice
from jaxfer.models.levels import kernel_sides, network_strides
from jaxfer.models.slabs import divides_into
from jaxfer.models.unet import UNet
from jaxfer.models.zoo import Source, load_source
from jaxfer.stages.run import Run, versions
from jaxfer.tasks import IGNORE
from jaxfer.train.checkpoints import Checkpoints
from jaxfer.train.finetune import Transferred, mean_weight, transfer_params
from jaxfer.train.loop import Fade, Upkeep, Validation, fit, initial_params
from jaxfer.train.predict import predict_volume
from jaxfer.train.schedule import Schedule
from jaxfer.train.step import Loss, Params

REVISION = 2
"""Counts the changes of this project after which the same settings train another network. It is
part of every mark, so that a workdir of before does not end with networks of both kinds."""


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
        deep_supervision=settings.deep_supervision,
    )


def source_at(run: Run, folder: Path) -> Source:
    """A source model from its folder, its network computed as the run's own are."""
    settings = run.config.model
    return load_source(folder, conv_impl=settings.conv_impl, precision=settings.precision)


def slabs_fit(config: ConfigDict, devices: int) -> bool:
    """Whether so many devices can share each patch of the network's, a slab of it each."""
    settings = config.model
    named, axes, levels = settings.strides, len(settings.patch), len(settings.widths)
    strides = network_strides(named, axes, levels, tuple(config.data.spacing))
    return divides_into(settings.patch[0], devices, strides)


def transferred(
    run: Run, source: Source, cases: Sequence[TaskCase], seed: int, perturb: float = 0.0
) -> Transferred:
    """What a source's network brings to one of this run for the cases' classes.

    Args:
        seed: of the new leaves, and of what is mixed into the others.
        perturb: share of what is mixed in.
    """
    model = network(run.config, cases[0].roi.num_classes)
    fresh = initial_params(model, tuple(run.config.model.patch), seed)
    same = tuple(source.card["class_names"]) == cases[0].roi.class_names
    return transfer_params(source.params, fresh, keep_head=same, perturb=perturb)


@dataclass(frozen=True)
class Objective:
    """What a training minimises: the loss, and how its cross-entropy weighs the classes."""

    loss: Loss
    class_weights: tuple[float, ...]
    scale: float


def objective(
    loss: Loss,
    cases: Sequence[TaskCase],
    class_weights: tuple[float, ...],
    dimensions: int,
) -> Objective:
    """An objective whose cross-entropy weighs the voxels of the cases with 1 on average.

    Args:
        dimensions: 2 or 3, of the network's images.
    """
    scale = 1.0 / mean_weight(cases, class_weights, loss, dimensions)
    return Objective(loss, tuple(scale * weight for weight in class_weights), scale)


def schedule(settings: ConfigDict) -> Schedule:
    """The schedule that ``config.pretrain`` or ``config.finetune`` describes."""
    names = {f.name for f in dataclasses.fields(Schedule)}
    return Schedule(**{key: value for key, value in settings.items() if key in names})


def augmentation(config: ConfigDict) -> Augmentation:
    """``config.augment``, for patches with the axes of ``data.plane``, or in 3-D."""
    axes = in_plane(config.data.plane) if len(config.model.patch) == 2 else (0, 1, 2)
    settings = dict(config.augment)
    mirrored = [AXES.index(name) for name in settings.pop("flip")]
    return Augmentation(
        flip=tuple(axes.index(axis) for axis in mirrored if axis in axes),
        spacing=tuple(config.data.spacing[axis] for axis in axes),
        **settings,
    )


class Timed:
    """Passes steps on, and measures what one takes; the first, which compiles, is not counted.

    Args:
        on_step: called with every step and the last known loss.
    """

    def __init__(self, on_step: Callable[[int, float], None]):
        self._on_step = on_step
        self._start: float | None = None
        self._last = 0.0
        self._steps = 0

    def __call__(self, step: int, loss: float) -> None:
        self._on_step(step, loss)
        self._last = time.perf_counter()
        if self._start is None:
            self._start = self._last
        else:
            self._steps += 1

    @property
    def seconds_per_step(self) -> float | None:
        """None if there were too few steps to tell."""
        if self._start is None or self._steps == 0:
            return None
        return (self._last - self._start) / self._steps


def show_step(advance: Callable[..., None], name: str, _step: int, loss: float) -> None:
    """One more step on a progress bar, with the last known loss."""
    advance(note=f"{name} loss {loss:.3f}")


def train(
    run: Run,
    settings: ConfigDict,
    params: Params,
    cases: Sequence[TaskCase],
    minimised: Objective,
    *,
    model: UNet,
    seed: int,
    folder: Path,
    mark: str,
    on_step: Callable[[int, float], None],
    validation: Validation | None = None,
    follows: Schedule | None = None,
    fade: Fade | None = None,
) -> Params:
    """Trains a network on the cases as one section of the configuration says.

    Args:
        run: of its configuration ``data``, ``model``, ``augment`` and ``run`` are read.
        settings: ``config.pretrain`` or ``config.finetune``.
        params: to start from.
        minimised: the loss and its class weights.
        seed: of the order of the patches and of the augmentation.
        folder: for the records and, as long as the training is not finished, the checkpoints.
        mark: of all that decides the outcome; checkpoints of another mark are not taken up.
        on_step: called with the step and the last known loss.
        validation: chooses the parameters to return; None: the last ones.
        follows: the schedule, where it is not quite that of the settings.
        fade: of the cases' risk maps.
    """
    config, devices = run.config, jax.local_device_count()
    odd = bool(settings.batch_size % (devices * settings.accumulate))
    batches = partial(
        training_batches,
        cases,
        patch=tuple(config.model.patch),
        batch_size=settings.batch_size,
        foreground_patches=settings.foreground_patches,
        seed=seed,
        steps=settings.steps,
        share=hosts.share(settings.batch_size, "batch_size"),
    )
    return fit(
        params,
        lambda done: batches(start=done),
        model=model,
        schedule=follows or schedule(settings),
        loss=minimised.loss,
        class_weights=minimised.class_weights,
        augmentation=augmentation(config),
        seed=seed,
        validation=validation,
        accumulate=settings.accumulate,
        slabs=odd and jax.process_count() == 1 and slabs_fit(config, devices),
        fade=fade,
        upkeep=Upkeep(
            log=folder / "metrics.jsonl",
            log_every=config.run.log_every,
            checkpoints=unfinished(run, folder, mark),
            checkpoint_every=config.run.checkpoint_every,
            on_step=on_step,
            stop=run.interruption.reason,
        ),
    )


def validation_dice(
    run: Run, model: UNet, params: Params, cases: Sequence[TaskCase]
) -> dict[str, float]:
    """Mean Dice by class over the validation cases; NaN for a class that none of them has."""
    found: dict[str, list[float]] = {name: [] for name in cases[0].roi.class_names} if cases else {}
    for case in cases:
        probs = predict_volume(
            model,
            params,
            case.image(),
            patch=tuple(run.config.model.patch),
            overlap=run.config.evaluate.overlap,
            batch_size=run.config.evaluate.batch_size,
            plane=run.config.data.plane,
        )
        predicted, classes = probs.argmax(-1), case.classes()
        valid = classes != IGNORE
        for index, name in enumerate(case.roi.class_names, start=1):
            found[name].append(dice((predicted == index) & valid, classes == index))
    return {
        name: float(np.nanmean(v)) if not np.isnan(v).all() else math.nan
        for name, v in found.items()
    }


def mean_dice(by_class: dict[str, float]) -> float:
    """Over the classes that some case has; NaN if there is none."""
    known = [v for v in by_class.values() if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def unfinished(run: Run, folder: Path, mark: str = "") -> Checkpoints:
    """The checkpoints of a training that is not finished; to be discarded when it is."""
    return Checkpoints(
        folder / "steps",
        keep=run.config.run.keep_checkpoints,
        mark=mark,
        say=run.say,
        record={"config": plain(run.config), "versions": versions()},
    )
