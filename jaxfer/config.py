"""The defaults of every run, each with its meaning, and their validation, all problems at once."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxfer.data.planes import AXES, NORMALS
from jaxfer.errors import Problem, UserError, raise_problems
from jaxfer.metrics.registry import METRICS, score_names
from jaxfer.models.layers import layers_of
from jaxfer.models.levels import STRIDES_ALLOWED, network_strides, patch_multiples
from jaxfer.tasks import Task

STAGES = ("prepare", "pretrain", "select", "finetune", "evaluate", "report")
ALONE = ("verify",)
"""Stages that another one, prepare, does too; named, they are done alone."""
METHODS = ("scratch", "plain", "weighted")


def default_config() -> ConfigDict:
    """The configuration that every file of configs/ starts from."""
    c = ConfigDict()
    c.name = ""  # of the run; the workdir defaults to runs/<name>
    c.seed = 0  # of the splits, the initial parameters, the order of the batches
    c.stages = STAGES  # which stages this launch runs, in their own order; ('verify',): check files
    c.workers = 0  # cases that are verified and stored at once; 0 = one per processor core
    c.target = ""  # task to learn from few labelled scans: dataset/site/modality/RoI
    c.sources = ("",)  # tasks whose networks are on the shelf, or are to be trained for it
    c.shelf = ""  # folder of source models that runs share; '' = <workdir>/sources
    c.foreign = ()  # folders of outputs that other programs wrote: docs/foreign-sources.md
    c.datasets = ConfigDict()  # name → layout, folder and what else its layout needs

    c.data = ConfigDict()
    c.data.root = "data"  # folder that holds the data sets' folders
    c.data.cache = ""  # folder of the preprocessed store; '' = <workdir>/store
    c.data.spacing = (1.0, 1.0, 1.0)  # mm along R, A, S; working grid of all networks; 0: as it is
    c.data.interpolation = "linear"  # of images where the spacing changes: 'linear' or 'spline'
    c.data.precision = "float16"  # of the stored images, or 'float32', which takes twice the disk
    c.data.percentiles = (0.5, 99.5)  # intensities are clipped there, inside the brain
    c.data.train_subjects = 5  # of the target: the few labelled scans
    c.data.test_subjects = 0  # of the target, at most; 0 = all that are not for training
    c.data.subset = 0  # which subjects are the few; each number another choice, larger ones nest
    c.data.folds = 0  # parts that the target's subjects are dealt into; 0 = no folds
    c.data.fold = 0  # the part that is tested on, from 0; the few are of the others
    c.data.validation_fraction = 0.2  # of a source's subjects: for the Dice in its card
    c.data.plane = "axial"  # of the slices that 2-D networks see; or 'coronal', 'sagittal'

    c.run = ConfigDict()  # how a launch goes about it; changes no number
    c.run.log_every = 10  # steps between records in metrics.jsonl
    c.run.checkpoint_every = 50  # steps between checkpoints of an unfinished training
    c.run.keep_checkpoints = 2  # of each unfinished training; the last one may be damaged
    c.run.max_minutes = 0.0  # then saves and ends with exit status 75; 0 = no limit
    c.run.compilation_cache = ""  # folder; '' = jaxfer in the user's cache folder, 'off' = none

    c.model = ConfigDict()
    c.model.widths = (16, 32, 64)  # channels per level, finest first
    c.model.patch = (96, 96)  # of training patches and tiles: 2 numbers a 2-D network, 3 a 3-D one
    c.model.strides = ("auto",)  # 3-D: by the spacing; or one per level but the last, as '2x2x1'
    c.model.conv_impl = "auto"  # convolutions: 'native', 'shifted' (fast on CPUs), or by platform
    c.model.precision = "auto"  # 'float32', 'bfloat16'; auto = bfloat16 on GPUs and TPUs
    c.model.remat = False  # recompute in the backward pass: slower, and a fraction of the memory

    c.augment = ConfigDict()
    # Each change has its strength, at most, and the share of the patches that it happens to.
    c.augment.flip = ("left-right",)  # axes: also 'front-back', 'up-down'; each on its own
    c.augment.flip_probability = 0.5
    c.augment.rotation = 10.0  # degrees
    c.augment.rotation_probability = 1.0
    c.augment.scale = 0.1  # relative
    c.augment.scale_probability = 1.0
    c.augment.elastic = 3.0  # pixels that a smooth random field moves a point
    c.augment.elastic_probability = 0.0
    c.augment.blur = 1.0  # pixels; standard deviation
    c.augment.blur_probability = 0.0
    c.augment.low_resolution = 1.0  # longer voxels, relative: 1 = twice as long
    c.augment.low_resolution_probability = 0.0
    c.augment.gamma = 0.5  # exponents from 1/(1 + this) to 1 + this
    c.augment.gamma_probability = 0.0
    c.augment.intensity = 0.2  # contrast and brightness: relative gain, offset in deviations
    c.augment.intensity_probability = 1.0
    c.augment.noise = 0.1  # standard deviation of the added noise
    c.augment.noise_probability = 1.0

    for stage, steps in (("pretrain", 400), ("finetune", 400)):
        c[stage] = ConfigDict()
        c[stage].steps = steps
        c[stage].batch_size = 8  # patches; over all devices
        c[stage].accumulate = 1  # parts of a step, one after the other, for less memory
        c[stage].learning_rate = 5e-3  # peak of AdamW: linear warm-up, cosine decay to 0
        c[stage].warmup = 0.05  # share of the steps
        c[stage].weight_decay = 1e-4
        c[stage].clip_gradient = 1.0  # global norm
        c[stage].foreground_patches = 0.5  # share of patches centred on foreground
        c[stage].dice_weight = 1.0  # of the soft Dice loss beside the cross-entropy; 0 = none
        c[stage].skip_nonfinite = 0  # steps in a row that may be skipped for a NaN or infinity
    c.pretrain.validate_every = 0  # steps; keeps the best on the validation subjects; 0 = the last

    c.select = ConfigDict()
    c.select.modality = "hard"  # 'hard': drop sources of other modalities; 'none': keep all
    c.select.roi_keep = 3  # sources that survive RoI analysis, best SSIM first; 0 = all
    c.select.roi_similarity = "ssim"  # or 'ssim_centred', 'ssim_shape', 'ssim_windowed', 'dice'
    c.select.ssim_k1 = 0.01
    c.select.ssim_k2 = 0.03
    c.select.metrics = ("leep", "nce", "h_score", "logme")  # or ('all',)
    c.select.layers = ("decoder_0",)  # whose features are scored; decoder_0 is before the head
    c.select.rank_by = "leep"  # which score orders the shortlist: metric, or metric@layer
    c.select.samples = 1000  # voxels in a repetition, for metrics that cannot see all of them
    c.select.repetitions = 10  # samples that are drawn, for the mean and its standard error
    c.select.noise = 0.1  # standard deviation of the second image of the consistency metrics

    c.risk = ConfigDict()
    c.risk.mode = "instance"  # map that weights the loss: 'instance' or 'positional'
    c.risk.stride = 4  # pixels; side of the positional map's cells in each axial slice
    c.risk.smoothing = 1.0  # pixels of prior that the positional table gets per class pair
    c.risk.normalise = "none"  # 'none', 'minmax', 'mean1' or 'rank', per image
    c.risk.amplify = "exp"  # 'identity', 'exp' or 'pow'
    c.risk.gain = 0.5  # exp(gain × risk); 0.5 turns an ignorant source into √(1/frequency)
    c.risk.base = 10.0  # of 'pow'
    c.risk.clip = 20.0  # largest weight

    c.finetune.methods = METHODS
    c.finetune.source = "best"  # the first of the ranking, or a task's name
    c.finetune.seeds = (0,)  # each: another order, augmentation and new leaves
    c.finetune.region = "all"  # pixels in the weighted cross-entropy: 'all', 'foreground'
    c.finetune.denominator = "foreground"  # weighted: 'foreground' (of the volume) or 'pixels'

    c.evaluate = ConfigDict()
    c.evaluate.overlap = 0.5  # of neighbouring tiles
    c.evaluate.batch_size = 16  # tiles
    c.evaluate.mirror = False  # test subjects: mean over the reflections of each tile, 4 or 8 times
    return c


def finish(
    config: ConfigDict,
    preset: str = "",
    transfers: Mapping[str, tuple[str, tuple[str, ...]]] | None = None,
) -> ConfigDict:
    """Applies what stands behind the colon of ``--config=FILE.py:PRESETS``, and locks.

    ``tiny`` shrinks networks and schedules to what runs in a minute or two: to see that everything
    is in its place, not how good it is. It goes with any other: ``FILE.py:sites,tiny``.

    Args:
        config: of a file of configs/.
        preset: names between commas; they become part of the run's name.
        transfers: the file's own presets, each with the target and the sources that it is about.
    """
    transfers = transfers or {}
    names = preset.split(",") if preset else []
    chosen = [name for name in names if name in transfers]
    if len(set(names)) < len(names) or {*names} - {*transfers, "tiny"} or len(chosen) > 1:
        listed = ", ".join(f"FILE.py:{name}" for name in (*transfers, "tiny"))
        combined = ", or FILE.py:ONE_OF_THEM,tiny" if transfers else ""
        raise UserError(
            "--config: no preset of this name", found=preset, allowed=f"FILE.py, {listed}{combined}"
        )
    for name in chosen:
        config.name += f"-{name}"
        config.target, config.sources = transfers[name]
    if "tiny" in names:
        config.name += "-tiny"
        config.model.widths = (4, 8)
        config.model.strides = ("auto",)
        config.model.patch = (32,) * len(config.model.patch)
        config.data.spacing = tuple(max(s, 4.0) for s in config.data.spacing)
        config.pretrain.steps = config.finetune.steps = 6
        config.run.log_every = 2
        config.pretrain.batch_size = config.finetune.batch_size = 4
        config.finetune.seeds = config.finetune.seeds[:1]
        config.sources = config.sources[:3]
        config.data.train_subjects = min(config.data.train_subjects, 2)
        config.data.test_subjects = 2
        if "phantom" in config.datasets:
            config.datasets.phantom.subjects = tuple(4 for _ in config.datasets.phantom.sites)
    return config.lock()


def _positive(value: Any) -> bool:
    return value > 0


def _unit(value: Any) -> bool:
    return 0 <= value <= 1


def _seed(value: Any) -> bool:
    return 0 <= value < 2**31


_CHANGES = (
    *("flip", "rotation", "scale", "elastic", "blur", "low_resolution"),
    *("gamma", "intensity", "noise"),
)

_ROI_SIMILARITIES = ("ssim", "ssim_centred", "ssim_shape", "ssim_windowed", "dice")

_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda v: bool(v) and "/" not in v and not v.startswith("."), "a folder's name"),
    "seed": (_seed, "0 … 2³¹ − 1"),
    "foreign": (lambda v: all(v) and len(set(v)) == len(v), "each folder once"),
    "workers": (lambda v: v >= 0, "0 (one per core) or more"),
    "data.spacing": (
        lambda v: len(v) == 3 and all(s >= 0 for s in v),
        "three lengths in mm, 0 for the files' own",
    ),
    "data.interpolation": (lambda v: v in ("linear", "spline"), "linear, spline"),
    "data.precision": (lambda v: v in ("float16", "float32"), "float16, float32"),
    "data.percentiles": (
        lambda v: len(v) == 2 and 0 <= v[0] < v[1] <= 100,
        "two rising percentiles in 0 … 100",
    ),
    "data.train_subjects": (_positive, "at least 1"),
    "data.test_subjects": (lambda v: v >= 0, "0 (all) or more"),
    "data.subset": (_seed, "0 … 2³¹ − 1"),
    "data.folds": (lambda v: v == 0 or v >= 2, "0 (none), or 2 or more"),
    "data.fold": (lambda v: v >= 0, "0 … folds − 1"),
    "data.plane": (lambda v: v in NORMALS, ", ".join(NORMALS)),
    "data.validation_fraction": (lambda v: 0 < v < 1, "between 0 and 1"),
    "run.log_every": (_positive, "at least 1"),
    "run.checkpoint_every": (_positive, "at least 1"),
    "run.keep_checkpoints": (_positive, "at least 1"),
    "run.max_minutes": (lambda v: v >= 0, "0 (no limit) or more"),
    "pretrain.validate_every": (lambda v: v >= 0, "0 (never) or more"),
    "model.widths": (
        lambda v: len(v) >= 2 and all(w > 0 for w in v),
        "two or more numbers of channels",
    ),
    "augment.flip": (
        lambda v: len(set(v)) == len(v) and set(v) <= set(AXES),
        f"each at most once: {', '.join(AXES)}",
    ),
    "model.strides": (lambda v: len(v) > 0, STRIDES_ALLOWED),
    "model.conv_impl": (lambda v: v in ("auto", "native", "shifted"), "auto, native, shifted"),
    "model.precision": (
        lambda v: v in ("auto", "float32", "bfloat16"),
        "auto, float32, bfloat16",
    ),
    "augment.rotation": (lambda v: v >= 0, "0 or more"),
    "augment.scale": (lambda v: 0 <= v < 1, "0 or more, under 1"),
    "augment.elastic": (lambda v: 0 <= v <= 7, "0 … 7 pixels, with which nothing folds"),
    "augment.blur": (lambda v: v >= 0, "0 or more"),
    "augment.low_resolution": (lambda v: v >= 0, "0 or more"),
    "augment.gamma": (lambda v: v >= 0, "0 or more"),
    "augment.intensity": (_unit, "0 … 1"),
    "augment.noise": (lambda v: v >= 0, "0 or more"),
    **{f"augment.{change}_probability": (_unit, "0 … 1") for change in _CHANGES},
    "select.modality": (lambda v: v in ("hard", "none"), "hard, none"),
    "select.roi_keep": (lambda v: v >= 0, "0 (all) or more"),
    "select.roi_similarity": (lambda v: v in _ROI_SIMILARITIES, ", ".join(_ROI_SIMILARITIES)),
    "select.ssim_k1": (_positive, "above 0"),
    "select.ssim_k2": (_positive, "above 0"),
    "select.layers": (lambda v: len(set(v)) == len(v), "each layer once"),
    "select.samples": (lambda v: v >= 2, "at least 2"),
    "select.repetitions": (_positive, "at least 1"),
    "select.noise": (_positive, "above 0"),
    "risk.mode": (lambda v: v in ("instance", "positional"), "instance, positional"),
    "risk.stride": (_positive, "at least 1"),
    "risk.smoothing": (lambda v: v >= 0, "0 or more"),
    "risk.normalise": (
        lambda v: v in ("none", "minmax", "mean1", "rank"),
        "none, minmax, mean1, rank",
    ),
    "risk.amplify": (lambda v: v in ("identity", "exp", "pow"), "identity, exp, pow"),
    "risk.gain": (lambda v: v >= 0, "0 or more"),
    "risk.base": (lambda v: v > 1, "above 1"),
    "risk.clip": (_positive, "above 0"),
    "finetune.region": (lambda v: v in ("all", "foreground"), "all, foreground"),
    "finetune.denominator": (lambda v: v in ("foreground", "pixels"), "foreground, pixels"),
    "finetune.seeds": (
        lambda v: 0 < len(v) == len(set(v)) and all(_seed(s) for s in v),
        "one seed or more, distinct, 0 … 2³¹ − 1",
    ),
    "evaluate.overlap": (lambda v: 0 <= v < 1, "0 or more, under 1"),
    "evaluate.batch_size": (_positive, "at least 1"),
} | {
    f"{stage}.{field}": rule
    for stage in ("pretrain", "finetune")
    for field, rule in {
        "steps": (_positive, "at least 1"),
        "batch_size": (_positive, "at least 1"),
        "accumulate": (_positive, "at least 1"),
        "learning_rate": (_positive, "above 0"),
        "warmup": (_unit, "0 … 1"),
        "weight_decay": (lambda v: v >= 0, "0 or more"),
        "clip_gradient": (_positive, "above 0"),
        "foreground_patches": (_unit, "0 … 1"),
        "dice_weight": (lambda v: v >= 0, "0 or more"),
        "skip_nonfinite": (lambda v: v >= 0, "0 (stops at the first) or more"),
    }.items()
}


def _fields(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Every field by its path; ``datasets`` is one field, its entries have no defaults."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict) and key != "datasets":
            found |= _fields(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _element(default: tuple[Any, ...]) -> Any:
    """What the elements of a tuple are like; of one that is empty as it stands, texts."""
    return default[0] if default else ""


def _like(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_like(v, _element(default)) for v in value)
    if isinstance(default, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(default)


def _kind(default: Any) -> str:
    if isinstance(default, tuple):
        return f"a tuple, each {_kind(_element(default))}"
    names = {str: "text", int: "a whole number", float: "a finite number", bool: "True or False"}
    return names.get(type(default), "a dictionary")


def _structure(found: dict[str, Any], known: dict[str, Any]) -> list[Problem]:
    """Fields that are missing, of another kind than the default, or unknown."""
    problems = []
    for path, default in known.items():
        if path not in found:
            problems.append(Problem("error", f"config.{path}", "missing", None, _kind(default)))
        elif not _like(found[path], default):
            value = repr(found[path])
            problems.append(Problem("error", f"config.{path}", "wrong kind", value, _kind(default)))
    for path in sorted(found.keys() - known.keys()):
        near = (*difflib.get_close_matches(path, known, 1), "the fields in jaxfer/config.py")[0]
        problems.append(Problem("error", f"config.{path}", "unknown field", found[path], near))
    return problems


def _of_networks(fields: dict[str, Any]) -> str:
    """What to know of the sources that can be named for fine-tuning."""
    told = "those of config.foreign are known by their outputs alone and cannot be fine-tuned here"
    return f"; {told}" if fields["foreign"] else ""


def _known(
    field: str, values: tuple[str, ...], allowed: tuple[str, ...], note: str = ""
) -> list[Problem]:
    where, listed = f"config.{field}", ", ".join(allowed) + note
    if not values:
        return [Problem("error", where, "empty", "()", listed)]
    return [Problem("error", where, "unknown value", v, listed) for v in values if v not in allowed]


def chosen_metrics(named: tuple[str, ...]) -> tuple[str, ...]:
    """The metrics of ``select.metrics``, where 'all' stands for the whole registry."""
    return tuple(METRICS) if tuple(named) == ("all",) else tuple(named)


def chosen_scores(select: ConfigDict) -> tuple[str, ...]:
    """The names of the scores that the section ``select`` asks for, in their order."""
    return score_names(chosen_metrics(select.metrics), select.layers)


def _ruled(fields: dict[str, Any]) -> list[Problem]:
    """What is wrong with the values, each of the right kind."""
    problems = [
        Problem("error", f"config.{path}", "not allowed", repr(fields[path]), allowed)
        for path, (holds, allowed) in _RULES.items()
        if not holds(fields[path])
    ]
    metrics, sources = chosen_metrics(fields["select.metrics"]), fields["sources"]
    problems += _known("stages", fields["stages"], (*ALONE, *STAGES))
    problems += _known("finetune.methods", fields["finetune.methods"], METHODS)
    layers = fields["select.layers"]
    scores = score_names([m for m in metrics if m in METRICS], layers)
    problems += _known("select.metrics", metrics, tuple(METRICS))
    if _RULES["model.widths"][0](fields["model.widths"]):
        known = layers_of(fields["model.widths"], len(fields["model.patch"]))
        problems += _known("select.layers", layers, tuple(known))
    problems += _known("select.rank_by", (fields["select.rank_by"],), scores)
    named = (fields["finetune.source"],)
    problems += _known("finetune.source", named, ("best", *sources), _of_networks(fields))
    if not sources and not any(fields["foreign"]):
        problems.append(Problem("error", "config.sources", "empty", "()", "one task or more"))
    problems += _patch(fields)
    for stage in ("pretrain", "finetune"):
        size, parts = fields[f"{stage}.batch_size"], fields[f"{stage}.accumulate"]
        if parts > 0 and size % parts:
            where, what = f"config.{stage}.accumulate", "does not divide the batch"
            problems.append(Problem("error", where, what, parts, f"a divisor of {size}"))
    if len(fields["model.patch"]) == 3 and fields["data.plane"] != "axial":
        what = "a plane, but the patches are in 3-D"
        found, allowed = fields["data.plane"], "axial, or a model.patch of two numbers"
        problems.append(Problem("error", "config.data.plane", what, found, allowed))
    if fields["data.fold"] >= max(fields["data.folds"], 1):
        allowed = "0 … folds − 1, and 0 without folds"
        problems.append(
            Problem("error", "config.data.fold", "no such fold", fields["data.fold"], allowed)
        )
    return problems + _tasks(fields["target"], sources, fields["datasets"])


def _patch(fields: dict[str, Any]) -> list[Problem]:
    """What is wrong with the strides, or else with the patch that they divide."""
    patch, spacing, levels = (fields[k] for k in ("model.patch", "data.spacing", "model.widths"))
    if len(patch) not in (2, 3):
        allowed = "two numbers (2-D) or three (3-D)"
        return [Problem("error", "config.model.patch", "neither 2-D nor 3-D", patch, allowed)]
    named = fields["model.strides"]
    if len(spacing) != 3 or len(levels) < 2 or not named:
        return []
    if len(patch) == 3 and 0 in spacing:
        what = "unknown lengths, but in 3-D the network's kernels and strides follow them"
        allowed = "three lengths in mm, above 0"
        return [Problem("error", "config.data.spacing", what, spacing, allowed)]
    try:
        strides = network_strides(named, len(patch), len(levels), spacing)
    except ValueError as error:
        return [Problem("error", "config.model.strides", str(error), named, STRIDES_ALLOWED)]
    multiples = patch_multiples(strides)
    if all(p > 0 and p % m == 0 for p, m in zip(patch, multiples, strict=True)):
        return []
    allowed = f"multiples of {' × '.join(map(str, multiples))} (the product of the strides)"
    return [Problem("error", "config.model.patch", "does not fit the network", patch, allowed)]


def _tasks(target: str, sources: tuple[str, ...], datasets: ConfigDict) -> list[Problem]:
    problems, slugs = [], []
    declared = ", ".join(sorted(datasets)) or "none is declared in config.datasets"
    for where, name in [("config.target", target), *(("config.sources", s) for s in sources)]:
        try:
            task = Task.parse(name)
        except UserError as error:
            what = "not a task's name"
            problems.append(Problem("error", where, what, repr(name), error.allowed))
            continue
        if task.dataset not in datasets:
            what = f"'{name}' is of an unknown dataset"
            problems.append(Problem("error", where, what, task.dataset, declared))
        if where == "config.sources":
            slugs.append(task.slug)
    if len(set(slugs)) < len(slugs):
        what = "two of them are the same, or differ in '/' and '-' alone"
        problems.append(Problem("error", "config.sources", what, sources))
    if target in sources:
        what = "the target is among its sources"
        problems.append(Problem("error", "config.sources", what, target))
    for name, entry in datasets.items():
        if not (isinstance(entry, ConfigDict) and isinstance(entry.get("layout"), str)):
            where, allowed = f"config.datasets.{name}", "layout, folder and what its layout needs"
            problems.append(Problem("error", where, "not a dataset", repr(plain(entry)), allowed))
    return problems


def validate(config: ConfigDict) -> None:
    """Raises one ``UserError`` that lists everything that is wrong with the configuration."""
    known, found = _fields(default_config()), _fields(config)
    problems = _structure(found, known)
    broken = {p.where for p in problems}
    # The rules look at a default where a field is broken, and what they say of it is left out.
    sound = {path: found[path] for path in known if f"config.{path}" not in broken}
    problems += [p for p in _ruled(known | sound) if p.where not in broken]
    raise_problems(problems, "the configuration has problems")


def plain(value: Any) -> Any:
    """The value in terms of JSON: dictionaries, lists, numbers, strings."""
    if isinstance(value, ConfigDict):
        return {k: plain(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def fingerprint(*parts: Any) -> str:
    """A short hash of values, equal just when they are equal as JSON."""
    text = json.dumps(plain(parts), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
