"""The risk maps of the training cases: made once with the frozen source, kept beside the labels."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Float32, UInt8
from ml_collections import ConfigDict

from jaxfer.data.nifti import read_header, write_like
from jaxfer.data.planes import in_plane
from jaxfer.data.preprocess import restore
from jaxfer.data.sampler import TaskCase, class_frequencies
from jaxfer.data.verify import AFFINE_TOLERANCE, corner_distance
from jaxfer.errors import UserError
from jaxfer.files import read_array
from jaxfer.metrics import (
    ClassFeatureStatistics,
    LabelStatistics,
    carried_log_probs,
    carrier,
    class_balanced,
    conditional_log_probs,
)
from jaxfer.models.zoo import Source
from jaxfer.selection.collect import Wanted, sample_source
from jaxfer.selection.draw import Sampling, draw_voxels
from jaxfer.selection.foreign import Foreign
from jaxfer.stages.own_cases import own_cases
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.run import Run
from jaxfer.tasks import IGNORE, Task
from jaxfer.train.controls import controlled, spread
from jaxfer.train.feature_risk import posterior_risk
from jaxfer.train.methods import MapUse
from jaxfer.train.predict import predict_volume
from jaxfer.train.risk_map import (
    amplified,
    border_limited,
    instance_risk,
    normalised,
    positional_risk,
    smoothed,
)

Table = Float[Array, "c s"]

_OVERLAP = 0.5
"""Of the tiles in which the source sees a case; one in a batch, since the shape of a batch decides
the last bits."""
_TILES = 8
"""In which voxels are sampled for a transport plan, for the same reason the same always."""


def _seen(
    run: Run, source: Source, image: np.ndarray, layer: str
) -> Float32[np.ndarray, "x y z c"]:
    """What the frozen source says of every voxel of a stored image, tiled in one way always."""
    return predict_volume(
        source.model,
        source.params,
        image,
        patch=tuple(source.card["patch"]),
        overlap=_OVERLAP,
        batch_size=1,
        plane=run.config.data.plane,
        layer=layer,
    )


def source_log_probs(run: Run, source: Source, image: np.ndarray) -> Float32[np.ndarray, "x y z s"]:
    """The frozen source's log-probabilities of every voxel of a stored image.

    The bits do not depend on how the predictions of a run are tiled (``evaluate``).
    """
    probs = _seen(run, source, image, "")
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


def _table(cases: Sequence[TaskCase], log_probs: Sequence[np.ndarray], balanced: bool) -> Table:
    """log P(y|z) over the training cases."""
    stats = LabelStatistics.zeros(cases[0].roi.num_classes, log_probs[0].shape[-1])
    for case, own in zip(cases, log_probs, strict=True):
        stats = _with_case(stats, case, own)
    return conditional_log_probs(class_balanced(stats) if balanced else stats)


def _instance(
    cases: Sequence[TaskCase], log_probs: Sequence[np.ndarray], table: Table
) -> list[Float32[np.ndarray, "_ _ _"]]:
    found = []
    for case, own in zip(cases, log_probs, strict=True):
        classes = case.classes()
        found.append(instance_risk(own, classes, table, classes != IGNORE))
    return found


def _observed(
    run: Run, source: Source, cases: Sequence[TaskCase], on_case: Callable[[str], None]
) -> list[np.ndarray]:
    """The frozen source's log-probabilities of every case."""
    found = []
    for case in cases:
        found.append(source_log_probs(run, source, case.image()))
        on_case(case.stored.id)
    return found


def _posterior(
    run: Run, source: Source, cases: Sequence[TaskCase], settings: ConfigDict
) -> list[Float32[np.ndarray, "_ _ _"]]:
    """The risk of a metric that sees the features before the head.

    They are made again for the second pass: those of all cases would fill the memory.
    """
    stats = ClassFeatureStatistics.zeros(cases[0].roi.num_classes, source.model.widths[0])
    for case in cases:
        classes = case.classes()
        valid = classes != IGNORE
        features = _seen(run, source, case.image(), "decoder_0")
        stats = stats.update(features, np.where(valid, classes, 0), mask=valid)
    stats = class_balanced(stats) if settings.balanced else stats
    found = []
    for case in cases:
        classes = case.classes()
        features = _seen(run, source, case.image(), "decoder_0")
        found.append(posterior_risk(features, classes, stats, classes != IGNORE, settings.metric))
    return found


def _samples(
    run: Run, source: Source, cases: Sequence[TaskCase], side: int
) -> tuple[Float32[np.ndarray, "n d"], UInt8[np.ndarray, " n"]]:
    """Features before the head at ``risk.samples`` voxels, classes and subjects in turn, and the
    classes there; of tiles that do not overlap, where a map's are blended."""
    patch = tuple(source.card["patch"])
    draw = draw_voxels(
        cases,
        scale=(1,) * len(patch),
        patch=patch,
        sampling=Sampling(run.config.risk.samples, 1, 0.0),
        seed=(run.config.seed, side),
    )
    wanted = {"decoder_0": Wanted("decoder_0", draw)}
    found = sample_source(source, cases, wanted, patch=patch, batch_size=_TILES)
    return found["decoder_0"].values[0], draw.labels[0]


def _carried(
    run: Run, prepared: Prepared, source: Source, cases: Sequence[TaskCase], settings: ConfigDict
) -> list[Float32[np.ndarray, "_ _ _"]]:
    """The risk where the source's classes come by optimal transport between the features.

    Raises:
        UserError: the source's own voxels are not at hand.
    """
    task = Task.parse(source.card["task"]["name"])
    own = own_cases(run, prepared, task, source)
    if isinstance(own, str):
        raise UserError(
            f"config.risk.metric = otce: there is no map of {task.name}",
            found=own,
            allowed="sources whose training scans the run has",
            mend="the source's data set in config.datasets, or another --config.risk.metric, and "
            "no method of --config.finetune.methods that asks for this one",
        )
    sides = (*_samples(run, source, own, 0), *_samples(run, source, cases, 1))
    num_classes = cases[0].roi.num_classes
    plan = carrier(*sides, num_source_classes=source.num_classes, num_classes=num_classes)
    if not plan.converged:
        run.say(f"  the transport plan of {task.name} has not converged; its map is a rough one")
    log_probs = [
        np.asarray(carried_log_probs(plan, _seen(run, source, case.image(), "decoder_0")))
        for case in cases
    ]
    return _instance(cases, log_probs, _table(cases, log_probs, settings.balanced))


def _maps(
    run: Run,
    prepared: Prepared,
    source: Source,
    cases: Sequence[TaskCase],
    log_probs: Sequence[np.ndarray],
    settings: ConfigDict,
) -> list[Float32[np.ndarray, "_ _ _"]]:
    """The risk of every case in nats, as the section ``risk`` says it.

    Raises:
        UserError: a positional map is asked for, and the cases share no grid.
    """
    if settings.mode == "instance" and settings.metric == "otce":
        return _carried(run, prepared, source, cases, settings)
    if settings.mode == "instance" and settings.metric != "leep":
        return _posterior(run, source, cases, settings)
    if settings.mode == "instance":
        return _instance(cases, log_probs, _table(cases, log_probs, settings.balanced))
    if apart := shared_grid(prepared, Task.parse(run.config.target), cases):
        raise UserError(
            "config.risk.mode = positional: the target's training cases do not share a grid",
            found=apart,
            allowed="cases of one shape and one affine, registered to each other",
            mend="--config.risk.mode=instance",
        )
    return _positional(run, cases, log_probs)


def _weights(
    run: Run,
    cases: Sequence[TaskCase],
    maps: Sequence[np.ndarray],
    settings: ConfigDict,
    use: MapUse,
    root: Path,
) -> list[Path]:
    """The files of the weights that one use of a map makes of it, case by case."""
    folder = root / use.name
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for case, risk in zip(cases, maps, strict=True):
        classes = case.classes()
        axes = in_plane(case.plane) if len(run.config.model.patch) == 2 else (0, 1, 2)
        risk = border_limited(risk, classes, axes, settings.border)
        risk = smoothed(risk, classes != IGNORE, axes, settings.blur)
        weights = amplified(
            normalised(risk, classes != IGNORE, settings.normalise),
            settings.amplify,
            gain=settings.gain,
            base=settings.base,
            clip=settings.clip,
        )
        seed = zlib.crc32(f"{run.config.seed} {case.stored.id}".encode())
        weights = controlled(weights, classes, use.controls, seed)
        files.append(_file_of(folder, case))
        np.save(files[-1], np.asfortranarray(weights))
    return files


def _file_of(folder: Path, case: TaskCase) -> Path:
    return folder / f"{case.stored.id}_weights.npy"


def export_weights(
    prepared: Prepared, target: Task, cases: Sequence[TaskCase], folder: Path
) -> None:
    """Writes the weights that one use of a map makes as NIfTI beside them, to be looked at: 0
    where nothing is trained, and where the way to the scan's grid would mix in some of that."""
    for case in cases:
        file, geometry = _file_of(folder, case), case.stored.geometry
        trained = restore((case.classes() != IGNORE).astype(np.float32), geometry, 0.0)
        weights = restore(read_array(file), geometry, 0.0)
        reference = prepared.files(target, case.stored.id)[0].path
        whole = np.where(trained > 1.0 - 1e-3, weights, 0.0).astype(np.float32)
        write_like(file.with_suffix(".nii.gz"), whole, reference)


def mean_spread(cases: Sequence[TaskCase], folder: Path) -> float:
    """How far weights of one class lie apart, relative to their mean: on average over the cases.

    Args:
        cases: whose weights are told of.
        folder: of the weights that one use of a map makes.
    """
    found = [spread(read_array(_file_of(folder, case)), case.classes()) for case in cases]
    return float(np.mean(found))


def risk_settings(run: Run, use: MapUse) -> ConfigDict:
    """The section ``risk``, with the fields that one use of a map insists on."""
    return ConfigDict({**run.config.risk, **dict(use.settings)})


def weights_for(
    run: Run,
    prepared: Prepared,
    sources: Sequence[Source],
    cases: Sequence[TaskCase],
    uses: Sequence[MapUse],
    folder: Path,
) -> list[list[Path]]:
    """The files of the weights that each use makes of the maps, case by case.

    Args:
        sources: whose maps' mean, in nats, is used.
        folder: gets a folder for each use; of these sources alone.
    """
    sums: list[list[np.ndarray]] = []
    for source in sources:
        log_probs = _observed(run, source, cases, lambda _: None)
        own = [
            _maps(run, prepared, source, cases, log_probs, risk_settings(run, use)) for use in uses
        ]
        sums = _added(sums, own) if sums else own
    return [
        _weights(run, cases, [m / len(sources) for m in maps], risk_settings(run, use), use, folder)
        for maps, use in zip(sums, uses, strict=True)
    ]


def _added(
    first: Sequence[Sequence[np.ndarray]], second: Sequence[Sequence[np.ndarray]]
) -> list[list[np.ndarray]]:
    return [[a + b for a, b in zip(*maps, strict=True)] for maps in zip(first, second, strict=True)]


def make_risk_maps(
    run: Run,
    prepared: Prepared,
    source: Source,
    cases: Sequence[TaskCase],
    on_case: Callable[[str], None],
) -> dict[str, Any]:
    """Both maps of every training case, as NIfTI in nats, to be looked at.

    Returns:
        A record of what the configured map and its weights are like.
    """
    target = Task.parse(run.config.target)
    settings, folder = run.config.risk, run.workdir / "risk"
    folder.mkdir(exist_ok=True)
    log_probs = _observed(run, source, cases, on_case)
    table = _table(cases, log_probs, balanced=False)
    np.save(folder / "log_conditional.npy", np.asarray(table))
    maps = {"instance": _instance(cases, log_probs, table)}
    apart = shared_grid(prepared, target, cases)
    if not apart:
        maps["positional"] = _positional(run, cases, log_probs)
    for index, case in enumerate(cases):
        reference = prepared.files(target, case.stored.id)[0].path
        for mode, volumes in maps.items():
            volume = restore(volumes[index], case.stored.geometry, 0.0)
            write_like(folder / f"{case.stored.id}_{mode}.nii.gz", volume, reference)
    configured = _maps(run, prepared, source, cases, log_probs, settings)
    files = _weights(run, cases, configured, settings, MapUse(), folder)
    inside = [case.classes() != IGNORE for case in cases]
    risk = np.concatenate([m[i] for m, i in zip(maps["instance"], inside, strict=True)])
    weights = np.concatenate([read_array(f)[i] for f, i in zip(files, inside, strict=True)])
    return {
        **{k: settings[k] for k in settings},
        "positional_available": not apart,
        "positional_missing_because": apart,
        "leep": -float(risk.mean(dtype=np.float64)),
        "map_minimum": float(weights.min()),
        "map_maximum": float(weights.max()),
        "map_mean": float(weights.mean(dtype=np.float64)),
        "spread_within_class": mean_spread(cases, files[0].parent),
    }
