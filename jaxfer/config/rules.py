"""What each field may hold, by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxfer.data.planes import AXES, NORMALS
from jaxfer.models.levels import STRIDES_ALLOWED


def _positive(value: Any) -> bool:
    return value > 0


def _unit(value: Any) -> bool:
    return 0 <= value <= 1


def _seed(value: Any) -> bool:
    return 0 <= value < 2**31


def _distinct(values: Any) -> bool:
    return len(set(values)) == len(values)


RISKS = ("leep", "lda", "gbc", "logme", "otce")

CHANGES = (
    *("flip", "rotation", "scale", "elastic", "blur", "low_resolution"),
    *("gamma", "intensity", "noise"),
)

_ROI_SIMILARITIES = ("ssim", "ssim_centred", "ssim_shape", "ssim_windowed", "dice")

PATH_COSTS = ("squares", "largest")

_REGIONS = ("all", "foreground", "foreground_rim")
_DENOMINATORS = ("foreground", "pixels", "weight_sum")

RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
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
    "data.validation_subjects": (lambda v: v >= 0, "0 (none) or more"),
    "data.subset": (_seed, "0 … 2³¹ − 1"),
    "data.folds": (lambda v: v == 0 or v >= 2, "0 (none), or 2 or more"),
    "data.fold": (lambda v: v >= 0, "0 … folds − 1"),
    "data.plane": (lambda v: v in NORMALS, ", ".join(NORMALS)),
    "data.validation_fraction": (lambda v: 0 < v < 1, "between 0 and 1"),
    "run.log_every": (_positive, "at least 1"),
    "run.checkpoint_every": (_positive, "at least 1"),
    "run.keep_checkpoints": (_positive, "at least 1"),
    "run.cpu_devices": (lambda v: v >= 0, "0 (by cores and batches) or more"),
    "run.max_minutes": (lambda v: v >= 0, "0 (no limit) or more"),
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
    **{f"augment.{change}_probability": (_unit, "0 … 1") for change in CHANGES},
    "select.modality": (lambda v: v in ("hard", "soft", "none"), "hard, soft, none"),
    "select.aggregate": (lambda v: v in ("borda", "zscore"), "borda, zscore"),
    "select.roi_keep": (lambda v: v >= 0, "0 (all) or more"),
    "select.roi_similarity": (lambda v: v in _ROI_SIMILARITIES, ", ".join(_ROI_SIMILARITIES)),
    "select.ssim_k1": (_positive, "above 0"),
    "select.ssim_k2": (_positive, "above 0"),
    "select.layers": (lambda v: len(set(v)) == len(v), "each layer once"),
    "select.samples": (lambda v: v >= 2, "at least 2"),
    "select.repetitions": (_positive, "at least 1"),
    "select.noise": (_positive, "above 0"),
    "select.path_alpha": (lambda v: v >= 0, "0 or more"),
    "select.path_beta": (lambda v: v >= 0, "0 or more"),
    "select.path_cost": (lambda v: v in PATH_COSTS, ", ".join(PATH_COSTS)),
    "risk.samples": (lambda v: v >= 2, "at least 2"),
    "risk.mode": (lambda v: v in ("instance", "positional"), "instance, positional"),
    "risk.metric": (lambda v: v in RISKS, ", ".join(RISKS)),
    "risk.border": (lambda v: v >= 0, "0 (none) or more"),
    "risk.blur": (lambda v: v >= 0, "0 (none) or more"),
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
    "pretrain.seed": (_seed, "0 … 2³¹ − 1"),
    "study.targets": (_distinct, "each task once"),
    "study.methods": (_distinct, "each method once"),
    "study.shots": (
        lambda v: bool(v) and _distinct(v) and min(v) > 0,
        "one number of subjects or more, distinct, at least 1",
    ),
    "study.subsets": (
        lambda v: bool(v) and _distinct(v) and all(0 <= s < 2**20 for s in v),
        "one number or more, distinct, 0 … 2²⁰ − 1",
    ),
    "study.pretrainings": (
        lambda v: bool(v) and _distinct(v) and all(map(_seed, v)),
        "one seed or more, distinct, 0 … 2³¹ − 1",
    ),
    "study.repeats": (lambda v: 1 <= v <= 1000, "1 … 1000"),
    "finetune.methods": (_distinct, "each method once"),
    "finetune.region": (lambda v: v in _REGIONS, ", ".join(_REGIONS)),
    "finetune.rim": (_positive, "at least 1"),
    "finetune.denominator": (lambda v: v in _DENOMINATORS, ", ".join(_DENOMINATORS)),
    "finetune.fade": (lambda v: 0 < v <= 1, "above 0, at most 1"),
    "finetune.perturb": (lambda v: 0 <= v <= 1, "from 0, the source, to 1, random"),
    "finetune.l2_sp": (lambda v: v >= 0, "0 or more"),
    "finetune.level_rate": (lambda v: 0 < v <= 1, "above 0, at most 1"),
    "finetune.focal": (lambda v: v >= 1, "at least 1"),
    "finetune.missed": (_unit, "0 … 1"),
    "finetune.hardest": (lambda v: 0 < v <= 1, "above 0, at most 1"),
    "finetune.soften": (lambda v: 0 < v <= 0.5, "above 0, at most 0.5"),
    "finetune.seeds": (
        lambda v: 0 < len(v) == len(set(v)) and all(_seed(s) for s in v),
        "one seed or more, distinct, 0 … 2³¹ − 1",
    ),
    "evaluate.overlap": (lambda v: 0 <= v < 1, "0 or more, under 1"),
    "evaluate.batch_size": (_positive, "at least 1"),
    "evaluate.collapse_dice": (_unit, "0 … 1"),
} | {
    f"{stage}.{field}": rule
    for stage in ("pretrain", "finetune")
    for field, rule in {
        "steps": (_positive, "at least 1"),
        "batch_size": (_positive, "at least 1"),
        "accumulate": (_positive, "at least 1"),
        "learning_rate": (_positive, "above 0"),
        "decay": (lambda v: v in ("cosine", "poly"), "cosine, poly"),
        "warmup": (_unit, "0 … 1"),
        "weight_decay": (lambda v: v >= 0, "0 or more"),
        "clip_gradient": (_positive, "above 0"),
        "foreground_patches": (_unit, "0 … 1"),
        "dice_weight": (lambda v: v >= 0, "0 or more"),
        "skip_nonfinite": (lambda v: v >= 0, "0 (stops at the first) or more"),
        "validate_every": (lambda v: v >= 0, "0 (never) or more"),
        "ema": (lambda v: 0 <= v < 1, "0 (none) or more, under 1"),
    }.items()
}
