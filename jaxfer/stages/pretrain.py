"""Stage pretrain: train the source models that are not on the shelf yet."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax

from jaxfer import hosts
from jaxfer.config import fingerprint, plain
from jaxfer.data.sampler import TaskCase
from jaxfer.errors import Problem, raise_problems
from jaxfer.models.zoo import Source, read_card, save_source
from jaxfer.selection.modality import summaries
from jaxfer.selection.roi import foreground_masks
from jaxfer.stages.lock import Busy, locked
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.run import Run, versions
from jaxfer.stages.training import (
    REVISION,
    mean_dice,
    network,
    objective,
    show_step,
    train,
    transferred,
    unfinished,
    validation_dice,
)
from jaxfer.tasks import Task
from jaxfer.train.finetune import frequency_weights
from jaxfer.train.loop import Validation, initial_params
from jaxfer.train.step import Loss


def source_mark(run: Run, prepared: Prepared, task: Task) -> str:
    """A fingerprint of all that decides a source's network."""
    config, train = run.config, prepared.cases(task, "train")
    return fingerprint(
        REVISION,
        task.name,
        config.seed,
        plain(config.model),
        plain(config.augment),
        plain(config.pretrain),
        plain(prepared.roi(task)),
        prepared.ignore(task),
        [(case.stored.id, case.content) for case in train],
        prepared.preprocessing(task),
        config.data.plane,
    )


def _seed(run: Run, task: Task) -> int:
    """Each source, and each pre-training of it, starts from other parameters, the same ones
    whatever the list of sources."""
    again = run.config.pretrain.seed
    name = f"{task.name}, pre-training {again}" if again else task.name
    return (int(run.config.seed) * 1_000_003 + zlib.crc32(name.encode())) % 2**31


def _card(
    run: Run,
    prepared: Prepared,
    task: Task,
    train: Sequence[TaskCase],
    validation: Sequence[TaskCase],
    by_class: dict[str, float],
) -> dict[str, Any]:
    mean = mean_dice(by_class)
    model = network(run.config, prepared.roi(task).num_classes)
    return {
        "task": {**plain(task), "name": task.name},
        "class_names": list(prepared.roi(task).class_names),
        "modality": task.modality,
        "spacing": list(run.config.data.spacing),
        "preprocessing": dict(prepared.preprocessing(task)),
        "patch": list(run.config.model.patch),
        "plane": run.config.data.plane,
        "widths": list(run.config.model.widths),
        "strides": plain(model.strides),
        "kernels": plain(model.kernels),
        "deep_supervision": model.deep_supervision,
        "validation_dice": None if math.isnan(mean) else mean,
        "validation_dice_by_class": {k: None if math.isnan(v) else v for k, v in by_class.items()},
        "train_subjects": sorted({c.stored.subject for c in train}),
        "validation_subjects": sorted({c.stored.subject for c in validation}),
        "synthetic": prepared.synthetic(task),
        "config": {key: plain(run.config[key]) for key in ("pretrain", "augment", "data")},
        "seed": _seed(run, task),
        "versions": versions(),
    }


def _unfit(run: Run, folder: Path, card: dict[str, Any]) -> list[Problem]:
    """Why a network of a named shelf is none to start from: hardly a leaf of it would fit."""
    patch, wanted = tuple(card["patch"]), tuple(run.config.model.patch)
    if len(patch) == len(wanted):
        return []
    what = f"a {len(patch)}-D network, and this run's are {len(wanted)}-D"
    allowed = f"a patch of {len(wanted)} numbers, as config.model.patch = {wanted}"
    mend = f"another --config.shelf, or a --config.model.patch of {len(patch)} numbers"
    return [Problem("error", f"{folder}", what, f"patch {patch}", allowed, mend)]


def run(run: Run) -> str:
    """Trains each missing source on its subjects and puts it on the shelf with its card."""
    prepared = Prepared.read(run)
    tasks = [Task.parse(name) for name in run.config.sources]
    wanted: list[tuple[Task, str]] = []
    problems: list[Problem] = []
    kept = 0
    for task in tasks:
        card = read_card(run.shelf / task.slug)
        if card is not None and run.config.shelf:
            problems += _unfit(run, run.shelf / task.slug, card)
        if task.name in prepared.unavailable:
            kept += card is not None and bool(run.config.shelf)
            continue
        mark = source_mark(run, prepared, task)
        # A shelf that was named is the user's: what stands there is used as it is.
        if card is not None and (run.config.shelf or card["fingerprint"] == mark):
            kept += 1
        else:
            wanted.append((task, mark))
    raise_problems(problems, "source models do not fit this run")
    names = hosts.of_leader([task.name for task, _ in wanted])
    with run.progress(
        "pretraining", len(names) * run.config.pretrain.steps, stops=False
    ) as advance:
        left = list(map(Task.parse, names))
        # What another launch is training is left for last.
        for wait in (jax.process_count() > 1, True):
            left = [t for t in left if not _on_shelf(run, prepared, t, advance, wait=wait)]
    hosts.wait_for_all("pretrained")
    return f"{len(names)} source model(s) trained, {kept} already on the shelf at {run.shelf}"


def _on_shelf(
    run: Run, prepared: Prepared, task: Task, advance: Callable[..., None], *, wait: bool
) -> bool:
    """Sees to it that a source is on the shelf; False if another launch is at it and not to be
    waited for."""
    mark = source_mark(run, prepared, task)
    try:
        folder, on_step = run.shelf / task.slug, partial(show_step, advance, task.name)
        with only_here(run, folder, wait=wait):
            card = read_card(folder) if hosts.leads() else None
            if hosts.of_leader(card is None or card["fingerprint"] != mark):
                train_source(run, prepared, task, mark, on_step, folder=folder)
    except Busy:
        if wait:
            raise
        return False
    return True


@contextmanager
def only_here(run: Run, folder: Path, *, wait: bool) -> Iterator[None]:
    """Runs may share a shelf: what one of them trains the others do not.

    Raises:
        Busy: another process is at the folder's network, and it is not waited for.
    """
    if hosts.leads():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, wait=wait, say=run.say):
            yield
    else:
        yield


def train_source(
    run: Run,
    prepared: Prepared,
    task: Task,
    mark: str,
    on_step: Callable[[int, float], None],
    *,
    folder: Path,
    before: Source | None = None,
    path: Sequence[Task] = (),
) -> None:
    """Trains one source and puts it on the shelf.

    Args:
        mark: of all that decides the network.
        on_step: called with the step and the last known loss.
        folder: of this network.
        before: the network that it is trained on from; None: from random parameters.
        path: all tasks that it will then have been trained for, in order, if there are several.
    """
    train_cases, validation = prepared.cases(task, "train"), prepared.cases(task, "validation")
    model, seed = network(run.config, prepared.roi(task).num_classes), _seed(run, task)
    every = run.config.pretrain.validate_every
    moved = None if before is None else transferred(run, before, train_cases, seed)
    start = initial_params(model, tuple(run.config.model.patch), seed)
    params = train(
        run,
        run.config.pretrain,
        start if moved is None else moved.params,
        train_cases,
        objective(
            Loss(dice_weight=run.config.pretrain.dice_weight),
            train_cases,
            frequency_weights(train_cases),
            len(run.config.model.patch),
        ),
        model=model,
        seed=seed,
        folder=folder,
        mark=mark,
        on_step=on_step,
        validation=Validation(
            every, lambda p: mean_dice(validation_dice(run, model, p, validation))
        )
        if every and validation
        else None,
    )
    if not hosts.leads():
        return
    by_class = validation_dice(run, model, params, validation)
    card = _card(run, prepared, task, train_cases, validation, by_class)
    if before is not None and moved is not None:
        card |= {
            "path": [stop.name for stop in path],
            "train_subjects": sorted(
                {*before.card.get("train_subjects", []), *card["train_subjects"]}
            ),
            "synthetic": before.card["synthetic"] or card["synthetic"],
            "leaves": {"loaded": list(moved.loaded), "remade": list(moved.remade)},
        }
    masks = foreground_masks([case.classes() for case in train_cases])
    intensities = summaries(train_cases, skull_stripped=card["preprocessing"]["skull_stripped"])
    save_source(folder, params, card | {"fingerprint": mark}, masks, intensities.quantiles)
    unfinished(run, folder).discard()
    shown = card["validation_dice"]
    said = "no validation subject" if shown is None else f"validation Dice {shown:.3f}"
    run.say(f"  source {' → '.join(card.get('path', [task.name]))}: {said}")
