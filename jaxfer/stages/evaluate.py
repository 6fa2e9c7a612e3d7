"""Stage evaluate: predict the test subjects on their own grids and measure, per case and class."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxfer.config import METHODS
from jaxfer.data.nifti import read_header, read_volume, write_like
from jaxfer.data.preprocess import restore
from jaxfer.data.sampler import TaskCase
from jaxfer.errors import UserError
from jaxfer.evaluation import (
    EMPTY_MASK_POLICY,
    CaseResult,
    collapsed,
    compare,
    summarise,
    transfer_gains,
)
from jaxfer.files import read_array
from jaxfer.models.checkpoint import load_params
from jaxfer.stages.finetune import starting_source
from jaxfer.stages.harm import write_harm_maps
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.risk import source_log_probs
from jaxfer.stages.run import Run, read_json, write_json
from jaxfer.stages.training import network
from jaxfer.tasks import IGNORE, RoI, Task, classes_of
from jaxfer.train.predict import predict_volume
from jaxfer.train.risk_map import instance_risk
from jaxfer.train.step import Params


def prediction_values(roi: RoI) -> list[int]:
    """Label value of each class in a written prediction: the lowest of its group; background 0."""
    return [0, *(min(values) for _, values in roi.classes)]


def predicted_classes(run: Run, params: Params, case: TaskCase) -> UInt8[np.ndarray, "x y z"]:
    """Class indices on the file's own grid."""
    model = network(run.config, case.roi.num_classes)
    probs = predict_volume(
        model,
        params,
        case.image(),
        patch=tuple(run.config.model.patch),
        overlap=run.config.evaluate.overlap,
        batch_size=run.config.evaluate.batch_size,
        plane=run.config.data.plane,
        mirror=run.config.evaluate.mirror,
    )
    channels = [
        restore(probs[..., c], case.stored.geometry, 1.0 if c == 0 else 0.0)
        for c in range(probs.shape[-1])
    ]
    return np.argmax(channels, axis=0).astype(np.uint8)


def _write(file: Path, classes: UInt8[np.ndarray, "x y z"], roi: RoI, reference: Path) -> None:
    """A prediction as label values."""
    values = np.array(prediction_values(roi))
    kind = np.uint8 if values.max() < 256 else np.int16
    write_like(file, values[classes].astype(kind), reference)


def measured(
    prepared: Prepared,
    target: Task,
    case: TaskCase,
    predicted: UInt8[np.ndarray, "x y z"],
    *,
    method: str,
    seed: int,
) -> list[CaseResult]:
    """A test case's measures, against the label map as it was downloaded."""
    image, label = prepared.files(target, case.stored.id)
    truth = classes_of(np.round(read_volume(label)).astype(np.int32), case.roi, case.ignore)
    return compare(
        predicted,
        truth,
        case.roi.class_names,
        spacing=read_header(image.path, image.channel).spacing,
        method=method,
        seed=seed,
        case=case.stored.id,
        subject=case.stored.subject,
    )


def _log_conditional(run: Run) -> np.ndarray:
    """log P(y|z) of the risk maps, as stored."""
    path = run.workdir / "risk" / "log_conditional.npy"
    try:
        found = read_array(path)
        if found.ndim != 2:
            raise ValueError(f"its shape is {found.shape}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not the table of the risk maps",
            found=f"{type(error).__name__}: {error}",
            mend="delete finetune/done.json in the workdir; the stage makes it again",
        ) from error
    return found


def _display_risk(run: Run, cases: Sequence[TaskCase], prepared: Prepared) -> dict[str, Path]:
    """Instance maps of the test cases, from their own labels: to look at, never to train with."""
    target = Task.parse(run.config.target)
    source = starting_source(run, prepared)
    log_conditional = jnp.asarray(_log_conditional(run), jnp.float32)
    files = {}
    for case in cases:
        log_probs = source_log_probs(run, source, case.image())
        classes = case.classes()
        risk = instance_risk(log_probs, classes, log_conditional, classes != IGNORE)
        file = run.workdir / "evaluate" / "risk" / f"{case.stored.id}.nii.gz"
        reference = prepared.files(target, case.stored.id)[0].path
        write_like(file, restore(risk, case.stored.geometry, 0.0), reference)
        files[case.stored.id] = file
    return files


def measures_table(results: Sequence[CaseResult]) -> str:
    """The measures as comma-separated values, a line each."""
    text = io.StringIO()
    table = csv.writer(text)
    head = [field.name for field in dataclasses.fields(CaseResult)]
    table.writerow(head)
    for result in results:
        table.writerow([getattr(result, field) for field in head])
    return text.getvalue()


def run(run: Run) -> str:
    """Predicts every test case with every fine-tuned network and writes the measures."""
    config, prepared = run.config, Prepared.read(run)
    target = Task.parse(config.target)
    roi, ignore = prepared.roi(target), prepared.ignore(target)
    cases = prepared.cases(target, "test")
    file = run.workdir / "finetune" / "summary.json"
    summary = read_json(file, {"methods": {str: {"initial": str}}, "seeds": [int]})
    if not {*summary["methods"]} <= {*METHODS}:
        raise UserError(
            f"{file}: methods that there are not",
            found=", ".join(summary["methods"]),
            allowed=", ".join(METHODS),
            mend="delete finetune/done.json in the workdir; the stage is then done again",
        )
    folder = run.workdir / "evaluate"
    jobs = [(m, s) for m in summary["methods"] for s in summary["seeds"]]
    results: list[CaseResult] = []
    written: dict[str, dict[str, dict[str, str]]] = {case.stored.id: {} for case in cases}
    with run.progress("evaluating", len(jobs) * len(cases)) as advance:
        for method, seed in jobs:
            checkpoint = run.workdir / "finetune" / method / f"seed{seed}" / "checkpoint"
            model = network(config, roi.num_classes)
            params = load_params(checkpoint, model, tuple(config.model.patch))
            for case in cases:
                image, _ = prepared.files(target, case.stored.id)
                file = folder / "predictions" / method / f"seed{seed}" / f"{case.stored.id}.nii.gz"
                predicted = predicted_classes(run, params, case)
                _write(file, predicted, roi, image.path)
                results += measured(prepared, target, case, predicted, method=method, seed=seed)
                own = written[case.stored.id].setdefault(method, {})
                own[str(seed)] = str(file.relative_to(run.workdir))
                advance(note=f"{method} {case.stored.id}")
    risk = _display_risk(run, cases, prepared)
    transferred = [m for m, about in summary["methods"].items() if about["initial"] != "random"]
    compared = ["scratch", *transferred] if "scratch" in summary["methods"] else []
    records: list[dict[str, Any]] = []
    for case in cases:
        image, label = prepared.files(target, case.stored.id)
        records.append(
            {
                "case": case.stored.id,
                "subject": case.stored.subject,
                "image": str(image.path),
                "channel": image.channel,
                "label": str(label),
                "predictions": written[case.stored.id],
                "risk": str(risk[case.stored.id].relative_to(run.workdir)),
                "harm": write_harm_maps(
                    run,
                    roi,
                    ignore,
                    case.stored.id,
                    image.path,
                    label,
                    {method: written[case.stored.id][method] for method in compared},
                    prediction_values(roi),
                )
                if compared
                else {},
            }
        )
    values = dict(zip(roi.class_names, prediction_values(roi)[1:], strict=True))
    write_json(folder / "cases.json", records)
    write_json(
        folder / "labels.json",
        {
            name: {"prediction": values[name], "reference": list(group)}
            for name, group in roi.classes
        },
    )
    (folder / "metrics.csv").write_text(measures_table(results))
    record: dict[str, Any] = {"empty_mask_policy": EMPTY_MASK_POLICY, "label_values": values}
    record |= summarise(results, seed=config.seed)
    record["collapse"] = collapsed(results, config.evaluate.collapse_dice)
    if compared:
        record["transfer"] = transfer_gains(results, transferred, seed=config.seed)
    write_json(folder / "summary.json", record)
    means = ", ".join(
        f"{name} {found['dice_mean']:.3f}" for name, found in record["methods"].items()
    )
    lost = sum(len(own["collapsed"]) for own in record["collapse"]["methods"].values())
    told = f"; {lost} of {len(jobs)} network(s) lost a class" if lost else ""
    return f"{len(cases)} test case(s); mean Dice: {means}{told}"
