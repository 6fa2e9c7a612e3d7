"""The risk maps of the training cases: made once with the frozen source, kept beside the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxfer.data.nifti import read_header, write_like
from jaxfer.data.preprocess import restore
from jaxfer.data.sampler import TaskCase, class_frequencies
from jaxfer.data.verify import AFFINE_TOLERANCE, corner_distance
from jaxfer.errors import UserError
from jaxfer.metrics import LabelStatistics, conditional_log_probs
from jaxfer.models.zoo import Source
from jaxfer.selection.foreign import Foreign
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.run import Run
from jaxfer.tasks import IGNORE, Task
from jaxfer.train.predict import predict_volume
from jaxfer.train.risk_map import amplified, instance_risk, normalised, positional_risk


def source_log_probs(run: Run, source: Source, image: np.ndarray) -> Float32[np.ndarray, "x y z s"]:
    """The frozen source's log-probabilities of every voxel of a stored image."""
    probs = predict_volume(
        source.model,
        source.params,
        image,
        patch=tuple(source.card["patch"]),
        overlap=run.config.evaluate.overlap,
        batch_size=run.config.evaluate.batch_size,
        plane=run.config.data.plane,
    )
    # Blending rounds: without this, rows of probabilities would sum to 1 ± 1e-6.
    probs /= probs.sum(-1, keepdims=True)
    return np.log(np.maximum(probs, np.finfo(np.float32).tiny))


def shared_grid(prepared: Prepared, task: Task, cases: Sequence[TaskCase]) -> str:
    """Why the cases do not share one grid; an empty text if they do."""
    images = [prepared.files(task, case.stored.id)[0] for case in cases]
    headers = [read_header(image.path, image.channel) for image in images]
    for case, header in zip(cases, headers, strict=True):
        if header.shape != headers[0].shape:
            return f"{case.stored.id} has shape {header.shape}, others {headers[0].shape}"
        if corner_distance(headers[0], header) > AFFINE_TOLERANCE:
            return f"{case.stored.id} lies elsewhere in space than the others"
    return ""


def _positional(
    run: Run, cases: Sequence[TaskCase], log_probs: Sequence[np.ndarray]
) -> list[Float32[np.ndarray, "_ _ _"]]:
    """The positional map, cut out for each case; made slice by slice on the whole field of view.

    Its cells are stride × stride voxels of one axial slice, whatever the source's network sees: in
    3-D too the slice axis has stride 1, since slices are often several times as thick.
    """
    shape = cases[0].stored.geometry.full_shape
    channels = log_probs[0].shape[-1]
    whole = np.zeros(shape, np.float32)
    prior = class_frequencies(cases)
    classes = [case.classes() for case in cases]
    for z in range(shape[2]):
        probs = np.zeros((len(cases), *shape[:2], channels), np.float32)
        labels = np.full((len(cases), *shape[:2]), IGNORE, np.uint8)
        for i, case in enumerate(cases):
            rows, columns, slices = case.stored.geometry.window
            if slices.start <= z < slices.stop:
                probs[i, rows, columns] = np.exp(log_probs[i][:, :, z - slices.start])
                labels[i, rows, columns] = classes[i][:, :, z - slices.start]
        valid = labels != IGNORE
        if valid.any():
            whole[:, :, z] = positional_risk(
                probs,
                labels,
                valid,
                prior,
                stride=run.config.risk.stride,
                smoothing=run.config.risk.smoothing,
            )
    return [whole[case.stored.geometry.window] for case in cases]


def _with_case(
    stats: LabelStatistics, case: TaskCase, log_probs: Float32[np.ndarray, "x y z s"]
) -> LabelStatistics:
    classes = case.classes()
    valid = classes != IGNORE
    return stats.update(log_probs, np.where(valid, classes, 0), mask=valid)


def write_instance_maps(
    prepared: Prepared, target: Task, source: Foreign, cases: Sequence[TaskCase], folder: Path
) -> None:
    """The instance maps of a source that is known by its outputs, as NIfTI in nats."""
    stats = LabelStatistics.zeros(cases[0].roi.num_classes, source.num_classes)
    for case in cases:
        stats = _with_case(stats, case, source.outputs(case)["log_probs"])
    table = conditional_log_probs(stats)
    for case in cases:
        log_probs, classes = source.outputs(case)["log_probs"], case.classes()
        risk = instance_risk(log_probs, classes, table, classes != IGNORE)
        file = folder / f"{case.stored.id}_instance.nii.gz"
        reference = prepared.files(target, case.stored.id)[0].path
        write_like(file, restore(risk, case.stored.geometry, 0.0), reference)


def make_risk_maps(
    run: Run,
    prepared: Prepared,
    source: Source,
    cases: Sequence[TaskCase],
    on_case: Callable[[str], None],
) -> tuple[list[TaskCase], dict[str, Any]]:
    """Both maps of every training case, as NIfTI in nats; the configured one as loss weights.

    Returns:
        The cases with the file of their weights, and a record of what the maps are like.
    """
    target = Task.parse(run.config.target)
    settings, folder = run.config.risk, run.workdir / "risk"
    folder.mkdir(exist_ok=True)
    stats = LabelStatistics.zeros(cases[0].roi.num_classes, source.model.num_classes)
    log_probs: list[np.ndarray] = []
    for case in cases:
        log_probs.append(source_log_probs(run, source, case.image()))
        stats = _with_case(stats, case, log_probs[-1])
        on_case(case.stored.id)
    log_conditional = conditional_log_probs(stats)
    np.save(folder / "log_conditional.npy", np.asarray(log_conditional))
    maps = {
        "instance": [
            instance_risk(lp, case.classes(), log_conditional, case.classes() != IGNORE)
            for case, lp in zip(cases, log_probs, strict=True)
        ]
    }
    apart = shared_grid(prepared, target, cases)
    if not apart:
        maps["positional"] = _positional(run, cases, log_probs)
    elif settings.mode == "positional":
        raise UserError(
            "config.risk.mode = positional: the target's training cases do not share a grid",
            found=apart,
            allowed="cases of one shape and one affine, registered to each other",
            mend="--config.risk.mode=instance",
        )
    record: dict[str, Any] = {
        **{k: settings[k] for k in settings},
        "positional_available": not apart,
        "positional_missing_because": apart,
    }
    weighted, weights_of_all = [], []
    for index, case in enumerate(cases):
        reference = prepared.files(target, case.stored.id)[0].path
        for mode, volumes in maps.items():
            volume = restore(volumes[index], case.stored.geometry, 0.0)
            write_like(folder / f"{case.stored.id}_{mode}.nii.gz", volume, reference)
        valid = case.classes() != IGNORE
        risk = normalised(maps[settings.mode][index], valid, settings.normalise)
        weights = amplified(
            risk, settings.amplify, gain=settings.gain, base=settings.base, clip=settings.clip
        )
        file = folder / f"{case.stored.id}_weights.npy"
        np.save(file, np.asfortranarray(weights))
        weighted.append(replace(case, risk=file))
        weights_of_all.append(weights[valid])
    valid_maps = np.concatenate(
        [m[c.classes() != IGNORE] for m, c in zip(maps["instance"], cases, strict=True)]
    )
    weights_flat = np.concatenate(weights_of_all)
    record["leep"] = -float(valid_maps.mean(dtype=np.float64))
    record["minimum"], record["maximum"] = float(weights_flat.min()), float(weights_flat.max())
    record["mean"] = float(weights_flat.mean(dtype=np.float64))
    return weighted, record
